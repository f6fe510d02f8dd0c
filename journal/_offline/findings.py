"""Findings of `verify`, and the pieces of a segment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from journal._format.record import Record
from journal._names import JournalFile, file_at
from journal._public import public
from journal.errors import CorruptionError, DamageReason


@public
@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `verify` has to say of the file `path`, from byte `offset` on.

    `size_bytes` counts what can't be used; `lsn` is the first that is lost (0: none, or none can
    be named). `kind`: "torn_tail" is what a crash left unfinished, "corruption" damage to what was
    durable, "bad_checkpoint" one that does not verify, "stray" a file that is not
    the journal's, or was never finished. `message` says it to people, `reason` to programs.
    `header_of`: the name of the segment whose header the file has, if that is not its own name.
    `durable_lsn`: the LSN that was durable, where the log ends before it (END_MISSING, CUT_OFF).
    `journal_id`: of the other journal that the file belongs to.
    """

    kind: Literal["torn_tail", "corruption", "bad_checkpoint", "stray"]
    path: str
    offset: int
    lsn: int
    size_bytes: int
    message: str
    reason: DamageReason
    header_of: str | None = None
    durable_lsn: int | None = None
    journal_id: str | None = None

    @property
    def file(self) -> JournalFile:
        """Return what the file's name tells."""
        return file_at(self.path)

    def as_error(self) -> CorruptionError:
        """Return it as the error that an open would raise for it."""
        return CorruptionError(
            self.path,
            self.offset,
            self.lsn,
            self.message,
            reason=self.reason,
            header_of=self.header_of,
            durable_lsn=self.durable_lsn,
            journal_id=self.journal_id,
            # A stray file may have any name, so the name does not tell that it is a file.
            directory=self.path.rpartition("/")[0] if self.kind == "stray" else None,
        )


@public
@dataclass(frozen=True, slots=True)
class FrameInfo:
    """A piece of the segment `path`, of `epoch`: `size_bytes` from byte `offset` on.

    `state`: "log", a frame that the log goes through; "mark", which tells what was durable;
    "cut", a whole frame or mark behind the place where the next segment goes on; "dead", a whole
    frame that can't be reached, behind damage; "damaged", a whole header whose payload is not;
    "garbage", bytes that are no frame, of which no more than that is told.

    As its header says: `first_lsn`, `count` of records, `durable_lsn`, `written_at_ns` (Unix
    nanoseconds), `payload_crc`, `header_crc`. `records` is None unless they are whole.
    """

    path: str
    epoch: int
    offset: int
    size_bytes: int
    state: Literal["log", "mark", "cut", "dead", "damaged", "garbage"]
    first_lsn: int = 0
    count: int = 0
    durable_lsn: int = 0
    written_at_ns: int = 0
    header_crc: int = 0
    payload_crc: int = 0
    records: list[Record] | None = None

    @property
    def file(self) -> JournalFile:
        """Return what the segment's name tells."""
        return file_at(self.path)

    @property
    def last_lsn(self) -> int:
        """Return the LSN of its last record; a mark's is that of the last record before it."""
        return self.first_lsn + self.count - 1
