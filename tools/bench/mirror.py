"""Measure what a mirror costs the writer, beside the same writer without one.

Threads append records, and each waits for its own. With ack="local", rounds with a mirror and
without alternate; CPU time is that of the whole process, the shipper's thread included. With
ack="remote", each request to the store takes `--delay-ms` longer. The rate is compared with the
highest possible one, at which all threads share each upload, and the next one leaves as it is
answered: their number, divided by the time of an upload. Just before and after each round, uploads
of that size are measured while nothing else runs.

If Litestream is installed, SQLite has rounds with and without it, too, with the same threads.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench import litestream
from bench.figures import Bar, at_least, at_most
from bench.load import run_threads
from bench.machine import about
from bench.output import parsed, parser_of, show
from bench.peer import records
from journal import Journal, Mirror
from journal._mirror.memory_store import MemoryStore
from journal._mirror.store import Store, TakenError

MEMORY = "memory:"
_UPLOADS = 10  # that are measured one by one, before and after a round


class DelayedStore:
    """A store each of whose requests takes `delay_s` longer."""

    def __init__(self, store: Store, delay_s: float) -> None:
        self._store, self._delay_s = store, delay_s

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not callable(value) or name == "close":
            return value

        def request(*arguments: Any) -> Any:
            time.sleep(self._delay_s)
            return value(*arguments)

        return request


@dataclass(frozen=True, slots=True)
class DelayedMirror(Mirror):
    """A mirror that is `delay_s` away: at its address, or for `MEMORY` in this process's memory."""

    delay_s: float = field(default=0.0, kw_only=True)

    def _check(self, path: str) -> None:
        if self.url != MEMORY:
            Mirror._check(self, path)

    def _open_store(self, open_s: float = 10.0, *, is_reader: bool = False) -> Store:
        store: Any = MemoryStore() if self.url == MEMORY else Mirror._open_store(self, open_s)
        delayed: Store = DelayedStore(store, self.delay_s) if self.delay_s else store
        return delayed


@dataclass(frozen=True)
class Round:
    """The records per second, the CPU time of the process for each, and the requests per second.

    bound: the highest possible number of records per second, 0 if no upload bounds it.
    """

    rate: float
    cpu_us: float
    uploads: float
    bound: float = 0.0


@dataclass(frozen=True)
class Row:
    """The medians of the rounds, and the ratios to the rounds without a mirror, or to the bound.

    Those of SQLite are to SQLite alone.
    """

    what: str
    rate: float
    rate_ratio: float
    cpu_us: float
    cpu_ratio: float
    uploads: float
    records_an_upload: float


def measured(path: Path, mirror: Mirror | None, threads: int, seconds: float) -> Round:
    counts, new_records = [0] * threads, records()
    with Journal.open(path, mirror=mirror) as journal:
        journal.wait_durable(journal.append(next(new_records)))
        before = journal.stats().mirror_requests or 0
        began, cpu, until = time.perf_counter(), time.process_time(), time.monotonic() + seconds

        def run(index: int) -> None:
            while not counts[index] or time.monotonic() < until:
                journal.wait_durable(journal.append(next(new_records)))
                counts[index] += 1

        run_threads(threads, run)
        took_s, cpu_s, count = time.perf_counter() - began, time.process_time() - cpu, sum(counts)
        requests = (journal.stats().mirror_requests or 0) - before
    return Round(count / took_s, cpu_s / count * 1e6, requests / took_s)


def uploads_s(url: str, delay_s: float, size: int) -> list[float]:
    """Return the times of some uploads of `size` bytes, in seconds."""
    store = DelayedMirror(url, delay_s=delay_s)._open_store()
    times, number = list[float](), 0
    while len(times) < _UPLOADS:
        number += 1
        began = time.perf_counter()
        with suppress(TakenError):
            store.append(number, bytes(size))
            times.append(time.perf_counter() - began)
    store.close()
    return times


