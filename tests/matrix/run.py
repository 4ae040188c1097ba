#!/usr/bin/env python3
"""Compiles and runs runnel with every compiler, machine and mode that can be had here, and says what was left out.

usage: run.py [--launcher COMMAND] [--required] [--steps STEP,...] [ROW...]
       run.py --print rules

A row is a compiler with flags; without arguments, all are tried. Its steps:
  headers  all headers at once, with the project's warnings as errors
  rules    the headers that need the standard library only, with rules.cpp
  tests    the tests that do no I/O
  drivers  some of the tests that do (DRIVERS)
  all_drivers
           all of them that need neither OpenSSL nor another library: many minutes
  plain    plain.cpp: sessions over TCP and WebSocket, with the broker in the same process
  quickstart
           examples/quickstart.cpp: a signed device over all four transports; skipped where there is no OpenSSL for the row
What a row needs and is not installed makes it skipped; docs/platforms.md has the packages, and the results.
The environment variable RUNNEL_NEWEST_ASIO names the folder of asio.hpp for the row of that name, and RUNNEL_CROSS_ROOT that
into which Debian's libssl3 and libssl-dev of other machines have been unpacked, where they are not installed.
--launcher is put before each compiler: ccache, say. With --required a row must not be skipped.
--print rules prints what the step "rules" compiles, for compilers that are not here.
"""

import argparse
import ast
import concurrent.futures
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TESTS = ROOT / "tests"
ASIO = ["-DASIO_STANDALONE", "-DASIO_HAS_CO_AWAIT=1", "-DASIO_HAS_STD_COROUTINE=1"]
WARNINGS = "-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror".split()
# Libraries of headers alone, which serve every machine.
PORTABLE = ["asio", "asio.hpp", "doctest", "nlohmann"]
OTHERS = re.compile(r"<(openssl/|sqlite3\.h|zlib\.h)")
POSIX = re.compile(r"<(sys/(?!types)|unistd\.h|netinet/|arpa/|asio/local/)")
HAS_CASES = re.compile(r"test cases:\s*\d+\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed")


class Row:
    def __init__(
        self, compiler, flags="", steps="headers", runner="", link="", libraries=True, portable=False, first="", boost=False,
        asio=None, multiarch="", posix=True,
    ):
        self.compiler = compiler
        self.flags = flags.split()
        self.steps = steps.split()
        self.runner = runner.split()
        self.link = link.split()
        self.libraries = libraries  # whether there are headers of OpenSSL, SQLite and zlib
        self.portable = portable  # whether the machine's own headers are not those in /usr/include
        self.first = first  # what stands before all headers
        self.boost = boost  # whether Asio is Boost's
        self.asio = asio  # the environment variable with the folder of another Asio
        self.multiarch = multiarch  # Debian's name of the machine, if it is not this one
        self.posix = posix  # whether all tests can be compiled


# What <windows.h> may define, whatever mingw's does. The standard library of g++ would not bear `min` and `max`, so that all
# that runnel includes of others comes before.
WINDOWS_FIRST = """\
#include <winsock2.h>
#include <windows.h>
{standard}#include <asio.hpp>
#if __has_include(<nlohmann/json.hpp>)
#include <nlohmann/json.hpp>
#endif
#define min(a, b) (((a) < (b)) ? (a) : (b))
#define max(a, b) (((a) > (b)) ? (a) : (b))
#undef small
#undef near
#undef far
#undef interface
#define small char
#define near
#define far
#define interface struct
"""


# Of the tests that need Asio, those that are run where "drivers" is a step.
DRIVERS = re.compile(r"coro/|mqtt/client/async_test")

# Under an emulator these would take many minutes: what they go through is long, and the same on every machine.
LONG = "*sequence*,*over processes*,*over cut connections*,*the server forgets*,*random*,*whatever happens*"


def cross(triplet, qemu):
    runner = f"{qemu} -L /usr/{triplet}"
    steps = "headers tests all_drivers plain quickstart"
    # Optimised, as the emulator takes its time: keys are derived 300,000 times.
    return Row(f"{triplet}-g++-12", "-Wno-psabi -O1", steps, runner, portable=True, multiarch=triplet)


