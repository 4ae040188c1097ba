"""Puts single faults into the library, one at a time, and tells which of them the tests notice.

usage: mutation.py [--folder DIR] [--list] [--only N[,N...]] [--in TEXT] [--random COUNT --seed S] [--equivalent]
                   [--tests NAME[,NAME...]] [--at-once 2]

--random leaves out those that the list says are open; with --tests it chooses only faults that these executables come by and
are known to notice.

The faults are in the text files beside this one (README.md there says how they are written). All are built in at once:
each place asks the environment, RUNNEL_MUTANT=N, whether it is to be wrong, so that a run of a fault costs no rebuild.
The test executables are built in DIR (default: build-mutation) from the sources as they are, with a copy of include/ that
has the faults. First each runs without a fault, which tells how long each test case takes and which faults it comes by; then
each fault is tried with the test cases that come by it, those of the nearest executable first, until one fails. At the end
there is a table, and the exit code is 1 if a fault was not noticed that is not argued to be equivalent.
"""

import argparse
import bisect
import collections
import concurrent.futures
import dataclasses
import os
import pathlib
import random
import re
import resource
import signal
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
HEADER = "mutation.hpp"

HEADER_TEXT = """\
#pragma once

#include <cstdlib>
#include <type_traits>

namespace runnel_mutation {

// reached.hpp reads it. Whole pages of any usual size, so that it can be shared with child processes.
alignas(65536) inline constinit unsigned char reached[%d] = {};

inline int read_number() {
    char const* const text = std::getenv("RUNNEL_MUTANT");
    return text != nullptr ? std::atoi(text) : 0;
}
inline int const number = read_number();

// Whether the place of fault `n` is to be wrong. Not what the compiler computes: there nothing is.
constexpr bool is(int n) noexcept {
    if (std::is_constant_evaluated()) return false;
    reached[n] = 1;
    return n == number;
}

}  // namespace runnel_mutation
"""

# Where the tests of a folder's headers are, nearest first. All others follow.
NEAREST = {
    "mqtt/protocol": ["pure"],
    "mqtt/codec": ["pure"],
    "mqtt/client": ["pure", "drivers", "tls"],
    "mqtt/store": ["pure", "sqlite", "drivers"],
    "websocket/protocol": ["pure", "drivers", "zlib"],
    "websocket": ["pure", "drivers", "virtual-time", "zlib", "tls"],
    "transport/tls": ["tls"],
    "transport": ["pure", "drivers", "tls"],
    "aliyun/alink": ["pure", "json"],
    "aliyun": ["pure", "drivers", "json"],
}
# Programs that are no test cases, tried last, for the faults of a folder: with arguments, and how many seconds they may take.
PROGRAMS = {
    "model": ("mqtt/protocol", [], 300),
    "simulation": ("mqtt/", ["--named", ROOT / "tests/simulation/seeds.txt", "--seeds", "500", "--until-one-fails"], 200),
}
# How long test cases may need for a fault: so many times what they need without, and seconds more.
SLOWER, MORE = 4, 10
SAMPLED = 30  # how many times longer a test may take that tries at all points
STEPS = 0.02, 0.2  # seconds: test cases that take longer are tried after the others
LEFT_OUT = "100?000 small messages*"  # test cases that are about the cost, and wait too long without optimisation
AT_ONCE = 300  # test cases: a command line has an end
HIGHEST = 131072  # numbers of faults are below this, which reached.hpp knows, too: a multiple of 65536
KEYS = "- ", "+ ", "~ ", "> ", "? "  # of a fault, behind what it means
MEMORY = 4 << 30  # bytes of address space; a fault may well allocate for ever


class Wrong(Exception):
    """The list is not what it should be."""


