#!/usr/bin/env python3
"""Every way to ask an API for records, by the real connector into a real broker: each record once, in order, and nothing more
when it is run again."""

import gzip
import json
import os
import subprocess
import unittest
import urllib.parse

import harness
import pipeline_input_test

RECORDS = [{"id": f"r{i}", "t": 1000 + i // 2, "deep": {"n": i}} for i in range(25)]
SIZE = 10


class Pulls(pipeline_input_test.Pipelines):
    def setUp(self):
        super().setUp()
        self.start_broker()
        self.asked = []
        self.served = RECORDS
        self.url = self.api(self.answer).url

    def answer(self, path, handler):
        """Serves self.served in pages, by whatever way to page the path begins with; remembers the questions."""
        parts = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)).decode()
        self.asked.append((handler.command, parts.path, query, body, dict(handler.headers)))
        served = [record for record in self.served if record["t"] >= int(query.get("since", 0))]
        start = {"/page": lambda: (int(query.get("p", 1)) - 1) * SIZE, "/offset": lambda: int(query.get("o", 0))}.get(
            parts.path, lambda: int(query.get("after", 0)))()
        here, more = served[start:start + SIZE], start + SIZE < len(served)
        answer, headers = {"records": here}, {"Content-Type": "application/json"}
        onward = f"{parts.path}?{urllib.parse.urlencode({**query, 'after': start + SIZE})}"
        if more and parts.path == "/cursor":
            answer["next"] = {"cursor": start + SIZE}
        elif more and parts.path == "/next":
            answer["links"] = {"next": onward}
        elif more and parts.path == "/link":
            headers["Link"] = f'<{onward}>; rel="next", </first>; rel="first"'
        text = json.dumps(answer).encode()
        if "gzip" in handler.headers.get("Accept-Encoding", ""):
            headers["Content-Encoding"] = "gzip"
            text = gzip.compress(text)
        return 200, headers, text

    def pull(self, path, source, expected):
        file = self.pipeline(self.url + path, source)
        code, said = self.run_once(file)
        self.assertEqual(0, code, said)
        self.assertEqual(expected, self.values("t"))
        self.assertEqual(expected, self.files())
        return file

    def test_each_pagination(self):
        for path, pagination, pages in (("/page", "{ page: { param: p, start: 1 } }", 4), ("/offset", "{ offset: { param: o } }", 4),
                                        ("/cursor", "{ cursor: { param: after, from: /next/cursor } }", 3),
                                        ("/next", "{ next_url: /links/next }", 3), ("/link", "{ link_header: true }", 3)):
            with self.subTest(path):
                file = self.pull(path, f"    pagination: {pagination}\n", RECORDS)
                self.assertEqual(pages, len(self.asked), self.asked)
                self.assertEqual(0, self.run_once(file)[0])
                self.assertEqual((pages, RECORDS), (len(self.asked), self.values("t")), "a pull that is complete is not made again")
            self.doCleanups()
            self.setUp()

    def test_one_page_without_pagination(self):
        self.pull("/all", "", RECORDS[:SIZE])

    def test_what_is_sent_with_a_question(self):
        self.pull("/all?fixed=1", "    method: POST\n    body: '{\"q\": 1}'\n    headers: { X-Team: data }\n    params: { a: 'b c&d' }\n"
                  "    auth: { basic: { user: u, password: p } }\n", RECORDS[:SIZE])
        method, _, query, body, headers = self.asked[0]
        self.assertEqual(("POST", {"fixed": "1", "a": "b c&d"}, '{"q": 1}'), (method, query, body))
        self.assertEqual(("data", "Basic dTpw"), (headers["X-Team"], headers["Authorization"]))

    def test_only_what_is_new_is_pulled_at_each_interval(self):
        self.served = RECORDS[:13]
        source = ("    pagination: { next_url: /links/next }\n    cursor: { field: /t, param: since, start: 1001 }\n"
                  "    schedule: { every: 1s }\n")
        command, environment = self.command("run", self.pipeline(self.url + "/next", source), "--http", "127.0.0.1:0")
        worker = harness.Process("sluice-connect", command, self.folder, environment)
        self.stack.callback(lambda: worker.alive() and worker.kill())
        harness.wait_until("the first pull is made", lambda: len(self.asked) >= 2)
        harness.wait_until("the first pull is complete", lambda: len(self.values("t")) == 11)
        # One more at the value that the cursor stands at, and others above it.
        self.served = RECORDS
        harness.wait_until("the new ones are there", lambda: len(self.values("t")) >= 23)
        worker.stop()
        self.assertEqual(RECORDS[2:], self.values("t"))
        self.assertEqual("1006", [query["since"] for _, _, query, _, _ in self.asked if query.get("since", "1001") != "1001"][0])

    def test_a_slice_writes_to_a_partition_of_its_own(self):
        slices = "    slices: [ { name: old, params: { since: 0 } }, { name: new, params: { since: 1010 } } ]\n"
        self.assertEqual((0, ""), (self.run_once(self.pipeline(self.url + "/all", slices))[0], ""))
        for partition, expected in ((0, RECORDS[:SIZE]), (1, [record for record in RECORDS if record["t"] >= 1010])):
            self.assertEqual(expected, [json.loads(record["value"]) for record in self.broker.consume("t", partition)])

    def test_a_preview_prints_a_page_and_its_schema_and_writes_nothing(self):
        self.broker.stop()
        sinks = ('\n  - parquet: { to: "file://./lake" }\n  - parquet: { to: "file://./typed", schema: '
                 '[ { name: id, from: /id, type: int64 } ] }')
        path = self.pipeline(self.url + "/next", "    pagination: { next_url: /links/next }\n", sinks)
        before = sorted(os.listdir(self.folder))
        command, environment = self.command("test", path, "--records", "2")
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60)
        self.assertEqual((0, ""), (done.returncode, done.stderr))
        for line in ("pipeline p, slice 0: 10 records on the first page, more to come\n", json.dumps(RECORDS[1], separators=(",", ":")),
                     "  id: string from /id\n", "  t: int64 from /t\n", "  deep: json from /deep\n", "  id: int64 from /id\n",
                     "10 records do not fit and would be dead letters"):
            self.assertIn(line, done.stdout)
        self.assertNotIn('"r2"', done.stdout)
        self.assertEqual((1, before), (len(self.asked), sorted(os.listdir(self.folder))))


if __name__ == "__main__":
    unittest.main()
