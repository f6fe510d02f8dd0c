"""Durable updates a second, beside the bare disk and what could be used instead.

Rounds of all of them alternate, so that what else the machine does meets all; what counts is the
median of the rounds' ratios. `group` is a group commit and nothing else, which is hard to pass
where many threads wait. With --delay-ms each call that syncs takes that much longer.
With --coroutines it is coroutines in one event loop that wait, and how late a timer in that loop
comes is measured, too: a loop that is held up is late for everybody.
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
from bench.output import parsed, show
from bench.peers import PEERS, BareDisk, BareGroup, OurJournal, Peer, opened


@dataclass(frozen=True)
class Row:
    """One way of waiting and one peer. Ratios are medians of the rounds: `to_disk` to the bare
    disk's one thread; of the journal `to_best` to the fastest peer of that round, `to_sqlite` to
    sqlite with a transaction a record, `to_group` to a bare group commit."""

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
class Asked:
    """What a figure of the journal's row has to reach; on one CPU or on more."""

    what: str
    row: tuple[float, str, int]
    figure: str
    least: float
    pinned: bool = False


ASKED = (
    Asked("1 thread to the bare disk", (0, "threads", 1), "to_disk", 0.92),
    Asked("64 threads to the best peer", (0, "threads", 64), "to_best", 3.0),
    Asked("64 threads to the best peer, pinned", (0, "threads", 64), "to_best", 3.5, pinned=True),
    Asked("64 threads to the best peer at +5 ms", (5, "threads", 64), "to_best", 1.8),
    Asked("64 threads to sqlite FULL at +5 ms", (5, "threads", 64), "to_sqlite", 48),
    Asked("256 threads to the best peer at +5 ms", (5, "threads", 256), "to_best", 3.5),
)
MANY = 10_000  # coroutines


Rates = dict[str, list[tuple[float, list[float]]]]


def fastest(measured: list[list[float]]) -> list[float]:
    """Of each round."""
    return [max(speeds) for speeds in zip(*measured, strict=True)]


def rounds_of(
    peers: dict[str, Peer],
    bare: dict[str, Peer],
    waiting: str,
    count: int,
    options: argparse.Namespace,
) -> Rates:
    threads = waiting == "threads"
    measured = {**bare, **peers} if threads else {"disk": bare["disk"], **peers}
    rates: Rates = {name: [] for name in measured}
    for _ in range(options.rounds):
        for name, peer in measured.items():
            found: tuple[float, list[float]]
            if name == "disk":
                found = at_full_speed([peer.update], options.seconds), []
            elif threads:
                found = at_full_speed([peer.update] * count, options.seconds), []
            else:
                calls = [peer.update_async] * count
                found = asyncio.run(coroutines_at_full_speed(calls, options.seconds))
            rates[name].append(found)
    return rates


def ratio(speeds: list[float], others: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(speeds, others, strict=True))


def rows_of(delay_ms: float, waiting: str, count: int, rates: Rates) -> Iterator[Row]:
    disk = [rate for rate, _ in rates["disk"]]
    ours = "disk", "group", "journal"
    best = fastest([[r for r, _ in rates[name]] for name in rates if name not in ours])
    sqlite, group = ([rate for rate, _ in rates.get(name, [])] for name in ("sqlite", "group"))
    for name, measured in rates.items():
        speeds = [rate for rate, _ in measured]
        to_disk = [speed / bare for speed, bare in zip(speeds, disk, strict=True)]
        late = sorted(each for _, ticks in measured for each in ticks)
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
            lag_p99_ms=late[int(len(late) * 0.99)] * 1000 if late else None,
        )


def measure(options: argparse.Namespace, delay_ms: float) -> Iterator[Row]:
    """In this process, whose syncs take `delay_ms` longer already."""
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        directory = Path(name)
        bare: dict[str, Peer] = {"disk": BareDisk(directory), "group": BareGroup(directory)}
        peers: dict[str, Peer] = {"journal": OurJournal(directory)}
        peers |= opened(options.peers, directory)
        for peer in peers.values():
            peer.update()
        for waiting in ("threads", "coroutines"):
            for count in getattr(options, waiting):
                rates = rounds_of(peers, bare, waiting, count, options)
                yield from rows_of(delay_ms, waiting, count, rates)
        for peer in (*peers.values(), *bare.values()):
            peer.close()


def measure_slowed(options: argparse.Namespace, delay_ms: float) -> list[Row]:
    """In a child, where a shim slows the syncs down."""
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
        f"{'delay':>6} {'waiting':>16} {'peer':>14} {'updates/s':>10} {'to disk':>8} "
        f"{'rounds':>13} {'to group':>8} {'to best':>8} {'loop late p99':>14}"
    )
    for row in rows:
        group, best = ("" if r is None else f"{r:.2f} x" for r in (row.to_group, row.to_best))
        late = "" if row.lag_p99_ms is None else f"{row.lag_p99_ms:.1f} ms"
        spread = f"{row.to_disk_min:.2f}..{row.to_disk_max:.2f}"
        yield (
            f"{row.delay_ms:4g}ms {row.count:6} {row.waiting:>9} {row.peer:>14} "
            f"{row.per_s:10.0f} {row.to_disk:6.2f} x {spread:>13} {group:>8} {best:>8} "
            f"{late:>14}"
        )


def bars(rows: list[Row]) -> Iterator[Bar]:
    pinned = len(os.sched_getaffinity(0)) == 1
    ours = {(row.delay_ms, row.waiting, row.count): row for row in rows if row.peer == "journal"}
    for each in ASKED:
        row = ours.get(each.row)
        found = None if row is None else getattr(row, each.figure)
        if found is not None and each.pinned == pinned:
            yield at_least(each.what, found, each.least)
    many, threads = ours.get((0, "coroutines", MANY)), ours.get((0, "threads", 64))
    if many and many.lag_p99_ms is not None and not pinned:
        # Either will do: so many a second, or eight times what 64 threads reach.
        least = min(150_000, 8 * threads.per_s) if threads else 150_000
        yield at_least("10,000 coroutines", many.per_s, least, "/s")
        yield at_most("10,000 coroutines, the loop's lag p99", many.lag_p99_ms, 3, "ms")


def asked(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tools/bench commits",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--coroutines", type=int, nargs="*", default=[])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=[])
    parser.add_argument("--delay-ms", type=float, nargs="+", default=[0.0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=0.4, help="of a round (%(default)s)")
    parser.add_argument("--slowed-ms", type=float, help=argparse.SUPPRESS)
    return parsed(parser, arguments)


def main(arguments: list[str]) -> int:
    options = asked(arguments)
    rows: list[Row] = []
    if options.slowed_ms is not None:
        rows += measure(options, options.slowed_ms)
    else:
        for delay_ms in options.delay_ms:
            rows += measure_slowed(options, delay_ms) if delay_ms else measure(options, 0)
    where = about("lmdb", "rocksdict", "ZODB", "coopy")
    found = {"rows": [asdict(row) for row in rows]}
    return show("commits", options, where, found, table(rows), bars(rows))
