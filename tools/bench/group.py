"""Group commit in its shortest form: one thread commits for all threads that wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class GroupCommit(Generic[T]):
    """Commits what threads add, and wakes them one after the other."""

    def __init__(self, commit: Callable[[list[T]], object]) -> None:
        """Start the thread, which calls `commit` with what was added."""
        self._commit = commit
        self._lock, self._alarm = threading.Lock(), threading.Lock()
        self._alarm.acquire()
        self._begin()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, item: T) -> None:
        """Return when the item is committed."""
        with self._lock:
            gate, batch = self._gate, self._batch
            batch.append(item)
            if len(batch) == 1:
                self._alarm.release()
        with gate:
            pass

    def close(self) -> None:
        """End the thread. Nobody may wait."""
        self._alarm.release()  # without an item
        self._thread.join()

    def _begin(self) -> None:
        self._batch: list[T] = []
        self._gate = threading.Lock()
        self._gate.acquire()

    def _run(self) -> None:
        while True:
            self._alarm.acquire()
            with self._lock:
                batch, gate = self._batch, self._gate
                self._begin()
            if not batch:
                return
            self._commit(batch)
            gate.release()
