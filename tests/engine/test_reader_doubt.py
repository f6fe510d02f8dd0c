"""A reader beside a writer: what changes while it is read is looked at twice, and then believed."""

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
WINDOW_BYTES = 256 * KIB  # what a reader takes in at once


@contextmanager
def long_log(disk: SimulatedDisk) -> Iterator[Journal]:
    """One record, and 60 KiB in front of where a reader's second window begins."""
    with open_on(disk, segment_bytes=1 << 20) as journal:
        put(journal, b"x" * (WINDOW_BYTES - 60 * KIB))
        yield journal


def amid_the_read(disk: SimulatedDisk, act: Callable[[], object]) -> list[int]:
    """Have `act` done once, before the second read of a segment's frames."""
    reads: list[int] = []

    def before(operation: Operation, path: str) -> None:
        if operation == "read" and ".seg" in path:
            reads.append(len(reads))
            if len(reads) == 3:  # of the segment: its header, a window, and this
                disk.before = None
                act()

    disk.before = before
    return reads


def commits(journal: Journal) -> Callable[[], object]:
    """A frame over the border of the windows, and a later one that says it was durable."""
    return lambda: put(journal, b"y" * 100 * KIB, b"z")


class CommitsAt:
    """Called before each operation: commits as `commits` does, more than a window at a time, before
    the reads of a segment that have these numbers."""

    def __init__(self, journal: Journal, numbers: set[int]) -> None:
        self._journal = journal
        self._numbers = numbers
        self._reads = 0

    def __call__(self, operation: Operation, path: str) -> None:
        self._reads += operation == "read" and ".seg" in path
        if self._reads in self._numbers:
            self._numbers.remove(self._reads)
            put(self._journal, b"y" * 300 * KIB, b"z")


@pytest.mark.parametrize("look", ["entries", "verify", "segments"])
def test_half_of_a_commit_is_no_damage(disk: SimulatedDisk, look: str) -> None:
    """P4: who has read the place of a frame before it was written, and what testifies for it after,
    sees damage to something durable: until a second look."""
    with long_log(disk) as journal, JournalReader.open(PATH, disk=disk) as reader:
        reads = amid_the_read(disk, commits(journal))
        if look == "entries":
            assert [entry.record[:1] for entry in reader.entries()][:2] == [b"x", b"y"]
        elif look == "verify":
            assert list(reader.verify()) == []
        else:
            assert [info.state for info in reader.segments()] == ["active"]
        assert len(reads) == 3
        assert journal.durable_lsn == 3


@pytest.mark.parametrize("first", range(5, 11))
def test_a_commit_seen_half_written_twice_is_no_damage(first: int) -> None:
    """P4: a log that goes on may look bad here at one look and there at the next one: whichever
    two reads it is before which something is committed."""
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
    """P4: what is bad both times is damage, with its place, though the writer lives and goes on."""
    with long_log(disk) as journal, JournalReader.open(PATH, disk=disk) as reader:

        def damage() -> None:
            commits(journal)()
            write_at(disk, names(disk, ".seg")[0], WINDOW_BYTES - 60 * KIB + 200, b"\xff" * 60)

        amid_the_read(disk, damage)
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
    """P2: what was once shown to be durable is, at each step from one segment to the next."""
    with open_on(disk) as journal, JournalReader.open(PATH, disk=disk) as reader:
        put(journal, 1, sized(3000))
        until(lambda: reader.last_lsn == 2, "the mark")
        steps: list[tuple[Operation, int]] = []

        def look(operation: Operation, path: str) -> None:
            disk.before = None
            steps.append((operation, reader.last_lsn))
            disk.before = look

        disk.before = look
        put(journal, sized(3000))
        disk.before = None
    assert len(names(disk, ".seg")) == 2
    assert "rename" in [operation for operation, _ in steps]
    assert [step for step in steps if step[1] < 2] == []


@pytest.mark.parametrize("number", range(1, 7))
def test_the_durable_lsn_does_not_fall_while_a_mark_is_overwritten(
    disk: SimulatedDisk, number: int
) -> None:
    """P2: the next frame's header, over two pages of the system's, may be seen half written."""
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
