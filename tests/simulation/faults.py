"""Puts faults that the library once had back, one at a time, and tells which of them the simulation finds.

usage: faults.py [--folder DIR] [--seeds 2000] [--from 1] [--only N[,N...]] [--list]

The faults are in faults.txt beside this one; all are built in at once, as ../mutation/mutation.py does it. The simulation
is not told which of them it has: it runs seed after seed until one fails. The exit code is 1 if a fault was not found.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "mutation"))
import mutation  # noqa: E402

LIMIT = 900  # seconds: a fault may keep a run from ending


def build(folder):
    out = folder / "build"
    if not (out / "build.ninja").exists():
        subprocess.run(
            ["meson", "setup", out, folder / "tree", "-Db_sanitize=address", "-Dwarning_level=0"]
            + ["-Dwerror=false", "-Dcpp_args=-w", "-Dinterop=disabled", "-Dexamples=disabled", "-Dbenchmarks=disabled"],
            check=True,
        )
    subprocess.run(["ninja", "-C", out, "tests/simulation"], check=True)
    return out / "tests/simulation"


def find(executable, number, options):
    """What has been found, or nothing."""
    command = [executable, "--from", str(options.first), "--seeds", str(options.seeds), "--until-one-fails"]
    environment = {**os.environ, "RUNNEL_MUTANT": str(number)}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", timeout=LIMIT)
        output, code = done.stdout + done.stderr, done.returncode
    except subprocess.TimeoutExpired as e:
        output, code = (e.stdout or b"").decode(errors="replace"), None
    if code == 0:
        return ""
    seed = (re.findall(r"^seed (\d+)", output, re.M) or ["?"])[-1]
    why = re.findall(r"^seed \d+: (.*)|^(?:==\d+==)?ERROR: (.*)|Assertion (.*)", output, re.M)
    text = next((part for found in why for part in found if part), "crashed" if code else "never ends")
    return f"seed {seed}: {text}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=mutation.ROOT / "build-faults", help="where to build")
    parser.add_argument("--seeds", type=int, default=2000, help="so many for each fault, at most")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed")
    parser.add_argument("--only", help="these faults: numbers, with commas")
    parser.add_argument("--list", action="store_true", help="check the list, print it, and build nothing")
    options = parser.parse_args()

    faults, texts = mutation.read_faults([HERE / "faults.txt"])
    chosen = [f for f in faults if not f.is_other_place]
    if options.only:
        chosen = [f for f in chosen if str(f.number) in options.only.split(",")]
    if options.list:
        for f in chosen:
            print(f"{f.number:4} {f.meaning}")
        return 0
    folder = options.folder.resolve()
    mutation.make_tree(folder, faults, texts)
    executable = build(folder)
    if wrong := find(executable, 0, options):
        raise mutation.Wrong(f"without a fault: {wrong}")
    missed = 0
    for f in chosen:
        found = find(executable, f.number, options)
        missed += not found
        print(f"{f.number:4} {f.meaning}\n     {found or 'not found'}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} found, with {options.seeds} seeds each")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except mutation.Wrong as error:
        sys.exit(f"faults.py: {error}")
