#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets, tests/fuzz/<target>/: bytes that real encoders wrote, taken out of the data folder that is
kept in tests/fixtures, configuration out of deploy/examples and docs, and a few that are put together here. Each is named by its checksum; the same input
gives the same seeds."""

import glob
import gzip
import hashlib
import json
import os
import re
import shutil
import struct
import tarfile
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SEED_BYTES_MAX = 4096
BLOCK = 4096


def write(target, seeds, limit, besides=()):
    """At most `limit` of `seeds`, and all that stand `besides` them."""
    folder = os.path.join(HERE, target)
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    # A spread over all, the small ones first: what is alike in length is often alike in kind.
    seeds = sorted({seed for seed in seeds if 0 < len(seed) <= SEED_BYTES_MAX}, key=lambda seed: (len(seed), seed))
    for seed in seeds[::max(1, len(seeds) // limit)][:limit] + list(besides):
        with open(os.path.join(folder, hashlib.sha1(seed).hexdigest()[:12]), "wb") as file:
            file.write(seed)


def read(path):
    with open(path, "rb") as file:
        return file.read()


def batches(segment):
    while len(segment) >= 61:
        size = 12 + struct.unpack_from(">i", segment, 8)[0]
        if segment[16] != 2 or size > len(segment):  # the zeros of the last block
            return
        yield segment[:size]
        segment = segment[size:]


def frames(journal):
    """The used bytes of each frame."""
    at = 0
    while at + BLOCK <= len(journal) and journal[at:at + 4] == b"SLJF":
        length = struct.unpack_from("<I", journal, at + 48)[0]
        yield journal[at:at + length]
        at += -(-length // BLOCK) * BLOCK


def hex_examples(name):
    with open(os.path.join(ROOT, "docs", "formats.md"), encoding="utf-8") as file:
        for block in re.findall(rf"```hex {name}\n(.*?)```", file.read(), re.DOTALL):
            yield bytes.fromhex("".join(line.split("#")[0] for line in block.splitlines()))


def field(number, value):
    """Of a protobuf message: bytes, or a number that is not negative."""
    def varint(n):
        return bytes([n]) if n < 128 else bytes([n & 127 | 128]) + varint(n >> 7)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def raft_configuration():
    """The first one of the page's example, which its length stands before."""
    state = next(hex_examples("raft-state"))
    length, = struct.unpack_from("<I", state, 50)
    return state[54:54 + length]


def peer_messages():
    """The page's examples, and one of each kind of message; the target puts checksums right."""
    yield from hex_examples("peer-hello")
    yield from hex_examples("peer-message")
    group = field(1, bytes(range(16))) + field(2, 4) + field(3, bytes(16)) + field(4, bytes(16)) + field(5, 7)
    place = field(1, 3) + field(2, 256)
    configuration = raft_configuration()
    entry = field(1, bytes(range(16))) + field(2, 4) + field(3, 7)
    bodies = [field(6, field(1, 1) + field(3, place)), field(7, field(2, 1) + field(3, 9)),
              field(8, field(1, place) + field(2, 256)), field(9, field(1, 1) + field(2, 256) + field(3, place) + field(4, 300)),
              field(10, field(1, 256) + field(2, 1) + field(3, 5)), field(11, field(1, 5) + field(2, 300)),
              field(12, field(1, place) + field(4, configuration) + field(5, 256) + field(6, b"detail") + field(7, 3)),
              field(13, field(1, 256)), field(14, b"")]
    envelopes = [field(2, group + body) for body in bodies] + [b"".join(field(2, group + body) for body in bodies)]
    envelopes.append(field(3, field(1, field(1, 1) + field(2, 4) + field(3, 5) + field(4, entry) * 3)))
    envelopes.append(field(3, field(2, field(1, 1) + field(2, 5) + field(3, entry))))
    batch = next(hex_examples("record-batch"))
    for envelope in envelopes:
        yield b"\x0d" + bytes(4) + field(2, envelope)
        yield b"\x0d" + bytes(4) + field(2, envelope) + field(3, batch)


