"""PatientReads: a store whose reads are repeated while it is unreachable, up to a moment.

A comparison reads hundreds of entries. If one request that failed began it anew, a server that
fails one of a hundred would keep a directory from opening.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from journal import _time as time
from journal._mirror.store import Store, UnreachableError

T = TypeVar("T")

_PAUSE_S = 0.1


class PatientReads:
    """The reads of a store. A stream of a blob is not repeated: it may have been read in part."""

    def __init__(self, store: Store, until_s: float) -> None:
        """Read `store`. `until_s`: the time of the monotonic clock until which to repeat."""
        self._store, self._until_s = store, until_s
        self.url = store.url

    def entry(self, number: int) -> bytes:
        return self._repeated(partial(self._store.entry, number))

    def numbers(self, after: int) -> list[int]:
        return self._repeated(partial(self._store.numbers, after))

    def last(self, after: int) -> int:
        return self._repeated(partial(self._store.last, after))

    def blob(self, name: str) -> Iterator[bytes]:
        return self._store.blob(name)

    def blob_names(self) -> list[str]:
        return self._repeated(self._store.blob_names)

    def _repeated(self, read: Callable[[], T]) -> T:
        while True:
            try:
                return read()
            except UnreachableError:
                if time.monotonic() + _PAUSE_S >= self._until_s:
                    raise
            time.sleep(_PAUSE_S)
