#!/usr/bin/env python3
"""A broker that may open few files, and a flood of connections: those beyond what it can take are refused at once and counted, it
has files left to serve who was there before, and takes new clients once the flood is over."""

import re
import resource
import socket
import tempfile
import time
import unittest
import urllib.request

import harness

FILES_MAX = 200
VALUE_BYTES = 4000
SEGMENT_BYTES = 1 << 20


class Descriptors(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="sluice-e2e-")
        self.addCleanup(folder.cleanup)
        self.broker = harness.Broker(folder.name, "storage: { journal_bytes: 64MiB }\n")
        self.broker.start(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX)))
        self.addCleanup(self.broker.kill)
        self.broker.sluice("topic", "create", "t", "--config", f"segment.bytes={SEGMENT_BYTES}")
        self.flood = []
        self.addCleanup(self.end_flood)

    def connect(self):
        """A connection that says nothing, whatever becomes of it."""
        connection = socket.socket()
        connection.settimeout(5)
        connection.connect(("127.0.0.1", self.broker.grpc))
        self.flood.append(connection)
        return connection

    def end_flood(self):
        while self.flood:
            self.flood.pop().close()

    def refused(self):
        """Whether a new connection is closed at once."""
        try:
            while self.connect().recv(4096):
                pass  # what HTTP/2 begins with
            return True
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.broker.http}/metrics", timeout=10) as response:
            return float(re.search(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE).group(1))

    def test_a_flood_of_connections_harms_nobody_who_was_there_before(self):
        self.assertTrue(self.broker.process.said("the limit of open files is low"))
        there_before = harness.Producer(self.broker.address, "t", "x" * VALUE_BYTES, pause=0.01)
        self.addCleanup(lambda: there_before.process.poll() is None and there_before.process.kill())
        harness.wait_until("its records are taken", lambda: len(there_before.output) > 100)
        flooded = 2 * FILES_MAX
        for _ in range(flooded):
            self.connect()
        harness.wait_until("the log says that connections are refused", lambda: self.broker.process.said("refused connections"))
        self.assertTrue(self.refused())
        # Its segments are full again and again, so the broker needs files for it.
        enough = len(there_before.output) + 4 * SEGMENT_BYTES // VALUE_BYTES
        harness.wait_until("who was there before is served", lambda: len(there_before.output) > enough, 30)
        self.assertTrue(harness.answers(f"http://127.0.0.1:{self.broker.http}/readyz"))
        turned_away = self.broker.sluice("--timeout", "5s", "topic", "list", check=False)
        self.assertEqual(3, turned_away.returncode, turned_away.stderr)
        self.assertIn("no broker can be reached", turned_away.stderr)
        refused = self.metric("sluice_broker_rpc_connections_refused_total")
        self.assertGreater(refused, FILES_MAX)
        self.assertLess(refused, flooded + 100, "refusals that were none")
        self.end_flood()
        harness.wait_until("a new client is served",
                           lambda: self.broker.sluice("--timeout", "5s", "produce", "t", input="after", check=False).returncode == 0, 30)
        acknowledged, said = there_before.finish()
        self.assertEqual("", said)
        self.assertEqual(len(there_before.sent), len(acknowledged))
        found = {record["offset"]: record["value"] for record in self.broker.consume("t")}
        self.assertEqual({}, {offset: value for value, offset in acknowledged if found[offset] != value})
        self.assertIn("after", found.values())
        self.broker.stop()


if __name__ == "__main__":
    unittest.main()
