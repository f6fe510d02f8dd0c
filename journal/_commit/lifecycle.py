"""Lifecycle: whether the journal takes records, and if not, why."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import partial

from journal._log import shown
from journal.errors import ClosedError, FailedError, JournalError

_closed = partial(ClosedError, "the journal is closed; open it again")
_forked = partial(
    ClosedError,
    "this process is a fork of the one that opened the journal; send the records to that process, "
    "or open another journal here",
)


class Lifecycle:
    """The journal's state as callers see it: open, closing, failed or forked.

    It changes under the log buffer's lock, except in `close` and `abandon`. `refusal` is None, or a
    function that makes the error for an append. It is one reference, so it may be read without the
    lock.
    """

    def __init__(self) -> None:
        self.refusal: Callable[[], JournalError] | None = None
        self.failure: BaseException | None = None
        self.closing = self.ended = False

    def check(self) -> None:
        """Raise what an append would raise."""
        if self.refusal is not None:
            raise self.refusal()

    def error(self) -> JournalError:
        """Return the error for a caller whose record is not durable and never will be."""
        if self.failure is None:
            return _closed()
        if isinstance(self.failure, FailedError) and type(self.failure) is not FailedError:
            return copy(self.failure)  # it has all facts, such as the writer that has taken over
        error = FailedError(
            f"the journal stopped: {in_words(self.failure)}; unacknowledged records may or may not "
            "survive. Close the journal, fix the cause, and reopen it"
        )
        error.__cause__ = self.failure.__cause__ or self.failure
        return error

    def close(self) -> None:
        """Take no more records. Those already appended are still committed."""
        self.closing = True
        if self.refusal is None:
            self.refusal = _closed

    def fail(self, error: BaseException) -> None:
        """Stop the journal (fail-stop): nothing more is taken or committed."""
        self.failure = error
        self.refusal = self.error

    def end(self) -> None:
        """Note that the flusher has ended, for whatever reason: nothing more is committed."""
        self.ended = True
        if self.refusal is None:
            self.fail(RuntimeError("the flusher thread ended"))

    @property
    def abandoned(self) -> bool:
        """True in a forked child."""
        return self.refusal is _forked

    def abandon(self) -> None:
        """Refuse every call, in a forked child."""
        self.closing = False
        self.failure = None
        self.refusal = _forked


def in_words(failure: BaseException) -> str:
    """Return what a failure says. Some say nothing, such as the interpreter's MemoryError."""
    return str(failure) or shown(failure)
