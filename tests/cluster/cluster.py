"""A cluster of real processes for tests: kill -9, SIGSTOP, SIGTERM, and cut connections, also in one direction.

Where the machine lets us (root, iproute2), each node has a network namespace of its own on one bridge, and connections are cut
by giving a node a wrong hardware address for another one: its packets then get lost without a word. There, a node may also have
a small disk of its own, and a slow wire. Else all nodes share the loopback interface, and none of this is there, but a node can be
told that its disk is nearly full. The whole test runs in namespaces of its own, so that nothing of it is left behind: call
`enter_network()` first."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
sys.path.insert(0, os.path.join(ROOT, "deploy", "cluster"))
import faults  # noqa: E402
import harness  # noqa: E402
import local  # noqa: E402
import replicas  # noqa: E402

IN_NAMESPACE = "SLUICE_TEST_IN_NAMESPACE"
NOWHERE = "02:00:00:00:00:ff"


def try_run(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def run(*command):
    done = try_run(*command)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")


def enter_network():
    """Starts this program again in a network and mounts of its own, where that is possible."""
    if os.environ.get(IN_NAMESPACE):
        return
    probe = "ip link add probe type bridge && ip link set lo up && mount -t tmpfs none /mnt"
    for options in [], ["--user", "--map-root-user"]:
        command = ["unshare", *options, "--net", "--mount", "--propagation", "private", "--"]
        if try_run(*command, "sh", "-c", probe).returncode == 0:
            print("network: a namespace for each node", flush=True)
            os.environ[IN_NAMESPACE] = "yes"
            os.execvp("unshare", [*command, sys.executable, *sys.argv])
    print("network: all nodes on loopback", flush=True)
    os.environ[IN_NAMESPACE] = "no"


def has_namespaces():
    return os.environ.get(IN_NAMESPACE) == "yes"


class Network:
    """One bridge and a host for each node; the test itself is 10.77.0.254."""

    def __init__(self, count):
        self.holders = {}
        if not has_namespaces():
            return
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "bridge", "type", "bridge")
        run("ip", "addr", "add", "10.77.0.254/24", "dev", "bridge")
        run("ip", "link", "set", "bridge", "up")
        for number in range(1, count + 1):
            holder = subprocess.Popen(["unshare", "--net", "--", "sleep", "infinity"])
            self.holders[number] = holder
            own = os.readlink("/proc/self/ns/net")
            harness.wait_until("a host has its namespace",
                               lambda pid=holder.pid: os.readlink(f"/proc/{pid}/ns/net") != own)
            run("ip", "link", "add", f"port{number}", "type", "veth", "peer", "name", "eth0", "netns", str(holder.pid))
            run("ip", "link", "set", f"port{number}", "master", "bridge", "up")
            for command in (["link", "set", "lo", "up"], ["addr", "add", f"{self.host(number)}/24", "dev", "eth0"],
                            ["link", "set", "eth0", "up"]):
                run(*self.inside(number), "ip", *command)

    def host(self, number):
        return f"10.77.0.{number}" if has_namespaces() else "127.0.0.1"

    def inside(self, number):
        """What a command line begins with to run on a node's host."""
        if not has_namespaces():
            return []
        return ["nsenter", f"--net=/proc/{self.holders[number].pid}/ns/net", "--"]

    def cut(self, sender, receiver):
        """What `sender` sends to `receiver` is lost."""
        run(*self.inside(sender), "ip", "neigh", "replace", self.host(receiver), "lladdr", NOWHERE, "dev", "eth0", "nud", "permanent")

    def join(self, sender, receiver):
        """Undoes `cut`."""
        try_run(*self.inside(sender), "ip", "neigh", "del", self.host(receiver), "dev", "eth0")

    def reaches(self, sender, receiver):
        """Whether a connection from one node's host to the other node can be made."""
        probe = f"import socket; socket.create_connection(('{self.host(receiver)}', 7401), 0.5)"
        return try_run(*self.inside(sender), sys.executable, "-c", probe).returncode == 0

    @contextlib.contextmanager
    def slow_wire(self, number, delay, rate, loss, seed):
        """Between a node's host and everything else; gives what the wire told at its end, to be read behind the `with`."""
        port, wire, plug = f"port{number}", f"wire{number}", f"plug{number}"
        run("ip", "link", "add", wire, "type", "veth", "peer", "name", plug)
        for end in port, wire:
            # Nobody but the node at the other end answers there.
            with open(f"/proc/sys/net/ipv4/conf/{end}/arp_ignore", "w", encoding="ascii") as file:
                file.write("8")
        run("ip", "link", "set", wire, "up")
        run("ip", "link", "set", plug, "master", "bridge", "up")
        relay = subprocess.Popen([sys.executable, os.path.join(HERE, "slow_wire.py"), port, wire, str(delay), str(rate), str(loss),
                                  str(seed)], stdout=subprocess.PIPE, text=True)
        told = {}
        try:
            if relay.stdout.readline() != "ready\n":
                raise RuntimeError("the slow wire did not start")
            run("ip", "link", "set", port, "nomaster")
            yield told
        finally:
            run("ip", "link", "set", port, "master", "bridge")
            relay.terminate()
            told.update(json.loads(relay.stdout.read() or "{}"))
            relay.wait()
            relay.stdout.close()
            run("ip", "link", "del", wire)

    def close(self):
        for holder in self.holders.values():
            holder.kill()
            holder.wait()
        if has_namespaces():
            subprocess.run(["ip", "link", "del", "bridge"], capture_output=True, check=False)


