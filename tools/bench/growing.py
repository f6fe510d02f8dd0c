"""Measure one state in this process while it grows, is opened, or is updated without pause.

`bench.growth` runs this, in a process for each measurement.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from msgpack import packb, unpackb

from bench.append import resident_bytes
from journal import CowTable, DurableState, Options, Tables
from journal._state import owner_lock
from journal._tables.keys import encode_key

MIB = 1 << 20
UPDATES = 20_000
FREEZES = 100
THREADS = 8
GROWTH = 0.3  # the growth that is allowed between two compactions under busy threads
HOST_OBJECTS = 400_000
WORD = 3  # the field of a row that is the same word in all rows
NEVER = Options(checkpoint_min_bytes=1 << 40)
BUSY = Options(checkpoint_growth=GROWTH)
_TEXT = "Find every caller of the function, and say which of them pass no timeout to it. " * 3
Measured = dict[str, float]


class Rows:
    """A state machine whose rows are plain tuples of strings and numbers."""

    application = "growth/1"

    def __init__(self) -> None:
        self.table: CowTable[str, tuple[Any, ...]] = CowTable()

    def load(self, item: Any) -> None:
        self.table[item[0]] = tuple(item)

    def apply(self, lsn: int, record: Any) -> None:
        self.table[record[0]] = tuple(record)

    def freeze(self) -> Iterable[Any]:
        return map(list, self.table.freeze())


class InternedRows(Rows):
    """The same machine, which keeps one string for each word that repeats."""

    def load(self, item: Any) -> None:
        item[WORD] = sys.intern(item[WORD])
        super().load(item)

    def apply(self, lsn: int, record: Any) -> None:
        record[WORD] = sys.intern(record[WORD])
        super().apply(lsn, record)


class Subject:
    """A state with items of some 270 bytes in a checkpoint."""

    def __init__(self, state: DurableState[Any]) -> None:
        self.state = state

    def put(self, number: int, version: int) -> None:
        """Insert the item of that number, or replace it."""
        raise NotImplementedError

    def freeze(self) -> object:
        raise NotImplementedError


class TuplesSubject(Subject):
    """A machine whose rows are plain tuples."""

    machine = Rows

    def __init__(self, directory: Path, options: Options) -> None:
        super().__init__(DurableState.open(directory, self.machine(), options=options))

    def put(self, number: int, version: int) -> None:
        record = [key_of(number), number, version, "running", _TEXT[:220]]
        self.state.update(lambda _: record)

    def freeze(self) -> object:
        return self.state.read(lambda machine: machine.freeze())


class InternedSubject(TuplesSubject):
    """A machine whose rows are plain tuples, and whose words are interned."""

    machine = InternedRows


class TablesSubject(Subject):
    """One table, whose rows are kept as bytes."""

    def __init__(self, directory: Path, options: Options) -> None:
        tables = Tables.open(directory, options=options)
        assert isinstance(tables._state, DurableState)
        super().__init__(tables._state)
        self._tables, self._table = tables, tables.table("rows")

    def put(self, number: int, version: int) -> None:
        self._table[key_of(number)] = [number, version, "running", _TEXT[:192]]

    def freeze(self) -> object:
        return self._table.items()


SUBJECTS: dict[str, Callable[[Path, Options], Subject]] = {
    "tables": TablesSubject,
    "tuples": TuplesSubject,
    "interned": InternedSubject,
}


def key_of(number: int) -> str:
    return f"agent {number:09}"


def grow(subject: Subject, items: int) -> None:
    for number in range(items):
        subject.put(number, 0)


def least_cpu_s(call: Callable[[], object], times: int = 5) -> float:
    """Return the least processor time of the calls. Other load on the machine only adds time."""
    costs = []
    for _ in range(times):
        began = time.thread_time()
        call()
        costs.append(time.thread_time() - began)
    return min(costs)


def grown(kind: str, directory: Path, items: int, chosen: random.Random, _: float) -> Measured:
    """Grow a state without compaction, then update it and write a checkpoint while it is idle."""
    collected_before_s, resident_before = least_cpu_s(gc.collect), resident_bytes()
    subject = SUBJECTS[kind](directory, NEVER)
    began = time.process_time()
    grow(subject, items)
    subject.state.wait_durable()
    insert_us = (time.process_time() - began) / items * 1e6
    item_bytes = (resident_bytes() - resident_before) / items
    numbers = [chosen.randrange(items) for _ in range(UPDATES)]
    began = time.process_time()
    for number in numbers:
        subject.put(number, 1)
    subject.state.wait_durable()
    update_us = (time.process_time() - began) / UPDATES * 1e6
    for _ in range(3):  # a tuple is no longer visited once nothing that it contains is
        gc.collect()
    collection_ms = (least_cpu_s(gc.collect) - collected_before_s) * 1e3
    freezes = []
    for _ in range(FREEZES):
        began_ns = time.perf_counter_ns()
        snapshot = subject.freeze()
        freezes.append(time.perf_counter_ns() - began_ns)
        del snapshot
    began, began_cpu = time.perf_counter(), time.process_time()
    with closing(subject.state.compact()) as checkpoint:
        checkpoint_bytes = checkpoint.size_bytes
    checkpoint_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    subject.state.close()
    return {
        "insert_us": insert_us,
        "update_us": update_us,
        "item_bytes": item_bytes,
        "process_collection_ms": collected_before_s * 1e3,
        "collection_ms": collection_ms,
        "freeze_us": statistics.median(freezes) / 1e3,
        "checkpoint_s": checkpoint_s,
        "checkpoint_cpu_us": cpu_s / items * 1e6,
        "line_bytes": checkpoint_bytes / items,
    }


def held(kind: str, directory: Path, items: int, _: random.Random, host_objects: float) -> Measured:
    """Grow a state with compaction, in a process with objects of its own, and measure the holds.

    The times are processor times of the calling thread: a hold that is longer only because another
    process had the processor says nothing about the state.
    """
    host = [[number] for number in range(int(host_objects))]
    vars(owner_lock)["perf_counter_ns"] = time.thread_time_ns  # the clock of its holds
    subject = SUBJECTS[kind](directory, Options())
    with collections() as longest:
        grow(subject, items)
    holds = subject.state.lock_stats().hold
    subject.state.close()
    if host:
        return {"host_hold_max_ms": holds.max / 1e6}
    return {
        "hold_p50_us": holds.p50 / 1e3,
        "hold_p99_us": holds.p99 / 1e3,
        "hold_max_ms": holds.max / 1e6,
        "collection_max_ms": longest[0] / 1e6,
    }


@contextmanager
def collections() -> Iterator[list[int]]:
    """Yield a list whose item is the processor time of the longest collection so far, in ns."""
    longest, began_ns = [0], 0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal began_ns
        if phase == "start":
            began_ns = time.thread_time_ns()
        else:
            longest[0] = max(longest[0], time.thread_time_ns() - began_ns)

    gc.callbacks.append(note)
    try:
        yield longest
    finally:
        gc.callbacks.remove(note)


def opened(kind: str, directory: Path, items: int, _: random.Random, __: float) -> Measured:
    """Open the state from its checkpoint, without the extra `fast`."""
    hide_fast()
    before_bytes = resident_bytes()
    began, began_cpu = time.perf_counter(), time.process_time()
    subject = SUBJECTS[kind](directory, NEVER)
    open_s, cpu_s = time.perf_counter() - began, time.process_time() - began_cpu
    item_bytes = (resident_bytes() - before_bytes) / items
    subject.state.close()
    return {"open_s": open_s, "open_cpu_s": cpu_s, "open_item_bytes": item_bytes}


def opened_fast(kind: str, directory: Path, _: int, __: random.Random, ___: float) -> Measured:
    """Open the state with the extra `fast`."""
    began_cpu = time.process_time()
    subject = SUBJECTS[kind](directory, NEVER)
    cpu_s = time.process_time() - began_cpu
    subject.state.close()
    return {"open_fast_cpu_s": cpu_s}


def hide_fast() -> None:
    """Let this process work as if the extra `fast` were not installed."""
    modules: dict[str, Any] = sys.modules
    modules["msgspec"] = None


def busy(kind: str, directory: Path, items: int, chosen: random.Random, seconds: float) -> Measured:
    """Update the state in threads that never wait for the disk. Measure the size of the directory.

    The bound is that of three checkpoints, twice the growth between two, and two segments.
    """
    from bench.compact import watched  # here, because its imports are work for the collector

    with watched(directory) as most:
        subject = SUBJECTS[kind](directory, BUSY)
        stall_s = longest_update_s(subject.put, items, chosen, seconds)
        stats = subject.state.stats()
        with closing(subject.state.compact()) as checkpoint:
            state_bytes = checkpoint.size_bytes
        subject.state.close()
    growth_bytes = max(BUSY.checkpoint_min_bytes, GROWTH * state_bytes)
    bound = 3 * state_bytes + 2 * growth_bytes + 2 * BUSY.segment_bytes
    return {
        "busy_per_s": stats.records / seconds,
        "busy_stall_ms": stall_s * 1e3,
        "disk_mib": most.value / MIB,
        "disk_to_bound": most.value / bound,
    }


def longest_update_s(
    put: Callable[[int, int], None], items: int, chosen: random.Random, seconds: float
) -> float:
    """Update items in threads without pause. Return the longest time that an update took."""
    from bench.load import run_threads  # see `busy`

    until = time.monotonic() + seconds
    stalls = [0.0] * THREADS
    seeds = [chosen.getrandbits(32) for _ in range(THREADS)]

    def run(index: int) -> None:
        own, now = random.Random(seeds[index]), time.monotonic()
        while now < until:
            put(own.randrange(items), index)
            began, now = now, time.monotonic()
            stalls[index] = max(stalls[index], now - began)

    run_threads(THREADS, run)
    return max(stalls)


def bare(kind: str, _: Path, items: int, chosen: random.Random, seconds: float) -> Measured:
    """Keep the same rows in a dict behind a lock, without a journal: no state takes less."""
    rows: dict[str | bytes, Any] = {}
    lock = threading.Lock()

    def put(number: int, version: int) -> None:
        with lock:
            record = [key_of(number), number, version, "running", _TEXT[:220]]
            if kind == "tables":
                rows[encode_key(key_of(number))] = packb([*record[1:4], _TEXT[:192]])
                return
            record = unpackb(packb(record))
            if kind == "interned":
                record[WORD] = sys.intern(record[WORD])
            rows[record[0]] = tuple(record)

    before_bytes = resident_bytes()
    for number in range(items):
        put(number, 0)
    item_bytes = (resident_bytes() - before_bytes) / items
    stall_s = longest_update_s(put, items, chosen, seconds)
    return {"bare_item_bytes": item_bytes, "bare_stall_ms": stall_s * 1e3}


MEASURES = {
    "grown": grown,
    "held": held,
    "opened": opened,
    "opened_fast": opened_fast,
    "busy": busy,
    "bare": bare,
}


def main(what: str, kind: str, directory: str, items: str, seed: str, extent: str) -> None:
    """Measure, and print the figures as JSON.

    `extent`: the objects of the host for `held`, the seconds for `busy` and `bare`.
    """
    chosen = random.Random(int(seed))
    measured = MEASURES[what](kind, Path(directory), int(items), chosen, float(extent))
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