def peer_calls():
    """Questions and answers between nodes; the target puts checksums right."""
    def call(head, payload):
        return b"\x0d" + bytes(4) + field(2, head) + field(3, payload)
    caller = (field(1, 1) + field(2, 1) + field(3, bytes(range(16))) + field(4, 1) + field(5, 2) + field(6, bytes(16)) +
              field(7, bytes(range(16, 32))))
    checksum = b"\x1d" + bytes(4)
    yield call(field(1, caller) + field(2, 17) + checksum, b"request")
    yield call(field(1, field(1, 1) + field(2, 1) + field(3, bytes(16)) + field(6, bytes(16)) + field(7, bytes(16))) + checksum, b"")
    yield call(checksum + field(4, 1), b"answer")


def journal_marks():
    """Two blocks of version 2, one of version 1; the target puts checksums right."""
    def block(version, turn):
        return (b"SLJM" + struct.pack("<IQ", version, turn) + bytes(range(16)) + struct.pack("<QQ", 3, 300) +
                (struct.pack("<Q", 2) if version > 1 else b"")).ljust(BLOCK, b"\0")
    yield block(2, 6)[:60]
    yield block(1, 6)[:60]
    yield block(2, 6)


def configurations():
    for path in glob.glob(os.path.join(ROOT, "deploy", "examples", "*.yaml")):
        yield read(path)
    for path in glob.glob(os.path.join(ROOT, "docs", "*.md")):
        yield from re.findall(rb"```yaml\n(.*?)```", read(path), re.DOTALL)


def pipelines():
    """Whole files, and templates of paths."""
    yield from configurations()
    yield (b"pipeline: p\nsource:\n  http:\n    url: http://a.example/x?k=${env:KEY}\n    auth: { bearer: \"${file:/key}\" }\n"
           b"    pagination: { cursor: { param: after, from: /n } }\n    slices: [ { name: a, params: { z: 1 } }, { name: b } ]\n"
           b"topic: { name: t, key: /id, codec: lz4, config: { retention.ms: -1 } }\nsinks:\n"
           b"  - raw: { to: \"s3://b/p\", codec: none, path: \"{topic}/{partition}\" }\n")
    yield b"dt={event_time:%Y-%m-%d}/hour={event_time:%H}"
    yield b"{topic}/{partition}/{ingest_time:%E4Y%j}"
    yield b"{event_time:%D}/.."


def json_document(value):
    return json.dumps(value, separators=(",", ":")).encode()


def earthquakes():
    """Two records of a page of the demo's API."""
    with gzip.open(os.path.join(ROOT, "deploy", "demo", "earthquakes.json.gz")) as file:
        return json.load(file)["features"][:2]


def json_texts():
    """A pointer, and the document that it points into."""
    page = json_document({"features": earthquakes(), "links": {"next": None}})
    for pointer in (b"", b"/features", b"/features/1/geometry/coordinates/2", b"/links/next", b"/nowhere"):
        yield pointer + b"\n" + page
    yield b"/a~1b/m~0n\n" + b' { "a/b" : { "m~n" : [ 1.0e+30 , -0 , true , null , "\\u00e9\\ud83d\\ude00\\n" , "\xc3\xa9" ] } } '
    yield b"/1\n[[],{},123456789012345678901234567890]"


def http_pages():
    """A header that goes on or asks to wait, and a page."""
    page = json_document({"r": [{"k": "a", "t": 5, "v": [1, 2]}, {"k": 7, "t": 6}], "n": "/items?page=2"})
    for header in (b"", b"120", b"Fri, 31 Dec 1999 23:59:59 GMT", b'<http://api.example/items?p=2>; rel="next", </x>; rel=prev',
                   b"<?p=3>; title=\"a, b\"; REL=\"last next\""):
        yield header + b"\n" + page
    for next_page in ("abc", 17, None, False, "http://other.example/", "../items?page=2#f"):
        yield b"\n" + json_document({"r": [{"t": "2026-01-31T12:00:00Z"}, {}], "n": next_page})
    yield b"\n" + json_document({"r": []})
    for url in (b"https://[::1]:8443/a%20b?x=1&y=%26#f", b"HTTP://Api.Example:80", b"//other.example/p?q", b"?page=2", b"http://u:p@a/", b"http://u:p/x"):
        yield url + b"\n" + page
    yield gzip.compress(page, mtime=0)
    yield b"\n" + gzip.compress(page, mtime=0) + gzip.compress(b"more", mtime=0)


