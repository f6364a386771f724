#!/usr/bin/env python3
"""`./dev run`: the main job on the demo data. Starts the API and a broker, pulls the API through the broker's log into raw
JSON and Parquet, asks the Parquet a question in SQL, and exits 0 only when everything that came out is right.

With --nodes 3 the broker is a cluster of three, and the node that leads the topic is killed in the middle."""

import argparse
import collections
import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, HERE)
sys.path.insert(0, os.path.join(ROOT, "deploy", "cluster"))
import api  # noqa: E402
import lake  # noqa: E402
import local  # noqa: E402

API_PORT = 7420
PAGE_RECORDS = 100  # as the pipeline's URL says
BROKER_READY = "http://127.0.0.1:7402/readyz"
PIPELINE = os.path.join(ROOT, "deploy", "examples", "earthquakes.yaml")
SQL = """\
SELECT dt, count(*) AS quakes, max(magnitude) AS strongest, arg_max(place, magnitude) AS there
FROM read_parquet('{files}', hive_partitioning = true)
GROUP BY dt ORDER BY dt"""


class Wrong(Exception):
    """Something is not as it must be; the message is for the person who runs the demo."""


def bold(text):
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text


def step(text):
    print(bold(text), flush=True)


def program(name):
    path = os.path.join(os.environ.get("SLUICE_BIN") or os.path.join(ROOT, "bin"), name)
    if not os.path.exists(path):
        raise Wrong(f"{path} is not built")
    return path


@contextlib.contextmanager
def serving_api():
    try:
        server = api.Api(API_PORT, api.load_features())
    except OSError as error:
        raise Wrong(f"the demo's API needs port {API_PORT}: {error.strerror}") from error
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def running_broker(folder):
    """A broker of one node with its data in `folder`, ready; asked to stop at the end."""
    if answers(BROKER_READY):
        raise Wrong(f"something answers on {BROKER_READY} already: stop the other broker first")
    log = open(os.path.join(folder, "sluiced.log"), "w", encoding="utf-8")
    broker = subprocess.Popen([program("sluiced")], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    started = time.monotonic()
    try:
        while not answers(BROKER_READY):
            if broker.poll() is not None:
                raise Wrong(f"sluiced ended with {broker.returncode}:\n{tail(log.name)}")
            if time.monotonic() - started > 30:
                raise Wrong(f"sluiced was not ready after 30 s:\n{tail(log.name)}")
            time.sleep(0.02)
        yield time.monotonic() - started
        broker.send_signal(signal.SIGTERM)
        if broker.wait(timeout=30) != 0:
            raise Wrong(f"sluiced ended with {broker.returncode} after SIGTERM:\n{tail(log.name)}")
    finally:
        if broker.poll() is None:
            broker.kill()
            broker.wait()
        log.close()


class Cluster:
    """Several nodes on this machine; one of them can be killed once."""

    def __init__(self, nodes):
        self.nodes = nodes
        self.killed = None

    def brokers(self):
        return local.brokers(self.nodes)

    def leader(self, topic):
        """The node that leads the topic's only partition; None while there is none."""
        asked = subprocess.run([program("sluice"), "--brokers", self.brokers(), "--output", "json", "topic", "describe", topic],
                               capture_output=True, text=True, check=False)
        number = json.loads(asked.stdout)["partition_list"][0]["leader_node"] if asked.returncode == 0 else 0
        return next((node for node in self.nodes if node.number == number), None)

    def kill_leader(self, topic):
        node = self.leader(topic)
        if node is None:
            return
        os.kill(node.pid(), signal.SIGKILL)
        self.killed = node


@contextlib.contextmanager
def running_cluster(folder, count):
    """A cluster with its data below `folder`, every node ready; those that live are asked to stop at the end."""
    nodes = [local.Node(folder, number) for number in range(1, count + 1)]
    for node in nodes:
        if node.ready():
            raise Wrong(f"something answers on {node.http} already: stop the other broker first")
    try:
        try:
            for node in nodes:
                node.start([each.peer for each in nodes])
            for node in nodes:
                node.wait_ready()
        except local.Wrong as wrong:
            raise Wrong(str(wrong)) from wrong
        yield Cluster(nodes)
        for node in nodes:
            node.ask_to_stop()
            node.wait_stopped()
    finally:
        for node in nodes:
            if node.pid() is not None:
                os.kill(node.pid(), signal.SIGKILL)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def tail(path, lines=15):
    with open(path, encoding="utf-8", errors="replace") as file:
        return "".join(file.readlines()[-lines:])


def run_pipeline(folder, server, cluster=None):
    """Runs the connector once, with progress on a terminal. Of a cluster, the topic's leader is killed on the way."""
    environment = dict(os.environ, SLUICE_BROKERS=cluster.brokers()) if cluster else None
    half = len(server.features) // PAGE_RECORDS // 2
    log_path = os.path.join(folder, "sluice-connect.log")
    with open(log_path, "w", encoding="utf-8") as log:
        connector = subprocess.Popen([program("sluice-connect"), "run", PIPELINE, "--once"], cwd=folder, stdout=log,
                                     stderr=subprocess.STDOUT, env=environment)
        started = time.monotonic()
        try:
            while connector.poll() is None:
                if sys.stdout.isatty():
                    print(f"\r  pages pulled {server.stats['pages']:3}   files written {len(lake.files(folder)):3}   "
                          f"{time.monotonic() - started:4.0f} s", end="", flush=True)
                if cluster and cluster.killed is None and server.stats["pages"] >= half:
                    cluster.kill_leader("quakes")
                if time.monotonic() - started > 180:
                    raise Wrong(f"the pipeline was not done after 180 s:\n{tail(log_path)}")
                time.sleep(0.02 if cluster else 0.1)
        finally:
            if connector.poll() is None:
                connector.kill()
                connector.wait()
            if sys.stdout.isatty():
                print()
    if connector.returncode != 0:
        raise Wrong(f"sluice-connect ended with {connector.returncode}:\n{tail(log_path)}")
    return time.monotonic() - started


def check_raw(folder, published):
    """Each record of the API once, with the very bytes that the API sent."""
    lines = list(lake.raw_lines(folder))
    expected = collections.Counter(body for _, _, body in published)
    got = collections.Counter(lines)
    if got != expected:
        missing, extra = expected - got, got - expected
        raise Wrong(f"raw: {sum(missing.values())} records are missing or changed, {sum(extra.values())} are too many; "
                    f"for example {next(iter(missing or extra))[:200]}")
    return len(lines)


def check_parquet(folder, published):
    """The answer of DuckDB to one question is the answer that the API's own data gives; and each record is there once."""
    pattern = os.path.join(folder, "**", "*.parquet")
    _, rows = lake.query(f"SELECT id, count(*), count(DISTINCT _offset) FROM read_parquet('{pattern}') GROUP BY id")
    if sorted(row[0] for row in rows) != sorted(name for _, name, _ in published) or any(row[1:] != (1, 1) for row in rows):
        raise Wrong(f"Parquet: {len(rows)} ids, {sum(row[1] for row in rows)} rows; the API published {len(published)}")

    by_day = {}
    for time_ms, _, body in published:
        day = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.timezone.utc).date()
        quakes, strongest = by_day.get(day, (0, None))
        magnitude = json.loads(body)["properties"]["mag"]
        by_day[day] = (quakes + 1, max((m for m in (strongest, magnitude) if m is not None), default=None))
    sql = SQL.format(files=pattern)
    columns, answer = lake.query(sql)
    expected = [(day, *by_day[day]) for day in sorted(by_day)]
    got = [tuple(row[:3]) for row in answer]
    if got != expected:
        raise Wrong(f"SQL over the Parquet answers\n  {got}\nthe API's data says\n  {expected}")
    return sum(row[1] for row in rows), sql, columns, answer


