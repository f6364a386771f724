#!/usr/bin/env python3
"""Nodes as `./dev cluster` runs them: one that counts as ended can be started again at once, on the same ports."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import unittest

import cluster
import harness
import local


class Local(unittest.TestCase):
    def test_a_node_that_was_killed_has_given_its_ports_back_when_it_counts_as_ended(self):
        network = cluster.Network(0)
        self.addCleanup(network.close)
        with tempfile.TemporaryDirectory(prefix="sluice-local-") as folder:
            node = local.Node(folder, 5)
            for _ in range(10):
                node.start([])
                pid = node.pid()
                self.assertIsNotNone(pid)
                try:
                    node.wait_ready()
                finally:
                    os.kill(pid, signal.SIGKILL)
                while node.pid() is not None:
                    pass
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def test_a_cluster_whose_first_node_has_lost_its_data_goes_on_without_it_and_no_second_one_is_begun(self):
        network = cluster.Network(0)
        self.addCleanup(network.close)
        with tempfile.TemporaryDirectory(prefix="sluice-local-") as folder:
            with contextlib.ExitStack() as ends:
                ends.callback(local.down, folder, False)
                self.lose_the_first_node(folder)

    def lose_the_first_node(self, folder):
        local.up(folder, 3)
        first, *others = local.existing(folder)

        def all_vote():
            done = subprocess.run([local.program("sluice"), "--brokers", first.grpc, "--output", "json", "node", "list"],
                                  capture_output=True, text=True, timeout=60, check=True)
            return all(node["controller_voter"] for node in json.loads(done.stdout)["nodes"])

        harness.wait_until("the others can lead the cluster without the first", all_vote)
        local.down(folder, False)
        shutil.rmtree(first.data_dir)
        with self.assertRaises(local.Wrong) as raised:
            local.up(folder, 3)
        self.assertIn("the data of node 1 was gone", str(raised.exception))
        self.assertIn("is registered with disk", str(raised.exception))
        self.assertIsNone(first.pid())
        for node in others:
            self.assertTrue(node.ready())


if __name__ == "__main__":
    cluster.enter_network()
    unittest.main()
