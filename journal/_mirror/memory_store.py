"""MemoryStore: a store in this process's memory, for tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock

from journal._mirror.store import AbsentError, TakenError

ENTRY_BYTES_MAX = 16 << 20


class MemoryStore:
    """A store that lasts as long as the object. Several writers may share it."""

    url = "memory:"
    entry_bytes_max = ENTRY_BYTES_MAX

    def __init__(self) -> None:
        self._lock = Lock()  # guards both dicts
        self._entries: dict[int, bytes] = {}
        self._blobs: dict[str, bytes] = {}

    def append(self, number: int, data: bytes) -> None:
        with self._lock:
            if number in self._entries:
                raise TakenError(f"entry {number} exists")
            self._entries[number] = data

    def entry(self, number: int) -> bytes:
        with self._lock:
            if number not in self._entries:
                raise AbsentError(f"entry {number} does not exist")
            return self._entries[number]

    def numbers(self, after: int) -> list[int]:
        with self._lock:
            return sorted(number for number in self._entries if number > after)

    def last(self, after: int) -> int:
        return max(self.numbers(after), default=0)

    def trim(self, numbers: Iterable[int]) -> None:
        with self._lock:
            for number in numbers:
                self._entries.pop(number, None)

    def put_blob(self, name: str, pieces: Iterable[bytes]) -> None:
        data = b"".join(pieces)
        with self._lock:
            self._blobs[name] = data

    def blob(self, name: str) -> Iterator[bytes]:
        with self._lock:
            data = self._blobs.get(name)
        if data is None:
            raise AbsentError(f"blob {name} does not exist")
        yield data

    def blob_names(self) -> list[str]:
        with self._lock:
            return sorted(self._blobs)

    def delete_blobs(self, names: Iterable[str]) -> None:
        with self._lock:
            for name in names:
                self._blobs.pop(name, None)

    def close(self) -> None:
        pass
