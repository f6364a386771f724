#!/usr/bin/env python3
"""Damage on the disk is told with file and place and is never served, skipped or taken for an empty log.

It stands on the data folder that 0.1.0 wrote (tests/fixtures): a checkpointed segment and a metadata store with files of its
own take minutes to come about."""

import contextlib
import glob
import json
import os
import re
import shutil
import struct
import subprocess
import tarfile
import tempfile
import unittest

import harness

# What an operator is told to do about a folder that has lost what it stands on.
WAYS_OUT = "copy of the whole folder", "new node.id", "log dump"
KEPT = os.path.join(harness.ROOT, "tests", "fixtures", "0.1.0")


def flip(path, at):
    """Changes one bit of the byte at `at` (from the end, if negative)."""
    at %= os.path.getsize(path)
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


class Damage(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="sluice-e2e-")
        self.addCleanup(shutil.rmtree, self.folder)
        with tarfile.open(os.path.join(KEPT, "data.tar.xz")) as tar:
            tar.extractall(self.folder)
        self.data = os.path.join(self.folder, "data")
        with open(os.path.join(KEPT, "expected.json"), encoding="utf-8") as file:
            self.topics = json.load(file)["topics"]
        self.broker = harness.Broker(self.folder, "storage: { journal_bytes: 64MiB }\n")
        self.addCleanup(lambda: self.broker.process is not None and self.broker.process.alive() and self.broker.kill())

    def segment(self, topic, base, kind="log"):
        found = glob.glob(os.path.join(self.data, "topics", self.topics[topic]["id"], "0", f"{base:020}-*.{kind}"))
        self.assertEqual(1, len(found), found)
        return found[0]

    @contextlib.contextmanager
    def undone(self, path):
        """Gives the file back as it was."""
        with open(path, "rb") as file:
            before = file.read()
        yield path
        with open(path, "wb") as file:
            file.write(before)

    def refuses_to_start(self, *words):
        done = subprocess.run([harness.program("sluiced"), "--config", self.broker.config], cwd=self.folder, capture_output=True,
                              text=True, timeout=120)
        self.assertEqual(1, done.returncode, done.stderr)
        last = done.stderr.splitlines()[-1]
        for word in words:
            self.assertIn(word, last)
        return last

    def dumped_damages(self):
        """The lines "damage" of a dump of the whole folder, of which there must be one at least."""
        dumped = subprocess.run([harness.program("sluice"), "--output", "json", "log", "dump", self.data], capture_output=True, text=True,
                                timeout=120)
        self.assertEqual(1, dumped.returncode, dumped.stderr)
        damages = [line for line in map(json.loads, dumped.stdout.splitlines()) if line["kind"] == "damage"]
        self.assertTrue(damages, dumped.stdout)
        return damages

    def starts_and_has(self, topic):
        self.broker.start()
        values = [record["offset"] for record in self.broker.consume(topic)]
        self.assertEqual([record["offset"] for record in self.topics[topic]["partitions"]["0"]["records"]], values)
        self.broker.stop()

    def test_a_flipped_byte_in_a_segment_is_an_error_with_file_and_byte_and_the_rest_is_served(self):
        path = self.segment("rolled", 0)
        at = 400_000
        flip(path, at)
        damages = self.dumped_damages()
        self.assertEqual({path}, {line["file"] for line in damages})
        self.assertLessEqual(damages[0]["position"], at)
        self.broker.start()
        read = self.broker.sluice("--output", "json", "consume", "rolled", "--from", "earliest", check=False)
        self.assertEqual(1, read.returncode, read.stderr)
        self.assertIn("rolled/0", read.stderr)
        self.assertIn(os.path.basename(path), read.stderr)
        place = re.search(r"byte (\d+)", read.stderr)
        self.assertTrue(place, read.stderr)
        self.assertLessEqual(int(place.group(1)), at)
        # What is before the damage comes, nothing behind it does, and nothing is changed.
        good = self.topics["rolled"]["partitions"]["0"]["records"]
        got = [json.loads(line)["offset"] for line in read.stdout.splitlines()]
        self.assertEqual([record["offset"] for record in good][:len(got)], got)
        self.assertLess(len(got), 6)
        # Behind the damage, and other partitions.
        later = self.broker.sluice("--output", "json", "consume", "rolled", "--partition", "0", "--from", "10").stdout
        self.assertEqual([record["offset"] for record in good if record["offset"] >= 10],
                         [json.loads(line)["offset"] for line in later.splitlines()])
        self.assertEqual(len(self.topics["plain"]["partitions"]["0"]["records"]), len(self.broker.consume("plain")))
        self.broker.stop()

    def partition_fails(self, topic, *words):
        self.broker.start()
        read = self.broker.sluice("consume", topic, "--from", "earliest", check=False)
        self.assertEqual(1, read.returncode, read.stderr)
        written = self.broker.sluice("produce", topic, input="x\n", check=False)
        self.assertNotEqual(0, written.returncode)
        described = self.broker.sluice("topic", "describe", topic).stdout
        for said in read.stderr, written.stderr, described:
            for word in words:
                self.assertIn(word, said)
        self.assertEqual(len(self.topics["plain"]["partitions"]["0"]["records"]), len(self.broker.consume("plain")))
        self.broker.stop()

    def test_a_segment_that_is_short_or_gone_fails_its_partition_alone(self):
        path = self.segment("rolled", 0)
        with self.undone(path):
            os.truncate(path, 100_000)
            self.partition_fails("rolled", os.path.basename(path), "100000")
        with self.undone(path):
            os.remove(path)
            self.partition_fails("rolled", os.path.basename(path))
        self.starts_and_has("rolled")

    def test_an_index_is_not_needed_and_not_believed(self):
        flip(self.segment("rolled", 0, "index"), 60)
        os.remove(self.segment("rolled", 6, "index"))
        self.starts_and_has("rolled")

    def test_a_journal_damaged_before_a_synced_point_refuses_to_start_with_file_and_byte(self):
        # The newest file: its first frames are vouched for by the later ones.
        path = self.newest_journal_file()
        with self.undone(path):
            flip(path, 100)
            self.refuses_to_start(path, "byte 0", *WAYS_OUT)
            self.assertEqual([(path, 0)], [(line["file"], line["position"]) for line in self.dumped_damages()])

    def test_a_journal_that_is_gone_refuses_to_start_and_says_what_to_do(self):
        journal, away = os.path.join(self.data, "journal"), os.path.join(self.folder, "away")
        # A folder of 0.1.0 has not noted that it had one: there, files of replicas tell.
        shutil.move(journal, away)
        self.assertEqual(journal, self.dumped_damages()[0]["file"])
        self.refuses_to_start(self.data, *WAYS_OUT)
        self.refuses_to_start(self.data, *WAYS_OUT)  # with the empty one that the first start has begun
        self.assertIn(journal, self.dumped_damages()[0]["file"])
        shutil.rmtree(journal)
        shutil.move(away, journal)
        self.starts_and_has("plain")
        for emptied in False, True:
            with self.subTest(emptied=emptied):
                shutil.move(journal, away)
                if emptied:
                    os.mkdir(journal)
                self.assertEqual([journal], [line["file"] for line in self.dumped_damages()][:1])
                self.refuses_to_start(self.data, *WAYS_OUT)
                self.assertEqual(emptied, os.path.exists(journal))  # nothing is begun in its place
                shutil.rmtree(journal, ignore_errors=True)
                shutil.move(away, journal)
        self.starts_and_has("plain")

    def test_a_file_that_the_journal_does_not_list_is_removed_and_named(self):
        extra = os.path.join(os.path.dirname(self.segment("rolled", 0)), f"{900:020}-7.log")
        shutil.copy(self.segment("rolled", 0), extra)
        self.starts_and_has("rolled")
        self.assertFalse(os.path.exists(extra))
        with open(self.broker.process.log_path, encoding="utf-8") as file:
            told = [line for line in file if extra in line]
        self.assertEqual(1, len(told), told)
        self.assertIn("level=warn", told[0])
        self.assertIn("lists no such segment", told[0])

    def test_a_journal_whose_newest_file_lost_its_end_refuses_to_start(self):
        os.truncate(self.newest_journal_file(), 4096)
        self.refuses_to_start("journal")

    def newest_journal_file(self):
        return sorted(glob.glob(os.path.join(self.data, "journal", "*.journal")))[-1]

    def produce_in_a_new_life(self, end):
        """Starts, appends two records to "plain", and ends the process; their values, and the newest journal file."""
        before = self.newest_journal_file()
        self.broker.start()
        old = [record["value"] for record in self.broker.consume("plain")]
        self.broker.sluice("produce", "plain", input="acknowledged 1\n")
        self.broker.sluice("produce", "plain", input="acknowledged 2\n")
        end()
        newest = self.newest_journal_file()
        self.assertGreater(newest, before)
        return old + ["acknowledged 1", "acknowledged 2"], newest

    def keeps_or_refuses(self, newest, expected):
        """Whatever is done to the newest file and to nothing else, the broker does not start without what it acknowledged."""
        for size in [0, 1, 512, 4095, 4096, 8191, 8192, 12288, 16384, 65536, os.path.getsize(newest) - 1]:
            with self.subTest(size=size), self.undone(newest):
                os.truncate(newest, size)
                self.refuses_to_start(newest)
        for zeros in [4096, 16384, os.path.getsize(newest)]:
            with self.subTest(zeros=zeros), self.undone(newest):
                with open(newest, "r+b") as file:
                    file.write(bytes(zeros))
                self.refuses_to_start(newest)
        with self.subTest("the newest file is gone"), self.undone(newest):
            os.remove(newest)
            self.refuses_to_start(newest)
        mark = os.path.join(self.data, "journal", "newest")
        with self.subTest("the mark is gone"), self.undone(mark):
            os.remove(mark)
            self.refuses_to_start(mark)
        self.broker.start()
        self.assertEqual(expected, [record["value"] for record in self.broker.consume("plain")])
        self.broker.stop()

    def test_a_newest_journal_file_that_is_short_empty_or_gone_refuses_to_start_after_a_kill(self):
        expected, newest = self.produce_in_a_new_life(lambda: self.broker.kill())
        self.keeps_or_refuses(newest, expected)

    def test_a_newest_journal_file_that_is_short_empty_or_gone_refuses_to_start_after_a_clean_stop(self):
        expected, newest = self.produce_in_a_new_life(lambda: self.broker.stop())
        # What was synced last is known to the byte after such a stop: also one lost block refuses.
        number = int(os.path.basename(newest).split(".")[0])  # a recycled file also has frames of an earlier number
        with open(newest, "rb") as file:
            last = file.read().rindex(struct.pack("<4sHHQ", b"SLJF", 3, 0, number))
        with self.undone(newest):
            with open(newest, "r+b") as file:
                file.seek(last)
                file.write(bytes(4096))
            self.refuses_to_start(newest, f"byte {last}")
        self.keeps_or_refuses(newest, expected)

    def test_a_damaged_metadata_store_refuses_to_start_and_is_never_taken_for_an_empty_one(self):
        meta = os.path.join(self.data, "meta")
        current = os.path.join(meta, "CURRENT")
        manifest = glob.glob(os.path.join(meta, "MANIFEST-*"))[0]
        table = glob.glob(os.path.join(meta, "*.sst"))[0]
        for path, damage in [(current, lambda: os.truncate(current, 3)), (manifest, lambda: flip(manifest, 20)),
                             (manifest, lambda: os.remove(manifest)), (table, lambda: flip(table, 30)), (table, lambda: os.remove(table))]:
            with self.subTest(os.path.basename(path)):
                kept = os.path.join(self.folder, "kept")
                shutil.copytree(meta, kept)
                damage()
                self.refuses_to_start(meta)
                shutil.rmtree(meta)
                shutil.move(kept, meta)
        self.starts_and_has("plain")

    def test_a_folder_of_another_node_or_version_refuses_to_start(self):
        path = os.path.join(self.data, "node.yaml")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for wrong, words in [(re.sub(r"node_id: \d+", "node_id: 9", text), ["9"]), (text.replace("format_version: 1", "format_version: 3"), ["3"]),
                             (text[:40], []), (re.sub("disk_id: ..", "disk_id: 00", text), [])]:
            with self.undone(path), self.subTest(wrong=wrong):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(wrong)
                self.assertNotEqual(text, wrong)
                self.refuses_to_start(self.data, *words)
        self.starts_and_has("plain")


if __name__ == "__main__":
    unittest.main()
