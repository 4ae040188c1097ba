"""How the cost of a message grows with the number of subscriptions, sessions and messages in flight."""

import itertools

from groups.cases import CPU
from groups.figures import run
from groups.session import Peer

NUMBERS = (1, 20, 100, 1_000, 10_000)


def fleet(figures, programs, options):
    with Peer(programs["session_peer"]) as peer:
        for _ in range(options.runs):
            done = run(figures, [programs["fleet"], peer.port], "fleet")
            if done:
                figures.add_lines(done.stdout)
    for what in ("subscriptions", "sessions", "in_flight"):
        costs = [figures.median(f"fleet/{what}_{n}", CPU, "runnel") for n in NUMBERS]
        grown = [more / fewer for fewer, more in itertools.combinations(filter(None, costs), 2)]
        if grown:
            figures.add(f"fleet/{what}", "runnel", "growth", max(grown))
    # The other clients, where the session group has measured them at both ends.
    for who in ("runnel", "libmosquitto", "Paho C", "Boost.MQTT5", "async_mqtt"):
        few, many = (figures.median(f"session/publish_qos1_window_{n}", CPU, who) for n in (20, 10_000))
        if few and many:
            figures.add("fleet/window_20_to_10000", who, "growth", many / few)
