"""How the cost of a message grows."""

from groups.cases import CPU
from groups.figures import run
from groups.session import Peer


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