def rows(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    number = 0

    def fresh() -> tuple[Path, str]:
        nonlocal number
        number += 1
        return folder / f"{number}", f"{options.url}-{number}" if options.url else MEMORY

    def run(*, is_mirrored: bool = True, **choices: Any) -> Round:
        path, url = fresh()
        mirror = DelayedMirror(url, **choices) if is_mirrored else None
        return measured(path, mirror, options.threads, options.seconds)

    def alone() -> list[float]:
        return uploads_s(fresh()[1], delay_s, options.threads * 200)

    def sqlite(command: str | None) -> Round:
        path, _ = fresh()
        rate, cpu_s = litestream.measured(path, command, options.threads, options.seconds)
        return Round(rate, cpu_s * 1e6, 0.0)

    plain, local, remote = list[Round](), list[Round](), list[Round]()
    alone_rounds, replicated, replicate = list[Round](), list[Round](), litestream.command()
    delay_s = options.delay_ms / 1e3
    for _ in range(options.rounds):
        plain.append(run(is_mirrored=False))
        local.append(run())
        before_s = alone()
        measured_round = run(delay_s=delay_s, ack="remote")
        upload_s = statistics.fmean([*before_s, *alone()])  # a mean, as a rate is one
        remote.append(replace(measured_round, bound=options.threads / upload_s))
        if replicate:
            alone_rounds.append(sqlite(None))
            replicated.append(sqlite(replicate))
    yield _row("no mirror", plain, plain)
    yield _row('ack="local"', local, plain)
    yield _row(f'ack="remote", +{options.delay_ms:g} ms', remote, plain)
    if replicate:
        yield _row("SQLite", alone_rounds, alone_rounds)
        yield _row("SQLite with Litestream", replicated, alone_rounds)


def _row(what: str, rounds: list[Round], plain: list[Round]) -> Row:
    pairs = list(zip(rounds, plain, strict=True))
    return Row(
        what,
        statistics.median(each.rate for each in rounds),
        statistics.median(each.rate / (each.bound or other.rate) for each, other in pairs),
        statistics.median(each.cpu_us for each in rounds),
        statistics.median(each.cpu_us / other.cpu_us for each, other in pairs),
        statistics.median(each.uploads for each in rounds),
        statistics.median(each.rate / each.uploads if each.uploads else 0.0 for each in rounds),
    )


def lines(results: list[Row]) -> Iterator[str]:
    for row in results:
        each = f" of {row.records_an_upload:,.1f} records" if row.uploads else ""
        yield (
            f"{row.what:26}{row.rate:10,.0f} records/s ({row.rate_ratio:.2f} x) "
            f"{row.cpu_us:8.1f} us of CPU each ({row.cpu_ratio:.2f} x) "
            f"{row.uploads:6.1f} requests/s{each}"
        )


def bars(options: argparse.Namespace, results: list[Row]) -> Iterator[Bar]:
    _, local, remote, *_ = results
    yield at_most('ack="local": CPU for a record to no mirror', local.cpu_ratio, 1.1)
    yield at_least('ack="local": records/s to no mirror', local.rate_ratio, 0.9)
    name = f"{remote.what}: records/s to {options.threads} threads over one upload"
    yield at_least(name, remote.rate_ratio, 0.85)


def main(arguments: list[str]) -> int:
    parser = parser_of("mirror", __doc__)
    parser.add_argument("--url", help="the mirror's address; default: in memory")
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--delay-ms", type=float, default=30, help="of each request; default: 30")
    parser.add_argument("--seconds", type=float, default=3, help="per round; default: 3")
    parser.add_argument("--rounds", type=int, default=5)
    options = parsed(parser, arguments)
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        results = list(rows(options, Path(name)))
    return show(
        "mirror",
        options,
        about("obstore", "nats-py"),
        {"rows": [asdict(row) for row in results]},
        lines(results),
        bars(options, results),
    )
