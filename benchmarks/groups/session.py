"""Messages through a session over TCP, WebSocket and WebSocket Secure, beside other clients and prepared bytes."""

import re
import resource
import shutil
import subprocess

from groups.cases import CLIENTS, SESSION_CASES, base
from groups.figures import run


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


def variants(case, client):
    """The cases for which a run of `case` counts."""
    return [case] if client.who == "runnel" else [c for c in SESSION_CASES if base(c) == case]


def measure(figures, client, program, port, case, messages):
    done = run(figures, [program, port, case, str(messages)], f"{case} with {client.who}")
    for name in variants(case, client) if done else []:
        figures.add_lines(done.stdout.replace(f'"{case.split("/")[1]}"', f'"{name.split("/")[1]}"'))


def count_instructions(figures, client, program, port, case):
    """Those of a long run less those of a short one, a message."""
    totals = []
    for messages in (client.counted, 3 * client.counted):
        command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, port, case, str(messages)]
        done = run(figures, command, f"{case} with {client.who} under valgrind")
        found = re.search(r"Collected : (\d+)", done.stderr) if done else None
        if found is None:
            return
        totals.append(int(found.group(1)))
    value = (totals[1] - totals[0]) / (2 * client.counted * 1.2)  # a fifth more warms up
    for name in variants(case, client):
        figures.add(name, client.who, "instructions/message", value)


def sessions(figures, programs, options, group, counting=False):
    with Peer(programs["session_peer"]) as peer:
        for case in (c for c in SESSION_CASES if c.startswith(group + "/")):
            running = []
            for client in CLIENTS:
                program = client.program(case, programs)
                if program and (client.who == "runnel" or case == base(case)):
                    running.append((client, program))
                    figures.expect(group, client.who)
            for _ in range(options.runs):
                for client, program in running:
                    measure(figures, client, program, peer.port, case, max(client.messages(case) // options.divide, 500))
            for client, program in running:
                if counting and options.valgrind and client.counted and "latency" not in case and "10000" not in case:
                    count_instructions(figures, client, program, peer.port, case)


def idle(figures, who, program, port, case, number):
    """Sessions that only ping."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    done = run(figures, [program, port, case, str(min(number, most - 100))], f"{case} with {who}")
    if done:
        figures.add_lines(done.stdout)


def session(figures, programs, options):
    sessions(figures, programs, options, "session", counting=True)
    for case in ("publish_qos0_try", "publish_qos0", "receive_qos0_view", "receive_qos0"):
        ours = figures.median(f"session/{case}", "messages/s", "runnel")
        raw = figures.median(f"session/{case}", "messages/s", "raw socket")
        if ours and raw:
            figures.add(f"session/{case}", "runnel", "share of the raw rate", ours / raw)
    with Peer(programs["session_peer"]) as peer:
        for client in CLIENTS:
            program = client.program("session/idle", programs)
            if program and client.idle:
                idle(figures, client.who, program, peer.port, "idle", client.idle // options.divide)


def ws(figures, programs, options):
    sessions(figures, programs, options, "ws")


def wss(figures, programs, options):
    sessions(figures, programs, options, "wss")
    with Peer(programs["session_peer"]) as peer:
        for case in ("tls/idle", "wss/idle"):
            idle(figures, "runnel", programs["session_wss"], peer.port, case, 1_000 // options.divide)
