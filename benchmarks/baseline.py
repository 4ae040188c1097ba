#!/usr/bin/env python3
"""Holds what can be counted to baseline.json: fails if something has grown by more than 3 %.

Usage: baseline.py [--update] --compiler COMPILER --include FOLDER NAME=PROGRAM...

Counted are instructions (by callgrind, without what the other side does), allocations and system calls a message,
memory of an idle session, and the code of examples/hello.cpp. All of it comes out the same each time with g++ 12 on
Debian 12 (x86-64), the figures there; with anything else it is printed, and nothing fails. Who makes something grow on
purpose changes the figure in the same commit: `meson compile -C build baseline-update` writes them all. Less by more
than 3 % is told, so that what has been won is kept, too.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # nothing is left behind in the source tree

HERE = pathlib.Path(__file__).resolve().parent
BASELINE = HERE / "baseline.json"
GROWTH = 0.03
# Sessions at which somebody looks on.
WATCHED = ("traced", "quiet", "metered")
# Messages of the shorter run; the other one is three times as long.
CASES = {
    f"{below}/{case}": messages
    for case, messages, belows in (
        ("publish_qos0_try", 10_000, ("session", "ws")),
        ("publish_qos0", 10_000, ("session", "ws", "any", *WATCHED)),
        ("publish_qos1_window_20", 10_000, ("session", "ws", "any")),
        ("publish_qos1_window_1000", 10_000, ("session", "ws")),
        ("publish_qos2_window_20", 10_000, ("session", "ws")),
        ("publish_qos2_window_1000", 10_000, ("session", "ws")),
        ("receive_qos0_view", 20_000, ("session", "ws", "any", *WATCHED)),
        ("receive_qos0", 20_000, ("session", "ws")),
    )
    for below in belows
}
WARM_UP = 1.2  # a fifth more messages come before those that are counted
IDLE = 200


def output_of(command, **more):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, timeout=900, **more).stdout


def instructions(program, case, messages):
    """Those of a long run less those of a short one, a message."""
    totals = []
    for n in (messages, 3 * messages):
        command = ["valgrind", "--tool=callgrind", "--toggle-collect=*other_side_turn*", "--collect-atstart=yes",
                   "--callgrind-out-file=/dev/null", program, case, str(n)]
        done = subprocess.run(command, check=True, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              timeout=900)
        totals.append(int(re.search(r"Collected : (\d+)", done.stderr).group(1)))
    return (totals[1] - totals[0]) / (2 * messages * WARM_UP)


def of_messages(programs):
    def program(case):
        below = case.split("/")[0]
        return programs["baseline_any" if below == "any" else "baseline_watched" if below in WATCHED else "baseline"]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:  # whatever runs beside, the counts are the same
        counted = list(pool.map(lambda case: instructions(program(case[0]), *case), CASES.items()))
    for (case, messages), value in zip(CASES.items(), counted):
        yield f"{case}: instructions", round(value, 1)
        for line in output_of([program(case), case, str(5 * messages)]).splitlines():
            found = json.loads(line)
            if found["unit"] in ("allocations/message", "system calls/message"):
                yield f"{case}: {found['unit'].split('/')[0]}", round(found["value"], 4)


def of_idle_sessions(program, peer):
    with subprocess.Popen([peer], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other_side:
        port = other_side.stdout.readline().strip()
        lines = output_of([program, port, "idle", str(IDLE)]).splitlines()
        other_side.stdin.close()
    found = {f["unit"]: f["value"] for f in map(json.loads, lines)}
    if found["sessions"] != 0:
        sys.exit("idle sessions were lost")
    yield "session/idle: bytes", round(found["bytes/session"])


def of_code(compiler, include):
    with tempfile.TemporaryDirectory() as folder:
        for optimisation in ("-O2", "-Os"):
            hello = f"{folder}/hello"
            subprocess.run([*compiler, "-std=c++20", optimisation, "-DASIO_STANDALONE", "-I", include, "-pthread",
                            str(HERE.parent / "examples/hello.cpp"), "-o", hello], check=True)
            text, data = output_of(["size", hello]).splitlines()[1].split()[:2]
            yield f"hello.cpp {optimisation}: bytes of code", int(text) + int(data)


def is_the_machine_of(baseline, compiler):
    system = pathlib.Path("/etc/os-release").read_text() if os.path.exists("/etc/os-release") else ""
    version = output_of([*compiler, "-dumpfullversion"]) if "clang" not in compiler[-1] else ""
    return (platform.machine() == "x86_64" and "ID=debian" in system.splitlines() and
            'VERSION_ID="12"' in system.splitlines() and version.split(".")[0] == baseline["g++"])


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write what is counted to baseline.json")
    parser.add_argument("--compiler", default="g++", help="for hello.cpp; arguments follow behind commas")
    parser.add_argument("--include", default=str(HERE.parent / "include"), help="the folder of the headers")
    parser.add_argument("program", nargs="+")
    return parser.parse_args()


def main():
    options = parse_arguments()
    programs = dict(p.split("=", 1) for p in options.program)
    compiler = [word for word in options.compiler.split(",") if os.path.basename(word) != "ccache"]
    baseline = json.loads(BASELINE.read_text())
    holds = is_the_machine_of(baseline, compiler)
    figures, before = {}, baseline["figures"]
    grown, fallen = [], []
    for generator in (of_messages(programs), of_idle_sessions(programs["session"], programs["session_peer"]),
                      of_code(compiler, options.include)):
        for name, value in generator:
            figures[name] = value
            was = before.get(name)
            change = "" if was is None else f"{was:>12,.10g}  {'' if not was else format(value / was - 1, '+.1%')}"
            print(f"{name:<50} {value:>12,.10g} {change}", flush=True)
            if was is None or value > was * (1 + GROWTH) + 0.00005:
                grown.append(name)
            elif value < was * (1 - GROWTH) - 0.00005:
                fallen.append(name)
    if options.update:
        BASELINE.write_text(json.dumps({**baseline, "figures": figures}, indent=1) + "\n")
        return 0
    if not holds:
        print("not Debian 12 with its g++ on x86-64: nothing to compare with")
        return 0
    if fallen:
        print("less than in baseline.json, keep it there:", *fallen, sep="\n  ")
    missing = sorted(before.keys() - figures.keys())
    if grown or missing:
        print("more than in baseline.json, or not there:", *grown, *missing, sep="\n  ")
    return 1 if grown or missing else 0


if __name__ == "__main__":
    sys.exit(main())
