"""Adds up the tests of several build directories and prints "N passed, N failed"; exits with 1 if any failed.

usage: count.py FAILED_STEPS BUILD_DIRECTORY...

A doctest executable counts with its test cases, any other test as one. A step that failed without a failed test (a
compile error, the format) counts as one failure, and so does an executable that ended badly after its last test case.
"""

import json
import pathlib
import re
import sys

CASES = re.compile(r"test cases:\s*\d+\s*\|\s*(\d+) passed\s*\|\s*(\d+) failed")

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
        cases = CASES.search(re.sub(r"\x1b\[[0-9;]*m", "", test.get("stdout", "")))
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
