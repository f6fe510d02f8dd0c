"""A script that makes one journal of version 1, with the same bytes each time.

The files are in `v1/`, and no test writes them: they change only with the format's version. They
are made once per version, by hand, in the checkout:

    python -m tests.golden.journal_v1
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack

from journal import FailedError, Journal, Options
from journal.testing import SimulatedDisk

FOLDER = Path(__file__).resolve().parent / "v1"
PLACE = "/golden"
SECOND_NS = 10**9
BEGAN_NS = 1_767_225_600 * SECOND_NS  # 2026-01-01

EVERY_TYPE: list[Any] = [
    None,
    *(True, False),
    *(0, 127, -1, -32, 2**8, 2**16, 2**32, 2**64 - 1, -(2**7), -(2**15), -(2**31), -(2**63)),
    *(0.5, -0.0, 1e300, float("inf")),
    *("", "a", "é✓🗝", "s" * 32, "s" * 256),
    *(b"", b"\x00\xff", b"b" * 256),
    *([], [1, [2, [3]]], list(range(16))),
    *({}, {"k": "v", 1: 2, b"b": None, 1.5: False}, {str(n): n for n in range(16)}),
    *(msgpack.ExtType(5, b"x"), msgpack.ExtType(127, b"x" * 17)),
    *(msgpack.Timestamp(1), msgpack.Timestamp(2**34, 999_999_999), msgpack.Timestamp(-1, 5)),
]
FILLER: list[Any] = [["filler", n, "f" * 400] for n in range(12)]  # more than fits in one segment
BATCH: list[Any] = [{"batch": n} for n in range(3)]
AFTER: list[Any] = [["epoch 2", n] for n in range(4)]
KEPT, TORN = ["epoch 3", "acknowledged"], ["epoch 3", "torn", "t" * 100]
LAST: list[Any] = [["epoch 4", "after the torn tail"], ["epoch 4", "the last"]]

# The log as (epoch, record), in order. A record's LSN is its position, from 1.
LOG: list[tuple[int, Any]] = [
    *((1, record) for record in (*FILLER, *EVERY_TYPE, *BATCH)),
    *((2, record) for record in AFTER),
    (3, KEPT),
    *((4, record) for record in LAST),
]
CHECKPOINTS = (len(FILLER), len(FILLER) + len(EVERY_TYPE) + len(BATCH) + 2)


def options(*, durability: Any = "disk") -> Options:
    # The script alone decides when to commit and to compact, not the time or the size.
    return Options(
        durability=durability,
        flush_interval_s=3600,
        segment_bytes=4096,
        checkpoint_min_bytes=2**30,
        application="golden/1",
    )


class Script:
    """A sequence of steps. The clock stands still within each step."""

    def __init__(self) -> None:
        self.disk = SimulatedDisk()
        self.disk.clock_ns, self.disk.tick_ns = BEGAN_NS, 0

    def open(self, **kwargs: Any) -> Journal:
        self.disk.clock_ns += SECOND_NS
        return Journal.open(PLACE, options=options(**kwargs), disk=self.disk)

    def append(self, journal: Journal, records: Iterable[Any]) -> None:
        """Append each record in a frame of its own."""
        for record in records:
            self.disk.clock_ns += SECOND_NS
            journal.wait_durable(journal.append(record))

    def checkpoint(self, journal: Journal) -> None:
        self.disk.clock_ns += SECOND_NS + SECOND_NS // 8
        journal.compact(lambda: (journal.last_lsn, items(journal.last_lsn)))

    def tear(self, journal: Journal, record: Any) -> None:
        """Cut the power between the write and the sync, so that half of the write is on the
        disk."""
        self.disk.clock_ns += SECOND_NS
        self.disk.before = lambda operation, _: (
            self.disk.crash_after(0) if operation == "sync" else None
        )
        journal.append(record)
        with suppress(FailedError):
            journal.close()
        self.disk.before = None
        self.disk.power_cut(lambda change: change.data[: len(change.data) // 2])


def items(lsn: int) -> list[Any]:
    """Return the state as of `lsn`: the number of records of each type."""
    kinds = [type(record).__name__ for _, record in LOG[:lsn]]
    return [{"type": kind, "count": kinds.count(kind)} for kind in sorted(set(kinds))]


def write() -> dict[str, bytes]:
    """Return the journal's files, without LOCK, which is for people."""
    script = Script()

    with script.open() as journal:
        script.append(journal, FILLER)
        script.checkpoint(journal)
        script.append(journal, EVERY_TYPE)
        journal.wait_durable(journal.append_batch(BATCH))

    with script.open() as journal:
        script.append(journal, AFTER[:2])
        # The second checkpoint removes the segments that end at or before the first.
        script.checkpoint(journal)
        script.append(journal, AFTER[2:])

    journal = script.open()
    script.append(journal, [KEPT])
    script.tear(journal, TORN)

    with script.open(durability="os") as journal:
        script.append(journal, LAST)
    return {name: data for name, data in script.disk.contents(PLACE).items() if name != "LOCK"}


if __name__ == "__main__":
    FOLDER.mkdir()
    for name, data in write().items():
        (FOLDER / name).write_bytes(data)
