#!/usr/bin/env python3
"""Sends messages of QoS 1 through a cluster of three nodes while nodes are killed and come back.

    python3 tests/cluster/cluster.py rabbitmq|ejabberd --worker BUILD/tests/cluster-worker [--messages 1000000]

RabbitMQ speaks MQTT 3.1.1 here, ejabberd MQTT 5. The nodes are plain processes on free loopback ports, with an epmd of
their own. Workers, each a process with one session (worker.cpp), come in pairs: one publishes what the other receives;
they begin at different nodes. ejabberd 23.01 has no shared subscriptions, so the messages are shared out by topic.

At the end it is counted on both sides. What a session was told (PUBACK seen on the wire) and has not said, or was given
on the wire and has not handed on, is ours: that must be nothing. What the cluster acknowledged and never delivered, or
delivered twice, is the cluster's, and is told.
"""
import argparse
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time


def free_ports(count):
    """Below those that the kernel gives to clients, one of which might be connected to itself while a node is away."""
    ports = []
    for port in random.sample(range(10_000, 32_000), 1000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError("no free port")


def listens(port):
    with socket.socket() as s:
        s.settimeout(1)
        return s.connect_ex(("127.0.0.1", port)) == 0


class Node:
    """A node of a cluster: `start` and `kill` it as often as you like."""

    def __init__(self, cluster, number):
        self.cluster, self.number = cluster, number
        self.name = f"runnel{number}@localhost"
        self.port, self.distribution = free_ports(2)
        self.folder = cluster.folder / f"node{number}"
        self.folder.mkdir()
        # The secret by which the nodes know each other.
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text("runnel")
        cookie.chmod(0o400)
        self.process = None

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)

    def wait(self, seconds=120):
        end = time.monotonic() + seconds
        while not listens(self.port):
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{self.name} does not start: {self.folder / 'log'}\n" + self.log()[-3000:])
            time.sleep(0.2)

    def kill(self, how=signal.SIGKILL):
        if self.process is not None:
            os.killpg(self.process.pid, how)
            self.process.wait()

    def log(self):
        return (self.folder / "log").read_text(errors="replace")

    def erlang(self):
        return {"HOME": str(self.folder), "ERL_EPMD_PORT": str(self.cluster.epmd), "ERL_EPMD_ADDRESS": "127.0.0.1",
                "ERL_CRASH_DUMP": str(self.folder / "crash.dump")}


class RabbitNode(Node):
    program = "/usr/lib/rabbitmq/bin/rabbitmq-server"

    def command(self):
        names = [node.name for node in self.cluster.nodes]
        (self.folder / "rabbitmq.conf").write_text(
            "listeners.tcp = none\nloopback_users = none\nmqtt.allow_anonymous = true\n"
            f"mqtt.listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.console = true\nlog.file = false\n"
            "cluster_partition_handling = ignore\ncluster_formation.peer_discovery_backend = classic_config\n"
            + "".join(f"cluster_formation.classic_config.nodes.{i + 1} = {name}\n" for i, name in enumerate(names)))
        (self.folder / "enabled_plugins").write_text("[rabbitmq_mqtt].\n")
        return [self.program]

    def environment(self):
        at = {"NODENAME": self.name, "CONFIG_FILE": self.folder / "rabbitmq.conf", "MNESIA_BASE": self.folder / "mnesia",
              "ENABLED_PLUGINS_FILE": self.folder / "enabled_plugins", "LOG_BASE": self.folder / "log.d",
              "CONF_ENV_FILE": "/dev/null", "DIST_PORT": self.distribution,
              "SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"}
        return {**self.erlang(), **{"RABBITMQ_" + key: str(value) for key, value in at.items()}}

    def control(self, *arguments):
        return subprocess.run(["/usr/lib/rabbitmq/bin/rabbitmqctl", "-n", self.name, *arguments], cwd=self.folder,
                              env={**os.environ, **self.environment()}, text=True, capture_output=True)

    def join(self):
        """The configuration names the others. A queue is to be on all nodes, so that a session survives its node."""
        if self.number == 0:
            done = self.control("set_policy", "all", ".*", '{"ha-mode":"all","ha-sync-mode":"automatic"}')
            if done.returncode != 0:
                raise SystemExit(done.stdout + done.stderr)

    def members(self):
        told = self.control("cluster_status", "--formatter", "json")
        return len(json.loads(told.stdout)["running_nodes"]) if told.returncode == 0 else 0


