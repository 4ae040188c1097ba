#!/usr/bin/env python3
"""Runs the benchmarks beside the peers that are installed, and writes what they have measured to a file.

Usage: report.py [options] OUTPUT NAME=PROGRAM...

Each program prints one JSON object a line, {group, case, who, unit, value} (report.hpp), or speaks Google Benchmark's
JSON. OUTPUT becomes a list of {case, ours, peer, peer_name, unit, ratio, target, met, spread}: medians of RUNS runs;
the ratio is peer to ours where less is better, else ours to peer; the spread is that of ours, (largest - smallest) /
median; `met` is null where there is no target. Where `valgrind` is installed, instructions a message are counted too:
those of a long run less those of a short one, once, as they hardly vary; so is the memory of idle sessions.

Ends with 1 if a program fails, or a peer that is installed (one whose program is given) did not run.

In a release build, `meson compile -C build bench` runs all of it, for about twenty minutes, and writes
`benchmarks/report.json` there; `bench-quick` tries everything once in two minutes. What the compiler does not find by
itself of Boost.MQTT5 and async_mqtt is named with `-Dpeer_includes=FOLDER,...`.
"""

import argparse
import json
import pathlib
import resource
import shutil
import sys
import time

sys.dont_write_bytecode = True  # nothing is left behind in the source tree

from groups.codec import codec
from groups.crowd import crowd
from groups.figures import Figures
from groups.fleet import fleet
from groups.footprint import footprint
from groups.load import load
from groups.pieces import pieces
from groups.router import router
from groups.session import session, ws, wss
from groups.signer import signer
from groups.store import store
from groups.threads import threads
from groups.websocket import deflate, mask, websocket

GROUPS = {
    "codec": codec,
    "session": session,
    "ws": ws,
    "wss": wss,
    "store": store,
    "websocket": websocket,
    "deflate": deflate,
    "mask": mask,
    "signer": signer,
    "fleet": fleet,
    "crowd": crowd,
    "broker": load,
    "threads": threads,
    "pieces": pieces,
    "router": router,
    "footprint": footprint,
}


def number(value):
    return "" if value is None else f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def print_table(rows):
    print(f"{'case':<58} {'unit':<22} {'ours':>10} {'spread':>7} {'peer':>10}  {'':<14} {'ratio':>7} {'target':>8}")
    for r in rows:
        mark = {None: "", True: "met", False: "MISSED"}[r["met"]]
        print(f"{r['case']:<58} {r['unit']:<22} {number(r['ours']):>10} {r['spread']:>6.0%} {number(r['peer']):>10}  "
              f"{r['peer_name'] or '':<14} {number(r['ratio']):>7} {number(r['target']):>8} {mark}")
    judged = {(r["case"], r["unit"]): r["met"] for r in rows if r["met"] is not None}
    print(f"{sum(judged.values())} of {len(judged)} targets are met; missed:",
          ", ".join(f"{case} ({unit})" for (case, unit), met in judged.items() if not met) or "none")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--groups", default=",".join(GROUPS))
    parser.add_argument("--quick", action="store_true", help="one run of a tenth, and no instructions: to try it")
    parser.add_argument("--compiler", default="c++", help="for the footprint; arguments follow behind commas")
    parser.add_argument("--include", default=".", help="the folder of the headers")
    parser.add_argument("output")
    parser.add_argument("program", nargs="+")
    options = parser.parse_args()
    options.divide = 10 if options.quick else 1
    options.valgrind = shutil.which("valgrind") is not None and not options.quick
    if options.quick:
        options.runs = 1
    return options


def main():
    options = parse_arguments()
    # In Meson's target the programs are named after their files.
    programs = dict(p.split("=", 1) for p in options.program)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # for thousands of sessions
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))
    figures = Figures()
    for group in options.groups.split(","):
        begun = time.monotonic()
        print(f"... {group}", end="", file=sys.stderr, flush=True)
        GROUPS[group](figures, programs, options)
        print(f" {time.monotonic() - begun:.0f} s", file=sys.stderr)

    rows = sorted(figures.rows(), key=lambda r: (r["case"], r["unit"], r["peer_name"] or ""))
    pathlib.Path(options.output).write_text(json.dumps(rows, indent=1) + "\n")
    print_table(rows)
    failures = figures.failures + figures.missing()
    print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
