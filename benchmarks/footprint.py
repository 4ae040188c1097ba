#!/usr/bin/env python3
"""Tells what each feature costs: code with -O2 and -Os, the size of a session, its heap, the peak memory of the process.

Usage: footprint.py [--write FILE] [--table NAME] [--only NAME,...] [--lock FILE] [--peers FOLDER,...] [--runner COMMAND]
                    --compiler COMPILER --include FOLDER

Prints a table in Markdown; --write puts it into FILE, between the lines `<!-- footprint -->` and `<!-- /footprint -->`, or
with --table between `<!-- NAME -->` and `<!-- /NAME -->`.
--lock: a file that is locked during each compilation, for machines that others compile on, too.
--peers: folders with headers of peers that the compiler does not find by itself.
--runner: what runs the programs of a compiler for another machine: "qemu-arm -L /usr/arm-linux-gnueabihf". What memory such
a process has is its emulator's, and is left out.

Code is all that is loaded (`text` and `data` of `size`), without the C and C++ libraries, OpenSSL and SQLite, which are
shared libraries; those of the peers, which are shared ones too, are counted. Stripped is the file.
"""

import argparse
import contextlib
import fcntl
import os
import pathlib
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True  # nothing is left behind in the source tree

HERE = pathlib.Path(__file__).resolve().parent
ALL = ["SUBSCRIBE", "REQUEST", "STORE", "TLS", "WEBSOCKET", "ALIYUN"]
# What the program does, by name, and the macros that make it so.
PROGRAMS = {
    "publish": ("TCP, `publish` only", []),
    "subscribe": ("and `subscribe`, `receive`", ["SUBSCRIBE"]),
    "request": ("and `request`, `respond`", ["SUBSCRIBE", "REQUEST"]),
    "store": ("TCP, `publish`, with `sqlite_store`", ["STORE"]),
    "tls": ("TLS, `publish`", ["TLS"]),
    "ws": ("WebSocket, `publish`", ["WEBSOCKET"]),
    "device": ("Aliyun device over `wss`: `publish`, `subscribe`", ["SUBSCRIBE", "TLS", "WEBSOCKET", "ALIYUN"]),
    "all": ("the same with everything above", ALL),
}
LIBRARIES = {"TLS": ["-lssl", "-lcrypto"], "STORE": ["-lsqlite3"]}
# Source, header, shared library.
PEERS = {
    "Boost.MQTT5, `publish`": ("footprint_boost_mqtt5.cpp", "boost/mqtt5/mqtt_client.hpp", None),
    "libmosquitto, `publish`": ("footprint_mosquitto.cpp", "mosquitto.h", "mosquitto"),
    "Paho C, `publish`": ("footprint_paho.cpp", "MQTTAsync.h", "paho-mqtt3a"),
}


def output_of(command, **more):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, timeout=900, **more).stdout


@contextlib.contextmanager
def locked(file):
    if not file:
        yield
        return
    with open(file, "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tool(options, name):
    """That of the compiler's binutils."""
    return output_of([*options.compiler, f"-print-prog-name={name}"]).strip()


def loaded(options, file):
    text, data = output_of([tool(options, "size"), file]).splitlines()[1].split()[:2]
    return int(text) + int(data)


def shared_library(options, library):
    """The file that the compiler links."""
    name = f"lib{library}.so"
    folders = [pathlib.Path(word[2:]) for word in options.compiler if word.startswith("-L")]
    found = next((folder / name for folder in folders if (folder / name).exists()), None)
    return os.path.realpath(found or output_of([*options.compiler, f"-print-file-name={name}"]).strip())


def build(options, optimisation, source, arguments, to):
    command = [*options.compiler, "-std=c++20", optimisation, "-DNDEBUG", "-DASIO_STANDALONE", "-I", options.include, "-pthread",
               str(HERE / source), "-o", to, *arguments]
    with locked(options.lock):
        subprocess.run(command, check=True)


def figures_of(options, source, arguments, library=None):
    """Loaded and stripped bytes for each optimisation; then what the program says of itself."""
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        for optimisation in ("-O2", "-Os"):
            program = f"{folder}/program"
            build(options, optimisation, source, arguments, program)
            code = loaded(options, program)
            subprocess.run([tool(options, "strip"), program], check=True)
            file = os.path.getsize(program)
            if library:
                shared = shared_library(options, library)
                code, file = code + loaded(options, shared), file + os.path.getsize(shared)
            figures += [code, file]
        size, heap, peak = map(int, output_of([*options.runner, program], cwd=folder).split())
    return [*figures, size, heap, 0 if options.runner else peak]


def row(name, figures):
    cells = [f"{code / 1024:,.0f}" for code in figures[:4]] + [f"{figure:,}" if figure else "" for figure in figures[4:]]
    return f"| {name} | " + " | ".join(cells) + " |"


def has_header(options, header):
    done = subprocess.run([*options.compiler, "-fsyntax-only", "-x", "c++", "-"], input=f"#include <{header}>\n", text=True,
                          stderr=subprocess.DEVNULL, check=False)
    return done.returncode == 0


def table(options):
    yield "| | -O2: code, KiB | stripped | -Os: code, KiB | stripped | `sizeof` the session | heap of a session, B | peak memory, KiB |"
    yield "|---|---|---|---|---|---|---|---|"
    for key, (name, features) in PROGRAMS.items():
        if options.only and key not in options.only:
            continue
        arguments = [f"-DWITH_{f}={int(f in features)}" for f in ALL]
        for feature in features:
            arguments += LIBRARIES.get(feature, [])
        yield row(name, figures_of(options, "footprint.cpp", arguments))
    for name, (source, header, library) in PEERS.items():
        if not options.only and has_header(options, header):
            yield row(name, figures_of(options, source, [f"-l{library}"] if library else [], library))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=pathlib.Path, help="put the table into this file")
    parser.add_argument("--table", default="footprint", help="the name by which the table is marked there")
    parser.add_argument("--only", type=lambda names: names.split(","), help="of " + ", ".join(PROGRAMS))
    parser.add_argument("--lock", help="a file to be locked while something compiles")
    parser.add_argument("--peers", type=lambda folders: folders.split(","), default=[], help="folders with headers of peers")
    parser.add_argument("--runner", type=str.split, default=[], help="runs the programs of another machine")
    parser.add_argument("--compiler", default="g++", help="arguments follow behind commas")
    parser.add_argument("--include", default=str(HERE.parent / "include"), help="the folder of the headers")
    options = parser.parse_args()
    options.compiler = [word for word in options.compiler.split(",") if os.path.basename(word) != "ccache"]
    for folder in filter(None, options.peers):
        options.compiler += ["-isystem", folder]
    return options


def main():
    options = parse_arguments()
    lines = []
    for line in table(options):
        print(line, flush=True)
        lines.append(line)
    if options.write:
        begin, end = f"<!-- {options.table} -->", f"<!-- /{options.table} -->"
        before, _, rest = options.write.read_text().partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            sys.exit(f"{options.write} has no {begin} with {end} behind it")
        options.write.write_text("\n".join([before + begin, *lines, end]) + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
