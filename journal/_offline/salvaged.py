"""Salvaged: a journal of salvaged records, and where they were before.

A salvaged record gets a new LSN, because a log has no gaps and no LSN twice. The file SALVAGED in
the same directory says which LSN it had, and in which frame of which segment. It is written last,
so it makes the salvage complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from journal._disk.disk import Directory, Disk, StrPath
from journal._disk.posix import disk_or_default
from journal._format.record import Record
from journal._names import SALVAGED
from journal._offline.reader import readable
from journal._offline.statement import read_statement, write_statement
from journal._public import public
from journal._recovery.walk import ReplayBatch
from journal.errors import JournalError

_VERSION = 1


class SalvagedFrame(NamedTuple):
    """The place from which the records of one frame were salvaged.

    first_lsn and last_lsn: the LSNs that they had. epoch, name and offset: those of the segment and
    of the frame in it. written_at_ns: when the frame was written. is_lost: False if an open after a
    crash has cut the frame off, so that its records were never acknowledged.
    """

    first_lsn: int
    last_lsn: int
    epoch: int
    name: str
    offset: int
    written_at_ns: int
    is_lost: bool

    @property
    def identity(self) -> tuple[int, int, int]:
        """The values that no other frame of the same journal has."""
        return self.epoch, self.first_lsn, self.last_lsn

    @classmethod
    def of(cls, batch: ReplayBatch, *, is_lost: bool) -> SalvagedFrame:
        """Return the place of a batch of one frame."""
        name = batch.path.rpartition("/")[2]
        offset = batch.offset_of(batch.last_lsn)
        lsns = batch.first_lsn, batch.last_lsn
        return cls(*lsns, batch.epoch, name, offset, batch.written_at_ns, is_lost)


class Salvaged(NamedTuple):
    """A complete salvage.

    path: its directory. origin and journal_id: the path and the id of the journal whose records it
    has. frames: the places of the records, in their order.

    appended_after: the last LSN of that journal before the records were appended to it again; None
    until that begins. appended_last: the LSN of the last of them; None until that is done.
    """

    path: str
    origin: str
    journal_id: str
    frames: list[SalvagedFrame]
    appended_after: int | None = None
    appended_last: int | None = None


@public
@dataclass(frozen=True, slots=True)
class SalvagedRecord:
    """A record that a repair has salvaged, and its place in the damaged journal."""

    record: Record
    """The value of the record."""

    lsn: int
    """The LSN that it had in the damaged journal."""

    salvaged_lsn: int
    """The LSN that it has in the journal of salvaged records."""

    written_at_ns: int
    """The time at which it was written first, in Unix nanoseconds."""

    path: str
    """The path that its segment had."""

    offset: int
    """The offset of its frame in that segment, in bytes."""

    is_lost: bool
    """False if an open after a crash has cut it off. Then it was never acknowledged, and its
    program may have written it again since. `put_back` leaves it out."""


@public
def read_salvaged(path: StrPath, *, disk: Disk | None = None) -> Iterator[SalvagedRecord]:
    """Yield the records of `path`, which is `RepairReport.salvaged_to`, in the order of their
    frames, with the LSNs and the times that they had.

    Raises JournalError if no repair has made `path`, and CorruptionError if it is damaged.
    """
    directory = disk_or_default(disk).open_directory(path, write=False)
    try:
        salvaged, salvaged_lsn = read_origin(directory), 0
        for frame, records in frames_of(directory, salvaged):
            for lsn, record in enumerate(records, frame.first_lsn):
                salvaged_lsn += 1
                place = f"{salvaged.origin}/{frame.name}", frame.offset
                facts = salvaged_lsn, frame.written_at_ns, *place, frame.is_lost
                yield SalvagedRecord(record, lsn, *facts)
    finally:
        directory.close(unlock=False)


def frames_of(
    directory: Directory, salvaged: Salvaged
) -> Iterator[tuple[SalvagedFrame, list[Record]]]:
    """Yield the place and the records of each frame. Raises JournalError if others are there."""
    written = (frame for batch in readable(directory, None) for frame in batch.frames())
    for frame in salvaged.frames:
        *_, records = next(written, (0, 0, 0, []))
        if len(records) != frame.last_lsn - frame.first_lsn + 1:
            raise JournalError(f"{salvaged.path}: it has other records than {SALVAGED} states")
        yield frame, list(records)


def read_origin(directory: Directory) -> Salvaged:
    """Return the statement of a directory about its records. Raises JournalError unless a repair
    has completed it."""
    try:
        origin, journal_id, frames, *rest = read_statement(directory, SALVAGED, _VERSION)
        places = [SalvagedFrame(*frame) for frame in frames]
        return Salvaged(directory.path, origin, journal_id, places, *rest)
    except FileNotFoundError:
        raise JournalError(
            f"{directory.path}: not a complete salvage: the file {SALVAGED} is missing; give a "
            "directory named PATH.salvaged-NUMBER"
        ) from None
    except (TypeError, ValueError) as error:
        raise JournalError(f"{directory.path}/{SALVAGED}: it is damaged: {error}") from error


def write_origin(directory: Directory, salvaged: Salvaged) -> None:
    """Write or replace the statement of a directory about its records, durably."""
    write_statement(directory, SALVAGED, _VERSION, salvaged._asdict())
