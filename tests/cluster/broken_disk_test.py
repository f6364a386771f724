#!/usr/bin/env python3
"""Damage to the files of one node of a running cluster: its journal with the votes in it, its controller state, its identity. That
node refuses to start and names the file, or comes back whole by what the others have; the others go on; nothing is lost."""

import glob
import os
import random
import re
import shutil
import tempfile
import unittest

import cluster
import harness
import journal_frames

STORAGE = "storage: { journal_bytes: 64MiB }\n"


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x10]))


def zero(path, at, size):
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(bytes(size))


def newest_journal(node):
    return sorted(glob.glob(os.path.join(node.data_dir, "journal", "*.journal")))[-1]


class Damage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="sluice-cluster-")
        cls.nodes = cluster.Cluster(cls.folder.name, 3, STORAGE, spare=1)
        cls.nodes.__enter__()
        cls.nodes.sluice("topic", "create", "t", "--replicas", "3")
        cls.written, cls.kept, cls.damaged = [], "", None

    @classmethod
    def tearDownClass(cls):
        cls.nodes.__exit__()
        cls.folder.cleanup()

    def setUp(self):
        self.addCleanup(self.mend)
        self.produce()

    def mend(self):
        """After a test that failed: as it was, for the next one."""
        if os.path.exists(self.kept):
            self.damaged.kill()
            self.give_back(self.damaged)
            self.comes_back(self.damaged)

    def start_what_is_down(self):
        for node in self.nodes.nodes:
            if not node.running():
                node.start().wait_ready()

    def produce(self):
        values = [f"{len(self.written) + number}" for number in range(100)]
        self.nodes.sluice("produce", "t", input="\n".join(values))
        self.written += values

    def assert_all_there(self):
        self.assertEqual(self.written, [record["value"] for record in self.nodes.consume("t", 0)])

    def victim(self, number=0):
        """A killed node, often the one that leads; its folder as it was is beside it."""
        node = self.nodes.node(number or self.nodes.leader("t") or 1)
        node.kill()
        self.damaged, self.kept = node, node.data_dir + ".kept"
        shutil.copytree(node.data_dir, self.kept)
        self.produce()  # the others go on
        return node

    def give_back(self, node):
        shutil.rmtree(node.data_dir)
        shutil.copytree(self.kept, node.data_dir)

    def comes_back(self, node):
        shutil.rmtree(self.kept)
        node.start().wait_ready()
        self.nodes.wait_healthy()
        self.produce()
        self.assert_all_there()

    def refuses(self, node, *words):
        """Starts and ends by itself: what it said last."""
        node.start()
        self.assertEqual(1, node.process.process.wait(timeout=60), node.process.tail())
        last = node.process.tail(1)
        for word in words:
            self.assertIn(word, last)
        return last

    def refuses_or_is_whole(self, node, path):
        """Either is right: which one depends on whether what is damaged was vouched for. True: it refused."""
        node.start()
        try:
            node.wait_ready(30)
        except RuntimeError:  # it has ended
            self.assertEqual(1, node.process.process.returncode, node.process.tail())
            self.assertIn(path, node.process.tail(1))
            if path.endswith(".journal"):
                self.assertRegex(node.process.tail(1), r"byte \d+")
            return True
        self.nodes.wait_healthy()
        self.assert_all_there()
        node.kill()
        # It has promised more since then: a disk must never go back behind what it promised.
        shutil.rmtree(self.kept)
        shutil.copytree(node.data_dir, self.kept)
        return False

    def test_a_damaged_journal_is_named_with_its_byte_or_what_it_lost_comes_from_the_others(self):
        node = self.victim()
        refused = 0
        for what in ["the opening", "the opening's fields", "the middle", "before the last", "the last", "the last one's fields",
                     "the second half"]:
            with self.subTest(what):
                path = newest_journal(node)
                places = [frame.at for frame in journal_frames.frames(path)]
                self.assertGreater(len(places), 3)
                middle = places[len(places) // 2]
                if what == "the second half":
                    zero(path, middle, places[-1] + 4096 - middle)
                    refused += self.refuses_or_is_whole(node, node.data_dir)
                else:
                    flip(path, {"the opening": places[0], "the opening's fields": places[0] + 100, "the middle": middle + 40,
                                "before the last": places[-2] + 60, "the last": places[-1],
                                "the last one's fields": places[-1] + 30}[what])
                    refused += self.refuses_or_is_whole(node, path)
                self.give_back(node)
        self.assertGreaterEqual(refused, 3, "damage far before the end was not noticed")
        self.comes_back(node)

    def test_a_damaged_vote_is_never_taken_for_no_vote(self):
        # An election leaves a term and a vote in the journals of those that stayed; what is written since vouches for them.
        first = self.victim()
        harness.wait_until("another node leads", lambda: self.nodes.leader("t") not in (0, first.number))
        voter_number = self.nodes.leader("t")
        self.comes_back(first)
        epoch = self.nodes.partitions("t")[0]["leader_epoch"]
        voter = self.victim(voter_number)
        path = newest_journal(voter)
        topic = bytes.fromhex(self.nodes.json("topic", "describe", "t")["id"].replace("-", "")), 0
        frames = journal_frames.frames(path)
        vouched = max(journal_frames.synced_by_mark(os.path.dirname(path)), *(frame.last_synced for frame in frames))
        states = [(frame, record) for frame in frames for record in frame.records if frame.number <= vouched
                  and record.kind in (journal_frames.HARD_STATE, journal_frames.REPLICA_SNAPSHOT)]
        of_topic = [(frame, record) for frame, record in states if record.replica() == topic]
        votes = [each for each in of_topic if each[1].kind == journal_frames.HARD_STATE and each[1].vote()[1] != 0]
        self.assertTrue(votes, "the journal holds no vote that a later frame vouches for: this test has lost its subject")
        self.assertEqual(voter_number, votes[-1][1].vote()[1], "who was elected voted for itself")
        others = [each for each in (of_topic[:1] + states[-1:]) if each not in votes]
        for frame, record in votes[-2:] + others:
            for what, at in ("term", 0), ("node voted for", 4), ("that one's incarnation", 8):
                with self.subTest(what, record=record.kind, replica=record.replica(), frame=frame.number):
                    flip(path, record.hard_state_at() + at)
                    self.refuses(voter, f"{path} at byte {frame.at}:")
                    self.give_back(voter)
        self.comes_back(voter)
        self.assertGreaterEqual(self.nodes.partitions("t")[0]["leader_epoch"], epoch)

    def test_a_damaged_controller_state_is_named_and_never_taken_for_an_empty_one(self):
        node = self.victim()
        meta = os.path.join(node.data_dir, "meta")
        manifest = glob.glob(os.path.join(meta, "MANIFEST-*"))[0]
        for what, damage in [("CURRENT is short", lambda: os.truncate(os.path.join(meta, "CURRENT"), 3)),
                             ("CURRENT is gone", lambda: os.remove(os.path.join(meta, "CURRENT"))),
                             ("a bit of the manifest", lambda: flip(manifest, 20)),
                             ("the manifest is gone", lambda: os.remove(manifest)),
                             ("all of it is gone", lambda: shutil.rmtree(meta))]:
            with self.subTest(what):
                damage()
                self.refuses(node, node.data_dir)
                self.give_back(node)
        self.comes_back(node)

    def test_an_identity_that_is_damaged_of_another_cluster_or_of_a_later_format_is_named(self):
        node = self.victim()
        path = os.path.join(node.data_dir, "node.yaml")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for wrong, word in [(text[:50], path), ("", path), (re.sub("format_version: .", "format_version: 9", text), "9"),
                            (re.sub(r"node_id: \d", "node_id: 7", text), "7")]:
            with self.subTest(wrong=wrong):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(wrong)
                self.assertNotEqual(text, wrong)
                self.refuses(node, node.data_dir, word)
        with self.subTest("another cluster"):
            with open(path, "w", encoding="utf-8") as file:
                file.write(re.sub("cluster_id: ........", "cluster_id: 00000000", text))
            node.start()
            harness.wait_until("it is told that it belongs elsewhere", lambda: node.process.said("of cluster"), 20)
            self.assertFalse(harness.answers(f"http://{node.http}/readyz"))
            self.produce()
            node.kill()
        self.give_back(node)
        self.comes_back(node)

    def test_a_replica_that_cannot_read_its_log_is_handed_nothing_and_the_reason_is_told(self):
        self.addCleanup(self.start_what_is_down)
        node = self.nodes.node(1)
        self.nodes.sluice("topic", "create", "read", "--replicas", "3", "--config", "segment.bytes=1048576")
        values = [random.randbytes(5000).hex() for _ in range(500)]
        self.nodes.sluice("produce", "read", input="\n".join(values))
        topic = self.nodes.json("topic", "describe", "read")["id"]
        segments = os.path.join(node.data_dir, "topics", topic, "0", "*.log")
        harness.wait_until("segments are closed", lambda: len(glob.glob(segments)) > 2)
        node.stop()  # so that nothing of them is in memory
        path = sorted(glob.glob(segments))[0]
        flip(path, os.path.getsize(path) // 2)
        node.start().wait_ready()
        self.nodes.wait_healthy()
        elect = ["partition", "elect", "read", "--partition", "0", "--node", "1"]
        self.nodes.sluice(*elect)
        self.assertEqual(values, [record["value"] for record in self.nodes.consume("read", 0)])
        self.assertTrue(node.process.said("a replica cannot read its log"))
        refused = self.nodes.sluice(*elect, check=False)
        self.assertEqual(1, refused.returncode)
        self.assertIn("cannot read its log", refused.stderr)
        for _ in range(3):
            leader = self.nodes.leader("read")
            self.assertIn(leader, (2, 3))
            self.nodes.node(leader).stop()
            harness.wait_until("the sound one leads", lambda: self.nodes.leader("read") == 5 - leader)
            self.nodes.node(leader).start().wait_ready()
            self.nodes.wait_healthy()
        for number in (2, 3):
            self.nodes.node(number).kill()
        told = self.nodes.sluice("--timeout", "10s", "consume", "read", "--from", "earliest", "--partition", "0", check=False)
        self.assertIn("CRC32C", told.stderr)
        for number in (2, 3):
            self.nodes.node(number).start().wait_ready()
        node.kill()
        flip(path, os.path.getsize(path) // 2)
        node.start().wait_ready()
        self.nodes.wait_healthy()
        self.nodes.sluice(*elect)
        self.assertEqual(values, [record["value"] for record in self.nodes.consume("read", 0)])
        self.nodes.sluice("topic", "delete", "read")

    def test_z_a_node_whose_damaged_folder_was_given_up_comes_back_under_a_new_number(self):
        node = self.victim()
        shutil.rmtree(self.kept)
        shutil.rmtree(node.data_dir)
        self.refuses(node, "is registered with disk", "node.id")
        self.assert_all_there()
        place = self.nodes.spare[0]
        place.write_config(self.nodes.seeds)
        place.start().wait_ready()
        harness.wait_until("the one that is gone is fenced", lambda: "fenced" in [
            known["state"] for known in self.nodes.json("cluster", "status")["nodes"] if known["id"] == node.number])
        self.nodes.sluice("topic", "create", "after", "--replicas", "3")
        self.nodes.sluice("produce", "after", input="one\ntwo\n")
        replicas = {number for partition in self.nodes.partitions("after") for number in partition["replica_nodes"]}
        self.assertEqual({1, 2, 3, 4} - {node.number}, replicas)
        self.produce()
        self.assert_all_there()


if __name__ == "__main__":
    cluster.enter_network()
    unittest.main()
