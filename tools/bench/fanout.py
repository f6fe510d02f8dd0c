"""Measure the cost of a manager's call under load, before the journal and with it.

Threads spawn, step, finish, fail and list agents at a fixed total rate. A call's latency is counted
from the time when it was *due*, so that a stall shows in every call that it delayed. Then updates
per second are measured at full speed. The ways to persist, behind the same manager, are:

    rewrite    the whole fleet as JSON, serialized and rewritten under the lock
    thread     a copy of the fleet under the lock, a thread for each write
    debounced  the same, but steps are written once in 1.5 s; spawns and ends at once
    writer     one thread that writes the newest constant-time snapshot, again and again
    journal    records appended under the lock, committed within 10 ms, compaction on
    durable    the same, but each call waits until its record is on stable storage

With --coroutines, coroutines of one event loop also await each commit (`durable`), and the delay of
a timer in that loop is measured. --full adds a fleet of 100,000 agents and 256 threads for the ways
`journal` and `durable`, which takes long. With --before, these two ways are compared with another
version instead.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from itertools import product
from pathlib import Path

from bench import fanout_versions, load
from bench.before import KINDS
from bench.figures import Bar, Quantiles, at_least, at_most, human
from bench.fleet_load import NotingWorker, Worker, reopened, whole_fleet
from bench.losses import CommitTimes, longest_ns, rising
from bench.machine import about
from bench.output import parsed, parser_of, show
from journal import Options

OURS = ("journal", "durable")
WAYS = (*KINDS, *OURS)
OPTIONS = Options(checkpoint_min_bytes=1 << 20)
FULL_AGENTS, FULL_THREADS = 100_000, 256


@dataclass(frozen=True)
class Row:
    """The result of one way, fleet size and number of threads. Times are in ns.

    hold, wait: how long calls held the lock, and waited for it. due: the latency from due.
    lost_ns: the age of the oldest change that a killed process would have lost, at the fixed rate.
    bytes_written: at the fixed rate. stale_over_newer: how often an older snapshot replaced a newer
    one on disk.
    """

    way: str
    agents: int
    threads: int
    rate_per_s: float
    calls: int
    hold: Quantiles
    wait: Quantiles
    due: Quantiles
    updates_per_s: float
    lost_ns: float
    bytes_written: int
    compactions: int
    stale_over_newer: int


@dataclass(frozen=True)
class LoopRow:
    """The result of one fleet size and number of coroutines. Times are in ns.

    due: the latency from due. lag: the lateness of a timer in their loop, at the fixed rate.
    """

    agents: int
    coroutines: int
    rate_per_s: float
    due: Quantiles
    lag: Quantiles
    updates_per_s: float
    lag_at_full_speed: Quantiles


Cell = tuple[int, int, str]  # agents, threads, way


def cells(options: argparse.Namespace) -> list[Cell]:
    cells = list(product(options.agents, options.threads, options.ways))
    if options.full:
        agents, threads = [*options.agents, FULL_AGENTS], [*options.threads, FULL_THREADS]
        cells += product(agents, threads, [way for way in options.ways if way in OURS])
    return sorted(dict.fromkeys(cells), key=lambda cell: (*cell[:2], WAYS.index(cell[2])))


def measure(cell: Cell, rate: float, seconds: float, at: Path | None) -> Row:
    agents, threads, way = cell
    with tempfile.TemporaryDirectory(dir=at) as name:
        directory = Path(name)
        if way in OURS:
            return measure_journal(cell, rate, seconds, directory)
        with whole_fleet(directory, KINDS[way], agents) as (manager, state):
            noting = [NotingWorker(manager, waits=False) for _ in range(threads)]
            due = load.at_rate([worker.call for worker in noting], rate, seconds)
            hold, wait = Quantiles.of(state.hold_ns), Quantiles.of(state.wait_ns)
            state.settle()
            written, lost = sum(state.sizes), longest_ns(acknowledged(noting), state.kept)
            workers = [Worker(manager, waits=False) for _ in range(threads)]
            speed = load.at_full_speed([worker.update for worker in workers], seconds)
    at_due = Quantiles.of(due)
    calls, stale = len(due), state.stale
    return Row(
        way, agents, threads, rate, calls, hold, wait, at_due, speed, lost, written, 0, stale
    )


def acknowledged(workers: list[NotingWorker]) -> list[tuple[int, int]]:
    return [event for worker in workers for event in worker.acknowledged]


def lost_ns(cell: Cell, rate: float, seconds: float, directory: Path) -> int:
    """Return the age of the oldest change that a crash could have lost. It is measured apart, since
    an observer of each commit takes time of the callers."""
    agents, threads, way = cell
    with reopened(directory, agents, OPTIONS) as manager:
        commits = CommitTimes(manager._state.journal)
        workers = [NotingWorker(manager, waits=way == "durable") for _ in range(threads)]
        load.at_rate([worker.call for worker in workers], rate, seconds)
        manager.wait_durable()
        acks = acknowledged(workers)
        # The observer is called shortly after a commit. A call that waits for it may end before.
        return longest_ns(acks, rising([*commits.kept, *(acks if way == "durable" else ())]))


def measure_journal(cell: Cell, rate: float, seconds: float, directory: Path) -> Row:
    agents, threads, way = cell
    with reopened(directory / "speed", agents, OPTIONS) as manager:
        workers = [Worker(manager, waits=way == "durable") for _ in range(threads)]
        before = manager.stats()
        due = load.at_rate([worker.call for worker in workers], rate, seconds)
        lock = manager.lock_stats()
        manager.wait_durable()
        after = manager.stats()
        speed = load.at_full_speed([worker.update for worker in workers], seconds)
        stats = manager.stats()
    lost = lost_ns(cell, rate, seconds, directory / "lost")
    return Row(
        way,
        agents,
        threads,
        rate,
        len(due),
        Quantiles.of_histogram(lock.hold),
        Quantiles.of_histogram(lock.wait),
        Quantiles.of(due),
        speed,
        lost,
        after.bytes + after.checkpoint_bytes - before.bytes - before.checkpoint_bytes,
        stats.compactions,
        0,
    )


def measure_loop(
    agents: int, coroutines: int, rate: float, seconds: float, at: Path | None
) -> LoopRow:
    with (
        tempfile.TemporaryDirectory(dir=at) as name,
        reopened(Path(name), agents, OPTIONS) as manager,
    ):
        workers = [Worker(manager, waits=True) for _ in range(coroutines)]
        calls = [worker.update_async for worker in workers]
        due, late_s = asyncio.run(load.coroutines_at_rate(calls, rate, seconds))
        speed, late_at_full_speed_s = asyncio.run(load.coroutines_at_full_speed(calls, seconds))
    return LoopRow(
        agents,
        coroutines,
        rate,
        Quantiles.of(due),
        Quantiles.of(each * 1e9 for each in late_s),
        speed,
        Quantiles.of(each * 1e9 for each in late_at_full_speed_s),
    )


def merged(rounds: list[Row]) -> Row:
    """Return the medians of the times and speeds of a cell's rounds, and the sums of its counts.

    Only `lost_ns` is the most of the rounds, because a crash may come in any of them.
    """
    first = rounds[0]
    return Row(
        first.way,
        first.agents,
        first.threads,
        first.rate_per_s,
        sum(row.calls for row in rounds),
        Quantiles.median(row.hold for row in rounds),
        Quantiles.median(row.wait for row in rounds),
        Quantiles.median(row.due for row in rounds),
        statistics.median(row.updates_per_s for row in rounds),
        max(row.lost_ns for row in rounds),
        sum(row.bytes_written for row in rounds),
        sum(row.compactions for row in rounds),
        sum(row.stale_over_newer for row in rounds),
    )


def table(rows: list[Row]) -> Iterator[str]:
    quantiles = ("p50", "p99", "p99.9", "max")
    head = ["way", "agents", "threads"]
    for figure in ("hold", "wait", "due"):
        head += [f"{figure} {quantiles[0]}", *quantiles[1:]]
    yield "".join(f"{title:>10}" for title in (*head, "updates/s", "lost", "MB", "stale"))
    for row in rows:
        times = [human(ns) for figure in (row.hold, row.wait, row.due) for ns in astuple(figure)]
        times += [f"{row.updates_per_s:.0f}", human(row.lost_ns)]
        written = f"{row.bytes_written / 1e6:.3g}"
        cells = (row.way, row.agents, row.threads, *times, written, row.stale_over_newer)
        yield "".join(f"{cell:>10}" for cell in cells)


def loop_table(rows: list[LoopRow]) -> Iterator[str]:
    for row in rows:
        yield (
            f"{row.coroutines:,} coroutines, {row.agents:,} agents: {row.updates_per_s:,.0f} "
            f"durable updates/s; p50, p99, p99.9, max:"
        )
        for title, quantiles in (
            (f"from due at {row.rate_per_s:g}/s", row.due),
            ("the loop's lag at that rate", row.lag),
            ("the loop's lag at full speed", row.lag_at_full_speed),
        ):
            yield f"    {title:30}" + "".join(f"{human(ns):>10}" for ns in astuple(quantiles))


def ratios(rows: list[Row]) -> Iterator[str]:
    """Yield a line for each cell of the journal, with its gain over `rewrite`."""
    rows_by_cell = {(row.way, row.agents, row.threads): row for row in rows}
    for (way, agents, threads), row in rows_by_cell.items():
        before = rows_by_cell.get(("rewrite", agents, threads))
        if before and way in OURS:
            yield (
                f"{way}, {agents} agents, {threads} threads: "
                f"{row.updates_per_s / before.updates_per_s:,.0f} x the updates, "
                f"p99 from due {before.due.p99 / row.due.p99:,.0f} x lower, "
                f"p99 of the hold {before.hold.p99 / row.hold.p99:,.0f} x lower"
            )


def bars(rounds: dict[Cell, list[Row]]) -> Iterator[Bar]:
    """Yield bars for the medians of the rounds' ratios."""
    small = rounds.get((100, 64, "journal"), [])
    for agents, most in ((10_000, 1.3), (FULL_AGENTS, 1.5)):
        pairs = list(zip(small, rounds.get((agents, 64, "journal"), []), strict=False))
        for name in ("p50", "p99") if pairs else ():
            ratio = statistics.median(
                getattr(b.hold, name) / getattr(a.hold, name) for a, b in pairs
            )
            yield at_most(f"lock hold {name}, {agents:,} agents to 100", ratio, most)
    before, ours = rounds.get((1000, 64, "rewrite")), rounds.get((1000, 64, "journal"))
    if before and ours:
        pairs = list(zip(before, ours, strict=True))
        speed = statistics.median(b.updates_per_s / a.updates_per_s for a, b in pairs)
        tail = statistics.median(a.due.p99 / b.due.p99 for a, b in pairs)
        yield at_least("updates/s to JSON under the lock", speed, 1000)
        yield at_least("p99 from due lower than JSON under the lock", tail, 1000)


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = parser_of("fanout", __doc__)
    parser.add_argument(
        "--agents", type=int, nargs="+", default=[100, 1_000, 10_000], help="sizes of fleets"
    )
    parser.add_argument(
        "--threads", type=int, nargs="*", default=[1, 8, 64], help="numbers of calling threads"
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="default: all")
    parser.add_argument(
        "--coroutines", type=int, nargs="*", default=[], help="numbers of calling coroutines"
    )
    parser.add_argument(
        "--full", action="store_true", help="also measure 100,000 agents and 256 threads"
    )
    parser.add_argument(
        "--before", type=Path, metavar="CHECKOUT", help="a checkout of the version to compare with"
    )
    parser.add_argument("--rate", type=float, default=1000, help="calls per second, all callers")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="per phase; default: 3")
    return parsed(parser, arguments)


