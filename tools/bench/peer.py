"""The interface of the peers, their records, and the bare disk."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgpack

from bench.group import GroupCommit

T = TypeVar("T")

FIRST = 1 << 16  # the number of the first record; msgpack packs each number in 5 bytes
TEXT_CHARS = 200
POOL_THREADS = 64
FRAME_HEADER_BYTES = 44
ALLOCATED_BYTES = 64 << 20


def record_of(number: int) -> list[Any]:
    """Return a new record, with a text of its own."""
    return ["step", "agent_0123456789ab", number, "x" * TEXT_CHARS, 1_700_000_000_000]


RECORD = record_of(FIRST)
PACKED = msgpack.packb(RECORD)


def records() -> Iterator[list[Any]]:
    """Return an endless sequence of different records of one size. Threads may share it."""
    return map(record_of, itertools.count(FIRST))


class Peer:
    """An engine, or a bare loop, that makes records durable.

    An update takes the next of `records`, and returns when it is on stable storage. An engine that
    stores bytes takes the next of `packed`, which packs the record in the calling thread.

    Any thread may call `update`. `update_async` does the same for an event loop: natively if the
    peer can, else in a thread pool. A peer for event loops only has no `update`.
    """

    has_threads = True  # whether threads may call `update`

    def __init__(self, directory: Path) -> None:
        self.records = records()
        self.packed: Iterator[bytes] = map(msgpack.Packer().pack, self.records)
        self._pool = ThreadPoolExecutor(POOL_THREADS)

    def update(self) -> None:
        raise NotImplementedError

    def update_async(self) -> Awaitable[object]:
        return asyncio.get_running_loop().run_in_executor(self._pool, self.update)

    def close(self) -> None:
        self._pool.shutdown()


class Gated(Peer):
    """A peer behind one thread that commits for all waiters, and wakes them one after the other."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._group = GroupCommit(self.commit_all)

    def update(self) -> None:
        self._group.add(next(self.packed))

    def commit_all(self, batch: list[bytes]) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._group.close()
        super().close()


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
    """A write and an fdatasync per update, by one thread, into a preallocated file.

    Each update writes the same bytes, which are packed in advance. A journal with one record per
    frame writes as many.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._fd = os.open(directory / type(self).__name__, os.O_CREAT | os.O_RDWR)
        os.posix_fallocate(self._fd, 0, ALLOCATED_BYTES)
        os.fsync(self._fd)
        self._offset = 0

    def update(self) -> None:
        self.write(PACKED)

    def write(self, packed: bytes) -> None:
        data = bytes(FRAME_HEADER_BYTES) + packed
        if self._offset + len(data) > ALLOCATED_BYTES:
            self._offset = 0
        os.pwrite(self._fd, data, self._offset)
        os.fdatasync(self._fd)
        self._offset += len(data)


class BareGroup(BareDisk):
    """A bare group commit. Each update writes the same bytes, which are packed in advance.

    It has no order, checksums, bounds or errors, and no wait can be cancelled. With many waiters
    and a fast disk, an engine will hardly be faster. An engine can be faster if it commits in the
    thread of a lone waiter, or gathers waiters on a slow disk.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._group = GroupCommit[bytes](lambda batch: self.write(b"".join(batch)))

    def update(self) -> None:
        self._group.add(PACKED)

    def close(self) -> None:
        super().close()
        self._group.close()