class EjabberdNode(Node):
    program = "erl"

    @staticmethod
    def libraries():
        return next((str(found.parent) for found in pathlib.Path("/usr/lib").glob("*/ejabberd-*")), None)

    def command(self):
        (self.folder / "ejabberd.yml").write_text(
            "hosts: [localhost]\nloglevel: warning\nauth_method: [anonymous]\nanonymous_protocol: login_anon\n"
            "allow_multiple_connections: true\nlisten:\n"
            f'  - {{port: {self.port}, ip: "127.0.0.1", module: mod_mqtt, backlog: 100}}\n'
            "modules:\n  mod_mqtt: {max_queue: 1000000, session_expiry: 3600}\n")
        return ["erl", "-noinput", "+K", "true", "-sname", self.name, "-setcookie", "runnel", "-kernel",
                "inet_dist_use_interface", "{127,0,0,1}", "inet_dist_listen_min", str(self.distribution),
                "inet_dist_listen_max", str(self.distribution), "-mnesia", "dir", f'"{self.folder / "spool"}"',
                "-s", "ejabberd"]

    def environment(self):
        return {**self.erlang(), "ERL_LIBS": self.libraries(), "EJABBERD_CONFIG_PATH": str(self.folder / "ejabberd.yml"),
                "EJABBERD_LOG_PATH": str(self.folder / "ejabberd.log")}

    def call(self, expression):
        """Evaluates it in the node."""
        code = (f"R = rpc:call('{self.name}', erl_eval, exprs, [element(2, erl_parse:parse_exprs(element(2, "
                f"erl_scan:string(\"{expression}\")))), []]), io:format(\"~p~n\", [R]), halt().")
        done = subprocess.run(["erl", "-noinput", "-sname", f"control{os.getpid()}@localhost", "-setcookie", "runnel", "-eval",
                               code], cwd=self.folder, env={**os.environ, **self.environment()}, text=True,
                              capture_output=True, timeout=60)
        return done.stdout.strip()

    def join(self):
        if self.number != 0:
            answer = self.call(f"ejabberd_cluster:join('{self.cluster.nodes[0].name}').")
            if "ok" not in answer:
                raise SystemExit(f"{self.name} does not join: {answer}")

    def members(self):
        return self.call("length(ejabberd_cluster:get_nodes()).").count("3") * 3


KINDS = {"rabbitmq": (RabbitNode, "3"), "ejabberd": (EjabberdNode, "5")}


