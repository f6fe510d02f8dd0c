"""What compaction costs: callers' latency from due with it and without, what is written, and
what the disk holds.

A fleet under load at a fixed rate, with one compaction after the other and with none, in turns, and
with compactions as fast as its threads can: there a thread holds the lock for less, since it is not
one that was just woken. Then a long run at full speed: bytes written beside the bytes appended, and
the disk beside the state.
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
from bench.output import parsed, show
from bench.peers import PACKED, RECORD
from journal import CowTable, DurableState, Options
from manager import SubAgentManager

NEVER = 1 << 40
SEGMENT_BYTES = 4 << 20
CELLS = 16_000  # so that `checkpoint_growth` says when a compaction is due, not the least size
LOOK_EVERY_S = 0.002


@dataclass(frozen=True)
class Round:
    """Of one run at a fixed rate, in ns."""

    due: Quantiles
    hold: Quantiles
    compactions: int


@dataclass(frozen=True)
class Latency:
    """From due, and of the lock's hold, in ns; medians of the rounds. `hold_at_full_speed` is with
    compaction. `ratio` is that of the p99.9 from due with compaction to that without, the median of
    the rounds' ratios; `worst` the longest from due of all rounds with compaction, which a median
    would hide."""

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
    """In bytes; `held` is the most that another process saw there, `state` a checkpoint's size."""

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
    """A state of so many values, each of which is replaced again and again."""

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
    # By itself none is due in so short a run: all compactions that there are, we ask for.
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
        # Whoever is first has the emptier machine, so it is each in turn.
        for compaction in (False, True) if number % 2 else (True, False):
            (on if compaction else off).append(round_of(options, compaction=compaction))
    return Latency.of(off, on, [held_at_full_speed(options) for _ in range(options.rounds)])


@contextmanager
def watched(directory: Path) -> Iterator[Any]:
    """The most bytes that the files in `directory` had at once, as a shared value. Looked at by a
    process of its own: threads would not get to look when most is held, as updates wait then."""
    context = multiprocessing.get_context("fork")
    most, ended = context.Value("q", 0), context.Event()

    def watch() -> None:
        while not ended.wait(LOOK_EVERY_S):
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
        raise RuntimeError(f"{directory} was not watched to the end")


def space(options: argparse.Namespace) -> Space:
    """`options.updates` updates by 64 threads."""
    engine = Options(segment_bytes=SEGMENT_BYTES)
    a_thread = options.updates // 64
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


def lines(times: Latency, room: Space) -> Iterator[str]:
    for name, found in (
        ("from due, compaction off", times.off),
        ("from due, compaction on", times.on),
        ("lock hold, compaction off", times.hold_off),
        ("lock hold, compaction on", times.hold_on),
        ("the same at full speed", times.hold_at_full_speed),
    ):
        shown = (f"{key} {human(value)}" for key, value in asdict(found).items())
        yield f"{name:26}" + ", ".join(shown)
    yield f"{times.compactions} compactions"
    yield (
        f"{room.updates:,} updates: appended {room.appended / 2**20:.1f} MiB, "
        f"written {room.written / 2**20:.1f}, held {room.held / 2**20:.1f}, "
        f"of a state of {room.state / 2**20:.1f}"
    )


def bars(options: argparse.Namespace, times: Latency, room: Space) -> Iterator[Bar]:
    rate = f"at {options.rate:,g} calls/s"
    for when, hold in (("at full speed", times.hold_at_full_speed), (rate, times.hold_on)):
        yield at_most(f"lock hold p50, {options.agents:,} agents, {when}", hold.p50 / 1e3, 4, "us")
        yield at_most(f"lock hold p99, {options.agents:,} agents, {when}", hold.p99 / 1e3, 15, "us")
    yield at_most(f"from due p99 {rate}", times.on.p99 / 1e6, 1, "ms")
    yield at_most(f"from due max {rate}", times.worst / 1e6, 20, "ms")
    yield at_most("from due p99.9, compaction on to off", times.ratio, 1.5)
    yield at_most("bytes written to bytes appended", room.written / room.appended, 1.5)
    yield at_most("disk held", room.held / 2**20, room.bound / 2**20, "MiB")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python tools/bench compact",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--rate", type=float, default=8000, help="calls a second, all threads")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1_000_000, help="of the long run")
    options = parsed(parser, arguments)
    times, room = latency(options), space(options)
    return show(
        "compact",
        options,
        about(),
        {"latency": asdict(times), "space": asdict(room)},
        lines(times, room),
        bars(options, times, room),
    )
