"""What the logs of stopped nodes hold, as `sluice --output json log dump --records` tells it, and whether it is the same in all of
them. `Broken` names replica, offset and nodes."""

import itertools
import json

CONTROLLER = "00000000-0000-0000-0000-000000000000/"
# Where in its segment a batch stands is a replica's own matter: segments begin where a replica began to hold the log.
OWN_MATTERS = ("kind", "position")


class Broken(Exception):
    """A log is not one, or not what another replica holds."""


class Log:
    """One replica's: its batches as dumped, in order, and its records by offset."""

    def __init__(self, replica, end):
        self.replica, self.end = replica, end
        self.batches, self.records = [], {}

    def add_batch(self, batch):
        if self.batches:
            last = self.batches[-1]
            if batch["base_offset"] != last["last_offset"] + 1:
                raise Broken(f"{self.replica}: a batch begins at offset {batch['base_offset']}, the one before ends at {last['last_offset']}")
            if batch["leader_epoch"] < last["leader_epoch"]:
                raise Broken(f"{self.replica}: at offset {batch['base_offset']} the leader epoch goes back from {last['leader_epoch']} to "
                             f"{batch['leader_epoch']}")
        self.batches.append({field: value for field, value in batch.items() if field not in OWN_MATTERS})

    def add_record(self, record):
        offset, batch = record["offset"], self.batches[-1]
        if not batch["base_offset"] <= offset <= batch["last_offset"]:
            raise Broken(f"{self.replica}: a record with offset {offset} in a batch from {batch['base_offset']} to {batch['last_offset']}")
        if offset in self.records:
            raise Broken(f"{self.replica}: two records have the offset {offset}")
        self.records[offset] = {field: value for field, value in record.items() if field != "kind"}

    def check(self):
        """The log ends where it says; each offset of a data batch has its record, and of a control batch none is dumped."""
        if self.batches and self.batches[-1]["last_offset"] + 1 != self.end:
            raise Broken(f"{self.replica}: it ends at offset {self.end}, its last batch at {self.batches[-1]['last_offset']}")
        for batch in self.batches:
            there = sum(offset in self.records for offset in range(batch["base_offset"], batch["last_offset"] + 1))
            if there != (0 if "control" in batch else batch["records"]):
                raise Broken(f"{self.replica}: the batch at offset {batch['base_offset']} says that it has {batch['records']} records; "
                             f"{there} were dumped")


def parse(dump):
    """{replica: Log} of one node."""
    logs, log = {}, None
    for line in dump.splitlines():
        entry = json.loads(line)
        if entry["kind"] == "replica":
            if entry["replica"] in logs:
                raise Broken(f"{entry['replica']}: it is there twice")
            log = logs[entry["replica"]] = Log(entry["replica"], entry["log_end"])
        elif entry["kind"] == "batch":
            log.add_batch(entry)
        elif entry["kind"] == "record":
            log.add_record(entry)
    for log in logs.values():
        log.check()
    return logs


def of_topics(logs):
    """Without the controller's log, group 0."""
    return {replica: log for replica, log in logs.items() if not replica.startswith(CONTROLLER)}


def compare(nodes, committed):
    """`nodes`: {number of the node: its {replica: Log}}; `committed`: {replica: high watermark}, of any replicas. All that is below
    a high watermark must be in every replica, but for what one no longer holds. Where two logs have a batch of the same offset and
    epoch, everything before it must be the same too, also of replicas without a known high watermark: what stands behind the
    last such batch was never committed. How many batches were found to be the same, by replica."""
    same = {}
    for replica in sorted({replica for logs in nodes.values() for replica in logs}):
        holders = [(number, logs[replica]) for number, logs in sorted(nodes.items()) if replica in logs]
        same[replica] = sum(compare_two(replica, one, other, committed.get(replica)) for one, other in itertools.combinations(holders, 2))
    return same


def compare_two(replica, one, other, high_watermark):
    """Each is (node, Log)."""
    (first, _), (second, _) = one, other
    bases = [log.batches[0]["base_offset"] for _, log in (one, other) if log.batches]
    begin = max(bases, default=0)
    mine, others = ({batch["base_offset"]: batch for batch in log.batches if batch["last_offset"] >= begin} for _, log in (one, other))
    met = [base for base in mine if base in others and mine[base]["leader_epoch"] == others[base]["leader_epoch"]]
    end = max(met, default=begin - 1) + 1
    if high_watermark is not None:
        for number, log in (one, other):
            if log.end < high_watermark:
                raise Broken(f"{replica}: node {number} ends at offset {log.end}, {high_watermark} is the high watermark")
        end = max(end, high_watermark)
    count = 0
    for base in sorted(set(mine) | set(others)):
        if base >= end:
            break
        if mine.get(base) != others.get(base):
            raise Broken(f"{replica}, offset {base}: node {first} has {mine.get(base)}, node {second} has {others.get(base)}")
        count += 1
    return count
