#!/usr/bin/env python3
"""Runs the benchmarks beside the peers that are installed, and writes what they have measured to a file.

Usage: report.py [options] OUTPUT NAME=PROGRAM...

Each program prints one JSON object a line, {group, case, who, unit, value} (report.hpp), or speaks Google Benchmark's
JSON. OUTPUT becomes a list of {case, ours, peer, peer_name, unit, ratio, target, met, spread}: medians of RUNS runs;
the ratio is peer to ours where less is better, else ours to peer; the spread is that of ours, (largest - smallest) /
median; `met` is null where there is no target. Where `valgrind` and `strace` are installed, instructions and system
calls a message are counted too: those of a long run less those of a short one.

Ends with 1 if a program fails, or a peer that is installed did not run.
"""

import argparse
import json
import os
import pathlib
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile

# Messages of a run, by case; the peers that are much slower send fewer.
SESSION_CASES = {
    "publish_qos0_try": 2_000_000,
    "publish_qos0": 2_000_000,
    "publish_qos1_window_20": 400_000,
    "publish_qos1_window_10000": 400_000,
    "publish_qos2_window_20": 200_000,
    "receive_qos0_view": 2_000_000,
    "receive_qos0": 2_000_000,
    "latency": 5_000,
}
SLOWER = {"mosquitto": 20, "paho": 40, "raw": 1}
CPU = "ns CPU/message"

# What is to be reached: the largest value, or the smallest for units that end in "/s" and for shares.
TARGETS = {
    ("codec/decode/publish_64/3.1.1", "instructions"): 80,
    ("codec/encode/publish_64/3.1.1", "instructions"): 80,
    ("codec/decode/publish_256_three_user_properties/5", "instructions"): 450,
    ("codec/encode/publish_256_three_user_properties/5", "instructions"): 350,
    ("session/publish_qos0_try", CPU): 250,
    ("session/publish_qos0", CPU): 350,
    ("session/publish_qos1_window_20", CPU): 1500,
    ("session/publish_qos1_window_10000", CPU): 600,
    ("session/publish_qos2_window_20", CPU): 3000,
    ("session/receive_qos0_view", CPU): 150,
    ("session/receive_qos0", CPU): 250,
    ("session/publish_qos0_try", "instructions/message"): 400,
    ("session/publish_qos1_window_20", "instructions/message"): 900,
    ("session/publish_qos2_window_20", "instructions/message"): 1500,
    ("session/receive_qos0_view", "instructions/message"): 300,
    ("session/publish_qos0_try", "system calls/message"): 0.05,
    ("session/publish_qos1_window_20", "system calls/message"): 0.15,
    ("session/publish_qos2_window_20", "system calls/message"): 0.3,
    ("session/receive_qos0_view", "system calls/message"): 0.02,
    ("session/publish_qos0_try", "share of the raw rate"): 0.5,
    ("session/receive_qos0_view", "share of the raw rate"): 0.5,
    ("session/idle", "bytes/session"): 4096,
    ("session/idle_lost", "sessions"): 0,
    ("websocket/send_packed_64", "ns CPU/frame"): 400,
    ("websocket/receive_64", "ns CPU/frame"): 250,
    ("websocket/mask_64", "GB/s"): 25,
    ("websocket/mask_1024", "GB/s"): 55,
    ("websocket/mask_65536", "GB/s"): 50,
    ("fleet/subscriptions", "growth"): 1.5,
    ("fleet/sessions", "growth"): 1.5,
    ("fleet/in_flight", "growth"): 1.5,
    ("footprint/publisher", "s CPU"): 9,
    ("footprint/publisher", "MiB compiler memory"): 480,
    ("footprint/publisher", "KiB stripped"): 260,
    ("signer/hmacsha256", "share of HMAC()"): 0.5,
    ("signer/hmacsha1", "share of HMAC()"): 0.5,
    ("signer/hmacmd5", "share of HMAC()"): 0.5,
    **{(f"session/{case}", "allocations/message"): 0 for case in SESSION_CASES if case != "latency"},
}
MORE_IS_BETTER = re.compile(r"/s$|^share of the raw rate$")


