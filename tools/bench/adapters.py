"""Measure the adapters beside the stores on SQLite that their libraries come with.

Rounds of all peers alternate, and a ratio is the median of the rounds' ratios to sqlite.
`journal-loop` is a JournalSaver with `wait_loop_puts=False`. With --delay-ms, each call that syncs
takes that much longer. With --live-mb N, a saver with N MB of live values is measured in processes
of its own, and with --realtime no other process stops them. --postgres URL adds LangGraph's saver
for Postgres.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import adapter_bounds
from bench.adapter_peers import (
    STATIC_BYTES,
    Steps,
    async_saver,
    graph_turns,
    saver,
    session_turns,
)
from bench.figures import Bar, Quantiles, at_least, at_most
from bench.load import at_full_speed, coroutines_at_full_speed, coroutines_at_rate
from bench.machine import about, slow_disk
from bench.output import parsed, show

STEPS, STATIC, GRAPH, TURNS = "superstep", "superstep, static", "graph turn", "session turn"
PACED = "graph turn, paced"
PACKAGES = ("langgraph", "langgraph-checkpoint-sqlite", "openai-agents")
_COLUMNS = ("per_s", "p50_ms", "bytes", "lag_ms")


@dataclass(frozen=True)
class Round:
    """The measurements of one round of a peer, or None where there is none."""

    per_s: float
    p50_ms: float | None = None
    bytes: float | None = None
    lag_ms: float | None = None


Rounds = dict[str, Round]  # one of each peer


@dataclass(frozen=True)
class Row:
    """The result of one peer: medians of the rounds, and of the rounds' ratios to sqlite.

    `count` is the number of threads or coroutines. `p50_ms` is the time of a superstep, or that of
    a paced turn from when it was due. `bytes` are those written for a superstep. `lag_ms` is the
    p99 of the lateness of a timer in the event loop.
    """

    delay_ms: float
    what: str
    count: int
    peer: str
    per_s: float
    p50_ms: float | None
    bytes: float | None
    lag_ms: float | None
    to_sqlite: dict[str, float]


@dataclass(frozen=True)
class Target:
    """The bound of a column's ratio to sqlite, in the rows of each delay."""

    what: str
    count: int
    column: str
    bound: float
    peer: str = "journal"

    def bar(self, row: Row) -> Bar:
        counted = "threads" if self.what in (STEPS, STATIC) else "coroutines"
        name = f"{self.what}, {self.count} {counted}, +{row.delay_ms:g} ms: {self.column}"
        if self.peer != "journal":
            name += f", {self.peer}"
        value = row.to_sqlite[self.column]
        return (at_least if self.column == "per_s" else at_most)(name, value, self.bound)


TARGETS = (
    Target(STEPS, 1, "per_s", 1.0),
    Target(STEPS, 1, "per_s", 1.1, "journal-loop"),
    Target(STEPS, 8, "per_s", 3),
    Target(STEPS, 64, "per_s", 12),
    Target(STEPS, 64, "p50_ms", 0.1),
    Target(STATIC, 8, "per_s", 5),
    Target(STATIC, 8, "bytes", 1 / 30),
    Target(PACED, 32, "lag_ms", 1.0),
    Target(TURNS, 1, "per_s", 1.1),
    Target(TURNS, 8, "per_s", 3),
    Target(TURNS, 64, "per_s", 6),
)


class Measured:
    """The rounds of all peers with one number of threads or coroutines."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self._seconds, self._count = options.seconds, options.rounds
        self._folders = (directory / f"{number}" for number in itertools.count())

    def steps(self, peers: list[str], threads: int, static_bytes: int) -> Iterator[Rounds]:
        """Yield rounds of supersteps. Each begins with new stores."""
        for _ in range(self._count):
            rounds = {}
            for peer in peers:
                with saver(peer, self._folder()) as opened:
                    name = self._folder().name  # a thread of LangGraph that no other round has
                    steps = [Steps(opened, f"{name}.{n}", static_bytes) for n in range(threads)]
                    for each in steps:
                        each.call()  # stores the value that does not change
                    before = written_bytes()
                    per_s = at_full_speed([each.call for each in steps], self._seconds)
                    times = sorted(time for each in steps for time in each.times_s[1:])
                    size = (written_bytes() - before) / len(times)
                rounds[peer] = Round(per_s, Quantiles.of(times).p50 * 1000, size)
            yield rounds

    def graphs(self, conversations: int, rate: float | None) -> Iterator[Rounds]:
        """Yield rounds of turns of a graph in an event loop, `rate` per second or at full speed."""

        async def run(peer: str) -> Round:
            async with async_saver(peer, self._folder()) as opened:
                turns = graph_turns(opened, conversations)
                for turn in turns:
                    await turn()
                if rate is None:
                    per_s, late_s = await coroutines_at_full_speed(turns, self._seconds)
                    return Round(per_s, lag_ms=Quantiles.of(late_s).p99 * 1000)
                took_ns, late_s = await coroutines_at_rate(turns, rate, self._seconds)
            lag_ms = Quantiles.of(late_s).p99 * 1000
            return Round(rate, p50_ms=Quantiles.of(took_ns).p50 / 1e6, lag_ms=lag_ms)

        for _ in range(self._count):
            yield {peer: asyncio.run(run(peer)) for peer in ("journal", "sqlite")}

    def sessions(self, sessions: int) -> Iterator[Rounds]:
        """Yield rounds of turns of sessions in an event loop."""

        async def run(peer: str) -> Round:
            async with session_turns(peer, self._folder(), sessions) as turns:
                per_s, late_s = await coroutines_at_full_speed(turns, self._seconds)
            return Round(per_s, lag_ms=Quantiles.of(late_s).p99 * 1000)

        for _ in range(self._count):
            yield {peer: asyncio.run(run(peer)) for peer in ("journal", "sqlite")}

    def _folder(self) -> Path:
        folder = next(self._folders)
        folder.mkdir()
        return folder


def written_bytes() -> int:
    """Return the bytes that this process has passed to calls that write, as Linux counts them."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["wchar"])


