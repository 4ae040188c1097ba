#!/usr/bin/env python3
"""Builds the fuzzers with clang, runs each for a time, and prints a table of what they did.

usage: tests/fuzz/run.py [--seconds 60] [--only NAME,...] [--at-once 1] [--folder build-fuzz]

Each begins with the seeds that the encoders make, and with what an earlier run has found: FOLDER/corpora is kept. An
input that makes one fail is left in FOLDER/found; the last line is the number of those that failed.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def build(folder, only):
    if not (folder / "build.ninja").exists():
        compiler = os.environ.get("CXX") or next(filter(shutil.which, ["clang++-19", "clang++"]), "clang++")
        options = ["-Dfuzz=true", "-Dexamples=disabled", "-Dbenchmarks=disabled", "-Dinterop=disabled"]
        environment = {**os.environ, "CXX": compiler, "CC": compiler.replace("clang++", "clang")}
        subprocess.run(["meson", "setup", folder, ROOT, *options], check=True, env=environment)
    listed = subprocess.run(["ninja", "-C", folder, "-t", "targets", "all"], check=True, capture_output=True, text=True)
    names = sorted(set(re.findall(r"^tests/fuzz/fuzz-(\w+):", listed.stdout, re.MULTILINE)))
    if only:
        names = [name for name in names if name in only]
    subprocess.run(["ninja", "-C", folder, "tests/fuzz/seeds", *(f"tests/fuzz/fuzz-{n}" for n in names)], check=True)
    return names


def fuzz(folder, name, seconds):
    corpus, found, seeds = folder / "corpora" / name, folder / "found", folder / "tests" / "fuzz" / "seeds"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    dictionary = [f"-dict={seeds / name}.dict"] if (seeds / f"{name}.dict").exists() else []
    command = [folder / "tests" / "fuzz" / f"fuzz-{name}", f"-max_total_time={seconds}", "-timeout=20", *dictionary]
    command += ["-print_final_stats=1", f"-artifact_prefix={found}/{name}-", corpus, seeds / name]
    done = subprocess.run(["nice", "-n", "19", *command], capture_output=True, text=True, errors="replace")

    def number(pattern):
        all_found = re.findall(pattern, done.stderr)
        return all_found[-1] if all_found else "?"

    if done.returncode != 0:
        (found / f"{name}.log").write_text(done.stderr)
    edges = number(r"cov: (\d+)") + " of " + number(r"\((\d+) inline 8-bit counters")
    executions, new = number(r"number_of_executed_units: +(\d+)"), number(r"new_units_added: +(\d+)")
    row = [name, executions, edges, number(r"ft: (\d+)"), new]
    print("| " + " | ".join(row) + (" |" if done.returncode == 0 else f" | FAILED: {found}/{name}.log"), flush=True)
    return done.returncode != 0


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=60, help="for each")
    options.add_argument("--only", type=lambda text: text.split(","))
    options.add_argument("--at-once", type=int, default=1)
    options.add_argument("--folder", type=pathlib.Path, default=ROOT / "build-fuzz")
    given = options.parse_args()
    folder = given.folder.resolve()
    names = build(folder, given.only)
    print("| fuzzer | executions | edges | features | new inputs |\n|---|---|---|---|---|", flush=True)
    with concurrent.futures.ThreadPoolExecutor(given.at_once) as pool:
        failed = sum(pool.map(lambda name: fuzz(folder, name, given.seconds), names))
    print(f"{failed} of {len(names)} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
