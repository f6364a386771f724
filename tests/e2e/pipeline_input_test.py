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
    """Serves `answer(path, handler)`: (status, headers, body)."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                status, headers, body = answer(self.path, self)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_GET

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
        if self.broker:
            return
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
        api = self.api(lambda path, handler: pages[path])
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


class Secrets(Pipelines):
    CANARIES = {"CANARY_BEARER": "canary-bearer-1", "CANARY_HEADER": "canary-header-2", "CANARY_PARAM": "canary-param-3",
                "CANARY_BODY": "canary-body-4", "CANARY_ACCESS": "canary-access-5", "CANARY_SECRET": "canary-secret-6"}

    def setUp(self):
        super().setUp()
        self.environment = {**self.CANARIES, "SLUICE_LOG": "debug"}
        self.seen = []

    def secret_pipeline(self, url, records="/records", s3="http://127.0.0.1:1", more_source=""):
        return self.pipeline(url, (
            '    method: POST\n    auth: { bearer: "${env:CANARY_BEARER}" }\n    headers: { X-Key: "${env:CANARY_HEADER}" }\n'
            '    params: { key: "${env:CANARY_PARAM}" }\n    body: \'{"key":"${env:CANARY_BODY}"}\'\n'
            f"    retry: {{ attempts: 2, backoff_max: 10ms }}\n{more_source}").replace("    records: /records\n", ""),
            sinks=f'[ {{ raw: {{ to: "s3://lake/x", endpoint: "{s3}", access_key: "${{env:CANARY_ACCESS}}", '
                  'secret_key: "${env:CANARY_SECRET}" } } ]')

    def echo(self, status):
        """Answers with all that it was sent, as a careless API does."""
        def answer(path, handler):
            body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
            sent = (path + " " + " ".join(handler.headers.values()) + " ").encode() + body
            self.seen.append(sent)
            return status, {}, b'{"records": [], "message": "' + sent.replace(b'"', b"'") + (b'"}' if status != 299 else b'')
        return self.api(answer)

    def assert_no_canary(self, said):
        self.assertNotIn("canary-", said)

    def every_command(self, path):
        for command in (["lint", path], ["test", path],
                        ["run", path, "--once", "--http", "127.0.0.1:0", "--give-up-after", "2s"]):
            arguments, base = self.command(*command)
            done = subprocess.run(arguments, cwd=self.folder, env={**base, **self.environment}, capture_output=True, text=True,
                                  timeout=60)
            said = done.stdout + done.stderr
            yield command[0], done.returncode, said
            self.assert_no_canary(said)

    def test_no_secret_is_printed_whatever_the_api_sends_back(self):
        self.start_broker()
        for status in (400, 401, 403, 404, 500, 299):
            with self.subTest(status=status):
                api = self.echo(status)
                self.seen.clear()
                for command, code, said in self.every_command(self.secret_pipeline(api.url + "/")):
                    if command != "lint":
                        self.assertNotEqual(code, 0, said)
                sent = b" ".join(self.seen)
                for name in ("CANARY_BEARER", "CANARY_HEADER", "CANARY_PARAM", "CANARY_BODY"):
                    self.assertIn(self.CANARIES[name].encode(), sent, "it was never sent: this test has lost its subject")

    def test_no_secret_is_printed_when_nothing_can_be_reached(self):
        for command, code, said in self.every_command(self.secret_pipeline("http://127.0.0.1:1/x")):
            self.assertEqual(code, 0 if command == "lint" else 3, said)

    def test_no_secret_is_printed_when_s3_refuses(self):
        self.start_broker()
        s3 = harness.S3Server(self.folder, ["lake"])
        self.stack.callback(s3.kill)
        api = self.api(lambda path, handler: page(["a"]))
        for command, code, said in self.every_command(self.secret_pipeline(api.url + "/", s3=s3.endpoint)):
            self.assertEqual(code, 5 if command == "run" else 0, said)

    def test_no_secret_is_printed_when_the_file_is_wrong(self):
        path = self.secret_pipeline("http://127.0.0.1:1/x", more_source="    colour: green\n")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text.replace('"${env:CANARY_HEADER}"', '"${env:CANARY_HEADER}\\n"').replace("s3://lake", "gs://lake"))
        for _, code, said in self.every_command(path):
            self.assertEqual(code, 2, said)


class Failures(Pipelines):
    QUICK = "    retry: { attempts: 2, backoff_max: 10ms }\n"

    def assert_says(self, outcome, code, *words):
        self.assertEqual(outcome[0], code, outcome[1])
        for word in words:
            self.assertIn(word, outcome[1])

    def answer_with(self, answer, more=""):
        """What `run --once` says of an API that always answers so."""
        self.start_broker()
        api = self.api(lambda path, handler: answer)
        return self.run_once(self.pipeline(api.url + "/", self.QUICK + more))

    def s3_sink(self, endpoint, bucket="lake", secret=harness.S3Server.SECRET_KEY, access=harness.S3Server.ACCESS_KEY):
        self.start_broker()
        api = self.api(lambda path, handler: page(["a"]))
        sinks = (f'\n  - raw: {{ to: "s3://{bucket}/x", endpoint: "{endpoint}", access_key: "{access}", secret_key: "{secret}" }}')
        return self.run_once(self.pipeline(api.url + "/", sinks=sinks), "--give-up-after", "2s")

    def s3(self):
        server = harness.S3Server(self.folder, ["lake"])
        self.stack.callback(server.kill)
        return server.endpoint

    def test_wrong_s3_credentials(self):
        endpoint = self.s3()
        for wrong in ({"secret": "wrong"}, {"access": "nobody"}):
            with self.subTest(**wrong):
                self.assert_says(self.s3_sink(endpoint, **wrong), 5, "pipeline p, sink raw-0", "p.yaml:8:", "sinks[0].raw",
                                 "check `access_key` and `secret_key`")

    def test_a_missing_bucket(self):
        self.assert_says(self.s3_sink(self.s3(), bucket="nowhere"), 4, "pipeline p, sink raw-0", "sinks[0].raw",
                         "bucket 'nowhere'", "make the bucket")

    def test_an_s3_server_that_cannot_be_reached(self):
        self.assert_says(self.s3_sink(f"http://127.0.0.1:{harness.free_port()}"), 3, "pipeline p, sink raw-0", "sinks[0].raw",
                         "check `endpoint`")

    def test_an_api_that_cannot_be_reached(self):
        self.start_broker()
        url = f"http://127.0.0.1:{harness.free_port()}/items"
        self.assert_says(self.run_once(self.pipeline(url, self.QUICK)), 3, "pipeline p, slice 0", "p.yaml:4:", "source.http", url,
                         "cannot connect", "check that the host is up")
        self.assert_says(self.run_once(self.pipeline("http://no..such.host/items", self.QUICK)), 3, "no..such.host",
                         "source.http", "check that the host is up")

    def test_a_broker_that_cannot_be_reached(self):
        started = time.monotonic()
        self.assert_says(self.run_once(self.pipeline("http://127.0.0.1:1/"), "--give-up-after", "1s"), 3, "cannot connect to the broker",
                         "Is sluiced running")
        self.assertLess(time.monotonic() - started, 15)

    def test_a_broker_that_dies_and_stays_away_is_given_up_in_time(self):
        self.start_broker()
        asked = []

        def answer(path, handler):
            asked.append(time.monotonic())
            if len(asked) == 3:
                self.broker.kill()
            return page([len(asked)], next=f"/{len(asked)}")

        path = self.pipeline(self.api(answer).url + "/", "    pagination: { next_url: /next }\n")
        self.assert_says(self.run_once(path, "--give-up-after", "2s"), 3, "pipeline p, slice 0", "cannot connect to the broker")
        self.assertLess(time.monotonic() - asked[2], 15)

    def test_a_page_that_is_not_json(self):
        self.assert_says(self.answer_with((200, {}, b"<html><body>Sign in</body></html>")), 1, "pipeline p, slice 0", "p.yaml:4:",
                         "source.http", "not valid JSON at byte 0 of 33", "it begins with '<html><body>Sign in")
        self.assert_says(self.answer_with((200, {}, b'{"records": [1, 2')), 1, "it ends too early")

    def test_a_page_whose_gzip_is_cut_short(self):
        body = gzip.compress(json.dumps({"records": list(range(10000))}).encode())[:-20]
        self.assert_says(self.answer_with((200, {"Content-Encoding": "gzip"}, body)), 1, "pipeline p, slice 0", "p.yaml:4:",
                         "source.http", "gzip is damaged", "(2 tries)")

    def test_a_page_that_is_not_what_the_pointer_says(self):
        self.assert_says(self.answer_with((200, {}, b'{"items": [1]}')), 2, "pipeline p, slice 0", "p.yaml:5:", "source.http.records",
                         "there is nothing at `records: /records`", '{"items":[1]}', "check `records`")

    def test_an_api_that_refuses(self):
        for status, code, word in ((401, 5, "check `auth`"), (403, 5, "check `auth`"), (404, 4, "check `url`"),
                                   (400, 1, "answered 400"), (503, 3, "(2 tries)"), (429, 5, "(2 tries)")):
            with self.subTest(status=status):
                self.assert_says(self.answer_with((status, {}, b"no, because")), code, "pipeline p, slice 0", "source.http",
                                 f"answered {status}: no, because", word)

    def test_a_topic_that_was_deleted_and_made_anew(self):
        self.start_broker()
        path = self.pipeline(self.api(lambda path, handler: page(["a"])).url + "/")
        self.assert_says(self.run_once(path), 0)
        self.broker.sluice("topic", "delete", "t")
        self.assert_says(self.run_once(path), 1, "pipeline p, sink raw-0", "p.yaml:7:", "topic t was deleted and made anew",
                         "another name")

    def test_a_worker_that_stays_goes_on_when_the_api_is_well_again(self):
        self.start_broker()
        asked = []

        def answer(path, handler):
            asked.append(path)
            return page(["a"]) if len(asked) > 4 else (500, {}, b"not yet")

        command, environment = self.command("run", self.pipeline(self.api(answer).url + "/", self.QUICK), "--http", "127.0.0.1:0")
        worker = harness.Process("sluice-connect", command, self.folder, environment)
        self.stack.callback(lambda: worker.alive() and worker.kill())
        harness.wait_until("the record is in the topic", lambda: len(asked) > 4 and self.values("t") == ["a"], 60)
        started = time.monotonic()
        self.assertEqual(worker.stop(), 130)
        self.assertLess(time.monotonic() - started, 2)


class Stopping(Pipelines):
    def stop_while(self, disturb):
        """How long SIGTERM takes once `disturb` was done to a worker that had been at work."""
        self.start_broker()
        asked = []

        def answer(path, handler):
            asked.append(path)
            return page([len(asked)])

        command, environment = self.command("run", self.pipeline(self.api(answer).url + "/", "    schedule: { every: 1s }\n"),
                                            "--http", "127.0.0.1:0")
        worker = harness.Process("sluice-connect", command, self.folder, environment)
        self.stack.callback(lambda: worker.alive() and worker.kill())
        harness.wait_until("the worker pulls", lambda: len(asked) >= 2, 60)
        disturb()
        time.sleep(2.5)
        started = time.monotonic()
        self.assertEqual(worker.stop(), 130, worker.tail())
        return time.monotonic() - started

    def test_a_stop_does_not_wait_for_a_broker_that_hangs(self):
        broker = lambda: self.broker.process.process
        self.stack.callback(lambda: broker().send_signal(signal.SIGCONT))
        self.assertLess(self.stop_while(lambda: broker().send_signal(signal.SIGSTOP)), 2.5)

    def test_a_stop_does_not_wait_for_a_broker_that_is_gone(self):
        self.assertLess(self.stop_while(lambda: self.broker.kill()), 2.5)


if __name__ == "__main__":
    unittest.main()
