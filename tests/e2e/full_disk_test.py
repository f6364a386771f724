#!/usr/bin/env python3
"""A broker on a small disk that fills up: writers get an error that names topic and partition, readers go on, the process
lives, no acknowledged record is lost, and it takes writes again once there is space.

The disk is a tmpfs of its own, in a mount namespace that ends with the test; where there can be none (a user in a chroot) sudo
mounts it. Where no mount is allowed (a container) it is /dev/shm, if that is small."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request

import harness

MIB = 1 << 20
DISK = 64 * MIB
IN_NAMESPACE = "SLUICE_FULL_DISK_NAMESPACE"


def enter_namespace():
    """Runs this script again where it may mount; returns where it may not."""
    for options in [["--mount"], ["--user", "--map-root-user", "--mount"]]:
        command = ["unshare", *options, "--propagation", "private"]
        with tempfile.TemporaryDirectory() as probe:
            tried = subprocess.run([*command, "mount", "-t", "tmpfs", "none", probe], capture_output=True)
        if tried.returncode == 0:
            os.environ[IN_NAMESPACE] = "1"
            os.execvp("unshare", [*command, sys.executable, *sys.argv])


def make_disk():
    """(folder, how to give it back)"""
    as_root = [] if IN_NAMESPACE in os.environ else ["sudo", "-n"]
    if not as_root or shutil.which("sudo"):
        folder = tempfile.mkdtemp(prefix="sluice-disk-")
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK},uid={os.getuid()},mode=700", "none", folder]
        if subprocess.run([*as_root, *mount], check=not as_root).returncode == 0:
            return folder, lambda: (subprocess.run([*as_root, "umount", folder], check=True), os.rmdir(folder))
        os.rmdir(folder)
    space = os.statvfs("/dev/shm")
    if space.f_blocks * space.f_frsize > 4 * DISK:
        raise RuntimeError("this test needs a small disk: the right to mount a tmpfs (root, user namespaces or sudo), or a small /dev/shm")
    folder = tempfile.mkdtemp(prefix="sluice-disk-", dir="/dev/shm")
    return folder, lambda: shutil.rmtree(folder)


class FullDisk(unittest.TestCase):
    def setUp(self):
        logs = tempfile.mkdtemp(prefix="sluice-e2e-")
        self.addCleanup(shutil.rmtree, logs)
        self.logs = logs
        self.disk, give_back = make_disk()
        self.addCleanup(give_back)
        self.written = []

    def start(self, storage):
        self.broker = harness.Broker(self.logs, f"storage: {{ journal_bytes: 64MiB, {storage} }}\n", data_dir=f"{self.disk}/data")
        self.broker.start()
        self.addCleanup(lambda: self.broker.process.alive() and self.broker.kill())
        self.broker.sluice("topic", "create", "t", "--config", "segment.bytes=1048576")

    def free(self):
        space = os.statvfs(self.disk)
        return space.f_bavail * space.f_frsize

    def fill_but(self, left):
        """Leaves `left` bytes free."""
        with open(os.path.join(self.disk, "ballast"), "ab") as file:
            os.posix_fallocate(file.fileno(), file.tell(), self.free() - left)

    def make_space(self):
        os.remove(os.path.join(self.disk, "ballast"))

    def produce(self, count, size=20_000):
        """Writes `count` records and remembers those acknowledged; (exit code, what it said)."""
        first = len(self.written)
        values = [f"{first + i}/{count} ".ljust(size, "x") for i in range(count)]
        done = self.broker.sluice("--timeout", "8s", "--output", "json", "produce", "t", input="\n".join(values), check=False)
        self.assertTrue(self.broker.process.alive(), self.broker.process.tail())
        for value, line in zip(values, done.stdout.splitlines()):
            if json.loads(line)["offset"] is not None:
                self.written.append((json.loads(line)["offset"], value))
        return done.returncode, done.stderr

    def check_all_is_there(self):
        self.assertTrue(self.written)
        found = {record["offset"]: record["value"] for record in self.broker.consume("t")}
        for offset, value in self.written:
            self.assertEqual(value, found.get(offset), f"acknowledged at {offset}")

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.broker.http}/metrics", timeout=10) as response:
            for line in response.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        self.fail(f"no metric {name}")

    def refusing(self):
        return self.metric("sluice_broker_disk_refusing_writes") == 1

    def test_below_the_low_watermark_writers_are_refused_until_there_is_space(self):
        self.start("disk_low_watermark: 16MiB, disk_high_watermark: 24MiB")
        self.assertEqual(0, self.produce(20)[0])
        self.fill_but(12 * MIB)
        harness.wait_until("it sees that space is short", self.refusing)
        code, said = self.produce(5)
        self.assertEqual(5, code, said)
        for words in ("t/0", "not written", "the disk has", "bytes free"):
            self.assertIn(words, said)
        self.check_all_is_there()
        # Space is also short for a broker that starts: it serves readers.
        self.broker.kill()
        self.broker.start()
        self.check_all_is_there()
        self.assertEqual(5, self.produce(1)[0])
        self.make_space()
        harness.wait_until("it sees that there is space", lambda: not self.refusing())
        self.assertEqual(0, self.produce(20)[0])
        self.check_all_is_there()
        self.broker.stop()

    def test_not_a_byte_left_ends_in_an_error_and_never_in_a_crash(self):
        self.start("disk_low_watermark: 0")
        self.assertEqual(0, self.produce(20)[0])
        self.fill_but(0)
        # The journal's file is there already: it takes what fits, and then it is over.
        code, said = self.produce(1000)
        self.assertEqual(5, code, said)
        for words in ("t/0", "not written", "space"):
            self.assertIn(words, said)
        self.assertEqual(5, self.produce(1)[0])
        self.check_all_is_there()
        self.make_space()
        harness.wait_until("it takes writes again", lambda: self.produce(1)[0] == 0)
        self.assertEqual(0, self.produce(20)[0])
        self.check_all_is_there()
        self.broker.stop()

    def test_killed_with_not_a_byte_left_it_starts_again_once_there_is_space(self):
        self.start("disk_low_watermark: 0")
        self.assertEqual(0, self.produce(20)[0])
        self.fill_but(0)
        self.assertEqual(5, self.produce(1000)[0])
        self.broker.kill()
        done = subprocess.run([harness.program("sluiced"), "--config", self.broker.config], capture_output=True, text=True, timeout=60)
        self.assertEqual(1, done.returncode, done.stderr)
        self.assertIn(self.disk, done.stderr.splitlines()[-1])
        self.assertIn("space", done.stderr.splitlines()[-1])
        self.make_space()
        self.broker.start()
        self.check_all_is_there()
        self.assertEqual(0, self.produce(20)[0])
        self.check_all_is_there()

    def test_it_ends_in_time_though_a_record_waits_for_room(self):
        self.start("disk_low_watermark: 0")
        self.broker.sluice("topic", "create", "large", "--config", "max.message.bytes=12582912", "--config", "segment.bytes=16777216")
        self.assertEqual(0, self.produce(20)[0])
        self.fill_but(0)
        # More than a file of the journal: it makes one grow, for which there is no room, and is not refused before.
        record = os.path.join(self.logs, "record")
        with open(record, "w", encoding="utf-8") as file:
            file.write("x" * (10 * MIB))
        with open(record, encoding="utf-8") as file:
            writer = subprocess.Popen([harness.program("sluice"), "--brokers", self.broker.address, "--timeout", "60s", "produce", "large"],
                                      stdin=file, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(lambda: writer.poll() is None and writer.kill())
        harness.wait_until("the record waits in the journal", lambda: self.metric("sluice_broker_journal_queued_bytes") > 10 * MIB, 15)
        time.sleep(1)
        self.assertIsNone(writer.poll())
        began = time.monotonic()
        self.broker.stop()
        self.assertLess(time.monotonic() - began, 15)
        said = writer.communicate(timeout=90)[0]
        self.assertEqual(1, writer.returncode, said)
        for words in ("outcome is not known", "no space left on device"):
            self.assertIn(words, said)
        self.make_space()
        self.broker.start()
        self.check_all_is_there()
        self.assertEqual([], self.broker.consume("large"))
        self.assertEqual(0, self.produce(20)[0])
        self.broker.stop()


if __name__ == "__main__":
    if IN_NAMESPACE not in os.environ:
        enter_namespace()
    unittest.main()
