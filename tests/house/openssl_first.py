#!/usr/bin/env python3
"""Fails unless a program's NEEDED list has the system's libssl, libcrypto and libsimdjson before libparquet."""

import re
import subprocess
import sys


def problem(needed):
    """What is wrong with this NEEDED list, or None."""
    def position(name):
        return next((i for i, library in enumerate(needed) if library.startswith(name)), None)

    parquet = position("libparquet.so")
    if parquet is None:
        return "libparquet is not linked: this test has lost its subject"
    for name in ("libssl.so", "libcrypto.so", "libsimdjson.so"):
        at = position(name)
        if at is None:
            return f"{name} is not linked"
        if at > parquet:
            return f"{name} stands after libparquet, so its symbols come from libparquet"
    return None


def main():
    listing = subprocess.run(["readelf", "-d", sys.argv[1]], check=True, capture_output=True, text=True).stdout
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", listing)
    wrong = problem(needed)
    if wrong:
        print(f"{sys.argv[1]}: {wrong}\nNEEDED: {' '.join(needed)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
