"""Measure the costs that must stay bounded in large tables, in processes that open them.

Other load on the machine only adds time, so each result is the minimum of the rounds. `lock_stats`
has the elapsed times of the holds of the lock. Their CPU times are measured, too, without those
soon after a switch of threads, which leaves the caches cold.
"""

from __future__ import annotations

import gc
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.append import resident_bytes
from bench.figures import Bar, Quantiles, at_most, human
from bench.growing import least_cpu_s
from journal import DurableState, Tables

GROUP = 100  # the number of keys with the same prefix
INSERTS = 20_000
_SNAPSHOTS = 100
_ROUNDS = 3
_INSERTS_AFTER_SWITCH = 5
_SETS_BEFORE_COLLECTION = 1000
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
    """Write tables with `keys` keys in one process, and return the least measurements of others."""
    with tempfile.TemporaryDirectory(dir=directory) as name:
        _run("fill", name, keys)
        rounds = [json.loads(_run("measure", name, keys)) for _ in range(_ROUNDS)]
        return {what: min(bounds[what] for bounds in rounds) for what in rounds[0]}


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
            f"CPU time of the holds: {human(bounds['hold_cpu_p50_ns'])} at p50, "
            f"{human(bounds['hold_cpu_p99_ns'])} at p99, "
            f"{human(bounds['hold_cpu_p99_9_ns'])} at p99.9"
        )
        yield (
            f"snapshot {bounds['snapshot_us']:.0f} us, memory {bounds['row_bytes']:.0f} B a row, "
            f"open {bounds['open_s']:.2f} s ({bounds['open_cpu_s']:.2f} s of CPU)"
        )
        yield (
            f"full collection {bounds['collection_ms']:+.2f} ms; the youngest generation, after "
            f"{_SETS_BEFORE_COLLECTION:,} sets, {bounds['young_ms']:.2f} ms"
        )


def bars(bounds: dict[str, float]) -> Iterator[Bar]:
    if bounds:
        at = f", {bounds['keys']:,} keys"
        yield at_most(f"insert, hold p99, CPU{at}", bounds["hold_cpu_p99_ns"] / 1e3, 20, "us")
        yield at_most(f"insert, hold p99.9, CPU{at}", bounds["hold_cpu_p99_9_ns"] / 1e3, 200, "us")
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
    collected_before_s = least_cpu_s(gc.collect)
    resident_before = resident_bytes()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with Tables.open(directory) as tables:
        open_s, open_cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        row_bytes = (resident_bytes() - resident_before) / keys
        gc.collect()  # the first collection stops tracking tuples of bytes
        collected_s = least_cpu_s(gc.collect)
        table = tables.table("rows")
        snapshots = []
        for _ in range(_SNAPSHOTS):
            began_ns = time.perf_counter_ns()
            rows = table.items()
            snapshots.append(time.perf_counter_ns() - began_ns)
            del rows
        chosen = random.Random()
        for number in range(_SETS_BEFORE_COLLECTION):
            table[key_of(chosen.randrange(keys))] = value_of(number)
        young_s = least_cpu_s(lambda: gc.collect(0), times=1)
    with Tables.open(directory) as tables:
        cpu = Quantiles.of(_insert(tables, min(INSERTS, keys), keys))
        hold = Quantiles.of_histogram(tables.lock_stats().hold)
    return {
        "keys": keys,
        "open_s": open_s,
        "open_cpu_s": open_cpu_s,
        "row_bytes": row_bytes,
        "collection_ms": (collected_s - collected_before_s) * 1e3,
        "young_ms": young_s * 1e3,
        "snapshot_us": statistics.median(snapshots) / 1e3,
        "hold_p50_ns": hold.p50,
        "hold_p99_ns": hold.p99,
        "hold_p99_9_ns": hold.p99_9,
        "hold_max_ns": hold.max,
        "hold_cpu_p50_ns": cpu.p50,
        "hold_cpu_p99_ns": cpu.p99,
        "hold_cpu_p99_9_ns": cpu.p99_9,
    }


def _insert(tables: Tables, count: int, keys: int) -> list[int]:
    """Insert rows anywhere among `keys` keys. Return the CPU times under the lock in ns, without
    those of the inserts soon after a switch of threads."""
    state = tables._state
    assert isinstance(state, DurableState)
    times: list[int] = []
    switches: list[int] = []
    change = state._change

    def measured(argument: Any) -> Any:
        began_ns = time.thread_time_ns()
        try:
            return change(argument)
        finally:
            times.append(time.thread_time_ns() - began_ns)

    state._change = measured  # type: ignore[method-assign,assignment]
    table, chosen = tables.table("rows"), random.Random()
    for number in range(count):
        table.insert(f"{key_of(chosen.randrange(keys))}+{chosen.random()}", value_of(number))
        usage = resource.getrusage(resource.RUSAGE_THREAD)
        switches.append(usage.ru_nvcsw + usage.ru_nivcsw)
    later = zip(times[_INSERTS_AFTER_SWITCH:], switches[_INSERTS_AFTER_SWITCH:], strict=True)
    return [
        ns for (ns, now), before in zip(later, switches, strict=False) if now == before
    ] or times
