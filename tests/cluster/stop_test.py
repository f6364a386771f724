#!/usr/bin/env python3
"""stop_test.py [--rounds N]: nodes that are asked to stop hand over what they lead, one after the other, while producers write to
many partitions. No record fails, none has an unknown outcome, each is there once."""

import argparse
import collections
import json
import sys
import tempfile
import time
import unittest

import cluster
import harness

NODES = 3
PARTITIONS = 12
PRODUCERS = 4
ROUNDS = 2  # in each, every node is stopped once


class Stop(unittest.TestCase):
    def test_a_node_that_is_asked_to_stop_fails_no_record(self):
        with tempfile.TemporaryDirectory(prefix="sluice-cluster-") as folder, cluster.Cluster(folder, NODES) as nodes:
            nodes.sluice("topic", "create", "t", "--partitions", str(PARTITIONS), "--replicas", str(NODES))
            producers = [harness.Producer(nodes.brokers, "t", f"w{number}", pause=0.02) for number in range(PRODUCERS)]
            try:
                for number in range(ROUNDS):
                    for node in nodes.nodes:
                        time.sleep(0.5)
                        started = time.monotonic()
                        node.stop()
                        print(f"round {number + 1}: node {node.number} stopped in {time.monotonic() - started:.2f} s", flush=True)
                        node.start().wait_ready()
                        nodes.wait_healthy()
            finally:
                done = [producer.finish() for producer in producers]
            errors = collections.Counter()
            for producer in producers:
                errors.update(str(answer["error"]) for answer in map(json.loads, producer.output) if answer.get("error"))
            self.assertEqual({}, dict(errors), "\n".join(told for _, told in done))
            for producer in producers:
                self.assertEqual(0, producer.process.returncode)
                self.assertEqual(len(producer.sent), len(producer.output))
            there = collections.Counter(record["value"] for partition in range(PARTITIONS) for record in nodes.consume("t", partition))
            sent = collections.Counter(value for producer in producers for value in producer.sent)
            self.assertEqual(0, len((sent - there) | (there - sent)), f"{list(sent - there)[:5]} {list(there - sent)[:5]}")
            print(f"{sum(sent.values())} records, none failed", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    cluster.enter_network()
    ROUNDS = parser.parse_args().rounds
    unittest.main(argv=sys.argv[:1])
