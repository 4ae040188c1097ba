"""A broker as a process of its own, whose CPU time can be read: mosquitto, where it is installed."""

import getpass
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def cpu_seconds(pid):
    """What a process has used so far, in all its threads."""
    times = pathlib.Path(f"/proc/{pid}/schedstat").read_text().split()
    threads = os.listdir(f"/proc/{pid}/task")
    if len(threads) > 1:
        times = [sum(int(pathlib.Path(f"/proc/{pid}/task/{t}/schedstat").read_text().split()[0]) for t in threads)]
    return int(times[0]) / 1e9


class Mosquitto:
    """On a free port of this machine, with limits that no benchmark reaches."""

    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")

    def __init__(self, lines=()):
        self.folder = tempfile.TemporaryDirectory()
        self.port = str(free_port())
        self.configuration = pathlib.Path(self.folder.name) / "mosquitto.conf"
        self.configuration.write_text("\n".join([
            f"listener {self.port} 127.0.0.1", "allow_anonymous true", "max_connections -1", "log_type error",
            "max_inflight_messages 0", "max_queued_messages 0", "set_tcp_nodelay true", f"user {getpass.getuser()}",
            f"persistence_location {self.folder.name}/", *lines]) + "\n")
        self.start()

    def start(self):
        self.process = subprocess.Popen([self.program, "-c", self.configuration],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(1000):
            try:
                socket.create_connection(("127.0.0.1", int(self.port))).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.005)
        raise RuntimeError("mosquitto does not start")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def cpu(self):
        return cpu_seconds(self.process.pid)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.folder.cleanup()
