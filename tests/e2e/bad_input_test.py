#!/usr/bin/env python3
"""What goes wrong in front of the programs ends in an exit code and a message that name it, and never in a hang."""

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request

import harness


def run(*arguments, folder=None, environment=None, timeout=60, input=None):
    return subprocess.run(arguments, cwd=folder, env={**os.environ, **(environment or {})}, input=input, text=True,
                          capture_output=True, timeout=timeout)


class WithFolder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="sluice-e2e-")
        self.addCleanup(shutil.rmtree, self.folder)

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def assert_says(self, done, code, *words):
        said = done.stdout + done.stderr
        self.assertEqual(code, done.returncode, said)
        for word in words:
            self.assertIn(word, said)


class Configuration(WithFolder):
    def check(self, text):
        return run(harness.program("sluiced"), "--check-config", self.write("node.yaml", text))

    def test_a_right_file_passes(self):
        self.assert_says(self.check("node: { data_dir: ./data }\n"), 0)

    def test_an_unknown_key_is_named_with_file_and_line(self):
        self.assert_says(self.check("node:\n  data_dir: ./data\n  colour: green\n"), 2, "node.yaml:3", "colour")

    def test_a_wrong_type_is_named_with_file_and_line(self):
        self.assert_says(self.check("storage:\n  segment_bytes: many\n"), 2, "node.yaml:2", "segment_bytes")

    def test_every_error_is_told_at_once_and_none_by_the_override_is_lost(self):
        path = self.write("node.yaml", "node: { id: none }\nlimits:\n  streams: -1\n  strems: 5\nlog: { level: loud }\n")
        done = run(harness.program("sluiced"), "--config", path, "--set", "listen.grpc=nowhere", "--set", "storage.segment_bytes=7",
                   folder=self.folder, timeout=60)
        self.assert_says(done, 2, "node.yaml:1", "node.id", "node.yaml:3", "limits.streams", "node.yaml:4", "limits.strems", "log.level",
                         "listen.grpc", "storage.segment_bytes")
        self.assertEqual(["node.yaml"], os.listdir(self.folder), "a refused configuration leaves nothing behind")

    def test_one_wrong_address_is_one_error(self):
        done = self.check("listen: { grpc: nowhere }\n")
        self.assert_says(done, 2, "listen.grpc")
        self.assertNotIn("advertise", done.stdout + done.stderr)

    def test_tls_files_are_checked_with_the_rest(self):
        done = self.check("listen: { tls: { cert: /nope/node.pem, key: /nope/node.key } }\n")
        self.assert_says(done, 2, "listen.tls", "/nope/node.pem")

    def test_a_file_in_the_place_of_the_data_folder_is_named_with_its_key(self):
        done = run(harness.program("sluiced"), "--set", f"node.data_dir={self.write('afile', '')}", "--set", "listen.http=127.0.0.1:0",
                   folder=self.folder)
        self.assert_says(done, 1, "node.data_dir", "afile is a file")

    def test_a_taken_port_is_named_with_its_key(self):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            for key in ("listen.grpc", "listen.peer", "listen.http"):
                ports = {each: f"127.0.0.1:{taken.getsockname()[1] if each == key else 0}" for each in ("listen.grpc", "listen.peer", "listen.http")}
                done = run(harness.program("sluiced"), *(word for each in ports for word in ("--set", f"{each}={ports[each]}")),
                           folder=self.folder)
                self.assert_says(done, 1, f"{key}: ", ports[key])

    def test_help_of_the_node_has_examples_and_all_options(self):
        self.assert_says(run(harness.program("sluiced"), "--help"), 0, "Examples:", "sluiced init --config")
        self.assert_says(run(harness.program("sluiced"), "init", "--help"), 0, "--config", "--set", "Example")

    def test_a_file_that_is_not_there_is_named(self):
        self.assert_says(run(harness.program("sluiced"), "--config", "/nowhere.yaml"), 2, "/nowhere.yaml")

    def test_broken_yaml_is_named_with_file(self):
        self.assert_says(self.check("node: [\n"), 2, "node.yaml")

    def test_a_bind_to_the_world_without_consent_is_refused(self):
        path = self.write("node.yaml", f"node: {{ data_dir: {self.folder}/data }}\nlisten: {{ grpc: 0.0.0.0:{harness.free_port()} }}\n")
        self.assert_says(run(harness.program("sluiced"), "--config", path, folder=self.folder, timeout=60), 2, "insecure")