class Cluster:
    def __init__(self, kind, folder):
        self.folder = folder
        self.epmd = free_ports(1)[0]
        environment = {**os.environ, "ERL_EPMD_PORT": str(self.epmd), "ERL_EPMD_ADDRESS": "127.0.0.1"}
        self.daemon = subprocess.Popen(["epmd"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                       stderr=subprocess.DEVNULL)
        self.nodes = []
        self.nodes.extend(kind(self, number) for number in range(3))

    def start(self):
        for node in self.nodes:
            node.start()
            node.wait()
            node.join()
        for node in self.nodes:
            node.wait()
        end = time.monotonic() + 60
        while self.nodes[0].members() != 3:
            if time.monotonic() > end:
                raise SystemExit("the nodes do not find each other")

    def stop(self):
        for node in self.nodes:
            node.kill()
        self.daemon.kill()
        self.daemon.wait()


def rotated(ports, by):
    return ",".join(str(p) for p in ports[by % len(ports):] + ports[:by % len(ports)])


def run(options, folder):
    kind, version = KINDS[options.broker]
    cluster = Cluster(kind, folder)
    chance = random.Random(options.seed)
    workers = []
    try:
        start = time.monotonic()
        cluster.start()
        print(f"{options.broker}: three nodes after {time.monotonic() - start:.0f} s", flush=True)
        ports = [node.port for node in cluster.nodes]
        count = options.messages // options.pairs

        def worker(what, pair):
            at = pair if what == "consume" else pair + 1
            process = subprocess.Popen(
                [options.worker, what, "--name", f"pair{pair}", "--messages", str(count), "--version", version, "--nodes",
                 rotated(ports, at), "--patience", str(options.patience)], stdout=subprocess.PIPE, text=True)
            workers.append(process)
            return process

        consumers = [worker("consume", pair) for pair in range(options.pairs)]
        for consumer in consumers:
            if consumer.stdout.readline() != "ready\n":
                raise SystemExit("a consumer has not subscribed")
        start = time.monotonic()
        publishers = [worker("publish", pair) for pair in range(options.pairs)]
        kills = 0
        while any(p.poll() is None for p in publishers) and kills < options.kills:
            time.sleep(chance.uniform(*options.every))
            victim = chance.choice(cluster.nodes)
            victim.kill()
            time.sleep(chance.uniform(1, 5))
            victim.start()
            victim.wait()
            kills += 1
            print(f"{time.monotonic() - start:6.0f} s: {victim.name} was killed and is back", flush=True)
        told = [[json.loads(p.communicate()[0].splitlines()[-1]) for p in group] for group in (publishers, consumers)]
        return report(options, *told, count, kills, time.monotonic() - start)
    finally:
        for process in workers:
            process.kill()
            process.wait()
        cluster.stop()


def report(options, publishers, consumers, count, kills, seconds):
    total = lambda group, key: sum(one[key] for one in group)
    sent = count * options.pairs
    unacknowledged = sent - total(publishers, "acknowledged")
    # Completed without a PUBACK; given to the session, and not handed on.
    ours = max(0, total(publishers, "acknowledged") - total(publishers, "confirmed"))
    ours += total(consumers, "carried") - total(consumers, "arrived")
    theirs = sent - total(consumers, "carried")
    print(f"{options.broker}: {sent} messages, {kills} kills, {seconds:.0f} s; connections: "
          f"{total(publishers, 'connections')} and {total(consumers, 'connections')}; sent again by the publishers: "
          f"{total(publishers, 'resent')}")
    print(f"lost by the sessions: {ours + unacknowledged}; acknowledged by the cluster and never delivered: {theirs}; "
          f"delivered again: {total(consumers, 'repeated')}; late: {total(consumers, 'overtaken')}")
    return 0 if ours == 0 and unacknowledged == 0 and kills >= 1 else 1


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and leave no node behind
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("broker", choices=KINDS)
    parser.add_argument("--worker", required=True, help="the program that worker.cpp becomes")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10, help="at most; no more once all is published")
    parser.add_argument("--every", type=float, nargs=2, default=[5, 15], metavar=("LEAST", "MOST"), help="seconds between two")
    parser.add_argument("--patience", type=int, default=60, help="seconds without a message after which a consumer gives up")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="keep the nodes' files there")
    options = parser.parse_args()
    kind = KINDS[options.broker][0]
    if shutil.which(kind.program) is None or (kind is EjabberdNode and kind.libraries() is None):
        print(f"skipped: {options.broker} is not installed")
        sys.exit(77)
    with tempfile.TemporaryDirectory(prefix="runnel-cluster-") as scratch:
        folder = pathlib.Path(options.folder or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        sys.exit(run(options, folder))


if __name__ == "__main__":
    main()
