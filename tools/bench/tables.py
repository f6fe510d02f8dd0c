"""Measure tables beside other stores of Python values: sets, reads, opens, and bytes on disk.

Rounds of all stores alternate, and a ratio is the median of the rounds' ratios. Sets, reads and
opens are counted in CPU time of the process with all its threads, durable sets in elapsed time.
With --keys, the bounds of tables with that many keys are measured in a separate process.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import table_bounds
from bench.figures import Bar, at_least
from bench.load import at_full_speed
from bench.machine import about
from bench.output import parsed, show
from bench.stores import STORES, OurTables, Store, fill
from bench.table_bounds import GROUP, key_of, rows_of, value_of

Rounds = dict[str, list[float]]  # the cost in each round, by store

SET, GET, PREFIX, OPEN, DISK = "set", "get", "prefix read", "open", "disk"
UNITS = {
    SET: "us a set, CPU",
    GET: "us a get, CPU",
    PREFIX: "us a row, CPU",
    OPEN: "ms, CPU",
    DISK: "bytes a row",
}
# LMDB stores no Python values. Its calls that neither wait nor run in many threads cost little more
# than msgpack's, so the journal need not be faster: they are reported as a ratio only.
BEST_WITHOUT = dict.fromkeys((SET, GET, PREFIX), ("lmdb",))


@dataclass(frozen=True)
class Row:
    """The cost of one kind of call of one store, the median of the rounds.

    `ratio` is this cost divided by the journal's, the median of the rounds' ratios: more than 1 if
    the journal's is smaller.
    """

    rows: int
    what: str
    peer: str
    cost: float
    unit: str
    ratio: float


def unit_of(what: str) -> str:
    return UNITS.get(what, "us a set, elapsed")


def durable(threads: int) -> str:
    return f"durable set, {threads} thread{'s' if threads > 1 else ''}"


def cpu_us(calls: int, run: Callable[[], object]) -> float:
    """Return the CPU time of the process for each of the calls that `run` makes, in us."""
    began = time.process_time()
    run()
    return (time.process_time() - began) / calls * 1e6


def sets(store: Store, keys: list[str]) -> None:
    for number, key in enumerate(keys):
        store.set(key, value_of(number))
    store.settle()


def reads(call: Callable[[str], object], keys: list[str]) -> None:
    for key in keys:
        call(key)


def durable_us(store: Store, threads: int, seconds: float, keys: list[str]) -> float:
    """Return the elapsed time for each durable set, in us, with all threads at full speed.

    Each value is new, because sqlite neither writes nor syncs a row that has not changed.
    """

    def call(chosen: random.Random) -> None:
        store.set_durable(chosen.choice(keys), value_of(chosen.getrandbits(32)))

    def call_alone(chosen: random.Random) -> None:
        store.set(chosen.choice(keys), value_of(chosen.getrandbits(32)))
        store.settle()

    one = call if threads > 1 else call_alone
    calls = [partial(one, random.Random()) for _ in range(threads)]
    if threads > 1:
        store.start_threads()
    try:
        return 1e6 / at_full_speed(calls, seconds)
    finally:
        if threads > 1:
            store.end_threads()


def disk_bytes(directory: Path) -> int:
    return sum(os.stat(path).st_blocks * 512 for path in directory.rglob("*") if path.is_file())


class Measured:
    """Stores with the same rows, and the costs measured for them."""

    def __init__(self, directory: Path, options: argparse.Namespace, rows: int) -> None:
        self._options = options
        self._directory = directory
        self._keys = [key_of(number) for number in range(rows)]
        self._prefixes = sorted({key.partition(":")[0] + ":" for key in self._keys})
        self._stores: dict[str, Store] = {}
        self.costs: dict[str, Rounds] = {}
        for name in ("journal", *options.peers):
            (directory / name).mkdir()
            try:
                store = STORES[name](directory / name)
            except ImportError as error:
                print(f"bench: {name} is skipped: {error}", file=sys.stderr)
                continue
            fill(store, rows_of(rows))
            self._stores[name] = store

    def round(self, number: int) -> None:
        """Measure each kind of call of each store."""
        chosen = random.Random(number)
        keys = chosen.choices(self._keys, k=self._options.calls)
        prefixes = chosen.choices(self._prefixes, k=max(1, self._options.calls // GROUP))
        for name, store in self._stores.items():
            self._add(SET, name, cpu_us(len(keys), partial(sets, store, keys)))
        for name, store in self._stores.items():
            self._add(GET, name, cpu_us(len(keys), partial(reads, store.get, keys)))
        for name, store in self._stores.items():
            if store.has_prefixes:
                rows = len(prefixes) * min(GROUP, len(self._keys))
                self._add(PREFIX, name, cpu_us(rows, partial(reads, store.prefix, prefixes)))
        for threads in self._options.threads:
            for name, store in self._stores.items():
                if store.is_durable:
                    self._add(durable(threads), name, self._durable_us(store, threads))

    def reopen(self) -> None:
        """Measure the size of each store, and the cost of opening it and reading one row.

        The journal has a new checkpoint, like that of a program that compacts before it closes.
        """
        for name, store in list(self._stores.items()):
            if isinstance(store, OurTables):
                store.tables.compact().close()
            store.close()
            self._add(DISK, name, disk_bytes(self._directory / name) / len(self._keys))
        for _ in range(self._options.rounds):
            for name in self._stores:
                self._add(OPEN, name, cpu_us(1000, partial(self._open, name)))
                self._stores[name].close()

    def _open(self, name: str) -> None:
        self._stores[name] = STORES[name](self._directory / name)
        self._stores[name].get(self._keys[0])

    def _durable_us(self, store: Store, threads: int) -> float:
        store.begin_durable()
        try:
            return durable_us(store, threads, self._options.seconds, self._keys)
        finally:
            store.end_durable()

    def _add(self, what: str, name: str, cost: float) -> None:
        self.costs.setdefault(what, {}).setdefault(name, []).append(cost)


def measure(options: argparse.Namespace, rows: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        measured = Measured(Path(name), options, rows)
        for number in range(options.rounds):
            measured.round(number)
        measured.reopen()
    for what, costs in measured.costs.items():
        ours = costs["journal"]
        for peer, rounds in costs.items():
            ratios = [cost / our for cost, our in zip(rounds, ours, strict=True)]
            cost = statistics.median(rounds)
            yield Row(rows, what, peer, cost, unit_of(what), statistics.median(ratios))


def table(rows: list[Row], bounds: dict[str, float]) -> Iterator[str]:
    for size in dict.fromkeys(row.rows for row in rows):
        of_size = [row for row in rows if row.rows == size]
        peers = list(dict.fromkeys(row.peer for row in of_size))
        yield f"{size:,} rows".ljust(40) + "".join(f"{peer:>14}" for peer in peers)
        for what in dict.fromkeys(row.what for row in of_size):
            cells = {row.peer: row for row in of_size if row.what == what}
            costs = "".join(
                f"{cells[peer].cost:14,.2f}" if peer in cells else f"{'none':>14}" for peer in peers
            )
            yield f"{what}, {unit_of(what)}".ljust(40) + costs
            ratios = "".join(
                f"{cells[peer].ratio:12.2f} x" if peer in cells else " " * 14 for peer in peers
            )
            yield "    to the journal".ljust(40) + ratios
    yield from table_bounds.lines(bounds)


def bars(rows: list[Row], bounds: dict[str, float]) -> Iterator[Bar]:
    """Yield a bar for each row in which the journal must be first.

    It need not be first for opens, bytes on disk, and durable sets by one thread.
    """
    for size in dict.fromkeys(row.rows for row in rows):
        for what in dict.fromkeys(row.what for row in rows):
            if what in (OPEN, DISK, durable(1)):
                continue
            without = ("journal", *BEST_WITHOUT.get(what, ()))
            ratios = {
                row.peer: row.ratio
                for row in rows
                if (row.rows, row.what) == (size, what) and row.peer not in without
            }
            if ratios:
                best = min(ratios, key=ratios.__getitem__)
                yield at_least(f"{what} to {best}, {size:,} rows", ratios[best], 1)
    yield from table_bounds.bars(bounds)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--child"]:
        table_bounds.child(arguments[1], Path(arguments[2]), int(arguments[3]))
        return 0
    others = [name for name in STORES if name != "journal"]
    parser = argparse.ArgumentParser(prog="python tools/bench tables", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000], help="numbers of rows")
    parser.add_argument(
        "--keys", type=int, default=0, help="also measure bounds with this many keys"
    )
    parser.add_argument("--peers", nargs="*", choices=others, default=others)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 64], help="that wait")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=5_000, help="sets or gets per round")
    parser.add_argument("--seconds", type=float, default=0.4, help="per round of durable sets")
    options = parsed(parser, arguments)
    rows = [row for size in options.rows for row in measure(options, size)]
    bounds = table_bounds.measured(options.dir, options.keys) if options.keys else {}
    environment = about("lmdb", "sqlitedict", "diskcache", "persist-queue")
    environment["load"] = round(os.getloadavg()[0])
    results: dict[str, Any] = {"rows": [asdict(row) for row in rows], "bounds": bounds}
    return show("tables", options, environment, results, table(rows, bounds), bars(rows, bounds))