class Disk:
    """A small file system of its own at `folder`: ext4 in a file where that can be mounted, else in memory."""

    SIZE = 1 << 30

    def __init__(self, folder):
        self.folder = folder
        self.image = folder + ".image"
        self.ballast = os.path.join(folder, "ballast")
        os.makedirs(folder)
        with open(self.image, "wb") as file:
            file.truncate(self.SIZE)
        if (try_run("mkfs.ext4", "-q", "-m", "0", self.image).returncode != 0
                or try_run("mount", "-o", "loop", self.image, folder).returncode != 0):
            run("mount", "-t", "tmpfs", "-o", f"size={self.SIZE}", "none", folder)

    def free(self):
        space = os.statvfs(self.folder)
        return space.f_bavail * space.f_frsize

    def fill_but(self, left):
        """Leaves `left` bytes free, or fewer where others write meanwhile."""
        with open(self.ballast, "ab") as file:
            while (more := self.free() - left) > 0:
                size = os.fstat(file.fileno()).st_size
                try:
                    os.posix_fallocate(file.fileno(), size, more)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                if os.fstat(file.fileno()).st_size == size:
                    break

    def make_space(self):
        os.remove(self.ballast)

    def close(self):
        run("umount", self.folder)


class ToldDisk:
    """Stands in for `Disk` where none can be mounted: the node is told that its file system has so little free. What it writes all
    the same finds room."""

    def __init__(self, folder, told):
        os.makedirs(folder)
        self.told = told

    def fill_but(self, left):
        if left <= 0:
            raise ValueError("only a disk of its own can be filled to the last byte")
        self.told["free_bytes"] = left

    def make_space(self):
        self.told["free_bytes"] = 0

    def close(self):
        pass


class Node:
    def __init__(self, cluster, number, more_config="", with_faults=False):
        self.cluster, self.number = cluster, number
        self.number_in_config = number
        self.folder = os.path.join(cluster.folder, f"node-{number}")
        os.makedirs(self.folder)
        host = cluster.network.host(number)
        self.grpc, self.peer, self.http = (f"{host}:{port}" for port in self.ports())
        self.disk, self.faults = None, None
        self.data_dir = os.path.join(self.folder, "data")
        if with_faults:
            under = os.path.join(self.folder, "disk")
            self.data_dir = os.path.join(under, "data")
            self.faults = faults.Faults(os.path.join(self.folder, "faults"), under)
            self.disk = Disk(under) if has_namespaces() else ToldDisk(under, self.faults)
        self.config = os.path.join(self.folder, "sluiced.yaml")
        self.more_config = more_config
        self.process = None
        self.paused = False

    def ports(self):
        return (7400, 7401, 7402) if has_namespaces() else (harness.free_port(), harness.free_port(), harness.free_port())

    def write_config(self, seeds, name="local"):
        local.write_config(self.config, self.number_in_config, self.data_dir, self.grpc, self.peer, self.http, seeds,
                           self.more_config, name)
        if has_namespaces():
            with open(self.config, encoding="utf-8") as file:
                text = file.read()
            with open(self.config, "w", encoding="utf-8") as file:
                file.write(text.replace("listen: { ", "listen: { insecure: true, "))

    def start(self, wrapper=()):
        command = [*self.cluster.network.inside(self.number), *wrapper, harness.program("sluiced"), "--config", self.config,
                   "--set", f"node.shards={1 + (self.number - 1) % 3}"]
        self.process = harness.Process("sluiced", command, self.folder, self.faults.environment() if self.faults else None)
        self.paused = False
        return self

    def running(self):
        return self.process is not None and self.process.alive()

    def wait_ready(self, seconds=60):
        def ready():
            if not self.running():
                raise RuntimeError(f"node {self.number} ended with {self.process.process.returncode}\n{self.process.tail()}")
            return harness.answers(f"http://{self.http}/readyz")

        try:
            harness.wait_until(f"node {self.number} is ready", ready, seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{self.process.tail()}") from error
        return self

    def kill(self):
        if self.process is not None:
            self.resume()
            self.process.kill()

    def pause(self):
        self.paused = True
        self.process.process.send_signal(signal.SIGSTOP)

    def resume(self):
        if self.paused and self.running():
            self.process.process.send_signal(signal.SIGCONT)
        self.paused = False

    def metric(self, name):
        """The value of a metric that has no labels; None while nobody answers."""
        try:
            with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=2) as response:
                for line in response.read().decode().splitlines():
                    if line.startswith(name + " "):
                        return float(line.split(" ")[1])
        except OSError:
            pass
        return None

    def stop(self):
        code = self.process.stop()
        if code != 0:
            raise RuntimeError(f"node {self.number} ended with {code} after SIGTERM\n{self.process.tail()}")

    def dump(self):
        """The logs of a stopped node: {replica: replicas.Log}. Damage is an error."""
        done = subprocess.run([harness.program("sluice"), "--output", "json", "log", "dump", self.data_dir, "--records"],
                              capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"the dump of node {self.number} ended with {done.returncode}: {done.stderr}\n"
                               + "\n".join(line for line in done.stdout.splitlines() if '"damage"' in line))
        return replicas.parse(done.stdout)


