"""The frames and records of a journal file and its mark, as docs/formats.md has them; checksums are not looked at."""

import dataclasses
import os
import struct

BLOCK = 4096
HARD_STATE, REPLICA_SNAPSHOT = 6, 33
REPLICA_BYTES, INCARNATION_BYTES = 20, 16


@dataclasses.dataclass
class Record:
    kind: int
    fields: bytes
    at: int  # where in the file its fields begin

    def replica(self):
        """UUID and partition."""
        return self.fields[:16], struct.unpack_from("<i", self.fields, 16)[0]

    def hard_state_at(self):
        """Where in the file its term (4 bytes), the node voted for (4) and that one's incarnation (16) stand."""
        return self.at + REPLICA_BYTES + (INCARNATION_BYTES if self.kind == REPLICA_SNAPSHOT else 0)

    def vote(self):
        """(term, node voted for)"""
        return struct.unpack_from("<II", self.fields, self.hard_state_at() - self.at)


@dataclasses.dataclass
class Frame:
    at: int
    number: int
    last_synced: int
    records: list


def frames(path):
    """Those that this file, and none that it was recycled from, has."""
    file_number = int(os.path.basename(path).split(".")[0])
    with open(path, "rb") as file:
        data = file.read()
    found, at = [], 0
    while at < len(data) and data[at:at + 4] == b"SLJF":
        number_of_file, = struct.unpack_from("<Q", data, at + 8)
        number, last_synced, length, count = struct.unpack_from("<QQII", data, at + 32)
        if number_of_file != file_number:
            break
        records, record_at = [], at + 64
        for _ in range(count):
            kind, field_bytes, payload_bytes = struct.unpack_from("<BxHI", data, record_at)
            records.append(Record(kind, data[record_at + 12:record_at + 12 + field_bytes], record_at + 12))
            record_at += 12 + field_bytes + payload_bytes
        assert record_at == at + length, f"{path}: the records of the frame at {at} end at {record_at}"
        found.append(Frame(at, number, last_synced, records))
        at += -(-length // BLOCK) * BLOCK
    return found


def synced_by_mark(journal):
    """The highest frame that the folder's mark says is synced."""
    with open(os.path.join(journal, "newest"), "rb") as file:
        blocks = [file.read(BLOCK) for _ in range(2)]
    _, synced = max((struct.unpack_from("<Q", block, 8)[0], struct.unpack_from("<Q", block, 40)[0])
                    for block in blocks if block[:4] == b"SLJM")
    return synced
