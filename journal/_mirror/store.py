"""The interface of a store: a numbered list of entries, and blobs.

Everything that the mirror asks of another machine is here. Entries are numbered from 1, and the
first writer of a number owns it. That one primitive gives the order, the fence and the
acknowledgement, so a store needs no compare-and-swap and no clock. One contract suite checks every
store: tests/mirror/test_store_contract.py.

A store's methods may be called by several threads at a time, and each returns or raises after a
bounded time. A store retries no `append` by itself in a way that hides who owns a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar, Protocol

from journal._mirror.errors import MirrorReason


class StoreError(Exception):
    """A request to a store that did not succeed. The text names the request and the store."""

    reason: ClassVar[MirrorReason] = MirrorReason.DAMAGED


class TakenError(StoreError):
    """The number has an owner already, perhaps this writer: an earlier answer may have been lost.
    Read the entry back to find out."""


class AbsentError(StoreError):
    """The entry or the blob does not exist."""


class UnreachableError(StoreError):
    """The store can't be reached, or failed, or was too slow. Whether a change was made is unknown.
    The same request may be repeated."""

    reason = MirrorReason.UNREACHABLE


class RefusedError(StoreError):
    """The store answers, but not to this client, or it is not usable as a mirror. Repeating the
    request is useless until a person has changed something."""

    reason = MirrorReason.REFUSED


class LostError(StoreError):
    """The store has lost entries: it was emptied or made anew. Nothing may be appended any more."""

    reason = MirrorReason.EMPTIED


class Store(Protocol):
    """An open store. Numbers are whole numbers from 1, and names of blobs are plain file names."""

    @property
    def url(self) -> str:
        """The address, without credentials, for messages."""

    @property
    def entry_bytes_max(self) -> int:
        """The size of the largest entry that the store takes, in bytes."""

    def append(self, number: int, data: bytes) -> None:
        """Make `data`, which is not empty, the entry `number`, and return once it is durable.

        The caller knows that the list reached `number` - 1. Raises TakenError, UnreachableError,
        RefusedError, and LostError if the store knows better.
        """

    def entry(self, number: int) -> bytes:
        """Return an entry. Raises AbsentError, UnreachableError and RefusedError."""

    def numbers(self, after: int) -> list[int]:
        """Return the numbers of all entries after `after`, in ascending order.

        Every entry whose `append` returned, or whose arrival anyone has seen, before this call
        began is among them, unless it was trimmed. Raises UnreachableError and RefusedError.
        """

    def last(self, after: int) -> int:
        """Return the last of these numbers, 0 if there is none."""

    def trim(self, numbers: Iterable[int]) -> None:
        """Remove entries. Those that are absent are ignored. Raises UnreachableError and
        RefusedError; some of them may be removed then."""

    def put_blob(self, name: str, pieces: Iterable[bytes]) -> None:
        """Store a blob, and return once it is durable. Replaces a blob of that name.

        Nobody ever sees a part of it, even if `pieces` raises, which is passed on. Raises
        UnreachableError, RefusedError, and LostError if the store knows that blobs are lost.
        """

    def blob(self, name: str) -> Iterator[bytes]:
        """Return the content of a blob in pieces. The iterator raises AbsentError, UnreachableError
        and RefusedError."""

    def blob_names(self) -> list[str]:
        """Return the names of all blobs, sorted. Raises UnreachableError and RefusedError."""

    def delete_blobs(self, names: Iterable[str]) -> None:
        """Remove blobs, as `trim` removes entries."""

    def close(self) -> None:
        """Release connections and threads. A second call does nothing."""
