"""The disk of the recovery model: the contents now, and those that a power cut may leave.

A segment is a sequence of slots, each of which holds one frame or one mark. A slot has its content
as the running system reads it, and every content that a power cut may leave there. The directory
has the names that exist now, and those that are synced.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress, product, zip_longest
from typing import Literal, NamedTuple


class Cell(NamedTuple):
    """The content of a slot.

    kind: a frame, a mark, only the header of a frame, or garbage, which does not parse.
    first: the LSN of the first record; for a mark, the next LSN.
    records: the records of a frame, each as a number.
    durable: the durable LSN that the header states.
    commit: the first LSN of the commit that wrote the frame. Recovery does not use it.
    oldest: the first LSN of the oldest commit that was in flight then. Recovery does not use it.
    """

    kind: Literal["frame", "mark", "header", "garbage"]
    first: int = 0
    records: tuple[int, ...] = ()
    durable: int = 0
    commit: int = 0
    oldest: int = 0


class Slot(NamedTuple):
    """A place in a segment.

    now: the content that a read returns.
    possible: the contents that a power cut may leave. If there is only one, the slot needs no sync.
    """

    now: Cell
    possible: tuple[Cell, ...]


GARBAGE = Cell("garbage")
EMPTY = Slot(GARBAGE, (GARBAGE,))

Slots = tuple[Slot, ...]


class Entry(NamedTuple):
    """A name in the directory.

    The entry of a checkpoint includes its content, because that was synced before the rename.
    """

    kind: Literal["segment", "checkpoint"]
    lsn: int
    epoch: int = 0
    records: tuple[int, ...] = ()
    verifies: bool = True


class Segment(NamedTuple):
    """A log file: its first LSN, its epoch, and its slots."""

    first: int
    epoch: int
    slots: Slots = ()

    @property
    def name(self) -> Entry:
        return Entry("segment", self.first, self.epoch)


class Disk(NamedTuple):
    """The directory and its segments, in the order of their names.

    `segments` includes those without a name, because a power cut may undo an unsynced removal.
    """

    segments: tuple[Segment, ...] = ()
    names: frozenset[Entry] = frozenset()
    synced_names: frozenset[Entry] = frozenset()

    @property
    def visible(self) -> tuple[Segment, ...]:
        """The segments that have a name now."""
        return tuple(s for s in self.segments if s.name in self.names)

    @property
    def checkpoints(self) -> list[Entry]:
        """The checkpoints that have a name now, in LSN order."""
        return checkpoints(self.names)

    def with_slots(self, segment: Segment, slots: Slots) -> Disk:
        """Return the disk with other content in one segment."""
        segments = (s._replace(slots=slots) if s is segment else s for s in self.segments)
        return self._replace(segments=tuple(segments))

    def with_synced_names(self) -> Disk:
        """Return the disk after a sync of the directory."""
        return Disk(self.visible, self.names, self.names)

    def without(self, names: frozenset[Entry]) -> Disk:
        """Return the disk after a removal that is not synced yet."""
        return self._replace(names=self.names - names)

    def after_power_cut(self) -> Iterator[Disk]:
        """Yield every disk that a power cut may leave.

        Any subset of the unsynced names may exist, and each slot may have any content that may be
        left.
        """
        certain, doubtful = self.names & self.synced_names, sorted(self.names ^ self.synced_names)
        for kept in product((False, True), repeat=len(doubtful)):
            names = certain | set(compress(doubtful, kept))
            segments = [s for s in self.segments if s.name in names]
            for contents in product(*(contents_after_power_cut(s.slots) for s in segments)):
                pairs = zip(segments, contents, strict=True)
                yield Disk(tuple(s._replace(slots=slots) for s, slots in pairs), names, names)


def checkpoints(names: frozenset[Entry]) -> list[Entry]:
    """Return the checkpoints among `names`, in LSN order."""
    return sorted(name for name in names if name.kind == "checkpoint")


def with_next(segments: tuple[Segment, ...]) -> Iterator[tuple[Segment, Segment | None]]:
    """Yield each segment with the one after it, and the last one with None."""
    return zip_longest(segments, segments[1:])


def covered(disk: Disk, lsn: int) -> frozenset[Entry]:
    """Return the names that no open needs if the older of the two checkpoints kept is at `lsn`."""
    ended = {s.name for s, after in with_next(disk.visible) if after and after.first - 1 <= lsn}
    return frozenset(ended | {name for name in disk.checkpoints if name.lsn < lsn})


def write(slots: Slots, at: int, cell: Cell) -> Slots:
    """Write a frame or mark. Until a sync, the disk has the old bytes, the new ones, or a mix."""
    old = slots[at] if at < len(slots) else EMPTY
    mixed = {GARBAGE, cell._replace(kind="header")} if cell.kind == "frame" else {GARBAGE}
    return (*slots[:at], Slot(cell, tuple(sorted({*old.possible, cell} | mixed))), *slots[at + 1 :])


def sync(slots: Slots) -> Slots:
    """Store the dirty slots. Slots that a failed sync marked clean keep what is on the disk."""
    return tuple(Slot(slot.now, (slot.now,)) if len(slot.possible) > 1 else slot for slot in slots)


def after_failed_sync(slots: Slots) -> Iterator[Slots]:
    """Yield each result of a failed sync, or nothing if no slot was dirty.

    All slots read as written and are marked clean, but the disk has any subset of the writes.
    """
    if sync(slots) != slots:
        for contents in product(*(slot.possible for slot in slots)):
            yield tuple(Slot(s.now, (cell,)) for s, cell in zip(slots, contents, strict=True))


def drop_pages(slots: Slots) -> Slots:
    """Drop the clean pages, so that reads return what is on the disk."""
    return trim(
        tuple(Slot(s.possible[0], s.possible) if len(s.possible) == 1 else s for s in slots)
    )


def contents_after_power_cut(slots: Slots) -> list[Slots]:
    """Return each content of a segment that a power cut may leave."""
    combinations = product(*(slot.possible for slot in slots))
    return [trim(tuple(Slot(cell, (cell,)) for cell in cells)) for cells in combinations]


def trim(slots: Slots) -> Slots:
    """Return the slots without those at the end that were never written."""
    while slots and slots[-1] == EMPTY:
        slots = slots[:-1]
    return slots
