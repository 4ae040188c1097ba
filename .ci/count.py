"""Adds up the tests of several build directories and prints "N passed, N failed"; exits with 1 if any failed.

usage: count.py FAILED_STEPS BUILD_DIRECTORY...

A doctest executable counts with its test cases, any other test as one. A step that failed without a failed test (a
compile error, the format) counts as one failure, and so does an executable that ended badly after its last test case.
What failed is told once more, here at the end: of a long log that may be all that is kept.
"""

import json
import pathlib
import re
import sys

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
CASES = re.compile(r"test cases:\s*\d+\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed")


def errors_in(output, errors):
    """The parts of doctest's report that tell of an error, or else the end of what was said."""
    parts = [part.strip() for part in output.split("=" * 79) if "ERROR:" in part]
    lines = ("\n".join(parts) or output).splitlines()[-60:]
    return lines + errors.splitlines()[-60:]


failed_steps = int(sys.argv[1])
total_passed = total_failed = 0
for directory in sys.argv[2:]:
    passed = failed = 0
    log = pathlib.Path(directory) / "meson-logs" / "testlog.json"
    for line in log.read_text().splitlines() if log.exists() else []:
        test = json.loads(line)
        if test["result"] == "SKIP":
            continue
        ok = test["result"] in ("OK", "EXPECTEDFAIL")
        output = COLOURS.sub("", test.get("stdout", ""))
        if not ok:
            print(f"-- {test['name']}: {test['result']}", *errors_in(output, COLOURS.sub("", test.get("stderr", ""))), sep="\n")
        cases = CASES.search(output)
        if cases:
            passed += int(cases[1])
            failed += max(int(cases[2]), 0 if ok else 1)
        else:
            passed += ok
            failed += not ok
    name = pathlib.Path(directory).name
    print(f"{name}: {passed} passed, {failed} failed" if passed + failed else f"{name}: no test ran")
    total_passed += passed
    total_failed += failed

total_failed = max(total_failed, failed_steps)
if total_passed == 0:
    total_failed = max(total_failed, 1)
print(f"{total_passed} passed, {total_failed} failed")
sys.exit(1 if total_failed else 0)
