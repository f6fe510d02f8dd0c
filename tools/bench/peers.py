"""The peers: engines that a Python program could use for durable updates, behind one interface.

A Peer's `update` may be called by any thread, and returns when one record is on stable storage.
`update_async` does the same for an event loop: natively if the peer can, else in a thread pool.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import queue
import sqlite3
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgpack

from bench.load import at_full_speed
from journal import Journal

T = TypeVar("T")

RECORD = ["step", "agent_0123456789ab", 12, "x" * 200, 1_700_000_000_000]
PACKED = msgpack.packb(RECORD)
POOL_THREADS = 64
FRAME_HEADER_BYTES = 44
ALLOCATED_BYTES = 64 << 20
COOPY_DELAYS_S = (0.0, 0.0002, 0.001, 0.005)


class Peer:
    def __init__(self, directory: Path) -> None:
        self._pool = ThreadPoolExecutor(POOL_THREADS)

    def update(self) -> None:
        raise NotImplementedError

    async def update_async(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._pool, self.update)

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


class OurJournal(Peer):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._journal = Journal.open(directory / "journal")

    def update(self) -> None:
        self._journal.wait_durable(self._journal.append(RECORD))

    async def update_async(self) -> None:
        await self._journal.durable(self._journal.append(RECORD))

    def close(self) -> None:
        super().close()
        self._journal.close()


def _sqlite(directory: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        directory / "sqlite", timeout=60, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS log (lsn INTEGER PRIMARY KEY, record BLOB)")
    return connection


_INSERT = "INSERT INTO log (record) VALUES (?)"


class Sqlite(Peer):
    """sqlite with a connection per thread, a transaction per record, WAL and synchronous=FULL."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._connections = Reused(partial(_sqlite, directory))

    def update(self) -> None:
        with self._connections.one() as connection:
            connection.execute(_INSERT, (PACKED,))

    def close(self) -> None:
        super().close()
        for connection in self._connections.take_all():
            connection.close()


class SqliteBatched(Peer):
    """sqlite behind one thread, which commits all gathered records in one transaction."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._queue: queue.SimpleQueue[Future[None] | None] = queue.SimpleQueue()
        self._connection = _sqlite(directory)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def update(self) -> None:
        self._submit().result()

    async def update_async(self) -> None:
        await asyncio.wrap_future(self._submit())

    def _submit(self) -> Future[None]:
        future: Future[None] = Future()
        self._queue.put(future)
        return future

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while not self._queue.empty() and (another := self._queue.get()) is not None:
                batch.append(another)
            with self._connection:
                self._connection.execute("BEGIN")
                self._connection.executemany(_INSERT, [(PACKED,)] * len(batch))
            for future in batch:
                future.set_result(None)

    def close(self) -> None:
        super().close()
        self._queue.put(None)
        self._thread.join()
        self._connection.close()


class SqliteGated(BareGroup):
    """sqlite behind one thread that commits for all waiters, and wakes them one after the other.

    It is the fastest of the ways that were tried.
    """

    def __init__(self, directory: Path) -> None:
        self._connection = _sqlite(directory)
        super().__init__(directory)

    def commit(self, records: int) -> None:
        self._connection.execute("BEGIN")
        self._connection.executemany(_INSERT, [(PACKED,)] * records)
        self._connection.execute("COMMIT")

    def close(self) -> None:
        super().close()
        self._connection.close()


class Lmdb(Peer):
    def __init__(self, directory: Path) -> None:
        import lmdb

        super().__init__(directory)
        self._environment = lmdb.open(str(directory / "lmdb"), map_size=1 << 33)
        self._keys = itertools.count()

    def update(self) -> None:
        with self._environment.begin(write=True) as transaction:
            transaction.put(next(self._keys).to_bytes(8, "big"), PACKED, append=True)

    def close(self) -> None:
        super().close()
        self._environment.close()


class RocksDict(Peer):
    def __init__(self, directory: Path) -> None:
        from rocksdict import Options, Rdict, WriteOptions

        super().__init__(directory)
        self._db = Rdict(str(directory / "rocks"), Options(raw_mode=True))
        self._options = WriteOptions()
        self._options.sync = True
        self._keys = itertools.count()

    def update(self) -> None:
        self._db.put(next(self._keys).to_bytes(8, "big"), PACKED, self._options)

    def close(self) -> None:
        super().close()
        self._db.close()


class Zodb(Peer):
    """ZODB with a connection and a tree per thread, so that no two commits conflict."""

    def __init__(self, directory: Path) -> None:
        from BTrees.LOBTree import LOBTree
        from transaction import TransactionManager
        from ZODB import DB
        from ZODB.FileStorage import FileStorage

        super().__init__(directory)
        self._db: Any = DB(FileStorage(str(directory / "zodb.fs")), pool_size=1000)
        self._keys = itertools.count()
        lock = threading.Lock()

        def make() -> tuple[Any, Any]:
            manager = TransactionManager()
            with lock:  # all threads share the root
                root = self._db.open(manager).root()
                tree = root[next(self._keys)] = LOBTree()
                manager.commit()
            return manager, tree

        self._trees = Reused(make)

    def update(self) -> None:
        with self._trees.one() as (manager, tree):
            tree[next(self._keys)] = PACKED
            manager.commit()

    def close(self) -> None:
        super().close()
        self._db.close()


class System:
    """The object that coopy makes persistent."""

    def __init__(self) -> None:
        self.last: Any = None

    def step(self, record: Any) -> None:
        self.last = record


class Coopy(Peer):
    """coopy with the group commit delay that is the fastest for 16 threads."""

    def __init__(self, directory: Path) -> None:
        from coopy.base import init_persistent_system

        super().__init__(directory)
        best: tuple[float, Any] = (0.0, None)
        for delay_s in COOPY_DELAYS_S:
            system: Any = init_persistent_system(
                System(),
                str(directory / f"coopy-{delay_s}"),
                durability="sync",
                group_commit_delay=delay_s,
                validation="off",
            )
            speed = at_full_speed([partial(system.step, RECORD)] * 16, 0.2)
            loser, best = (best[1], (speed, system)) if speed > best[0] else (system, best)
            if loser is not None:
                loser.close()
        self._system = best[1]

    def update(self) -> None:
        self._system.step(RECORD)

    def close(self) -> None:
        super().close()
        self._system.close()


PEERS: dict[str, type[Peer]] = {
    "sqlite": Sqlite,
    "sqlite-batched": SqliteBatched,
    "sqlite-gated": SqliteGated,
    "lmdb": Lmdb,
    "rocksdict": RocksDict,
    "zodb": Zodb,
    "coopy": Coopy,
}


def opened(names: Iterable[str], directory: Path) -> dict[str, Peer]:
    """Open the peers that are installed. Print a note for each that is not."""
    peers: dict[str, Peer] = {}
    for name in names:
        try:
            peers[name] = PEERS[name](directory)
        except ImportError as error:
            print(f"bench: {name} is skipped: {error}", file=sys.stderr)
    return peers
