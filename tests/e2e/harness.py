"""Real processes for the end-to-end tests: a broker, the command line, the connector, an S3 server; each can be killed.

Programs come from the folder in SLUICE_BIN (set by CTest), else ./bin. A server that is missing fails the test."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "deploy", "demo"))
import api  # noqa: E402,F401  (the tests use both through this module)
import lake  # noqa: E402,F401

LONG = bool(os.environ.get("SLUICE_LONG"))
# What a producer says of a record that may have been written, and what the harness says of one that it never took.
OUTCOME_UNKNOWN, NEVER_READ = "OUTCOME_UNKNOWN", "never read"


def seeded():
    """A random source whose seed is printed, so that a failure's choices can be made again with SLUICE_SEED."""
    seed = int(os.environ.get("SLUICE_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"SLUICE_SEED={seed}", flush=True)
    return random.Random(seed)


def program(name):
    path = os.path.join(os.environ.get("SLUICE_BIN") or os.path.join(ROOT, "bin"), name)
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path} is not built")
    return path


ports_given = set()


def free_port():
    """One that nobody listens at, where it can be below those that the kernel gives to outgoing connections, and in this process not the
    same one twice: whoever it is for may listen there seconds later, or again after a restart."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        above = max(int(file.read().split()[0]), 20_000)
    while True:
        port = random.SystemRandom().randrange(10_000, above)
        if port in ports_given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports_given.add(port)
        return port


def wait_until(what, true, seconds=90):
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:.3g} s still not: {what}")
        time.sleep(0.01)


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as response:
            return response.status == 200
    except urllib.error.HTTPError:
        return False
    except OSError:
        return False


class Process:
    """A program with its output in a log file; `before` is called in the new process before the program begins."""

    def __init__(self, name, arguments, folder, environment=None, before=None):
        self.name = name
        self.log_path = os.path.join(folder, f"{name}.log")
        self.log_begin = os.path.getsize(self.log_path) if os.path.exists(self.log_path) else 0
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(arguments, cwd=folder, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}, preexec_fn=before)

    def alive(self):
        return self.process.poll() is None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, seconds=90):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=seconds)

    def said(self, text):
        """Whether this process has logged it; one before it in the same folder does not count."""
        with open(self.log_path, "rb") as file:
            file.seek(self.log_begin)
            return text.encode() in file.read()

    def tail(self, lines=30):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return f"--- {self.log_path}\n" + "".join(file.readlines()[-lines:])


class Broker:
    """One node in `folder`, on ports of its own that stay the same over restarts."""

    def __init__(self, folder, more_config="", data_dir=None):
        self.folder = folder
        self.data_dir = data_dir or os.path.join(folder, "data")
        self.grpc, self.peer, self.http = free_port(), free_port(), free_port()
        self.address = f"127.0.0.1:{self.grpc}"
        self.config = os.path.join(folder, "sluiced.yaml")
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(f"node: {{ data_dir: {self.data_dir} }}\n"
                       f"listen: {{ grpc: 127.0.0.1:{self.grpc}, peer: 127.0.0.1:{self.peer}, http: 127.0.0.1:{self.http} }}\n"
                       + more_config)
        self.arguments = []
        self.process = None

    def start(self, before=None):
        self.launch(before)
        return self.wait_ready()

    def launch(self, before=None):
        self.process = Process("sluiced", [program("sluiced"), "--config", self.config, *self.arguments], self.folder, before=before)

    def wait_ready(self):
        def ready():
            if not self.process.alive():
                raise RuntimeError(f"sluiced ended with {self.process.process.returncode}\n{self.process.tail()}")
            return answers(f"http://127.0.0.1:{self.http}/readyz")

        wait_until("sluiced is ready", ready)
        return self

    def kill(self):
        self.process.kill()

    def stop(self):
        code = self.process.stop()
        if code != 0:
            raise RuntimeError(f"sluiced ended with {code} after SIGTERM\n{self.process.tail()}")

    def sluice(self, *arguments, input=None, check=True, timeout=60):
        """Runs the command line against this broker."""
        done = subprocess.run([program("sluice"), "--brokers", self.address, *arguments], input=input, text=True,
                              capture_output=True, timeout=timeout)
        if check and done.returncode != 0:
            raise RuntimeError(f"sluice {' '.join(arguments)} ended with {done.returncode}: {done.stderr}\n{self.process.tail()}")
        return done

    def consume(self, topic, partition=0):
        """Every record of one partition, as the command line's JSON objects."""
        out = self.sluice("--output", "json", "consume", topic, "--from", "earliest", "--partition", str(partition)).stdout
        return [json.loads(line) for line in out.splitlines()]


class Producer:
    """`sluice produce` that is fed unique values until told to stop; what became of each can be read after `finish`: in `refused`
    ({value: reason}) is what was certainly not written, in `unknown` what may have been."""

    def __init__(self, brokers, topic, prefix, *arguments, pause=0.002):
        self.process = subprocess.Popen(
            [program("sluice"), "--brokers", brokers, "--timeout", "10s", "--output", "json", "produce", topic, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.prefix = prefix
        self.pause = pause
        self.sent = []
        self.refused, self.unknown = {}, []
        self.stopping = threading.Event()
        self.output = []
        self.threads = [threading.Thread(target=self.feed), threading.Thread(target=self.drain)]
        for thread in self.threads:
            thread.start()

    def feed(self):
        try:
            while not self.stopping.is_set():
                for _ in range(20):
                    value = f"{self.prefix}-{len(self.sent):06}"
                    self.sent.append(value)
                    self.process.stdin.write(value + "\n")
                self.process.stdin.flush()
                time.sleep(self.pause)
            self.process.stdin.close()
        except (BrokenPipeError, ValueError):
            pass

    def drain(self):
        for line in self.process.stdout:
            self.output.append(line)

    def finish(self):
        """Stops feeding and waits for its end; [(value, offset)] of what it acknowledged."""
        self.stopping.set()
        stderr = self.process.stderr.read()
        self.process.wait(timeout=60)
        for thread in self.threads:
            thread.join()
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.stdout.close()
        self.process.stderr.close()
        acknowledged = []
        for value, line in zip(self.sent, self.output):
            answer = json.loads(line)
            if not answer.get("error"):
                acknowledged.append((value, answer["offset"]))
            elif answer["error"]["reason"] == OUTCOME_UNKNOWN:
                self.unknown.append(value)
            else:  # every other reason is a promise (docs/client.md)
                self.refused[value] = answer["error"]["reason"]
        # Behind an error it reads no more; all that it read has an answer, unless it was killed.
        unanswered = self.sent[len(self.output):]
        if self.process.returncode >= 0:
            self.refused.update(dict.fromkeys(unanswered, NEVER_READ))
        else:
            self.unknown += unanswered
        return acknowledged, stderr


class S3Server:
    """versitygw of `./dev setup` over a folder; a bucket is a folder in it, so results are read from the disk."""

    ACCESS_KEY, SECRET_KEY = "e2e-access", "e2e-secret-key"

    def __init__(self, folder, buckets):
        self.lake = os.path.join(folder, "s3")
        for bucket in buckets:
            os.makedirs(os.path.join(self.lake, bucket))
        self.folder, self.port = folder, free_port()
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self):
        """Also again, on the same port over the same folder."""
        deps = os.environ.get("SLUICE_DEPS", os.path.join(ROOT, ".deps"))
        self.process = Process("versitygw", [os.path.join(deps, "bin", "versitygw"), "--port", f"127.0.0.1:{self.port}", "--quiet",
                                             "posix", self.lake], self.folder,
                               {"ROOT_ACCESS_KEY": self.ACCESS_KEY, "ROOT_SECRET_KEY": self.SECRET_KEY})

        def listening():
            if not self.process.alive():
                raise RuntimeError(self.process.tail())
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        wait_until("the S3 server listens", listening)

    def kill(self):
        self.process.kill()
