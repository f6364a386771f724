#!/usr/bin/env python3
"""Data folders that earlier programs wrote, of one node and of a cluster's, are opened by today's: everything that was in them is
there, more can be written, and the files can be read without a broker."""

import copy
import glob
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import unittest

import harness

FIXTURES = os.path.join(harness.ROOT, "tests", "fixtures")
sys.path.insert(0, FIXTURES)
import data_folder  # noqa: E402


def dump(path):
    done = subprocess.run([harness.program("sluice"), "--output", "json", "log", "dump", path, "--records"], capture_output=True,
                          text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


class KeptDataFolders(unittest.TestCase):
    maxDiff = 4000

    def test_each_is_read_written_and_restarted(self):
        kept = sorted(glob.glob(os.path.join(FIXTURES, "*", "expected.json")))
        self.assertTrue(kept, "there are no kept data folders")
        for path in kept:
            with self.subTest(os.path.basename(os.path.dirname(path))), tempfile.TemporaryDirectory(prefix="sluice-e2e-") as folder:
                self.open(os.path.dirname(path), folder)

    def open(self, kept, folder):
        with open(os.path.join(kept, "expected.json"), encoding="utf-8") as file:
            expected = json.load(file)
        archive = os.path.join(kept, "data.tar.xz")
        with open(archive, "rb") as file:
            self.assertEqual(expected["sha256"], hashlib.sha256(file.read()).hexdigest(), f"{archive} is not what was kept")
        with tarfile.open(archive) as tar:
            tar.extractall(folder)
        nodes = data_folder.Nodes(folder, expected.get("nodes", 1))
        broker = nodes.first
        self.check_dumps(nodes, expected["topics"])
        try:
            nodes.start()
            self.check(broker, expected["topics"])
            more = self.produce(broker, expected["topics"])
            self.check(broker, more)
            nodes.wait_until_all_have_all()
            nodes.stop()
            self.check_dumps(nodes, more)
            nodes.start()
            self.check(broker, more)
            nodes.kill()
            nodes.start()
            self.check(broker, more)
        finally:
            nodes.kill()

    def check(self, broker, topics):
        self.compare(topics, data_folder.read(broker), "high_watermark")

    def compare(self, topics, found, end):
        """All is equal, but each start of a broker adds one batch of its own at the end."""
        self.assertEqual(sorted(topics), sorted(found))
        for name, topic in topics.items():
            for number, partition in topic["partitions"].items():
                with self.subTest(topic=name, partition=number):
                    got = found[name]["partitions"][number]
                    self.assertEqual(partition["records"], got["records"])
                    self.assertEqual(partition["log_start"], got["log_start"])
                    self.assertGreaterEqual(got[end], partition["high_watermark"])
                    if "config" in found[name]:
                        self.assertEqual((topic["id"], topic["config"]), (found[name]["id"], found[name]["config"]))
            self.assertEqual(sorted(topic["partitions"]), sorted(found[name]["partitions"]))

    def check_dumps(self, nodes, topics):
        for broker in nodes.brokers:
            with self.subTest(dump=os.path.basename(broker.data_dir)):
                self.check_dump(broker.data_dir, topics)

    def check_dump(self, data, topics):
        code, out, err = dump(data)
        replicas, damages = data_folder.dumped(out)
        self.assertEqual((0, []), (code, damages), err)
        names = {topic["id"]: name for name, topic in topics.items()}
        found = {}
        for (topic, number), replica in replicas.items():
            if topic in names:
                found.setdefault(names[topic], {"partitions": {}})["partitions"][number] = replica
        self.compare(topics, found, "log_end")

    def produce(self, broker, topics):
        """Writes one record to every partition; what is expected then."""
        topics = copy.deepcopy(topics)
        for name, topic in topics.items():
            for number, partition in topic["partitions"].items():
                value = f"written by {name}/{number}'s heir"
                out = broker.sluice("--output", "json", "produce", name, "--partition", number, "--key-sep", "|", "--codec", "zstd",
                                    "--header", "new=yes", input=f"key|{value}").stdout
                answer = json.loads(out)
                self.assertGreaterEqual(answer["offset"], partition["high_watermark"])
                partition["high_watermark"] = answer["offset"] + 1
                partition["records"].append({"offset": answer["offset"], "timestamp_ms": answer["timestamp_ms"], "key": "key",
                                             "value": value, "headers": [{"key": "new", "value": "yes"}]})
        return topics


if __name__ == "__main__":
    unittest.main()
