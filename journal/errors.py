"""Every exception of the engine. A leaf: imports nothing, so anything may import it."""

from __future__ import annotations

_SHOWN_PATH_CHARS = 100  # of each end of a path that is too long for a message


class JournalError(Exception):
    """Base of every error that this package raises on purpose."""


class LockedError(JournalError, BlockingIOError):
    """Another live writer holds the lock of `path`, a directory; `pid`: its process, if known."""

    def __init__(self, path: str, pid: int | None) -> None:
        holder = f"process {pid}" if pid else "another process"
        super().__init__(f"{path}: locked by {holder}; stop it first, or read with JournalReader")
        self.path = path
        self.pid = pid


class CorruptionError(JournalError):
    """What was durable is damaged. Nothing on disk has been changed.

    `path` is the file, `offset` the byte at which the damage begins, `lsn` the first LSN
    that is lost (0: no record is, or none can be named), `what` the damage in words.
    """

    def __init__(self, path: str, offset: int, lsn: int, what: str) -> None:
        is_file = path.endswith((".seg", ".json"))
        directory = path.rpartition("/")[0] if is_file else path
        super().__init__(
            f"{path}: offset {offset}, LSN {lsn}: {what}; nothing was changed; "
            f"look closer with: journal-inspect verify {directory}"
        )
        self.path = path
        self.offset = offset
        self.lsn = lsn
        self.what = what


class FormatVersionError(JournalError):
    """Written by a newer version of the format, or for another application; or a state machine's
    `load` or `apply` raised at open, and what it raised is the `__cause__`."""


class FailedError(JournalError):
    """A write or a sync failed, and the journal stopped (fail-stop): `__cause__` is the OSError. Or
    an `apply` raised, and its state stopped: then that is the cause.

    Whether records that were not acknowledged survive is unknown until a reopen.
    """


class ClosedError(JournalError):
    """The journal is closed, or was opened by a process of which this one is a fork."""


class InterruptedCallError(JournalError, RuntimeError):
    """A signal handler or a callback made a call that would wait for the call around it, in the
    same thread. It would wait forever, so it did nothing; the outer call goes on.

    Source: journal/HOWTO.md, "Stop on SIGTERM".
    """

    def __init__(
        self,
        message: str = "this thread is already inside a call of the journal, which a signal "
        "handler or a callback can't wait for; nothing was done, and the outer call goes on. In a "
        "handler, raise SystemExit or set a flag, and call the journal after the handler returned",
    ) -> None:
        super().__init__(message)


class BufferFullError(JournalError):
    """The log buffer is at its bound: nothing was appended, no LSN was taken. Wait for room."""


class CompactedError(JournalError):
    """What was asked for is older than what is kept; `first_lsn` is the oldest LSN that is."""

    def __init__(self, message: str, first_lsn: int) -> None:
        super().__init__(message)
        self.first_lsn = first_lsn


class RecordError(JournalError, ValueError):
    """A record that msgpack can't carry unchanged, or one over a limit."""


class CheckpointItemError(JournalError, ValueError):
    """An item that a checkpoint can't hold unchanged. None was published, and the log goes on.

    `index` is the item's place among those that were frozen, from 0; `item_path` the place inside
    it, as an expression like "['rows'][3]" ("": the item itself); `reason` the rule it breaks.

    Source: journal/FORMAT.md, "Items".
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


class UnsafePathError(JournalError, PermissionError):
    """A symlink, a special file, a foreign owner, a directory that others may write, or a file
    system on which no lock keeps a second writer out."""
