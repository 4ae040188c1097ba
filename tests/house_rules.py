"""Checks what the house plan promises of the headers.

usage: house_rules.py INCLUDE_DIR [--drivers] -- COMPILER...

- Includes point down the floors only, and mqtt and websocket do not know each other. What is public includes no `detail` of
  another floor.
- Every header that does no I/O compiles alone, without a warning; where a library that it needs is not installed it is left
  out. With --drivers those are compiled instead that do I/O, which takes as long again.
- Only where the path says so (DRIVERS, SEE_OPENSSL) does a header reach Asio or OpenSSL, however indirectly.
- What does no I/O throws and catches by the macros of core/compiler.hpp alone, since it can be compiled without exceptions.
- Nothing is called `min` or `max` in a way that <windows.h> takes for its macro.
- Asio's insides are used in one header, which Asio it is is known to one, and what only some compilers have in another.
- Every header is in the folder of a floor, but the version and those that include whole floors (WHOLE). What is
  included is named from the root of the headers, in angle brackets.
- The module (runnel.cppm) has every public header.
- Every test is in one of the lists of tests/meson.build.
- Every name at namespace scope outside of `detail` is documented (undocumented.py).

To compile each of some 200 headers by itself would take minutes, most of them for the standard library and Asio. So headers
are compiled in chains, one behind the other, such that each sees exactly what it would see by itself: all that comes before
a header in its chain is what it includes anyway. And what is precompiled (PORTIONS) is given only to headers that include all
of it themselves.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import undocumented

MAY_INCLUDE = {
    "core": {"core"},
    "digest": {"core", "digest"},
    "coro": {"core", "coro"},
    "transport": {"core", "digest", "coro", "transport"},
    "websocket": {"core", "digest", "coro", "transport", "websocket"},
    "mqtt": {"core", "digest", "coro", "transport", "mqtt"},
    "aliyun": {"core", "digest", "coro", "transport", "websocket", "mqtt", "aliyun"},
    "testing": {"core", "digest", "coro", "transport", "websocket", "mqtt", "aliyun", "testing"},
}

# Include whole floors.
WHOLE = {"runnel.hpp", "src.hpp", "src_tls.hpp", "tls.hpp"}

# What does I/O: paths below include/runnel, a folder with a slash at its end. All else reaches neither Asio nor OpenSSL.
DRIVERS = {
    "aliyun/alink/",
    "aliyun/client/",
    "coro/",
    "mqtt/client/",
    "runnel.hpp",
    "src.hpp",
    "src_tls.hpp",
    "testing/",
    "tls.hpp",
    "transport/",
    "websocket/",
}
# Within these, what does no I/O after all.
NOT_DRIVERS = {"aliyun/alink/protocol/", "transport/proxy/protocol/", "websocket/protocol/"}
SEE_OPENSSL = {"src_tls.hpp", "testing/", "tls.hpp", "transport/tls/", "websocket/transport_from.hpp"}
FORBIDDEN = re.compile(r"(asio|openssl|boost)(/|\.hpp)")

# Libraries that may be missing.
OPTIONAL = ["nlohmann/json.hpp", "openssl/ssl.h", "sqlite3.h", "zlib.h"]

# What is precompiled, the cheapest first: a header gets the last of these that it includes all of.
STRING = ["string"]
PACKETS = [*STRING, "algorithm", "array", "bit", "cstring", "optional", "ranges", "span", "system_error", "tuple"]
RULES = [*PACKETS, "bitset", "chrono", "functional", "limits", "memory", "vector"]
STATE = ["runnel/mqtt/protocol/session_state.hpp"]
AWAITABLE = ["asio/awaitable.hpp"]
TASKS = [*AWAITABLE, "asio/cancellation_type.hpp", "asio/defer.hpp", "asio/dispatch.hpp", "memory", "mutex", "optional"]
STATE_AND_TASKS = [*STATE, *TASKS]
PORTIONS = [STRING, PACKETS, RULES, STATE, AWAITABLE, TASKS, STATE_AND_TASKS]

FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", "-DASIO_STANDALONE"]

DIRECTIVE = re.compile(r"\s*#\s*(include|if|endif)")
INCLUDE = re.compile(r'\s*#\s*include\s*[<"]([^>"]+)[>"]')
# By coro/asio.hpp.
INCLUDE_ASIO = re.compile(r"\s*#\s*include RUNNEL_(ASIO(?:_[A-Z]+)?)\((\w+\.hpp)\)$")
NOT_FROM_ROOT = re.compile(r"^\s*#\s*include(?:_next)?\s*(?!RUNNEL_ASIO)[^\s<].*|^\s*#\s*(?:import|include_next)\b.*", re.MULTILINE)
COMMENT = re.compile(r"\s*(//.*)?$")


class Header:
    """What a header includes, as the text says it."""

    def __init__(self, root, path):
        self.path, self.name = path, path.relative_to(root).as_posix()
        self.text = path.read_text()
        self.always = set()  # included whatever the machine
        self.sometimes = set()
        self.late = False  # includes something behind a declaration of its own
        depth = declared = 0
        for line in self.text.splitlines():
            if (match := INCLUDE.match(line)) or (by_macro := INCLUDE_ASIO.match(line)):
                name = match[1] if match else f"{by_macro[1].lower().replace('_', '/')}/{by_macro[2]}"
                (self.sometimes if depth else self.always).add(name)
                self.late |= declared > 0
            elif match := DIRECTIVE.match(line):
                depth += {"if": 1, "endif": -1, "include": 0}[match[1]]
            elif not COMMENT.match(line) and not line.lstrip().startswith("#"):
                declared += 1


def reachable(names, headers, edges):
    found, pending = set(), list(names)
    while pending:
        if (header := headers.get(pending.pop())) is not None:
            new = edges(header) - found
            found |= new
            pending += new
    return found


def place_faults(root):
    for path in sorted((root / "runnel").rglob("*")):
        place = path.relative_to(root / "runnel")
        if path.is_file() and path.suffix != ".hpp" and path.name != MODULE:
            yield f"{path}: is no .hpp, and so is not checked"
        elif path.is_file() and place.parts[0] not in (MAY_INCLUDE if len(place.parts) > 1 else {*WHOLE, "version.hpp", MODULE}):
            yield f"{path}: is in no floor's folder"


def include_faults(header):
    for directive in NOT_FROM_ROOT.findall(header.text):
        yield f"{header.path}: {directive.strip()}: name it from the root of the headers, in angle brackets"
    floor = header.name.split("/")[1]
    if floor not in MAY_INCLUDE:
        return
    for include in sorted(header.always | header.sometimes):
        parts = include.split("/")
        if parts[0] != "runnel" or parts[1] == floor:
            continue
        if parts[1] not in MAY_INCLUDE[floor]:
            yield f"{header.path}: {floor} must not include {include}"
        elif "detail" in parts and "/detail/" not in header.name:
            yield f"{header.path}: {include} is a detail of another floor"


def insides_faults(header):
    if header.name != "runnel/coro/detail/asio_thread.hpp" and re.search(r"\basio(::|/)detail\b", header.text):
        yield f"{header.path}: uses asio::detail, which is for coro/detail/asio_thread.hpp"
    if header.name != "runnel/coro/asio.hpp" and re.search(r"<(boost/)?asio/|::asio\b(?! *=)|(?<!using )\bnamespace asio\b", header.text):
        yield f"{header.path}: knows which Asio it is, which is for coro/asio.hpp: #include RUNNEL_ASIO(...), asio::..."


# Neither C++ nor what every compiler has. (Statement expressions and the like -Wpedantic finds.)
EXTENSION = re.compile(
    r"\[\[(?:gnu|clang|msvc)::\w+|\[\[no_unique_address\]\]|\b(?:__attribute__|__builtin_\w+|__declspec|__int128|__restrict\w*|"
    r"__extension__|__typeof\w*|_Pragma|asm|__GNUC__|__clang__|_MSC_VER)\b|#\s*pragma (?!once\b)\w+"
)
# The latter is compiled only where the former says so.
KNOW_COMPILERS = {"runnel/core/compiler.hpp", "runnel/digest/detail/x86_sha.hpp"}


def extension_faults(header):
    if header.name not in KNOW_COMPILERS:
        for found in sorted(set(EXTENSION.findall(re.sub(r"//.*", "", header.text)))):
            yield f"{header.path}: {found} is for core/compiler.hpp, and a macro of that for here"


# Do no I/O, and want exceptions all the same: of nlohmann/json, and for what SQLite says.
WANT_EXCEPTIONS = {"aliyun/alink/", "mqtt/store/sqlite_store.hpp"}
EXCEPTION = re.compile(r"(?<![\w'])(?:try\s*\{|catch\s*\(|throw\b)")


def exception_faults(header):
    if is_rule(header) and header.name not in KNOW_COMPILERS and not is_in(header, WANT_EXCEPTIONS):
        for found in sorted(set(EXCEPTION.findall(re.sub(r"//.*|\"[^\"\n]*\"", "", header.text)))):
            yield f"{header.path}: {found.strip()} where exceptions may be off: RUNNEL_THROW, RUNNEL_TRY, RUNNEL_CATCH_ALL"


def windows_faults(header):
    for name in sorted(set(re.findall(r"\b(?:min|max)\(", re.sub(r"//.*", "", header.text)))):
        yield f"{header.path}: {name}...) is a macro of <windows.h>: (std::{name[:3]})(...)"


def is_in(header, paths):
    below = header.name.removeprefix("runnel/")
    return any(below.startswith(path) if path.endswith("/") else below == path for path in paths)


def is_rule(header):
    return not is_in(header, DRIVERS) or is_in(header, NOT_DRIVERS)


def io_faults(header, headers):
    reached = sorted(filter(FORBIDDEN.match, reachable([header.name], headers, lambda h: h.always | h.sometimes)))
    if is_rule(header):
        for found in reached[:3]:
            yield f"{header.path}: reaches {found}, but is where no I/O is done"
    elif not is_in(header, SEE_OPENSSL):
        for found in [name for name in reached if name.startswith("openssl")][:3]:
            yield f"{header.path}: reaches {found}, but is where OpenSSL is not seen"


MODULE = "runnel.cppm"
# What a program that imports the module includes where it needs it.
NOT_IN_MODULE = {"mqtt/client/session_source.hpp", "src.hpp", "src_tls.hpp", "testing/"}


def module_faults(root, headers):
    """The module has all public headers, and includes ahead of itself what others than runnel bring to them."""
    module = Header(root, root / "runnel" / MODULE)
    included = module.always | module.sometimes
    reached = reachable([name for name in included if name in headers], headers, lambda h: h.always | h.sometimes) | included
    for name, header in headers.items():
        if "/detail/" not in name and name not in reached and not is_in(header, NOT_IN_MODULE):
            yield f"{module.path}: has not {name}"
    for name in sorted(reached - included):
        if not name.startswith(("runnel/", "asio/", "boost/")):
            yield f"{module.path}: must include <{name}> ahead, as headers of runnel do"


def chains_of(some, closures):
    """The headers in chains that are the cheapest to compile. What stands in one before a header is what it includes."""
    # These see something else where they are not the first: they are included in a circle, or their own text comes before
    # an include.
    first = {header.name for header in some if header.name in closures[header.name] or header.late}
    # A chain costs what its last header includes, so those that include most want one behind them first.
    names = sorted((header.name for header in some), key=lambda name: -len(closures[name]))
    behind = {a: [b for b in names if a in closures[b] and b not in first] for a in names}
    before = {}

    # Kuhn's algorithm: a matching of each header with the one behind it.
    def place(a, tried):
        for b in behind[a]:
            if b not in tried:
                tried.add(b)
                if b not in before or place(before[b], tried):
                    before[b] = a
                    return True
        return False

    for name in names:
        place(name, set())
    after = {a: b for b, a in before.items()}
    for name in names:
        if name not in before:
            chain = [name]
            while chain[-1] in after:
                chain.append(after[chain[-1]])
            yield chain


def run(compiler, arguments, text=None):
    command = [*compiler, *FLAGS, *arguments, *(["-x", "c++", "-"] if text is not None else [])]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def precompile(root, compiler, path, names):
    path.write_text("".join(f"#include <{name}>\n" for name in names))
    done = run(compiler, [f"-I{root}", "-x", "c++-header", str(path), "-o", f"{path}.gch"])
    if done.returncode != 0:
        sys.exit(f"{', '.join(names)}: does not compile:\n{done.stderr}")


def compile_faults(root, compiler, chain, precompiled):
    arguments = [f"-I{root}", "-fsyntax-only", "-Winvalid-pch"]
    if precompiled is not None:
        arguments += ["-include", str(precompiled)]
    done = run(compiler, arguments, "".join(f"#include <{name}>\n" for name in chain))
    return [f"{', '.join(chain)}: does not compile alone:\n{done.stderr}"] if done.returncode != 0 else []


def tasks_of(compiled, headers, folder):
    """What to precompile, and the chains, each with what of that it gets."""
    closures = {name: reachable([name], headers, lambda h: h.always) for name in headers}
    portions = []
    for i, names in enumerate(PORTIONS):
        if all(name in headers or not name.startswith("runnel/") for name in names):
            brought = set(names) | reachable(names, headers, lambda h: h.always)
            portions.append((folder / f"portion_{i}.hpp", names, brought))
    groups = {}
    for name in compiled:
        fitting = [path for path, names, brought in portions if set(names) <= closures[name] and name not in brought]
        groups.setdefault(fitting[-1] if fitting else None, []).append(headers[name])
    chains = [(chain, path) for path, some in groups.items() for chain in chains_of(some, closures)]
    return [(path, names) for path, names, _ in portions if path in groups], chains


def missing_libraries(compiler):
    text = "".join(f"#if !__has_include(<{name}>)\nmissing {name}\n#endif\n" for name in OPTIONAL)
    return set(re.findall(r"^missing (.*)", run(compiler, ["-E", "-P"], text).stdout, re.MULTILINE))


def listing_faults(tests):
    listed = re.sub(r"#.*", "", (tests / "meson.build").read_text())
    for path in sorted(tests.rglob("*_test.cpp")):
        if f"'{path.relative_to(tests).as_posix()}'" not in listed:
            yield f"{path}: not listed in tests/meson.build"


def main():
    root = pathlib.Path(sys.argv[1])
    compiler = sys.argv[sys.argv.index("--") + 1 :]
    found = (Header(root, path) for path in sorted((root / "runnel").rglob("*.hpp")))
    headers = {header.name: header for header in found}
    if not headers:
        sys.exit("no headers found")

    faults = [*place_faults(root), *listing_faults(pathlib.Path(__file__).parent), *module_faults(root, headers)]
    for header in headers.values():
        faults += [*include_faults(header), *insides_faults(header), *extension_faults(header), *windows_faults(header)]
        faults += [*io_faults(header, headers), *exception_faults(header)]
        faults += undocumented.faults(header.path, header.text)

    drivers, missing = "--drivers" in sys.argv, missing_libraries(compiler)
    reached = {name: reachable([name], headers, lambda h: h.always | h.sometimes) for name in headers}
    compiled = [
        name for name in headers if any(map(FORBIDDEN.match, reached[name])) == drivers and not missing & reached[name]
    ]
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        portions, chains = tasks_of(compiled, headers, pathlib.Path(folder))
        list(pool.map(lambda portion: precompile(root, compiler, *portion), portions))
        for more in pool.map(lambda chain: compile_faults(root, compiler, *chain), chains):
            faults += more
    print(*faults, sep="\n")
    without = f" (not those that need {', '.join(sorted(missing))})" if missing else ""
    print(f"{len(headers)} headers, {len(compiled)} compiled{without} in {len(chains)} chains, {len(faults)} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