def positions():
    one = {"v": 1, "pipeline": "quakes", "slice": "0", "pull": 3, "page": 7, "part": 1, "parts": 2, "page_offset": 700, "letters_from": 4,
           "token": "http://api.example/items?page=7", "next": "http://api.example/items?page=8", "last": False, "from": "5",
           "from_seen": "", "max": "\"2026-01-31T12:00:00Z\"", "max_seen": "00112233445566778899aabbccddeeff"}
    early = {name: value for name, value in one.items() if name != "letters_from"}
    for position in (one, early, {**one, "last": True, "part": 2}):
        yield json_document(position)
        yield json_document({"data_end": 900, "topic_id": "11111111-2222-3333-4444-555555555555", "position": position})
    yield json_document({"data_end": 0, "position": one})


def sink_states():
    column = field(1, b"magnitude") + field(2, b"/properties/mag") + field(3, b"double")
    plan = field(1, 100) + field(2, 200) + field(3, 4)
    for state in (b"", plan, field(2, plan), field(3, 1) + field(4, column), field(2, plan) + field(3, 1) + field(4, column)):
        yield field(1, 100) + state
        yield field(1, 100) + state + field(5, b"11111111-2222-3333-4444-555555555555")


def produce_requests():
    """The first byte cuts the rest into slices."""
    batch = next(hex_examples("record-batch"))
    record = field(1, b"key") + field(2, b"value") + field(3, field(1, b"header") + field(2, b"h"))
    encoded = field(1, b"t") + field(2, 3) + field(3, batch)
    for item in (encoded, encoded + field(5, 256) + field(6, 7) + field(7, 1), field(1, b"t") + field(4, record) * 3):
        yield b"\x0f" + field(1, 77) + field(2, item)
        yield b"\xff" + field(2, item) * 3


