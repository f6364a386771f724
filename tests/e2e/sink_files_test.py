#!/usr/bin/env python3
"""The sinks' files on a real S3 server and in a folder, read by DuckDB and Python; wrong credentials, buckets and
endpoints end in an error that says so."""

import gzip
import json
import os
import subprocess
import tempfile
import unittest

import harness


def write(*arguments):
    done = subprocess.run([harness.program("sink_files"), *arguments], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout.strip()


class SinkFiles(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="sluice-sinks-")
        cls.s3 = harness.S3Server(cls.folder.name, ["lake"])

    @classmethod
    def tearDownClass(cls):
        cls.s3.kill()
        cls.folder.cleanup()

    def check(self, folder):
        day = os.path.join(folder, "dt=2026-01-01")
        _, rows = harness.lake.query(
            "select count(*), sum(n), sum(half), count(distinct name), min(_partition), max(_offset), "
            "count(*) filter (flag), max(_key), any_value(_extra), min(epoch_ms(\"when\")) "
            f"from read_parquet('{day}/rows.parquet')")
        count, total, half, names, partition, offset, flags, _, extra, when = rows[0]
        self.assertEqual((count, total, half), (150000, 11249925000, 11250000000.0))
        self.assertEqual((names, partition, offset, flags), (150000, 3, 149999, 75000))
        self.assertEqual(extra, '{"big":123456789012345678901234567890}')
        self.assertEqual(when, 1767225600100)
        with gzip.open(f"{day}/gzip.jsonl.gz", "rt", encoding="utf-8") as lines:
            numbers = [json.loads(line)["n"] for line in lines]
        self.assertEqual(numbers, list(range(50000)))
        _, rows = harness.lake.query(f"select count(*), sum(n) from read_json('{day}/zstd.jsonl.zst', format='newline_delimited')")
        self.assertEqual(rows[0], (50000, 1249975000))
        self.assertEqual(sorted(os.listdir(day)), ["gzip.jsonl.gz", "rows.parquet", "zstd.jsonl.zst"])

    def test_a_folder_holds_what_was_written(self):
        folder = os.path.join(self.folder.name, "local", "deep")
        self.assertEqual(write(f"file://{folder}"), (0, "ok"))
        self.check(folder)

    def test_s3_holds_what_was_written(self):
        s3 = self.s3
        self.assertEqual(write("s3://lake/some/prefix", s3.endpoint, s3.ACCESS_KEY, s3.SECRET_KEY), (0, "ok"))
        self.check(os.path.join(s3.lake, "lake", "some", "prefix"))

    def test_wrong_credentials_are_told(self):
        code, said = write("s3://lake/x", self.s3.endpoint, self.s3.ACCESS_KEY, "wrong")
        self.assertEqual(code, 1)
        self.assertIn("PERMISSION_DENIED", said)
        self.assertIn("secret_key", said)

    def test_a_missing_bucket_is_told(self):
        code, said = write("s3://nowhere/x", self.s3.endpoint, self.s3.ACCESS_KEY, self.s3.SECRET_KEY)
        self.assertEqual(code, 1)
        self.assertIn("bucket 'nowhere'", said)

    def test_a_dead_endpoint_is_told_in_time(self):
        code, said = write("s3://lake/x", f"http://127.0.0.1:{harness.free_port()}", "a", "b")
        self.assertEqual(code, 1)
        self.assertIn("UNAVAILABLE", said)
        self.assertIn("endpoint", said)


if __name__ == "__main__":
    unittest.main()