def measure(options: argparse.Namespace, delay_ms: float) -> Iterator[Row]:
    """Measure in this process, whose syncs already take `delay_ms` longer."""
    servers = [options.postgres] if options.postgres else []
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        measured = Measured(options, Path(name))
        for threads in options.threads:
            peers = ["journal", "journal-loop", "sqlite", *servers]
            rounds = list(measured.steps(peers, threads, STATIC_BYTES))
            yield from rows_of(delay_ms, STEPS, threads, rounds)
        if options.static_kb:
            peers = ["journal", "sqlite", *servers]
            rounds = list(measured.steps(peers, options.static_threads, options.static_kb * 1000))
            yield from rows_of(delay_ms, STATIC, options.static_threads, rounds)
        for conversations in options.conversations:
            rounds = list(measured.graphs(conversations, None))
            yield from rows_of(delay_ms, GRAPH, conversations, rounds)
            rounds = list(measured.graphs(conversations, options.graph_rate))
            yield from rows_of(delay_ms, PACED, conversations, rounds)
        for sessions in options.sessions:
            yield from rows_of(delay_ms, TURNS, sessions, list(measured.sessions(sessions)))


def rows_of(delay_ms: float, what: str, count: int, rounds: list[Rounds]) -> Iterator[Row]:
    for peer in rounds[0]:
        medians: dict[str, Any] = {}
        ratios: dict[str, float] = {}
        for column in _COLUMNS:
            values = [getattr(each[peer], column) for each in rounds]
            others = [getattr(each["sqlite"], column) for each in rounds]
            measured = values[0] is not None
            medians[column] = statistics.median(values) if measured else None
            if measured and all(others):
                pairs = zip(values, others, strict=True)
                ratios[column] = statistics.median(value / other for value, other in pairs)
        shown = "postgres" if "://" in peer else peer
        yield Row(delay_ms, what, count, shown, **medians, to_sqlite=ratios)


def table(rows: list[Row], bounds: dict[str, float]) -> Iterator[str]:
    yield (
        f"{'+ms':>4} {'what':18} {'count':>5} {'peer':>13} {'per s':>9} {'p50 ms':>8} "
        f"{'bytes':>9} {'lag ms':>8}   to sqlite"
    )
    for row in rows:
        cells = (row.p50_ms, 8, 2), (row.bytes, 9, 0), (row.lag_ms, 8, 2)
        shown = " ".join(
            f"{'':{width}}" if value is None else f"{value:{width},.{digits}f}"
            for value, width, digits in cells
        )
        ratios = "  ".join(f"{name} {ratio:.3g} x" for name, ratio in row.to_sqlite.items())
        yield (
            f"{row.delay_ms:4g} {row.what:18} {row.count:5} {row.peer:>13} {row.per_s:9,.0f} "
            f"{shown}   {ratios}"
        )
    yield from adapter_bounds.lines(bounds)


def bars(rows: list[Row], bounds: dict[str, float]) -> Iterator[Bar]:
    for row in rows:
        for target in TARGETS:
            if (row.what, row.count, row.peer) == (target.what, target.count, target.peer):
                yield target.bar(row)
    yield from adapter_bounds.bars(bounds)


def in_child(arguments: list[str], delay_ms: float) -> list[Row]:
    """Measure in a process whose syncs take `delay_ms` longer."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, sys.argv[0], "adapters", "--child", str(delay_ms), *arguments]
        environment = slow_disk(Path(name), delay_ms)
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
    return [Row(**row) for row in json.loads(done.stdout)]


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--bounds"]:
        adapter_bounds.child(arguments[1], Path(arguments[2]), int(arguments[3]))
        return 0
    child_ms = float(arguments[1]) if arguments[:1] == ["--child"] else None
    if child_ms is not None:
        arguments = arguments[2:]
    parser = argparse.ArgumentParser(prog="python tools/bench adapters", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--static-kb", type=int, default=200, help="a value that never changes")
    parser.add_argument("--static-threads", type=int, default=8)
    parser.add_argument("--conversations", type=int, nargs="*", default=[32])
    parser.add_argument("--graph-rate", type=float, default=20, help="turns a second, all together")
    parser.add_argument("--sessions", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="per round")
    parser.add_argument("--delay-ms", type=float, nargs="*", default=[0, 1])
    parser.add_argument("--live-mb", type=int, default=0)
    parser.add_argument(
        "--realtime", action="store_true", help="with --live-mb, at real-time priority; needs root"
    )
    parser.add_argument("--postgres", metavar="URL", help="of a database that may be written to")
    options = parsed(parser, arguments)
    if child_ms is not None:
        print(json.dumps([asdict(row) for row in measure(options, child_ms)]))
        return 0
    rows = [row for delay_ms in options.delay_ms for row in in_child(arguments, delay_ms)]
    bounds: dict[str, float] = {}
    if options.live_mb:
        bounds = adapter_bounds.measured(options.dir, options.live_mb, options.realtime)
    environment: dict[str, Any] = about(*PACKAGES)
    environment["load"] = round(os.getloadavg()[0])
    results: dict[str, Any] = {"rows": [asdict(row) for row in rows], "bounds": bounds}
    return show("adapters", options, environment, results, table(rows, bounds), bars(rows, bounds))
