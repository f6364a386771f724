#!/usr/bin/env python3
"""The README's five minutes, run as they stand there: every command of a code block in one shell, first the tour, then the cluster.

It uses the standard ports, so it has a network of its own where that is allowed; otherwise they must be free."""

import fcntl
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

import harness

OWN_NETWORK = "SLUICE_README_NETWORK"


def enter_network():
    """Runs this script again in a network of its own; returns where that may not be."""
    for options in [["--net"], ["--user", "--map-root-user", "--net"]]:
        if subprocess.run(["unshare", *options, "true"], capture_output=True).returncode == 0:
            os.environ[OWN_NETWORK] = "1"
            os.execvp("unshare", ["unshare", *options, sys.executable, *sys.argv])


def loopback_up():
    """`ip link set lo up`, on machines that have no ip."""
    siocsifflags, iff_up = 0x8914, 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, siocsifflags, struct.pack("16sh14x", b"lo", iff_up))


def blocks():
    """The code blocks of the section, in order."""
    with open(os.path.join(harness.ROOT, "README.md"), encoding="utf-8") as file:
        section = re.search(r"^## Five minutes\n(.*?)^## ", file.read(), re.DOTALL | re.MULTILINE).group(1)
    return re.findall(r"^```\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)


class Readme(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="sluice-readme-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.bin = os.path.join(self.folder, "bin")
        os.symlink(os.environ.get("SLUICE_BIN") or os.path.join(harness.ROOT, "bin"), self.bin)
        os.symlink(os.environ.get("SLUICE_DEPS") or os.path.join(harness.ROOT, ".deps"), os.path.join(self.folder, ".deps"))
        for name in "deploy", "dev":
            os.symlink(os.path.join(harness.ROOT, name), os.path.join(self.folder, name))

    def run_script(self, script):
        """What it said; the programs are those that were built already."""
        with open(os.path.join(self.folder, "output"), "w+", encoding="utf-8") as output:
            # -m: jobs have numbers, as in a shell that a person types into.
            code = subprocess.run(["bash", "-emc", script], cwd=self.folder, stdout=output, stderr=subprocess.STDOUT,
                                  stdin=subprocess.DEVNULL, timeout=240, env={**os.environ, "SLUICE_BIN": self.bin}).returncode
            output.seek(0)
            out = output.read()
        self.assertEqual(0, code, out)
        return out

    def test_all_blocks_are_run(self):
        self.assertEqual(2, len(blocks()))

    def test_the_tour_does_what_it_says(self):
        lines = blocks()[0].splitlines(keepends=True)
        self.assertTrue(lines[0].startswith("./dev build"), lines[0])
        # In the end it waits for what it told to end.
        out = self.run_script("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + "".join(lines[1:]) + "wait\n")
        self.assertIn('"key":"Hans","value":"first"', out)
        self.assertIn('"key":"Eva","value":"second"', out)
        days = re.findall(r"│ *(\d{4}-\d\d-\d\d) *│ *(\d+) *│ *([\d.]+) *│", out)
        self.assertEqual(1707, sum(int(count) for _, count, _ in days), out)
        self.assertTrue(os.listdir(os.path.join(self.folder, "lake")))

    def test_the_cluster_does_what_it_says(self):
        block = blocks()[1]
        before_the_end = "./dev cluster down"
        self.assertEqual(1, block.count(before_the_end))
        # What is there in the end is looked at before the block gives it up.
        look = "bin/sluice consume safe --from earliest >everything\n"
        script = "trap './dev cluster down --delete' EXIT\n" + block.replace(before_the_end, look + before_the_end)
        out = self.run_script(script)
        self.assertEqual(2, out.count("1000 records written to safe"), out)
        with open(os.path.join(self.folder, "everything"), encoding="utf-8") as file:
            self.assertEqual([str(number) for number in range(1, 1001)] * 2, file.read().split())
        self.assertRegex(out, r"(?m)^safe ")  # of `partition list`
        self.assertEqual([], os.listdir(os.path.join(self.folder, "sluice-cluster")))


if __name__ == "__main__":
    if OWN_NETWORK not in os.environ:
        enter_network()
    else:
        loopback_up()
    unittest.main()
