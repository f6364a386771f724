#!/usr/bin/env python3
"""How nodes come back to their cluster: with other addresses, all of them at once; without a majority; with a folder that has lost
its journal; and as a founder that was wiped."""

import json
import os
import shutil
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.request

import cluster
import harness

NODES = 3


def readyz(node):
    try:
        with urllib.request.urlopen(f"http://{node.http}/readyz", timeout=5) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


class Return(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="sluice-cluster-")
        cls.nodes = cluster.Cluster(cls.folder.name, NODES)
        cls.nodes.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.nodes.__exit__()
        cls.folder.cleanup()

    def all_ready(self):
        for node in self.nodes.nodes:
            node.wait_ready()

    def addresses(self):
        return {node["id"]: node["peer_address"] for node in self.nodes.json("cluster", "status")["nodes"]}

    def test_readiness_is_lost_with_the_majority_and_comes_back_with_it(self):
        self.all_ready()
        self.nodes.sluice("topic", "create", "headless", "--replicas", "3")
        count = len(self.nodes.json("partition", "list")["partitions"])
        last = self.nodes.node(3)
        for number in 1, 2:
            self.nodes.node(number).kill()
        harness.wait_until("the node that is left is not ready", lambda: readyz(last) == 503, 30)
        self.assertTrue(harness.answers(f"http://{last.http}/healthz"))
        done = subprocess.run([harness.program("sluice"), "--brokers", last.grpc, "--output", "json", "cluster", "status"],
                              capture_output=True, text=True, timeout=60, check=True)
        status = json.loads(done.stdout)
        self.assertEqual(0, status["controller_node"])
        self.assertEqual(["unknown", "unknown", "alive"], [node["state"] for node in status["nodes"]])
        self.assertEqual([None, None, True], [node["alive"] for node in status["nodes"]])
        self.assertEqual((count, count), (status["leaderless_partitions"], status["offline_partitions"]))
        for number in 1, 2:
            self.nodes.node(number).start()
        self.all_ready()
        self.nodes.sluice("topic", "delete", "headless")

    def test_nodes_that_all_have_moved_find_each_other(self):
        self.all_ready()
        for node in self.nodes.nodes:
            node.stop()
        for node in self.nodes.nodes:
            host, port = node.peer.split(":")
            moved = int(port) + 100 if cluster.has_namespaces() else harness.free_port()
            node.peer = f"{host}:{moved}"
        # Only one of them is where the seeds say.
        self.nodes.seeds = [self.nodes.node(2).peer]
        for node in self.nodes.nodes:
            node.write_config(self.nodes.seeds)
            node.start()
        self.all_ready()
        wanted = {number: self.nodes.node(number).peer for number in range(1, NODES + 1)}
        harness.wait_until("all are registered where they are", lambda: self.addresses() == wanted, 30)
        self.nodes.sluice("topic", "create", f"moved-{os.getpid()}", "--replicas", "3")

    def test_a_folder_that_has_lost_its_journal_is_refused(self):
        self.all_ready()
        founder = self.nodes.node(1)
        founder.stop()
        kept = founder.data_dir + ".kept"
        os.mkdir(kept)
        for name in "journal", "meta", "topics":
            if os.path.exists(os.path.join(founder.data_dir, name)):
                shutil.move(os.path.join(founder.data_dir, name), kept)
        founder.start()
        self.assertEqual(1, founder.process.process.wait(timeout=60))
        told = founder.process.tail(5).splitlines()[-1]
        for word in "journal/ and meta/", "new node.id", "cluster.seeds":
            self.assertIn(word, told)
        for name in "journal", "meta", "topics":
            shutil.rmtree(os.path.join(founder.data_dir, name), ignore_errors=True)
            if os.path.exists(os.path.join(kept, name)):
                shutil.move(os.path.join(kept, name), founder.data_dir)
        founder.start()
        self.all_ready()

    def test_a_wiped_founder_without_seeds_is_another_cluster_and_harms_nobody(self):
        self.all_ready()
        harness.wait_until("three vote", lambda: sum(node["controller_voter"] for node in self.nodes.json(
            "cluster", "status")["nodes"]) == 3, 60)
        founder, cluster_id = self.nodes.node(1), self.nodes.json("cluster", "status")["cluster_id"]
        founder.stop()
        kept = founder.data_dir + ".kept-whole"
        shutil.move(founder.data_dir, kept)
        founder.write_config([])
        founder.start().wait_ready()
        self.nodes.brokers, everybody = self.nodes.node(2).grpc, self.nodes.brokers

        def fenced():
            status = self.nodes.json("cluster", "status")
            return status["cluster_id"] == cluster_id and [node["state"] for node in status["nodes"]] == ["fenced", "alive", "alive"]

        harness.wait_until("the others go on without it", fenced, 30)
        self.nodes.brokers = everybody
        founder.stop()
        shutil.rmtree(founder.data_dir)
        shutil.move(kept, founder.data_dir)
        founder.write_config(self.nodes.seeds)
        founder.start()
        self.all_ready()


if __name__ == "__main__":
    cluster.enter_network()
    unittest.main(verbosity=2)
