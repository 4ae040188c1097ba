"""Checks what the house plan promises of the headers.

usage: house_rules.py INCLUDE_DIR DRIVER_HEADERS -- COMPILER...

- Includes point down the floors only, and mqtt and websocket do not know each other.
- Every header but the drivers on the floors that do no I/O compiles alone, without a warning, and brings in neither Asio
  nor OpenSSL, however indirectly.
- Asio's insides are used in one header.
- Every test is in one of the lists of tests/meson.build.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys

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
NO_IO = {"core", "digest", "websocket", "mqtt", "aliyun"}
# On the transport floor, which is there for I/O, the protocols by themselves.
NO_IO_TRANSPORT = {"connect_progress.hpp", "error.hpp", "http_connect.hpp", "proxy_error.hpp", "socks5.hpp"}
FORBIDDEN = re.compile(r"/(asio|openssl|boost)(/|\.hpp)")


def include_faults(root, header):
    floor = header.relative_to(root).parts[1]
    for include in re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', header.read_text(), re.MULTILINE):
        parts = include.split("/")
        if parts[0] == "runnel" and len(parts) > 2 and parts[1] not in MAY_INCLUDE[floor]:
            yield f"{header}: {floor} must not include {include}"


def insides_faults(root, header):
    allowed = header.relative_to(root / "runnel").as_posix() == "coro/detail/asio_thread.hpp"
    if not allowed and re.search(r"\basio(::|/)detail\b", header.read_text()):
        yield f"{header}: uses asio::detail, which is for coro/detail/asio_thread.hpp"


def compile_faults(root, header, compiler):
    flags = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
    # -MD beside -fsyntax-only: one pass that checks the header and names every file it brings in.
    command = [*compiler, *flags, f"-I{root}", "-fsyntax-only", "-MD", "-MF", "/dev/stdout", "-x", "c++", "-"]
    include = header.relative_to(root).as_posix()
    done = subprocess.run(command, input=f"#include <{include}>\n", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield f"{header}: does not compile alone:\n{done.stderr}"
    for found in sorted({path for path in done.stdout.split() if FORBIDDEN.search(path)})[:3]:
        yield f"{header}: brings in {found}, but is on a floor that does no I/O"


def listing_faults(tests):
    listed = (tests / "meson.build").read_text()
    for path in sorted(tests.rglob("*_test.cpp")):
        if f"'{path.relative_to(tests).as_posix()}'" not in listed:
            yield f"{path}: not listed in tests/meson.build"


def main():
    root = pathlib.Path(sys.argv[1])
    drivers = set(sys.argv[2].split(","))
    compiler = sys.argv[sys.argv.index("--") + 1 :]

    headers = sorted(h for h in (root / "runnel").rglob("*.hpp") if h.parent.name != "runnel")
    no_io = [
        h
        for h in headers
        if (h.relative_to(root).parts[1] in NO_IO and h.relative_to(root / "runnel").as_posix() not in drivers)
        or (h.relative_to(root).parts[1] == "transport" and h.name in NO_IO_TRANSPORT)
    ]
    if not no_io:
        sys.exit("no headers found")

    faults = [fault for header in headers for fault in include_faults(root, header)]
    faults += [fault for header in headers for fault in insides_faults(root, header)]
    faults += listing_faults(pathlib.Path(__file__).parent)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(lambda header: list(compile_faults(root, header, compiler)), no_io):
            faults += found
    print(*faults, sep="\n")
    print(f"{len(headers)} headers, {len(no_io)} of them without I/O, {len(faults)} faults")
    sys.exit(1 if faults else 0)


main()
