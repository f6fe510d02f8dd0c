"""Durable updates while other threads of the process compute, beside sqlite3 under the same.

A thread that computes in pure Python gives the interpreter up only every 5 ms, to whoever waits
for it: what has to take it often is slow then, whatever disk it has. So it is measured with none,
one and two such threads: updates a second as fast as callers can; latency at a fixed rate, from
when each was *due*; and how much of its computing the process still gets done meanwhile, beside
what it does alone. `nothing` is a call that returns at once: the latency that waking its thread
costs by itself. Rounds of all of them alternate; ratios are medians of the rounds' ratios.
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
from bench.output import parsed, show
from bench.peers import PEERS, OurJournal, Peer, opened


class Nothing(Peer):
    """What waking a caller costs, whatever it calls."""

    def update(self) -> None: ...

    async def update_async(self) -> None: ...


@dataclass(frozen=True)
class Round:
    """Of one peer. `turns_per_s` is what the computing threads got done."""

    per_s: float
    turns_per_s: float
    latencies_ns: list[int]
    late_ns: list[float]

    @property
    def due(self) -> Quantiles:
        return Quantiles.of(self.latencies_ns)


@dataclass(frozen=True)
class Row:
    """One peer, with so many computing threads and callers beside it. Times in ns; `lag` is how
    late a timer of the coroutines' loop comes. `journal_per_s`, `journal_p50` and `journal_p99` are
    the journal's updates a second and latency from due, in this peer's; `computing` is in what it
    is alone."""

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
    """Turns that the computing threads take in a second when nothing is beside them."""
    with burning(burners) as turns:
        time.sleep(seconds)
        return turns() / seconds


def round_of(
    peer: Peer, burners: int, waiting: str, count: int, rate: float, seconds: float
) -> Round:
    calls, async_calls = [peer.update] * count, [peer.update_async] * count
    late: list[float] = []
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
            latencies, late = asyncio.run(coroutines_at_rate(async_calls, rate, seconds))
    return Round(speed, turns_per_s, latencies, [each * 1e9 for each in late])


def rows_of(
    burners: int, waiting: str, count: int, rounds: dict[str, list[Round]], alone: list[float]
) -> Iterator[Row]:
    for name, measured in rounds.items():
        real = name != "nothing"
        shares = [r.turns_per_s / speed for r, speed in zip(measured, alone, strict=True) if speed]
        late = [each for r in measured for each in r.late_ns]
        row = Row(
            burners=burners,
            waiting=waiting,
            count=count,
            peer=name,
            per_s=statistics.median(r.per_s for r in measured) if real else None,
            due=Quantiles.of(each for r in measured for each in r.latencies_ns),
            lag=Quantiles.of(late) if late else None,
            computing=statistics.median(shares) if shares and real else None,
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


def in_times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f} x"


def table(rows: list[Row]) -> Iterator[str]:
    times = [f"{what} {q}" for what in ("due", "lag") for q in ("p50", "p99", "max")]
    ratios = [f"to it {what}" for what in ("/s", "p50", "p99")]
    yield (
        f"{'burn':>4} {'waiting':>16} {'peer':>14}"
        + "".join(f"{head:>11}" for head in ("updates/s", *times, *ratios, "computing"))
    )
    for row in rows:
        shown = ["" if row.per_s is None else f"{row.per_s:.0f}"]
        for found in (row.due, row.lag):
            p50, p99, _, most = astuple(found) if found else (None,) * 4
            shown += ["" if ns is None else human(ns) for ns in (p50, p99, most)]
        figures = [row.journal_per_s, row.journal_p50, row.journal_p99, row.computing]
        yield (
            f"{row.burners:4} {row.count:6} {row.waiting:>9} {row.peer:>14}"
            + "".join(f"{cell:>11}" for cell in (*shown, *map(in_times, figures)))
        )
    yield "to it: the journal's, in the row's"


def bars(rows: list[Row]) -> Iterator[Bar]:
    """None commits more, or stalls its callers less: beside the peer that comes nearest."""
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
    parser = argparse.ArgumentParser(
        prog="python tools/bench burn",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--burners", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--coroutines", type=int, nargs="*", default=[100])
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=["sqlite", "sqlite-batched"])
    parser.add_argument("--rate", type=float, default=100, help="updates a second, all together")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each phase (%(default)s)")
    options = parsed(parser, arguments)
    rows = list(measure(options))
    where = {**about("lmdb", "rocksdict", "ZODB", "coopy"), "rate_per_s": options.rate}
    found = {"rows": [asdict(row) for row in rows]}
    return show("burn", options, where, found, table(rows), bars(rows))
