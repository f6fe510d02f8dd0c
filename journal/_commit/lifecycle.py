"""Lifecycle: whether the journal takes records; and if it does not, why."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from journal.errors import ClosedError, FailedError, JournalError

_closed = partial(ClosedError, "the journal is closed; open it again")
_forked = partial(ClosedError, "the journal belongs to the parent process; open it after the fork")


class Lifecycle:
    """The journal as callers see it: open, closing, failed or forked.

    Changed under the log buffer's lock, except by `close` and `abandon`. `refusal` is one
    reference that may be read without it: None, or what makes the error for an append."""

    def __init__(self) -> None:
        self.refusal: Callable[[], JournalError] | None = None
        self.failure: BaseException | None = None
        self.closing = self.ended = False

    def check(self) -> None:
        """Raise what an append would raise."""
        if self.refusal is not None:
            raise self.refusal()

    def error(self) -> JournalError:
        """Return what to raise to a caller whose record is not durable and never will be."""
        if self.failure is None:
            return _closed()
        error = FailedError(
            f"the journal stopped: {self.failure}; what was not acknowledged may or may not "
            "survive: close it, fix the cause, and reopen it"
        )
        error.__cause__ = self.failure.__cause__ or self.failure
        return error

    def close(self) -> None:
        """Take no more records; those already appended are still committed."""
        self.closing = True
        if self.refusal is None:
            self.refusal = _closed

    def fail(self, error: BaseException) -> None:
        """Fail-stop: nothing more is taken, or committed."""
        self.failure = error
        self.refusal = self.error

    def end(self) -> None:
        """Note that the flusher has ended, whatever ended it: nothing more is committed."""
        self.ended = True
        if self.refusal is None:
            self.fail(RuntimeError("the flusher thread ended"))

    @property
    def abandoned(self) -> bool:
        """Return whether this is a forked child."""
        return self.refusal is _forked

    def abandon(self) -> None:
        """Refuse everything, in a forked child."""
        self.closing = False
        self.failure = None
        self.refusal = _forked