def print_files(folder):
    for path, _ in lake.files(folder):
        print(f"  {os.path.getsize(path):>9,} bytes  {os.path.relpath(path, os.path.dirname(folder))}")


def print_table(columns, rows):
    cells = [columns] + [[str(value) for value in row] for row in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for row in cells:
        print("  " + "  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip())


def pull_through_one(folder, server):
    with running_broker(folder) as start_s:
        step(f"API on {server.url}/quakes with {len(server.features):,} earthquakes; broker ready after {start_s * 1000:.0f} ms")
        step("sluice-connect run deploy/examples/earthquakes.yaml --once")
        return run_pipeline(folder, server)


def pull_through_cluster(folder, server, nodes):
    started = time.monotonic()
    with running_cluster(folder, nodes) as cluster:
        step(f"API on {server.url}/quakes with {len(server.features):,} earthquakes; {nodes} nodes ready after "
             f"{time.monotonic() - started:.1f} s")
        step("sluice-connect run deploy/examples/earthquakes.yaml --once")
        took_s = run_pipeline(folder, server, cluster)
        if cluster.killed is None:
            raise Wrong("the pipeline was done before the topic's leader could be killed")
        print(f"  node {cluster.killed.number}, which led the topic, was killed on the way")
        return took_s


def main_job(folder, nodes):
    raw, parquet = os.path.join(folder, "lake", "raw"), os.path.join(folder, "lake", "quakes")
    with serving_api() as server:
        published = server.features
        took_s = pull_through_one(folder, server) if nodes == 1 else pull_through_cluster(folder, server, nodes)
        stats = dict(server.stats)
    records_raw = check_raw(raw, published)
    records_parquet, sql, columns, answer = check_parquet(parquet, published)
    print(f"  done in {took_s:.1f} s: {stats['pages']} pages; the API refused {stats['throttled']} times with 429 and "
          f"{stats['unavailable']} times with 503")
    print(f"  records in:  {len(published):,} from the API")
    print(f"  records out: {records_raw:,} raw, {records_parquet:,} in Parquet; each exactly once")
    step("files")
    print_files(raw)
    print_files(parquet)
    step(sql.replace(folder + "/", ""))
    print_table(columns, answer)
    step("The answer is the one that the API's own data gives. All is right.")


def main():
    arguments = argparse.ArgumentParser(prog="./dev run", description=__doc__)
    arguments.add_argument("--dir", help="work in this folder, which must be empty or new, and keep it")
    arguments.add_argument("--keep", action="store_true", help="keep the temporary folder")
    arguments.add_argument("--nodes", type=int, default=1, help="brokers: 1 (the default), or a cluster of up to 9")
    options = arguments.parse_args()
    if options.nodes != 1 and not 3 <= options.nodes <= 9:
        arguments.error("--nodes: expected 1, or 3 to 9: fewer cannot lose one")
    if options.dir:
        try:
            os.makedirs(options.dir, exist_ok=True)
        except OSError as error:
            arguments.error(f"--dir {options.dir}: {error.strerror}")
        if os.listdir(options.dir):
            sys.exit(f"{options.dir} is not empty")
    folder = os.path.abspath(options.dir) if options.dir else tempfile.mkdtemp(prefix="sluice-run-")
    keep = options.keep or options.dir
    try:
        main_job(folder, options.nodes)
    except Wrong as wrong:
        keep = True
        print(f"\nwrong: {wrong}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    finally:
        if keep:
            print(f"The data is in {folder}")
        else:
            shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
