#!/usr/bin/env python3
"""What an API, a broker or an S3 server can do to a pipeline ends as documented: records too large for the topic are dead
letters, everything else in a clear message with pipeline and place, the right exit code, and in time."""

import base64
import contextlib
import gzip
import hashlib
import http.server
import json
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

import harness


class Api:
    """Serves `answer(path)`: (status, headers, body)."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                status, headers, body = answer(self.path)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def page(records, **more):
    return 200, {}, json.dumps({"records": records, **more}).encode()


def headers_of(record):
    return {header["key"]: header["value"] for header in record["headers"]}


class Pipelines(unittest.TestCase):
    def setUp(self):
        stack = contextlib.ExitStack()
        self.addCleanup(stack.close)
        self.folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="sluice-input-"))
        self.stack = stack
        self.broker = None

    def start_broker(self):
        self.broker = harness.Broker(self.folder).start()
        self.stack.callback(lambda: self.broker.process.alive() and self.broker.kill())

    def api(self, answer):
        api = Api(answer)
        self.stack.callback(api.close)
        return api

    def pipeline(self, url, more_source="", sinks='[ { raw: { to: "file://./raw", codec: none } } ]', more=""):
        path = os.path.join(self.folder, "p.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(f"pipeline: p\nsource:\n  http:\n    url: {url}\n    records: /records\n{more_source}"
                       f"topic: {{ name: t }}\nsinks: {sinks}\n{more}")
        return path

    def command(self, *arguments):
        address = self.broker.address if self.broker else f"127.0.0.1:{harness.free_port()}"
        return [harness.program("sluice-connect"), *arguments], {**os.environ, "SLUICE_BROKERS": address}

    def run_once(self, path, *more, environment=None, timeout=120):
        command, base = self.command("run", path, "--once", "--http", "127.0.0.1:0", *more)
        done = subprocess.run(command, cwd=self.folder, env={**base, **(environment or {})}, capture_output=True, text=True,
                              timeout=timeout)
        return done.returncode, done.stdout + done.stderr

    def values(self, topic):
        return [json.loads(record["value"]) for record in self.broker.consume(topic)]

    def files(self):
        lines = []
        for folder, _, names in os.walk(os.path.join(self.folder, "raw")):
            for name in sorted(names):
                with open(os.path.join(folder, name), encoding="utf-8") as file:
                    lines += [json.loads(line) for line in file]
        return lines


class LargeRecords(Pipelines):
    def test_a_record_larger_than_the_topics_limit_is_a_dead_letter_and_the_rest_goes_on(self):
        self.start_broker()
        noise = random.Random(1)
        ten, forty = (base64.b64encode(noise.randbytes(size)).decode() for size in (7_500_000, 30_000_000))
        pages = {"/": page(["a", ten, "b"], next="/2"), "/2": page([ten], next="/3"), "/3": page(["c", forty])}
        api = self.api(lambda path: pages[path])
        path = self.pipeline(api.url + "/", "    pagination: { next_url: /next }\n")
        for _ in range(2):  # the second run finds everything done
            code, said = self.run_once(path)
            self.assertEqual(code, 0, said)
        self.assertEqual(self.values("t"), ["a", "b", "c"])
        self.assertEqual(sorted(self.files()), ["a", "b", "c"])
        letters = self.broker.consume("t.dlq")
        self.assertEqual(len(letters), 3)
        for letter in letters:
            self.assertIn("too large for t/0", headers_of(letter)["sluice.reason"])
            self.assertEqual(headers_of(letter)["sluice.source"], "p/0")
        self.assertEqual([json.loads(letter["value"]) for letter in letters[:2]], [ten, ten])
        whole = json.dumps(forty)
        headers = headers_of(letters[2])
        self.assertEqual(letters[2]["value"], whole[:65536])
        self.assertEqual(headers["sluice.value.bytes"], str(len(whole)))
        self.assertEqual(headers["sluice.value.sha256"], hashlib.sha256(whole.encode()).hexdigest())


if __name__ == "__main__":
    unittest.main()
