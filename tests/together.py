"""Writes a source file that includes tests, so that what they share is compiled once for all of them.

usage: together.py OUTPUT TESTS_DIR TEST...
       together.py --at-once

Each test is in a namespace of its own, so that equal names in two of them do not meet. All that the tests include comes
before that, outside of those namespaces; their own includes then find it done. (So a test that forgets an include may not
be noticed here: -Dtests_at_once=1 compiles each by itself.)

--at-once prints how many are to be compiled as one on this machine, by its memory and its processors.
"""

import os
import pathlib
import re
import sys

CONDITIONAL = re.compile(r"#\s*(ifdef|ifndef|if|elif|else|endif)\b")
INCLUDE = re.compile(r'#\s*include\s*[<"]([^>"]+)')
# What stands for an #else, behind which no test includes anything.
NOT_HERE = "#error tests/together.py knows no #else with an include"

# What is in an unnamed namespace of an included file might be there twice. These files are included once.
QUIET = """\
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wsubobject-linkage"
#endif"""


def hoisted(file, root):
    """The lines with includes, each with the conditions around it."""
    conditions = []
    for line in map(str.strip, file.read_text().splitlines()):
        if match := INCLUDE.match(line):
            beside = file.parent / match[1]
            if match[1].startswith("../") and beside.exists():
                line = f'#include "{pathlib.Path(os.path.relpath(beside, root)).as_posix()}"'
            yield "\n".join([*conditions, line, *["#endif"] * len(conditions)])
        elif match := CONDITIONAL.match(line):
            if match[1].startswith("if"):
                conditions.append(line)
            elif match[1] == "endif":
                conditions.pop()
            else:
                conditions[-1] = NOT_HERE


# Gigabytes that a compiler may have, and as many files of tests as it compiles in that.
MEMORY_FOR = {5: 26, 4: 15, 2: 10, 0: 4}


def at_once():
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        memory = 0  # not told here
    processors = os.cpu_count() or 1
    compilers = processors + (1 if processors < 3 else 2)  # that ninja runs side by side
    each = memory * 1.05 / (1 << 30) / compilers  # the machine takes some for itself
    return next(files for limit, files in MEMORY_FOR.items() if each >= limit)


def main():
    if sys.argv[1:] == ["--at-once"]:
        return print(at_once())
    output, root = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
    files = [pathlib.Path(name).resolve() for name in sys.argv[3:]]
    includes = list(dict.fromkeys(line for file in files for line in hoisted(file, root)))
    tests = []
    for file in files:
        name = file.relative_to(root).as_posix()
        namespace = "in_" + re.sub(r"\W", "_", name.removesuffix(".cpp"))
        tests += ["", f"namespace {namespace} {{", f'#include "{name}"', "}"]
    output.write_text("\n".join([QUIET, *includes, *tests]) + "\n")


main()
