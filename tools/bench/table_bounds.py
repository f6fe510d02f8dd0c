"""Measure the costs that must stay bounded in large tables, in a process that opens them.

Holds of the lock are elapsed times, from `lock_stats`: other load on the machine adds to their
highest quantiles. The CPU time of whole inserts is printed beside them.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.append import resident_bytes
from bench.figures import Bar, Quantiles, at_most, human
from journal import Tables

GROUP = 100  # the number of keys with the same prefix
INSERTS = 20_000
_SNAPSHOTS = 100
_KEYS_A_TRANSACTION = 500
_TEXT = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor. " * 3


def key_of(number: int) -> str:
    return f"{number // GROUP:06}:{number % GROUP:03}"


def value_of(number: int) -> dict[str, Any]:
    """Return a value of 250 bytes of msgpack."""
    return {"id": number + (1 << 32), "name": "Ada Lovelace", "text": _TEXT[:212]}


def rows_of(count: int) -> Iterator[tuple[str, Any]]:
    return ((key_of(number), value_of(number)) for number in range(count))


def measured(directory: Path | None, keys: int) -> dict[str, float]:
    """Write tables with `keys` keys in one process, and return the measurements of another."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        _run("fill", name, keys)
        bounds: dict[str, float] = json.loads(_run("measure", name, keys))
        return bounds


def child(what: str, directory: Path, keys: int) -> None:
    """Fill the tables, or measure them and print the results as JSON."""
    if what == "fill":
        _fill(directory, keys)
    else:
        print(json.dumps(_measure(directory, keys)))


def lines(bounds: dict[str, float]) -> Iterator[str]:
    if bounds:
        holds = Quantiles(*(bounds[f"hold_{name}_ns"] for name in ("p50", "p99", "p99_9", "max")))
        yield (
            f"{bounds['keys']:,} keys: an insert holds the lock {human(holds.p50)} at p50, "
            f"{human(holds.p99)} at p99, {human(holds.p99_9)} at p99.9, {human(holds.max)} at most"
        )
        yield (
            f"a whole insert takes {human(bounds['insert_cpu_p50_ns'])} of CPU at p50, "
            f"{human(bounds['insert_cpu_p99_ns'])} at p99, "
            f"{human(bounds['insert_cpu_p99_9_ns'])} at p99.9: what exceeds it is other load"
        )
        yield (
            f"snapshot {bounds['snapshot_us']:.0f} us, memory {bounds['row_bytes']:.0f} B a row, "
            f"collection {bounds['collection_ms']:+.2f} ms, open {bounds['open_s']:.2f} s "
            f"({bounds['open_cpu_s']:.2f} s of CPU)"
        )


def bars(bounds: dict[str, float]) -> Iterator[Bar]:
    if bounds:
        at = f", {bounds['keys']:,} keys"
        yield at_most(f"insert, hold p99{at}", bounds["hold_p99_ns"] / 1e3, 20, "us")
        yield at_most(f"insert, hold p99.9{at}", bounds["hold_p99_9_ns"] / 1e3, 200, "us")
        yield at_most(f"snapshot{at}", bounds["snapshot_us"], 50, "us")
        yield at_most(f"memory a row{at}", bounds["row_bytes"], 500, "B")
        yield at_most(f"added to a full collection{at}", bounds["collection_ms"], 5, "ms")
        yield at_most(f"open, CPU{at}", bounds["open_cpu_s"], 2, "s")


def _run(what: str, directory: str, keys: int) -> str:
    command = [sys.executable, sys.argv[0], "tables", "--child", what, directory, str(keys)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def _fill(directory: Path, keys: int) -> None:
    with Tables.open(directory) as tables:
        table = tables.table("rows")
        for first in range(0, keys, _KEYS_A_TRANSACTION):
            with tables.transaction() as t:
                for number in range(first, min(keys, first + _KEYS_A_TRANSACTION)):
                    t[table][key_of(number)] = value_of(number)
        tables.compact().close()


def _measure(directory: Path, keys: int) -> dict[str, float]:
    collected_before_s = _least_cpu_s(gc.collect)
    resident_before = resident_bytes()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with Tables.open(directory) as tables:
        open_s, open_cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        row_bytes = (resident_bytes() - resident_before) / keys
        gc.collect()  # the first collection stops tracking tuples of bytes
        collected_s = _least_cpu_s(gc.collect)
        table = tables.table("rows")
        snapshots = []
        for _ in range(_SNAPSHOTS):
            began_ns = time.perf_counter_ns()
            rows = table.items()
            snapshots.append(time.perf_counter_ns() - began_ns)
            del rows
    with Tables.open(directory) as tables:
        table = tables.table("rows")
        chosen = random.Random(0)
        inserts = []
        for number in range(min(INSERTS, keys)):
            key = f"{key_of(chosen.randrange(keys))}+{number}"
            value = value_of(number)
            began_ns = time.thread_time_ns()
            table.insert(key, value)
            inserts.append(time.thread_time_ns() - began_ns)
        cpu = Quantiles.of(inserts)
        hold = Quantiles.of_histogram(tables.lock_stats().hold)
    return {
        "keys": keys,
        "open_s": open_s,
        "open_cpu_s": open_cpu_s,
        "row_bytes": row_bytes,
        "collection_ms": (collected_s - collected_before_s) * 1e3,
        "snapshot_us": statistics.median(snapshots) / 1e3,
        "hold_p50_ns": hold.p50,
        "hold_p99_ns": hold.p99,
        "hold_p99_9_ns": hold.p99_9,
        "hold_max_ns": hold.max,
        "insert_cpu_p50_ns": cpu.p50,
        "insert_cpu_p99_ns": cpu.p99,
        "insert_cpu_p99_9_ns": cpu.p99_9,
    }


def _least_cpu_s(call: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        began = time.thread_time()
        call()
        times.append(time.thread_time() - began)
    return min(times)
