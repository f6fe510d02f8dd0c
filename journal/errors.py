"""Every exception of the engine, and the reasons that they carry, for programs to decide by.

It imports next to nothing, so anything may import it. What an error says to people is
made here from its fields, and no other part of the program takes it apart again.
"""

from __future__ import annotations

import copyreg
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from journal._names import file_at
from journal._public import public

_SHOWN_PATH_CHARS = 100  # of each end of a path that is too long for a message


@public
class DamageReason(StrEnum):
    """The rule that a file, or the log as a whole, breaks."""

    HEADER_DAMAGED = "header_damaged"
    """A segment's header does not verify, or holds what no version of the format writes."""

    MISNAMED = "misnamed"
    """A whole file stands under the name of another one."""

    OUT_OF_PLACE = "out_of_place"
    """No log could have this segment where its name puts it. Without the file nothing is lost."""

    FOREIGN = "foreign"
    """A segment or a checkpoint belongs to another journal."""

    EPOCH_ORDER = "epoch_order"
    """A segment of an older epoch follows one of a newer epoch."""

    BEGINNING_MISSING = "beginning_missing"
    """The log begins after the records that the newest checkpoint holds."""

    OVERTAKEN = "overtaken"
    """Compaction kept removing files before a reader had read them. Nothing is damaged: retry."""

    GAP = "gap"
    """Records between two segments are missing."""

    END_MISSING = "end_missing"
    """The log ends before a record that something proves to have been durable."""

    FRAME_DAMAGED = "frame_damaged"
    """A frame does not verify, or no frame stands where one should."""

    FRAME_IMPOSSIBLE = "frame_impossible"
    """A frame verifies, but no writer could have written its header there."""

    RECORD_UNREADABLE = "record_unreadable"
    """A frame verifies, but does not unpack to the records that its header counts."""

    SEGMENT_DAMAGED = "segment_damaged"
    """A segment is damaged: `verify` finds how. Only `foresee` says this, as it reads no file."""

    CHECKPOINT_DAMAGED = "checkpoint_damaged"
    """A checkpoint does not verify."""

    ITEM_UNREADABLE = "item_unreadable"
    """A checkpoint verifies, but one of its items can't be decoded."""

    NEWER_VERSION = "newer_version"
    """A checkpoint was written by a newer version of the format."""

    NUMBERS_EXHAUSTED = "numbers_exhausted"
    """The last LSN or epoch that the format can number is taken."""

    NO_START = "no_start"
    """Neither a checkpoint nor the beginning of the log is left. Only a backup helps."""

    COPY_INCOMPLETE = "copy_incomplete"
    """A backup ends before the LSN up to which it was to be made."""

    UNFINISHED = "unfinished"
    """A crash left it unfinished. Nothing that was acknowledged is missing."""

    CUT_OFF = "cut_off"
    """A repair cut it off, though it was durable."""

    UNSAFE_FILE = "unsafe_file"
    """A checkpoint's name is that of a symlink or a special file, which is not opened."""

    UNKNOWN_FILE = "unknown_file"
    """The file is none of a journal's."""


@public
class FormatReason(StrEnum):
    """The cause of a FormatVersionError."""

    NEWER_VERSION = "newer_version"
    """A newer version of the format wrote the file. Open it with a newer version of the engine."""

    OTHER_APPLICATION = "other_application"
    """The journal is another application's: open it with the program that wrote it."""

    REFUSED = "refused"
    """The state machine's `load` or `apply` refused an item or a record: see the `__cause__`."""


@public
class CutReason(StrEnum):
    """The rule that a cut would break."""

    NO_BATCH_END = "no_batch_end"
    """The LSN is not the last one of a batch among the records that can be kept."""

    AFTER_DAMAGE = "after_damage"
    """The log is damaged before the LSN, and only a later checkpoint covers the damage."""


