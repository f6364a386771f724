#!/usr/bin/env python3
"""A broker that starts with another `node.shards` than before: everything is there, all partitions can be written and read, and as
many shard threads run as were asked for."""

import glob
import json
import tempfile
import unittest

import harness

PARTITIONS = 5
RECORDS = 20  # into each partition of each topic in each life
LIVES = [(1, "stop"), (3, "kill"), (2, "stop"), (1, "stop")]  # shards, and how the life ends


def shard_threads(pid):
    names = set()
    for path in glob.glob(f"/proc/{pid}/task/*/comm"):
        with open(path, encoding="utf-8") as file:
            names.add(file.read().strip())
    return {name for name in names if name.startswith("shard-")}


class OtherShards(unittest.TestCase):
    maxDiff = 2000

    def test_all_is_there_after_a_start_with_another_number_of_shards(self):
        with tempfile.TemporaryDirectory(prefix="sluice-e2e-") as folder:
            broker = harness.Broker(folder)
            self.expected = {}  # topic: the values of each partition
            try:
                for life, (shards, end) in enumerate(LIVES):
                    broker.arguments = ["--set", f"node.shards={shards}"]
                    broker.start()
                    self.assertEqual({f"shard-{i}" for i in range(shards)}, shard_threads(broker.process.process.pid))
                    self.check(broker)
                    topic = f"made-in-life-{life}"
                    broker.sluice("topic", "create", topic, "--partitions", str(PARTITIONS))
                    self.expected[topic] = {partition: [] for partition in range(PARTITIONS)}
                    self.produce(broker, min(self.expected), life)
                    if life > 0:
                        self.produce(broker, topic, life)
                    self.check(broker)
                    getattr(broker, end)()
            finally:
                broker.kill()

    def produce(self, broker, topic, life):
        for partition, values in self.expected[topic].items():
            more = [f"{topic}/{partition} {number} of life {life}" for number in range(RECORDS)]
            broker.sluice("produce", topic, "--partition", str(partition), input="\n".join(more) + "\n")
            values += more

    def check(self, broker):
        for topic, expected in self.expected.items():
            found = {partition: [] for partition in range(PARTITIONS)}
            for record in map(json.loads, broker.sluice("--output", "json", "consume", topic, "--from", "earliest").stdout.splitlines()):
                found[record["partition"]].append(record["value"])
            self.assertEqual(expected, found, topic)


if __name__ == "__main__":
    unittest.main()
