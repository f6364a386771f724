#!/usr/bin/env python3
"""Nodes whose disks fill up while the one that leads has room. What a majority cannot write is refused, and the answer names the
nodes; what was there stays readable; one node with room more is enough to go on."""

import tempfile
import time
import unittest

import cluster
import harness

STORAGE = "storage: { journal_bytes: 64MiB, disk_low_watermark: 16MiB, disk_high_watermark: 24MiB }\n"
LEFT = 8 << 20  # below the low watermark


class FullDisks(unittest.TestCase):
    def produce(self, value):
        """(exit code, what it said): the client tries again, for room may come, and then says why it was refused."""
        done = self.nodes.sluice("--timeout", "6s", "produce", "t", input=value, check=False)
        return done.returncode, done.stderr

    def fill(self, node):
        node.disk.fill_but(LEFT)
        harness.wait_until(f"node {node.number} sees that its disk is full",
                           lambda: node.metric("sluice_broker_disk_refusing_writes") == 1, 10)

    def test_what_no_majority_has_room_for_is_refused(self):
        with tempfile.TemporaryDirectory(prefix="sluice-cluster-") as folder, \
                cluster.Cluster(folder, 3, STORAGE, with_faults=True) as self.nodes:
            self.nodes.sluice("topic", "create", "t", "--replicas", "3")
            self.nodes.wait_healthy()
            self.assertEqual(0, self.produce("a")[0])
            leader = self.nodes.leader("t")
            first, second = (node for node in self.nodes.nodes if node.number != leader)
            self.fill(first)
            time.sleep(2)
            self.assertEqual(0, self.produce("b")[0])  # two of three have room
            self.fill(second)
            time.sleep(2)  # until the controller has heard of it, and this leader from there
            code, said = self.produce("c")
            self.assertEqual(leader, self.nodes.leader("t"))
            self.assertEqual(5, code, said)
            for words in ("t/0", "not written", f"node {first.number}, node {second.number}", "make room"):
                self.assertIn(words, said)
            self.assertEqual(["a", "b"], [record["value"] for record in self.nodes.consume("t", 0)])
            second.disk.make_space()
            harness.wait_until("a majority has room", lambda: self.produce("d")[0] == 0, 20)
            first.disk.make_space()
            self.nodes.wait_healthy()
            self.assertEqual(["a", "b", "d"], [record["value"] for record in self.nodes.consume("t", 0)])


if __name__ == "__main__":
    cluster.enter_network()
    unittest.main()
