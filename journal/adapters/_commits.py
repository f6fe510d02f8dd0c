"""Transactions that are repeated after a conflict, for all adapters. Nothing waits for the disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from journal import ConflictError, Tables, Transaction

T = TypeVar("T")
_ATTEMPTS = 16  # of a transaction without the lock


def commit(tables: Tables, write: Callable[[Transaction], T]) -> tuple[T, int | None]:
    """Call `write` with a transaction, again after each conflict. Return its result, and the LSN to
    wait for, or None if nothing was written.

    After many conflicts, `write` is called under the owner's lock.
    """
    for _ in range(_ATTEMPTS):
        try:
            with tables.transaction() as t:
                result = write(t)
        except ConflictError:
            continue
        return result, t.lsn
    return tables.update(write), tables.journal.last_lsn


async def acommit(tables: Tables, write: Callable[[Transaction], T]) -> tuple[T, int | None]:
    """Do what `commit` does, in an event loop: waiting for room in the buffer is awaited."""
    for _ in range(_ATTEMPTS):
        try:
            async with tables.transaction() as t:
                result = write(t)
        except ConflictError:
            continue
        return result, t.lsn
    return tables.update(write), tables.journal.last_lsn
