"""Packets encoded and decoded."""

import re
import shutil

from groups.figures import run
from groups.google import google
from groups.targets import TARGETS


def codec(figures, programs, runs):
    google(figures, programs["codec"], runs, lambda name: ("runnel", "codec/" + name), "ns")
    if not shutil.which("valgrind"):
        return
    for case in [c for c, unit in TARGETS if c.startswith("codec/") and unit == "instructions"]:
        totals = []
        for n in ("1000", "11000"):
            command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", programs["codec"],
                       "--count", case.removeprefix("codec/"), n]
            done = run(figures, command, case)
            if done:
                totals.append(int(re.search(r"Collected : (\d+)", done.stderr).group(1)))
        if len(totals) == 2:
            figures.add(case, "runnel", "instructions", (totals[1] - totals[0]) / 10_000)