class Figures:
    """What has been measured: all values of a case, library and unit."""

    def __init__(self):
        self.values = {}
        self.failures = []

    def add(self, case, who, unit, value):
        self.values.setdefault((case, unit), {}).setdefault(who, []).append(value)

    def add_lines(self, text, limit=None):
        for line in text.splitlines():
            if line.startswith("{"):
                f = json.loads(line)
                if limit is None or limit(f):
                    self.add(f"{f['group']}/{f['case']}", f["who"], f["unit"], f["value"])

    def median(self, case, unit, who):
        values = self.values.get((case, unit), {}).get(who)
        return statistics.median(values) if values else None

    def rows(self):
        for (case, unit), by_who in self.values.items():
            ours = by_who.get("runnel")
            peers = [w for w in by_who if w != "runnel"]
            if ours is None:
                continue
            for peer in peers or [None]:
                yield self.row(case, unit, ours, peer, by_who.get(peer))

    @staticmethod
    def row(case, unit, ours, peer_name, peer):
        mine = statistics.median(ours)
        other = statistics.median(peer) if peer else None
        target = TARGETS.get((case, unit))
        more = MORE_IS_BETTER.search(unit) is not None
        ratio = None
        if other is not None and mine and other:
            ratio = mine / other if more else other / mine
        # A few allocations of the first messages are not a cost of each.
        allowance = 0.0005 if unit.startswith("allocations") else 0
        met = None if target is None else mine >= target if more else mine <= target + allowance
        spread = (max(ours) - min(ours)) / mine if mine else 0
        return {"case": case, "ours": mine, "peer": other, "peer_name": peer_name, "unit": unit, "ratio": ratio,
                "target": target, "met": met, "spread": round(spread, 3)}


def run(figures, command, name, **more):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=900, **more)
    except subprocess.TimeoutExpired:
        figures.failures.append(f"{name}: no end")
        return None
    if done.returncode != 0:
        figures.failures.append(f"{name}: {done.returncode}: {done.stderr.strip()[-300:]}")
        return None
    return done


# --- session

