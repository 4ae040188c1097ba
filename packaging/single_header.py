#!/usr/bin/env python3
"""Writes runnel as single headers: runnel.hpp, and runnel-tls.hpp with TLS.

usage: single_header.py OUTPUT_FOLDER
       single_header.py OUTPUT_FILE HEADER...

The second form writes one file with the headers that are named (runnel/websocket/deflate.hpp, say) and all that they
include. Each header stands behind a guard of its own, so that one source file may include several such files. Asio and other
libraries are included as ever.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILES = {"runnel.hpp": ["runnel/runnel.hpp"], "runnel-tls.hpp": ["runnel/tls.hpp"]}
INCLUDE = re.compile(r"#include <(runnel/[^>]+)>")
CONDITION = re.compile(r"#\s*(if|endif)")


def expand(name, seen):
    """The lines of a header with those of all that it includes of runnel, where they are not in `seen`."""
    if name in seen:
        return
    seen.add(name)
    guard = "RUNNEL_SINGLE_" + re.sub(r"\W", "_", name.removeprefix("runnel/")).upper()
    yield f"\n// {name}\n#ifndef {guard}\n#define {guard}"
    depth = 0
    for line in (ROOT / "include" / name).read_text().splitlines():
        if condition := CONDITION.match(line):
            depth += 1 if condition[1] == "if" else -1
        if include := INCLUDE.match(line):
            # What is included on a condition may not be there for those who come later.
            yield from expand(include[1], set(seen) if depth > 0 else seen)
        elif line != "#pragma once":
            yield line
    yield f"#endif  // {guard}"


def write(path, headers):
    license_text = "".join(f"// {line}".rstrip() + "\n" for line in (ROOT / "LICENSE").read_text().splitlines())
    seen = set()
    lines = [line for name in headers for line in expand(name, seen)]
    path.parent.mkdir(parents=True, exist_ok=True)
    title = "#pragma once\n\n// runnel as one file, made by packaging/single_header.py.\n//\n"
    path.write_text(title + license_text + "\n".join(lines) + "\n")


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    output = pathlib.Path(sys.argv[1])
    if len(sys.argv) > 2:
        write(output, sys.argv[2:])
    else:
        for name, headers in FILES.items():
            write(output / name, headers)


main()
