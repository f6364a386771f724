#!/usr/bin/env python3
"""Nodes as `./dev cluster` runs them: one that counts as ended can be started again at once, on the same ports."""

import contextlib
import os
import signal
import tempfile
import unittest

import cluster
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


if __name__ == "__main__":
    cluster.enter_network()
    unittest.main()
