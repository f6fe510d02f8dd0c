"""Promises other than those about crashes: full disks, the small lock, bounds, and hostile
bytes."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from shutil import copytree
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import CorruptionError, CowTable, DurableState, Journal, JournalError, Options
from journal.testing import SimulatedDisk
from tests.golden import journal_v1
from tests.independent_reader import RECORDS, SegmentHeader, crc32c

MIB = 1 << 20


class Rows:
    """A few rows that change forever."""

    application = "rows/1"

    def __init__(self) -> None:
        self.rows: CowTable[str, Any] = CowTable()

    def load(self, item: Any) -> None:
        self.rows[item[0]] = item

    def apply(self, lsn: int, record: Any) -> None:
        self.rows[record[0]] = record

    def freeze(self) -> Iterable[Any]:
        return self.rows.freeze()


def test_a_full_disk_opens_and_reads() -> None:
    """P5: A journal opens and yields all its records on a disk that has not one byte left."""
    disk = SimulatedDisk()
    for _ in range(2):
        with Journal.open("/full", disk=disk) as journal:
            journal.append("kept")
    disk.capacity = sum(map(len, disk.contents("/full").values()))
    journal = Journal.open("/full", disk=disk)
    assert [entry.record for entry in journal.replay()] == ["kept", "kept"]
    journal.close()


def test_no_disk_call_is_made_under_the_owners_lock() -> None:
    """P7: Deciding, appending, applying and freezing make no calls to the disk."""
    disk = SimulatedDisk()
    holders: set[int] = set()
    operations: list[str] = []

    @contextmanager
    def holding() -> Iterator[None]:
        holders.add(threading.get_ident())
        yield
        holders.discard(threading.get_ident())

    class Watched(Rows):
        def apply(self, lsn: int, record: Any) -> None:
            super().apply(lsn, record)
            holders.discard(threading.get_ident())  # nothing else runs under the lock

        def freeze(self) -> Iterable[Any]:
            with holding():
                return super().freeze()

    def decide(_: Watched) -> Any:
        holders.add(threading.get_ident())
        return ["key", "v" * 1000]

    def before(operation: str, path: str) -> None:
        operations.append(operation)
        if threading.get_ident() in holders:
            under_the_lock.append((operation, path))

    under_the_lock: list[tuple[str, str]] = []
    options = Options(segment_bytes=4096)
    with DurableState.open("/small", Watched(), options=options, disk=disk) as state:
        disk.before = before
        for _ in range(20):
            lsn = state.update(decide)
            state.wait_durable(lsn)
        state.compact()
    assert {"write", "sync", "rename"} <= set(operations)
    assert under_the_lock == []


def return_record(record: Any, _: object) -> Any:
    return record


def test_disk_space_follows_the_state_not_the_history() -> None:
    """P8: The compactor keeps only two checkpoints and the log after the older one.

    It does so by itself, however long the history is.
    """
    disk = SimulatedDisk()
    options = Options(segment_bytes=4096, checkpoint_min_bytes=16384, checkpoint_growth=1.0)
    with DurableState.open("/long", Rows(), options=options, disk=disk) as state:
        for number in range(100_000):
            record = [str(number % 10), "v" * 100]
            lsn = state.update(partial(return_record, record))
            if number % 50 == 0:
                state.wait_durable(lsn)
                if state.stats().compactions >= 5:
                    break
        else:
            pytest.fail("the log has grown and grown, and was not compacted")
        written = state.stats().bytes
        for _ in range(2):
            state.update(partial(return_record, ["0", "last"]))
            state.compact()
    files = disk.contents("/long")
    assert sum(name.endswith(".json") for name in files) == 2
    assert sum(name.endswith(".seg") for name in files) <= 2
    assert sum(map(len, files.values())) < 3 * options.segment_bytes < written


NAMES = sorted(path.name for path in journal_v1.FOLDER.iterdir())


@given(
    name=st.sampled_from(NAMES),
    at=st.integers(0, 5000),
    data=st.binary(max_size=200),
    cut=st.booleans(),
)
def test_hostile_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, at: int, data: bytes, cut: bool
) -> None:
    """P9: Whatever a file contains, open works or raises JournalError."""
    path = tmp_path_factory.mktemp("hostile") / "v1"
    copytree(journal_v1.FOLDER, path).chmod(0o700)
    old = (path / name).read_bytes()
    at = min(at, len(old))
    (path / name).write_bytes(old[:at] + data + (b"" if cut else old[at + len(data) :]))
    with suppress(JournalError), Journal.open(path) as journal:
        assert len(list(journal.replay())) <= len(journal_v1.LOG)


HEADER = SegmentHeader(bytes(16), 1, 1, 0)


def forged(payload: bytes, *, size: int, count: int) -> bytes:
    """Return a frame with correct CRCs and a header that may be wrong."""
    fields = pack("<QQQIIB3x", 1, 0, 0, size, count, RECORDS)
    body = pack("<I", crc32c(payload)) + fields
    return pack("<I", crc32c(body, HEADER.seed)) + body + payload


@pytest.mark.parametrize(
    "frame",
    [
        forged(b"\xc0", size=2**26, count=1),
        forged(b"\xc0", size=2**32 - 1, count=1),
        forged(b"\xc0", size=1, count=2**32 - 1),
        forged(b"\xdd\xff\xff\xff\xff", size=5, count=1),  # an array of 2^32 - 1
        forged(b"\xdf\xff\xff\xff\xff", size=5, count=1),  # a map
        forged(b"\xc6\xff\xff\xff\xff", size=5, count=1),  # a byte string
        forged(b"\x91" * 100_000, size=100_000, count=1),  # deeply nested
    ],
)
def test_a_length_on_disk_takes_no_memory(tmp_path: Path, frame: bytes) -> None:
    """P9: A length is compared with the bytes that exist before memory is allocated for it."""
    tmp_path.chmod(0o700)
    (tmp_path / HEADER.name).write_bytes(HEADER.encode() + frame)
    tracemalloc.start()
    try:
        with suppress(CorruptionError), Journal.open(tmp_path) as journal:
            assert journal.last_lsn == 0
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * MIB
