#!/usr/bin/env python3
"""What a cluster costs and how long it is away: three real nodes on this machine, on their usual ports. `./dev bench
--cluster [--quick] [--only ITEM]`; a line for each figure, and JSON with --output json.

Items: kill (kill -9 of a leader), stop (a controlled stop of one), produce (three replicas), catch-up (of a follower that was
away), idle (many quiet partitions), restart (of a node with many partitions). Each makes a cluster of its own."""

import argparse
import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, os.path.join(ROOT, "deploy", "cluster"))
import local  # noqa: E402

NODES = 3
LOAD = os.path.join(ROOT, "build", "release", "bin", "sluice-load")
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE")


class Cluster:
    def __init__(self, folder, count=NODES):
        self.nodes = [local.Node(folder, number) for number in range(1, count + 1)]
        self.brokers = local.brokers(self.nodes)
        for node in self.nodes:
            if node.ready():
                raise SystemExit(f"something answers on {node.http} already: stop it first")

    def __enter__(self):
        try:
            for node in self.nodes:
                self.start(node)
            for node in self.nodes:
                node.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for node in self.nodes:
            if node.pid() is not None:
                os.kill(node.pid(), 9)

    def start(self, node):
        node.start([each.peer for each in self.nodes])

    def sluice(self, *arguments, input=None):
        done = subprocess.run([local.program("sluice"), "--brokers", self.brokers, *arguments], capture_output=True, text=True,
                              input=input, check=False)
        if done.returncode != 0:
            raise SystemExit(f"sluice {' '.join(arguments)}: {done.stderr}")
        return done.stdout

    def leader(self, topic):
        for _ in range(200):
            found = json.loads(self.sluice("--output", "json", "topic", "describe", topic))["partition_list"][0]["leader_node"]
            if found:
                return self.nodes[found - 1]
            time.sleep(0.05)
        raise SystemExit(f"{topic} has no leader for 10 s")

    def wait_whole(self, seconds=60):
        deadline = time.monotonic() + seconds
        while json.loads(self.sluice("--output", "json", "partition", "list", "--under-replicated"))["partitions"]:
            if time.monotonic() > deadline:
                raise SystemExit(f"the cluster was not whole again after {seconds} s")
            time.sleep(0.05)

    def cpu_seconds(self):
        """Of each node that runs, user and system."""
        seconds = []
        for node in self.nodes:
            with open(f"/proc/{node.pid()}/stat", encoding="utf-8") as file:
                fields = file.read().rsplit(") ", 1)[1].split()
            seconds.append((int(fields[11]) + int(fields[12])) / TICKS)
        return seconds

    def resident_bytes(self):
        sizes = []
        for node in self.nodes:
            with open(f"/proc/{node.pid()}/statm", encoding="utf-8") as file:
                sizes.append(int(file.read().split()[1]) * PAGE)
        return sizes


