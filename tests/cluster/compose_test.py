#!/usr/bin/env python3
"""The cluster of deploy/compose.yaml, brought up as a user does it: the pipeline pulls the API into S3 while the broker that
leads the topic is killed halfway. Every record of the API is in S3 once, as raw JSON and as Parquet; the broker comes back;
`down` keeps all of it, `down --delete` nothing. Containers, volumes and ports are the test's own.

Needs Docker with compose; without an engine the test fails. SLUICE_COMPOSE_NO_BUILD takes the images that are there."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
import harness  # noqa: E402
import run as demo  # noqa: E402

PROJECT = f"sluice-test-{os.getpid()}"
BROKERS = ["broker-1", "broker-2", "broker-3"]
PAGES = -(-len(harness.api.load_features()) // demo.PAGE_RECORDS)
API_DELAY_MS = 1500  # so that the pipeline is still at it when all containers are healthy
BUILD_SECONDS, SECONDS = 7200, 180


def docker(*arguments, check=True):
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=SECONDS, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def container(service):
    return docker("ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}", "--filter",
                  f"label=com.docker.compose.service={service}").strip()


def volumes():
    return docker("volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={PROJECT}").split()


def health(service):
    return docker("inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", container(service)).strip()


def sluice(broker, *arguments):
    """The command line in a broker's container, which asks that broker; its JSON, or None where it fails."""
    out = docker("exec", container(broker), "sluice", "--output", "json", *arguments, check=False)
    return json.loads(out) if out else None


def logs(service):
    done = subprocess.run(["docker", "logs", container(service)], capture_output=True, text=True, timeout=SECONDS, check=True)
    return done.stdout + done.stderr


def pages_pulled():
    ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:7420/stats', timeout=5).read().decode())"
    return json.loads(docker("exec", container("api"), "python3", "-c", ask))["pages"]


