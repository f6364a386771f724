#!/usr/bin/env python3
"""kill -9 of broker and connector at random while a pipeline runs: every record of the API is exactly once in the raw files
and exactly once in the Parquet, or, for a sink that some do not fit, in the Parquet or a dead letter; read by Python and
DuckDB alone. The topic's limit makes several batches of each page."""

import collections
import json
import os
import tempfile
import threading
import time
import unittest

import harness

KILLS = 100 if harness.LONG else 10
COPIES = 60 if harness.LONG else 8

PIPELINE = """\
pipeline: kills
source:
  http:
    url: {api}/quakes?limit=100
    records: /features
    pagination: {{ next_url: /links/next }}
    schedule: once
topic: {{ name: quakes, key: /id, codec: none, config: {{ max.message.bytes: "20000" }} }}
sinks:
  - raw: {{ to: "file://{folder}/raw", codec: gzip, roll: {{ records: 700 }} }}
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


class KillThePipeline(unittest.TestCase):
    def test_every_record_is_exactly_once_in_raw_and_in_parquet(self):
        choose = harness.seeded()
        with tempfile.TemporaryDirectory(prefix="sluice-e2e-") as folder:
            served = harness.api.Api(0, harness.api.load_features(COPIES), faults=False, delay=0.04)
            threading.Thread(target=served.serve_forever, daemon=True).start()
            s3 = harness.S3Server(folder, ["lake"])
            broker = harness.Broker(folder).start()
            pipeline = os.path.join(folder, "pipeline.yaml")
            with open(pipeline, "w", encoding="utf-8") as file:
                file.write(PIPELINE.format(api=served.url, folder=folder, s3=s3))

            def start_connector():
                return harness.Process(
                    "sluice-connect", [harness.program("sluice-connect"), "run", pipeline, "--once"], folder,
                    {"SLUICE_BROKERS": broker.address, "E2E_SECRET_KEY": s3.SECRET_KEY})

            connector = start_connector()
            early = 0
            try:
                for _ in range(KILLS):
                    time.sleep(choose.uniform(0.05, 1.2))
                    if not connector.alive() and connector.process.returncode == 0:
                        early += 1
                    if choose.random() < 0.5:
                        broker.kill()
                        if choose.random() < 0.5:
                            time.sleep(choose.uniform(0, 0.3))
                        broker.start()
                    else:
                        connector.kill()
                    if not connector.alive():
                        connector = start_connector()
                # Without kills it must come to an end by itself; one start may still find a stale lease or a dead broker.
                for _ in range(3):
                    harness.wait_until("the pipeline ends", lambda: not connector.alive(), 240)
                    if connector.process.returncode == 0:
                        break
                    connector = start_connector()
                self.assertEqual(0, connector.process.returncode, connector.tail())
                self.assertLess(early, KILLS // 2, "the pipeline was over before most kills: this test has lost its subject")
                self.check_raw(os.path.join(folder, "raw"), served.features)
                self.check_parquet(os.path.join(s3.lake, "lake", "quakes"), served.features)
                self.check_strict(os.path.join(folder, "strict"), broker.consume("quakes.dlq"), served.features)
                broker.stop()
                print(f"{KILLS} kills ({early} after the pipeline's end), {len(served.features)} records")
            except BaseException:
                print(connector.tail(), broker.process.tail(), flush=True)
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