ROWS = {
    "g++": Row("g++", "", "headers tests plain"),
    "g++ strict": Row(
        "g++", "-Weffc++ -Wold-style-cast -Wuseless-cast -Wnon-virtual-dtor -Wcast-align -Woverloaded-virtual", "headers"
    ),
    "g++ C++23": Row("g++", "-std=c++23", "headers tests all_drivers plain"),
    "g++ without RTTI": Row("g++", "-fno-rtti -DASIO_NO_TYPEID", "rules tests plain"),
    "g++ without exceptions": Row("g++", "-fno-exceptions -fno-rtti", "rules"),
    "clang 19 without exceptions": Row("clang++-19", "-fno-exceptions -fno-rtti", "rules"),
    "g++ without its extensions": Row("g++", "-DRUNNEL_GNU=0", "headers tests plain"),
    "g++ for size": Row("g++", "-Os -ffunction-sections -fdata-sections", "tests all_drivers plain", link="-Wl,--gc-sections"),
    "g++ link-time optimisation": Row("g++", "-O2 -flto=auto", "tests plain"),
    "g++ checked library": Row("g++", "-D_GLIBCXX_DEBUG -D_GLIBCXX_DEBUG_PEDANTIC", "tests all_drivers plain"),
    "g++ without deprecated Asio": Row("g++", "-DASIO_NO_DEPRECATED", "headers all_drivers plain"),
    "g++ Asio compiled once": Row("g++", "-DASIO_SEPARATE_COMPILATION", "all_drivers plain"),
    "g++ Boost.Asio": Row("g++", "-DRUNNEL_USE_BOOST_ASIO -fsanitize=address", "headers plain drivers", boost=True),
    "g++ Boost.Asio, all tests": Row("g++", "-DRUNNEL_USE_BOOST_ASIO", "all_drivers", boost=True),
    "g++ public Asio": Row("g++", "-DRUNNEL_ASIO_PUBLIC_ONLY=1", "headers plain all_drivers"),
    "g++ newest Asio": Row(
        "g++", "-DRUNNEL_ASIO_PUBLIC_ONLY=0", "headers plain all_drivers", asio="RUNNEL_NEWEST_ASIO"
    ),
    "g++ io_uring": Row("g++", "-DASIO_HAS_IO_URING -DASIO_DISABLE_EPOLL", "headers plain all_drivers", link="-luring"),
    "clang 15": Row("clang++-15", "", "headers tests all_drivers plain quickstart"),
    "clang 16": Row("clang++-16", "", "headers tests all_drivers plain quickstart"),
    "clang 19": Row("clang++-19", "", "headers plain quickstart"),
    "clang 19, libc++": Row("clang++-19", "-stdlib=libc++", "headers tests all_drivers plain quickstart"),
    "clang 19, libc++, C++23": Row("clang++-19", "-stdlib=libc++ -std=c++23", "headers"),
    # The kernel's headers are this machine's, where g++-12-multilib does not look: g++-multilib, which has them in /usr/include,
    # goes with no compiler for another machine.
    "i386": Row(
        "g++", "-m32 -idirafter /usr/include/x86_64-linux-gnu", "headers tests all_drivers plain quickstart",
        multiarch="i386-linux-gnu",
    ),
    "Windows": Row(
        "x86_64-w64-mingw32-g++-posix", "-Wa,-mbig-obj", "headers tests all_drivers plain quickstart", "wine",
        "-static -lws2_32 -lmswsock -lcrypt32 -lgdi32", libraries=False, portable=True, first=WINDOWS_FIRST,
        multiarch="x86_64-w64-mingw32", posix=False,
    ),
    "aarch64": cross("aarch64-linux-gnu", "qemu-aarch64"),
    "armhf": cross("arm-linux-gnueabihf", "qemu-arm"),
    "riscv64": cross("riscv64-linux-gnu", "qemu-riscv64"),
    "s390x": cross("s390x-linux-gnu", "qemu-s390x"),
}


class Failure(Exception):
    pass


def run(command, **options):
    done = subprocess.run([str(w) for w in command], capture_output=True, text=True, check=False, errors="replace", **options)
    if done.returncode != 0:
        failed_cases = [part for part in done.stdout.split("=" * 79) if "ERROR:" in part]  # of doctest's report
        lines = ("\n".join(failed_cases) or done.stdout).splitlines() + done.stderr.splitlines()
        if len(lines) > 80:  # a compiler says first what is wrong, a test last
            lines = [*lines[:40], "...", *lines[-40:]]
        output = "\n".join(lines)
        raise Failure(f"$ {shlex.join(map(str, command))}\n{output}")
    return done.stdout


def reaches(header, what, seen, root=ROOT / "include", included=r"#include <(runnel/[^>]+)>"):
    """Whether a header includes, however indirectly, something that matches."""
    if header in seen:
        return False
    seen.add(header)
    text = (root / header).read_text()
    return bool(what.search(text)) or any(reaches(h, what, seen, root, included) for h in re.findall(included, text))


def drivers_for(row):
    """Their tests, without those whose own files are for POSIX, where that is not to be had."""
    files = test_list("drivers_test_sources")
    if row.posix:
        return files
    return [f for f in files if not reaches(f, POSIX, set(), TESTS, r'#include "((?!\.)[^"]+)"')]


