#!/usr/bin/env python3
"""Rounds of trouble on a cluster of three real nodes while producers and consumers run: one node is killed, paused, stopped,
or cut off, also in one direction. After each round the cluster must be whole again within seconds. At the end every
acknowledged record is there once, at the offset that was acknowledged, in the order of its producer; nobody was shown anything
else; and all replicas hold the same."""

import collections
import json
import tempfile
import time
import unittest

import cluster
import harness

ROUNDS = 200 if harness.LONG else 10
NODES = 3
PARTITIONS = 2
PRODUCERS = 2  # of each partition


class Writer:
    """One producer after the other for one partition: one that ends with an error is followed by the next."""

    def __init__(self, brokers, topic, partition, name):
        self.brokers, self.topic, self.partition, self.name = brokers, topic, partition, name
        self.generation = 0
        self.acknowledged, self.sent, self.errors = [], [], collections.Counter()
        self.producer = None
        self.begin()

    def begin(self):
        self.producer = harness.Producer(self.brokers, self.topic, f"{self.name}-{self.generation:03}",
                                         "--partition", str(self.partition))
        self.generation += 1

    def end(self):
        answers, _ = self.producer.finish()
        self.acknowledged += answers
        self.sent.append(self.producer.sent)
        for line in self.producer.output:
            error = json.loads(line).get("error")
            if error:
                self.errors[error["reason"]] += 1

    def renew_if_ended(self):
        if self.producer.process.poll() is not None:
            self.end()
            self.begin()


class Trouble:
    """What may happen to a cluster, each a pair of doing and undoing."""

    def __init__(self, nodes, choose):
        self.cluster, self.choose = nodes, choose

    def kinds(self):
        kinds = ["kill the leader", "kill one", "pause the leader", "pause one", "stop the leader", "kill the controller"]
        if cluster.has_namespaces():
            kinds += ["cut off the leader", "deafen the leader", "mute the leader", "cut two apart"]
        return kinds

    def leader(self):
        number = self.cluster.leader("rounds", self.choose.randrange(PARTITIONS))
        return number or self.choose.randint(1, NODES)

    def happen(self, kind):
        one = self.leader() if "leader" in kind else self.choose.randint(1, NODES)
        if "controller" in kind:
            one = self.cluster.json("cluster", "status")["controller_node"] or one
        node = self.cluster.node(one)
        others = [number for number in range(1, NODES + 1) if number != one]
        seconds = self.choose.uniform(0.2, 4)
        print(f"  {kind}: node {one}, {seconds:.1f} s", flush=True)
        if kind.startswith("kill"):
            node.kill()
            time.sleep(seconds)
            node.start()
        elif kind.startswith("pause"):
            node.pause()
            time.sleep(seconds)
            node.resume()
        elif kind.startswith("stop"):
            node.stop()
            time.sleep(seconds)
            node.start()
        else:
            if kind == "cut two apart":
                others = others[:1]
            for other in others:
                if kind != "deafen the leader":
                    self.cluster.network.cut(one, other)
                if kind != "mute the leader":
                    self.cluster.network.cut(other, one)
            time.sleep(seconds)
            self.cluster.network.heal()


class Rounds(unittest.TestCase):
    maxDiff = 2000

    def test_nothing_acknowledged_is_lost_doubled_or_reordered(self):
        choose = harness.seeded()
        with tempfile.TemporaryDirectory(prefix="sluice-cluster-") as folder, cluster.Cluster(folder, NODES) as nodes:
            nodes.sluice("topic", "create", "rounds", "--partitions", str(PARTITIONS), "--replicas", str(NODES))
            writers = [Writer(nodes.brokers, "rounds", partition, f"p{partition}w{number}")
                       for partition in range(PARTITIONS) for number in range(PRODUCERS)]
            followers = [cluster.Follower(nodes, "rounds", partition) for partition in range(PARTITIONS)]
            trouble = Trouble(nodes, choose)
            kinds = []
            try:
                for number in range(ROUNDS):
                    if not kinds:
                        kinds = trouble.kinds()
                        choose.shuffle(kinds)
                    started = time.monotonic()
                    time.sleep(choose.uniform(0.1, 0.5))
                    trouble.happen(kinds.pop())
                    nodes.wait_healthy()
                    for writer in writers:
                        writer.renew_if_ended()
                    print(f"round {number + 1}: {time.monotonic() - started:.1f} s", flush=True)
                for writer in writers:
                    writer.end()
                nodes.wait_healthy()
                final = {partition: nodes.consume("rounds", partition) for partition in range(PARTITIONS)}
                deadline = time.monotonic() + 10
                while time.monotonic() < deadline and any(
                        final[f.partition] and f.next <= final[f.partition][-1]["offset"] for f in followers):
                    time.sleep(0.1)
            except BaseException:
                for node in nodes.nodes:
                    print(node.process.tail(60), flush=True)
                raise
            finally:
                for writer in writers:
                    writer.producer.stopping.set()
                    if writer.producer.process.poll() is None:
                        writer.producer.process.kill()
                shown = {follower.partition: follower.stop() for follower in followers}
            for node in reversed(nodes.nodes):
                node.stop()
            dumps = [node.dump() for node in nodes.nodes]
            for partition in range(PARTITIONS):
                self.check(partition, final[partition], [w for w in writers if w.partition == partition], shown[partition])
            self.check_replicas(dumps, final)
            acknowledged = sum(len(writer.acknowledged) for writer in writers)
            errors = sum((writer.errors for writer in writers), collections.Counter())
            print(f"{ROUNDS} rounds, {acknowledged} records acknowledged, errors: {dict(errors)}, "
                  f"consumers begun again: {sum(f.restarts for f in followers)}")

    def check(self, partition, records, writers, shown):
        by_offset = {record["offset"]: record["value"] for record in records}
        self.assertEqual(len(records), len(by_offset), "an offset is there twice")
        times = collections.Counter(by_offset.values())
        self.assertEqual([], [value for value, count in times.items() if count > 1], "records that are there twice")
        at = {value: offset for offset, value in by_offset.items()}
        sent = set()
        for writer in writers:
            self.assertGreater(len(writer.acknowledged), 0, "nothing was acknowledged: this test has lost its subject")
            for value, offset in writer.acknowledged:
                self.assertEqual(value, by_offset.get(offset), f"partition {partition}: acknowledged at offset {offset}")
            for values in writer.sent:
                sent.update(values)
                there = [at[value] for value in values if value in at]
                self.assertEqual(sorted(there), there, f"partition {partition}: {writer.name}'s records are out of order")
        self.assertEqual(set(), set(at) - sent, "records that nobody sent")
        for offset, value in shown:
            self.assertEqual(value, by_offset.get(offset), f"partition {partition}: a consumer was shown this at {offset}")
        offsets = [offset for offset, _ in shown]
        self.assertEqual(sorted(set(offsets)), offsets, "a consumer was led back")
        self.assertEqual(sorted(by_offset), offsets, "a consumer was not shown everything")

    def check_replicas(self, dumps, final):
        for number, dump in enumerate(dumps, 1):
            self.assertEqual(PARTITIONS, len(dump), f"node {number} holds {sorted(dump)}")
            for replica, records in dump.items():
                partition = int(replica.rsplit("/", 1)[1])
                expected = {record["offset"]: record["value"] for record in final[partition]}
                self.assertEqual(expected, records, f"node {number}, partition {partition}")


if __name__ == "__main__":
    cluster.enter_network()
    unittest.main()
