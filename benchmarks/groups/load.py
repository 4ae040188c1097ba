"""What brokers bear: the embedded one, as a process of its own, beside mosquitto, with the same clients."""

import json

from groups.broker import Mosquitto, cpu_seconds
from groups.figures import run
from groups.session import Peer

# Messages of a run, by what is published.
CASES = {
    "publish_qos0_window_1000": 400_000,
    "publish_qos1_window_1000": 200_000,
    "publish_qos1_window_20": 100_000,
}
WARM_UP = 1.2  # a fifth more messages come before those that are measured


def measure(figures, program, broker, who, case, messages):
    """Adds the rate, and what of the processors the broker and the clients take; what the clients have printed."""
    before = cpu_seconds(broker.process.pid)
    done = run(figures, [program, broker.port, case, str(messages)], f"{case} with {who}")
    if done is None:
        return
    used = cpu_seconds(broker.process.pid) - before
    printed = {f["unit"]: f["value"] for f in map(json.loads, done.stdout.splitlines())}
    figures.add(case, who, "messages/s", printed["messages/s"])
    figures.add(case, who, "us CPU of the broker/message", used / (messages * WARM_UP) * 1e6)
    figures.add(case, who, "us CPU of the clients/message", printed["ns CPU/message"] / 1000)


def load(figures, programs, options):
    # How each is started, and its share of the messages: the slower one gets fewer.
    brokers = {"runnel": (lambda: Peer(programs["broker"]), 1)}
    if Mosquitto.program is not None:
        brokers["mosquitto"] = (Mosquitto, 0.1)
        figures.expect("broker", "mosquitto")
    for case, messages in CASES.items():
        for _ in range(options.runs):
            for who, (start, share) in brokers.items():
                with start() as broker:
                    measure(figures, programs["load"], broker, who, f"broker/{case}",
                            int(messages * share) // options.divide)
