"""What may happen to the nodes of a real cluster. Each trouble of one node is a context: it begins with the `with`, and is mended
at its end. Each counts its hits, and one that did not strike at all is an error of the test."""

import collections
import contextlib
import time

import cluster
import faults
import harness

HOUR_NS = 3600 * 10**9
# A node whose disk fails stops itself: aborted, or ended because it could not go on.
STOPPED_ITSELF = (-6, 134, 1)


class Missed(Exception):
    """A trouble that should have struck did not."""


def expect(struck, what):
    if not struck:
        raise Missed(what)


class Troubles:
    def __init__(self, nodes, topic, choose):
        self.cluster, self.topic, self.choose = nodes, topic, choose
        self.hits = collections.Counter()

    @staticmethod
    def of_one_node():
        kinds = ["kill", "pause", "stop", "failing syncs", "failing writes", "slow disk", "jumping clock"]
        if cluster.has_namespaces():
            kinds += ["cut off", "deafen", "mute", "cut two apart", "full disk", "slow link"]
        return kinds

    @staticmethod
    def of_all_nodes():
        return ["rolling restart", "flapping leader"]

    @classmethod
    def kinds(cls):
        return cls.of_one_node() + cls.of_all_nodes()

    def happen(self, kinds, seconds):
        """All of `kinds` at the same time, each to a node of its own; a kind that is of all nodes comes alone."""
        if kinds[0] in self.of_all_nodes():
            print(f"  {kinds[0]}", flush=True)
            self.method(kinds[0])()
            self.hits[kinds[0]] += 1
            return
        spared = [node.number for node in self.cluster.nodes]
        with contextlib.ExitStack() as stack:
            for kind in kinds:
                role, number = self.victim(spared)
                spared.remove(number)
                print(f"  {kind}: node {number} ({role}), {seconds:.1f} s", flush=True)
                stack.enter_context(self.method(kind)(self.cluster.node(number)))
            time.sleep(seconds)
        self.hits.update(kinds)

    def method(self, kind):
        return getattr(self, kind.replace(" ", "_"))

    def victim(self, among):
        role = self.choose.choice(["leader", "leader", "controller", "anyone"])
        number = 0
        if role == "leader":
            partitions = self.cluster.partitions(self.topic)
            number = self.choose.choice(partitions)["leader_node"]
        elif role == "controller":
            number = self.cluster.json("cluster", "status")["controller_node"]
        if number not in among:
            role, number = "anyone", self.choose.choice(among)
        return role, number

    def others(self, node):
        return [other.number for other in self.cluster.nodes if other is not node]

    # Processes.

    @contextlib.contextmanager
    def kill(self, node):
        node.kill()
        yield
        node.start()

    @contextlib.contextmanager
    def pause(self, node):
        node.pause()
        yield
        node.resume()

    @contextlib.contextmanager
    def stop(self, node):
        node.stop()
        yield
        node.start()

    def rolling_restart(self):
        for node in self.cluster.nodes:
            node.stop()
            node.start().wait_ready(15)

    def flapping_leader(self):
        """Whoever leads is paused until somebody else does, again and again."""
        changes, before = 0, 0
        deadline = time.monotonic() + 12
        while changes < 4 and time.monotonic() < deadline:
            leader = self.cluster.leader(self.topic)
            if leader == 0:
                continue
            changes += leader != before
            before = leader
            node = self.cluster.node(leader)
            node.pause()
            time.sleep(self.choose.uniform(1.2, 2.2))
            node.resume()
        expect(changes >= 2, "leadership stayed where it was")

    # Network.

    @contextlib.contextmanager
    def cut(self, node, others, to=True, back=True):
        pairs = [(node.number, other) for other in others if to] + [(other, node.number) for other in others if back]
        for pair in pairs:
            self.cluster.network.cut(*pair)
        expect(not self.cluster.network.reaches(node.number, others[0]), "a cut node reached another one")
        yield
        for pair in pairs:
            self.cluster.network.join(*pair)

    def cut_off(self, node):
        return self.cut(node, self.others(node))

    def deafen(self, node):
        return self.cut(node, self.others(node), to=False)

    def mute(self, node):
        return self.cut(node, self.others(node), back=False)

    def cut_two_apart(self, node):
        return self.cut(node, [self.choose.choice(self.others(node))])

    @contextlib.contextmanager
    def slow_link(self, node):
        delay, loss = self.choose.uniform(0.005, 0.15), self.choose.choice([0, 0.01, 0.05])
        rate = self.choose.choice([100e3, 500e3, 2e6])
        print(f"    {delay * 1000:.0f} ms, {rate / 1000:.0f} kB/s, {loss:.0%} lost", flush=True)
        with self.cluster.network.slow_wire(node.number, delay, rate, loss, self.choose.randrange(1 << 30)) as told:
            yield
        expect(told.get("passed", 0) > 0, f"nothing passed the slow wire: {told}")

    # Disks.

    @contextlib.contextmanager
    def full_disk(self, node):
        left = self.choose.choice([0, 0, 8 << 20])  # not a byte, or less than the node will write with
        before = node.faults["writes_without_space"]
        node.disk.fill_but(left)
        harness.wait_until("a node sees that its disk is full",
                           lambda: not node.running() or node.metric("sluice_broker_disk_refusing_writes") == 1
                           or node.faults["writes_without_space"] > before, 10)
        yield
        node.disk.make_space()
        if not node.running():
            self.expect_stopped_itself(node)
            node.start()

    def expect_stopped_itself(self, node):
        code = node.process.process.returncode
        expect(code in STOPPED_ITSELF, f"node {node.number} ended with {code}\n{node.process.tail()}")

    @contextlib.contextmanager
    def failing(self, node, what):
        """Once, or from now on: then the node must stop itself."""
        times = self.choose.choice([1, faults.ALL, faults.ALL])
        before = node.faults[f"{what}_failed"]
        node.faults[f"{what}_to_fail"] = times
        harness.wait_until(f"{what} of node {node.number} fail", lambda: node.faults[f"{what}_failed"] > before, 10)
        if times == faults.ALL:
            harness.wait_until(f"node {node.number} stops itself as its {what} fail", lambda: not node.running(), 10)
        yield
        node.faults[f"{what}_to_fail"] = 0
        if not node.running():
            self.expect_stopped_itself(node)
            node.start()

    def failing_syncs(self, node):
        return self.failing(node, "syncs")

    def failing_writes(self, node):
        return self.failing(node, "writes")

    @contextlib.contextmanager
    def slow_disk(self, node):
        before = node.faults["syncs_delayed"]
        node.faults["sync_delay_us"] = self.choose.randint(20, 700) * 1000
        yield
        node.faults["sync_delay_us"] = 0
        expect(node.faults["syncs_delayed"] > before, "no sync was slow")

    # Clocks.

    @contextlib.contextmanager
    def jumping_clock(self, node):
        """Forward, back beyond where it was, and right again."""
        before = node.faults["clock_reads_shifted"]
        for sign in 1, -1:
            node.faults["clock_shift_ns"] = sign * self.choose.randint(1, 12 * 60) * HOUR_NS // 60
            time.sleep(self.choose.uniform(0.3, 1))
        yield
        node.faults["clock_shift_ns"] = 0
        expect(node.faults["clock_reads_shifted"] > before, "nobody looked at the clock")
