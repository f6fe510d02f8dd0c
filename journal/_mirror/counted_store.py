"""CountedStore: a store whose requests are counted, for statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from journal._mirror.store import Store


class CountedStore:
    """Passes each request on. `requests` is their number; a request in a thread of its own may be
    missed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.requests = 0

    @property
    def url(self) -> str:
        return self._store.url

    @property
    def entry_bytes_max(self) -> int:
        return self._store.entry_bytes_max

    def append(self, number: int, data: bytes) -> None:
        self.requests += 1
        self._store.append(number, data)

    def entry(self, number: int) -> bytes:
        self.requests += 1
        return self._store.entry(number)

    def numbers(self, after: int) -> list[int]:
        self.requests += 1
        return self._store.numbers(after)

    def last(self, after: int) -> int:
        self.requests += 1
        return self._store.last(after)

    def trim(self, numbers: Iterable[int]) -> None:
        self.requests += 1
        self._store.trim(numbers)

    def put_blob(self, name: str, pieces: Iterable[bytes]) -> None:
        self.requests += 1
        self._store.put_blob(name, pieces)

    def blob(self, name: str) -> Iterator[bytes]:
        self.requests += 1
        return self._store.blob(name)

    def blob_names(self) -> list[str]:
        self.requests += 1
        return self._store.blob_names()

    def delete_blobs(self, names: Iterable[str]) -> None:
        self.requests += 1
        self._store.delete_blobs(names)

    def close(self) -> None:
        self._store.close()
