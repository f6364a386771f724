#!/usr/bin/env python3
"""Sluice beside Apache Kafka, in one run on this machine: `./dev bench --peer [--quick] [--only CASE] [--output json]`.

Both get the same records from a C++ client of their own, one process each: client_load.cc through Sluice's library,
rdkafka_load.cc through librdkafka; batches up to 256 KB and 1 MB, and no lingering where latency is measured. The two take
turns, a run of one and then a run of the other, and each pair gives a ratio; quoted is the median of the ratios, with the
smallest and the largest. Sluice always syncs to a majority's disks before it answers. Kafka does that only with
flush.messages=1; without it ("unsynced") what it answers is in memory, which is what Kafka's users run.

CPU is that of all brokers, user and system, for a million records. Kafka comes from Maven Central (pom.xml) and is not a part of Sluice."""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
DEPS = os.environ.get("SLUICE_DEPS") or os.path.join(ROOT, ".deps")
sys.path.insert(0, os.path.join(ROOT, "deploy", "cluster"))
import local  # noqa: E402

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGESIZE")
VALUE_BYTES = 1000
# Its clients' own documentation recommends larger batches for throughput; with its defaults Kafka is several times slower.
KAFKA_CLIENT = ["acks=all", "linger.ms=5", "batch.size=1000000", "queue.buffering.max.kbytes=65536"]


def run(command, seconds=600):
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[:6])} …: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def fetch_kafka():
    """The folder of Kafka's jars."""
    folder = os.path.join(DEPS, "kafka", "lib")
    with open(os.path.join(HERE, "pom.xml"), "rb") as file:
        wanted = file.read()
    stamp = os.path.join(DEPS, "kafka", "pom.xml")
    if not os.path.exists(stamp) or open(stamp, "rb").read() != wanted:
        print("fetching Apache Kafka from Maven Central", file=sys.stderr)
        shutil.rmtree(os.path.join(DEPS, "kafka"), ignore_errors=True)
        run(["mvn", "-q", "-B", "-f", os.path.join(HERE, "pom.xml"), "dependency:copy-dependencies", "-DincludeScope=runtime",
             f"-DoutputDirectory={folder}"])
        with open(stamp, "wb") as file:
            file.write(wanted)
    return folder


