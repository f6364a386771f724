#!/usr/bin/env python3
"""The README's five-minute tour, run as it stands there: every command of its code block, in one shell.

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


def tour():
    with open(os.path.join(harness.ROOT, "README.md"), encoding="utf-8") as file:
        block = re.search(r"## Five minutes\n\n```\n(.*?)```", file.read(), re.DOTALL).group(1)
    lines = block.splitlines()
    # This test runs on what was built.
    assert lines[0].startswith("./dev build"), lines[0]
    return "\n".join(lines[1:]) + "\n"


class Readme(unittest.TestCase):
    def test_the_tour_does_what_it_says(self):
        folder = tempfile.mkdtemp(prefix="sluice-readme-")
        self.addCleanup(shutil.rmtree, folder)
        os.symlink(os.environ.get("SLUICE_BIN") or os.path.join(harness.ROOT, "bin"), os.path.join(folder, "bin"))
        os.symlink(os.environ.get("SLUICE_DEPS") or os.path.join(harness.ROOT, ".deps"), os.path.join(folder, ".deps"))
        os.symlink(os.path.join(harness.ROOT, "deploy"), os.path.join(folder, "deploy"))
        # -m: jobs have numbers, as in a shell that a person types into. In the end it waits for what it told to end.
        script = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n" + tour() + "wait\n"
        with open(os.path.join(folder, "output"), "w+", encoding="utf-8") as output:
            code = subprocess.run(["bash", "-emc", script], cwd=folder, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                  timeout=240).returncode
            output.seek(0)
            out = output.read()
        self.assertEqual(0, code, out)
        self.assertIn('"key":"Hans","value":"first"', out)
        self.assertIn('"key":"Eva","value":"second"', out)
        days = re.findall(r"│ *(\d{4}-\d\d-\d\d) *│ *(\d+) *│ *([\d.]+) *│", out)
        self.assertEqual(1707, sum(int(count) for _, count, _ in days), out)
        self.assertTrue(os.listdir(os.path.join(folder, "lake")))


if __name__ == "__main__":
    if OWN_NETWORK not in os.environ:
        enter_network()
    else:
        loopback_up()
    unittest.main()
