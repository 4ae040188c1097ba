"""Many sessions in one process, with mosquitto, which is killed and started again under them."""

import json
import resource
import subprocess
import time

from groups.broker import Mosquitto

# Sessions, and descriptors that each takes.
CLIENTS = {
    "runnel": ("crowd", 10_000, 1),
    "libmosquitto": ("crowd_mosquitto", 10_000, 3),
    "Paho C": ("crowd_paho", 1_000, 1),
}


def measure(figures, who, program, number):
    with Mosquitto() as broker:
        process = subprocess.Popen([program, broker.port, str(number)], stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if line.startswith("storm"):
                broker.kill()
                time.sleep(int(line.split()[1]))
                broker.start()
                listens = time.monotonic()
            elif line.startswith("{"):
                f = json.loads(line)
                if f["unit"] == "back at":
                    f |= {"unit": "s until all are back", "value": f["value"] - listens}
                figures.add(f"crowd/{f['case']}", who, f["unit"], f["value"])
        if process.wait() != 0:
            figures.failures.append(f"crowd: {number} sessions of {who}: {process.returncode}")


def crowd(figures, programs, options):
    if Mosquitto.program is None:
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    for who, (name, number, descriptors) in CLIENTS.items():
        if name in programs:
            figures.expect("crowd", who)
            measure(figures, who, programs[name], min(number // options.divide, (most - 100) // descriptors))
