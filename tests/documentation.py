"""Checks that the documentation is true of the tree.

usage: documentation.py SOURCE_ROOT [--update]

- Every path in the Markdown files exists: targets of links, and files and folders in `code`, by the end of their path.
- docs/architecture.md: each name in a row of a table is in one of the files of that row, no question stands there twice,
  and where I/O and OpenSSL are is what house_rules.py checks. The table of a machine is that of its header (--update writes
  it anew), and each table in a header without I/O is there, but for those of metrics.
- CONTRIBUTING.md: each header has its test by name, or is in the table "Changing X, run Y", whose tests exist and are in
  the executable that it names.
- A header that claims to know no clock reads none, nor does any on a path where there is no I/O.
- CHANGELOG.md: where headers have gone ("now") there are headers.
- Where I/O is done, a header with coroutines and members says what others may write while a coroutine is suspended, and
  the members that it names there are in its code.
"""

import collections
import fnmatch
import pathlib
import re
import sys

import house_rules

ROOT = pathlib.Path(sys.argv[1])
INCLUDE = ROOT / "include" / "runnel"
PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md"))]
FOLDERS = [".ci", "benchmarks", "docs", "examples", "include", "packaging", "subprojects", "tests"]
# What is a path: has one of these endings, or ends with a slash.
FILE = re.compile(r"<?((?!_)[\w.*/+-]*\w\.(?:hpp|cpp|py|md|txt|build))>?")
FOLDER = re.compile(r"(?:[\w*-]+/)+")
NAME = re.compile(r"(?:[a-z_]\w*::)*([a-z_]\w*)(?:\(\))?")
# Does I/O without Asio.
STORE = "mqtt/store/sqlite_store.hpp"
KNOWS_NO_CLOCK = re.compile(r"\b(without a clock|no clock|without I/O and clock|without I/O, clock)\b", re.IGNORECASE)
READS_CLOCK = re.compile(r"_clock::now\(|\bclock::now\(|\btime\(nullptr\)|\bclock_gettime\(")
# It signs the time of each attempt to connect, if it is asked to; and the clock itself.
MAY_READ_CLOCK = {"aliyun/connect.hpp", "core/clock.hpp"}


def is_below(header, places):
    return any(header.startswith(place) if place.endswith("/") else header == place for place in places)


def does_io(header):
    return is_below(header, {*house_rules.DRIVERS, STORE}) and not is_below(header, house_rules.NOT_DRIVERS)