@dataclasses.dataclass
class Fault:
    source: str  # where in the list
    file: str
    meaning: str
    old: str
    new: str
    equivalent: str
    elsewhere: str  # the only executables that notice it, where others come by
    open: str  # why it is known not to be noticed yet
    number: int
    is_other_place: bool = False  # of the fault before, which has the same number
    begin: int = 0
    end: int = 0
    # What has been found.
    outcome: str = ""
    by: str = ""

    def is_statement(self, text):
        part = text[self.begin : self.end].strip()
        return part.endswith(";") or re.match(r"\{|(if|for|while|do|switch|try)\b", part) is not None


def read_list(path):
    """The faults of one text file."""
    file, blocks, block, first = None, [], None, None
    for line_number, line in enumerate(path.read_text().splitlines(), 1):
        key, value = line[:2], line[2:].strip()
        if not line.strip() or key == "//":
            continue
        if key == "@ ":
            first = int(value)
        elif key == "= ":
            file, block = value, None
        elif key == "# ":
            block = {"source": f"{path.name}:{line_number}", "file": file, "# ": value, **dict.fromkeys(KEYS, ""), "@ ": first}
            blocks.append(block)
            first = None
        elif key.strip() == "&":  # the fault before, at another place, too
            if block is None and not blocks:
                raise Wrong(f"{path.name}:{line_number}: there is no fault before this")
            block = {**blocks[-1], "source": f"{path.name}:{line_number}", "file": file, "- ": "", "+ ": "", "&": True, "@ ": None}
            blocks.append(block)
        elif key in KEYS or key.strip() in ("-", "+"):
            if block is None:
                raise Wrong(f"{path.name}:{line_number}: a fault begins with # and what it means")
            key = key.strip() + " "
            block[key] = f"{block[key]} {value}".strip()
        else:
            raise Wrong(f"{path.name}:{line_number}: a line begins with one of @ = # & - + ~ > ? //")
    for b in blocks:
        if b["file"] is None or not b["- "]:
            raise Wrong(f"{b['source']}: no file, or no old text")
    number, faults = -1, []
    for b in blocks:
        number = number + ("&" not in b) if b["@ "] is None else b["@ "]
        faults.append(Fault(b["source"], b["file"], b["# "], *(b[key] for key in KEYS), number, "&" in b))
    return faults


def locate(fault, text):
    """Finds the old text, or what is between backticks in it; white space is any white space."""
    before, part, behind = [*fault.old.split("`"), "", ""][:3] if "`" in fault.old else ("", fault.old, "")

    def pattern(piece):
        words = r"\s+".join(re.escape(word) for word in piece.split())
        return (r"\s+" if piece[:1].isspace() else "") + words + (r"\s+" if piece[-1:].isspace() and words else "")

    found = list(re.finditer(f"{pattern(before)}({pattern(part)}){pattern(behind)}", text))
    if len(found) != 1:
        raise Wrong(f"{fault.source}: the old text is in {fault.file} {len(found)} times: {fault.old}")
    fault.begin, fault.end = found[0].span(1)


def put_in(faults, text, begin, end):
    """The text from `begin` to `end` with the faults in it."""
    result, at = "", begin
    faults = sorted(faults, key=lambda f: (f.begin, -f.end, f.number))
    while faults:
        outer = faults[0]
        inner = [f for f in faults[1:] if f.begin < outer.end]
        for f in inner:
            if f.end > outer.end:
                raise Wrong(f"{f.source} and {outer.source} overlap")
        rest = put_in(inner, text, outer.begin, outer.end)
        ask = f"::runnel_mutation::is({outer.number})"
        if outer.is_statement(text):
            wrong = f"{{ if ({ask}) {{ {outer.new} }} else {{ {rest} }} }}"
        else:
            if not outer.new:
                raise Wrong(f"{outer.source}: an expression needs a new one")
            wrong = f"({ask} ? ({outer.new}) : ({rest}))"
        result += text[at : outer.begin] + wrong
        at = outer.end
        faults = faults[1 + len(inner) :]
    return result + text[at:end]


def write(path, text):
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def count_numbers(faults):
    return collections.Counter(f.number for f in faults if not f.is_other_place)


