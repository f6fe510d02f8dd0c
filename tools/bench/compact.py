"""Measure the cost of compaction: the callers' latency, the bytes written, and the disk space.

A fleet is under load at a fixed rate, in alternating rounds with continuous compaction and with
none. Then it is under load at full speed with continuous compaction. There, a thread holds the lock
for a shorter time, because it was not just woken. Finally, a long run at full speed compares the
bytes written with the bytes appended, and the disk space with the size of the state.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.figures import Bar, Quantiles, at_most, human
from bench.fleet_load import Worker, reopened
from bench.load import at_full_speed, at_rate, compacting, run_threads
from bench.machine import about
from bench.output import parsed, parser_of, show
from bench.peer import PACKED, RECORD
from journal import CowTable, DurableState, Options
from manager import SubAgentManager

NEVER = 1 << 40
SEGMENT_BYTES = 4 << 20
CELLS = 16_000  # large enough that `checkpoint_growth`, not the minimum size, decides what is due
WATCH_EVERY_S = 0.002


@dataclass(frozen=True)
class Round:
    """The latency from due and the lock's hold in one run at a fixed rate, in ns."""

    due: Quantiles
    hold: Quantiles
    compactions: int


@dataclass(frozen=True)
class Latency:
    """Latencies from due and holds of the lock, in ns, as medians of the rounds.

    on, off: the latency from due with and without compaction.
    hold_at_full_speed: with compaction.
    ratio: the p99.9 from due with compaction divided by that without, the median of the rounds.
    worst: the longest latency of all rounds with compaction, which a median would hide.
    """

    off: Quantiles
    on: Quantiles
    hold_off: Quantiles
    hold_on: Quantiles
    hold_at_full_speed: Quantiles
    ratio: float
    worst: float
    compactions: int

    @classmethod
    def of(cls, off: list[Round], on: list[Round], at_full_speed: list[Quantiles]) -> Latency:
        return cls(
            Quantiles.median(each.due for each in off),
            Quantiles.median(each.due for each in on),
            Quantiles.median(each.hold for each in off),
            Quantiles.median(each.hold for each in on),
            Quantiles.median(at_full_speed),
            statistics.median(b.due.p99_9 / a.due.p99_9 for a, b in zip(off, on, strict=True)),
            max(each.due.max for each in on),
            sum(each.compactions for each in on),
        )


@dataclass(frozen=True)
class Space:
    """The disk space of the long run, in bytes.

    held: the maximum size of the directory that another process saw.
    state: the size of a checkpoint.
    """

    updates: int
    appended: int
    written: int
    held: int
    state: int
    growth: float

    @property
    def bound(self) -> float:
        return (3 + 2 * self.growth) * self.state + 2 * SEGMENT_BYTES


class Cells:
    """A state of CELLS values, which are replaced again and again."""

    application = "cells/1"

    def __init__(self) -> None:
        self.table: CowTable[int, Any] = CowTable()

    def load(self, item: Any) -> None:
        self.table[len(self.table)] = item

    def apply(self, lsn: int, record: Any) -> None:
        self.table[lsn % CELLS] = record

    def freeze(self) -> Iterable[Any]:
        return self.table.freeze()


@contextmanager
def loaded(options: argparse.Namespace) -> Iterator[tuple[SubAgentManager, list[Worker]]]:
    # No compaction is due in such a short run, so that all of them are the benchmark's.
    engine = Options(checkpoint_min_bytes=NEVER)
    with (
        tempfile.TemporaryDirectory(dir=options.dir) as name,
        reopened(Path(name), options.agents, engine) as manager,
    ):
        yield manager, [Worker(manager, waits=False, lists=False) for _ in range(options.threads)]


def round_of(options: argparse.Namespace, *, compaction: bool) -> Round:
    with loaded(options) as (manager, workers):
        with compacting(manager) if compaction else nullcontext():
            due = at_rate([worker.call for worker in workers], options.rate, options.seconds)
            hold = manager.lock_stats().hold
        compactions = manager.stats().compactions
    return Round(Quantiles.of(due), Quantiles.of_histogram(hold), compactions)


def held_at_full_speed(options: argparse.Namespace) -> Quantiles:
    with loaded(options) as (manager, workers):
        with compacting(manager):
            at_full_speed([worker.call for worker in workers], options.seconds)
        return Quantiles.of_histogram(manager.lock_stats().hold)


