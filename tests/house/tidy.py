#!/usr/bin/env python3
"""clang-tidy over the files that have changed since it last found nothing in them: those whose object file, which the build
makes anew when anything that it includes changes, or whose rules are newer than the stamp that a clean run leaves.

Usage: tidy.py BUILD_FOLDER [FILE...]     without FILE: all sources but tests, benchmarks and fuzz targets
"""

import concurrent.futures
import json
import os
import re
import subprocess
import sys

CLANG_TIDY = ["clang-tidy-14", "--quiet", "--extra-arg=-Wno-unknown-warning-option"]  # g++'s own warning flags are no finding
NOT_OURS_TO_CHECK = re.compile(r"^(tests|bench|build)/|_(test|fuzz)\.cc$")


def objects(build, root):
    """Source (relative to root) -> its object file, for what the build compiles."""
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        entries = json.load(file)
    found = {}
    for entry in entries:
        source = os.path.relpath(os.path.join(entry["directory"], entry["file"]), root)
        output = re.search(r" -o (\S+\.o)", entry["command"])
        if not source.startswith("..") and output:
            found[source] = os.path.join(entry["directory"], output.group(1))
    return found


def age(path):
    return os.path.getmtime(path) if os.path.exists(path) else None


def stale(stamp, *inputs):
    """Whether the stamp is missing or older than an input; an input that is missing counts as new."""
    made = age(stamp)
    return made is None or any(age(path) is None or age(path) > made for path in inputs)


def check(build, root, source):
    done = subprocess.run([*CLANG_TIDY, "-p", build, source], cwd=root, capture_output=True, text=True)
    if done.returncode == 0:
        stamp = stamp_of(build, source)
        os.makedirs(os.path.dirname(stamp), exist_ok=True)
        with open(stamp, "w", encoding="utf-8"):
            pass
        return None
    return done.stdout or done.stderr


def stamp_of(build, source):
    return os.path.join(build, "tidy", source + ".clean")


def main():
    root, build = os.getcwd(), os.path.abspath(sys.argv[1])
    known = objects(build, root)
    wanted = [os.path.relpath(path, root) for path in sys.argv[2:]]
    for source in wanted:
        if source not in known:
            sys.exit(f"tidy: {source} is not a file that {sys.argv[1]} compiles")
    wanted = wanted or sorted(source for source in known if not NOT_OURS_TO_CHECK.search(source))
    rules = os.path.join(root, ".clang-tidy")
    waiting = [source for source in wanted if stale(stamp_of(build, source), known[source], rules)]
    print(f"{len(waiting)} of {len(wanted)} files have changed", flush=True)
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for source, found in zip(waiting, pool.map(lambda each: check(build, root, each), waiting)):
            if found is not None:
                failed += 1
                print(f"{source}:\n{found}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
