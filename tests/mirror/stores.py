"""Mirrors in this process's memory, with faults, for tests of open journals."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from journal import Journal, JournalReader, Mirror, Options
from journal._mirror.memory_store import MemoryStore
from journal._mirror.store import Store, UnreachableError
from tests.support import until

TIMEOUT_S = 20.0
SMALL = Options(segment_bytes=4096)
_stores: dict[str, Store] = {}
_names = count(1)


class SilentStore(MemoryStore):
    """A store that can stop answering. While `silence` is set, requests fail or, with `hangs`, wait
    until it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = threading.Event()
        self.answers.set()
        self.asked = threading.Event()  # while it does not answer
        self.hangs = False
        self._change = threading.Lock()  # of what follows: a request sees all of it, or nothing
        self.threads: set[str] = set()  # the names of the threads that have made a request

    def fall_silent(self, *, hangs: bool = False) -> None:
        with self._change:
            self.asked.clear()
            self.hangs = hangs
            self.answers.clear()

    def answer(self) -> None:
        self.answers.set()

    def reached_by_others(self) -> MemoryStore:
        """Return the same store, as a machine sees it that is not cut off."""
        other = MemoryStore()
        other._lock, other._entries, other._blobs = self._lock, self._entries, self._blobs
        return other

    def _request(self) -> None:
        self.threads.add(threading.current_thread().name)
        with self._change:
            if self.answers.is_set():
                return
            hangs = self.hangs
            self.asked.set()
        if not hangs:
            raise UnreachableError("the store is silent")
        if not self.answers.wait(TIMEOUT_S):
            raise UnreachableError("the store was silent for long")

    def append(self, number: int, data: bytes) -> None:
        self._request()
        super().append(number, data)

    def entry(self, number: int) -> bytes:
        self._request()
        return super().entry(number)

    def numbers(self, after: int) -> list[int]:
        self._request()
        return super().numbers(after)

    def trim(self, numbers: Iterable[int]) -> None:
        self._request()
        super().trim(numbers)

    def put_blob(self, name: str, pieces: Iterable[bytes]) -> None:
        self._request()
        super().put_blob(name, pieces)

    def blob(self, name: str) -> Iterator[bytes]:
        self._request()
        return super().blob(name)

    def blob_names(self) -> list[str]:
        self._request()
        return super().blob_names()

    def delete_blobs(self, names: Iterable[str]) -> None:
        self._request()
        super().delete_blobs(names)


class MirrorOf(Mirror):
    """A mirror in a store that the test has made. Its address is `name_of(store)`."""

    __slots__ = ()

    def _check(self, path: str) -> None:
        """Accept any address."""

    def _open_store(self, open_s: float = 10.0, *, is_reader: bool = False) -> Store:
        return _stores[self.url]


def name_of(store: Store) -> str:
    """Return the address of a store, always the same."""
    for name, known in _stores.items():
        if known is store:
            return name
    name = f"memory://{next(_names)}"
    _stores[name] = store
    return name


def mirror_of(store: Store, **choices: Any) -> Mirror:
    """Return a mirror in the store, which ships often and gives up soon."""
    return MirrorOf(name_of(store), **{"open_timeout_s": 0.05, "interval_s": 0.005, **choices})


def opened(path: Path, store: Store, *, takeover: bool = False, **choices: Any) -> Journal:
    return Journal.open(path, options=SMALL, mirror=mirror_of(store, **choices), takeover=takeover)


def write(journal: Journal, count: int = 1) -> int:
    for _ in range(count):
        lsn = journal.append("x" * 100)
        journal.wait_durable(lsn)
    return lsn


def crash(journal: Journal) -> None:
    """Let the journal go as a killed process does: its lock is free, and its claim stands."""
    core = journal._core
    assert core.mirroring is not None
    shipper = core.mirroring._shipper
    until(lambda: shipper._link, "the link to the mirror")
    shipper._linked.appender.release = lambda: None  # type: ignore[method-assign]
    journal.close()
    assert shipper.join(TIMEOUT_S)


def records_in(path: Path) -> int:
    with JournalReader.open(path) as reader:
        return sum(1 for _ in reader.entries())