def read_faults(paths):
    faults = [fault for path in sorted(paths) for fault in read_list(path)]
    texts = {}
    wrong = [f"{n} is the number of several faults" for n, c in count_numbers(faults).items() if c > 1]
    for fault in faults:
        try:
            path = ROOT / "include/runnel" / fault.file
            if not path.is_file():
                raise Wrong(f"{fault.source}: there is no {fault.file}")
            texts.setdefault(fault.file, path.read_text())
            locate(fault, texts[fault.file])
        except Wrong as error:
            wrong.append(str(error))
    for file, text in texts.items() if not wrong else ():
        try:
            put_in([f for f in faults if f.file == file], text, 0, len(text))
        except Wrong as error:
            wrong.append(str(error))
    if wrong:
        raise Wrong("\n".join(wrong))
    return faults, texts


def make_tree(folder, faults, texts):
    """The sources as they are, but the headers with the faults."""
    tree = folder / "tree"
    tree.mkdir(parents=True, exist_ok=True)
    for path in ROOT.iterdir():
        link = tree / path.name
        if path.name != "include" and not path.name.startswith((".", "build")) and not link.is_symlink():
            link.symlink_to(path)
    include = ROOT / "include"
    there = tree / "include"
    kept = {there / "runnel" / HEADER}
    write(there / "runnel" / HEADER, HEADER_TEXT % HIGHEST)
    for path in include.rglob("*.hpp"):
        name = path.relative_to(include / "runnel").as_posix()
        text = path.read_text()
        mine = [f for f in faults if f.file == name]
        if mine:
            text = put_in(mine, text, 0, len(text))
            text = text.replace("#pragma once\n", f"#pragma once\n#include <runnel/{HEADER}>\n", 1)
        kept.add(there / "runnel" / name)
        write(there / "runnel" / name, text)
    for path in list(there.rglob("*.hpp")):
        if path not in kept:
            path.unlink()


def build(folder, names):
    """The executables by name, built."""
    out = folder / "build"
    if not (out / "build.ninja").exists():
        subprocess.run(
            ["meson", "setup", out, folder / "tree", "-Ddebug=false", "-Doptimization=0", "-Dwarning_level=0"]
            + ["-Dwerror=false", "-Dcpp_args=-w -DRUNNEL_MUTATION -D_GLIBCXX_ASSERTIONS", "-Dinterop=disabled"],
            check=True,
        )
    targets = subprocess.run(["ninja", "-C", out, "-t", "targets", "all"], check=True, capture_output=True, text=True).stdout
    known = re.findall(r"^tests/test-([\w-]+): cpp_LINKER", targets, re.M)
    known = [n for n in known if n not in ("public-asio", "unsigned-char")] + list(PROGRAMS)
    for name in names or []:
        if name not in known:
            raise Wrong(f"no tests are called {name}; there are: {', '.join(known)}")
    known = names or known
    command = ["ninja", "-C", out, *([f"-j{os.environ['NINJA_JOBS']}"] if "NINJA_JOBS" in os.environ else [])]
    paths = {name: name if name in PROGRAMS else f"test-{name}" for name in known}
    subprocess.run([*command, *(f"tests/{path}" for path in paths.values())], check=True)
    return {name: out / "tests" / path for name, path in paths.items()}


def run(executable, number, limit, tests=(), reached=None, thorough=False):
    """None if the tests pass; else what happened. A fault may hang, or allocate for ever."""
    chosen = ["--abort-after=1", "--no-colors=true", f"--test-case-exclude={LEFT_OUT}"]
    chosen += ["--test-case=" + ",".join(re.sub(r"([\\,])", r"\\\1", t) for t in tests)] if tests else []
    return run_program(executable, number, limit, chosen, reached, thorough)