class Compose(unittest.TestCase):
    def setUp(self):
        self.prometheus = harness.free_port()
        self.environment = dict(os.environ, COMPOSE_PROJECT_NAME=PROJECT, SLUICE_API_DELAY_MS=str(API_DELAY_MS),
                                SLUICE_PROMETHEUS_PORT=str(self.prometheus), SLUICE_S3_PORT=str(harness.free_port()))
        self.addCleanup(self.dev, "down", "--delete")

    def dev(self, command, *arguments, seconds=SECONDS):
        subprocess.run([os.path.join(ROOT, "dev"), "cluster", command, "--compose", *arguments], env=self.environment, check=True,
                       timeout=seconds)

    def compose(self, *arguments):
        own = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
        subprocess.run([*(["docker", "compose"] if own else ["docker-compose"]), "-f", os.path.join(ROOT, "deploy/compose.yaml"),
                        *arguments], env=self.environment, check=True, timeout=SECONDS)

    def up(self, build):
        if build and not os.environ.get("SLUICE_COMPOSE_NO_BUILD"):
            self.dev("up", seconds=BUILD_SECONDS)
        else:
            self.dev("up", "--no-build", seconds=2 * SECONDS)

    def wait_whole(self, broker, alive):
        """Until `broker` sees `alive` nodes alive, and every partition with all its replicas where all nodes are."""
        def whole():
            self.status = sluice(broker, "cluster", "status")
            return (self.status is not None and [node["state"] for node in self.status["nodes"]].count("alive") == alive
                    and (alive < len(BROKERS) or self.status["under_replicated_partitions"] == 0))

        harness.wait_until(f"{alive} nodes are alive", whole, SECONDS)

    def leader(self):
        return f"broker-{sluice('broker-1', 'topic', 'describe', 'quakes')['partition_list'][0]['leader_node']}"

    def check_lake(self):
        with tempfile.TemporaryDirectory(prefix="sluice-compose-") as folder:
            docker("cp", f"{container('s3')}:/var/lib/s3/lake", folder)
            published = harness.api.load_features()
            lake = os.path.join(folder, "lake")
            self.assertEqual(len(published), demo.check_raw(os.path.join(lake, "raw"), published))
            self.assertEqual(len(published), demo.check_parquet(os.path.join(lake, "quakes"), published)[0])

    def lake_is_right(self):
        try:
            self.check_lake()
        except Exception as error:  # pylint: disable=broad-except  (files are still missing: DuckDB says so in many ways)
            self.why = error
            return False
        return True

    def wait_lake(self):
        self.why = None
        try:
            harness.wait_until("the lake holds what the API published", self.lake_is_right, SECONDS)
        except TimeoutError as late:
            connect = docker("logs", "--tail", "30", container("connect"), check=False)
            raise AssertionError(f"{late}: {self.why}\n{connect}") from late

    def check_log(self, broker):
        """What the topic holds: the API's records, in its order."""
        out = docker("exec", container(broker), "sluice", "--output", "json", "consume", "quakes", "--from", "earliest",
                     "--partition", "0")
        values = [json.loads(line)["value"] for line in out.splitlines()]
        self.assertEqual([body for _, _, body in harness.api.load_features()], values)

    def check_targets(self):
        def all_up():
            with urllib.request.urlopen(f"http://127.0.0.1:{self.prometheus}/api/v1/targets", timeout=10) as response:
                targets = json.load(response)["data"]["activeTargets"]
            self.targets = {target["labels"]["instance"]: target["health"] for target in targets}
            return set(self.targets.values()) == {"up"}

        harness.wait_until("Prometheus reaches all targets", all_up, 60)
        self.assertEqual({"broker-1:7402", "broker-2:7402", "broker-3:7402", "connect:7410", "api:7420", "127.0.0.1:9090"},
                         set(self.targets))

    def start(self, broker):
        docker("start", container(broker))
        self.wait_whole(broker, alive=3)
        harness.wait_until(f"{broker} is healthy again", lambda: health(broker) == "running healthy", SECONDS)

    def test_the_pipeline_is_right_while_a_broker_is_killed_and_the_data_stays_until_it_is_deleted(self):
        self.up(build=True)
        self.wait_whole("broker-1", alive=3)

        harness.wait_until("half of the pages are pulled", lambda: pages_pulled() >= PAGES // 2, SECONDS)
        described = sluice("broker-1", "topic", "describe", "quakes")
        self.assertEqual(3, len(described["partition_list"][0]["replica_nodes"]))
        killed = self.leader()
        docker("kill", container(killed))
        self.assertLess(pages_pulled(), PAGES, "the pipeline was done before a broker could be killed")
        print(f"{killed} is killed", flush=True)
        alive = next(broker for broker in BROKERS if broker != killed)
        self.wait_whole(alive, alive=2)
        self.wait_lake()
        self.assertEqual("exited", health(killed).split()[0])

        self.start(killed)
        # The one that formed the cluster comes back like any other.
        docker("kill", container("broker-1"))
        self.wait_whole("broker-2", alive=2)
        self.start("broker-1")
        self.check_targets()
        self.check_log(killed)

        self.dev("down")
        self.assertEqual("", container("broker-1"))
        self.assertEqual(6, len(volumes()))
        self.up(build=False)
        self.wait_whole("broker-2", alive=3)
        self.assertEqual(described["id"], sluice("broker-2", "topic", "describe", "quakes")["id"])
        self.check_log("broker-3")
        self.check_lake()

        # A first broker that has lost its data is not let in, and begins no second cluster.
        self.dev("down")
        docker("volume", "rm", next(name for name in volumes() if name.endswith("broker-1")))
        self.compose("up", "-d", *BROKERS)
        self.wait_whole("broker-2", alive=2)
        harness.wait_until("broker-1 is refused", lambda: "give it a new node.id" in logs("broker-1"), SECONDS)
        self.check_log("broker-3")

        self.dev("down", "--delete")
        self.assertEqual([], volumes())


if __name__ == "__main__":
    if subprocess.run(["docker", "version"], capture_output=True, check=False).returncode != 0:
        sys.exit("no Docker engine answers: this test needs one")
    unittest.main()