def latency(options: argparse.Namespace) -> Latency:
    off: list[Round] = []
    on: list[Round] = []
    for number in range(options.rounds):
        # The first measurement of a round may have less competing load, so alternate the order.
        for compaction in (False, True) if number % 2 else (True, False):
            (on if compaction else off).append(round_of(options, compaction=compaction))
    return Latency.of(off, on, [held_at_full_speed(options) for _ in range(options.rounds)])


@contextmanager
def watched(directory: Path) -> Iterator[Any]:
    """Yield a shared value: the maximum total size of the files in `directory`, in bytes.

    Another process measures it every 2 ms and at the end. A thread might not run when the size is
    at its maximum, because the compactor keeps the interpreter busy while updates wait.
    """
    context = multiprocessing.get_context("fork")
    most, ended = context.Value("q", 0), context.Event()

    def watch() -> None:
        is_last = False
        while not is_last:
            is_last = ended.wait(WATCH_EVERY_S)
            size = 0
            for entry in os.scandir(directory):
                with suppress(FileNotFoundError):
                    size += entry.stat().st_size
            most.value = max(most.value, size)

    process = context.Process(target=watch, daemon=True)
    process.start()
    try:
        yield most
    finally:
        ended.set()
        process.join()
    if process.exitcode or not most.value:
        raise RuntimeError(f"the process that watches {directory} failed; repeat the run")


def space(options: argparse.Namespace) -> Space:
    """Run `options.updates` updates in 64 threads, and measure the disk space."""
    engine = Options(segment_bytes=SEGMENT_BYTES)
    a_thread = max(1, options.updates // 64)
    with (
        tempfile.TemporaryDirectory(dir=options.dir) as name,
        watched(Path(name)) as held,
        DurableState.open(name, Cells(), options=engine) as state,
    ):

        def run(_: int) -> None:
            for _ in range(a_thread):
                state.update(lambda _: RECORD)

        run_threads(64, run)
        state.wait_durable()
        stats = state.stats()
        with closing(state.compact()) as checkpoint:
            size = checkpoint.size_bytes
    return Space(
        updates=64 * a_thread,
        appended=64 * a_thread * len(PACKED),
        written=stats.bytes + stats.checkpoint_bytes,
        held=held.value,
        state=size,
        growth=engine.checkpoint_growth,
    )


def lines(times: Latency, space: Space) -> Iterator[str]:
    for name, quantiles in (
        ("from due, compaction off", times.off),
        ("from due, compaction on", times.on),
        ("lock hold, compaction off", times.hold_off),
        ("lock hold, compaction on", times.hold_on),
        ("the same at full speed", times.hold_at_full_speed),
    ):
        texts = (f"{key} {human(value)}" for key, value in asdict(quantiles).items())
        yield f"{name:26}" + ", ".join(texts)
    yield f"{times.compactions} compactions"
    yield (
        f"{space.updates:,} updates: appended {space.appended / 2**20:.1f} MiB, "
        f"written {space.written / 2**20:.1f}, held {space.held / 2**20:.1f}, "
        f"of a state of {space.state / 2**20:.1f}"
    )


def bars(options: argparse.Namespace, times: Latency, space: Space) -> Iterator[Bar]:
    rate = f"at {options.rate:,g} calls/s"
    for when, hold in (("at full speed", times.hold_at_full_speed), (rate, times.hold_on)):
        yield at_most(f"lock hold p50, {options.agents:,} agents, {when}", hold.p50 / 1e3, 4, "us")
        yield at_most(f"lock hold p99, {options.agents:,} agents, {when}", hold.p99 / 1e3, 15, "us")
    yield at_most(f"from due p99 {rate}", times.on.p99 / 1e6, 1, "ms")
    yield at_most(f"from due max {rate}", times.worst / 1e6, 20, "ms")
    yield at_most("from due p99.9, compaction on to off", times.ratio, 1.5)
    yield at_most("bytes written to bytes appended", space.written / space.appended, 1.5)
    yield at_most("disk held", space.held / 2**20, space.bound / 2**20, "MiB")


def main(arguments: list[str]) -> int:
    parser = parser_of("compact", __doc__)
    parser.add_argument("--agents", type=int, default=10_000, help="size of the fleet")
    parser.add_argument("--threads", type=int, default=64, help="threads that call")
    parser.add_argument("--rate", type=float, default=8000, help="calls per second, all threads")
    parser.add_argument("--seconds", type=float, default=3, help="per round; default: 3")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1_000_000, help="updates of the long run")
    options = parsed(parser, arguments)
    times, sizes = latency(options), space(options)
    return show(
        "compact",
        options,
        about(),
        {"latency": asdict(times), "space": asdict(sizes)},
        lines(times, sizes),
        bars(options, times, sizes),
    )
