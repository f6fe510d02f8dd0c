"""Errors: the exceptions of the engine, with reasons that programs can test.

This module imports almost nothing, so every module may import it. The messages for people are made
here from the fields of the errors. No other part of the program parses them.
"""

from __future__ import annotations

import copyreg
import time
from enum import StrEnum
from typing import Any, NamedTuple

from journal._names import file_at
from journal._public import public

_SHOWN_PATH_CHARS = 100  # shown of each end, if a path is too long for a message


@public
class DamageReason(StrEnum):
    """The rule that a file, or the log as a whole, breaks."""

    HEADER_DAMAGED = "header_damaged"
    """A segment's header does not verify, or contains what no version of the format writes."""

    MISNAMED = "misnamed"
    """An undamaged file has the name of another file."""

    OUT_OF_PLACE = "out_of_place"
    """No log could have this segment where its name puts it. Nothing is lost without the file."""

    FOREIGN = "foreign"
    """A segment or a checkpoint belongs to another journal."""

    EPOCH_ORDER = "epoch_order"
    """A segment of an older epoch follows one of a newer epoch."""

    BEGINNING_MISSING = "beginning_missing"
    """The records between a checkpoint and the beginning of the log are missing."""

    OVERTAKEN = "overtaken"
    """Compaction kept removing files before a reader had read them. Nothing is damaged: retry."""

    GAP = "gap"
    """Records between two segments are missing."""

    END_MISSING = "end_missing"
    """The log ends before a record that was durable, as evidence on disk proves."""

    FRAME_DAMAGED = "frame_damaged"
    """A frame does not verify, or there is no frame where one should be."""

    FRAME_IMPOSSIBLE = "frame_impossible"
    """A frame verifies, but no writer could have written its header there."""

    RECORD_UNREADABLE = "record_unreadable"
    """A frame verifies, but does not unpack to the number of records that its header states."""

    MIRROR_DAMAGED = "mirror_damaged"
    """The file MIRROR can't be read. An open refuses it with a MirrorError."""

    SEGMENT_DAMAGED = "segment_damaged"
    """A segment is damaged. Only `preview_recovery` reports this; `verify` finds the place."""

    CHECKPOINT_DAMAGED = "checkpoint_damaged"
    """A checkpoint does not verify."""

    ITEM_UNREADABLE = "item_unreadable"
    """A checkpoint verifies, but one of its items can't be decoded."""

    NEWER_VERSION = "newer_version"
    """A checkpoint was written by a newer version of the format."""

    NUMBERS_EXHAUSTED = "numbers_exhausted"
    """The highest LSN or epoch of the format is in use, so none is left for the next."""

    NO_START = "no_start"
    """Neither a checkpoint nor the beginning of the log is left. Only a backup helps."""

    COPY_INCOMPLETE = "copy_incomplete"
    """A backup ends before the LSN that it had to reach."""

    UNFINISHED = "unfinished"
    """A crash left a file or a frame unfinished. No acknowledged record is missing."""

    CUT_OFF = "cut_off"
    """A repair cut off records that were durable."""

    UNSAFE_FILE = "unsafe_file"
    """A symlink or a special file has the name of a checkpoint. It is not opened."""

    UNKNOWN_FILE = "unknown_file"
    """The file does not belong to a journal."""


@public
class FormatReason(StrEnum):
    """The cause of a FormatVersionError."""

    NEWER_VERSION = "newer_version"
    """A newer version of the format wrote the file. Open it with a newer version of the engine."""

    OTHER_APPLICATION = "other_application"
    """The journal belongs to another application. Open it with the program that wrote it."""

    REFUSED = "refused"
    """The state machine's `load` or `apply` refused an item or a record. See the `__cause__`."""


@public
class CutReason(StrEnum):
    """The rule that a cut would break."""

    NO_BATCH_END = "no_batch_end"
    """The LSN is not the last one of a batch among the records that can be kept."""

    AFTER_DAMAGE = "after_damage"
    """The log is damaged before the LSN, and only a later checkpoint covers the damage."""


@public
class Refusal(NamedTuple):
    """The reason why an open refuses a journal. Its fields are those of the CorruptionError that
    the open raises. For MIRROR_DAMAGED, the open raises a MirrorError instead."""

    reason: DamageReason
    """The rule that is broken."""

    path: str
    """The damaged file, or the journal's directory."""

    offset: int
    """The offset at which the damage begins, in bytes."""

    lsn: int
    """The first LSN that is lost; 0 if none is lost or none can be named."""

    what: str
    """The damage in words, without the path."""

    header_of: str | None
    """The name of the segment whose header the file has. None if that is its own name."""

    durable_lsn: int | None = None
    """The LSN that was durable although the log ends before it (END_MISSING). None for other
    reasons."""

    journal_id: str | None = None
    """The identity of the other journal that the file belongs to. None if it belongs to this one.
    """


@public
class JournalError(Exception):
    """The base class of all errors of this package."""

    def __reduce__(self) -> tuple[Any, ...]:
        # For pickle and copy. An `__init__` that makes the message takes other arguments than
        # `args`, so the attributes that it set are restored and it is not called.
        state = {**vars(self), "args": self.args}
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]  # untyped


