#!/usr/bin/env python3
"""A broker that serves clients over TLS, with certificates made by openssl: the command line and the connector reach it with its
authority, are told what is wrong without, and get a renewed certificate."""

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


class Records(http.server.BaseHTTPRequestHandler):
    """An API with one page of two records."""

    def do_GET(self):
        body = json.dumps({"records": [{"n": 1}, {"n": 2}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="sluice-tls-")
        for authority in ("ca", "other"):
            cls.openssl("req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={authority}", *cls.new_key(authority),
                        "-out", cls.path(f"{authority}.pem"))
        cls.certificate("broker", "ca", "IP:127.0.0.1,DNS:localhost")
        cls.broker = harness.Broker(cls.folder.name)
        with open(cls.broker.config, encoding="utf-8") as file:
            config = file.read()
        with open(cls.broker.config, "w", encoding="utf-8") as file:
            file.write(config.replace("listen: { grpc: 127.0.0.1:", "listen: { tls: { cert: broker.pem, key: broker.key }, grpc: 0.0.0.0:")
                       + f"advertise: {{ grpc: {cls.broker.address} }}\n")
        cls.broker.start()

    @classmethod
    def tearDownClass(cls):
        cls.broker.kill()
        cls.folder.cleanup()

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    @classmethod
    def openssl(cls, *arguments):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)

    @classmethod
    def new_key(cls, name):
        return "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-keyout", cls.path(f"{name}.key")

    @classmethod
    def certificate(cls, name, authority, names):
        with open(cls.path(f"{name}.ext"), "w", encoding="utf-8") as file:
            file.write(f"subjectAltName={names}\n")
        cls.openssl("req", "-nodes", "-subj", f"/CN={name}", *cls.new_key(name), "-out", cls.path(f"{name}.csr"))
        cls.openssl("x509", "-req", "-in", cls.path(f"{name}.csr"), "-CA", cls.path(f"{authority}.pem"),
                    "-CAkey", cls.path(f"{authority}.key"), "-CAcreateserial", "-days", "2",
                    "-extfile", cls.path(f"{name}.ext"), "-out", cls.path(f"{name}.pem"))

    def sluice(self, *arguments, code=0, input=None, brokers=None, environment=None):
        done = subprocess.run([harness.program("sluice"), "--brokers", brokers or self.broker.address, *arguments], input=input,
                              text=True, capture_output=True, timeout=60, env={**os.environ, **(environment or {})}, check=False)
        self.assertEqual(code, done.returncode, (arguments, done.stdout, done.stderr))
        return done

    def over_tls(self, *arguments, **more):
        return self.sluice("--tls-ca", self.path("ca.pem"), *arguments, **more)

    def assert_told(self, words, *arguments, **more):
        """One line, within seconds."""
        start = time.monotonic()
        told = self.sluice(*arguments, **more).stderr
        self.assertLess(time.monotonic() - start, 10)
        self.assertIn(words, told)
        self.assertEqual(1, told.count("\n"), told)

    def test_records_go_through_with_the_authority_given_either_way(self):
        self.over_tls("topic", "create", "either")
        self.over_tls("produce", "either", input="one\ntwo\n")
        done = self.sluice("consume", "either", "--from", "earliest", environment={"SLUICE_TLS_CA": self.path("ca.pem")})
        self.assertEqual("one\ntwo\n", done.stdout)
        self.over_tls("topic", "list", brokers=f"localhost:{self.broker.grpc}")

    def test_without_the_right_authority_it_is_not_reachable_and_says_why(self):
        self.assert_told("speaks TLS", "topic", "list", code=3)
        self.assert_told("authorities", "--tls-ca", self.path("other.pem"), "topic", "list", code=3)

    def test_a_broker_called_by_a_name_that_its_certificate_does_not_have_is_refused(self):
        self.assert_told("certificate", "--tls-ca", self.path("ca.pem"), "topic", "list", brokers=f"127.0.0.2:{self.broker.grpc}", code=3)

    def test_a_file_of_authorities_that_is_none_is_wrong_usage(self):
        self.assertIn("holds no certificate", self.sluice("--tls-ca", self.path("ca.key"), "topic", "list", code=2).stderr)
        self.assertIn("nowhere.pem", self.sluice("--tls-ca", self.path("nowhere.pem"), "topic", "list", code=2).stderr)
        self.sluice("--tls-ca", "", "topic", "list", code=2)

    def test_a_start_with_files_that_do_not_belong_together_fails_and_names_the_file(self):
        done = subprocess.run([harness.program("sluiced"), "--set", f"node.data_dir={self.path('wrong')}", "--set", "listen.grpc=127.0.0.1:0",
                               "--set", "listen.peer=127.0.0.1:0", "--set", "listen.http=127.0.0.1:0",
                               "--set", f"listen.tls={{ cert: {self.path('broker.pem')}, key: {self.path('ca.key')} }}"],
                              capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(2, done.returncode, done.stderr)
        self.assertIn("listen.tls: ", done.stderr.splitlines()[-1])
        self.assertIn("ca.key", done.stderr.splitlines()[-1])
        self.assertFalse(os.path.exists(self.path("wrong")), "it is found before anything is made")

    def test_the_connector_pulls_into_it(self):
        api = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Records)
        threading.Thread(target=api.serve_forever, daemon=True).start()
        self.addCleanup(api.server_close)
        self.addCleanup(api.shutdown)
        with open(self.path("p.yaml"), "w", encoding="utf-8") as file:
            file.write(f"pipeline: p\nsource:\n  http:\n    url: http://127.0.0.1:{api.server_address[1]}\n    records: /records\n"
                       "topic: { name: pulled }\nsinks: [ { raw: { to: \"file://./raw\", codec: none } } ]\n")

        def run(ca):
            return subprocess.run([harness.program("sluice-connect"), "run", "--once", "--give-up-after", "3s", "p.yaml"],
                                  cwd=self.folder.name, capture_output=True, text=True, timeout=60, check=False,
                                  env={**os.environ, "SLUICE_BROKERS": self.broker.address, "SLUICE_TLS_CA": ca})

        self.assertEqual(3, run(self.path("other.pem")).returncode)
        done = run(self.path("ca.pem"))
        self.assertEqual(0, done.returncode, done.stderr)
        values = self.over_tls("consume", "pulled", "--from", "earliest").stdout.splitlines()
        self.assertEqual([{"n": 1}, {"n": 2}], [json.loads(value) for value in values])

    def test_a_renewed_certificate_is_shown_without_a_restart(self):
        self.certificate("renewed", "other", "IP:127.0.0.1,DNS:localhost")
        self.certificate("again", "ca", "IP:127.0.0.1,DNS:localhost")
        for name, authority in (("renewed", "other"), ("again", "ca")):
            for end in ("key", "pem"):
                shutil.copy(self.path(f"{name}.{end}"), self.path("new"))
                os.replace(self.path("new"), self.path(f"broker.{end}"))
            arguments = [harness.program("sluice"), "--brokers", self.broker.address, "--tls-ca", self.path(f"{authority}.pem"),
                         "topic", "list"]
            harness.wait_until("the new certificate is shown",
                               lambda command=arguments: subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0)


if __name__ == "__main__":
    unittest.main()
