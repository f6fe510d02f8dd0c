"""Permit: lets a mirror's thread change the directory until the journal releases its lock.

A close does not wait for long if the thread is inside a request. What the thread wrote after the
answer would be written beside the next writer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from journal._commit.gate import Gate
from journal._mirror.store import UnreachableError


class Permit:
    """A permit for one thread, which another one may revoke."""

    def __init__(self) -> None:
        self._is_revoked = False
        self._end_of_use: Gate | None = None  # of the last one

    @contextmanager
    def used(self) -> Iterator[None]:
        """Use the permit in the block. Raises UnreachableError if it was revoked before."""
        end = self._end_of_use = Gate(wakes_all_at_once=True)
        try:
            if self._is_revoked:  # checked last: `revoke` sets it before it looks for a use
                raise UnreachableError("the journal was closed meanwhile")
            yield
        finally:
            end.open()

    def revoke(self, timeout_s: float) -> None:
        """Let no further block begin, and wait at most `timeout_s` seconds for one under way."""
        self._is_revoked = True
        if self._end_of_use is not None:
            self._end_of_use.wait(timeout_s)
