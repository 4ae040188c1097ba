#!/usr/bin/env python3
"""Runs the tests that take too long for CI, one after another, and sums up at the end: a night's work.

    python3 tests/night.py                      # all
    python3 tests/night.py --only soak,fuzz     # some
    python3 tests/night.py --share 0.01         # a hundredth of everything, to see that it works

What each has printed is in FOLDER/NAME.log. A step whose program is missing is skipped (exit status 77), and said so.
docs/testing.md has the last result.
"""
import argparse
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
PYTHON = sys.executable


class Night:
    """The steps, each a list of commands, and what they need built."""

    def __init__(self, folder, share):
        self.folder, self.share = folder, share

    def amount(self, whole, least=1):
        return str(max(least, round(whole * self.share)))

    def build(self, name, arguments, targets=(), compiler=("gcc", "g++")):
        """The commands that build a folder of its own, and the folder."""
        at = self.folder / name
        setup = ["env", f"CC={compiler[0]}", f"CXX={compiler[1]}", "meson", "setup", str(at), str(ROOT), *arguments]
        return [*([] if (at / "build.ninja").exists() else [setup]), ["meson", "compile", "-C", str(at), *targets]], at

    def steps(self):
        plain = ["-Dbuildtype=debugoptimized", "-Dinterop=enabled", "-Dbenchmarks=disabled", "-Dexamples=disabled"]
        # g++ 12 takes Asio's own allocation of frames for a mistake once it optimises.
        fast, at = self.build("fast", [*plain, "-Dwerror=false", "-Dlong_tests=true"],
                              ["simulation", "model", "chaos", "soak", "cluster-worker"])
        yield "simulation", [*fast, [str(at / "tests/simulation"), "--seeds", self.amount(100_000), "--twice", "100"]]
        yield "model", [*fast, [str(at / "tests/model"), "--more", "1" if self.share >= 0.1 else "0"]]
        for version in "35":
            yield f"chaos-{version}", [*fast, [str(at / "tests/chaos"), "--version", version, "--messages",
                                               self.amount(1_000_000), "--faults", self.amount(4_000)]]
        yield "soak", [*fast, [str(at / "tests/soak"), "--seconds", self.amount(3600, 60)]]
        for broker in ["rabbitmq", "ejabberd"]:
            yield f"cluster-{broker}", [*fast, [PYTHON, "tests/cluster/cluster.py", broker, "--worker",
                                                str(at / "tests/cluster-worker"), "--messages", self.amount(1_000_000)]]

        asan, at = self.build("asan", [*plain, "-Db_sanitize=address,undefined"], ["simulation"])
        yield "simulation-asan", [*asan, [str(at / "tests/simulation"), "--seeds", self.amount(10_000), "--twice", "10"]]

        debug, at = self.build("debug-containers", ["-Dbenchmarks=disabled", "-Dcpp_args=-D_GLIBCXX_DEBUG", "-Dexamples=disabled"])
        yield "debug-containers", [*debug, ["meson", "test", "-C", str(at), "--no-rebuild", "--print-errorlogs"]]

        threads, at = self.build("threads", [*plain, "-Dlong_tests=true"], ["threads"], ("clang-19", "clang++-19"))
        yield "threads", [*threads, [str(at / "tests/threads"), "--sessions", self.amount(400), "--messages", "1000"]]

        yield "valgrind", [[PYTHON, "tests/valgrind.py"]]
        yield "fuzz", [[PYTHON, "tests/fuzz/run.py", "--seconds", self.amount(1200, 5)]]
        yield "mutation", [[PYTHON, "tests/mutation/mutation.py", "--folder", str(self.folder / "mutation"),
                            *([] if self.share >= 1 else ["--random", self.amount(1100)])]]
        yield "matrix", [[PYTHON, "tests/matrix/run.py"]]
        yield "coverage", [[PYTHON, "tests/coverage.py", "--folder", str(self.folder / "coverage")]]


def run(commands, log):
    """The status of the first command that fails, or 0."""
    with open(log, "w") as out:
        for command in commands:
            print("$", *command, file=out, flush=True)
            status = subprocess.run(command, cwd=ROOT, stdout=out, stderr=out).returncode
            if status != 0:
                return status
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help="names of steps, separated by commas")
    parser.add_argument("--share", type=float, default=1, help="the part of the work that is done: 1, or less")
    parser.add_argument("--folder", default="build-night", type=pathlib.Path, help="where to build, and to keep what is printed")
    parser.add_argument("--list", action="store_true", help="print the steps' names")
    options = parser.parse_args()
    folder = options.folder.absolute()
    steps = list(Night(folder, options.share).steps())
    if options.list:
        sys.exit(print(*(name for name, _ in steps), sep="\n"))
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, commands in steps:
        if options.only and name not in options.only:
            continue
        start = time.monotonic()
        status = run(commands, folder / f"{name}.log")
        said = (folder / f"{name}.log").read_text(errors="replace").rstrip().rsplit("\n", 1)[-1]
        result = {0: "ok", 77: "skipped"}.get(status, "FAILED")
        lines.append(f"{name:18} {result:8} {time.monotonic() - start:6.0f} s  {said}")
        print(lines[-1], flush=True)
    summary = "\n".join(lines) + "\n"
    (folder / "summary.txt").write_text(summary)
    sys.exit(any(" FAILED " in line for line in lines))


if __name__ == "__main__":
    main()
