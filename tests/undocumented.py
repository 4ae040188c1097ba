"""Finds the names at namespace scope that no comment explains.

usage: undocumented.py INCLUDE_DIR    (tests/house_rules.py asks it too)

Every class, enumeration, concept, function, variable and alias at namespace scope, outside of folders and namespaces named
`detail`, has a comment directly before it; one comment does for functions of one name, or for constants, that follow each
other without an empty line. Excepted are forward declarations, specialisations, deduction guides, what is declared or documented before in
the same header, and members that are defined outside of their class.
"""

import pathlib
import re
import sys

# Comments, strings and preprocessor lines; what remains of a header is its declarations.
BLANKED = re.compile(
    r'//[^\n]*|/\*.*?\*/|R"(?P<d>[^(\s]*)\(.*?\)(?P=d)"|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)\'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*',
    re.DOTALL | re.MULTILINE,
)
NAMESPACE = re.compile(r"(?:inline\s+)?namespace\s*([\w:]*)\s*$")
TEMPLATE = re.compile(r"template\s*<")
CLASS = re.compile(r"(?:class|struct|union|enum(?:\s+class|\s+struct)?)\s+(?:alignas\s*\([^)]*\)\s*)?([\w:]+)(\s*<)?")
NAMED = re.compile(r"(?:concept|using)\s+(\w+)\s*=")
FUNCTION = re.compile(r"(operator\s*(?:\(\)|\[\]|\"\"\s*\w+|[^\w\s(]+|\w+)|[\w:~]+)\s*(<[^(]*>)?\s*\(")
VARIABLE = re.compile(r"([\w:]+)\s*(?:\[[^\]]*\]\s*)*(?:=|\{|;|$)")


def blank(text):
    """The text with spaces for comments, strings and directives, and two sets of the numbers of lines: those where a comment
    ends that stands by itself, and those where one ends behind something."""
    commented = (set(), set())

    def spaces(match):
        found = match[0]
        if found.startswith(("//", "/*")):
            before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
            commented[bool(before.strip())].add(text.count("\n", 0, match.end()))
        kept = '"' if found[0] in "\"'R" else " "
        return "".join(c if c == "\n" else kept for c in found)

    return BLANKED.sub(spaces, text), commented


def declarations(text):
    """(start, words) of each declaration at namespace scope, without its body."""
    start = position = 0
    while position < len(text):
        c = text[position]
        if c in "([{":
            words = text[start:position].strip()
            if c == "{" and (match := NAMESPACE.match(words)):
                if "detail" in match[1].split("::") or not match[1]:
                    position = end_of_block(text, position)
                start = position + 1
            else:
                end = end_of_block(text, position)
                # A body ends a declaration, an initialiser in braces does not.
                if c == "{" and (not words or is_body(words)):
                    yield from one(text, start, position, "{")
                    start = end + 1
                position = end
        elif c == "}":
            start = position + 1  # a namespace ends
        elif c == ";":
            yield from one(text, start, position, ";")
            start = position + 1
        position += 1


def one(text, start, end, last):
    words = text[start:end]
    if words.strip():
        yield start + len(words) - len(words.lstrip()), words.strip() + last


def end_of_block(text, position):
    depth = 0
    for i in range(position, len(text)):
        depth += (text[i] in "([{") - (text[i] in ")]}")
        if depth == 0:
            return i
    return len(text)


def is_body(words):
    plain = without_template(words)
    if CLASS.match(plain) or plain.rstrip().endswith((")", "noexcept", "const")) or ") ->" in plain:
        return True
    return re.search(r"(\)|\bnoexcept|\bconst)\s*requires\b", plain) is not None


def without_template(words):
    while match := TEMPLATE.match(words):
        depth, i = 0, match.end() - 1
        for i in range(i, len(words)):
            depth += (words[i] == "<") - (words[i] == ">" and words[i - 1] != "-")
            if depth == 0:
                break
        words = words[i + 1 :].lstrip()
        if words.startswith("requires"):
            # Up to the declaration, which begins with a word behind a closing bracket or a name.
            words = re.sub(r"^requires\s+(?:\([^;{]*?\)(?=\s*\w)|[\w:]+(?:<[^;{(]*?>)?(?:\s*(?:&&|\|\|)\s*[\w:]+(?:<[^;{(]*?>)?)*)\s*", "", words)
    return re.sub(r"^(?:\[\[[^\]]*\]\]\s*)+", "", words)


def name_of(words):
    """The name that needs a comment; None if none does."""
    plain = without_template(words)
    if re.match(r"(namespace|static_assert|friend|extern)\b", plain) or words.startswith("template <>"):
        return None
    if re.match(r"using\b", plain) and not NAMED.match(plain):
        return None
    if match := NAMED.match(plain):
        return match[1]
    if match := CLASS.match(plain):
        if plain.endswith("{") or re.search(r"\)|=", plain) is not None:
            return None if match[2] or "::" in match[1] else match[1]
        return None  # declared beforehand
    plain = re.sub(r"^(?:(?:inline|constexpr|consteval|static|explicit|auto)\s+)*", "", plain)
    head = plain.split("=")[0] if "operator" not in plain else plain
    if match := FUNCTION.search(re.sub(r"\b(?:noexcept|decltype|alignas|requires)\s*\(", "", head)):
        guide = re.search(r"\)\s*->[^{;]*;$", plain) and plain.startswith(match[1])
        return None if guide or "::" in match[1] else match[1]
    match = VARIABLE.search(plain.replace("<=", "  "))
    return match[1] if match and "::" not in match[1] else None


def faults(path, text):
    if "detail" in path.parts:
        return
    plain, (alone, behind) = blank(text)
    lines = text.splitlines()
    known = set()
    last_kind, last_line, explained = None, -2, False
    for start, words in declarations(plain):
        name, line = name_of(words), plain.count("\n", 0, start)
        kind = name if "(" in words.split("=")[0] or "constexpr" not in words else "constant"
        follows = explained and kind == last_kind and "" not in map(str.strip, lines[last_line:line])
        explained = name is not None and (line - 1 in alone or line in behind or follows)
        if explained:
            known.add(name)
        elif name is not None and name not in known:
            yield f"{path}:{line + 1}: {name} is not documented"
        last_kind, last_line = kind, line


def main():
    root = pathlib.Path(sys.argv[1])
    found = [fault for path in sorted(root.rglob("*.hpp")) for fault in faults(path, path.read_text())]
    print(*found, sep="\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
