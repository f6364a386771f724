#!/usr/bin/env python3
"""Peers that speak garbage at the nodes of a running cluster: bytes that are no gRPC, messages that are no messages, terms and
offsets that cannot be, from somebody who shakes hands as a node does; versions that nobody speaks. Each is refused, the nodes
stay up, and what was acknowledged is there."""

import json
import os
import re
import socket
import subprocess
import tempfile
import unittest

import cluster
import harness

SECONDS = 8


class Garbage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="sluice-cluster-")
        cls.nodes = cluster.Cluster(cls.folder.name, 3, "log: { level: debug }\n")
        cls.nodes.__enter__()
        cls.nodes.sluice("topic", "create", "t", "--replicas", "3")
        cls.written = []

    @classmethod
    def tearDownClass(cls):
        cls.nodes.__exit__()
        cls.folder.cleanup()

    def setUp(self):
        self.produce()

    def produce(self):
        values = [f"{len(self.written) + number}" for number in range(100)]
        self.nodes.sluice("produce", "t", input="\n".join(values))
        self.written += values

    def assert_nothing_happened(self):
        for node in self.nodes.nodes:
            self.assertTrue(node.running(), node.process.tail())
        self.nodes.wait_healthy()
        self.produce()
        self.assertEqual(self.written, [record["value"] for record in self.nodes.consume("t", 0)])
        self.assertLess(self.nodes.partitions("t")[0]["leader_epoch"], 1000)

    def rogue(self, victim, version=1, others=None):
        """Node `victim`, which is stopped, as somebody else plays it; (what it did, its log)."""
        with open(os.path.join(victim.data_dir, "node.yaml"), encoding="utf-8") as file:
            identity = dict(re.findall(r"(\w+): (\S+)", file.read()))
        peers = [f"{node.number}={node.peer}" for node in others or self.nodes.nodes if node is not victim]
        done = subprocess.run([*self.nodes.network.inside(victim.number), harness.program("sluice_test_rogue_peer"), str(SECONDS),
                               str(version), str(victim.number), identity["cluster_id"], identity["disk_id"], victim.peer, *peers],
                              capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(0, done.returncode, done.stderr)
        return json.loads(done.stdout), done.stderr

    def play(self, victim, **options):
        victim.stop()
        try:
            return self.rogue(victim, **options)
        finally:
            victim.start().wait_ready()

    def test_bytes_that_are_no_grpc_end_their_connection(self):
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
        for node in self.nodes.nodes:
            host, port = node.peer.split(":")
            for data in [os.urandom(10_000), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                         preface + os.urandom(5000), preface + settings + bytes([0xff, 0xff, 0xff, 0]) + bytes(5000),
                         preface + settings + bytes([0, 0, 5, 1, 4, 0, 0, 0, 1]) + b"\xff" * 5, bytes(2_000_000)]:
                with self.subTest(node=node.number, data=data[:30]), socket.create_connection((host, int(port)), 5) as peer:
                    peer.settimeout(20)
                    try:
                        peer.sendall(data)
                        while peer.recv(65536):
                            pass
                    except ConnectionError:
                        pass
            with socket.create_connection((host, int(port)), 5) as half:
                half.sendall(preface[:10])  # and nothing more
                self.assertTrue(harness.answers(f"http://{node.http}/readyz"))
        self.assert_nothing_happened()

    def test_a_member_that_sends_garbage_absurd_terms_and_absurd_offsets_is_not_believed(self):
        for role in "follower", "leader":
            with self.subTest(role):
                leader = self.nodes.leader("t")
                victim = self.nodes.node(leader if role == "leader" else leader % 3 + 1)
                did, log = self.play(victim)
                print(role, did, flush=True)
                for what in "heard", "sent", "calls_refused", "streams_refused":
                    self.assertGreater(did[what], 20, f"{did}\n{log[-3000:]}")
                self.assertEqual(0, did["streams_taken"])
                for said in "absurdly far beyond", "which cannot be", "refused a stream at the peers' port":
                    self.assertTrue(any(node.process.said(said) for node in self.nodes.nodes if node is not victim), said)
                self.assert_nothing_happened()

    def test_a_member_of_another_version_is_refused_on_both_sides_and_told_why(self):
        victim = self.nodes.node(3)
        did, log = self.play(victim, version=9)
        self.assertEqual(0, did["heard"])
        self.assertIn("speaks versions 1 to 1", log)
        for node in self.nodes.nodes[:2]:
            self.assertTrue(node.process.said("node 3 speaks 9 to 9"), node.process.tail())
        self.assert_nothing_happened()


if __name__ == "__main__":
    cluster.enter_network()
    unittest.main()
