"""Attaching: what a writer does with its mirror before it recovers the directory.

The order matters. The claim comes first, because another writer may append until it stands. Then
the directory is compared, and what it lacks is fetched. Only then may it be recovered: a recovery
of less would cut acknowledged records off.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, TypeVar

from journal._disk.disk import Directory
from journal._format.segment import find_journal_id, segment_names
from journal._mirror.claiming import Appender, Claimer, look
from journal._mirror.comparing import compare, fetch
from journal._mirror.entry import Claim
from journal._mirror.store import Store, StoreError, UnreachableError
from journal._mirror.unshipped import Cursor

T = TypeVar("T")
_RETRY_S = 0.2


class ForkedError(StoreError):
    """The directory and its mirror both have records that the other lacks."""


class Attached(NamedTuple):
    """A mirror whose claim stands, and whose directory lacks nothing.

    journal_id: the journal's identity, 32 hex digits. cursor: where shipping goes on. The writer's
    epoch must be at least `appender.epoch`.
    """

    journal_id: str
    appender: Appender
    cursor: Cursor


def attach(
    store: Store,
    directory: Directory,
    statement: Claim,
    new_nonce: Callable[[], bytes],
    *,
    takeover: bool = False,
    timeout_s: float,
) -> Attached:
    """Claim the mirror of a locked directory, and bring the directory up to it.

    The journal's id is that of the directory, or else of the mirror, or else of `statement`. Raises
    HeldError, OtherJournalError and ForkedError, with the directory unchanged; UnreachableError
    after `timeout_s` seconds; RefusedError, MirrorDamageError, CorruptionError and the disk's
    errors. If the claim stood already, it is released.
    """
    until_s = time.monotonic() + timeout_s
    own_id = find_journal_id(directory)
    if own_id is None:
        claimed = _until_answered(lambda: look(store), until_s).claimed
        known = claimed.claim if claimed else None
        own_id = known.journal_id if known else statement.journal_id
    epochs = [name.epoch for name in segment_names(directory.names())]
    claimer = Claimer(
        store,
        statement._replace(journal_id=own_id),
        new_nonce,
        epoch_min=max(epochs, default=0) + 1,
        takeover=takeover,
    )
    appender = _until_answered(claimer.claim, until_s)
    try:
        comparison = _until_answered(lambda: compare(store, directory), until_s)
        if comparison.verdict == "forked":
            raise ForkedError(
                f"{directory.path} and its mirror {store.url} have gone different ways: each has "
                "records that the other lacks. Nothing was changed. Move the directory away and "
                "restore the mirror, or mirror the directory to a new place"
            )
        fetch(directory, comparison.missing)
    except BaseException:
        with suppress(StoreError):
            appender.release()
        raise
    return Attached(own_id, appender, comparison.cursor)


def _until_answered(call: Callable[[], T], until_s: float) -> T:
    """Make requests, and repeat them until the store answers or the time is up."""
    while True:
        try:
            return call()
        except UnreachableError:
            if time.monotonic() + _RETRY_S >= until_s:
                raise
            time.sleep(_RETRY_S)
