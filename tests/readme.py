"""Checks the README: the program it shows is examples/hello.cpp, and the files it links to exist.

usage: readme.py SOURCE_ROOT
"""

import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1])
text = (root / "README.md").read_text()
problems = []

shown = re.search(r"```cpp\n(.*?)```", text, re.DOTALL).group(1).strip()
program = (root / "examples" / "hello.cpp").read_text().split("\n", 1)[1].strip()
if shown != program:
    problems.append("README.md: the program at the top is not examples/hello.cpp without its first line")

for target in re.findall(r"\]\(([^)#]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
    if "://" not in target and not (root / target).exists():
        problems.append(f"README.md: {target} does not exist")

print("\n".join(problems) or "the README is right")
sys.exit(1 if problems else 0)