class TheNode(WithFolder):
    def start(self):
        broker = harness.Broker(self.folder).start()
        self.addCleanup(lambda: broker.process.alive() and broker.kill())
        return broker

    def test_a_second_process_on_one_folder_is_refused(self):
        broker = self.start()
        with open(broker.config, encoding="utf-8") as file:
            text = file.read()
        for port in (broker.grpc, broker.peer, broker.http):
            text = text.replace(str(port), str(harness.free_port()))
        second = run(harness.program("sluiced"), "--config", self.write("second.yaml", text), timeout=60)
        self.assert_says(second, 1, os.path.join(self.folder, "data"), str(broker.process.process.pid))
        broker.sluice("topic", "create", "still-here")

    def test_errors_of_clients_have_their_exit_codes(self):
        broker = self.start()
        self.assert_says(broker.sluice("consume", "nowhere", "--from", "earliest", check=False), 4, "nowhere")
        self.assert_says(broker.sluice("produce", "nowhere", input="x\n", check=False), 4, "nowhere")
        self.assert_says(broker.sluice("topic", "frobnicate", check=False), 2, '"topic frobnicate"', "create")
        self.assert_says(broker.sluice("frob", check=False), 2, '"frob"', "produce")
        self.assert_says(broker.sluice("--version", check=False), 0, "sluice ")
        self.assert_says(broker.sluice("consume", "t", "--max", "-1", check=False), 2, 'at least 1, got "-1"')
        self.assert_says(broker.sluice("produce", "t", "--key-sep", "", check=False), 2, "--key-sep")
        self.assert_says(broker.sluice("topic", "create", "t", "--config", "max.message.bytes=33554432", check=False), 2,
                         "max.message.bytes", "limits.message_bytes")
        broker.sluice("topic", "create", "quakes")
        broker.sluice("produce", "quakes", input="a\nb\n")
        self.assertNotEqual(0, broker.sluice("topic", "create", "quakes", check=False).returncode)
        self.assertNotEqual(0, broker.sluice("topic", "create", "__mine", check=False).returncode)
        beyond = broker.sluice("consume", "quakes", "--from", "1000000", "--follow", "--max", "1", check=False)
        self.assert_says(beyond, 1, "quakes/0", "1000000", "out of range", "3")
        self.assert_says(broker.sluice("consume", "quakes", "--from", "99", check=False), 1, "quakes/0", "99", "out of range", "3")
        self.assert_says(broker.sluice("consume", "quakes", "--from", "3", check=False), 0)
        broker.sluice("records", "delete", "quakes", "--partition", "0", "--before", "2")
        self.assert_says(broker.sluice("consume", "quakes", "--from", "1", check=False), 1, "quakes/0", "out of range", "2",
                         "--from earliest")
        self.assertEqual(["b"], [record["value"] for record in broker.consume("quakes")])

    def test_a_record_of_ten_megabytes_is_refused_and_the_broker_goes_on(self):
        broker = self.start()
        broker.sluice("topic", "create", "big")
        refused = broker.sluice("produce", "big", input="x" * 10_000_000 + "\n", check=False)
        self.assertNotEqual(0, refused.returncode)
        broker.sluice("produce", "big", input="small\n")
        self.assertEqual(["small"], [record["value"] for record in broker.consume("big")])

    def test_a_record_that_no_message_can_carry_is_refused_for_certain(self):
        broker = self.start()
        broker.sluice("topic", "create", "lim", "--config", "max.message.bytes=16777216")
        done = broker.sluice("--output", "json", "produce", "lim", input="x" * 20_000_000 + "\n", check=False)
        self.assert_says(done, 2, "MESSAGE_TOO_LARGE", "limits.message_bytes")
        self.assertNotIn("OUTCOME_UNKNOWN", done.stdout + done.stderr)

    def test_a_dead_broker_is_reported_within_the_time_limit(self):
        started = time.monotonic()
        done = run(harness.program("sluice"), "--brokers", f"127.0.0.1:{harness.free_port()}", "--timeout", "2s", "topic", "list")
        self.assertEqual(3, done.returncode, done.stderr)
        self.assertLess(time.monotonic() - started, 30)

    def test_a_broker_that_takes_connections_and_never_answers_is_reported_within_the_time_limit(self):
        with socket.create_server(("127.0.0.1", 0)) as mute:
            address = f"127.0.0.1:{mute.getsockname()[1]}"
            for command in (["topic", "list"], ["produce", "t"], ["consume", "t"], ["offsets", "t"], ["cluster", "status"],
                            ["topic", "delete", "t"], ["node", "list"], ["partition", "list"], ["partition", "elect", "t", "--partition", "0"]):
                started = time.monotonic()
                done = run(harness.program("sluice"), "--brokers", address, "--timeout", "1s", *command, input="x\n")
                self.assert_says(done, 3, address)
                self.assertLess(time.monotonic() - started, 30, command)

    def test_a_broker_that_stops_answering_in_the_middle_is_reported_within_the_time_limit(self):
        broker = self.start()
        broker.sluice("topic", "create", "t")
        broker.sluice("produce", "t", input="x\n")
        broker.process.process.send_signal(signal.SIGSTOP)
        self.addCleanup(broker.process.process.send_signal, signal.SIGCONT)
        for command in (["topic", "list"], ["produce", "t"], ["consume", "t", "--from", "earliest"], ["topic", "delete", "t"]):
            started = time.monotonic()
            done = run(harness.program("sluice"), "--brokers", broker.address, "--timeout", "1s", *command, input="x\n")
            self.assert_says(done, 3)
            self.assertLess(time.monotonic() - started, 30, command)

    def test_ctrl_c_ends_a_command_that_waits_for_a_broker(self):
        with socket.create_server(("127.0.0.1", 0)) as mute:
            address = f"127.0.0.1:{mute.getsockname()[1]}"
            for command in (["topic", "list"], ["topic", "create", "t"], ["topic", "describe", "t"], ["topic", "delete", "t"],
                            ["produce", "t"], ["consume", "t"], ["consume", "t", "--follow"], ["offsets", "t"], ["cluster", "status"],
                            ["records", "delete", "t", "--partition", "0", "--before", "1"], ["node", "list"], ["partition", "list"],
                            ["partition", "elect", "t", "--partition", "0"]):
                waiting = subprocess.Popen([harness.program("sluice"), "--brokers", address, "--timeout", "60s", *command],
                                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                with mute.accept()[0]:
                    time.sleep(0.2)
                    waiting.send_signal(signal.SIGINT)
                    out, err = waiting.communicate(timeout=60)
                self.assertEqual((130, b"", b""), (waiting.returncode, out, err), command)

    def test_it_says_that_it_is_well_and_what_it_does(self):
        broker = self.start()
        self.assertTrue(harness.answers(f"http://127.0.0.1:{broker.http}/healthz"))
        with urllib.request.urlopen(f"http://127.0.0.1:{broker.http}/metrics", timeout=5) as response:
            self.assertIn("sluice_broker_", response.read().decode())
        broker.stop()

    def test_a_corrupted_journal_refuses_to_start_and_names_the_file(self):
        broker = self.start()
        broker.sluice("topic", "create", "quakes")
        for number in range(20):
            broker.sluice("produce", "quakes", input=f"record {number}\n")
        broker.kill()
        journal = sorted(glob.glob(os.path.join(self.folder, "data", "journal", "*.journal")))[0]
        with open(journal, "r+b") as file:
            at = file.read().find(b"record 3")
            self.assertGreater(at, 0, "the record is not in the journal: this test has lost its subject")
            file.seek(at)
            file.write(b"RECORD 3")
        done = run(harness.program("sluiced"), "--config", broker.config, timeout=60)
        self.assertNotEqual(0, done.returncode)
        self.assertIn(os.path.basename(journal), done.stdout + done.stderr)


class Pipelines(WithFolder):
    PIPELINE = ("pipeline: p\nsource:\n  http:\n    url: {url}\n    records: /features\n    schedule: once\n"
                "topic: {{ name: quakes }}\nsinks:\n  - raw: {{ to: \"file://./raw\" }}\n")

    def lint(self, text):
        return run(harness.program("sluice-connect"), "lint", self.write("p.yaml", text))

    def test_a_right_pipeline_passes(self):
        self.assert_says(self.lint(self.PIPELINE.format(url="http://127.0.0.1:1/quakes")), 0)

    def test_the_shipped_examples_pass(self):
        examples = sorted(glob.glob(os.path.join(harness.ROOT, "deploy", "examples", "*.yaml")))
        self.assertGreaterEqual(len(examples), 2)
        self.assert_says(run(harness.program("sluice-connect"), "lint", *examples), 0)

    def test_an_unknown_key_is_named_with_file_and_line(self):
        text = self.PIPELINE.format(url="http://127.0.0.1:1/quakes").replace("    records:", "    recrods:")
        self.assert_says(self.lint(text), 2, "p.yaml:5", "recrods")

    def test_a_wrong_type_and_a_missing_key_are_named_with_file_and_line(self):
        right = self.PIPELINE.format(url="http://127.0.0.1:1/quakes")
        self.assert_says(self.lint(right.replace("schedule: once", "timeout: soon")), 2, "p.yaml:6", "timeout")
        self.assert_says(self.lint(right.replace('{ to: "file://./raw" }', '{ to: "file://./raw", roll: { records: many } }')), 2, "p.yaml:9",
                         "records")
        self.assert_says(self.lint(right.replace("{ name: quakes }", "[quakes]")), 2, "p.yaml:7", "topic")
        self.assert_says(self.lint(right.replace("topic: { name: quakes }\n", "")), 2, "p.yaml", "topic")
        self.assert_says(self.lint("pipeline: [\n"), 2, "p.yaml")
        self.assert_says(run(harness.program("sluice-connect"), "lint", "/nowhere.yaml"), 2, "/nowhere.yaml")

    def test_a_run_of_a_wrong_file_or_without_a_broker_says_so(self):
        path = self.write("p.yaml", self.PIPELINE.format(url="http://127.0.0.1:1/quakes"))
        nobody = f"127.0.0.1:{harness.free_port()}"
        done = run(harness.program("sluice-connect"), "run", path, "--once", "--give-up-after", "1s", folder=self.folder,
                   environment={"SLUICE_BROKERS": nobody})
        self.assert_says(done, 3, nobody)
        wrong = self.write("wrong.yaml", "pipeline: p\ncolour: green\n")
        self.assert_says(run(harness.program("sluice-connect"), "run", wrong, "--once", folder=self.folder), 2, "wrong.yaml:2", "colour")

    def test_every_command_has_help_with_an_example(self):
        for command in ([], ["run"], ["lint"], ["test"]):
            done = run(harness.program("sluice-connect"), *command, "--help")
            self.assert_says(done, 0, "Example")
            self.assertRegex(done.stdout, r"Examples?:\n +sluice-connect " + (" ".join(command) or r"\w+ ") + r"[^\n]*\.yaml", command)
        self.assert_says(run(harness.program("sluice-connect"), "--help"), 0, "130 interrupted")

    def test_ctrl_c_ends_a_test_whose_api_does_not_answer(self):
        with socket.create_server(("127.0.0.1", 0)) as mute:
            path = self.write("p.yaml", self.PIPELINE.format(url=f"http://127.0.0.1:{mute.getsockname()[1]}/"))
            waiting = subprocess.Popen([harness.program("sluice-connect"), "test", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            with mute.accept()[0]:
                waiting.send_signal(signal.SIGINT)
                self.assertEqual((b"", b""), waiting.communicate(timeout=30))
            self.assertEqual(130, waiting.returncode)

    def test_a_secret_that_is_not_there_is_named(self):
        text = self.PIPELINE.format(url="http://127.0.0.1:1/quakes").replace(
            "    records:", "    auth: { bearer: \"${env:NO_SUCH_TOKEN}\" }\n    records:")
        self.assert_says(self.lint(text), 2, "NO_SUCH_TOKEN")


if __name__ == "__main__":
    unittest.main()
