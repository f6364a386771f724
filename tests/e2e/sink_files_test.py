#!/usr/bin/env python3
"""The sinks' files on a real S3 server and in a folder, read by DuckDB and Python; wrong credentials, buckets and
endpoints end in an error that says so."""

import gzip
import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest

import harness


def write(*arguments):
    done = subprocess.run([harness.program("sink_files"), *arguments], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout.strip()


def completing(uploads):
    """Whether the S3 server has begun to make an object of an upload."""
    return any(name.endswith(".inprogress") for _, folders, _ in os.walk(uploads) for name in folders)


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
        with open(f"{day}/plain.jsonl", encoding="utf-8") as lines:
            self.assertEqual([json.loads(line)["n"] for line in lines], list(range(150000)))
        with gzip.open(f"{day}/gzip.jsonl.gz", "rt", encoding="utf-8") as lines:
            numbers = [json.loads(line)["n"] for line in lines]
        self.assertEqual(numbers, list(range(50000)))
        _, rows = harness.lake.query(f"select count(*), sum(n) from read_json('{day}/zstd.jsonl.zst', format='newline_delimited')")
        self.assertEqual(rows[0], (50000, 1249975000))
        self.assertEqual(sorted(os.listdir(day)), ["gzip.jsonl.gz", "plain.jsonl", "rows.parquet", "zstd.jsonl.zst"])

    def test_a_folder_holds_what_was_written(self):
        folder = os.path.join(self.folder.name, "local", "deep")
        self.assertEqual(write(f"file://{folder}"), (0, "ok"))
        self.check(folder)

    def test_s3_holds_what_was_written(self):
        s3 = self.s3
        self.assertEqual(write("s3://lake/some/prefix", s3.endpoint, s3.ACCESS_KEY, s3.SECRET_KEY), (0, "ok"))
        self.check(os.path.join(s3.lake, "lake", "some", "prefix"))

    def test_an_object_that_a_killed_server_does_not_have_is_never_taken_for_written(self):
        """versitygw renames the upload's folder, then makes the object. Killed between the two, and asked to complete the upload
        again, it answers that this is done."""
        root = tempfile.TemporaryDirectory(prefix="sluice-sinks-")
        self.addCleanup(root.cleanup)
        s3 = harness.S3Server(root.name, ["lake"])
        self.addCleanup(lambda: s3.kill())
        uploads = os.path.join(s3.lake, "lake", ".sgwtmp", "multipart")
        for attempt in range(30):
            folder = os.path.join(s3.lake, "lake", f"killed-{attempt}")
            writer = subprocess.Popen([harness.program("sink_files"), f"s3://lake/killed-{attempt}", s3.endpoint, s3.ACCESS_KEY,
                                       s3.SECRET_KEY], stdout=subprocess.PIPE, text=True)
            self.addCleanup(writer.kill)
            while writer.poll() is None and not completing(uploads):
                time.sleep(0.0002)
            s3.kill()
            struck = completing(uploads) and not os.path.exists(os.path.join(folder, "dt=2026-01-01", "plain.jsonl"))
            s3.start()
            said = writer.communicate(timeout=120)[0].strip()
            shutil.rmtree(uploads, ignore_errors=True)
            if writer.returncode == 0:
                self.check(folder)
            elif struck and "the object is not there" in said:
                self.assertIn("UNAVAILABLE", said)
                return
            shutil.rmtree(folder, ignore_errors=True)
        self.fail(f"in {attempt + 1} attempts no request was repeated to a server that was killed at the right moment, "
                  "or this version of it says no more what it has not done")

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
