#!/usr/bin/env python3
"""kill -9 of broker, connector and S3 server at random while a pipeline runs: every record of the API is exactly once in the raw
files and exactly once in the Parquet, or, for a sink that some do not fit, in the Parquet or a dead letter; in a folder and on S3;
read by Python and DuckDB alone. The topic's limit makes several batches of each page."""

import collections
import json
import os
import tempfile
import threading
import time
import unittest

import harness

KILLS = 100 if harness.LONG else 10
VICTIMS = ("broker", "connector", "S3 server")
PAGE = 100
PAGE_DELAY = 0.04
PAGES_AHEAD = 70  # more than the source can take between two kills

PIPELINE = """\
pipeline: kills
source:
  http:
    url: {api}/quakes?limit={page}
    records: /features
    pagination: {{ next_url: /links/next }}
    schedule: once
topic: {{ name: quakes, key: /id, codec: none, config: {{ max.message.bytes: "20000" }} }}
sinks:
  - raw: {{ to: "file://{folder}/raw", codec: gzip, roll: {{ records: 700 }} }}
  - raw:
      to: "s3://lake/raw"
      endpoint: "{s3.endpoint}"
      access_key: "{s3.ACCESS_KEY}"
      secret_key: "${{env:E2E_SECRET_KEY}}"
      codec: gzip
      roll: {{ records: 600 }}
  - parquet:
      to: "s3://lake/quakes"
      endpoint: "{s3.endpoint}"
      access_key: "{s3.ACCESS_KEY}"
      secret_key: "${{env:E2E_SECRET_KEY}}"
      codec: zstd
      roll: {{ records: 900 }}
      schema:
        - {{ name: id, from: /id, type: string }}
        - {{ name: magnitude, from: /properties/mag, type: double }}
  - parquet:
      to: "file://{folder}/strict"
      path: "dt={{event_time:%Y-%m-%d}}"
      event_time: /properties/time
      roll: {{ records: 800 }}
      schema:
        - {{ name: id, from: /id, type: string }}
        - {{ name: intensity, from: /properties/cdi, type: int64 }}
"""


class GrowingApi(harness.api.Api):
    """Has more pages as long as it is told to grow, so that no pipeline comes to their end before."""

    def __init__(self):
        self.week = harness.api.load_features()
        self.copies, self.asked = 0, 0
        super().__init__(0, [], faults=False, delay=PAGE_DELAY)
        self.RequestHandlerClass = GrowingHandler
        self.grow()

    def grow(self):
        while len(self.features) < self.asked + PAGES_AHEAD * PAGE:
            self.features.extend(harness.api.renamed(self.week, self.copies))
            self.copies += 1


class GrowingHandler(harness.api.Handler):
    def quakes(self, query):
        self.server.asked = max(self.server.asked, int(query.get("offset", 0)))
        super().quakes(query)


class KillThePipeline(unittest.TestCase):
    def test_every_record_is_exactly_once_in_raw_and_in_parquet(self):
        choose = harness.seeded()
        with tempfile.TemporaryDirectory(prefix="sluice-e2e-") as folder:
            served = GrowingApi()
            threading.Thread(target=served.serve_forever, daemon=True).start()
            s3 = harness.S3Server(folder, ["lake"])
            broker = harness.Broker(folder).start()
            pipeline = os.path.join(folder, "pipeline.yaml")
            with open(pipeline, "w", encoding="utf-8") as file:
                file.write(PIPELINE.format(api=served.url, page=PAGE, folder=folder, s3=s3))

            def start_connector():
                return harness.Process(
                    "sluice-connect", [harness.program("sluice-connect"), "run", pipeline, "--once"], folder,
                    {"SLUICE_BROKERS": broker.address, "E2E_SECRET_KEY": s3.SECRET_KEY})

            connector = start_connector()
            kills, gave_up, victims = collections.Counter(), 0, []
            try:
                while kills.total() < KILLS:
                    time.sleep(choose.uniform(0.05, 1.2))
                    served.grow()
                    if not connector.alive():
                        # It may end because of who is dead, but never as if it were done.
                        self.assertGreater(connector.process.returncode, 0, connector.tail())
                        gave_up += 1
                        connector = start_connector()
                        continue
                    if not victims:
                        victims = choose.sample(VICTIMS, len(VICTIMS))
                    victim = victims.pop()
                    kills[victim] += 1
                    if victim == "connector":
                        connector.kill()
                        connector = start_connector()
                        continue
                    server = broker if victim == "broker" else s3
                    server.kill()
                    if choose.random() < 0.5:
                        time.sleep(choose.uniform(0, 0.3))
                    server.start()
                served.delay = 0
                # Without kills it must come to an end by itself; one start may still find a stale lease or a dead broker.
                for _ in range(3):
                    harness.wait_until("the pipeline ends", lambda: not connector.alive(), 240)
                    if connector.process.returncode == 0:
                        break
                    connector = start_connector()
                self.assertEqual(0, connector.process.returncode, connector.tail())
                self.check_raw(os.path.join(folder, "raw"), served.features)
                self.check_raw(os.path.join(s3.lake, "lake", "raw"), served.features)
                self.check_parquet(os.path.join(s3.lake, "lake", "quakes"), served.features)
                self.check_strict(os.path.join(folder, "strict"), broker.consume("quakes.dlq"), served.features)
                broker.stop()
                print(f"kills: {dict(kills)}; the connector gave up {gave_up} times; {len(served.features)} records")
            except BaseException:
                print(connector.tail(), broker.process.tail(), s3.process.tail(), flush=True)
                raise
            finally:
                connector.kill()
                broker.kill()
                s3.kill()
                served.shutdown()
                served.server_close()

    def check_raw(self, folder, published):
        got = collections.Counter(harness.lake.raw_lines(folder))
        expected = collections.Counter(body for _, _, body in published)
        self.assertEqual(0, sum((expected - got).values()), "raw: records missing or changed")
        self.assertEqual(0, sum((got - expected).values()), "raw: records too many")
        self.check_ranges(folder)

    def check_parquet(self, folder, published):
        _, rows = harness.lake.query(f"SELECT id, _offset FROM read_parquet('{folder}/**/*.parquet')")
        times = collections.Counter(row[0] for row in rows)
        self.assertEqual({name for _, name, _ in published}, set(times), "Parquet: ids")
        self.assertEqual([], [name for name, count in times.items() if count != 1], "Parquet: ids that are there twice")
        self.assertEqual(len(rows), len({offset for _, offset in rows}), "Parquet: an offset is there twice")
        self.check_ranges(folder)

    def check_strict(self, folder, letters, published):
        """Records whose intensity is no whole number are dead letters, in the order of the log; all others are in files."""
        _, rows = harness.lake.query(f"SELECT id FROM read_parquet('{folder}/**/*.parquet')")
        found = collections.Counter(row[0] for row in rows)
        away = collections.Counter(json.loads(letter["value"])["id"] for letter in letters)
        unfit = {name for _, name, body in published if isinstance(json.loads(body)["properties"]["cdi"], float)}
        self.assertGreater(len(unfit), 0)
        self.assertEqual((collections.Counter(unfit), collections.Counter({name for _, name, _ in published} - unfit)), (away, found))

    def check_ranges(self, folder):
        """No two files of a partition cover the same offset."""
        covered = {}
        for path, name in harness.lake.files(folder):
            partition, first, last = name["partition"], int(name["first"]), int(name["last"])
            self.assertGreater(first, covered.get(partition, -1), f"{path} overlaps the file before it")
            covered[partition] = last
        self.assertTrue(covered, f"no files in {folder}")


if __name__ == "__main__":
    unittest.main()
