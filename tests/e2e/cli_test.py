#!/usr/bin/env python3
"""The command line against a real broker: every command, its JSON, its exit codes, Ctrl-C, and the offline dump."""

import base64
import json
import os
import re
import signal
import subprocess
import tempfile
import time
import unittest

import harness


class CommandLine(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="sluice-cli-")
        cls.broker = harness.Broker(cls.folder.name).start()

    @classmethod
    def tearDownClass(cls):
        cls.broker.kill()
        cls.folder.cleanup()

    def sluice(self, *arguments, input=None, code=0):
        done = subprocess.run([harness.program("sluice"), "--brokers", self.broker.address, *arguments], input=input,
                              capture_output=True, timeout=60)
        self.assertEqual(code, done.returncode, (arguments, done.stdout, done.stderr))
        return done

    def json(self, *arguments, input=None):
        """One JSON object a line."""
        out = self.sluice("--output", "json", *arguments, input=input).stdout
        return [json.loads(line) for line in out.splitlines()]

    def test_a_topic_from_its_making_to_its_end(self):
        self.assertEqual(2, self.json("topic", "create", "life", "--partitions", "2", "--config", "retention.ms=1000000")[0]["partitions"])
        self.assertIn(b"life", self.sluice("topic", "list").stdout)
        self.assertEqual({"retention.ms": "2000000"},
                         self.json("topic", "alter", "life", "--config", "retention.ms=2000000")[0]["config"])
        self.assertEqual({}, self.json("topic", "alter", "life", "--unset", "retention.ms")[0]["config"])
        self.assertEqual(3, self.json("topic", "add-partitions", "life", "--partitions", "3")[0]["partitions"])
        self.assertEqual([0, 1, 2], [p["partition"] for p in self.json("topic", "describe", "life")[0]["partition_list"]])
        self.sluice("topic", "delete", "life")
        self.sluice("topic", "describe", "life", code=4)

    def test_what_is_produced_is_consumed_with_keys_headers_and_bytes_unchanged(self):
        self.sluice("topic", "create", "bytes")
        lines = [b"k1:plain", "k2:Grüße \U0001f600".encode(), b"k3:quote\" back\\slash \x01", b"k4:\xff\xfe", b"k5:", b"k6:a:b"]
        answers = self.json("produce", "bytes", "--key-sep", ":", "--header", "h=1", "--header", "h=2", "--codec", "zstd",
                            input=b"\n".join(lines))
        first = answers[0]["offset"]
        self.assertEqual(list(range(first, first + 6)), [a["offset"] for a in answers])
        records = self.json("consume", "bytes", "--from", "earliest")
        for line, record in zip(lines, records, strict=True):
            key, value = line.split(b":", 1)
            self.assertEqual(key.decode(), record["key"])
            got = record["value"]
            self.assertEqual(value, base64.b64decode(got["base64"]) if isinstance(got, dict) else got.encode())
            self.assertEqual([{"key": "h", "value": "1"}, {"key": "h", "value": "2"}], record["headers"])
        raw = self.sluice("consume", "bytes", "--from", "earliest").stdout
        self.assertEqual(b"".join(line.split(b":", 1)[1] + b"\n" for line in lines), raw)
        one = self.sluice("consume", "bytes", "--from", str(first + 3), "--partition", "0", "--max", "1", "--format", "hex").stdout
        self.assertEqual(b"fffe\n", one)

    def test_a_hundred_thousand_lines_are_acknowledged_in_order_and_come_back_in_order(self):
        self.sluice("topic", "create", "many")
        text = b"".join(b"line %d\n" % i for i in range(100000))
        offsets = [a["offset"] for a in self.json("produce", "many", input=text)]
        self.assertEqual(list(range(offsets[0], offsets[0] + 100000)), offsets)
        self.assertEqual(text, self.sluice("consume", "many", "--from", "earliest").stdout)

    def test_keys_spread_over_partitions_and_offsets_and_deletion_tell_where_they_begin(self):
        self.sluice("topic", "create", "spread", "--partitions", "3")
        answers = self.json("produce", "spread", "--key-sep", "=", input=b"".join(b"k%d=v\n" % i for i in range(60)))
        self.assertEqual({0, 1, 2}, {a["partition"] for a in answers})
        self.assertEqual(60, len(self.json("consume", "spread", "--from", "earliest")))
        last = max(a["offset"] for a in answers if a["partition"] == 1)
        found = {p["partition"]: p for p in self.json("offsets", "spread")[0]["partitions"]}
        self.assertEqual(last + 1, found[1]["latest_data"])
        self.assertEqual(last, self.json("records", "delete", "spread", "--partition", "1", "--before", str(last))[0]["log_start_offset"])
        left = self.json("consume", "spread", "--from", "earliest", "--partition", "1")
        self.assertEqual([last], [r["offset"] for r in left])
        self.sluice("consume", "spread", "--from", "0", "--partition", "1", code=1)
        self.assertEqual(0, len(self.json("consume", "spread", "--from", "latest")))
        self.assertEqual(0, self.json("offsets", "spread", "--time", "1h")[0]["partitions"][0]["partition"])
        self.assertEqual(len(answers) - len([a for a in answers if a["partition"] == 1]) + 1,
                         len(self.json("consume", "spread", "--from", "1h")))

    def test_follow_prints_what_comes_and_ctrl_c_ends_it(self):
        self.sluice("topic", "create", "live")
        reader = subprocess.Popen([harness.program("sluice"), "--brokers", self.broker.address, "consume", "live", "--from",
                                   "earliest", "--follow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(0.3)
        self.sluice("produce", "live", input=b"now\n")
        self.assertEqual(b"now\n", reader.stdout.readline())
        reader.send_signal(signal.SIGINT)
        _, stderr = reader.communicate(timeout=60)
        self.assertEqual((130, b""), (reader.returncode, stderr))

    def test_an_acknowledgement_comes_while_the_input_is_still_open(self):
        self.sluice("topic", "create", "open")
        writer = subprocess.Popen([harness.program("sluice"), "--brokers", self.broker.address, "--output", "json", "produce", "open"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        writer.stdin.write(b"first\n")
        writer.stdin.flush()
        self.assertIn("offset", json.loads(writer.stdout.readline()))
        writer.send_signal(signal.SIGINT)
        writer.stdin.close()
        self.assertEqual(130, writer.wait(timeout=60))
        writer.stdout.close()

    def test_the_cluster_and_its_nodes(self):
        status = self.json("cluster", "status")[0]
        self.assertEqual(1, len(status["nodes"]))
        self.assertTrue(self.json("node", "list")[0]["nodes"][0]["alive"])
        self.assertEqual("alive", status["nodes"][0]["state"])
        self.assertEqual([0, 0, 0], [status[k] for k in ["under_replicated_partitions", "leaderless_partitions", "offline_partitions"]])
        self.sluice("node", "list")
        self.assertIn(b"under-replicated  0\n", self.sluice("cluster", "status").stdout)
        self.assertIn(b"sluice 0.", self.sluice("version").stdout)

    def test_partitions_are_listed_with_their_replicas_and_a_leader_is_elected(self):
        self.sluice("topic", "create", "parts", "--partitions", "3", "--replicas", "1")
        listed = self.json("partition", "list", "--topic", "parts")[0]["partitions"]
        self.assertEqual([("parts", 0), ("parts", 1), ("parts", 2)], [(p["topic"], p["partition"]) for p in listed])
        node = listed[0]["leader_node"]
        self.assertEqual([{"node": node, "learner": False, "in_sync": True, "lag": 0}], listed[0]["replicas"])
        self.assertEqual(node, listed[0]["preferred_leader"])
        self.assertEqual(3, len(self.json("partition", "list", "--topic", "parts", "--node", str(node))[0]["partitions"]))
        for nothing in [["--under-replicated"], ["--leaderless"], ["--node", "77"]]:
            self.assertEqual([], self.json("partition", "list", *nothing)[0]["partitions"], nothing)
        self.assertIn(b"PREFERRED", self.sluice("partition", "list").stdout)
        self.assertIn(b"REPLICAS", self.sluice("topic", "describe", "parts").stdout)
        self.assertEqual(node, self.json("partition", "elect", "parts", "--partition", "1")[0]["leader_node"])
        self.sluice("partition", "elect", "parts", "--partition", "1", "--node", str(node))
        self.sluice("partition", "elect", "parts", "--partition", "1", "--node", "77", code=2)
        self.sluice("partition", "elect", "parts", "--partition", "9", code=4)
        self.sluice("partition", "elect", "nowhere", "--partition", "0", code=4)
        self.sluice("partition", "list", "--topic", "nowhere", code=4)

    def test_one_broker_of_the_list_that_answers_is_enough(self):
        self.sluice("topic", "create", "reached")
        many = f"127.0.0.1:1,{self.broker.address},127.0.0.1:2"
        made = subprocess.run([harness.program("sluice"), "--brokers", many, "produce", "reached"], input=b"v\n",
                              capture_output=True, timeout=60)
        self.assertEqual(0, made.returncode, made.stderr)
        self.assertEqual(["v"], [r["value"] for r in self.json("consume", "reached", "--from", "earliest")])

    def test_the_clients_example_program_reads_back_what_it_wrote(self):
        self.sluice("topic", "create", "example", "--partitions", "3")
        for again in range(2):
            done = subprocess.run([harness.program("sluice-client-example"), self.broker.address], capture_output=True, text=True, timeout=60)
            self.assertEqual((0, ""), (done.returncode, done.stderr))
            self.assertEqual([f"record {i}" for i in range(10)], [line.split(": ")[1] for line in done.stdout.splitlines()[1:]], again)
        missing = subprocess.run([harness.program("sluice-client-example"), self.broker.address, "nowhere"], capture_output=True, text=True,
                                 timeout=60)
        self.assertEqual(1, missing.returncode)
        self.assertIn("nowhere", missing.stderr)

    def test_wrong_usage_and_what_is_not_there_have_their_exit_codes(self):
        self.sluice("topic", "create", "codes")
        for arguments in [["topic"], ["nonsense"], ["topic", "create"], ["consume", "codes", "--from", "never"],
                          ["consume", "codes", "--max", "0"], ["produce", "codes", "--codec", "rar"], ["--timeout", "soon", "topic", "list"],
                          ["topic", "create", "x", "--config", "novalue"], ["topic", "create", "no/slash"], ["topic", "create", "__mine"],
                          ["records", "delete", "codes", "--partition", "0", "--before", "x"],
                          ["partition", "elect", "codes"], ["partition", "list", "--node", "0"]]:
            self.assertTrue(self.sluice(*arguments, code=2).stderr, arguments)
        for arguments in [["produce", "nowhere"], ["consume", "nowhere"], ["topic", "delete", "nowhere"], ["offsets", "nowhere"],
                          ["produce", "codes", "--partition", "9"], ["consume", "codes", "--partition", "9"], ["log", "dump", "/nowhere"]]:
            self.assertTrue(self.sluice(*arguments, code=4, input=b"x\n").stderr, arguments)
        self.sluice("topic", "create", "codes", code=1)
        dead = subprocess.run([harness.program("sluice"), "topic", "list"], env={**os.environ, "SLUICE_BROKERS": "127.0.0.1:1"},
                              capture_output=True, timeout=60)
        self.assertEqual(3, dead.returncode)
        self.assertIn(b"127.0.0.1:1", dead.stderr)

    def test_every_command_has_help_with_an_example(self):
        waiting, seen = [[]], []
        while waiting:
            command = waiting.pop()
            text = self.sluice(*command, "--help").stdout.decode()
            self.assertRegex(text, r"Examples?:\n +(\w+ [^|\n]*\| )?sluice ", command)
            seen.append(" ".join(command))
            below = re.search(r"^Subcommands:\n((?: +.*\n)*)", text, re.MULTILINE)
            waiting += [command + [line.split()[0]] for line in (below.group(1).splitlines() if below else []) if re.match(r"  \w", line)]
        self.assertLessEqual({"topic create", "produce", "consume", "offsets", "records delete", "cluster status", "node list", "partition list",
                              "partition elect", "log dump", "version"}, set(seen))

    def test_every_answer_is_json_when_asked_and_nothing_else_is_printed(self):
        self.sluice("topic", "create", "quiet")
        for command in [["topic", "list"], ["topic", "list", "--internal"], ["topic", "describe", "quiet"], ["offsets", "quiet"],
                        ["offsets", "quiet", "--time", "1h"], ["produce", "quiet"], ["consume", "quiet", "--from", "earliest"],
                        ["records", "delete", "quiet", "--partition", "0", "--before", "latest"], ["cluster", "status"], ["node", "list"],
                        ["partition", "list"], ["partition", "elect", "quiet", "--partition", "0"], ["topic", "create", "still"],
                        ["topic", "add-partitions", "quiet", "--partitions", "2"],
                        ["version"], ["topic", "alter", "quiet", "--config", "retention.ms=5000"], ["topic", "delete", "quiet"]]:
            done = self.sluice("--output", "json", *command, input=b"x\n")
            self.assertEqual(b"", done.stderr, command)
            lines = done.stdout.splitlines()
            self.assertEqual(1, len(lines), (command, lines))
            self.assertIsInstance(json.loads(lines[0]), dict, command)


class Dump(unittest.TestCase):
    def test_a_dump_finds_every_record_after_a_kill_and_after_a_stop_and_sees_damage(self):
        with tempfile.TemporaryDirectory(prefix="sluice-dump-") as folder:
            broker = harness.Broker(folder).start()
            try:
                broker.sluice("topic", "create", "t")
                values = [f"value {i}" for i in range(500)]
                broker.sluice("produce", "t", input="\n".join(values[:250]))
                data = os.path.join(folder, "data")
                self.assertEqual(1, self.dump(data)[0])  # a broker has it open
                broker.kill()
                self.check(data, values[:250])
                broker.start()
                broker.sluice("produce", "t", input="\n".join(values[250:]))
                broker.stop()
                self.check(data, values)
                segments = [os.path.join(root, name) for root, _, names in os.walk(os.path.join(data, "topics"))
                            for name in names if name.endswith(".log")]
                largest = max(segments, key=os.path.getsize)
                with open(largest, "r+b") as file:
                    file.seek(200)
                    byte = file.read(1)[0]
                    file.seek(200)
                    file.write(bytes([byte ^ 1]))
                code, lines = self.dump(largest)
                self.assertEqual(1, code)
                self.assertEqual([largest], [line["file"] for line in lines if line["kind"] == "damage"])
            finally:
                broker.kill()

    def dump(self, path):
        done = subprocess.run([harness.program("sluice"), "--output", "json", "log", "dump", path, "--records"],
                              capture_output=True, timeout=60)
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def check(self, data, values):
        code, lines = self.dump(data)
        self.assertEqual(0, code, lines[-3:])
        # The controller's own topic has records too, in another form.
        shown = [str(line.get("value")) for line in lines if line["kind"] == "record"]
        self.assertEqual(values, [value for value in shown if value.startswith("value ")])


if __name__ == "__main__":
    unittest.main(verbosity=2)
