"""What compaction costs: callers' latency from due with it and without, what is written, and
what the disk holds.

A fleet under load at a fixed rate, with compaction all the time and with none, in turns. Then a
long run at full speed: bytes written beside the bytes appended, and the disk beside the state.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.fanout import LIMITS, Quantiles, Worker, at_rate, fill, human, run_threads
from bench.machine import about
from bench.peers import PACKED, RECORD
from journal import CowTable, DurableState, Options
from manager import SubAgentManager

NEVER = 1 << 40
SEGMENT_BYTES = 4 << 20


@dataclass(frozen=True)
class Latency:
    """From due, in ns; medians of the rounds."""

    off: Quantiles
    on: Quantiles
    compactions: int


@dataclass(frozen=True)
class Space:
    """In bytes; `held` is the most that was seen, `state` a checkpoint's size."""

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
    """A state of some thousand values, each of which is replaced again and again."""

    application = "cells/1"

    def __init__(self) -> None:
        self.table: CowTable[int, Any] = CowTable()

    def load(self, item: Any) -> None:
        self.table[len(self.table)] = item

    def apply(self, lsn: int, record: Any) -> None:
        self.table[lsn % 4000] = record

    def freeze(self) -> Iterable[Any]:
        return self.table.freeze()


def latency_at(options: argparse.Namespace, compaction_bytes: int) -> tuple[list[int], int]:
    engine = Options(checkpoint_min_bytes=compaction_bytes)
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        with SubAgentManager.open(name, limits=LIMITS) as manager:
            fill(manager, options.agents)
        with SubAgentManager.open(name, limits=LIMITS, options=engine) as manager:
            workers = [Worker(manager, waits=False, lists=False) for _ in range(options.threads)]
            due = at_rate(workers, options.rate, options.seconds)
            return due, manager.stats().compactions


def latency(options: argparse.Namespace) -> Latency:
    off: list[Quantiles] = []
    on: list[Quantiles] = []
    compactions = 0
    for _ in range(options.rounds):
        off.append(Quantiles.of(latency_at(options, NEVER)[0]))
        due, count = latency_at(options, 1 << 16)
        on.append(Quantiles.of(due))
        compactions += count
    return Latency(median(off), median(on), compactions)


def median(found: list[Quantiles]) -> Quantiles:
    figures = zip(*(asdict(each).values() for each in found), strict=True)
    return Quantiles(*map(statistics.median, figures))


def space(options: argparse.Namespace) -> Space:
    """`options.updates` updates by 64 threads."""
    engine = Options(segment_bytes=SEGMENT_BYTES)
    a_thread = options.updates // 64
    held = 0
    with (
        tempfile.TemporaryDirectory(dir=options.dir) as name,
        DurableState.open(Path(name) / "state", Cells(), options=engine) as state,
    ):

        def run(index: int) -> None:
            nonlocal held
            for number in range(a_thread):
                state.update(lambda _: RECORD)
                if not index and not number % 200:
                    held = max(held, state.stats().disk_bytes)

        run_threads(64, run)
        state.wait_durable()
        stats = state.stats()
        with closing(state.compact()) as checkpoint:
            size = checkpoint.size_bytes
    return Space(
        updates=64 * a_thread,
        appended=64 * a_thread * len(PACKED),
        written=stats.bytes + stats.checkpoint_bytes,
        held=held,
        state=size,
        growth=engine.checkpoint_growth,
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="bench compact", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--rate", type=float, default=8000, help="calls a second, all threads")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=1_000_000, help="of the long run")
    parser.add_argument("--dir", type=Path, help="on the disk to measure; default: $TMPDIR")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    times, room = latency(options), space(options)
    if options.json:
        print(json.dumps({**about(), "latency": asdict(times), "space": asdict(room)}))
        return 0
    print(" ".join(f"{key} {value}" for key, value in about().items()))
    for name, found in (("off", times.off), ("on", times.on)):
        shown = (f"{key} {human(value)}" for key, value in asdict(found).items())
        print(f"from due, compaction {name:4}", ", ".join(shown))
    ratio = times.on.p99_9 / times.off.p99_9
    print(f"p99.9 on to off {ratio:.2f}, bar 1.5; {times.compactions} compactions")
    print(f"written {room.written / room.appended:.2f} x the bytes appended, bar 1.5")
    print(f"disk held {room.held / 2**20:.1f} MiB, bar {room.bound / 2**20:.1f}")
    return 0