def all_headers(row):
    lines = []
    for line in (TESTS / "all_headers.cpp").read_text().splitlines():
        included = re.match(r"#include <(runnel/.*)>", line)
        if not row.libraries:
            if included and reaches(included[1], OTHERS, set()):
                continue
            line = line.replace("runnel::wss", "runnel::ws")
        lines.append(line)
    return "\n".join(lines) + "\n"


def standard_headers():
    text = "".join(path.read_text() for path in (ROOT / "include").rglob("*.hpp"))
    return "".join(f"#include <{name}>\n" for name in sorted(set(re.findall(r"^#include <(\w+)>", text, re.MULTILINE))))


def rules_headers():
    """Those that do no I/O, as tests/house_rules.py knows them."""
    tree = ast.parse((TESTS / "house_rules.py").read_text())
    known = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("DRIVERS", "NOT_DRIVERS"):
            known[node.targets[0].id] = ast.literal_eval(node.value)

    def under(path, paths):
        return any(path.startswith(p) if p.endswith("/") else path == p for p in paths)

    include = ROOT / "include/runnel"
    paths = sorted(p.relative_to(include).as_posix() for p in include.rglob("*.hpp"))
    pure = (p for p in paths if not under(p, known["DRIVERS"]) or under(p, known["NOT_DRIVERS"]))
    left_out = re.compile(OTHERS.pattern + "|<nlohmann/")
    return "".join(f"#include <runnel/{p}>\n" for p in pure if not reaches(f"runnel/{p}", left_out, set()))


def test_list(name):
    text = (TESTS / "meson.build").read_text()
    return re.findall(r"'(\S+\.cpp)'", re.search(rf"^{name} = \[(.*?)^\]", text, re.DOTALL | re.MULTILINE)[1])


def boost_as_asio(folder):
    """Headers by which tests that say `asio` get Boost's. runnel's own headers name none of these."""
    boost = pathlib.Path("/usr/include/boost")
    for path in [boost / "asio.hpp", *(boost / "asio").rglob("*.hpp")]:
        header = path.relative_to(boost)
        if not {"detail", "impl"} & set(header.parts):
            (folder / header).parent.mkdir(parents=True, exist_ok=True)
            text = f"#pragma once\n#include <boost/{header}>\nnamespace asio = boost::asio;\n"
            (folder / header).write_text(text)
    return folder