@public
@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an open refuses a journal, in the fields of the CorruptionError that it would raise.

    `reason` is the rule that is broken, `path`, `offset` and `lsn` are where, and `what` says it in
    words. `header_of`: the name of the segment whose header the file has, if that is not its own.
    `durable_lsn`: the LSN that was durable, where the log ends before it (END_MISSING).
    `journal_id`: of the other journal that the file belongs to.
    """

    reason: DamageReason
    path: str
    offset: int
    lsn: int
    what: str
    header_of: str | None
    durable_lsn: int | None = None
    journal_id: str | None = None


@public
class JournalError(Exception):
    """Base of every error that this package raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        # For pickle and copy: an `__init__` that makes the message takes other arguments than
        # `args`, so what it set is restored instead of calling it.
        state = {**vars(self), "args": self.args}
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]


@public
class NotAJournalError(JournalError):
    """The directory `path` holds no journal: neither a segment, nor a checkpoint, nor a LOCK."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: not a journal: no segment, checkpoint or LOCK in it")
        self.path = path


@public
class LockedError(JournalError, BlockingIOError):
    """Another live writer holds the lock of `path`, a directory; `pid`: its process, if known."""

    def __init__(self, path: str, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"{path}: locked by {holder}; stop it first, or read with JournalReader")
        self.path = path
        self.pid = pid


@public
class CorruptionError(JournalError):
    """What was durable is damaged. Nothing on disk has been changed.

    `path` is the file, in the journal's `directory`; `offset` the byte at which the damage begins,
    `lsn` the first LSN that is lost (0: no record is, or none can be named). `reason` is the rule
    that is broken, `what` says it in words. `header_of`: the name of the segment whose header the
    file has, if that is not its own name. `durable_lsn`: the LSN that was durable, where the log
    ends before it (END_MISSING). `journal_id`: of the other journal that the file belongs to.
    """

    def __init__(
        self,
        path: str,
        offset: int,
        lsn: int,
        what: str,
        *,
        reason: DamageReason,
        header_of: str | None = None,
        durable_lsn: int | None = None,
        journal_id: str | None = None,
        directory: str | None = None,
    ) -> None:
        if directory is None:  # then `path` is a file if its name is a segment's or a checkpoint's
            is_file = file_at(path).kind in ("segment", "checkpoint")
            directory = path.rpartition("/")[0] if is_file else path
        hint = ""
        if reason is DamageReason.NO_START:
            hint = f": restore a backup, or see what is left: journal-inspect log {directory}"
        message = (
            f"{path}: offset {offset}, LSN {lsn}: {what}{hint}; nothing was changed; "
            f"look closer with: journal-inspect verify {directory}"
        )
        if reason is DamageReason.OVERTAKEN:
            message = f"{path}: {what}; nothing is damaged; try again"
        super().__init__(message)
        self.path = path
        self.directory = directory
        self.offset = offset
        self.lsn = lsn
        self.what = what
        self.reason = reason
        self.header_of = header_of
        self.durable_lsn = durable_lsn
        self.journal_id = journal_id

    @property
    def refusal(self) -> Refusal:
        """The error's fields."""
        return Refusal(
            self.reason,
            self.path,
            self.offset,
            self.lsn,
            self.what,
            self.header_of,
            self.durable_lsn,
            self.journal_id,
        )


@public
class FormatVersionError(JournalError):
    """Written by a newer version of the format, or for another application; or a state machine's
    `load` or `apply` raised at open, and what it raised is the `__cause__`.

    `reason` is which of these it is, `path` the file or the journal (None: not known to whoever
    raised it), and `what` says it in words, without the path.
    """

    def __init__(
        self,
        what: str = "",
        *,
        path: str | None = None,
        reason: FormatReason = FormatReason.REFUSED,
    ) -> None:
        super().__init__(what if path is None else f"{path}: {what}")
        self.path = path
        self.what = what
        self.reason = reason


