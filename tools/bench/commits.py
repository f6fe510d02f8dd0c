"""Measure durable updates per second, beside the bare disk and other storage engines.

Rounds of all peers alternate, so that other load on the machine affects all of them. A ratio is the
median of the rounds' ratios. The peer `group` is a bare group commit, which is hard to surpass when
many threads wait. With --delay-ms, each call that syncs takes that much longer. With --coroutines,
coroutines in one event loop wait as well, and the delay of a timer in that loop is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.figures import Bar, at_least, at_most
from bench.load import at_full_speed, coroutines_at_full_speed
from bench.machine import about, slow_disk
from bench.output import parsed, parser_of, show
from bench.peer import BareDisk, BareGroup, Peer
from bench.peers import PEERS, OurJournal, opened


@dataclass(frozen=True)
class Row:
    """The result of one peer with a number of waiting threads or coroutines.

    Ratios are medians of the rounds. `to_disk` compares with one thread on the bare disk. The
    journal's row also has `to_best`, the ratio to the fastest engine of each round, `to_sqlite`,
    that to sqlite with one transaction per record, and `to_group`, that to a bare group commit.
    """

    delay_ms: float
    waiting: str
    count: int
    peer: str
    per_s: float
    to_disk: float
    to_disk_min: float
    to_disk_max: float
    to_best: float | None
    to_sqlite: float | None
    to_group: float | None
    lag_p99_ms: float | None


@dataclass(frozen=True)
class Target:
    """The least value that a column of the journal's row has to reach.

    `row` is the delay in ms, the way of waiting and the count. `is_pinned` selects runs on one CPU.
    """

    name: str
    row: tuple[float, str, int]
    column: str
    least: float
    is_pinned: bool = False


TARGETS = (
    Target("1 thread to the bare disk", (0, "threads", 1), "to_disk", 0.95),
    Target("64 threads to the best peer", (0, "threads", 64), "to_best", 1.05),
    Target("64 threads to a bare group commit", (0, "threads", 64), "to_group", 0.95),
    Target("64 threads to the best peer, pinned", (0, "threads", 64), "to_best", 1.05, True),
    Target("64 threads to the best peer at +2 ms", (2, "threads", 64), "to_best", 1.5),
    Target("64 threads to the best peer at +5 ms", (5, "threads", 64), "to_best", 1.8),
    Target("64 threads to sqlite FULL at +5 ms", (5, "threads", 64), "to_sqlite", 48),
    Target("256 threads to the best peer at +5 ms", (5, "threads", 256), "to_best", 1.6),
    Target("100 coroutines to the best peer", (0, "coroutines", 100), "to_best", 1.25),
    Target("1,000 coroutines to the best peer", (0, "coroutines", 1000), "to_best", 1.4),
    Target("10,000 coroutines to the best peer", (0, "coroutines", 10_000), "to_best", 1.7),
)
MANY = 10_000  # coroutines


# The rounds of each peer: updates per second, and the lateness of each tick of a timer, in s.
Rates = dict[str, list[tuple[float, list[float]]]]


def fastest(measured: list[list[float]]) -> list[float]:
    """Return the highest speed of each round."""
    return [max(speeds) for speeds in zip(*measured, strict=True)]


def rounds_of(
    peers: dict[str, Peer],
    bare: dict[str, Peer],
    waiting: str,
    count: int,
    options: argparse.Namespace,
) -> Rates:
    threads = waiting == "threads"
    measured = {"disk": bare["disk"], **peers}
    if threads:
        measured = bare | {name: peer for name, peer in peers.items() if peer.has_threads}
    rates: Rates = {name: [] for name in measured}
    for _ in range(options.rounds):
        for name, peer in measured.items():
            result: tuple[float, list[float]]
            if name == "disk":
                result = at_full_speed([peer.update], options.seconds), []
            elif threads:
                result = at_full_speed([peer.update] * count, options.seconds), []
            else:
                calls = [peer.update_async] * count
                result = asyncio.run(coroutines_at_full_speed(calls, options.seconds))
            rates[name].append(result)
    return rates


def ratio(speeds: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(speeds, others, strict=True))


def rows_of(delay_ms: float, waiting: str, count: int, rates: Rates) -> Iterator[Row]:
    disk = [rate for rate, _ in rates["disk"]]
    not_engines = "disk", "group", "journal"
    best = fastest([[r for r, _ in rates[name]] for name in rates if name not in not_engines])
    sqlite, group = ([rate for rate, _ in rates.get(name, [])] for name in ("sqlite", "group"))
    for name, measured in rates.items():
        speeds = [rate for rate, _ in measured]
        to_disk = [speed / bare for speed, bare in zip(speeds, disk, strict=True)]
        late_s = sorted(each for _, ticks in measured for each in ticks)
        is_journal = name == "journal"
        yield Row(
            delay_ms=delay_ms,
            waiting=waiting,
            count=count,
            peer=name,
            per_s=statistics.median(speeds),
            to_disk=statistics.median(to_disk),
            to_disk_min=min(to_disk),
            to_disk_max=max(to_disk),
            to_best=ratio(speeds, best) if is_journal and best else None,
            to_sqlite=ratio(speeds, sqlite) if is_journal and sqlite else None,
            to_group=ratio(speeds, group) if is_journal and group else None,
            lag_p99_ms=late_s[int(len(late_s) * 0.99)] * 1000 if late_s else None,
        )


def measure(options: argparse.Namespace, delay_ms: float) -> Iterator[Row]:
    """Measure in this process, whose syncs already take `delay_ms` longer."""
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        directory = Path(name)
        bare: dict[str, Peer] = {"disk": BareDisk(directory), "group": BareGroup(directory)}
        peers: dict[str, Peer] = {"journal": OurJournal(directory)}
        peers |= opened(options.peers, directory)
        for peer in peers.values():
            if peer.has_threads:
                peer.update()
        for waiting in ("threads", "coroutines"):
            for count in getattr(options, waiting):
                rates = rounds_of(peers, bare, waiting, count, options)
                yield from rows_of(delay_ms, waiting, count, rates)
        for peer in (*peers.values(), *bare.values()):
            peer.close()


def measure_slowed(options: argparse.Namespace, delay_ms: float) -> list[Row]:
    """Measure in a child process, in which a preloaded library slows down the syncs."""
    with tempfile.TemporaryDirectory() as name:
        environment = slow_disk(Path(name), delay_ms)
        arguments = [sys.argv[0], "commits", "--json", "--slowed-ms", str(delay_ms)]
        for key in ("threads", "coroutines", "peers"):
            values = list(map(str, getattr(options, key)))
            arguments += [f"--{key}", *values] if values else [f"--{key}"]
        arguments += ["--rounds", str(options.rounds), "--seconds", str(options.seconds)]
        if options.dir:
            arguments += ["--dir", str(options.dir)]
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return [Row(**row) for row in json.loads(done.stdout)["rows"]]


def table(rows: list[Row]) -> Iterator[str]:
    yield (
        f"{'delay':>6} {'waiting':>16} {'peer':>17} {'updates/s':>10} {'to disk':>8} "
        f"{'rounds':>13} {'to group':>8} {'to best':>8} {'loop late p99':>14}"
    )
    for row in rows:
        group, best = ("" if r is None else f"{r:.2f} x" for r in (row.to_group, row.to_best))
        lag = "" if row.lag_p99_ms is None else f"{row.lag_p99_ms:.1f} ms"
        spread = f"{row.to_disk_min:.2f}..{row.to_disk_max:.2f}"
        yield (
            f"{row.delay_ms:4g}ms {row.count:6} {row.waiting:>9} {row.peer:>17} "
            f"{row.per_s:10.0f} {row.to_disk:6.2f} x {spread:>13} {group:>8} {best:>8} "
            f"{lag:>14}"
        )


def bars(rows: list[Row]) -> Iterator[Bar]:
    is_pinned = len(os.sched_getaffinity(0)) == 1
    ours = {(row.delay_ms, row.waiting, row.count): row for row in rows if row.peer == "journal"}
    for target in TARGETS:
        row = ours.get(target.row)
        value = None if row is None else getattr(row, target.column)
        if value is not None and target.is_pinned == is_pinned:
            yield at_least(target.name, value, target.least)
    many, threads = ours.get((0, "coroutines", MANY)), ours.get((0, "threads", 64))
    if many and many.lag_p99_ms is not None and not is_pinned:
        # The smaller of two targets: a fixed rate, or eight times the rate of 64 threads.
        least = min(150_000, 8 * threads.per_s) if threads else 150_000
        yield at_least("10,000 coroutines", many.per_s, least, "/s")
        yield at_most("10,000 coroutines, the loop's lag p99", many.lag_p99_ms, 3, "ms")


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = parser_of("commits", __doc__)
    parser.add_argument(
        "--threads", type=int, nargs="*", default=[1, 8, 64], help="numbers of waiting threads"
    )
    parser.add_argument(
        "--coroutines", type=int, nargs="*", default=[], help="numbers of waiting coroutines"
    )
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[], help="engines to compare")
    parser.add_argument(
        "--delay-ms", type=float, nargs="+", default=[0.0], help="delays to add to each sync"
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.4, help="per round; default: 0.4")
    parser.add_argument("--slowed-ms", type=float, help=argparse.SUPPRESS)
    return parsed(parser, arguments)


def main(arguments: list[str]) -> int:
    options = options_of(arguments)
    rows: list[Row] = []
    if options.slowed_ms is not None:
        rows += measure(options, options.slowed_ms)
    else:
        for delay_ms in options.delay_ms:
            rows += measure_slowed(options, delay_ms) if delay_ms else measure(options, 0)
    environment = about("lmdb", "rocksdict", "ZODB", "coopy")
    results = {"rows": [asdict(row) for row in rows]}
    return show("commits", options, environment, results, table(rows), bars(rows))
