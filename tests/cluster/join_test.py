#!/usr/bin/env python3
"""Who is let into a cluster and who is not: each refusal ends the node with exit code 1 and says what to do; the cluster goes
on as if nothing had been."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

import cluster
import harness

NODES = 3


class Join(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="sluice-cluster-")
        cls.nodes = cluster.Cluster(cls.folder.name, NODES, spare=2)
        cls.nodes.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.nodes.__exit__()
        cls.folder.cleanup()

    def stranger(self, place, number, seeds=None, name="local", data_dir=None):
        """A node that does not belong: on the host `place`, with the number `number`."""
        node = self.nodes.node(place)
        node.number_in_config = number
        node.data_dir = data_dir or os.path.join(node.folder, f"data-{number}-{name}")
        node.write_config(self.nodes.seeds if seeds is None else seeds, name=name)
        return node

    def refused(self, node, *words):
        node.start()
        code = node.process.process.wait(timeout=60)
        text = node.process.tail(15)
        self.assertEqual(1, code, text)
        for word in words:
            self.assertIn(word, text.splitlines()[-1])

    def assert_whole(self):
        self.nodes.wait_healthy()
        status = self.nodes.json("cluster", "status")
        self.assertEqual([1, 2, 3], [node["id"] for node in status["nodes"]])
        self.assertEqual(["alive"] * 3, [node["state"] for node in status["nodes"]])

    def test_any_node_tells_since_when_all_nodes_run_and_how_full_their_disks_are(self):
        self.nodes.sluice("topic", "create", "asked", "--replicas", "3")
        self.nodes.sluice("produce", "asked", input="\n".join(str(number) for number in range(1000)))
        self.nodes.wait_healthy()
        for asked in self.nodes.nodes[:NODES]:
            done = subprocess.run([harness.program("sluice"), "--brokers", asked.grpc, "--output", "json", "node", "list"],
                                  capture_output=True, text=True, timeout=60, check=True)
            for node in json.loads(done.stdout)["nodes"]:
                with self.subTest(asked=asked.number, node=node["id"]):
                    self.assertLess(abs(time.time() * 1000 - node["started_ms"]), 600_000)
                    self.assertGreater(node["disk_free_bytes"], 0)
                    self.assertGreater(node["disk_used_bytes"], 1000)

    def test_a_second_node_with_a_number_that_is_taken_is_refused(self):
        self.refused(self.stranger(4, number=2), "2")
        self.assert_whole()

    def test_a_node_whose_disk_was_wiped_is_refused_under_its_old_number(self):
        victim = self.nodes.node(3)
        victim.stop()
        kept = victim.data_dir + ".kept"
        shutil.move(victim.data_dir, kept)
        self.refused(victim, "is registered with disk", "node.id")
        shutil.rmtree(victim.data_dir)
        shutil.move(kept, victim.data_dir)
        victim.start().wait_ready()
        self.assert_whole()

    def test_of_two_processes_with_a_copied_folder_the_later_is_the_node_and_the_earlier_stops(self):
        earlier = self.nodes.node(2)
        earlier.stop()
        copy = os.path.join(self.nodes.node(4).folder, "copy-of-2")
        shutil.copytree(earlier.data_dir, copy)
        earlier.start().wait_ready()
        self.nodes.wait_healthy()
        later = self.stranger(4, number=2, data_dir=copy)
        later.start()
        try:
            self.assertEqual(1, earlier.process.process.wait(timeout=30), earlier.process.tail(15))
            text = earlier.process.tail(15)
            self.assertIn(f"two processes run as node 2: this one, at {earlier.peer}, and one at {later.peer}", text)
            self.assertIn("delete the other", text)
            later.wait_ready()
            self.assertLessEqual(later.process.tail(200).count("registers again"), 1)
        finally:
            later.stop()
        earlier.start().wait_ready()
        self.assert_whole()

    def test_of_a_node_that_leads_the_cluster_and_a_copy_one_stops(self):
        leader = self.nodes.node(self.nodes.json("cluster", "status")["controller_node"])
        copy = os.path.join(self.nodes.node(4).folder, "copy-of-leader")
        leader.stop()
        shutil.copytree(leader.data_dir, copy)
        leader.start().wait_ready()

        def leads():
            status = self.nodes.json("cluster", "status")
            if status["controller_node"] == leader.number:
                return True
            other = self.nodes.node(status["controller_node"])
            other.stop()
            other.start().wait_ready()
            return False

        harness.wait_until("it leads again", leads)
        later = self.stranger(4, number=leader.number, data_dir=copy)
        later.start()
        try:
            # The copy, whom the one that leads does not let in; or that one, where the copy was elected in its place.
            harness.wait_until("one of the two ends", lambda: leader.running() != later.running(), 60)
            ended, other = (later, leader) if leader.running() else (leader, later)
            text = ended.process.tail(15)
            self.assertEqual(1, ended.process.process.wait(), text)
            for word in f"two processes run as node {leader.number}", other.peer:
                self.assertIn(word, text.splitlines()[-1])
        finally:
            if later.running():
                later.stop()
            if not leader.running():
                leader.start().wait_ready()
        self.assert_whole()

    def test_seeds_of_different_clusters_are_refused(self):
        other = self.stranger(4, number=9, seeds=[], name="other")
        other.start().wait_ready()
        try:
            self.refused(self.stranger(5, number=5, seeds=[self.nodes.seeds[0], other.peer]), "different clusters")
        finally:
            other.stop()
        self.assert_whole()

    def test_a_node_of_one_cluster_with_seeds_of_another_serves_and_says_so(self):
        node = self.stranger(4, number=8, seeds=[], name="alone")
        node.start().wait_ready()
        node.stop()
        node.write_config(self.nodes.seeds[:1], name="alone")
        node.start().wait_ready()
        try:
            harness.wait_until("it says so", lambda: node.process.said("a seed refuses this node"))
            line = next(line for line in node.process.tail(100).splitlines() if "a seed refuses this node" in line)
            self.assertIn("ERROR", line.upper())
            for word in (self.nodes.seeds[0], self.nodes.json("cluster", "status")["cluster_id"], "cluster.seeds"):
                self.assertIn(word, line)
        finally:
            node.stop()
        self.assert_whole()

    def test_a_node_that_was_refused_joins_under_another_number_with_the_same_folder(self):
        node = self.stranger(5, number=2, name="local")
        self.refused(node, "node 2")
        node.number_in_config = 7
        node.write_config([f"{self.nodes.network.host(5)}:9"])
        node.start()
        try:
            harness.wait_until("it waits", lambda: node.process.said("waits until the cluster lets it in"))
        finally:
            node.process.process.send_signal(signal.SIGTERM)
            self.assertEqual(0, node.process.process.wait(timeout=10))

    def test_a_cluster_of_another_name_is_refused(self):
        self.refused(self.stranger(5, number=5, name="elsewhere"), "elsewhere", "local")
        self.assert_whole()

    def test_a_node_that_waits_for_its_cluster_stops_when_asked_to(self):
        nobody = f"{self.nodes.network.host(5)}:9"
        node = self.stranger(5, number=5, seeds=[nobody])
        node.start()
        harness.wait_until("it waits", lambda: node.process.said("waits until the cluster lets it in"))
        node.process.process.send_signal(signal.SIGTERM)
        self.assertEqual(0, node.process.process.wait(timeout=10))

    def test_a_folder_is_initialised_once(self):
        done = cluster.try_run(harness.program("sluiced"), "init", "--config", self.nodes.node(1).config)
        self.assertNotEqual(0, done.returncode)


if __name__ == "__main__":
    cluster.enter_network()
    unittest.main()
