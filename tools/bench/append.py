"""Measure records appended per second without waiting, beside packing and adding to a list.

Rounds of the two alternate. The result is the median of the rounds' ratios. Then a longer run
appends at full speed. The process must stop growing during it, because the log buffer is bounded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack

from bench.figures import Bar, at_least, at_most
from bench.machine import about
from bench.output import parsed, show
from bench.peer import RECORD
from journal import BufferFullError, Journal

A_ROUND = 20_000  # records per round, which fit in the log buffer


def bare(records: int) -> float:
    """Return the records per second of packing and adding to a list."""
    pack = msgpack.Packer().pack
    packed: list[bytes] = []
    began = time.perf_counter()
    for _ in range(records):
        packed.append(pack(RECORD))
    return records / (time.perf_counter() - began)


def appended(journal: Journal, records: int) -> float:
    """Return the records per second of appending to an empty log buffer."""
    journal.wait_durable()
    began = time.perf_counter()
    for _ in range(records):
        journal.append(RECORD)
    return records / (time.perf_counter() - began)


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def growth(journal: Journal, seconds: float) -> Iterator[tuple[float, float]]:
    """Append for `seconds`, at least one round, and yield the growth of the process.

    After each round, yield the time since the start in seconds, and the growth since then in MiB.
    """
    before, began = resident_bytes(), time.monotonic()
    is_running = True
    while is_running:
        for _ in range(A_ROUND):
            try:
                journal.append(RECORD)
            except BufferFullError:
                journal.wait_room()
        elapsed_s = time.monotonic() - began
        is_running = elapsed_s < seconds
        yield elapsed_s, (resident_bytes() - before) / 2**20


def lines(results: dict[str, Any]) -> Iterator[str]:
    yield f"bare {results['bare_per_s']:,.0f}/s, append {results['append_per_s']:,.0f}/s"
    yield (
        f"growth at most {results['grown_first_half_mib']:.1f} MiB in the first half, "
        f"{results['grown_second_half_mib']:.1f} in the second: {results['records']:,} records"
    )


def bars(results: dict[str, Any]) -> Iterator[Bar]:
    yield at_least("append to the bare loop", results["ratio"], 0.4)
    # A bounded buffer is full in the first half. A leak would double its growth in the second.
    first, second = results["grown_first_half_mib"], results["grown_second_half_mib"]
    growth = second / max(first, 1)
    yield at_most("memory's peak, second half of the run to the first", growth, 1.25)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tools/bench append", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10, help="of the long run; default: 10")
    options = parsed(parser, arguments)
    with (
        tempfile.TemporaryDirectory(dir=options.dir) as name,
        Journal.open(Path(name) / "journal") as journal,
    ):
        rates = [(bare(A_ROUND), appended(journal, A_ROUND)) for _ in range(options.rounds)]
        grown = list(growth(journal, options.seconds))
        records = journal.last_lsn
    first_half = [mib for at_s, mib in grown if at_s < options.seconds / 2]
    results = {
        "bare_per_s": statistics.median(rate for rate, _ in rates),
        "append_per_s": statistics.median(rate for _, rate in rates),
        "ratio": statistics.median(ours / bare for bare, ours in rates),
        "records": records,
        "grown_first_half_mib": max(first_half, default=0),
        "grown_second_half_mib": max(mib for _, mib in grown[len(first_half) :]),
        "rounds": {"bare": [rate for rate, _ in rates], "append": [rate for _, rate in rates]},
        "growth": grown,
    }
    return show("append", options, about(), results, lines(results), bars(results))