@public
class FailedError(JournalError):
    """A write or a sync failed, and the journal stopped (fail-stop): `__cause__` is the OSError. Or
    an `apply` raised, and its state stopped: then that is the cause.

    Whether records that were not acknowledged survive is unknown until a reopen.
    """


@public
class ClosedError(JournalError):
    """The journal is closed, or was opened by a process of which this one is a fork."""


@public
class InterruptedCallError(JournalError, RuntimeError):
    """A signal handler or a callback made a call that would wait for the call around it, in the
    same thread. It would wait forever, so it did nothing; the outer call goes on.

    Source: journal/docs/HOWTO.md, "Stop on SIGTERM".
    """

    def __init__(
        self,
        message: str = "this thread is already inside a call of the journal, which a signal "
        "handler or a callback can't wait for; nothing was done, and the outer call goes on. In a "
        "handler, raise SystemExit or set a flag, and call the journal after the handler returned",
    ) -> None:
        super().__init__(message)


@public
class BufferFullError(JournalError):
    """The log buffer is at its bound: nothing was appended, no LSN was taken. Wait for room."""


@public
class CompactedError(JournalError):
    """What was asked for is older than what is kept; `first_lsn` is the oldest LSN that is, and
    `lsn` the one that was asked for (None: no particular one)."""

    def __init__(self, message: str, first_lsn: int, *, lsn: int | None = None) -> None:
        super().__init__(message)
        self.first_lsn = first_lsn
        self.lsn = lsn


@public
class CutError(JournalError, ValueError):
    """A repair can't cut the log after the LSN `cut_at`; `reason` is the rule that this breaks.

    `good_lsn` is the last LSN that can be kept. `at_most` and `at_least` are the nearest cuts
    that are possible, below or above (None: there is none to be named on that side).
    """

    def __init__(
        self,
        cut_at: int,
        good_lsn: int,
        *,
        reason: CutReason,
        at_most: int | None = None,
        at_least: int | None = None,
    ) -> None:
        if reason is CutReason.NO_BATCH_END:
            beside = at_most if at_least is None else at_least
            what = (
                f"is no end of a batch in what is good, up to LSN {good_lsn}; "
                f"an end beside it: {beside}"
            )
        else:
            what = (
                "lies behind damage that only a later checkpoint covers; keep "
                f"LSN {at_least} at least, or {at_most} at most"
            )
        super().__init__(f"cut_at={cut_at} {what}")
        self.cut_at = cut_at
        self.good_lsn = good_lsn
        self.reason = reason
        self.at_most = at_most
        self.at_least = at_least


@public
class RecordError(JournalError, ValueError):
    """A record that msgpack can't carry unchanged, or one over a limit."""


@public
class CheckpointItemError(JournalError, ValueError):
    """An item that a checkpoint can't hold unchanged. None was published, and the log goes on.

    `index` is the item's place among those that were frozen, from 0; `item_path` the place inside
    it, as an expression like "['rows'][3]" ("": the item itself); `reason` the rule it breaks.

    Source: journal/docs/FORMAT.md, "Items".
    """

    def __init__(self, index: int, item_path: str, reason: str) -> None:
        shown = item_path
        if len(shown) > 2 * _SHOWN_PATH_CHARS:
            shown = f"{shown[:_SHOWN_PATH_CHARS]} ... {shown[-_SHOWN_PATH_CHARS:]}"
        where = f"item {index} of the checkpoint" + (f", at {shown}" if shown else "")
        super().__init__(f"{where}: {reason}")
        self.index = index
        self.item_path = item_path
        self.reason = reason


@public
class UnsafePathError(JournalError, PermissionError):
    """A symlink, a special file, a foreign owner, a directory that others may write, or a file
    system on which no lock keeps a second writer out.

    `path` is where (None: not known to whoever raised it), `what` says it without the path.
    """

    def __init__(self, what: str = "", *, path: str | None = None) -> None:
        super().__init__(what if path is None else f"{path}: {what}")
        self.path = path
        self.what = what
