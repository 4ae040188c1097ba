"""Messages through a session over TCP, beside other clients and the bare socket."""

import re
import resource
import shutil
import subprocess
import tempfile

from groups.cases import SESSION_CASES, SLOWER
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
