"""A reader beside a writer: a defect that may be a change during the read is checked a second
time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from journal import CorruptionError, Journal, JournalReader
from journal._format.layout import FRAME_HEADER_BYTES
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
from tests.support import PATH, names, open_on, put, sized, until, write_at

KIB = 1 << 10
WINDOW_BYTES = 256 * KIB  # the size of a reader's read


@contextmanager
def long_log(disk: SimulatedDisk) -> Iterator[Journal]:
    """Yield a journal with one record, which ends 60 KiB before a reader's second window."""
    with open_on(disk, segment_bytes=1 << 20) as journal:
        put(journal, b"x" * (WINDOW_BYTES - 60 * KIB))
        yield journal


def during_the_read(disk: SimulatedDisk, act: Callable[[], object]) -> list[int]:
    """Call `act` once, before the second read of a segment's frames. Return the list of reads."""
    reads: list[int] = []

    def before(operation: Operation, path: str) -> None:
        if operation == "read" and ".seg" in path:
            reads.append(len(reads))
            # The reads of a segment: its header, the first window, the second one.
            if len(reads) == 3:
                disk.before = None
                act()

    disk.before = before
    return reads


def commits(journal: Journal) -> Callable[[], object]:
    """Return a call that commits a frame across the windows' border, and one that proves it
    durable."""
    return lambda: put(journal, b"y" * 100 * KIB, b"z")


class CommitsAt:
    """A hook that commits more than a window, as `commits` does, before the reads with given
    numbers."""

    def __init__(self, journal: Journal, numbers: set[int]) -> None:
        self._journal = journal
        self._numbers = numbers
        self._reads = 0

    def __call__(self, operation: Operation, path: str) -> None:
        self._reads += operation == "read" and ".seg" in path
        if self._reads in self._numbers:
            self._numbers.remove(self._reads)
            put(self._journal, b"y" * 300 * KIB, b"z")


@pytest.mark.parametrize("read", ["entries", "verify", "segments"])
def test_a_half_read_commit_is_no_damage(disk: SimulatedDisk, read: str) -> None:
    """P4: If a reader reads a frame's place before the frame is written, and the evidence for it
    afterwards, the frame looks damaged. A second look finds it whole."""
    with long_log(disk) as journal, JournalReader.open(PATH, disk=disk) as reader:
        reads = during_the_read(disk, commits(journal))
        if read == "entries":
            assert [entry.record[:1] for entry in reader.entries()][:2] == [b"x", b"y"]
        elif read == "verify":
            assert list(reader.verify()) == []
        else:
            assert [info.state for info in reader.segments()] == ["active"]
        assert len(reads) == 3
        assert journal.durable_lsn == 3


@pytest.mark.parametrize("first", range(5, 11))
def test_a_commit_seen_half_written_twice_is_no_damage(first: int) -> None:
    """P4: Commits before any two reads may make a growing log look bad, at a different place in
    each look. That is no damage."""
    for second in range(first + 1, 32):
        disk = SimulatedDisk()
        with (
            open_on(disk, segment_bytes=1 << 21) as journal,
            JournalReader.open(PATH, disk=disk) as reader,
        ):
            put(journal, b"x" * 300 * KIB)
            disk.before = CommitsAt(journal, {first, second})
            assert [(second, info.state) for info in reader.segments()] == [(second, "active")]


def test_damage_persists_at_the_second_read(disk: SimulatedDisk) -> None:
    """P4: Damage that both looks see is reported with its place, while the writer continues."""
    with long_log(disk) as journal, JournalReader.open(PATH, disk=disk) as reader:

        def damage() -> None:
            commits(journal)()
            write_at(disk, names(disk, ".seg")[0], WINDOW_BYTES - 60 * KIB + 200, b"\xff" * 60)

        during_the_read(disk, damage)
        entries = reader.entries()
        assert next(entries).record[:1] == b"x"
        with pytest.raises(CorruptionError) as caught:
            list(entries)
        put(journal, b"on")
        (finding,) = reader.verify()
        assert (finding.kind, finding.offset, finding.lsn) == (
            "corruption", caught.value.offset, caught.value.lsn
        )  # fmt: skip


def test_the_durable_lsn_does_not_fall_while_a_segment_is_made(
    disk: SimulatedDisk,
) -> None:
    """P2: Records that were once shown as durable stay so, at each step from one segment to the
    next."""
    with open_on(disk) as journal, JournalReader.open(PATH, disk=disk) as reader:
        put(journal, 1, sized(3000))
        until(lambda: reader.last_lsn == 2, "the mark")
        steps: list[tuple[Operation, int]] = []

        def before(operation: Operation, path: str) -> None:
            disk.before = None
            steps.append((operation, reader.last_lsn))
            disk.before = before

        disk.before = before
        put(journal, sized(3000))
        disk.before = None
    assert len(names(disk, ".seg")) == 2
    assert "rename" in [operation for operation, _ in steps]
    assert [step for step in steps if step[1] < 2] == []


@pytest.mark.parametrize("number", range(1, 7))
def test_the_durable_lsn_does_not_fall_while_a_mark_is_overwritten(
    disk: SimulatedDisk, number: int
) -> None:
    """P2: The header of the next frame, which overwrites the mark, may be seen half written if it
    crosses a page."""
    with open_on(disk) as journal, JournalReader.open(PATH, disk=disk) as reader:
        put(journal, 1, 2)
        until(lambda: reader.last_lsn == 2, "the mark")
        (name,) = names(disk, ".seg")
        offset = next(info.offset for info in reader.frames() if info.state == "mark")
        mark = disk.contents(PATH)[name][offset : offset + FRAME_HEADER_BYTES]
        reads = 0

        def before(operation: Operation, path: str) -> None:
            nonlocal reads
            if operation == "read" and ".seg" in path:
                disk.before = None
                reads += 1
                half = b"\xff" * 20 * (reads == number)
                write_at(disk, name, offset, half + mark[len(half) :])
                disk.before = before

        disk.before = before
        assert reader.last_lsn == 2
        disk.before = None