def cpu_seconds(pids):
    ticks = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            fields = file.read().rsplit(") ", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def resident_mb(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
            total += int(file.read().split()[1]) * PAGE
    return total / 1e6


class Sluice:
    def __init__(self, folder, count):
        self.nodes = [local.Node(folder, number) for number in range(1, count + 1)]
        self.count = count
        self.load = os.path.join(ROOT, "build", "release", "bin", "sluice-load")

    def start(self):
        for node in self.nodes:
            node.start([each.peer for each in self.nodes] if self.count > 1 else [node.peer])
        for node in self.nodes:
            node.wait_ready()

    def stop(self):
        for node in self.nodes:
            node.ask_to_stop()
        for node in self.nodes:
            node.wait_stopped()

    def pids(self):
        return [node.pid() for node in self.nodes]

    def sluice(self, *arguments):
        return run([local.program("sluice"), "--brokers", local.brokers(self.nodes), *arguments])

    def create(self, topic, synced):
        assert synced
        deadline = time.monotonic() + 30
        while True:  # a cluster that has just formed may not count all of its nodes yet
            done = subprocess.run([local.program("sluice"), "--brokers", local.brokers(self.nodes), "topic", "create", topic, "--replicas",
                                   str(self.count)], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return
            if time.monotonic() > deadline:
                raise SystemExit(done.stderr)
            time.sleep(0.2)

    def delete(self, topic):
        self.sluice("topic", "delete", topic)

    def produce(self, topic, records, rate):
        return json.loads(run([self.load, "--brokers", local.brokers(self.nodes), "produce", "--topic", topic, "--records", str(records),
                               "--bytes", str(VALUE_BYTES), "--rate", str(rate), *(["--linger-ms", "0"] if rate else [])]))

    def consume(self, topic, records):
        return json.loads(run([self.load, "--brokers", local.brokers(self.nodes), "consume", "--topic", topic, "--records", str(records)]))


class Kafka:
    def __init__(self, folder, count):
        self.folder, self.count = folder, count
        self.jars = fetch_kafka()
        self.processes = []
        self.load = os.path.join(folder, "rdkafka_load")
        self.brokers = ",".join(f"127.0.0.1:{19092 + i}" for i in range(count))
        run(["g++", "-std=c++20", "-O2", "-o", self.load, os.path.join(HERE, "rdkafka_load.cc"), "-lrdkafka"])

    def java(self, *arguments, heap="256M"):
        return ["java", f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
                "-cp", os.path.join(self.jars, "*"), *arguments]

    def start(self):
        cluster = run(self.java("kafka.tools.StorageTool", "random-uuid")).strip()
        voters = ",".join(f"{i + 1}@127.0.0.1:{19192 + i}" for i in range(self.count))
        for i in range(self.count):
            config = os.path.join(self.folder, f"kafka-{i + 1}.properties")
            with open(config, "w", encoding="utf-8") as file:
                file.write("\n".join([
                    "process.roles=broker,controller", f"node.id={i + 1}", f"controller.quorum.voters={voters}",
                    f"listeners=PLAINTEXT://127.0.0.1:{19092 + i},CONTROLLER://127.0.0.1:{19192 + i}",
                    "controller.listener.names=CONTROLLER", f"log.dirs={self.folder}/kafka-{i + 1}",
                    f"offsets.topic.replication.factor={self.count}", f"transaction.state.log.replication.factor={self.count}",
                    "transaction.state.log.min.isr=1", f"min.insync.replicas={self.count // 2 + 1}",
                    "group.initial.rebalance.delay.ms=0"]) + "\n")
            run(self.java("kafka.tools.StorageTool", "format", "-t", cluster, "-c", config))
            with open(os.path.join(self.folder, f"kafka-{i + 1}.log"), "wb") as log:
                self.processes.append(subprocess.Popen(self.java("kafka.Kafka", config, heap="1G"), stdout=log, stderr=log))
        deadline = time.monotonic() + 60
        for i in range(self.count):
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 19092 + i), timeout=1):
                    break
                if time.monotonic() > deadline:
                    raise SystemExit(f"Kafka did not start: {self.folder}/kafka-{i + 1}.log")
                time.sleep(0.2)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()

    def pids(self):
        return [process.pid for process in self.processes]

    def topics(self, *arguments):
        return run(self.java("org.apache.kafka.tools.TopicCommand", "--bootstrap-server", self.brokers, *arguments))

    def create(self, topic, synced):
        self.topics("--create", "--topic", topic, "--partitions", "1", "--replication-factor", str(self.count),
                    *(["--config", "flush.messages=1"] if synced else []))

    def delete(self, topic):
        self.topics("--delete", "--topic", topic)

    def produce(self, topic, records, rate):
        more = KAFKA_CLIENT if rate == 0 else ["acks=all", "linger.ms=0"]
        return json.loads(run([self.load, "produce", self.brokers, topic, str(records), str(VALUE_BYTES), str(rate), *more]))

    def consume(self, topic, records):
        return json.loads(run([self.load, "consume", self.brokers, topic, str(records), "0", "0"]))


class Comparison:
    """Runs cases on both and keeps what they gave."""

    def __init__(self, sluice, kafka, pairs):
        self.sluice, self.kafka, self.pairs = sluice, kafka, pairs
        self.topics = 0

    def one(self, system, synced, records, rate, consume):
        self.topics += 1
        topic = f"load-{self.topics}"
        system.create(topic, synced)
        time.sleep(0.5)
        if consume:
            system.produce(topic, records, 0)
        os.sync()  # what runs before left in the page cache, mostly Kafka's, must not be written in the middle of this one
        before = cpu_seconds(system.pids())
        result = system.consume(topic, records) if consume else system.produce(topic, records, rate)
        result["cpu_s_per_million"] = (cpu_seconds(system.pids()) - before) / records * 1e6
        system.delete(topic)
        return result

    def case(self, name, records, rate=0, kafka_synced=False, consume=False):
        ours, theirs = [], []
        for _ in range(self.pairs):
            ours.append(self.one(self.sluice, True, records, rate, consume))
            theirs.append(self.one(self.kafka, kafka_synced, records, rate, consume))
        measure = "p99_ms" if rate else "records_per_s"
        ratios = sorted((theirs[i][measure] / ours[i][measure] if rate else ours[i][measure] / theirs[i][measure]) for i in range(self.pairs))
        keys = ["p50_ms", "p99_ms", "p999_ms", "cpu_s_per_million"] if rate else ["records_per_s", "cpu_s_per_million"]
        return {"case": name, "measure": measure, "ratio": statistics.median(ratios), "ratio_min": ratios[0], "ratio_max": ratios[-1],
                "sluice": {key: statistics.median(each[key] for each in ours) for key in keys},
                "kafka": {key: statistics.median(each[key] for each in theirs) for key in keys}}


def show(result):
    def words(values):
        if "p50_ms" in values:
            text = f"p50 {values['p50_ms']:.2f}, p99 {values['p99_ms']:.2f}, p99.9 {values['p999_ms']:.2f} ms"
        else:
            text = f"{values['records_per_s']:,.0f} records/s"
        return f"{text}, {values['cpu_s_per_million']:.2f} s CPU a million"

    print(f"{result['case']}: {result['ratio']:.1f} times better ({result['ratio_min']:.1f} to {result['ratio_max']:.1f})\n"
          f"  Sluice {words(result['sluice'])}\n  Kafka  {words(result['kafka'])}", flush=True)


def measure(nodes, options, results):
    pairs = 1 if options.quick else 3
    many, few = (300_000, 10_000) if options.quick else (2_000_000, 50_000)
    folder = tempfile.mkdtemp(prefix="sluice-peer-")
    sluice, kafka = Sluice(folder, nodes), Kafka(folder, nodes)
    try:
        sluice.start()
        kafka.start()
        both = Comparison(sluice, kafka, pairs)
        # The first load warms up Kafka's compiler; nothing of it counts.
        both.one(kafka, False, many, 0, False)
        where = f"{nodes} nodes, {nodes} replicas" if nodes > 1 else "1 node"
        cases = {
            "unsynced": lambda: both.case(f"{where}, produce, Kafka unsynced", many // nodes),
            "synced": lambda: both.case(f"{where}, produce, Kafka with flush.messages=1", many // nodes // 2, kafka_synced=True),
            "latency": lambda: both.case(f"{where}, 5,000 records/s, Kafka unsynced, p99", few, rate=5000),
            "consume": lambda: both.case(f"{where}, consume what was just written", many // nodes, consume=True),
        }
        for name, case in cases.items():
            if options.only in (None, name):
                results.append(case())
                if options.output == "table":
                    show(results[-1])
        memory = {"case": f"{where}, memory of all brokers after it, MB", "sluice": resident_mb(sluice.pids()), "kafka": resident_mb(kafka.pids())}
        results.append(memory)
        if options.output == "table":
            print(f"{memory['case']}: Sluice {memory['sluice']:.0f}, Kafka {memory['kafka']:.0f}", flush=True)
    finally:
        kafka.stop()
        sluice.stop()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(prog="./dev bench --peer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one pair of short runs")
    parser.add_argument("--nodes", type=int, choices=[1, 3], help="one size only")
    parser.add_argument("--only", choices=["unsynced", "synced", "latency", "consume"])
    parser.add_argument("--output", choices=["table", "json"], default="table")
    options = parser.parse_args()
    results = []
    for nodes in (1, 3):
        if options.nodes in (None, nodes):
            measure(nodes, options, results)
    if options.output == "json":
        print(json.dumps(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