class Peer:
    """The other side: a process that acknowledges and floods."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def counted(figures, wrap, pattern, program, port, case, messages):
    """Counts of a long run less those of a short one, a message."""
    totals = []
    for n in (messages, 3 * messages):
        with tempfile.NamedTemporaryFile("r") as out:
            done = run(figures, [*wrap(out.name), program, port, case, str(n)], f"{case} under {wrap(out.name)[0]}")
            if done is None:
                return None
            found = re.search(pattern, done.stderr + out.read(), re.MULTILINE)
            if found is None:
                return None
            totals.append(int(found.group(1)))
    return (totals[1] - totals[0]) / (2 * messages * 1.2)  # a fifth more warms up


def counts(figures, program, who, port, case, messages):
    if shutil.which("valgrind"):
        value = counted(figures, lambda out: ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"],
                        r"Collected : (\d+)", program, port, case, messages // 10)
        if value is not None:
            figures.add(f"session/{case}", who, "instructions/message", value)
    if shutil.which("strace"):
        value = counted(figures, lambda out: ["strace", "-f", "-c", "-o", out], r"(\d+)\s+(?:\d+\s+)?total$",
                        program, port, case, messages)
        if value is not None:
            figures.add(f"session/{case}", who, "system calls/message", value)


def session(figures, programs, runs):
    names = {"runnel": "session", "mosquitto": "session_mosquitto", "paho": "session_paho", "raw": "session_raw"}
    who = {"runnel": "runnel", "mosquitto": "libmosquitto", "paho": "Paho C", "raw": "raw socket"}
    clients = {c: programs[p] for c, p in names.items() if p in programs}
    with Peer(programs["session_peer"]) as peer:
        for case, messages in SESSION_CASES.items():
            for r in range(runs):
                for client, program in clients.items():
                    own = case.removesuffix("_try").removesuffix("_view") if client != "runnel" else case
                    if client == "raw" and (case == "latency" or "window_10000" in case or "qos2" in case):
                        continue
                    n = messages // SLOWER.get(client, 1)
                    if "10000" in case and client in ("mosquitto", "paho"):
                        n = 30_000
                    done = run(figures, [program, peer.port, own, str(n)], f"{case} with {client}")
                    if done:
                        figures.add_lines(done.stdout.replace(f'"{own}"', f'"{case}"'))
                    if r == 0 and case != "latency" and client != "raw" and "10000" not in case:
                        n = {"runnel": 300_000, "mosquitto": 20_000, "paho": 5_000}[client]
                        counts(figures, program, who[client], peer.port, own, n)
        for case in ("publish_qos0_try", "receive_qos0_view"):
            ours = figures.median(f"session/{case}", "messages/s", "runnel")
            raw = figures.median(f"session/{case}", "messages/s", "raw socket")
            if ours and raw:
                figures.add(f"session/{case}", "runnel", "share of the raw rate", ours / raw)
        # Sessions that only ping.
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for client, program in clients.items():
            n = {"runnel": min(10_000, hard - 100), "mosquitto": 300, "paho": 20}.get(client)
            if client == "raw":
                continue
            done = run(figures, [program, peer.port, "idle", str(n)], f"idle with {client}")
            if done:
                figures.add_lines(done.stdout)


# --- the programs that use Google Benchmark

def google(figures, program, runs, who_and_case, unit):
    command = [program, "--benchmark_format=json", f"--benchmark_repetitions={runs}", "--benchmark_min_time=0.05"]
    done = run(figures, command, os.path.basename(program))
    if not done:
        return
    # A program may print more behind the JSON.
    for b in json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{"):])[0]["benchmarks"]:
        known = who_and_case(b["name"].removesuffix("_median").removesuffix("_mean"))
        if b["run_type"] == "iteration" and known:
            figures.add(known[1], known[0], unit, b["cpu_time"] * {"ns": 1, "us": 1e3, "ms": 1e6}[b["time_unit"]])


def codec(figures, programs, runs):
    google(figures, programs["codec"], runs, lambda name: ("runnel", "codec/" + name), "ns")
    if not shutil.which("valgrind"):
        return
    for case in [c for c, unit in TARGETS if c.startswith("codec/") and unit == "instructions"]:
        totals = []
        for n in ("1000", "11000"):
            command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", programs["codec"],
                       "--count", case.removeprefix("codec/"), n]
            done = run(figures, command, case)
            if done:
                totals.append(int(re.search(r"Collected : (\d+)", done.stderr).group(1)))
        if len(totals) == 2:
            figures.add(case, "runnel", "instructions", (totals[1] - totals[0]) / 10_000)


def signer(figures, programs, runs):
    methods = {"hmacmd5": 0, "hmacsha1": 1, "hmacsha256": 2}

    def known(name):
        found = re.match(r"(runnel_password|openssl_hmac|openssl_evp_mac)<.*?(hmac\w+)>", name)
        who = {"runnel_password": "runnel", "openssl_hmac": "HMAC()", "openssl_evp_mac": "EVP_MAC"}
        return (who[found.group(1)], "signer/" + found.group(2)) if found else None

    google(figures, programs["signer"], runs, known, "ns")
    for method in methods:
        ours, theirs = (figures.median(f"signer/{method}", "ns", w) for w in ("runnel", "HMAC()"))
        if ours and theirs:
            figures.add(f"signer/{method}", "runnel", "share of HMAC()", ours / theirs)


def websocket(figures, programs, runs):
    """Its last lines compare: `send runnel packed 64 bytes: 2.9 M frames/CPU-s = 8.9 x send beast`."""
    line = re.compile(r"^(\w+) runnel( packed)?\s+(\d+) bytes:\s+([\d.]+) (M frames/CPU-s|GB/s)(?:\s+=\s+([\d.]+) x (\w+) (\w+))?",
                      re.MULTILINE)
    for _ in range(runs):
        done = run(figures, [programs["websocket"]], "websocket")
        seen = set()
        for what, packed, size, value, unit, ratio, _, peer in line.findall(done.stdout if done else ""):
            case, value = f"websocket/{what}{packed.replace(' ', '_')}_{size}", float(value)
            peer = {"beast": "Boost.Beast"}.get(peer, peer)
            # Time a frame; a rate stays one.
            unit, ours = ("ns CPU/frame", 1000 / value) if unit.startswith("M") else (unit, value)
            if case not in seen:
                figures.add(case, "runnel", unit, ours)
            seen.add(case)
            if peer:
                figures.add(case, peer, unit, ours * float(ratio) if unit == "ns CPU/frame" else ours / float(ratio))


# --- fleet

def fleet(figures, programs, runs):
    with Peer(programs["session_peer"]) as peer:
        for _ in range(runs):
            done = run(figures, [programs["fleet"], peer.port], "fleet")
            if done:
                figures.add_lines(done.stdout)
    for case in ("subscriptions", "sessions", "in_flight"):
        of = {n: figures.median(f"fleet/{case}_{n}", CPU, "runnel") for n in (1, 20, 100, 10_000)}
        small = of[1] or of[20]
        if small and of[10_000]:
            figures.add(f"fleet/{case}", "runnel", "growth", of[10_000] / small)


# --- footprint

PUBLISHER = """
#include <runnel/mqtt/session.hpp>
#include <runnel/transport/tcp.hpp>

