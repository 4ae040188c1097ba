"""Checks the README: the program it shows is examples/hello.cpp, the files it links to exist, and what a test quotes of it,
as "..." (README.md), stands there. And that the texts of the error categories are those of docs/troubleshooting.md.

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

words = " ".join(text.split())
quoting = set()
for path in sorted((root / "tests").rglob("*.cpp")):
    comments = " ".join(re.sub(r"^\s*//+", "", path.read_text(), flags=re.MULTILINE).split())
    for quoted in re.findall(r'"([^"]*)" \(README\.md\)', comments):
        quoting.add(path.name)
        if quoted not in words:
            problems.append(f"{path.relative_to(root)}: README.md does not say: {quoted}")
if "capture_error_test.cpp" not in quoting:
    problems.append("tests/coro/capture_error_test.cpp: does not quote the README any more")

# Texts that are no error's.
NONE = {"success", "no error", "unknown error"} | {f"unknown {what} error" for what in ("WebSocket", "transport", "proxy", "SCRAM", "pieces")}
STRING = r'"((?:[^"\\]|\\.)*)"'


def error_texts():
    """The name and the texts of each category: what its `describe` returns, or the third column of a table."""
    for header in sorted((root / "include/runnel").rglob("*.hpp")):
        code = header.read_text()
        if not (name := re.search(r"\bcategory_name\(\w+\) noexcept { return " + STRING, code)):
            continue
        described = re.search(r" describe\(.*?\n}", code, re.DOTALL)[0]
        texts = re.findall(r"return\s+" + STRING + ";", described)
        if "reason_code_table = " in code:
            table = code.split("reason_code_table = ")[1].split("\n}();")[0]
            texts = re.findall(r"{\w+, " + STRING.replace("(", "(?:", 1) + r",\s*" + STRING, table)
        yield name[1], {text.replace('\\"', '"') for text in texts} - NONE


page = (root / "docs" / "troubleshooting.md").read_text()
sections = dict(re.findall(r"^## (runnel\.\S+)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
categories = dict(error_texts())
for name in sorted(categories.keys() | sections.keys()):
    rows = re.findall(r"^\| (`.*?) \|", sections.get(name, ""), re.MULTILINE)
    explained = {text for row in rows for text in re.findall(r"`([^`]+)`", row)}
    texts = categories.get(name, set())
    problems += [f"docs/troubleshooting.md: {name} has no text '{text}'" for text in sorted(explained - texts)]
    problems += [f"docs/troubleshooting.md: {name} lacks '{text}'" for text in sorted(texts - explained)]

print("\n".join(problems) or "the README is right")
sys.exit(1 if problems else 0)
