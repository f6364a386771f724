#!/usr/bin/env python3
"""rounds_test.py [--rounds N] [--progress FILE]: rounds of trouble on clusters of three and five real nodes while producers and
consumers run: `troubles.py`. A round is over within 30 s, and then the cluster is whole again. At the end every acknowledged
record is there once, at the offset that was acknowledged, in the order of its producer; none that was refused is there; nobody was
shown anything else; and all replicas hold the same, batch by batch.

Rounds come in steps of ten, seven with three nodes and three with five; each step begins with new clusters. With --progress, a
run goes on behind the steps that FILE has for the same programs, unless it has them all. In a run of 100 rounds or more, every
kind of trouble must strike."""

import argparse
import collections
import hashlib
import json
import os
import random
import sys
import tempfile
import time
import unittest

import cluster
import harness
import replicas
import troubles

PHASES = [(3, 7), (5, 3)]  # nodes, rounds
STEP = sum(rounds for _, rounds in PHASES)
ROUND_SECONDS = 30  # with its trouble, until all is whole again
ALL_KINDS_STRIKE_FROM = 100
RECORD_FIELDS = ("offset", "timestamp_ms", "key", "value", "headers")
PARTITIONS = 2
PRODUCERS = 2  # of each partition
PRODUCER_PAUSE = 0.01  # after each 20 records: enough of them, and few enough to be checked in little time
STORAGE = "storage: { journal_bytes: 64MiB, disk_low_watermark: 16MiB, disk_high_watermark: 24MiB }\n"


class Writer:
    """One producer after the other for one partition: one that ends with an error is followed by the next."""

    def __init__(self, brokers, topic, partition, name):
        self.brokers, self.topic, self.partition, self.name = brokers, topic, partition, name
        self.generation = 0
        self.acknowledged, self.sent = [], []
        self.refused, self.errors = {}, collections.Counter()
        self.producer = None
        self.begin()

    def begin(self):
        self.producer = harness.Producer(self.brokers, self.topic, f"{self.name}-{self.generation:03}",
                                         "--partition", str(self.partition), pause=PRODUCER_PAUSE)
        self.generation += 1

    def end(self):
        answers, _ = self.producer.finish()
        self.acknowledged += answers
        self.sent.append(self.producer.sent)
        self.refused.update(self.producer.refused)
        self.errors.update(self.producer.refused.values())
        self.errors[harness.OUTCOME_UNKNOWN] += len(self.producer.unknown)

    def renew_if_ended(self):
        if self.producer.process.poll() is not None:
            self.end()
            self.begin()


class Deck:
    """Kinds of trouble in a drawn order, each once before any comes again."""

    def __init__(self, choose):
        self.choose, self.kinds = choose, []

    def draw(self, wanted):
        if not any(wanted(kind) for kind in self.kinds):
            more = troubles.Troubles.kinds()
            self.choose.shuffle(more)
            self.kinds = more + self.kinds
        at = max(index for index, kind in enumerate(self.kinds) if wanted(kind))
        return self.kinds.pop(at)

    def round(self, nodes):
        """What happens at the same time: a minority of five nodes are two."""
        first = self.draw(lambda kind: True)
        if nodes == 3 or first in troubles.Troubles.of_all_nodes():
            return [first]
        return [first, self.draw(lambda kind: kind not in troubles.Troubles.of_all_nodes())]


