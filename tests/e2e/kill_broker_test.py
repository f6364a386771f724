#!/usr/bin/env python3
"""kill -9 of the broker while the command line produces: every acknowledged record is there once, at the offset that was
acknowledged, in order; an unacknowledged one is there at most once."""

import collections
import json
import subprocess
import tempfile
import threading
import time
import unittest

import harness

ROUNDS = 100 if harness.LONG else 10


class Producer:
    """`sluice produce` that is fed unique values until told to stop; what it acknowledged can be read afterwards."""

    def __init__(self, broker, topic, prefix):
        self.process = subprocess.Popen(
            [harness.program("sluice"), "--brokers", broker.address, "--timeout", "10s", "--output", "json", "produce", topic],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.prefix = prefix
        self.sent = []
        self.stopping = threading.Event()
        self.output = []
        self.threads = [threading.Thread(target=self.feed), threading.Thread(target=self.drain)]
        for thread in self.threads:
            thread.start()

    def feed(self):
        try:
            while not self.stopping.is_set():
                for _ in range(20):
                    value = f"{self.prefix}-{len(self.sent):06}"
                    self.sent.append(value)
                    self.process.stdin.write(value + "\n")
                self.process.stdin.flush()
                time.sleep(0.002)
            self.process.stdin.close()
        except (BrokenPipeError, ValueError):
            pass

    def drain(self):
        for line in self.process.stdout:
            self.output.append(line)

    def finish(self):
        """Stops feeding and waits for its end; [(value, offset)] of what it acknowledged."""
        self.stopping.set()
        stderr = self.process.stderr.read()
        self.process.wait(timeout=60)
        for thread in self.threads:
            thread.join()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.stdout.close()
        self.process.stderr.close()
        acknowledged = []
        for value, line in zip(self.sent, self.output):
            answer = json.loads(line)
            if "offset" in answer and answer["offset"] is not None and not answer.get("error"):
                acknowledged.append((value, answer["offset"]))
        return acknowledged, stderr


class KillTheBroker(unittest.TestCase):
    def test_every_acknowledged_record_is_there_once_in_order(self):
        choose = harness.seeded()
        with tempfile.TemporaryDirectory(prefix="sluice-e2e-") as folder:
            broker = harness.Broker(folder).start()
            try:
                broker.sluice("topic", "create", "kills")
                acknowledged, sent = [], []
                for number in range(ROUNDS):
                    producer = Producer(broker, "kills", f"round-{number:03}")
                    time.sleep(choose.uniform(0.05, 0.7))
                    broker.kill()
                    producer.stopping.set()
                    if choose.random() < 0.5:
                        time.sleep(choose.uniform(0, 0.1))
                    broker.start()
                    answers, _ = producer.finish()
                    acknowledged += answers
                    sent += producer.sent
                self.check(broker.consume("kills"), acknowledged, sent)
                broker.stop()
                broker.start()
                self.check(broker.consume("kills"), acknowledged, sent)
                print(f"{ROUNDS} kills, {len(sent)} records sent, {len(acknowledged)} acknowledged")
            finally:
                broker.kill()

    def check(self, records, acknowledged, sent):
        self.assertGreater(len(acknowledged), 0, "nothing was acknowledged: this test has lost its subject")
        by_offset = {record["offset"]: record["value"] for record in records}
        self.assertEqual(len(records), len(by_offset), "an offset is there twice")
        for value, offset in acknowledged:
            self.assertEqual(value, by_offset.get(offset), f"acknowledged at offset {offset}")
        times = collections.Counter(record["value"] for record in records)
        self.assertEqual([], [value for value, count in times.items() if count > 1], "records that are there twice")
        self.assertEqual(set(), set(times) - set(sent), "records that nobody sent")
        place = {value: at for at, value in enumerate(sent)}
        order = [place[record["value"]] for record in records]
        self.assertEqual(sorted(order), order, "records stand in another order than they were sent in")


if __name__ == "__main__":
    unittest.main()
