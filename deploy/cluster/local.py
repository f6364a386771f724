#!/usr/bin/env python3
"""`./dev cluster up|down|status`: a cluster of several nodes on this machine, for trying things out. Each node is a process
with a folder of its own below --dir; node N has the ports 7400, 7401 and 7402 plus 100 * (N - 1). The nodes go on when this
program ends; `down` stops them and keeps their data."""

import argparse
import glob
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
READY_SECONDS = 60
STOP_SECONDS = 60


class Wrong(Exception):
    """Something is not as it must be; the message is for the person at the terminal."""


def program(name):
    path = os.path.join(os.environ.get("SLUICE_BIN") or os.path.join(ROOT, "bin"), name)
    if not os.path.exists(path):
        raise Wrong(f"{path} is not built")
    return path


def write_config(path, node, data_dir, grpc, peer, http, seeds, more="", name="local"):
    """A node's configuration file; `seeds` are the peer addresses of all nodes, this one among them."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"node: {{ id: {node}, data_dir: {data_dir} }}\n"
                   f"cluster: {{ name: {name}, seeds: [{', '.join(seeds)}] }}\n"
                   f"listen: {{ grpc: {grpc}, peer: {peer}, http: {http} }}\n" + more)


def begins_or_ends(pid):
    """Of a process that shows no command line: whether it is about to have one, or has lost it with its memory but still has
    threads, and with them its ports and files. What the kernel runs for itself has none either."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        state, parent = file.read().rsplit(") ", 1)[1].split(" ")[:2]
    return parent not in ("0", "2") and (state not in "ZX" or len(os.listdir(f"/proc/{pid}/task")) > 1)


class Node:
    """One node of the cluster in `top`."""

    def __init__(self, top, number):
        base = 7400 + 100 * (number - 1)
        self.number = number
        self.folder = os.path.join(top, f"node-{number}")
        self.config = os.path.join(self.folder, "sluiced.yaml")
        self.data_dir = os.path.join(self.folder, "data")
        self.log_path = os.path.join(self.folder, "sluiced.log")
        self.pid_path = os.path.join(self.folder, "sluiced.pid")
        self.grpc, self.peer, self.http = (f"127.0.0.1:{base + i}" for i in range(3))

    def pid(self):
        """Of the running process; None when it does not run, and has given back its ports and files."""
        try:
            with open(self.pid_path, encoding="utf-8") as file:
                pid = int(file.read())
            # A number alone may be somebody else's by now.
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read()
            return pid if self.config.encode() in line or (not line and begins_or_ends(pid)) else None
        except (OSError, ValueError):
            return None

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://{self.http}/readyz", timeout=1) as response:
                return response.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def tail(self, lines=15):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return "".join(file.readlines()[-lines:])

    def start(self, seeds):
        os.makedirs(self.folder, exist_ok=True)
        write_config(self.config, self.number, self.data_dir, self.grpc, self.peer, self.http, seeds)
        # Where any node has data there is a cluster: what began another beside it would be empty, under the same addresses.
        if self.number == 1 and not glob.glob(os.path.join(os.path.dirname(self.folder), "node-*", "data")):
            done = subprocess.run([program("sluiced"), "init", "--config", self.config], capture_output=True, text=True)
            if done.returncode != 0:
                raise Wrong(f"sluiced init ended with {done.returncode}: {done.stderr.strip()}")
        with open(self.log_path, "ab") as log:
            process = subprocess.Popen([program("sluiced"), "--config", self.config], cwd=self.folder,
                                       stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        with open(self.pid_path, "w", encoding="utf-8") as file:
            file.write(f"{process.pid}\n")
        # For a moment after it was started a process has no command line yet, which looks as if it had ended.
        while self.pid() is None and process.poll() is None:
            time.sleep(0.001)

    def wait_ready(self):
        deadline = time.monotonic() + READY_SECONDS
        while not self.ready():
            if self.pid() is None:
                raise Wrong(f"node {self.number} ended; its log is {self.log_path}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise Wrong(f"node {self.number} was not ready after {READY_SECONDS} s; its log is {self.log_path}:\n{self.tail()}")
            time.sleep(0.05)

    def ask_to_stop(self):
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)

    def wait_stopped(self):
        deadline = time.monotonic() + STOP_SECONDS
        while (pid := self.pid()) is not None:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                raise Wrong(f"node {self.number} had not stopped after {STOP_SECONDS} s and was killed")
            time.sleep(0.05)
        if os.path.exists(self.pid_path):
            os.remove(self.pid_path)


def existing(top):
    """The nodes that have a folder, by number."""
    if not os.path.isdir(top):
        return []
    names = [name for name in os.listdir(top) if name.startswith("node-") and name[5:].isdigit()]
    return [Node(top, number) for number in sorted(int(name[5:]) for name in names)]


def brokers(nodes):
    return ",".join(node.grpc for node in nodes)


def up(top, count):
    nodes = [Node(top, number) for number in range(1, count + 1)]
    if len(existing(top)) > count:
        raise Wrong(f"{top} has {len(existing(top))} nodes; `./dev cluster down --delete` gives it up")
    for node in nodes:
        if node.pid() is None and node.ready():
            raise Wrong(f"something answers on {node.http} already: stop it first")
    missing = [node for node in nodes if not os.path.exists(node.data_dir)]
    if len(missing) == len(nodes):
        missing = []  # a new cluster
    for node in nodes:
        if node.pid() is None:
            node.start([each.peer for each in nodes])
    wrong = []
    for node in nodes:
        try:
            node.wait_ready()
        except Wrong as why:
            lost = f"the data of node {node.number} was gone: {node.data_dir}. Bring it back, or give the whole cluster up " \
                   f"(`./dev cluster down --delete`).\n" if node in missing else ""
            wrong.append(f"{lost}{why}")
    if wrong:
        raise Wrong("\n".join(wrong))
    show(nodes)
    print(f"\nexport SLUICE_BROKERS={brokers(nodes)}")


def show(nodes):
    subprocess.run([program("sluice"), "--brokers", brokers(nodes), "cluster", "status"], check=False)


def status(top):
    nodes = existing(top)
    if not nodes:
        raise Wrong(f"there is no cluster in {top}")
    for node in nodes:
        pid = node.pid()
        state = "does not run" if pid is None else f"process {pid}, {'ready' if node.ready() else 'not ready'}"
        print(f"node {node.number}: {state}; {node.grpc}; {node.log_path}")
    if any(node.pid() is not None for node in nodes):
        print(flush=True)
        show(nodes)


def down(top, delete):
    nodes = existing(top)
    # One after the other: what a node leads goes to those that are left.
    for node in reversed(nodes):
        node.ask_to_stop()
        node.wait_stopped()
    if delete:
        for node in nodes:
            shutil.rmtree(node.folder)


def main():
    parser = argparse.ArgumentParser(prog="./dev cluster", description=__doc__)
    parser.add_argument("command", choices=["up", "down", "status"])
    parser.add_argument("--nodes", type=int, default=3, help="how many (up; default 3)")
    parser.add_argument("--dir", default="sluice-cluster", help="where their folders are (default ./sluice-cluster)")
    parser.add_argument("--delete", action="store_true", help="delete their data too (down)")
    arguments = parser.parse_args()
    if not 1 <= arguments.nodes <= 9:
        parser.error("--nodes: expected 1 to 9")
    top = os.path.abspath(arguments.dir)
    try:
        if arguments.command == "up":
            up(top, arguments.nodes)
        elif arguments.command == "down":
            down(top, arguments.delete)
        else:
            status(top)
    except Wrong as wrong:
        print(f"./dev cluster: {wrong}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