@public
class NotAJournalError(JournalError):
    """The directory contains no journal: neither a segment, nor a checkpoint, nor a LOCK. Or it is
    an incomplete copy of one."""

    path: str
    """The directory."""

    is_incomplete_copy: bool
    """True if a backup or a restore to the directory is under way or was interrupted."""

    def __init__(self, path: str, *, is_incomplete_copy: bool = False) -> None:
        what = "the directory contains no segment, checkpoint or LOCK"
        fix = "give the directory that contains the *.seg files"
        if is_incomplete_copy:
            what = "a copy to this directory, such as a restore, is under way or was interrupted"
            fix = "wait for its end, or repeat it, which replaces the incomplete copy"
        super().__init__(f"{path}: not a journal: {what}; {fix}")
        self.path = path
        self.is_incomplete_copy = is_incomplete_copy


@public
class LockedError(JournalError, BlockingIOError):
    """Another live writer holds the lock of the journal."""

    path: str
    """The directory of the journal."""

    pid: int | None
    """The process ID of the writer. None if it is not known."""

    is_this_process: bool
    """True if this process itself has the journal open already."""

    host: str | None
    """The name of the writer's machine, if it holds the journal's mirror. None if it holds the lock
    of the directory."""

    epoch: int | None
    """The epoch of the writer that holds the mirror. None if it holds the lock of the directory."""

    since: float | None
    """The time at which that writer claimed the mirror, by its own clock, in Unix seconds. None if
    it holds the lock of the directory."""

    def __init__(
        self,
        path: str,
        pid: int | None,
        *,
        is_this_process: bool = False,
        host: str | None = None,
        epoch: int | None = None,
        since: float | None = None,
    ) -> None:
        holder = f"locked by process {pid}" if pid else "locked by another process"
        fix = "stop it first, or read with JournalReader"
        if is_this_process:
            holder = "this process has it open already"
            fix = "use the object that has it open, close it first, or read with JournalReader"
        if host is not None:
            at = utc_text(since or 0.0)
            holder = f"process {pid} on {host} holds its mirror, with epoch {epoch}, since {at}"
            fix = "stop that process; if it is dead, open with takeover=True"
        super().__init__(f"{path}: {holder}; {fix}")
        self.path = path
        self.pid = pid
        self.is_this_process = is_this_process
        self.host = host
        self.epoch = epoch
        self.since = since


