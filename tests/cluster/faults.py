"""What a test tells a node's `faults.cc`, which is loaded into it, and what that did."""

import mmap
import os
import struct

import harness

# The order is that of `Control` in faults.cc.
FIELDS = ["clock_shift_ns", "syncs_to_fail", "writes_to_fail", "sync_delay_us", "free_bytes", "clock_reads_shifted",
          "syncs_failed", "writes_failed", "syncs_delayed", "writes_without_space"]
ALL = -1  # of syncs_to_fail and writes_to_fail


def library():
    path = os.path.join(os.path.dirname(harness.program("sluiced")), "libsluice_test_faults.so")
    # A library that is not there would be passed over with a warning, and every fault with it.
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} is not built")
    return path


class Faults:
    """Of one node, over all of its processes: the counters only grow."""

    def __init__(self, path, under):
        self.path, self.under = path, under
        with open(path, "wb") as file:
            file.write(bytes(mmap.PAGESIZE))
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), mmap.PAGESIZE)

    def environment(self):
        return {"LD_PRELOAD": library(), "SLUICE_FAULTS": self.path, "SLUICE_FAULTS_UNDER": self.under}

    def __getitem__(self, field):
        return struct.unpack_from("<q", self.memory, 8 * FIELDS.index(field))[0]

    def __setitem__(self, field, value):
        struct.pack_into("<q", self.memory, 8 * FIELDS.index(field), value)
