"""The interface of the peers, and the bare disk.

A Peer's `update` may be called by any thread, and returns when one record is on stable storage.
`update_async` does the same for an event loop: natively if the peer can, else in a thread pool. A
peer for event loops only has no `update`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import msgpack

T = TypeVar("T")

RECORD = ["step", "agent_0123456789ab", 12, "x" * 200, 1_700_000_000_000]
PACKED = msgpack.packb(RECORD)
POOL_THREADS = 64
FRAME_HEADER_BYTES = 44
ALLOCATED_BYTES = 64 << 20


class Peer:
    has_threads = True  # whether threads may call `update`

    def __init__(self, directory: Path) -> None:
        self._pool = ThreadPoolExecutor(POOL_THREADS)

    def update(self) -> None:
        raise NotImplementedError

    def update_async(self) -> Awaitable[object]:
        return asyncio.get_running_loop().run_in_executor(self._pool, self.update)

    def close(self) -> None:
        self._pool.shutdown()


class Reused(Generic[T]):
    """A pool of objects that one thread at a time may use, such as connections.

    It makes as many as threads use at the same time.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._free: deque[T] = deque()

    @contextmanager
    def one(self) -> Iterator[T]:
        """Yield an object that no other thread uses meanwhile."""
        try:
            item = self._free.pop()
        except IndexError:
            item = self._make()
        yield item
        self._free.append(item)

    def take_all(self) -> Iterator[T]:
        """Take the objects that no thread uses out of the pool."""
        while self._free:
            yield self._free.pop()


class BareDisk(Peer):
    """A write and an fdatasync per record, by one thread, into a preallocated file.

    It writes the same number of bytes as a journal with one record per frame.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._fd = os.open(directory / type(self).__name__, os.O_CREAT | os.O_RDWR)
        os.posix_fallocate(self._fd, 0, ALLOCATED_BYTES)
        os.fsync(self._fd)
        self._offset = 0

    def update(self) -> None:
        self.commit(1)

    def commit(self, records: int) -> None:
        data = bytes(FRAME_HEADER_BYTES) + PACKED * records
        if self._offset + len(data) > ALLOCATED_BYTES:
            self._offset = 0
        os.pwrite(self._fd, data, self._offset)
        os.fdatasync(self._fd)
        self._offset += len(data)


class BareGroup(BareDisk):
    """A bare group commit: one thread writes for all waiters, and wakes them one after the other.

    It packs no records, has no order, checksums, bounds or errors, and no wait can be cancelled.
    With many waiters and a fast disk, an engine will hardly be faster. An engine can be faster if
    it commits in the thread of a lone waiter, or gathers waiters on a slow disk.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._lock, self._alarm = threading.Lock(), threading.Lock()
        self._alarm.acquire()
        self._begin()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def update(self) -> None:
        with self._lock:
            gate = self._gate
            self._waiting += 1
            if self._waiting == 1:
                self._alarm.release()
        with gate:
            pass

    def close(self) -> None:
        super().close()
        self._waiting = -1
        self._alarm.release()
        self._thread.join()

    def _begin(self) -> None:
        self._waiting, self._gate = 0, threading.Lock()
        self._gate.acquire()

    def _run(self) -> None:
        while True:
            self._alarm.acquire()
            with self._lock:
                waiting, gate = self._waiting, self._gate
                self._begin()
            if waiting < 0:
                return
            self.commit(waiting)
            gate.release()