def run_program(executable, number, limit, arguments, reached=None, thorough=False):

    def bound():
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    environment = {**os.environ, "RUNNEL_MUTANT": str(number)}
    for name in ("RUNNEL_MUTATION_REACHED", "RUNNEL_THOROUGH"):
        environment.pop(name, None)
    if thorough:
        environment["RUNNEL_THOROUGH"] = "1"
    if reached:
        environment["RUNNEL_MUTATION_REACHED"] = str(reached)
    process = subprocess.Popen(
        [executable, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=bound,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return "time limit", ""
    if process.returncode == 0:
        return None, output
    return ("failed" if process.returncode > 0 else "crashed"), output


def title(name):
    return name if name in PROGRAMS else f"test-{name}"


def first_failure(output):
    before = output[: match.start()] if (match := re.search(r"(FATAL )?ERROR: ", output)) else output
    tests = re.findall(r"^TEST CASE: +(.*)", before, re.M)  # others have printed something
    return tests[-1].strip() if tests else ""


def look_around(executables, folder, at_once):
    """The test cases of each executable by the faults that they come by, and the seconds that a test case takes without one."""
    comes_by, seconds = {}, {}
    files = {name: folder / f"reached-{name}.txt" for name in executables if name not in PROGRAMS}
    for file in files.values():
        file.unlink(missing_ok=True)
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        runs = list(pool.map(lambda name: run(executables[name], 0, 900, reached=files[name]), files))
    for (name, file), (what, output) in zip(files.items(), runs):
        if what:
            print(output[-3000:])
            raise Wrong(f"test-{name} fails without a fault ({what})")
        tests = comes_by[name] = collections.defaultdict(list)
        for line in file.read_text().splitlines():
            if line.startswith("= "):
                _, took, test = line.split(" ", 2)
                seconds[name, test] = seconds.get((name, test), 0) + float(took)
            else:
                tests[int(line)].append(test)
        took = sum(s for (of, _), s in seconds.items() if of == name)
        print(f"test-{name}: {took:.1f} s, comes by {len(tests)} faults", flush=True)
    return comes_by, seconds


def order(fault, executables):
    near = max((folder for folder in NEAREST if fault.file.startswith(folder + "/")), key=len, default="")
    first = NEAREST.get(near, [])
    return sorted(executables, key=lambda n: first.index(n) if n in first else len(first))


def parts(seconds):
    """The test cases, with what each takes, in parts to run one after the other: the quick ones first."""
    tests = sorted(seconds, key=seconds.get)
    ends = [bisect.bisect([seconds[t] for t in tests], limit) for limit in (*STEPS, float("inf"))]
    for begin, end in zip([0, *ends], ends):
        yield from (tests[i : min(i + AT_ONCE, end)] for i in range(begin, end, AT_ONCE))


def try_out(fault, executables, comes_by, seconds):
    passed = 0
    # Some tests try at a few of many points, and if need be at all of them: see tests/support/sample.hpp.
    for thorough in (False, True):
        for name in order(fault, comes_by):
            for part in parts({t: seconds[name, t] for t in comes_by[name].get(fault.number, [])}):
                limit = sum(seconds[name, t] for t in part) * SLOWER * (SAMPLED if thorough else 1) + MORE
                what, output = run(executables[name], fault.number, limit, part, thorough=thorough)
                if what:
                    fault.outcome, fault.by = what, name
                    return fault, first_failure(output)
                passed += 1
    for name, (folder, arguments, limit) in PROGRAMS.items():
        if name not in executables or not fault.file.startswith(folder):
            continue
        what, output = run_program(executables[name], fault.number, limit, arguments)
        if what:
            fault.outcome, fault.by = what, name
            return fault, next(iter(re.findall(r"^seed \d+: (.*)", output, re.M)), "")
        passed += 1
    fault.outcome = "not noticed" if passed else "not reached"
    return fault, ""


def folder_of(fault):
    return fault.source.split(":")[0].removesuffix(".txt").replace("_", "/")


def print_table(faults):
    print("\n| folder | faults | failed | crashed | time limit | not noticed | not reached | noticed |")
    print("|---|---|---|---|---|---|---|---|")
    groups = collections.defaultdict(list)
    for f in faults:
        groups[folder_of(f)].append(f)
    for name, group in [*sorted(groups.items()), ("all", faults)]:
        count = collections.Counter(f.outcome for f in group)
        noticed = count["failed"] + count["crashed"] + count["time limit"]
        cells = [count[k] for k in ("failed", "crashed", "time limit", "not noticed", "not reached")]
        print(f"| {name} | {len(group)} | {' | '.join(map(str, cells))} | {100 * noticed / len(group):.1f} % |")
    by = collections.Counter(f.by for f in faults if f.by)
    print("\nnoticed by: " + ", ".join(f"{title(name)} {count}" for name, count in by.most_common()))


def choose_some(faults, options):
    if options.random is None:
        return faults
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"--random {options.random} --seed {seed}", flush=True)
    some = random.Random(seed).sample(faults, min(options.random, len(faults)))
    return sorted(some, key=lambda f: f.number)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, default=ROOT / "build-mutation", help="where to build")
    parser.add_argument("--list", action="store_true", help="check the list, print it, and build nothing")
    parser.add_argument("--only", help="these faults: numbers, with commas, or ranges (3-9)")
    parser.add_argument("--in", dest="inside", help="only faults in files whose path contains this")
    parser.add_argument("--random", type=int, help="so many of them")
    parser.add_argument("--seed", type=int, help="for --random")
    parser.add_argument("--equivalent", action="store_true", help="try those, too, that are argued to be equivalent")
    parser.add_argument("--tests", help="only these executables: names, with commas, as pure,drivers")
    parser.add_argument("--at-once", type=int, default=2, help="how many executables run at once")
    options = parser.parse_args()

    faults, texts = read_faults(HERE.glob("*.txt"))
    faults_once = [f for f in faults if not f.is_other_place]
    chosen = [f for f in faults_once if options.equivalent or not f.equivalent]
    if options.inside:
        chosen = [f for f in chosen if options.inside in f.file]
    if options.only:
        wanted = set()
        for part in options.only.split(","):
            low, _, high = part.partition("-")
            wanted |= set(range(int(low), int(high or low) + 1))
        chosen = [f for f in faults_once if f.number in wanted]
    if options.list:
        chosen = choose_some(chosen, options)
        for f in chosen:
            print(f"{f.number:4} {f.file}: {f.meaning}{' (equivalent)' if f.equivalent else ''}")
        print(f"{len(chosen)} faults, {sum(bool(f.equivalent) for f in faults)} of all {len(faults)} argued to be equivalent, "
              f"{sum(bool(f.open) for f in faults)} known not to be noticed")
        return 0

    folder = options.folder.resolve()
    make_tree(folder, faults, texts)
    executables = build(folder, options.tests.split(",") if options.tests else None)
    comes_by, seconds = look_around(executables, folder, options.at_once)
    if options.random is not None:
        chosen = [f for f in chosen if not f.open]
    if options.random is not None and options.tests:
        reached = {number for tests in comes_by.values() for number in tests}
        chosen = [f for f in chosen if f.number in reached]
        chosen = [f for f in chosen if not f.elsewhere or not executables.keys().isdisjoint(f.elsewhere.split(", "))]
    chosen = choose_some(chosen, options)
    with concurrent.futures.ThreadPoolExecutor(options.at_once) as pool:
        tries = [pool.submit(try_out, f, executables, comes_by, seconds) for f in chosen]
        for done in concurrent.futures.as_completed(tries):
            f, test = done.result()
            by = f" by {title(f.by)}" if f.by else ""
            print(f"{f.number:4} {f.outcome}{by}{f': {test}' if test else ''}", flush=True)
    missed = [f for f in chosen if not f.by]
    for f in chosen:
        if f.open and f.by:
            print(f"{f.source}: it is noticed, so that it is not open any more (?)")
    if missed:
        print("\nNot noticed:")
        for f in missed:
            print(f"{f.number:4} {f.source} {f.file}: {f.meaning}{' (not reached)' if f.outcome == 'not reached' else ''}")
    if chosen:
        print_table(chosen)
    return 1 if any(not f.equivalent for f in missed) else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Wrong as error:
        sys.exit(f"mutation.py: {error}")