def compare(options: argparse.Namespace) -> int:
    """Measure the ways of the journal in this version and in the one before."""
    ours = [cell for cell in cells(options) if cell[2] in OURS]
    rounds = fanout_versions.measure(options, ours)
    rows = [now for pairs in rounds.values() for _, now in pairs]
    return show(
        "fanout",
        options,
        {**about(), "rate_per_s": options.rate},
        {"rows": rows, "loops": [], "rounds": [[*cell, pairs] for cell, pairs in rounds.items()]},
        fanout_versions.lines(rounds),
        fanout_versions.bars(rounds),
    )


def main(arguments: list[str]) -> int:
    options = options_of(arguments)
    if options.before is not None:
        return compare(options)
    rounds: dict[Cell, list[Row]] = {cell: [] for cell in cells(options)}
    for _ in range(options.rounds):
        for cell, measured in rounds.items():
            measured.append(measure(cell, options.rate, options.seconds, options.dir))
    loops = [
        measure_loop(agents, coroutines, options.rate, options.seconds, options.dir)
        for agents in options.agents
        for coroutines in options.coroutines
    ]
    rows = [merged(of_cell) for of_cell in rounds.values()]
    return show(
        "fanout",
        options,
        {**about(), "rate_per_s": options.rate},
        {"rows": [asdict(row) for row in rows], "loops": [asdict(row) for row in loops]},
        (*table(rows), "", *ratios(rows), *loop_table(loops)),
        bars(rounds),
    )