class Phase(unittest.TestCase):
    """Some rounds on one cluster, and the check of what is there in the end."""

    maxDiff = 2000

    def __init__(self, count, rounds, choose, deck):
        super().__init__("runTest")
        self.count, self.rounds, self.choose, self.deck = count, rounds, choose, deck
        self.hits, self.acknowledged, self.longest = collections.Counter(), 0, 0.0

    def runTest(self):
        with (tempfile.TemporaryDirectory(prefix="sluice-cluster-") as folder,
              cluster.Cluster(folder, self.count, STORAGE, with_faults=True) as nodes):
            nodes.sluice("topic", "create", "rounds", "--partitions", str(PARTITIONS), "--replicas", str(self.count))
            self.run_rounds(nodes)

    def run_rounds(self, nodes):
        writers = [Writer(nodes.brokers, "rounds", partition, f"p{partition}w{number}")
                   for partition in range(PARTITIONS) for number in range(PRODUCERS)]
        followers = [cluster.Follower(nodes, "rounds", partition) for partition in range(PARTITIONS)]
        trouble = troubles.Troubles(nodes, "rounds", self.choose)
        try:
            for number in range(self.rounds):
                started = time.monotonic()
                time.sleep(self.choose.uniform(0.1, 0.5))
                trouble.happen(self.deck.round(self.count), self.choose.uniform(0.2, 4))
                nodes.wait_healthy(started + ROUND_SECONDS - time.monotonic())
                took = time.monotonic() - started
                self.longest = max(self.longest, took)
                print(f"round {number + 1} of {self.rounds} with {self.count} nodes: {took:.1f} s", flush=True)
                self.assertLessEqual(took, ROUND_SECONDS, "a round took too long")
                for writer in writers:
                    writer.renew_if_ended()
            for writer in writers:
                writer.end()
            nodes.wait_healthy()
            final = {partition: nodes.consume("rounds", partition) for partition in range(PARTITIONS)}
            described = nodes.json("topic", "describe", "rounds")
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
        dumps = {node.number: node.dump() for node in nodes.nodes}
        for partition in range(PARTITIONS):
            self.check(partition, final[partition], [w for w in writers if w.partition == partition], shown[partition])
        self.check_replicas(dumps, final, described)
        self.hits = trouble.hits
        self.acknowledged = sum(len(writer.acknowledged) for writer in writers)
        errors = sum((writer.errors for writer in writers), collections.Counter())
        print(f"{self.rounds} rounds with {self.count} nodes: {self.acknowledged} records acknowledged, errors: {dict(errors)}, "
              f"consumers begun again: {sum(f.restarts for f in followers)}", flush=True)

    def check(self, partition, records, writers, shown):
        by_offset = {record["offset"]: record["value"] for record in records}
        self.assertEqual(len(records), len(by_offset), "an offset is there twice")
        times = collections.Counter(by_offset.values())
        self.assertEqual([], [value for value, count in times.items() if count > 1], "records that are there twice")
        at = {value: offset for offset, value in by_offset.items()}
        refused = {value: reason for writer in writers for value, reason in writer.refused.items()}
        self.assertEqual({}, {value: refused[value] for value in at if value in refused}, f"partition {partition}: refused, and there")
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

    def check_replicas(self, dumps, final, described):
        for number, logs in dumps.items():
            held = replicas.of_topics(logs)
            self.assertEqual(PARTITIONS, len(held), f"node {number} holds {sorted(held)}")
            for replica, log in held.items():
                partition = int(replica.rsplit("/", 1)[1])
                expected = {record["offset"]: {field: record[field] for field in RECORD_FIELDS} for record in final[partition]}
                self.assertEqual(expected, log.records, f"node {number}, partition {partition}")
        committed = {f"{described['id']}/{each['partition']}": each["high_watermark"] for each in described["partition_list"]}
        same = replicas.compare(dumps, committed)
        self.assertLessEqual(set(committed), set(same), "the dumps have no replica of a partition")
        self.assertEqual([], [replica for replica, count in same.items() if count == 0], "no two nodes had a batch in common")
        print(f"batches that are the same on two nodes: {same}", flush=True)


class Progress:
    """What a run has behind it, in a file if there is one: it counts for the same programs and seed only."""

    def __init__(self, path, seed, wanted):
        self.path = path
        programs = hashlib.sha256()
        for name in "sluiced", "sluice":
            with open(harness.program(name), "rb") as file:
                programs.update(file.read())
        self.state = {"programs": programs.hexdigest(), "seed": seed, "rounds": 0, "acknowledged": 0, "longest": 0.0, "hits": {}}
        if path and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                saved = json.load(file)
            if (saved["programs"] == self.state["programs"] and saved["rounds"] < wanted
                    and not os.environ.get("SLUICE_SEED")):
                self.state = saved

    def add(self, phases):
        self.state["rounds"] += sum(phase.rounds for phase in phases)
        self.state["acknowledged"] += sum(phase.acknowledged for phase in phases)
        self.state["longest"] = max(self.state["longest"], *(phase.longest for phase in phases))
        self.state["hits"] = dict(sum((phase.hits for phase in phases), collections.Counter(self.state["hits"])))
        if self.path:
            with open(self.path + ".new", "w", encoding="utf-8") as file:
                json.dump(self.state, file, indent=1)
            os.replace(self.path + ".new", self.path)

    def show(self):
        hits = ", ".join(f"{kind} {self.state['hits'].get(kind, 0)}" for kind in troubles.Troubles.kinds())
        print(f"{self.state['rounds']} rounds, seed {self.state['seed']}: {self.state['acknowledged']} records acknowledged, the "
              f"longest round took {self.state['longest']:.1f} s; hits: {hits}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=STEP)
    parser.add_argument("--progress")
    arguments = parser.parse_args()
    cluster.enter_network()
    seed = int(os.environ.get("SLUICE_SEED") or random.SystemRandom().randrange(1 << 32))
    progress = Progress(arguments.progress, seed, arguments.rounds)
    while (done := progress.state["rounds"]) < arguments.rounds:
        print(f"rounds from {done + 1}, SLUICE_SEED={progress.state['seed']}", flush=True)
        choose = random.Random(progress.state["seed"] * 1_000_003 + done)
        deck = Deck(choose)
        phases = [Phase(nodes, rounds, choose, deck) for nodes, rounds in PHASES]
        if not unittest.TextTestRunner(failfast=True).run(unittest.TestSuite(phases)).wasSuccessful():
            return 1
        progress.add(phases)
    progress.show()
    missed = set(troubles.Troubles.kinds()) - set(progress.state["hits"])
    if arguments.rounds >= ALL_KINDS_STRIKE_FROM and missed:
        print(f"never struck: {sorted(missed)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
