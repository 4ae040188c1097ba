#!/usr/bin/env python3
"""Runs the tests of lifetimes under valgrind: streams, opening, sessions that go, close, and meet faults.

AddressSanitizer, under which all tests run, sees what is used after it has been freed; valgrind also sees what is used
before it has been set, in OpenSSL too. It is slow, so these tests are compiled without a sanitizer, and are not part of
`meson test`. The compiler is CXX, or g++.
"""
import argparse
import concurrent.futures
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = ["*lifetime*_test.cpp", "session_close_test.cpp", "session_fault_test.cpp"]
SUPPORT = ["tests/main.cpp", "tests/support/allocation_count.cpp"]
# Optimised a little: half the time to run, and still the lines of the source.
FLAGS = "-std=c++20 -O1 -g -DASIO_STANDALONE -Iinclude -Itests".split()
LIBRARIES = "-pthread -lssl -lcrypto -lz".split()
VALGRIND = "valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect".split()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="tests to run in the place of those, as tests/mqtt/x_test.cpp")
    parser.add_argument("--folder", help="where to keep what is compiled, so that it is not compiled again")
    options = parser.parse_args()
    os.chdir(ROOT)
    files = options.files or sorted({str(f) for name in FILES for f in pathlib.Path("tests").rglob(name)})
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(run(files, pathlib.Path(options.folder or scratch)))


def run(files, folder):
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    jobs = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(jobs) as workers:
        objects = list(workers.map(lambda f: compile_one(f, folder), SUPPORT + files))
        programs = list(workers.map(lambda o: link(o, objects[: len(SUPPORT)]), objects[len(SUPPORT) :]))
        print(f"compiled {len(files)} tests: {time.monotonic() - start:.0f} s", flush=True)
        start = time.monotonic()
        failed = sum(workers.map(lambda pair: check(*pair), zip(files, programs)))
    print(f"{len(files) - failed} passed, {failed} failed: {time.monotonic() - start:.0f} s")
    return 1 if failed else 0


def compile_one(file, folder):
    object_file = folder / (file.replace("/", "_") + ".o")
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    subprocess.run([*compiler, *FLAGS, "-c", file, "-o", object_file], check=True)
    return object_file


def link(object_file, support):
    program = object_file.with_suffix("")
    subprocess.run(["g++", object_file, *support, "-o", program, *LIBRARIES], check=True)
    return program


def check(file, program):
    start = time.monotonic()
    done = subprocess.run([*VALGRIND, program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(f"{file}: {'ok' if done.returncode == 0 else 'FAILED'}, {time.monotonic() - start:.0f} s", flush=True)
    if done.returncode != 0:
        print(done.stdout, flush=True)
    return done.returncode != 0


if __name__ == "__main__":
    main()
