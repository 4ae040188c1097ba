"""Compiles the files of tests/compile_errors, and checks that each line of wrong*.cpp with a mistake is an error with the
text behind it, and that right.cpp compiles without a warning.

usage: compile_errors.py TESTS_DIR INCLUDE_DIR -- COMPILER...
"""

import concurrent.futures
import pathlib
import re
import subprocess
import sys

tests, include = map(pathlib.Path, sys.argv[1:3])
compiler = sys.argv[sys.argv.index("--") + 1 :]
# No colours, no limits: texts are searched for.
flags = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", "-fsyntax-only"]
flags += ["-fdiagnostics-color=never", f"-I{include}"]


def faults_of_wrong(file, output):
    # An error, and the lines that say where it comes from: before it with g++, behind it with clang.
    lines = output.splitlines()
    errors = [i for i, line in enumerate(lines) if ": error: " in line]
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not (expected := re.search(r"; *(?:\}\);)? *// (.+)", line)):
            continue
        text, place = expected[1], f"{file.name}:{number}:"
        near = [lines[max(i - 40, 0) : i + 40] for i in errors if text in lines[i]]
        if not any(place in around for block in near for around in block):
            yield f"{file}:{number}: no error with '{text}'"


def faults_of(name):
    file = tests / "compile_errors" / name
    done = subprocess.run([*compiler, *flags, str(file)], capture_output=True, text=True, check=False)
    if name == "right.cpp":
        return [f"{file}: does not compile:\n{done.stderr}"] if done.returncode != 0 else []
    if done.returncode == 0:
        return [f"{file}: compiles"]
    faults = list(faults_of_wrong(file, done.stderr))
    return [*faults, done.stderr] if faults else []


with concurrent.futures.ThreadPoolExecutor(2) as pool:
    faults = sum(pool.map(faults_of, ["wrong.cpp", "wrong_braces.cpp", "right.cpp"]), [])
print("\n".join(faults) or "all mistakes are errors with their texts")
sys.exit(1 if faults else 0)
