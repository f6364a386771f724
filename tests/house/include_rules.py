#!/usr/bin/env python3
"""The dependency rule of docs/architecture.md: which folder may include what. Fails on every include that breaks it.

Usage: include_rules.py ROOT
"""

import os
import re
import sys

# Folder -> the folders of this repository that its files may include. The longest matching prefix of a file's path counts.
MAY_INCLUDE = {
    "common": ["common"],
    "runtime": ["runtime", "common"],
    "storage": ["storage", "common"],
    "replication/core": ["replication/core", "common"],
    "replication": ["replication", "storage", "common"],
    "proto": [],
    # The broker's own state is written as messages of sluice.state.v1; the public API's messages stay in broker/rpc.
    "broker": ["broker", "replication", "storage", "common", "proto:sluice/state/", "proto:sluice/internal/"],
    "broker/rpc": ["broker", "replication", "storage", "common", "runtime", "proto"],
    # Where the seams are wired for real.
    "broker/main.cc": ["broker", "replication", "storage", "common", "runtime", "proto"],
    "broker/node_process.h": ["broker", "replication", "storage", "common", "runtime", "proto"],
    "broker/node_process.cc": ["broker", "replication", "storage", "common", "runtime", "proto"],
    "client": ["client", "common", "proto"],
    "connector": ["connector", "client", "common", "runtime", "proto"],
    "tools": ["tools", "client", "storage", "runtime", "common"],
    "tests": ["*"],
    "bench": ["*"],
}

# A unit test may stand on the real or the simulated seams, whatever its folder may use.
TEST_MAY_ALSO_INCLUDE = ["runtime", "tests"]

OWN_FOLDERS = sorted({path.split("/")[0] for path in MAY_INCLUDE})

BEHIND_SEAMS = ["storage/", "replication/", "broker/"]
SEAM_EXEMPT = ["broker/rpc/", "broker/main.cc", "broker/node_process."]

# (pattern of the included name, where it is allowed by path prefix, why). Tests and benchmarks are free of these.
EXTERNAL = [
    (r"absl/synchronization/", [], "std::mutex only: Debian's Abseil is not instrumented for the thread sanitizer"),
    (r"absl/(log|crc)/", [], "Debian 12's Abseil has no such part"),
    (r"boost/(asio|beast)", ["runtime/", "broker/rpc/", "broker/main.cc", "connector/", "tools/"],
     "Asio and Beast are reached through the seams"),
    (r"grpc(pp)?/|.*\.grpc\.pb\.h$", ["broker/rpc/", "broker/main.cc", "client/"],
     "gRPC stays behind broker/rpc and the client's channel"),
    (r"rocksdb/", ["storage/meta/"], "RocksDB stays behind the metadata store"),
    (r"prometheus/", ["runtime/", "broker/metrics", "connector/metrics", "broker/rpc/", "broker/main.cc"],
     "Prometheus stays behind the metrics adapters"),
    (r"(arrow|parquet)/", ["connector/"], "Arrow belongs to the connector's sinks"),
]

# What code above the seams must not reach by itself, so that whole nodes run in the simulator.
REACHES_THE_WORLD = (
    r"(thread|random|fstream|filesystem|future|condition_variable|unistd\.h|fcntl\.h|time\.h|ctime|pthread\.h|"
    r"sys/(?!types\.h).*|absl/time/clock\.h|absl/random/.*)$")

# replication/core is a pure state machine.
NOT_IN_RAFT_CORE = r"(chrono|mutex|atomic|shared_mutex)$"

# Headers that cost every includer about a second; kept out of headers except at the borders that exist for them.
HEAVY = r"(grpc(pp)?/|.*\.pb\.h$|rocksdb/|prometheus/)"
HEAVY_ALLOWED_IN = ["broker/rpc/", "client/producer_wire.h", "client/grpc_", "storage/meta/"]

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
CLOCK = re.compile(r"std::chrono::(system|steady|high_resolution)_clock|absl::Now\(|absl::SleepFor\(|std::this_thread")


