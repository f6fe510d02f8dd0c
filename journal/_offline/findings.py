"""Findings: the problems that `verify` reports, and the pieces of a segment that `frames` lists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from journal._format.record import Record
from journal._names import JournalFile, file_at
from journal._public import public
from journal.errors import CorruptionError, DamageReason


@public
@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that `verify` found in a file."""

    kind: Literal["torn_tail", "corruption", "bad_checkpoint", "stray"]
    """The kind of problem: "torn_tail" for a tail that a crash left unfinished or a repair cut off,
    "corruption" for damage to durable data, "bad_checkpoint" for a checkpoint that does not verify,
    and "stray" for a file that does not belong to the journal or was never finished."""

    path: str
    """The path of the file."""

    offset: int
    """The offset in the file at which the problem begins, in bytes."""

    lsn: int
    """The first LSN that is lost; 0 if none is lost or none can be named."""

    size_bytes: int
    """The number of bytes that can't be used."""

    message: str
    """The problem in words, for people."""

    reason: DamageReason
    """The rule that the file breaks, for programs."""

    header_of: str | None = None
    """The name of the segment whose header the file has. None if that is its own name."""

    durable_lsn: int | None = None
    """The LSN that was durable although the log ends before it (END_MISSING, CUT_OFF). None for
    other reasons."""

    journal_id: str | None = None
    """The identity of the other journal that the file belongs to. None if it belongs to this one.
    """

    last_lsn: int | None = None
    """The last LSN of the range from `lsn` on that can't be read, if a whole frame or segment
    follows. Otherwise None."""

    @property
    def file(self) -> JournalFile:
        """The file, as its name describes it."""
        return file_at(self.path)

    def as_error(self) -> CorruptionError:
        """Return the finding as an error, such as an open would raise."""
        return CorruptionError(
            self.path,
            self.offset,
            self.lsn,
            self.message,
            reason=self.reason,
            header_of=self.header_of,
            durable_lsn=self.durable_lsn,
            journal_id=self.journal_id,
            last_lsn=self.last_lsn,
            # A stray file may have any name, so its name does not show that it is a file.
            directory=self.path.rpartition("/")[0] if self.kind == "stray" else None,
        )


@public
@dataclass(frozen=True, slots=True)
class FrameInfo:
    """A piece of a segment: a frame, a mark, or bytes that are neither."""

    path: str
    """The path of the segment."""

    epoch: int
    """The segment's epoch."""

    offset: int
    """The offset of the piece in the segment, in bytes."""

    size_bytes: int
    """The size of the piece in bytes."""

    state: Literal["log", "mark", "cut", "dead", "damaged", "garbage"]
    """The kind of piece: "log" for a frame that belongs to the log, "mark" for a mark, which states
    the durable LSN, "cut" for a whole frame or mark after the point where the next segment
    continues the log, "dead" for a whole frame that can't be reached because damage precedes it,
    "damaged" for a valid header whose payload is damaged, and "garbage" for bytes that are
    not a frame. The fields below are 0 for garbage."""

    first_lsn: int = 0
    """The LSN of the first record, from the header."""

    count: int = 0
    """The number of records, from the header."""

    durable_lsn: int = 0
    """The LSN that was durable when the piece was written, from the header."""

    written_at_ns: int = 0
    """The time at which the piece was written, in Unix nanoseconds, from the header."""

    header_crc: int = 0
    """The CRC32C of the header, as stored in it."""

    payload_crc: int = 0
    """The CRC32C of the payload, as stored in the header."""

    records: Sequence[Record] | None = None
    """The records, or None unless they are whole. Those of a large frame are decoded one at a time,
    whenever they are iterated over."""

    @property
    def file(self) -> JournalFile:
        """The segment, as its name describes it."""
        return file_at(self.path)

    @property
    def last_lsn(self) -> int:
        """The LSN of the last record. For a mark, this is the last record before it."""
        return self.first_lsn + self.count - 1
