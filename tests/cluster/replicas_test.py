#!/usr/bin/env python3
"""The offline check of replicas: every planted difference is found, and what may differ is let pass."""

import copy
import json
import unittest

import replicas

TOPIC, GROUP0 = "11111111-2222-3333-4444-555555555555/0", replicas.CONTROLLER + "0"


def batch(base, last, epoch=1, **more):
    return {"kind": "batch", "base_offset": base, "last_offset": last, "position": 100 * base, "bytes": 80, "leader_epoch": epoch,
            "records": last - base + 1, "codec": "none", "max_timestamp_ms": 5, "crc32c": f"0x{base:08x}", **more}


def control(base, epoch):
    return batch(base, base, epoch, control=f"leader is node {epoch}")


def record(offset, **more):
    return {"kind": "record", "offset": offset, "timestamp_ms": 5, "key": None, "value": f"v{offset}", "headers": [], **more}


def whole(replica=TOPIC):
    """A log of four batches, 0 to 6."""
    return [{"kind": "replica", "replica": replica}, {"kind": "segment", "file": "x"}, control(0, 1), batch(1, 3), record(1), record(2),
            record(3), control(4, 2), batch(5, 6, 2), record(5), record(6)]


def parse(entries):
    """As a dump, whose logs end where their last batches do unless they say otherwise."""
    entries, end = copy.deepcopy(entries), 0
    for entry in reversed(entries):
        if entry["kind"] == "batch":
            end = max(end, entry["last_offset"] + 1)
        elif entry["kind"] == "replica":
            entry.setdefault("log_end", end)
            end = 0
    return replicas.parse("\n".join(json.dumps(entry) for entry in entries))


class Replicas(unittest.TestCase):
    def assert_broken(self, words, entries):
        with self.assertRaisesRegex(replicas.Broken, words):
            parse(entries)

    def assert_differ(self, words, other, high_watermark=7, replica=TOPIC):
        committed = {} if high_watermark is None else {replica: high_watermark}
        one = parse(whole(replica))
        for nodes in {1: one, 2: parse(other)}, {1: parse(other), 2: one}:
            with self.assertRaisesRegex(replicas.Broken, words):
                replicas.compare(nodes, committed)

    def changed(self, at, replica=TOPIC, **fields):
        entries = copy.deepcopy(whole(replica))
        entries[at].update(fields)
        return entries

    def test_a_whole_log_is_read_and_is_the_same_as_itself(self):
        logs = parse(whole() + whole(GROUP0))
        self.assertEqual([1, 2, 3, 5, 6], sorted(logs[TOPIC].records))
        self.assertEqual("v2", logs[TOPIC].records[2]["value"])
        self.assertEqual({TOPIC}, set(replicas.of_topics(logs)))
        self.assertEqual({TOPIC: 12, GROUP0: 12}, replicas.compare({1: logs, 2: logs, 3: logs}, {TOPIC: 7}))

    def test_a_log_that_is_none_is_found(self):
        entries = whole()
        self.assert_broken("two records have the offset 2", entries[:6] + [record(2, value="another")] + entries[6:])
        self.assert_broken("offset 9 in a batch from 1 to 3", entries[:6] + [record(9)] + entries[6:])
        self.assert_broken("says that it has 3 records; 2 were dumped", entries[:6] + entries[7:])
        self.assert_broken("says that it has 1 records; 0 were dumped", [entries[0], batch(0, 0)])
        self.assert_broken("begins at offset 4, the one before ends at 0", entries[:3] + entries[7:])
        self.assert_broken("begins at offset 1, the one before ends at 3", entries[:7] + entries[3:])
        self.assert_broken("goes back from 1 to 0", entries[:7] + [control(4, 0)])
        self.assert_broken("there twice", entries + entries)
        self.assert_broken("it ends at offset 9, its last batch at 6", [{**entries[0], "log_end": 9}, *entries[1:]])

    def test_each_field_of_a_committed_batch_must_be_the_same(self):
        self.assert_differ("offset 1: .*crc32c", self.changed(3, crc32c="0x00000bad"))
        self.assert_differ("offset 1: .*max_timestamp_ms", self.changed(3, max_timestamp_ms=6))
        self.assert_differ("offset 4: .*leader is node 3", self.changed(7, control="leader is node 3"))
        self.assert_differ("offset 5", self.changed(8, leader_epoch=3))
        entries = whole()
        self.assert_differ("offset 1", entries[:3] + [batch(1, 2), *entries[4:6], batch(3, 3), *entries[6:]])
        self.assert_differ("offset 4", entries[:7] + [batch(4, 4, 2), record(4), *entries[8:]])

    def test_a_replica_must_hold_all_that_is_committed(self):
        self.assert_differ("node . ends at offset 5, 7 is the high watermark", whole()[:8])
        self.assert_differ("node . ends at offset 0, 7 is the high watermark", whole()[:1])
        parsed = {1: parse(whole()), 2: parse(whole()[:8])}
        self.assertEqual({TOPIC: 3}, replicas.compare(parsed, {TOPIC: 5}))

    def test_what_stands_before_a_common_batch_must_be_the_same_where_no_high_watermark_is_known(self):
        self.assert_differ("offset 1: .*crc32c", self.changed(3, GROUP0, crc32c="0x00000bad"), None, GROUP0)
        self.assert_differ("offset 4", self.changed(7, GROUP0, leader_epoch=1), None, GROUP0)

    def test_what_was_never_committed_may_differ(self):
        other = parse(whole()[:7] + [control(4, 3), batch(5, 5, 3), record(5)])
        self.assertEqual({TOPIC: 2}, replicas.compare({1: parse(whole()), 2: other}, {TOPIC: 4}))
        self.assertEqual({TOPIC: 2}, replicas.compare({1: parse(whole()), 2: other}, {}))

    def test_what_one_replica_no_longer_holds_and_where_batches_stand_is_its_own_matter(self):
        entries = whole()
        later = parse(entries[:1] + [{**entry, "position": 0} if entry["kind"] == "batch" else entry for entry in entries[7:]])
        self.assertEqual({TOPIC: 2}, replicas.compare({1: parse(entries), 2: later}, {TOPIC: 7}))
        self.assertEqual({TOPIC: 0}, replicas.compare({1: parse(entries[:8]), 2: parse(entries[:1] + entries[8:])}, {TOPIC: 5}))


if __name__ == "__main__":
    unittest.main()
