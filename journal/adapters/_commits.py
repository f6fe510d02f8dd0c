"""Transactions that are repeated after a conflict, and the wait for the disk after them, for all
adapters."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from journal import ConflictError, Tables, Transaction
from journal.adapters._turns import turn

T = TypeVar("T")
_ATTEMPTS = 16  # of a transaction without the lock


def commit(tables: Tables, write: Callable[[Transaction], T]) -> tuple[T, int | None]:
    """Call `write` with a transaction, and again after each conflict. Return its result, and the
    LSN to wait for.

    The LSN is None if nothing was written. `durable` then waits for all changes so far: the one
    that left nothing to do may not be durable yet. An error that reads of different moments may
    have caused is a conflict, as in `Tables.transact`. After many conflicts, `write` is called
    under the owner's lock, where it may read ranges by its transaction only.
    """
    for _ in range(_ATTEMPTS):
        with suppress(ConflictError):
            return tables._transact_once(write)
    return tables.update(write), tables.journal.last_lsn


async def acommit(tables: Tables, write: Callable[[Transaction], T]) -> tuple[T, int | None]:
    """Do what `commit` does, in an event loop: waiting for room in the buffer is awaited."""
    for _ in range(_ATTEMPTS):
        await tables.room()
        with suppress(ConflictError):
            return await tables._transact_once_in_loop(write)
    await tables.room()
    return tables.update(write), tables.journal.last_lsn


async def durable(tables: Tables, lsn: int | None) -> None:
    """Wait in an event loop until `lsn`, or all so far, survives a crash, and for a turn to
    continue."""
    await tables.journal.durable(lsn)
    await turn()
