"""The disk of the recovery model: what the running system reads, and what a power cut may leave.

A segment is a row of slots, each of which holds one frame or one mark. A slot knows its content as
the running system reads it, and every content that a power cut may leave there. The same is known
of the directory: the names that exist now, and those that are synced.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress, product, zip_longest
from typing import Literal, NamedTuple


class Cell(NamedTuple):
    """The content of a slot.

    kind: a frame, a mark, only the header of a frame, or garbage, which does not parse.
    first: the LSN of the first record; for a mark, the next LSN.
    durable: the durable LSN that the header states.
    commit: the first LSN of the commit that wrote the frame. Recovery does not see it.
    """

    kind: Literal["frame", "mark", "header", "garbage"]
    first: int = 0
    records: tuple[int, ...] = ()
    durable: int = 0
    commit: int = 0


class Slot(NamedTuple):
    """One place of a segment.

    now: what reading gives; left: what a power cut may leave. One content alone needs no sync.
    """

    now: Cell
    left: tuple[Cell, ...]


GARBAGE = Cell("garbage")
EMPTY = Slot(GARBAGE, (GARBAGE,))

Slots = tuple[Slot, ...]


class Entry(NamedTuple):
    """A name in the directory. That of a checkpoint stands for its content too, which was synced
    before it got its name."""

    kind: Literal["segment", "checkpoint"]
    lsn: int
    epoch: int = 0
    records: tuple[int, ...] = ()
    verifies: bool = True


class Segment(NamedTuple):
    """A log file: its first LSN, its epoch, and what is in it."""

    first: int
    epoch: int
    slots: Slots = ()

    @property
    def name(self) -> Entry:
        return Entry("segment", self.first, self.epoch)


class Disk(NamedTuple):
    """The directory. `segments` are in the order of their names, and contain those without a name
    too, which a power cut may bring back."""

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
        """Yield every disk that a power cut may leave: any subset of the unsynced names, and in
        each slot any content that may be left."""
        certain, doubtful = self.names & self.synced_names, sorted(self.names ^ self.synced_names)
        for kept in product((False, True), repeat=len(doubtful)):
            names = certain | set(compress(doubtful, kept))
            found = [s for s in self.segments if s.name in names]
            for contents in product(*(contents_left(s.slots) for s in found)):
                pairs = zip(found, contents, strict=True)
                yield Disk(tuple(s._replace(slots=slots) for s, slots in pairs), names, names)


def checkpoints(names: frozenset[Entry]) -> list[Entry]:
    """Return the checkpoints among `names`, in LSN order."""
    return sorted(name for name in names if name.kind == "checkpoint")


def with_next(segments: tuple[Segment, ...]) -> Iterator[tuple[Segment, Segment | None]]:
    """Yield each segment with the one after it, and the last one with None."""
    return zip_longest(segments, segments[1:])


def covered(disk: Disk, lsn: int) -> frozenset[Entry]:
    """Return the names that the checkpoint at `lsn`, the older of the two kept, makes needless."""
    ended = {s.name for s, after in with_next(disk.visible) if after and after.first - 1 <= lsn}
    return frozenset(ended | {name for name in disk.checkpoints if name.lsn < lsn})


def write(slots: Slots, at: int, cell: Cell) -> Slots:
    """Write a frame or mark. Until a sync, the disk holds the old bytes, the new ones, or a mix."""
    old = slots[at] if at < len(slots) else EMPTY
    mixed = {GARBAGE, cell._replace(kind="header")} if cell.kind == "frame" else {GARBAGE}
    return (*slots[:at], Slot(cell, tuple(sorted({*old.left, cell} | mixed))), *slots[at + 1 :])


def sync(slots: Slots) -> Slots:
    """Write out what is dirty. What a failed sync marked clean is not, and stays as it is."""
    return tuple(Slot(slot.now, (slot.now,)) if len(slot.left) > 1 else slot for slot in slots)


def after_failed_sync(slots: Slots) -> Iterator[Slots]:
    """Yield each result of a failed sync: all reads as written and counts as clean, but the disk
    holds any subset of it. Yield nothing if there was nothing to sync."""
    if sync(slots) != slots:
        for left in product(*(slot.left for slot in slots)):
            yield tuple(Slot(s.now, (cell,)) for s, cell in zip(slots, left, strict=True))


def drop_pages(slots: Slots) -> Slots:
    """Let reads give what the disk has, for all pages that are clean."""
    return trim(tuple(Slot(s.left[0], s.left) if len(s.left) == 1 else s for s in slots))


def contents_left(slots: Slots) -> list[Slots]:
    """Return each content of a segment that a power cut may leave."""
    every = product(*(slot.left for slot in slots))
    return [trim(tuple(Slot(cell, (cell,)) for cell in cells)) for cells in every]


def trim(slots: Slots) -> Slots:
    """Return the slots without those at the end that never were written."""
    while slots and slots[-1] == EMPTY:
        slots = slots[:-1]
    return slots
