#!/usr/bin/env python3
"""A cluster whose nodes speak TLS to each other: it forms, replicates, and lets nobody in who cannot show who they are."""

import os
import tempfile
import unittest

import cluster
import harness

NODES = 3


class Authority:
    """Certificates by openssl in `folder`."""

    def __init__(self, folder, name):
        self.folder = folder
        self.ca, self.ca_key = self.path(f"{name}.pem"), self.path(f"{name}.key")
        self.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                     "-subj", f"/CN={name}", "-keyout", self.ca_key, "-out", self.ca)

    def path(self, name):
        return os.path.join(self.folder, name)

    def openssl(self, *arguments):
        cluster.run("openssl", *arguments)

    def node_config(self, name, number):
        """`peer.tls` with a certificate `name` that names node `number`."""
        cert, key, request, extension = (self.path(f"{name}.{end}") for end in ("pem", "key", "csr", "ext"))
        with open(extension, "w", encoding="utf-8") as file:
            file.write(f"subjectAltName=URI:sluice:///node/{number}\n")
        self.openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                     "-keyout", key, "-out", request)
        self.openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-CAcreateserial", "-days", "2",
                     "-extfile", extension, "-out", cert)
        return f"peer: {{ tls: {{ cert: {cert}, key: {key}, ca: {self.ca} }} }}\n"


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="sluice-cluster-")
        cls.authority = Authority(cls.folder.name, "ca")
        cls.nodes = cluster.Cluster(cls.folder.name, NODES, spare=1)
        for node in cls.nodes.nodes:
            node.more_config = cls.authority.node_config(f"node{node.number}", node.number)
            node.write_config(cls.nodes.seeds)
        cls.nodes.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.nodes.__exit__()
        cls.folder.cleanup()

    def assert_kept_out(self, name, config):
        """Node 4 with this configuration waits, and the cluster does not know it."""
        node = self.nodes.node(4)
        node.more_config = config
        node.data_dir = os.path.join(node.folder, name)
        node.write_config(self.nodes.seeds)
        node.start()
        harness.wait_until("it waits", lambda: node.process.said("waits until the cluster lets it in"))
        self.assertEqual([1, 2, 3], [known["id"] for known in self.nodes.json("cluster", "status")["nodes"]])
        self.assertFalse(harness.answers(f"http://{node.http}/readyz"))
        self.assertEqual(0, node.process.stop(10))

    def test_records_are_replicated_and_outlive_their_leader(self):
        self.nodes.sluice("topic", "create", "safe", "--replicas", "3")
        self.nodes.sluice("produce", "safe", input="one\ntwo\n")
        leader = self.nodes.node(self.nodes.leader("safe"))
        leader.kill()
        self.nodes.sluice("produce", "safe", input="three\n")
        leader.start().wait_ready()
        self.nodes.wait_healthy()
        self.assertEqual(["one", "two", "three"], [record["value"] for record in self.nodes.consume("safe", 0)])

    def test_who_has_no_certificate_of_the_authority_that_names_it_is_kept_out(self):
        self.assert_kept_out("none", "")
        self.assert_kept_out("other", Authority(self.folder.name, "other").node_config("other4", 4))
        self.assert_kept_out("another", self.authority.node_config("another", 2))
        node = self.nodes.node(4)
        node.more_config = self.authority.node_config("node4", 4)
        node.data_dir = os.path.join(node.folder, "right")
        node.write_config(self.nodes.seeds)
        node.start().wait_ready()
        self.assertEqual([1, 2, 3, 4], [known["id"] for known in self.nodes.json("cluster", "status")["nodes"]])


if __name__ == "__main__":
    cluster.enter_network()
    unittest.main()
