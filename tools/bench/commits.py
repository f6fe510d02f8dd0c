"""Durable updates a second, beside the bare disk: one write and fdatasync an update.

Rounds of the two alternate, so that what else the machine does meets both; what counts is the
median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import msgpack

from journal import Journal, __version__

RECORD = ["step", "agent_0123456789ab", 12, "x" * 200, 1_700_000_000_000]
FRAME_HEADER_BYTES = 44
ALLOCATED_BYTES = 64 << 20


@dataclass(frozen=True)
class Row:
    """Updates a second, and the ratio to the bare disk: median, least and most of the rounds."""

    threads: int
    disk_per_s: float
    journal_per_s: float
    ratio: float
    ratio_min: float
    ratio_max: float


class BareDisk:
    """The same bytes as a journal of one record a frame, into a preallocated file."""

    def __init__(self, directory: Path) -> None:
        self._data = bytes(FRAME_HEADER_BYTES) + msgpack.packb(RECORD)
        self._fd = os.open(directory / "bare", os.O_CREAT | os.O_RDWR)
        os.posix_fallocate(self._fd, 0, ALLOCATED_BYTES)
        os.fsync(self._fd)
        self._offset = 0

    def update(self) -> None:
        os.pwrite(self._fd, self._data, self._offset)
        os.fdatasync(self._fd)
        self._offset = (self._offset + len(self._data)) % (ALLOCATED_BYTES - len(self._data))


def per_second(update: Callable[[], None], threads: int, seconds: float) -> float:
    """How often `threads` threads complete `update` in a second, all together."""
    counts = [0] * threads
    began = time.perf_counter()
    until = began + seconds

    def run(index: int) -> None:
        while time.perf_counter() < until:
            update()
            counts[index] += 1

    others = [threading.Thread(target=run, args=(index,)) for index in range(1, threads)]
    for other in others:
        other.start()
    run(0)
    for other in others:
        other.join()
    return sum(counts) / (time.perf_counter() - began)


def measure(directory: Path, threads: list[int], rounds: int, seconds: float) -> list[Row]:
    bare = BareDisk(directory)
    rates: dict[int, list[tuple[float, float]]] = {count: [] for count in threads}
    with Journal.open(directory / "journal") as journal:

        def update() -> None:
            journal.wait_durable(journal.append(RECORD))

        update()
        for _ in range(rounds):
            for count in threads:
                before = per_second(bare.update, 1, seconds / 2)
                ours = per_second(update, count, seconds)
                after = per_second(bare.update, 1, seconds / 2)
                rates[count].append(((before + after) / 2, ours))
    return [row(count, rates[count]) for count in threads]


def row(threads: int, rates: list[tuple[float, float]]) -> Row:
    ratios = [ours / disk for disk, ours in rates]
    return Row(
        threads=threads,
        disk_per_s=statistics.median(disk for disk, _ in rates),
        journal_per_s=statistics.median(ours for _, ours in rates),
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench commits", description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=0.4, help="of a round (%(default)s)")
    parser.add_argument("--cpu", type=int, help="pin to this one")
    parser.add_argument("--dir", type=Path, help="on the disk to measure; default: $TMPDIR")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.cpu is not None:
        os.sched_setaffinity(0, {options.cpu})
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        rows = measure(Path(directory), options.threads, options.rounds, options.seconds)
    about = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": len(os.sched_getaffinity(0)),
        "journal": __version__,
    }
    if options.json:
        print(json.dumps({**about, "rows": [asdict(each) for each in rows]}))
        return 0
    print(" ".join(f"{key} {value}" for key, value in about.items()))
    print(f"{'threads':>7} {'disk/s':>8} {'journal/s':>9} {'ratio':>6} {'rounds':>13}")
    for each in rows:
        spread = f"{each.ratio_min:.2f}..{each.ratio_max:.2f}"
        print(
            f"{each.threads:7} {each.disk_per_s:8.0f} {each.journal_per_s:9.0f} "
            f"{each.ratio:6.2f} {spread:>13}"
        )
    return 0