def starts_with_any(path, prefixes):
    return any(path.startswith(prefix) for prefix in prefixes)


def folder_rule(path):
    best = max((p for p in MAY_INCLUDE if path == p or path.startswith(p + "/")), key=len, default=None)
    return None if best is None else MAY_INCLUDE[best]


def own_folder_of(name):
    """Which of our folders an included name belongs to, or None for what is not ours."""
    if re.match(r"sluice/.*\.pb\.h$", name):
        return "proto"
    first = name.split("/")[0]
    return first if "/" in name and first in OWN_FOLDERS else None


def may_include(allowed, target, name):
    for entry in allowed:
        if entry == "*":
            return True
        if entry.startswith("proto:"):
            if target == "proto" and name.startswith(entry[len("proto:"):]):
                return True
        elif target == "proto":
            if entry == "proto":
                return True
        elif name.startswith(entry + "/"):
            return True
    return False


def why_forbidden(path, name):
    """Why the file `path` must not include `name`, or None where it may."""
    allowed = folder_rule(path)
    if allowed is None:
        return None
    top = path.split("/")[0]
    free = top in ("tests", "bench")
    is_test = path.endswith(("_test.cc", "_fuzz.cc"))
    is_header = path.endswith(".h")

    target = own_folder_of(name)
    if target is not None:
        if is_test:
            allowed = allowed + TEST_MAY_ALSO_INCLUDE
        if not may_include(allowed, target, name):
            return f"{top} may include only: {', '.join(allowed) or 'nothing'}"
    if free:
        return None
    for pattern, where, why in EXTERNAL:
        if re.match(pattern, name) and not starts_with_any(path, where):
            return why
    if not is_test and starts_with_any(path, BEHIND_SEAMS) and not starts_with_any(path, SEAM_EXEMPT):
        if re.match(REACHES_THE_WORLD, name) and not path.startswith("storage/meta/"):
            return "storage, replication and broker reach the world only through the seams"
    if path.startswith("replication/core/") and re.match(NOT_IN_RAFT_CORE, name):
        return "replication/core is a pure state machine: no clock, no thread"
    if is_header and re.match(HEAVY, name) and not starts_with_any(path, HEAVY_ALLOWED_IN):
        return "a heavy header in a header outside the adapters"
    return None


def problems_in(path, text):
    """Every broken rule in one file, as (line number, message)."""
    found = []
    behind_seams = starts_with_any(path, BEHIND_SEAMS) and not starts_with_any(path, SEAM_EXEMPT + ["storage/meta/"])
    for number, line in enumerate(text.splitlines(), 1):
        include = INCLUDE.match(line)
        if include:
            why = why_forbidden(path, include.group(1))
            if why:
                found.append((number, f'includes "{include.group(1)}": {why}'))
        elif behind_seams and not path.endswith("_test.cc") and CLOCK.search(line.split("//")[0]):
            found.append((number, "reads a clock or sleeps other than through the seams"))
    return found


def sources(root):
    for folder in OWN_FOLDERS:
        for directory, _, names in os.walk(os.path.join(root, folder)):
            for name in sorted(names):
                if name.endswith((".h", ".cc")):
                    yield os.path.relpath(os.path.join(directory, name), root)


def check(root):
    """Returns (number of files looked at, problems as printable lines)."""
    count, lines = 0, []
    for path in sources(root):
        count += 1
        with open(os.path.join(root, path), encoding="utf-8") as file:
            lines += [f"{path}:{number}: {message}" for number, message in problems_in(path, file.read())]
    return count, lines


def main():
    count, lines = check(sys.argv[1])
    for line in lines:
        print(line, file=sys.stderr)
    print(f"{count} files, {len(lines)} forbidden includes")
    return 1 if lines or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