@public
class CorruptionError(JournalError):
    """Durable data is damaged. Nothing on disk has been changed."""

    path: str
    """The damaged file, or the journal's directory."""

    directory: str
    """The directory of the journal."""

    offset: int
    """The offset at which the damage begins, in bytes."""

    lsn: int
    """The first LSN that is lost; 0 if none is lost or none can be named."""

    what: str
    """The damage in words, without the path."""

    reason: DamageReason
    """The rule that is broken."""

    header_of: str | None
    """The name of the segment whose header the file has. None if that is its own name."""

    durable_lsn: int | None
    """The LSN that was durable although the log ends before it (END_MISSING). None for other
    reasons."""

    journal_id: str | None
    """The identity of the other journal that the file belongs to. None if it belongs to this one.
    """

    last_lsn: int | None
    """The last LSN of the range from `lsn` on that can't be read, if a whole frame or segment
    follows. Otherwise None: nothing says where the range ends."""

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
        last_lsn: int | None = None,
    ) -> None:
        if directory is None:  # `path` is a file if it has the name of a segment or a checkpoint
            is_file = file_at(path).kind in ("segment", "checkpoint")
            directory = path.rpartition("/")[0] if is_file else path
        hint = ""
        if reason is DamageReason.NO_START:
            hint = f": restore a backup, or show what is left: journal-inspect log {directory}"
        at_lsn = f", LSN {lsn}" if lsn else ""
        message = (
            f"{path}: offset {offset}{at_lsn}: {what}{hint}; nothing was changed; "
            f"to see all damage, run: journal-inspect verify {directory}"
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
        self.last_lsn = last_lsn

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
    """The journal can't be read by this program, although it is not damaged.

    It has a newer format or another application's records, or `load` or `apply` of the state
    machine raised an exception during an open. In the last case, `__cause__` is that exception.
    """

    path: str | None
    """The path of the file or of the journal. None if it is not known."""

    what: str
    """The cause in words, without the path."""

    reason: FormatReason
    """The cause, for programs."""

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
    """The journal or a state stopped, and `__cause__` is the reason.

    A journal stops when a write or a sync fails (fail-stop), and the cause is usually an OSError.
    A state stops when its `apply` raises. Until a reopen, it is unknown whether unacknowledged
    records survive.
    """


@public
class ClosedError(JournalError):
    """The journal is closed, or this process is a fork of the one that opened it."""


@public
class InterruptedCallError(JournalError, RuntimeError):
    """A signal handler or a callback called the journal inside another call of the same thread.

    It would have waited for that outer call forever, so it did nothing. The outer call continues.

    Source: journal/docs/HOWTO.md, "Stop on SIGTERM".
    """

    def __init__(
        self,
        message: str = "this thread is already inside a call of the journal, which a signal "
        "handler or a callback can't wait for; nothing was done, and the outer call continues. In "
        "a callback, use its argument, and call the journal after it has returned. In a handler, "
        "raise SystemExit, or set a flag and call the journal after the handler has returned",
    ) -> None:
        super().__init__(message)


@public
class BufferFullError(JournalError):
    """The log buffer is full. Nothing was appended, and no LSN was taken. Wait for room."""


@public
class CompactedError(JournalError):
    """The requested records are older than the oldest retained ones."""

    first_lsn: int
    """The oldest retained LSN."""

    lsn: int | None
    """The requested LSN. None if no particular one was requested."""

    def __init__(self, message: str, first_lsn: int, *, lsn: int | None = None) -> None:
        super().__init__(message)
        self.first_lsn = first_lsn
        self.lsn = lsn


@public
class ConflictError(JournalError):
    """Another thread or task changed what a transaction or a conditional write depends on. Nothing
    was written: try it again."""

    table: str
    """The name of the table."""

    key: int | str | bytes | tuple[int | str | bytes, ...] | None
    """The key that changed. None if a range was read and rows near it changed."""

    def __init__(
        self, table: str, key: int | str | bytes | tuple[int | str | bytes, ...] | None, what: str
    ) -> None:
        where = f"table {table!r}" + ("" if key is None else f", key {key!r:.200}")
        super().__init__(f"{where}: {what}; nothing was written: try again from a new read")
        self.table = table
        self.key = key


@public
class TransactionTooLargeError(JournalError):
    """The transaction reads or writes more keys than one hold of the lock may check."""


@public
class CutError(JournalError, ValueError):
    """The log can't be cut after the requested LSN."""

    cut_at: int
    """The LSN after which the log was to be cut."""

    good_lsn: int
    """The last LSN that can be kept."""

    reason: CutReason
    """The rule that the cut would break."""

    at_most: int | None
    """The nearest possible cut below `cut_at`. None if there is none."""

    at_least: int | None
    """The nearest possible cut above `cut_at`. None if there is none."""

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
            nearby = " or ".join(str(lsn) for lsn in (at_most, at_least) if lsn is not None)
            problem = (
                f"is not the end of a batch among the good records, up to LSN {good_lsn}; "
                f"cut at LSN {nearby} instead"
            )
        else:
            problem = (
                "lies after damage that only a later checkpoint covers; "
                f"cut at LSN {at_least} or later, or at LSN {at_most} or earlier"
            )
        super().__init__(f"cut_at={cut_at} {problem}")
        self.cut_at = cut_at
        self.good_lsn = good_lsn
        self.reason = reason
        self.at_most = at_most
        self.at_least = at_least


@public
class SavePlaceError(JournalError, PermissionError):
    """A repair can't make a directory for copies of the files that it changes."""

    path: str
    """The directory of the journal."""

    parent: str
    """The directory in which the directory for copies was to be made."""

    def __init__(self, path: str, parent: str) -> None:
        super().__init__(
            f"{parent}: this process may not make a directory there, which a repair needs for "
            "copies of the files that it changes; name another place: "
            f"journal-inspect repair {path} --apply --save-to DIR"
        )
        self.path = path
        self.parent = parent


@public
class RecordError(JournalError, ValueError):
    """A record that msgpack can't carry unchanged, or that exceeds a limit."""


@public
class CheckpointItemError(JournalError, ValueError):
    """A checkpoint can't hold an item unchanged. It was not published, and the log continues.

    Source: journal/docs/FORMAT.md, "Items".
    """

    index: int
    """The item's position among the items that `freeze` returned, from 0."""

    item_path: str
    """The place inside the item, as an expression like "['rows'][3]"; "" for the item itself."""

    reason: str
    """The rule that the item breaks, in words."""

    def __init__(self, index: int, item_path: str, reason: str) -> None:
        short_path = item_path
        if len(item_path) > 2 * _SHOWN_PATH_CHARS:
            short_path = f"{item_path[:_SHOWN_PATH_CHARS]} ... {item_path[-_SHOWN_PATH_CHARS:]}"
        place = f"item {index} of the checkpoint" + (f", at {short_path}" if short_path else "")
        super().__init__(f"{place}: {reason}")
        self.index = index
        self.item_path = item_path
        self.reason = reason


@public
class UnsafePathError(JournalError, PermissionError):
    """The path is not safe to open: a symlink, a special file, a file of another owner, a directory
    that others may write to, or a file system whose locks do not keep a second writer out."""

    path: str | None
    """The path. None if it is not known."""

    what: str
    """The problem in words, without the path."""

    def __init__(self, what: str = "", *, path: str | None = None) -> None:
        super().__init__(what if path is None else f"{path}: {what}")
        self.path = path
        self.what = what


def utc_text(seconds: float) -> str:
    """Return a time in Unix seconds as text, whatever clock it is from."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s"
