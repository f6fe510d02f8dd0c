"""Records a second without waiting, beside the bare cost: packing and adding to a list.

Rounds of the two alternate; what counts is the median of their ratios. Then it goes on for a
while, and the process must not grow: the log buffer is bounded.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack

from bench.machine import about
from bench.peers import RECORD
from journal import BufferFullError, Journal

BAR = 0.4
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


def growth_bytes(journal: Journal, seconds: float) -> Iterator[int]:
    """How much larger the process is than at first, now and then while it appends."""
    began = resident_bytes()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for _ in range(A_ROUND):
            try:
                journal.append(RECORD)
            except BufferFullError:
                journal.wait_room()
        yield resident_bytes() - began


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench append", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=10, help="of the long run")
    parser.add_argument("--dir", type=Path, help="on the disk to measure; default: $TMPDIR")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    with (
        tempfile.TemporaryDirectory(dir=options.dir) as name,
        Journal.open(Path(name) / "journal") as journal,
    ):
        rates = [(bare(A_ROUND), appended(journal, A_ROUND)) for _ in range(options.rounds)]
        growth = list(growth_bytes(journal, options.seconds))
        records = journal.last_lsn
    found = {
        **about(),
        "bare_per_s": statistics.median(rate for rate, _ in rates),
        "append_per_s": statistics.median(rate for _, rate in rates),
        "ratio": statistics.median(ours / bare for bare, ours in rates),
        "records": records,
        "growth_mib_half_way": growth[len(growth) // 2] / 2**20,
        "growth_mib": growth[-1] / 2**20,
    }
    if options.json:
        print(json.dumps(found))
        return 0
    print(" ".join(f"{key} {value}" for key, value in about().items()))
    print(f"bare {found['bare_per_s']:,.0f}/s, append {found['append_per_s']:,.0f}/s")
    print(f"ratio {found['ratio']:.2f}, bar {BAR}")
    half_way, at_end = found["growth_mib_half_way"], found["growth_mib"]
    print(f"grown by {half_way:.1f} MiB half-way, {at_end:.1f} at the end: {records:,} records")
    return 0
