#!/usr/bin/env python3
"""Which lines and branches of include/runnel the tests execute: builds them with clang, runs them, prints a table by folder.

usage: tests/coverage.py [--tests core,mqtt,...] [--in PART,...] [--missed] [--folder build-coverage]

--tests   the executables to build and run, without `test-`; all that need no server, if it is not given
--in      only headers whose path has one of these in it
--missed  prints, for each header, the lines and the branches that are not executed
--text    the same with the lines themselves

Needs clang, llvm-profdata and llvm-cov (Debian: clang-19, llvm-19). A line counts as executed, and a branch as taken, if
any instantiation of a template does so. Code that no executable uses is no line at all: choose those that use it.
"""

import argparse
import collections
import json
import os
import pathlib
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
INCLUDE = ROOT / "include" / "runnel"
WITHOUT_SERVER = ["pure", "drivers", "tls", "zlib", "json", "sqlite"]


def tool(name):
    found = next(filter(None, (shutil.which(f"{name}{suffix}") for suffix in ["-19", "", "-18", "-17"])), None)
    return found or sys.exit(f"{name} is not installed")


def build(folder, tests):
    if not (folder / "build.ninja").exists():
        compiler = os.environ.get("CXX") or tool("clang++")
        environment = {**os.environ, "CXX": compiler, "CC": compiler.replace("clang++", "clang")}
        flags = "-fprofile-instr-generate -fcoverage-mapping"
        subprocess.run(
            ["meson", "setup", folder, ROOT, "--buildtype=plain", "-Dexamples=disabled", "-Dbenchmarks=disabled",
             "-Dinterop=disabled", f"-Dcpp_args={flags}", f"-Dcpp_link_args={flags}"], check=True, env=environment)
    targets = [f"tests/test-{test}" for test in tests]
    subprocess.run(["ninja", "-C", folder, *targets], check=True)
    return [folder / target for target in targets]


def run(programs, folder):
    profiles = []
    for program in programs:
        profile = folder / f"{program.name}.profraw"
        profiles.append(profile)
        environment = {**os.environ, "LLVM_PROFILE_FILE": str(profile)}
        if subprocess.run([program, "-m"], env=environment, stdout=subprocess.DEVNULL).returncode != 0:
            print(f"{program.name} has failed", file=sys.stderr)
    merged = folder / "all.profdata"
    subprocess.run([tool("llvm-profdata"), "merge", "-sparse", *profiles, "-o", merged], check=True)
    return merged


def measured(programs, merged):
    """For each header: how often each line has been executed, and each side of each branch."""
    lines = collections.defaultdict(dict)
    branches = collections.defaultdict(lambda: collections.defaultdict(lambda: [0, 0]))
    for program in programs:
        export = [tool("llvm-cov"), "export", program, f"-instr-profile={merged}", str(INCLUDE)]
        text = subprocess.run([*export, "-format=lcov"], check=True, capture_output=True, text=True).stdout
        header = None
        for line in text.splitlines():
            if line.startswith("SF:"):
                header = pathlib.Path(line[3:]).resolve()
            elif line.startswith("DA:"):
                number, count = map(int, line[3:].split(",")[:2])
                lines[header][number] = max(count, lines[header].get(number, 0))
        exported = json.loads(subprocess.run(export, check=True, capture_output=True, text=True).stdout)
        # Branches of templates are told of each function, by its files.
        for function in exported["data"][0]["functions"]:
            names = [pathlib.Path(name).resolve() for name in function["filenames"]]
            for begin, column, _, _, taken, not_taken, file, *_ in function["branches"]:
                sides = branches[names[file]][begin, column]
                sides[0] += taken
                sides[1] += not_taken
    return lines, branches


def percent(part, whole):
    return f"{100 * part / whole:.1f} %" if whole else "-"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=lambda t: t.split(","), default=WITHOUT_SERVER)
    parser.add_argument("--in", dest="within", type=lambda t: t.split(","), default=[""])
    parser.add_argument("--missed", action="store_true")
    parser.add_argument("--text", action="store_true")
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build-coverage")
    given = parser.parse_args()
    folder = given.folder.resolve()
    programs = build(folder, given.tests)
    lines, branches = measured(programs, run(programs, folder))

    table = collections.defaultdict(lambda: [0, 0, 0, 0])
    for header in sorted(lines):
        if not header.is_relative_to(INCLUDE):
            continue
        name = header.relative_to(INCLUDE).as_posix()
        if not any(part in name for part in given.within):
            continue
        text = header.read_text().splitlines()
        missed = [n for n, count in sorted(lines[header].items()) if count == 0]
        one_sided = sorted((at, sides) for at, sides in branches[header].items() if 0 in sides)
        for key in (header.parent.relative_to(INCLUDE).as_posix(), "all"):
            row = table[key]
            row[0] += len(lines[header]) - len(missed)
            row[1] += len(lines[header])
            row[2] += sum(count > 0 for sides in branches[header].values() for count in sides)
            row[3] += 2 * len(branches[header])
        if (given.missed or given.text) and (missed or one_sided):
            print(f"{name}: lines {missed}, branches {[f'{line}:{column}' for (line, column), _ in one_sided]}")
        if given.text:
            for n in missed:
                print(f"    {n}: {text[n - 1].strip()}")
    print("| folder | lines | | branches | |\n|---|---|---|---|---|")
    for key, (hit, all_lines, taken, sides) in sorted(table.items(), key=lambda item: (item[0] == "all", item[0])):
        print(f"| {key} | {hit} of {all_lines} | {percent(hit, all_lines)} | {taken} of {sides} | {percent(taken, sides)} |")


if __name__ == "__main__":
    main()