class Trial:
    def __init__(self, row, scratch, launcher):
        self.row, self.scratch = row, scratch
        flags = ["-std=c++20", *ASIO, *WARNINGS, *row.flags, f"-I{ROOT / 'include'}"]
        if row.portable:
            portable = scratch / "portable"
            portable.mkdir()
            for name in PORTABLE:
                if (found := pathlib.Path("/usr/include") / name).exists():
                    (portable / name).symlink_to(found)
            flags += ["-isystem", portable]
        if row.boost:
            flags += ["-isystem", boost_as_asio(scratch / "boost")]
        if row.asio:
            flags += ["-isystem", os.environ[row.asio]]
        self.compiler = [*launcher, row.compiler, *flags]
        if row.libraries and (row.portable or "-m32" in row.flags):
            # For the headers of OpenSSL, SQLite and zlib alone: their configuration is that of this machine.
            multiarch = run(["g++", "-print-multiarch"]).strip()
            self.others = ["-idirafter", "/usr/include", "-idirafter", f"/usr/include/{multiarch}"]
        else:
            self.others = []

    def syntax(self, name, text):
        source = self.scratch / name
        source.write_text(self.row.first.replace("{standard}", standard_headers()) + text)
        run([*self.compiler, *self.others, "-fsyntax-only", source])
        return "ok"

    def headers(self):
        return self.syntax("headers.cpp", all_headers(self.row))

    def rules(self):
        source = self.scratch / "rules.cpp"
        source.write_text(rules_headers() + (HERE / "rules.cpp").read_text())
        done = subprocess.run(self.link([source], "rules"), capture_output=True, text=True, check=False)
        # rules.cpp ends with what throws, which nothing catches.
        if done.stdout != "rules: ok\n" or done.returncode == 0:
            raise Failure(f"rules.cpp says: {done.stdout}{done.stderr}, and ends with {done.returncode}")
        return "ok"

    def link(self, sources, program, includes=(), libraries=()):
        if "-DASIO_SEPARATE_COMPILATION" in self.row.flags:
            asio = self.scratch / "asio.cpp"
            asio.write_text("#include <asio/impl/src.hpp>\n")
            sources = [*sources, asio]
        objects = [self.scratch / f"{program}-{number}.o" for number in range(len(sources))]

        def compile_one(source, made):
            run([*self.compiler, f"-I{TESTS}", *includes, "-c", source, "-o", made])

        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(compile_one, sources, objects))
        path = self.scratch / f"{program}.exe"
        run([self.row.compiler, *self.row.flags, *objects, "-o", path, "-pthread", *self.row.link, *libraries])
        return [*self.row.runner, path]

    def tests(self):
        return self.run_tests("tests", test_list("test_sources"), 15)

    def drivers(self):
        return self.run_tests("drivers", [file for file in drivers_for(self.row) if DRIVERS.match(file)], 4)

    def all_drivers(self):
        return self.run_tests("drivers", drivers_for(self.row), 10)

    def run_tests(self, name, files, at_once):
        sources = [TESTS / "main.cpp", TESTS / "support/allocation_count.cpp"]
        for begin in range(0, len(files), at_once):
            sources.append(self.scratch / f"{name}-{begin}.cpp")
            part = [TESTS / file for file in files[begin : begin + at_once]]
            run([sys.executable, TESTS / "together.py", sources[-1], TESTS, *part])
        arguments = [f"--test-case-exclude={LONG}"] if self.row.runner[:1] and self.row.runner[0].startswith("qemu") else []
        cases = HAS_CASES.search(run([*self.link(sources, name), *arguments], cwd=self.scratch))
        if not cases:
            raise Failure("the tests did not say how many there were")
        return f"{cases[1]} passed"

    def plain(self):
        said = run(self.link([HERE / "plain.cpp"], "plain"), timeout=300)
        if said.count(": ok") != 2:
            raise Failure(f"plain.cpp says: {said}")
        return "ok"

    def quickstart(self):
        includes, libraries = [], ["-lssl", "-lcrypto"]
        if self.row.multiarch:
            usr = pathlib.Path(os.environ.get("RUNNEL_CROSS_ROOT", "/")) / "usr"
            folder = usr / "lib" / self.row.multiarch
            if not any((folder / name).exists() for name in ("libssl.so", "libssl.a")):
                return "skipped, there is no libssl-dev"
            includes = ["-idirafter", usr / "include" / self.row.multiarch, "-idirafter", usr / "include"]
            libraries = [f"-L{folder}", f"-Wl,-rpath,{folder}", *libraries, *self.row.link]  # of a static one, too
        said = run(self.link([ROOT / "examples/quickstart.cpp"], "quickstart", includes, libraries), timeout=300)
        if said.count("received {") != 4:
            raise Failure(f"quickstart.cpp says: {said}")
        return "ok"


def missing(row):
    wanted = [row.compiler, *row.runner[:1]]
    if row.boost and not compiles([row.compiler], "#include <boost/version.hpp>\n#if BOOST_VERSION < 108100\n#error\n#endif\n"):
        return ["Boost 1.81"]
    if "-luring" in row.link and not compiles([row.compiler], "#include <liburing.h>\n"):
        return ["liburing-dev"]
    if row.asio and not (pathlib.Path(os.environ.get(row.asio, "")) / "asio.hpp").is_file():
        return [f"asio.hpp in ${row.asio}"]
    return [name for name in wanted if not shutil.which(name)] or (
        ["32-bit libraries"] if "-m32" in row.flags and not compiles([row.compiler, *row.flags]) else []
    ) or (["libc++"] if "-stdlib=libc++" in row.flags and not compiles([row.compiler, "-stdlib=libc++"]) else [])


def compiles(command, text="#include <string>\n"):
    command = [*command, "-fsyntax-only", "-x", "c++", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    return done.returncode == 0


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1].removeprefix("usage: "))
    parser.add_argument("--launcher", default="", type=shlex.split)
    parser.add_argument("--required", action="store_true")
    parser.add_argument("--steps", type=lambda text: text.split(","))
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--print", choices=["rules"])
    options = parser.parse_args()
    if options.print:
        return print(rules_headers() + (HERE / "rules.cpp").read_text(), end="")
    failed = 0
    for name in options.rows or ROWS:
        row = ROWS[name]
        if absent := missing(row):
            print(f"{name}: skipped, there is no {', '.join(absent)}", flush=True)
            failed += options.required
            continue
        begun, results = time.monotonic(), []
        with tempfile.TemporaryDirectory() as scratch:
            trial = Trial(row, pathlib.Path(scratch), options.launcher)
            for step in row.steps:
                if options.steps and step not in options.steps:
                    continue
                try:
                    results.append(f"{step} {getattr(trial, step)()}")
                except (Failure, subprocess.TimeoutExpired) as failure:
                    failed += 1
                    results.append(f"{step} FAILED\n{failure}\n")
        print(f"{name}: {', '.join(results)} ({time.monotonic() - begun:.0f} s)", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
