"""Records a second without waiting, beside the bare cost: packing and adding to a list.

Rounds of the two alternate; what counts is the median of their ratios. Then it goes on for a
while, and the process must not grow: the log buffer is bounded.
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
from bench.peers import RECORD
from journal import BufferFullError, Journal

A_ROUND = 20_000  # records, which the log buffer holds


def bare(records: int) -> float:
    """Records a second."""
    pack = msgpack.Packer().pack
    packed: list[bytes] = []
    began = time.perf_counter()
    for _ in range(records):
        packed.append(pack(RECORD))
    return records / (time.perf_counter() - began)


def appended(journal: Journal, records: int) -> float:
    """The same, into an empty log buffer."""
    journal.wait_durable()
    began = time.perf_counter()
    for _ in range(records):
        journal.append(RECORD)
    return records / (time.perf_counter() - began)


def resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


def growth(journal: Journal, seconds: float) -> Iterator[tuple[float, float]]:
    """Now and then while it appends: seconds since the first, and MiB that the process is larger
    than then."""
    before, began = resident_bytes(), time.monotonic()
    while time.monotonic() < began + seconds:
        for _ in range(A_ROUND):
            try:
                journal.append(RECORD)
            except BufferFullError:
                journal.wait_room()
        yield time.monotonic() - began, (resident_bytes() - before) / 2**20


def lines(found: dict[str, Any]) -> Iterator[str]:
    yield f"bare {found['bare_per_s']:,.0f}/s, append {found['append_per_s']:,.0f}/s"
    yield (
        f"grown by at most {found['grown_first_half_mib']:.1f} MiB in the first half, "
        f"{found['grown_second_half_mib']:.1f} in the second: {found['records']:,} records"
    )


def bars(found: dict[str, Any]) -> Iterator[Bar]:
    yield at_least("append to the bare loop", found["ratio"], 0.4)
    # What is bounded has reached its bound half-way; a leak would double by the end.
    first, second = found["grown_first_half_mib"], found["grown_second_half_mib"]
    growth = second / max(first, 1)
    yield at_most("memory's peak, second half of the run to the first", growth, 1.25)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python tools/bench append", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10, help="of the long run")
    options = parsed(parser, arguments)
    with (
        tempfile.TemporaryDirectory(dir=options.dir) as name,
        Journal.open(Path(name) / "journal") as journal,
    ):
        rates = [(bare(A_ROUND), appended(journal, A_ROUND)) for _ in range(options.rounds)]
        grown = list(growth(journal, options.seconds))
        records = journal.last_lsn
    half_way = [mib for at_s, mib in grown if at_s < options.seconds / 2]
    found = {
        "bare_per_s": statistics.median(rate for rate, _ in rates),
        "append_per_s": statistics.median(rate for _, rate in rates),
        "ratio": statistics.median(ours / bare for bare, ours in rates),
        "records": records,
        "grown_first_half_mib": max(half_way, default=0),
        "grown_second_half_mib": max(mib for _, mib in grown[len(half_way) :]),
        "rounds": {"bare": [rate for rate, _ in rates], "append": [rate for _, rate in rates]},
        "growth": grown,
    }
    return show("append", options, about(), found, lines(found), bars(found))
