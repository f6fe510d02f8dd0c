"""Measure durable updates while other threads of the process compute, beside sqlite3.

A thread that computes in pure Python releases the interpreter only every 5 ms. An engine that has
to take the interpreter often is slow then, whatever its disk. The benchmark measures with no, one
and two such threads:

- updates per second at full speed;
- latency at a fixed rate, counted from the time when each update was *due*;
- the share of its computing that the process still gets done at full speed.

The peer `nothing` is a call that returns immediately: its latency is the cost of waking a thread.
Rounds of all peers alternate. Ratios are medians of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

from bench.figures import Bar, Quantiles, at_least, at_most, human
from bench.load import (
    at_full_speed,
    at_rate,
    burning,
    coroutines_at_full_speed,
    coroutines_at_rate,
)
from bench.machine import about
from bench.output import parsed, parser_of, show
from bench.peer import Peer
from bench.peers import PEERS, OurJournal, opened


class Nothing(Peer):
    """A peer that does nothing, so that its latency is the cost of waking the caller."""

    def update(self) -> None: ...

    async def update_async(self) -> None: ...


@dataclass(frozen=True)
class Round:
    """A round of one peer. `turns_per_s` is the speed of the computing threads meanwhile."""

    per_s: float
    turns_per_s: float
    latencies_ns: list[int]
    late_ns: list[float]

    @property
    def due(self) -> Quantiles:
        return Quantiles.of(self.latencies_ns)


@dataclass(frozen=True)
class Row:
    """The result of one peer with a number of computing threads and of callers. Times are in ns.

    due: the latency from due. lag: the lateness of a timer in the coroutines' loop.
    computing: the speed of the computing threads, as a fraction of their speed without a peer.
    journal_per_s, journal_p50, journal_p99: the journal's updates per second, and its latency from
    due, divided by those of this peer.
    """

    burners: int
    waiting: str
    count: int
    peer: str
    per_s: float | None
    due: Quantiles
    lag: Quantiles | None
    computing: float | None
    journal_per_s: float | None
    journal_p50: float | None
    journal_p99: float | None


def alone_per_s(burners: int, seconds: float) -> float:
    """Return the turns per second of the computing threads when nothing else runs."""
    with burning(burners) as turns:
        began = time.perf_counter()
        time.sleep(seconds)
        return turns() / (time.perf_counter() - began)


def round_of(
    peer: Peer, burners: int, waiting: str, count: int, rate: float, seconds: float
) -> Round:
    calls, async_calls = [peer.update] * count, [peer.update_async] * count
    late_s: list[float] = []
    with burning(burners) as turns:
        speed = turns_per_s = 0.0
        if not isinstance(peer, Nothing):
            before, began = turns(), time.perf_counter()
            if waiting == "threads":
                speed = at_full_speed(calls, seconds)
            else:
                speed, _ = asyncio.run(coroutines_at_full_speed(async_calls, seconds))
            turns_per_s = (turns() - before) / (time.perf_counter() - began)
        if waiting == "threads":
            latencies = at_rate(calls, rate, seconds)
        else:
            latencies, late_s = asyncio.run(coroutines_at_rate(async_calls, rate, seconds))
    return Round(speed, turns_per_s, latencies, [each * 1e9 for each in late_s])


def rows_of(
    burners: int, waiting: str, count: int, rounds: dict[str, list[Round]], alone: list[float]
) -> Iterator[Row]:
    for name, measured in rounds.items():
        is_real = name != "nothing"
        shares = [r.turns_per_s / speed for r, speed in zip(measured, alone, strict=True) if speed]
        late_ns = [each for r in measured for each in r.late_ns]
        row = Row(
            burners=burners,
            waiting=waiting,
            count=count,
            peer=name,
            per_s=statistics.median(r.per_s for r in measured) if is_real else None,
            due=Quantiles.of(each for r in measured for each in r.latencies_ns),
            lag=Quantiles.of(late_ns) if late_ns else None,
            computing=statistics.median(shares) if shares and is_real else None,
            journal_per_s=None,
            journal_p50=None,
            journal_p99=None,
        )
        yield row if name in ("nothing", "journal") else compared(row, rounds["journal"], measured)


def compared(row: Row, journal: list[Round], measured: list[Round]) -> Row:
    pairs = list(zip(journal, measured, strict=True))
    return replace(
        row,
        journal_per_s=statistics.median(ours.per_s / theirs.per_s for ours, theirs in pairs),
        journal_p50=statistics.median(ours.due.p50 / theirs.due.p50 for ours, theirs in pairs),
        journal_p99=statistics.median(ours.due.p99 / theirs.due.p99 for ours, theirs in pairs),
    )


def measure(options: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        directory = Path(name)
        peers: dict[str, Peer] = {"nothing": Nothing(directory), "journal": OurJournal(directory)}
        peers |= opened(options.peers, directory)
        for peer in peers.values():
            peer.update()
        for burners in options.burners:
            for waiting in ("threads", "coroutines"):
                for count in getattr(options, waiting):
                    rounds: dict[str, list[Round]] = {peer: [] for peer in peers}
                    alone = []
                    for _ in range(options.rounds):
                        alone.append(alone_per_s(burners, options.seconds / 2))
                        for each, peer in peers.items():
                            args = (burners, waiting, count, options.rate, options.seconds)
                            rounds[each].append(round_of(peer, *args))
                    yield from rows_of(burners, waiting, count, rounds, alone)
        for peer in peers.values():
            peer.close()


def as_multiple(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} x"


def table(rows: list[Row]) -> Iterator[str]:
    times = [f"{figure} {q}" for figure in ("due", "lag") for q in ("p50", "p99", "max")]
    ratios = [f"ratio {figure}" for figure in ("/s", "p50", "p99")]
    yield (
        f"{'burn':>4} {'waiting':>16} {'peer':>14}"
        + "".join(f"{head:>11}" for head in ("updates/s", *times, *ratios, "computing"))
    )
    for row in rows:
        cells = ["" if row.per_s is None else f"{row.per_s:.0f}"]
        for quantiles in (row.due, row.lag):
            p50, p99, _, most = astuple(quantiles) if quantiles else (None,) * 4
            cells += ["" if ns is None else human(ns) for ns in (p50, p99, most)]
        figures = [row.journal_per_s, row.journal_p50, row.journal_p99, row.computing]
        yield (
            f"{row.burners:4} {row.count:6} {row.waiting:>9} {row.peer:>14}"
            + "".join(f"{cell:>11}" for cell in (*cells, *map(as_multiple, figures)))
        )
    yield "ratio: the journal's value divided by the row's"


def bars(rows: list[Row]) -> Iterator[Bar]:
    """Yield bars that compare the journal with the best other peer.

    No peer may commit more updates per second, or have a lower p99 from due.
    """
    groups: dict[tuple[int, str, int], list[Row]] = {}
    for row in rows:
        if row.journal_per_s is not None:
            groups.setdefault((row.burners, row.waiting, row.count), []).append(row)
    for (burners, waiting, count), others in groups.items():
        beside = f"{burners} computing, {count:,} {waiting}"
        least = min(row.journal_per_s or 0 for row in others)
        most = max(row.journal_p99 or 0 for row in others)
        yield at_least(f"{beside}: updates/s to the best", least, 1)
        yield at_most(f"{beside}: p99 from due to the best", most, 1)


def main(arguments: list[str]) -> int:
    parser = parser_of("burn", __doc__)
    parser.add_argument(
        "--burners", type=int, nargs="+", default=[0, 1, 2], help="numbers of computing threads"
    )
    parser.add_argument(
        "--threads", type=int, nargs="*", default=[1, 8, 64], help="numbers of waiting threads"
    )
    parser.add_argument(
        "--coroutines", type=int, nargs="*", default=[100], help="numbers of waiting coroutines"
    )
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=[name for name, peer in PEERS.items() if peer.has_threads],
        default=["sqlite", "sqlite-batched"],
        help="engines to compare",
    )
    parser.add_argument("--rate", type=float, default=100, help="updates per second, all callers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="per phase; default: 1")
    options = parsed(parser, arguments)
    rows = list(measure(options))
    environment = {**about("lmdb", "rocksdict", "ZODB", "coopy"), "rate_per_s": options.rate}
    results = {"rows": [asdict(row) for row in rows]}
    return show("burn", options, environment, results, table(rows), bars(rows))