class Probe:
    """One producer that sends a record each millisecond, and when each was acknowledged."""

    def __init__(self, cluster, topic):
        self.process = subprocess.Popen([local.program("sluice"), "--brokers", cluster.brokers, "--output", "json", "produce", topic],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.stopping = threading.Event()
        self.acknowledged, self.errors = [], 0
        self.threads = [threading.Thread(target=self.feed), threading.Thread(target=self.drain)]
        for thread in self.threads:
            thread.start()

    def feed(self):
        number = 0
        try:
            while not self.stopping.is_set():
                self.process.stdin.write(f"{number}\n")
                self.process.stdin.flush()
                number += 1
                time.sleep(0.001)
            self.process.stdin.close()
        except (BrokenPipeError, ValueError):
            pass

    def drain(self):
        for line in self.process.stdout:
            if '"error"' in line:
                self.errors += 1
            else:
                self.acknowledged.append(time.monotonic())

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        self.process.wait()
        self.process.stdout.close()

    def longest_gap(self, begin, end):
        times = [begin] + [at for at in self.acknowledged if begin <= at <= end] + [end]
        return max(later - earlier for earlier, later in zip(times, times[1:]))


def first_acknowledgement(cluster, topic, since):
    """Seconds from `since` to the first record that a new producer gets acknowledged."""
    cluster.sluice("produce", topic, input="x\n")
    return time.monotonic() - since


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median_and_p99(what, seconds):
    yield f"{what}, p50", percentile(seconds, 0.5) * 1000, "ms"
    yield "p99", percentile(seconds, 0.99) * 1000, "ms"


def kill(folder, rounds):
    """How long it takes until a record is acknowledged, over rounds of killing the leader."""
    gaps = []
    with Cluster(folder) as cluster:
        cluster.sluice("topic", "create", "probe", "--replicas", "3")
        for _ in range(rounds):
            node = cluster.leader("probe")
            probe = Probe(cluster, "probe")
            time.sleep(0.5)
            begin = time.monotonic()
            os.kill(node.pid(), 9)
            # The record under way is lost from sight; a new producer tells when the partition takes records again.
            gaps.append(first_acknowledgement(cluster, "probe", begin))
            probe.stop()
            come_back(cluster, node)
    yield from median_and_p99("after a kill -9 of the leader nothing was acknowledged for", gaps)
    yield "rounds", rounds, ""


def stop(folder, rounds):
    """How long nothing was acknowledged, over rounds of stopping the leader, and over as long, at most a second, right before each;
    and how many records failed."""
    calm, gaps, errors = [], [], 0
    with Cluster(folder) as cluster:
        cluster.sluice("topic", "create", "probe", "--replicas", "3")
        for _ in range(rounds):
            node = cluster.leader("probe")
            probe = Probe(cluster, "probe")
            time.sleep(1.5)
            begin = time.monotonic()
            node.ask_to_stop()
            node.wait_stopped()
            time.sleep(0.3)
            end = time.monotonic()
            probe.stop()
            gaps.append(probe.longest_gap(begin, end))
            calm.append(probe.longest_gap(begin - min(end - begin, 1), begin))
            errors += probe.errors
            come_back(cluster, node)
    yield from median_and_p99("after a controlled stop of the leader nothing was acknowledged for", gaps)
    yield from median_and_p99("the same over as long, at most 1 s, right before the stop", calm)
    yield "rounds", rounds, ""
    yield "records that failed", errors, ""


def come_back(cluster, node):
    cluster.start(node)
    node.wait_ready()
    cluster.wait_whole()


def load(cluster, topic, records, *more):
    """What `sluice-load produce` says of records of 1 KB."""
    done = subprocess.run([LOAD, "--brokers", cluster.brokers, "produce", "--topic", topic, "--records", str(records), *more],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"producing to {topic} failed: {done.stderr}{done.stdout}")
    return json.loads(done.stdout)


def produce(folder, partitions, records):
    """One client, records of 1 KB, three replicas, synced on two of them before the answer."""
    with Cluster(folder) as cluster:
        cluster.sluice("topic", "create", "load", "--replicas", "3", "--partitions", str(partitions))
        cluster.wait_whole()
        before = cluster.cpu_seconds()
        many = load(cluster, "load", records)
        cpu = sum(cluster.cpu_seconds()) - sum(before)
        cluster.wait_whole()
        few = load(cluster, "load", records // 20, "--rate", "5000", "--linger-ms", "0")
    yield f"{partitions} partitions, 3 replicas, 1 KB records, one client: records/s", many["records_per_s"], ""
    yield "CPU of all three nodes for a million records", cpu / records * 1e6, "s"
    yield "p50 then, many in flight", many["p50_ms"], "ms"
    yield "5,000 records/s, open loop: p50", few["p50_ms"], "ms"
    yield "p99", few["p99_ms"], "ms"
    yield "p99.9", few["p999_ms"], "ms"


def catch_up(folder, batch_bytes, gigabytes):
    """A follower that was away while much was written; a producer goes on at a modest rate while it catches up."""
    records = int(gigabytes * 1e6)
    with Cluster(folder) as cluster:
        cluster.sluice("topic", "create", "load", "--replicas", "3")
        cluster.wait_whole()
        away_node = next(node for node in cluster.nodes if node is not cluster.leader("load"))
        os.kill(away_node.pid(), 9)
        away_node.wait_stopped()
        load(cluster, "load", records, "--batch-bytes", str(batch_bytes))
        cluster.start(away_node)
        away_node.wait_ready()
        began = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(1) as beside:
            live = beside.submit(load, cluster, "load", 5_000, "--rate", "1000", "--linger-ms", "0")
            cluster.wait_whole(600)
            took = time.monotonic() - began
            live = live.result()
    yield f"a follower catches up {gigabytes} GB in batches of at most {batch_bytes >> 10} KiB, under 1,000 records/s", took, "s"
    yield "p50 of a record from then on", live["p50_ms"], "ms"
    yield "p99", live["p99_ms"], "ms"


def idle(folder, partitions, seconds):
    with Cluster(folder) as cluster:
        cluster.sluice("topic", "create", "quiet", "--replicas", "3", "--partitions", str(partitions))
        time.sleep(10)
        before, began = cluster.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        share = [(after - earlier) / took for after, earlier in zip(cluster.cpu_seconds(), before)]
        sizes = cluster.resident_bytes()
    yield f"{partitions} quiet partitions x 3: the busiest node takes of a core", max(share) * 100, "%"
    yield "and memory", max(sizes) / 1e6, "MB"


def spent(pid):
    """CPU seconds of a process so far, and the bytes that it had from disks and gave to them."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(") ", 1)[1].split()
    with open(f"/proc/{pid}/io", encoding="utf-8") as file:
        io = dict(line.split(": ") for line in file.read().splitlines())
    return (int(fields[11]) + int(fields[12])) / TICKS, int(io["read_bytes"]), int(io["write_bytes"])


def end_and_start(cluster, node, kind):
    """Seconds that the end took, seconds from the start after it until the node is ready, and what that cost."""
    began = time.monotonic()
    if kind == "clean":
        node.ask_to_stop()
    else:
        os.kill(node.pid(), 9)
    node.wait_stopped()
    ended = time.monotonic()
    cluster.start(node)
    node.wait_ready()
    return ended - began, time.monotonic() - ended, spent(node.pid())


def restart(folder, partitions, gigabytes):
    """Of one of three nodes, with hardly any data; then of a node alone, with all the data on it."""
    with Cluster(os.path.join(folder, "three")) as cluster:
        cluster.sluice("topic", "create", "many", "--replicas", "3", "--partitions", str(partitions))
        cluster.wait_whole()
        for kind in ("clean", "kill -9"):
            _, took, _ = end_and_start(cluster, cluster.nodes[2], kind)
            yield f"3 nodes, {partitions} partitions, almost no data: start after a {kind} end, until ready", took * 1000, "ms"
            began = time.monotonic()
            cluster.wait_whole()
            yield "and from then until all its replicas are in sync", (time.monotonic() - began) * 1000, "ms"
    with Cluster(os.path.join(folder, "one"), 1) as cluster:
        cluster.sluice("topic", "create", "many", "--partitions", str(partitions))
        # Before the kill a tenth more, so that the journal has as much to replay as it may.
        for kind, records in ("clean", gigabytes * 1_000_000), ("kill -9", gigabytes * 100_000):
            load(cluster, "many", records)
            ending, took, (cpu, read, written) = end_and_start(cluster, cluster.nodes[0], kind)
            began = time.monotonic()
            cluster.sluice("topic", "create", f"after-{kind[:4]}")
            answered = time.monotonic() - began
            yield f"1 node, {partitions} partitions, {gigabytes} GB: start after a {kind} end, until ready", took * 1000, "ms"
            yield "CPU of it", cpu, "s"
            yield "read from the disk for it", read / 1e6, "MB"
            yield "written for it", written / 1e6, "MB"
            yield "and from then until a topic is made", answered * 1000, "ms"
            yield "the end before it took", ending * 1000, "ms"


def main():
    parser = argparse.ArgumentParser(prog="./dev bench --cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", choices=["kill", "stop", "produce", "catch-up", "idle", "restart"])
    parser.add_argument("--output", choices=["table", "json"], default="table")
    options = parser.parse_args()
    few = options.quick
    items = {
        "kill": lambda folder: kill(folder, 5 if few else 30),
        "stop": lambda folder: stop(folder, 3 if few else 50),
        "produce": lambda folder: (line for count in (1, 100) for line in
                                   produce(os.path.join(folder, str(count)), count, 200_000 if few else 2_000_000)),
        "catch-up": lambda folder: (line for kib in (4, 256) for line in
                                    catch_up(os.path.join(folder, str(kib)), kib << 10, 0.2 if few else 2)),
        "idle": lambda folder: idle(folder, 100 if few else 1000, 5 if few else 30),
        "restart": lambda folder: restart(folder, 100 if few else 1000, 1 if few else 10),
    }
    results = []
    for name, item in items.items():
        if options.only in (None, name):
            folder = tempfile.mkdtemp(prefix="sluice-bench-")
            try:
                for what, value, unit in item(folder):
                    results.append({"item": name, "what": what, "value": round(value, 3), "unit": unit})
                    if options.output == "table":
                        print(f"{name:8} {what}: {value:,.1f} {unit}".rstrip(), flush=True)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    if options.output == "json":
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
