"""Lists every numbered conformance clause of MQTT 3.1.1 and 5.0 with a test that shows it, or why it needs none.

usage: clauses.py [--strict]

The clauses stand in clauses.txt. A test shows a clause if its name or a comment in it names the clause: `[MQTT-3.3.1-2]`
is one of MQTT 5.0, `[MQTT-3.1.2-22 of 3.1.1]` one of MQTT 3.1.1. A clause that says the same in both versions may be
named in the form of 5.0 only; then it is shown for 3.1.1 by those of these tests that run with that version too.

--strict: exit code 1 if a clause is shown by no test, or something names a clause or a test that does not exist.
"""

import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
NAME = re.compile(r"\[MQTT-(\d+(?:\.\d+)*-\d+)( of 3\.1\.1)?\]")
TEST = re.compile(r'^TEST_CASE(?:_TEMPLATE)?\(\s*((?:"(?:[^"\\]|\\.)*"\s*)+)', re.MULTILINE)
RUNS_WITH_3_1_1 = re.compile(r"\b(both_versions|versions|v3|v3_1_1)\b")


class Test:
    def __init__(self, file, name, body):
        self.where = f'{file.relative_to(HERE.parent).as_posix()}: "{NAME.sub("", name).strip()}"'
        self.name = name
        self.runs_with_3_1_1 = bool(RUNS_WITH_3_1_1.search(body))
        comments = " ".join(re.findall(r"//(.*)", body))
        self.shows = {("3.1.1" if old else "5.0", number) for number, old in NAME.findall(f"{name} {comments}")}


def read_tests():
    for file in sorted(HERE.rglob("*_test.cpp")):
        text = file.read_text()
        found = list(TEST.finditer(text))
        ends = [m.start() for m in found[1:]] + [len(text)]
        for m, end in zip(found, ends):
            name = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', m.group(1)))
            yield Test(file, name, text[m.end() : end])


def read_clauses():
    for line in (HERE / "clauses.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            key, what, how = (line + " | ").split(" | ")[:3]
            yield tuple(key.split()), what, how.rstrip(" |")


def find(clause, how, tests):
    """The tests that show a clause, one for each part of it; empty if there is no test for some part."""
    named = [t for t in tests if clause in t.shows]
    if named:
        return named[:1]
    if how.startswith("@ "):
        return [t for t in tests if t.name == how[2:]][:1]
    if how.startswith("= "):
        parts = [
            next((t for t in tests if ("5.0", number) in t.shows and t.runs_with_3_1_1), None)
            for number in how[2:].split()
        ]
        return [] if None in parts else list(dict.fromkeys(parts))
    return []


def main():
    tests = list(read_tests())
    clauses = list(read_clauses())
    known = {clause for clause, _, _ in clauses}
    faults = []
    if len(known) != len(clauses):
        faults.append("clauses.txt: a clause stands in it twice")
    for test in tests:
        faults += [f"{test.where}: there is no [MQTT-{n}] of {v}" for v, n in sorted(test.shows - known)]

    concerning = covered = 0
    for clause, what, how in clauses:
        version, number = clause
        shown = find(clause, how, tests)
        concerns = bool(shown) or not how.startswith("- ")
        concerning += concerns
        covered += bool(shown)
        if how.startswith("= "):
            faults += [f"clauses.txt: {n} of {number}" for n in how[2:].split() if ("5.0", n) not in known]
        if how.startswith("@ ") and not any(t.name == how[2:] for t in tests):
            faults.append(f'clauses.txt: there is no test "{how[2:]}"')
        if shown:
            answer = ", ".join(t.where for t in shown)
        else:
            answer = "MISSING" if concerns else f"not ours: {how[2:]}"
        print(f"{version} MQTT-{number} ({what}): {answer}")

    print(*faults, sep="\n", end="\n" if faults else "")
    print(f"covered {covered} of {concerning}")
    if "--strict" in sys.argv[1:] and (faults or covered < concerning):
        sys.exit(1)


main()
