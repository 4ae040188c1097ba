"""What has been measured, and the programs that measure it."""

import json
import re
import statistics
import subprocess

from groups.targets import TARGETS

MORE_IS_BETTER = re.compile(r"/s$|^share of the raw rate$|^sessions held$")


class Figures:
    """What has been measured: all values of a case, library and unit."""

    def __init__(self):
        self.values = {}
        self.failures = []
        self.expected = set()

    def add(self, case, who, unit, value):
        self.values.setdefault((case, unit), {}).setdefault(who, []).append(value)

    def add_lines(self, text):
        for line in text.splitlines():
            if line.startswith("{"):
                f = json.loads(line)
                self.add(f"{f['group']}/{f['case']}", f["who"], f["unit"], f["value"])

    def expect(self, group, who):
        """This library is installed: its figures must be there in the end."""
        self.expected.add((group, who))

    def missing(self):
        ran = {(case.split("/")[0], who) for (case, _), by_who in self.values.items() for who in by_who}
        return [f"{group}: {who} is installed and did not run" for group, who in sorted(self.expected - ran)]

    def median(self, case, unit, who):
        values = self.values.get((case, unit), {}).get(who)
        return statistics.median(values) if values else None

    def rows(self):
        for (case, unit), by_who in self.values.items():
            ours = by_who.get("runnel")
            if ours is None:
                continue
            for peer in [w for w in by_who if w != "runnel"] or [None]:
                yield self.row(case, unit, ours, peer, by_who.get(peer))

    def row(self, case, unit, ours, peer_name, peer):
        mine = statistics.median(ours)
        other = statistics.median(peer) if peer else None
        more = MORE_IS_BETTER.search(unit) is not None
        ratio = None
        if other is not None and mine and other:
            ratio = mine / other if more else other / mine
        target = TARGETS.get((case, unit))
        if isinstance(target, str):  # not worse than this peer
            target = self.median(case, unit, target)
        elif isinstance(target, tuple):  # the target that was set, or so many times what this program takes
            least, times, who = target
            floor = self.median(case, unit, who)
            target = least if floor is None else max(least, times * floor)
        # A few allocations of the first messages are not a cost of each.
        allowance = 0.0005 if unit.startswith("allocations") else 0
        met = None if target is None else mine >= target if more else mine <= target + allowance
        spread = (max(ours) - min(ours)) / mine if mine else 0
        return {"case": case, "ours": mine, "peer": other, "peer_name": peer_name, "unit": unit, "ratio": ratio,
                "target": target, "met": met, "spread": round(spread, 3)}


def run(figures, command, name, **more):
    """The process that has ended well; None if it has not, which is noted."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=900, **more)
    except subprocess.TimeoutExpired:
        figures.failures.append(f"{name}: no end")
        return None
    if done.returncode != 0:
        figures.failures.append(f"{name}: {done.returncode}: {done.stderr.strip()[-300:]}")
        return None
    return done