#include <asio/co_spawn.hpp>
#include <asio/detached.hpp>
#include <asio/io_context.hpp>

asio::awaitable<void> publish(runnel::mqtt::session<runnel::tcp>& session) {
    co_await session.publish("sensors/1", "21.5", {.qos = runnel::mqtt::qos::at_least_once});
    co_await session.disconnect();
}

int main() {
    asio::io_context io;
    runnel::mqtt::session session(io.get_executor(), runnel::tcp{.host = "127.0.0.1"});
    asio::co_spawn(io, session.run(), asio::detached);
    asio::co_spawn(io, publish(session), asio::detached);
    io.run();
}
"""
SOURCES = {
    "publisher": PUBLISHER,
    "include": "#include <runnel/mqtt/session.hpp>\n#include <runnel/transport/tcp.hpp>\nint main() {}\n",
    "include_codec": "#include <runnel/mqtt/packet.hpp>\nint main() {}\n",
}


def footprint(figures, compiler, include, runs):
    if os.path.basename(compiler[0]) == "ccache":
        compiler = compiler[1:]
    for name, source in SOURCES.items():
        with tempfile.TemporaryDirectory() as folder:
            here = pathlib.Path(folder)
            (here / "main.cpp").write_text(source)
            command = [*compiler, "-std=c++20", "-O2", "-DASIO_STANDALONE", "-I", include, "-c", "main.cpp", "-o", "main.o"]
            for _ in range(runs):
                process = subprocess.Popen(command, cwd=here)
                _, status, used = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                if process.returncode != 0:
                    figures.failures.append(f"footprint: {name} does not compile")
                    return
                figures.add(f"footprint/{name}", "runnel", "s CPU", used.ru_utime + used.ru_stime)
                figures.add(f"footprint/{name}", "runnel", "MiB compiler memory", used.ru_maxrss / 1024)
            if run(figures, [*compiler, "main.o", "-o", "main", "-s", "-pthread"], name, cwd=here):
                figures.add(f"footprint/{name}", "runnel", "KiB stripped", (here / "main").stat().st_size / 1024)


# --- all of it

def number(value):
    return "" if value is None else f"{value:.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def print_table(rows):
    print(f"{'case':<58} {'unit':<22} {'ours':>10} {'spread':>7} {'peer':>10}  {'':<14} {'ratio':>7} {'target':>8}")
    for r in rows:
        mark = {None: "", True: "met", False: "MISSED"}[r["met"]]
        print(f"{r['case']:<58} {r['unit']:<22} {number(r['ours']):>10} {r['spread']:>6.0%} {number(r['peer']):>10}  "
              f"{r['peer_name'] or '':<14} {number(r['ratio']):>7} {number(r['target']):>8} {mark}")


ALL_GROUPS = "codec,session,websocket,signer,fleet,footprint"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--groups", default=ALL_GROUPS)
    parser.add_argument("--compiler", default="c++", help="for the footprint; arguments follow behind commas")
    parser.add_argument("--include", default=".", help="the folder of the headers")
    parser.add_argument("--installed", default="", help="the peers that must have run, by commas")
    parser.add_argument("output")
    parser.add_argument("program", nargs="+")
    options = parser.parse_args()

    # In Meson's target the programs are named after their files.
    programs = dict(p.split("=", 1) for p in options.program)
    figures = Figures()
    groups = {
        "codec": lambda: codec(figures, programs, options.runs),
        "session": lambda: session(figures, programs, options.runs),
        "websocket": lambda: websocket(figures, programs, options.runs) if "websocket" in programs else None,
        "signer": lambda: signer(figures, programs, options.runs) if "signer" in programs else None,
        "fleet": lambda: fleet(figures, programs, options.runs),
        "footprint": lambda: footprint(figures, options.compiler.split(","), options.include, options.runs),
    }
    for group in options.groups.split(","):
        print(f"... {group}", file=sys.stderr, flush=True)
        groups[group]()

    rows = sorted(figures.rows(), key=lambda r: (r["case"], r["unit"], r["peer_name"] or ""))
    pathlib.Path(options.output).write_text(json.dumps(rows, indent=1) + "\n")
    print_table(rows)
    ran = {r["peer_name"] for r in rows}
    if options.groups == ALL_GROUPS:
        figures.failures += [f"{p} is installed and did not run" for p in filter(None, options.installed.split(","))
                             if p not in ran]
    for failure in figures.failures:
        print(failure, file=sys.stderr)
    return 1 if figures.failures else 0


if __name__ == "__main__":
    sys.exit(main())
