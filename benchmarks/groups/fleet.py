"""How the cost of a message grows with the number of subscriptions, sessions and messages in flight."""

from groups.cases import CPU
from groups.figures import run
from groups.session import Peer

NUMBERS = (1, 20, 100, 1_000, 10_000)
# A single message in flight waits for its round trip alone, so growth is counted from a small window on.
SMALLEST = {"subscriptions": 1, "sessions": 1, "in_flight": 20}


def growth(figures, what, who):
    """The largest cost, as a multiple of that of the smallest number."""
    costs = {n: figures.median(f"fleet/{what}_{n}", CPU, who) for n in NUMBERS}
    smallest = costs[SMALLEST[what]]
    if smallest:
        figures.add(f"fleet/{what}", who, "growth",
                    max(cost for n, cost in costs.items() if cost and n >= SMALLEST[what]) / smallest)


def fleet(figures, programs, options):
    with Peer(programs["session_peer"]) as peer:
        for _ in range(options.runs):
            done = run(figures, [programs["fleet"], peer.port], "fleet")
            if done:
                figures.add_lines(done.stdout)
            for n in (1, 100, 10_000):  # what of it the sockets cost
                done = run(figures, [programs["session_raw"], peer.port, f"fleet/sessions_{n}", "500000"], "raw sockets")
                if done:
                    figures.add_lines(done.stdout)
    for what in SMALLEST:
        growth(figures, what, "runnel")
    growth(figures, "sessions", "raw socket")
    # The other clients, where the session group has measured them at both ends.
    for who in ("runnel", "libmosquitto", "Paho C", "Boost.MQTT5", "async_mqtt"):
        few, many = (figures.median(f"session/publish_qos1_window_{n}", CPU, who) for n in (20, 10_000))
        if few and many:
            figures.add("fleet/window_20_to_10000", who, "growth", many / few)