def records():
    """Of group 0's log, the metadata store and calls between nodes; the first byte is which."""
    one, two = bytes(range(16)), bytes(range(16, 32))
    setting = field(1, b"retention.ms") + field(2, b"5000")
    alone = field(1, one) + field(2, b"t") + field(3, 2) + field(4, 1) + field(5, setting) + field(6, 1000) + field(7, 1) + field(7, 1)
    assignment = field(8, field(1, field(1, 1) + field(2, one)) + field(1, field(1, 2) + field(2, two)))
    replicated = field(1, one) + field(2, b"t") + field(3, 1) + field(4, 2) + field(6, 1000) + assignment
    node = (field(1, 2) + field(2, one) + field(3, two) + field(4, b"127.0.0.1:7400") + field(5, b"127.0.0.1:7401") + field(6, b"rack") +
            field(7, b"0.1.0") + field(9, 1))
    changes = [field(1, field(1, topic)) for topic in (alone, replicated)]
    changes += [field(2, field(1, one)), field(3, field(1, one) + field(2, setting)), field(4, field(1, one) + field(2, 3) + field(3, 1)),
                field(5, field(1, one) + field(2, b"sluice")), field(6, field(1, node)), field(7, field(1, 2) + field(2, 9)),
                field(8, field(1, 2) + field(2, 9)), field(9, field(1, 1))]
    yield from (b"\0" + change for change in changes)
    yield from (b"\1" + topic for topic in (alone, replicated))
    yield b"\2" + field(1, node) + field(2, 9) + field(3, 1)
    yield b"\3" + field(1, 2) + field(2, 9) + field(3, 40) + field(4, 1 << 30) + field(5, 1)
    yield b"\4" + field(2, one) + field(3, b"sluice") + field(4, node)
    yield b"\5" + field(1, one) + field(2, b"sluice") + field(3, 1) + field(4, b"127.0.0.1:7401")
    name = struct.pack("<IqQI", 1, 300, 4096, 7)
    yield b"\7" + field(1, name) + field(2, 1024) + field(3, 65536)
    yield b"\x08" + field(1, 300) + field(2, b"\1\2")
    yield b"\x09" + name
    create = field(1, b"t") + field(2, 3) + field(3, 2) + field(4, setting) + field(4, field(1, b"segment.bytes") + field(2, b"1")) + field(5, 1)
    for change in (field(1, create), field(2, field(1, b"t") + field(2, setting) + field(3, b"retention.ms")), field(3, field(1, b"t") + field(2, 9)),
                   field(4, field(1, b"t"))):
        yield b"\x0a" + change
    error = field(1, 7) + field(2, b"not the leader") + field(3, b"127.0.0.1:7400")
    yield b"\x0b" + field(2, one) + field(3, b"t") + field(4, 3) + field(5, 2) + field(6, setting) + field(7, 1000) + field(8, 300)
    yield b"\x0b" + field(1, error) + field(3, b"t")
    yield b"\x0c" + field(1, field(1, one) + field(2, b"\0\1")) + field(1, field(1, two) + field(2, b"\3"))
    replica = field(8, field(1, 1) + field(3, 1)) + field(8, field(1, 2) + field(2, 1) + field(4, 12))
    yield b"\x0d" + field(1, field(1, one) + field(2, 1) + field(3, 1) + field(4, 5) + field(6, 9) + field(7, 700) + replica)
    yield b"\x0d" + field(1, field(1, one) + field(9, error))
    yield b"\x0e" + field(1, 1000) + field(2, 1 << 30) + field(3, 4096) + field(4, 1)
    yield b"\x0f" + field(1, one) + field(2, 1) + field(3, 2)
    yield b"\x10" + field(1, error)


def raft_states():
    """A configuration, the core's state, and the blob that it lies in."""
    state = next(hex_examples("raft-state"))
    yield raft_configuration()
    yield state
    yield struct.pack("<HHIqiqqiq", 0, 2, len(state), 300, 4, 256, 290, 0, 290) + state
    yield struct.pack("<HHIqiq", 0, 1, 0, 300, 4, 256)


def main():
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(os.path.join(ROOT, "tests", "fixtures", "0.1.0", "data.tar.xz")) as tar:
            tar.extractall(folder)
        segments = [read(path) for path in glob.glob(f"{folder}/data/topics/*/*/*.log")]
        indexes = [read(path) for path in glob.glob(f"{folder}/data/topics/*/*/*.index")]
        journals = [read(path) for path in glob.glob(f"{folder}/data/journal/*.journal")]
    single = [batch for segment in segments for batch in batches(segment)]
    write("batch_fuzz", single + list(hex_examples("record-batch")) + list(hex_examples("control-batch")), 30)
    # What batch headers say of the codec; the rest of the batch is one compressed run.
    write("codec_fuzz", [bytes([batch[22] & 7]) + batch[61:] for batch in single], 30)
    write("segment_fuzz", segments + indexes + list(hex_examples("segment-index")), 20)
    write("journal_fuzz", [frame for journal in journals for frame in frames(journal)] + list(hex_examples("journal-frame")), 30,
          journal_marks())
    # The first byte: slices of 128 bytes, the checksum put right.
    write("peer_message_fuzz", [b"\xfe" + message for message in peer_messages()], 40,
          [b"\xfe" + call for call in peer_calls()])
    write("config_fuzz", configurations(), 30)
    write("envelope_fuzz", produce_requests(), 30)
    write("json_text_fuzz", json_texts(), 30)
    write("http_page_fuzz", http_pages(), 30)
    write("position_fuzz", positions(), 30)
    write("pipeline_fuzz", pipelines(), 30)
    write("records_fuzz", records(), 50)
    write("raft_state_fuzz", raft_states(), 30)
    write("sink_state_fuzz", sink_states(), 30)


if __name__ == "__main__":
    main()
