#!/usr/bin/env python3
"""kill -9 of the broker while the command line produces: every acknowledged record is there once, at the offset that was
acknowledged, in order; one that was refused is not there; one whose outcome is unknown is there at most once."""

import collections
import tempfile
import time
import unittest

import harness

ROUNDS = 100 if harness.LONG else 10


class KillTheBroker(unittest.TestCase):
    def test_every_acknowledged_record_is_there_once_in_order(self):
        choose = harness.seeded()
        with tempfile.TemporaryDirectory(prefix="sluice-e2e-") as folder:
            broker = harness.Broker(folder).start()
            try:
                broker.sluice("topic", "create", "kills")
                acknowledged, sent, refused, unknown = [], [], {}, 0
                for number in range(ROUNDS):
                    producer = harness.Producer(broker.address, "kills", f"round-{number:03}")
                    time.sleep(choose.uniform(0.05, 0.7))
                    broker.kill()
                    producer.stopping.set()
                    if choose.random() < 0.5:
                        time.sleep(choose.uniform(0, 0.1))
                    broker.start()
                    answers, _ = producer.finish()
                    acknowledged += answers
                    sent += producer.sent
                    refused.update(producer.refused)
                    unknown += len(producer.unknown)
                self.assertEqual(len(sent), len(acknowledged) + len(refused) + unknown)
                self.check(broker.consume("kills"), acknowledged, sent, refused)
                broker.stop()
                broker.start()
                self.check(broker.consume("kills"), acknowledged, sent, refused)
                print(f"{ROUNDS} kills, {len(sent)} records sent, {len(acknowledged)} acknowledged, outcome unknown of {unknown}; "
                      f"refused: {dict(collections.Counter(refused.values()))}")
            finally:
                broker.kill()

    def check(self, records, acknowledged, sent, refused):
        self.assertGreater(len(acknowledged), 0, "nothing was acknowledged: this test has lost its subject")
        by_offset = {record["offset"]: record["value"] for record in records}
        self.assertEqual(len(records), len(by_offset), "an offset is there twice")
        for value, offset in acknowledged:
            self.assertEqual(value, by_offset.get(offset), f"acknowledged at offset {offset}")
        times = collections.Counter(record["value"] for record in records)
        self.assertEqual([], [value for value, count in times.items() if count > 1], "records that are there twice")
        self.assertEqual(set(), set(times) - set(sent), "records that nobody sent")
        self.assertEqual({}, {value: refused[value] for value in times if value in refused}, "records that were refused are there")
        place = {value: at for at, value in enumerate(sent)}
        order = [place[record["value"]] for record in records]
        self.assertEqual(sorted(order), order, "records stand in another order than they were sent in")


if __name__ == "__main__":
    unittest.main()