class Cluster:
    """`with Cluster(folder, 3) as cluster:`; nodes are numbered from 1. `spare` more have a host, and are not started.
    `with_faults`: each node has a disk of its own where the machine allows it (else a `ToldDisk`), and `faults.cc` loaded."""

    def __init__(self, folder, count, more_config="", spare=0, with_faults=False):
        self.folder = folder
        self.network = Network(count + spare)
        everybody = [Node(self, number, more_config, with_faults) for number in range(1, count + spare + 1)]
        self.nodes, self.spare = everybody[:count], everybody[count:]
        self.seeds = [node.peer for node in self.nodes]
        for node in self.nodes:
            node.write_config(self.seeds)
        self.brokers = ",".join(node.grpc for node in self.nodes)

    def __enter__(self):
        first = self.nodes[0]
        try:
            run(*self.network.inside(1), harness.program("sluiced"), "init", "--config", first.config)
            for node in self.nodes:
                node.start()
            for node in self.nodes:
                node.wait_ready()
        except BaseException:
            self.__exit__()  # which Python leaves out where this fails
            raise
        return self

    def __exit__(self, *_):
        for node in self.nodes + self.spare:
            node.kill()
            if node.disk is not None:
                node.disk.close()
        self.network.close()

    def node(self, number):
        return (self.nodes + self.spare)[number - 1]

    def sluice(self, *arguments, input=None, check=True, timeout=60):
        done = subprocess.run([harness.program("sluice"), "--brokers", self.brokers, *arguments], input=input, text=True,
                              capture_output=True, timeout=timeout, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"sluice {' '.join(arguments)} ended with {done.returncode}: {done.stdout} {done.stderr}")
        return done

    def json(self, *arguments):
        return json.loads(self.sluice("--output", "json", *arguments).stdout)

    def partitions(self, topic):
        return self.json("topic", "describe", topic)["partition_list"]

    def leader(self, topic, partition=0):
        """The number of the leader's node; 0: none that answers."""
        return self.partitions(topic)[partition]["leader_node"]

    def wait_healthy(self, seconds=30):
        """All nodes ready, all partitions led and in sync, within `seconds` in all."""
        deadline = time.monotonic() + seconds
        for node in self.nodes:
            node.wait_ready(deadline - time.monotonic())

        last = None

        def healthy():
            nonlocal last
            for what in ("--under-replicated", "--leaderless"):
                last = self.sluice("--output", "json", "--timeout", "5s", "partition", "list", what, check=False)
                if last.returncode != 0 or json.loads(last.stdout).get("partitions"):
                    return False
            return True

        try:
            harness.wait_until("every partition has a leader and all its replicas", healthy, deadline - time.monotonic())
        except TimeoutError as late:
            raise TimeoutError(f"{late}; the last answer was: {last.stdout} {last.stderr}") from late

    def consume(self, topic, partition):
        out = self.sluice("--output", "json", "consume", topic, "--from", "earliest", "--partition", str(partition)).stdout
        return [json.loads(line) for line in out.splitlines()]


class Follower:
    """`sluice consume --follow` of one partition, begun again behind what it printed last whenever it ends."""

    def __init__(self, cluster, topic, partition):
        self.cluster, self.topic, self.partition = cluster, topic, partition
        self.seen = []
        self.next = 0
        self.stopping = False
        self.process = None
        self.restarts = -1
        self.thread = threading.Thread(target=self.follow)
        self.thread.start()

    def follow(self):
        while not self.stopping:
            self.restarts += 1
            self.process = subprocess.Popen(
                [harness.program("sluice"), "--brokers", self.cluster.brokers, "--output", "json", "consume", self.topic, "--follow",
                 "--from", str(self.next), "--partition", str(self.partition)],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for line in self.process.stdout:
                if not line.endswith("\n"):
                    break  # killed in the middle of it
                record = json.loads(line)
                self.seen.append((record["offset"], record["value"]))
                self.next = record["offset"] + 1
            self.process.wait()
            if not self.stopping:
                time.sleep(0.05)

    def stop(self):
        self.stopping = True
        while self.thread.is_alive():
            if self.process is not None and self.process.poll() is None:
                self.process.kill()
            self.thread.join(timeout=0.1)
        self.process.stdout.close()
        return self.seen
