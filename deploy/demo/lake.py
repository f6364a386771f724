"""Reads what sinks wrote, with nothing of Sluice: gzip and JSON of Python for raw files, DuckDB for Parquet."""

import gzip
import os
import re
import sys

FILE_NAME = re.compile(r"^(?P<topic>.+)-(?P<partition>\d+)-(?P<first>\d{20})-(?P<last>\d+)\.(?P<extension>jsonl\.gz|jsonl|parquet)$")


def files(folder):
    """[(path, match of its name)] of all committed files below `folder`, in the order of their names."""
    found = []
    for directory, _, names in os.walk(folder):
        for name in names:
            match = FILE_NAME.match(name)
            if match:
                found.append((os.path.join(directory, name), match))
    return sorted(found, key=lambda entry: (entry[1]["topic"], int(entry[1]["partition"]), int(entry[1]["first"]), entry[0]))


def raw_lines(folder):
    """Every line of every raw file, in order, as text."""
    for path, match in files(folder):
        opener = gzip.open if match["extension"].endswith(".gz") else open
        with opener(path, "rt", encoding="utf-8", newline="\n") as file:
            for line in file:
                yield line.rstrip("\n")


def duckdb():
    """The DuckDB of `./dev setup`."""
    try:
        import duckdb as module
    except ImportError:
        root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        sys.path.insert(0, os.path.join(os.environ.get("SLUICE_DEPS", os.path.join(root, ".deps")), "duckdb"))
        import duckdb as module
    return module


def query(sql):
    """(names of columns, rows)"""
    with duckdb().connect() as connection:
        result = connection.execute(sql)
        return [column[0] for column in result.description], result.fetchall()
