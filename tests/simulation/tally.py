#!/usr/bin/env python3
"""Runs many seeds of the simulation of whole nodes, in steps that can be interrupted, and keeps the tally.

tally.py PROGRAM STATE PAGE [--seeds N] [--step N] [--jobs N] [--minutes M]

Goes on where STATE (JSON) says that it stopped, unless that was of another PROGRAM; runs up to seed N in steps, at most for M
minutes, and after each step writes the sum between the two marks in PAGE. Exits with 1 when a seed broke a rule, in this run or
before; when seeds are left to run; and when something that is counted has never happened in all of them.
"""
import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import subprocess
import sys
import time

BEGIN, END = "<!-- tally: written by tests/simulation/tally.py -->", "<!-- end of tally -->"
TOTALS = re.compile(r"(\d+) seeds, (\d+) broken; (\d+) events, (\d+) simulated seconds, (\d+) items sent, "
                    r"(\d+) acknowledged, (\d+) unknown, (\d+) batches seen")
NAMES = ["seeds", "broken", "events", "simulated seconds", "items sent", "items acknowledged",
         "items of unknown outcome", "batches seen"]
ALL_HAPPENS_FROM = 1000  # seeds


def load(path, program):
    with open(program, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            state = json.load(file)
        if state.get("program") == digest:
            return state
    return {"program": digest, "next": 1, "totals": dict.fromkeys(NAMES, 0), "hits": {}, "broken": []}


def save(path, state):
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(state, file, indent=1)
    os.replace(path + ".new", path)


def run_seeds(program, first, count):
    """What it says of `count` seeds; raises when it died."""
    done = subprocess.run([program, "--seeds", str(count), "--from", str(first)], capture_output=True, text=True)
    if TOTALS.search(done.stdout) is None:
        raise RuntimeError(f"{program} ended without its sums:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def run_steps(args, state):
    """As many steps as may run at a time; their sums go into the state."""
    firsts = range(state["next"], args.seeds + 1, args.step)[:args.jobs]
    counts = [min(args.step, args.seeds - first + 1) for first in firsts]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        said = list(pool.map(run_seeds, [args.program] * len(firsts), firsts, counts))
    for output, count in zip(said, counts):
        add(state, output, count)


def add(state, output, count):
    found = TOTALS.search(output)
    for name, value in zip(NAMES, found.groups()):
        state["totals"][name] += int(value)
    for line in output[found.end():].splitlines():
        name, colon, value = line.strip().rpartition(": ")
        if colon and value.isdigit():
            state["hits"][name] = state["hits"].get(name, 0) + int(value)
    state["broken"] += [line for line in output.splitlines() if line.startswith("seed ")]
    state["next"] += count


def write_page(path, state):
    with open(path, encoding="utf-8") as file:
        text = file.read()
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise RuntimeError(f"{path} has no place for the tally")
    lines = ["", "", "| what | how often |", "| --- | ---: |"]
    for name, value in list(state["totals"].items()) + list(state["hits"].items()):
        lines.append(f"| {name} | {value:,} |")
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + BEGIN + "\n".join(lines) + "\n\n" + END + after)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("state")
    parser.add_argument("page")
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--step", type=int, default=250)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--minutes", type=float, default=60.0)
    args = parser.parse_args()
    state = load(args.state, args.program)
    until = time.monotonic() + 60 * args.minutes
    while state["next"] <= args.seeds and time.monotonic() < until:
        run_steps(args, state)
        save(args.state, state)
        write_page(args.page, state)
        print(f"{state['next'] - 1} of {args.seeds} seeds", flush=True)
    wrong = list(state["broken"])
    if state["next"] <= args.seeds:
        wrong.append(f"the time is over, with seeds from {state['next']} on left to run: run it again")
    elif args.seeds >= ALL_HAPPENS_FROM:
        wrong += [f"this never happened: {name}" for name, count in state["hits"].items() if count == 0]
    print("\n".join(wrong), end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
