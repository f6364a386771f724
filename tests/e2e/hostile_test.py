#!/usr/bin/env python3
"""Bytes that no client of ours sends, to a real broker by curl: each call ends with a status that says why, nothing of it is
written, and the broker goes on."""

import os
import random
import re
import socket
import struct
import subprocess
import tempfile
import unittest

import harness


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def batch(values, **lies):
    """A record batch as docs/formats.md has it, with a right checksum over whatever it says."""
    records = b""
    for i, value in enumerate(values):
        body = bytes([0, 0, 2 * lies.get(f"delta_{i}", i), 1, 2 * len(value)]) + value + b"\0"  # varints below 64, a null key
        records += bytes([2 * len(body)]) + body
    covered = struct.pack(">hiqqqhii", 0, lies.get("last", len(values) - 1), 1000, 1000, -1, -1, -1, lies.get("count", len(values)))
    covered += records
    return struct.pack(">qiibI", 0, 9 + len(covered), 0, 2, crc32c(covered) ^ lies.get("crc", 0)) + covered


def field(number, content):
    """A length-delimited field of protobuf."""
    length, out = len(content), b""
    while length >= 0x80:
        out += bytes([length & 0x7F | 0x80])
        length >>= 7
    return bytes([number << 3 | 2]) + out + bytes([length]) + content


def produce(topic, what):
    return field(2, field(1, topic) + field(3, what))


class Hostile(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="sluice-hostile-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.broker = harness.Broker(self.folder).start()
        self.addCleanup(self.broker.kill)
        self.broker.sluice("topic", "create", "t")
        self.broker.sluice("produce", "t", input="before\n")

    def call(self, method, message, length=None):
        """(status, message, answer) of one call; `length` is what its frame claims."""
        body = os.path.join(self.folder, "body")
        with open(body, "wb") as file:
            file.write(b"\0" + struct.pack(">I", len(message) if length is None else length) + message)
        done = subprocess.run(["curl", "--silent", "--http2-prior-knowledge", "--max-time", "30", "--dump-header", "-", "--output",
                               os.path.join(self.folder, "answer"), "--header", "content-type: application/grpc", "--header",
                               "te: trailers", "--data-binary", f"@{body}", f"http://{self.broker.address}/sluice.v1.{method}"],
                              capture_output=True, text=True, timeout=60)
        status = re.search(r"^grpc-status: (\d+)", done.stdout, re.MULTILINE)
        self.assertIsNotNone(status, f"no status of {method}: {done.returncode} {done.stdout} {done.stderr}")
        told = re.search(r"^grpc-message: (.*)", done.stdout, re.MULTILINE)
        with open(os.path.join(self.folder, "answer"), "rb") as file:
            return int(status.group(1)), told.group(1).strip() if told else "", file.read()

    def still_well(self, *more):
        self.assertTrue(self.broker.process.alive(), self.broker.process.tail())
        self.assertEqual(["before", *more], [record["value"] for record in self.broker.consume("t")])

    def test_a_sound_batch_is_taken_so_the_others_fail_for_their_lies_alone(self):
        status, message, answer = self.call("Log/Append", produce(b"t", batch([b"one", b"two"])))
        self.assertEqual((0, ""), (status, message), answer)
        self.still_well("one", "two")

    def test_a_batch_with_a_right_checksum_and_wrong_deltas_is_refused_with_what_is_wrong(self):
        for lie, words in (({"delta_1": 5}, b"offset delta"), ({"last": 7}, b"2 records over 8 offsets"), ({"last": -1}, b"offset delta"),
                           ({"count": 3}, b"record"), ({"count": 0}, b"record"), ({"crc": 1}, b"CRC32C")):
            with self.subTest(**lie):
                status, _, answer = self.call("Log/Append", produce(b"t", batch([b"one", b"two"], **lie)))
                self.assertEqual(0, status)  # of the call; the item has an error of its own
                self.assertIn(words, answer)
        self.still_well()

    def test_protobufs_cut_short_end_with_a_status(self):
        sound = produce(b"t", batch([b"one", b"two"]))
        for length in [1, 2, 3, 5, 8, 20, len(sound) // 2, len(sound) - 1]:
            with self.subTest(length=length):
                status, message, _ = self.call("Log/Append", sound[:length])
                self.assertEqual(3, status, message)
        self.assertEqual(3, self.call("Topics/Create", field(1, b"name")[:-1])[0])
        self.still_well()

    def test_hostile_protobufs_end_with_a_status(self):
        chance = random.Random(3)
        for method in ("Log/Append", "Log/Fetch", "Log/ListOffsets", "Log/DeleteRecords", "Topics/Create", "Topics/Alter"):
            with self.subTest(method):
                self.assertEqual(3, self.call(method, b"\x0b" * 200_000)[0], "groups in groups")
                self.assertEqual(3, self.call(method, b"\x0a\xff\xff\xff\xff\x0f" + b"x" * 100)[0], "a length beyond the end")
                self.assertEqual(8, self.call(method, b"\x08" * (17 << 20))[0], "larger than a message may be")
                self.assertNotEqual(0, self.call(method, chance.randbytes(1000))[0], "noise")
        self.still_well()

    def test_what_is_not_even_http_ends_its_connection(self):
        for port in (self.broker.grpc, self.broker.peer, self.broker.http):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.settimeout(30)
                try:
                    connection.sendall(b"x" + os.urandom(100_000))
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1 << 16):
                        pass
                except OSError as ended:
                    self.assertNotIsInstance(ended, TimeoutError)
        self.still_well()


if __name__ == "__main__":
    unittest.main()
