"""Sessions in threads of their own: whether the throughput grows with the cores, beside as many processes.

So many threads and their other sides have as many cores, as far as there are any; one thread and its other side have
one, as else that would have the second core, which no second thread could bring.
"""

import contextlib
import json
import os
import statistics
import subprocess

from groups.figures import run
from groups.session import Peer

NUMBERS = (1, 2, 4)
CASES = {"publish_qos0": 10_000_000, "publish_qos1": 1_500_000}  # and the messages of each thread
GROWTH = "times one thread's messages/s"
PROCESSES = "a process each"


@contextlib.contextmanager
def cores(n, peers):
    """This process, those that it starts and the other sides run on the first n cores."""
    before = os.sched_getaffinity(0)
    for pid in [0, *(p.process.pid for p in peers)]:
        os.sched_setaffinity(pid, sorted(before)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def processes(figures, program, case, messages, ports):
    """As many at the same time; their rates together, and what a message costs."""
    command = [program, case, messages]
    running = [subprocess.Popen([*command, port], stdout=subprocess.PIPE, text=True) for port in ports]
    printed = [[json.loads(line) for line in p.communicate()[0].splitlines()] for p in running]
    if any(p.returncode != 0 for p in running):
        figures.failures.append(f"threads: {len(ports)} processes: {[p.returncode for p in running]}")
        return
    for unit, together in (("messages/s", sum), ("ns CPU/message", statistics.mean)):
        value = together(f["value"] for each in printed for f in each if f["unit"] == unit)
        figures.add(f"threads/{case}_{len(ports)}", PROCESSES, unit, value)


def threads(figures, programs, options):
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(Peer(programs["session_peer"])) for _ in range(max(NUMBERS))]
        ports = [p.port for p in peers]
        for case, messages in CASES.items():
            for n in NUMBERS * options.runs:
                each = str(messages // options.divide)
                with cores(n, peers):
                    done = run(figures, [programs["threads"], case, each, *ports[:n]], f"{case} in {n} threads")
                    figures.add_lines(done.stdout if done else "")
                    processes(figures, programs["threads"], case, each, ports[:n])
    for case in CASES:
        for who in ("runnel", PROCESSES):
            one, *more = (figures.median(f"threads/{case}_{n}", "messages/s", who) for n in NUMBERS)
            for n, rate in zip(NUMBERS[1:], more):
                if one and rate:
                    figures.add(f"threads/{case}_{n}", who, GROWTH, rate / one)
