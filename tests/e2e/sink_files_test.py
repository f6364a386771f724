#!/usr/bin/env python3
"""The sinks' files on a real S3 server and in a folder, read by DuckDB and Python; wrong credentials, buckets and
endpoints end in an error that says so."""

import contextlib
import gzip
import http.client
import http.server
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

import harness


def write(*arguments):
    done = subprocess.run([harness.program("sink_files"), *arguments], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout.strip()


def completing(uploads):
    """Whether the S3 server has begun to make an object of an upload."""
    return any(name.endswith(".inprogress") for _, folders, _ in os.walk(uploads) for name in folders)


def before(s3, answer):
    """A server before the S3 server. What it says is `answer(method, hand_on)`, where `hand_on()` asks the S3 server; each is a status,
    headers and a body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def body(self):
            """As it came, with the frames of its chunks."""
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts, size = [], -1
            while size != 0:
                line = self.rfile.readline()
                size = int(line, 16)
                parts += [line, self.rfile.read(size + len("\r\n"))]
            return b"".join(parts)

        def any_method(self):
            body = self.body()

            def hand_on():
                with contextlib.closing(http.client.HTTPConnection("127.0.0.1", s3.port, timeout=60)) as onward:
                    onward.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                    for name, value in self.headers.items():
                        if name.lower() != "expect":
                            onward.putheader(name, value)
                    onward.endheaders(body)
                    with onward.getresponse() as said:
                        headers = {name.lower(): value for name, value in said.getheaders() if name.lower() != "transfer-encoding"}
                        return said.status, headers, said.read()

            status, headers, content = answer(self.command, hand_on)
            if self.command != "HEAD":
                headers["content-length"] = str(len(content))
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = any_method

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # either side may hang up, as on what is under way when an upload is aborted
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


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

    def write_through(self, answer, folder, *more):
        server = before(self.s3, answer)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        return write(f"s3://lake/{folder}", endpoint, self.s3.ACCESS_KEY, self.s3.SECRET_KEY, *more)

    def test_an_object_of_another_size_is_never_taken_for_written(self):
        asked = []

        def answer(method, hand_on):
            status, headers, content = hand_on()
            if method == "HEAD":
                asked.append(status)
                headers["content-length"] = str(int(headers["content-length"]) - 1)
            return status, headers, content

        code, said = self.write_through(answer, "shorter")
        self.assertEqual((code, asked[-1]), (1, 200))
        self.assertIn("UNAVAILABLE", said)
        self.assertRegex(said, r"plain.jsonl: the S3 server says that it has stored it, but the object has \d+ bytes, not \d+")

    def test_a_key_that_may_not_ask_for_an_object_is_told(self):
        def answer(method, hand_on):
            return (403, {"content-length": "0"}, b"") if method == "HEAD" else hand_on()

        code, said = self.write_through(answer, "unasked")
        self.assertEqual(code, 1)
        self.assertIn("PERMISSION_DENIED", said)
        self.assertIn("s3:GetObject", said)

    def test_an_object_that_is_given_up_appears_never_even_where_the_upload_cannot_be_taken_back(self):
        for refuse in False, True:
            deleted = []

            def answer(method, hand_on):
                if method != "DELETE":
                    return hand_on()
                answered = (403, {}, b"") if refuse else hand_on()
                deleted.append(answered[0])
                return answered

            folder = f"given-up-{refuse}"
            self.assertEqual(self.write_through(answer, folder, "give-up"), (0, "ok"))
            self.assertEqual(set(deleted), {403 if refuse else 204})
            found = [name for _, _, names in os.walk(os.path.join(self.s3.lake, "lake", folder)) for name in names]
            self.assertEqual(found, [])

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