def spans(text):
    """What stands in `code`."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)


def prose(text):
    """A page without its blocks of code in some language."""
    return re.sub(r"^\s*```\w+\n.*?^\s*```$", "", text, flags=re.DOTALL | re.MULTILINE)


def read_tree():
    files = [p.relative_to(ROOT).as_posix() for p in ROOT.iterdir() if p.is_file()]
    for folder in FOLDERS:
        files += [p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*") if p.is_file()]
    ends = collections.defaultdict(list)
    for file in files:
        parts = file.split("/")
        for i in range(len(parts)):
            ends["/".join(parts[i:])].append(file)
    folders = {"/".join(f.split("/")[:n]) for f in files for n in range(1, f.count("/") + 1)}
    return ends, folders


ENDS, TREE_FOLDERS = read_tree()


def find(path):
    """The files which a path may be that is written without its beginning."""
    if "*" not in path:
        return ENDS.get(path.removeprefix("./"), [])
    return [files[0] for end, files in ENDS.items() if fnmatch.fnmatchcase(end, path)]


def has_folder(path):
    path = path.rstrip("/")
    return any(fnmatch.fnmatchcase(f"/{folder}", f"*/{path}") for folder in TREE_FOLDERS)


def path_faults(page, text):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if "://" not in target and not (ROOT / page).parent.joinpath(target).exists():
            yield f"{page}: the target {target} of a link does not exist"
    for span in spans(text):
        if (file := FILE.fullmatch(span)) and not (span.startswith("<") and not span.startswith("<runnel/")):
            if not find(file[1]):
                yield f"{page}: there is no file {span}"
        elif FOLDER.fullmatch(span) and not has_folder(span):
            yield f"{page}: there is no folder {span}"
    for block in re.findall(r"^```\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for word in re.findall(r"[^\s,:()|]+", block):
            if FILE.fullmatch(word) and not find(word):
                yield f"{page}: there is no file {word}"
            elif FOLDER.fullmatch(word) and not has_folder(word):
                yield f"{page}: there is no folder {word}"


# --- docs/architecture.md


def name_faults(page, text):
    """A row that names files names only what is in them."""
    text = re.sub(r"^<!-- table: .*?(?=^#|\Z)", "", text, flags=re.DOTALL | re.MULTILINE)
    for row in re.findall(r"^\|.*\|$", text, re.MULTILINE):
        files = [file for span in spans(row) if FILE.fullmatch(span) for file in find(span)]
        if not files:
            continue
        words = set(re.findall(r"\w+", " ".join((ROOT / file).read_text() for file in files)))
        for span in spans(row):
            if (name := NAME.fullmatch(span)) and name[1] not in words:
                yield f"{page}: `{span}` is not in {', '.join(dict.fromkeys(files))}"


def tables_of(header):
    """The tables in the comments of a header, in the form of Markdown."""
    tables, last = [], None
    for number, line in enumerate((INCLUDE / header).read_text().splitlines()):
        if row := re.fullmatch(r"\s*/// (\|.*\|)", line):
            if last != number - 1:
                tables.append([])
            cells = [cell.strip() for cell in row[1].strip("|").split("|")]
            tables[-1].append("|" + "|".join("---" if re.fullmatch("--+", c) else f" {c} " for c in cells) + "|")
            last = number
    return "\n\n".join("\n".join(table) for table in tables)


MACHINE = re.compile(r"^<!-- table: (\S+) -->\n+((?:\|.*\n+)*)", re.MULTILINE)


def table_faults(page, text):
    for header, shown in MACHINE.findall(text):
        if not (INCLUDE / header).exists() or shown.strip() != tables_of(header):
            yield f"{page}: the table is not that of {header}; documentation.py . --update mends it"


# Tables in headers that are not of machines begin with this column: they are of metrics.
NOT_OF_MACHINE = "name"


def unshown_faults(page, text):
    """Each machine with a table is on the page."""
    shown = {header for header, _ in MACHINE.findall(text)}
    for path in sorted(INCLUDE.rglob("*.hpp")):
        header = path.relative_to(INCLUDE).as_posix()
        if not does_io(header) and header not in shown:
            first = {table.split("|")[1].strip() for table in tables_of(header).split("\n\n") if table}
            if first - {NOT_OF_MACHINE}:
                yield f"{page}: the table of {header} is not shown: it wants <!-- table: {header} -->"


def twice_faults(page, text):
    """No question is asked twice: those that go on with dots belong to the one before."""
    section = re.search(r"^## Where is the rule for.*?\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)[1]
    asked = collections.Counter(re.findall(r"^\| (?!\.\.\.)([^|]+) \|", section, re.MULTILINE))
    yield from (f"{page}: stands twice: {question}" for question, times in asked.items() if times > 1)


def place_faults(page, text):
    """Where I/O is done, and where OpenSSL is seen."""
    section = re.search(r"^### Where does I/O happen\?\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)[1]
    rows = [row.split("|")[1:3] for row in re.findall(r"^\|.*\|$", section, re.MULTILINE)[2:]]
    io, pure = ({span for row in rows for span in spans(row[column])} for column in (0, 1))
    seen = re.search(r"OpenSSL is seen by (.*?) only\.", section, re.DOTALL)
    folders = {driver for driver in house_rules.DRIVERS if "/" in driver}
    openssl = {span.removeprefix("runnel/") for span in spans(seen[1])} if seen else set()
    for told, true, what in [
        (io, {*folders, STORE}, "do I/O"),
        (pure, house_rules.NOT_DRIVERS, "do none below those"),
        (openssl, house_rules.SEE_OPENSSL, "see OpenSSL"),
    ]:
        if told != true:
            yield f"{page}: what is said to {what} is not what house_rules.py says: {', '.join(sorted(told ^ true))}"


def update(page):
    def write(machine):
        return f"<!-- table: {machine[1]} -->\n\n{tables_of(machine[1])}\n\n"

    path = ROOT / page
    path.write_text(MACHINE.sub(write, path.read_text()))


# --- CONTRIBUTING.md


def executables():
    """The executables of tests/meson.build, each with its files."""
    build = re.sub(r"^\s*#.*", "", (ROOT / "tests" / "meson.build").read_text(), flags=re.MULTILINE)
    lists, left_out = {}, []
    for name, files in re.findall(r"^(\w+_sources) = \[(.*?)\]$", build, re.DOTALL | re.MULTILINE):
        lists[name] = re.findall(r"'([^'\s]+\.cpp)'", files)
    made = {}
    for program, names in re.findall(r"^ +\['([\w-]+)', (.*?), runnel_", build, re.MULTILINE):
        made[f"test-{program}"] = [file for name in re.findall(r"\w+_sources", names) for file in lists[name]]
    for program, names in re.findall(r"^  '(\w+)': \[(.*?)\]", re.search(r"^test_folders = \{\n(.*?)^\}", build, re.DOTALL | re.MULTILINE)[1], re.M):
        folders = re.findall(r"\w+", names)
        left_out += [file for file in made[f"test-{program}"] if file.split("/")[0] not in folders]
    for name, file in re.findall(r"executable\('(test-interop-\w+)', '(interop/\w+\.cpp)'", build):
        made[name] = [file]
    grouped = {file for files in made.values() for file in files}
    missing = [f for name, files in lists.items() if name.endswith("test_sources") for f in files if f not in grouped]
    return made, missing + left_out


def matches(path, pattern):
    """A star is for a name, not for folders."""
    parts, patterns = path.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))


def test_faults(page, text):
    made, missing = executables()
    for file in missing:
        yield f"tests/meson.build: {file} is in a list, but in no executable, or in a folder that is not run"
    section = re.search(r"^## Changing .*?\n(.*?)(?=^## )", text, re.DOTALL | re.MULTILINE)
    rows = [row.split("|")[1:-1] for row in re.findall(r"^\|.*\|$", section[1], re.MULTILINE)[2:]] if section else []
    areas = [span for row in rows for span in spans(row[0]) if span.endswith(".hpp")]
    headers = {p.relative_to(INCLUDE).as_posix() for p in INCLUDE.rglob("*.hpp")}
    for header in sorted(headers):
        if not (ROOT / "tests" / header.replace(".hpp", "_test.cpp")).exists() and not any(matches(header, a) for a in areas):
            yield f"{page}: which tests are for {header}? It has none by name and is in no row of the table"
    for area in areas:
        if not any(matches(header, area) for header in headers):
            yield f"{page}: there is no header {area}"
    for row in rows:
        in_row = []
        for span in spans(row[1]):
            if span.startswith("test-"):
                in_row = made.get(span, [])
                if not in_row:
                    yield f"{page}: there is no executable {span}, or it has no test"
            elif span.endswith(".cpp") and not span.startswith("tests/"):
                if not any(fnmatch.fnmatchcase(file, span) for file in in_row):  # a star of -sf is for folders, too
                    yield f"{page}: {span} is not in the executable that is named before it"


# --- CHANGELOG.md


def moved_faults(page, text):
    """The table of headers that have moved: files, or names before a folder."""
    rows = re.findall(r"^\| header, below `runnel/` \| now \|\n\|.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    for old, now in re.findall(r"^\| (`.*) \| `(\S+)` \|$", "".join(rows), re.MULTILINE):
        names = spans(old)[1:]
        for header in [f"{now}{name}.hpp" for name in names] if now.endswith("/") else [now]:
            if not (INCLUDE / header).is_file():
                yield f"{page}: there is no {header} now"


# --- clocks


def clock_faults():
    for path in sorted(INCLUDE.rglob("*.hpp")):
        header = path.relative_to(INCLUDE).as_posix()
        code = path.read_text()
        comments = re.sub(r"\s*\n\s*//+<?\s*", " ", code)
        claims = KNOWS_NO_CLOCK.search(comments) is not None
        pure = not does_io(header) and "/" in header and header not in MAY_READ_CLOCK
        if (claims or pure) and READS_CLOCK.search(re.sub(r"//.*", "", code)):
            yield f"{header}: reads a clock, " + ("but says that it knows none" if claims else "on a path without I/O")


# --- what others may write while a coroutine is suspended

SAYS_WHO_WRITES = "while a coroutine is suspended"
HAS_COROUTINES = re.compile(r"\bco_(?:await|return)\b")
# A member by its name, or a struct in which there are some that coroutines share.
HAS_MEMBERS = re.compile(
    r"^ +(?=\S)(?!return\b|co_return\b|throw\b|delete\b|using\b).*[\w>&*] +\w+_(?: = .*|\{.*\}|\[.*\])?;$"
    r"|^ *struct (?:state|shared|core)\b[^;]*\{$|: (?:public )?stream_state \{$",
    re.MULTILINE,
)
COMMENT_BLOCK = re.compile(r"(?:^ *//.*\n)+", re.MULTILINE)


def suspension_faults():
    for path in sorted(INCLUDE.rglob("*.hpp")):
        header = path.relative_to(INCLUDE).as_posix()
        text = path.read_text()
        code = re.sub(r"//.*", "", text)
        if not (does_io(header) and HAS_COROUTINES.search(code) and HAS_MEMBERS.search(code)):
            continue
        blocks = [re.sub(r"\s*\n\s*//+\s*", " ", block) for block in COMMENT_BLOCK.findall(text)]
        blocks = [block for block in blocks if SAYS_WHO_WRITES in block.lower()]
        if not blocks:
            yield (
                f"{header}: has coroutines and members, but does not say who else may write them. At the head of the class, "
                'or of the state, write "While a coroutine is suspended, others may write this:" and a table of members and '
                'who writes them (transport/tls/tls.hpp has one), or in one sentence that nobody does, and why'
            )
        words = set(re.findall(r"\w+", code))
        for name in sorted({n for b in blocks for span in spans(b) for n in re.findall(r"\b[a-z]\w*_\b", span)} - words):
            yield f"{header}: tells who writes `{name}` {SAYS_WHO_WRITES}, but has no such member"


def main():
    if "--update" in sys.argv:
        update("docs/architecture.md")
    faults = [*clock_faults(), *suspension_faults(), *moved_faults("CHANGELOG.md", (ROOT / "CHANGELOG.md").read_text())]
    for page in PAGES:
        text = prose((ROOT / page).read_text())
        faults += path_faults(page, text)
        if page == "docs/architecture.md":
            faults += [*name_faults(page, text), *table_faults(page, text), *unshown_faults(page, text)]
            faults += [*twice_faults(page, text), *place_faults(page, text)]
        if page == "CONTRIBUTING.md":
            faults += test_faults(page, text)
    print("\n".join(faults) or "the documentation is right")
    sys.exit(1 if faults else 0)


main()
