"""QoS 1 with what outlives the process. Neither Paho's files nor `_process` are flushed to the disk.

Beside clients, which keep what is on its way to the server, stands mosquitto, which keeps what is on its way to a
subscriber: as many messages, 20. It writes all of its database and flushes it, each second or after each change, in both
cases behind the acknowledgement.
"""

import pathlib

from groups.broker import Mosquitto
from groups.load import WARM_UP, measure
from groups.session import sessions

# Beside which case, messages of a run, and the lines of the configuration.
DATABASES = {
    "mosquitto, each second": ("store/publish_qos1_window_20_process", 60_000, ["autosave_interval 1"]),
    "mosquitto, each change": ("store/publish_qos1_window_20_power", 1_000,
                               ["autosave_on_changes true", "autosave_interval 1"]),
}
# What mosquitto writes to sockets for a message: PUBLISH and PUBACK.
SENT = 102 + 4


def bytes_written(broker):
    lines = pathlib.Path(f"/proc/{broker.process.pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])


def database(figures, program, who, case, messages, lines):
    with Mosquitto(["persistence true", *lines]) as broker:
        before = bytes_written(broker)
        measure(figures, program, broker, who, case, messages)
        written = (bytes_written(broker) - before) / (messages * WARM_UP)
    figures.add(case, who, "bytes written/message", max(0, written - SENT))


def store(figures, programs, options):
    if "session_store" not in programs:
        return
    sessions(figures, programs, options, "store")
    for who, (case, messages, lines) in DATABASES.items() if Mosquitto.program is not None else ():
        figures.expect("store", who)
        for _ in range(options.runs):
            database(figures, programs["load"], who, case, messages // options.divide, lines)
