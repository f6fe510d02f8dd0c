"""The peers on SQLite: alone, and behind threads and tasks that commit for all waiters.

A batch is one statement, which is a transaction of its own. That is up to 1.6 times as fast as
BEGIN, executemany and COMMIT, which release the interpreter's lock for each record.
"""

from __future__ import annotations

import asyncio
import itertools
import queue
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

from bench.peer import Gated, Peer, Reused


def _sqlite(directory: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        directory / "sqlite", timeout=60, isolation_level=None, check_same_thread=False
    )
    for statement in _SETTINGS:
        connection.execute(statement)
    return connection


_SETTINGS = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "CREATE TABLE IF NOT EXISTS log (lsn INTEGER PRIMARY KEY, record BLOB)",
)
_INSERT = "INSERT INTO log (record) VALUES (?)"
_VALUES_MAX = 32_766  # of a statement in SQLite
_KEYS = 10_000


def inserts(batch: list[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the statement that inserts a batch, and its values; several if there are too many."""
    for begin in range(0, len(batch), _VALUES_MAX):
        values = batch[begin : begin + _VALUES_MAX]
        yield _INSERT + ", (?)" * (len(values) - 1), values


class Sqlite(Peer):
    """sqlite with a connection per thread, a transaction per record, WAL and synchronous=FULL."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._connections = Reused(partial(_sqlite, directory))
        with self._connections.one():
            pass  # WAL begins here: two connections that begin it at once may refuse each other

    def update(self) -> None:
        packed = next(self.packed)
        with self._connections.one() as connection:
            connection.execute(_INSERT, (packed,))

    def close(self) -> None:
        super().close()
        for connection in self._connections.take_all():
            connection.close()


class SqliteBatched(Peer):
    """sqlite behind one thread, which commits all gathered records in one transaction."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._queue: queue.SimpleQueue[tuple[Future[None], bytes] | None] = queue.SimpleQueue()
        self._connection = _sqlite(directory)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def update(self) -> None:
        self._submit().result()

    async def update_async(self) -> None:
        await asyncio.wrap_future(self._submit())

    def _submit(self) -> Future[None]:
        future: Future[None] = Future()
        self._queue.put((future, next(self.packed)))
        return future

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch = [first]
            while not self._queue.empty() and (another := self._queue.get()) is not None:
                batch.append(another)
            for statement in inserts([packed for _, packed in batch]):
                self._connection.execute(*statement)
            for future, _ in batch:
                future.set_result(None)

    def close(self) -> None:
        super().close()
        self._queue.put(None)
        self._thread.join()
        self._connection.close()


class SqliteGated(Gated):
    """sqlite behind one thread. It is the fastest of the ways that were tried."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._connection = _sqlite(directory)

    def commit_all(self, batch: list[bytes]) -> None:
        for statement in inserts(batch):
            self._connection.execute(*statement)

    def close(self) -> None:
        super().close()
        self._connection.close()


class SqliteUpserts(SqliteGated):
    """The same, but with a table that has the last record of each key.

    SQLite would skip the write and the sync of an update that changes nothing.
    """

    def __init__(self, directory: Path) -> None:
        self._keys = itertools.cycle(range(_KEYS))
        super().__init__(directory)
        self._connection.execute("CREATE TABLE IF NOT EXISTS state (key INTEGER PRIMARY KEY, v)")

    def commit_all(self, batch: list[bytes]) -> None:
        rows = ", ".join(["(?, ?)"] * len(batch))
        values = itertools.chain.from_iterable(zip(batch, self._keys, strict=False))
        self._connection.execute(
            f"INSERT INTO state (v, key) VALUES {rows} "
            "ON CONFLICT (key) DO UPDATE SET v = excluded.v",
            [*values],
        )


class AiosqliteBatched(Peer):
    """An aiosqlite connection behind one task, which commits for all coroutines that wait."""

    has_threads = False

    def __init__(self, directory: Path) -> None:
        import aiosqlite

        super().__init__(directory)
        self._connection = aiosqlite.connect(directory / "aiosqlite", isolation_level=None)
        self._loop: asyncio.AbstractEventLoop | None = None
        asyncio.run(self._open())

    async def _open(self) -> None:
        await self._connection
        for statement in _SETTINGS:
            await self._connection.execute(statement)

    async def update_async(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # a round has a loop of its own
            self._loop, self._wake = loop, asyncio.Event()
            self._waiting: list[tuple[asyncio.Future[None], bytes]] = []
            self._task = loop.create_task(self._run())
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((future, next(self.packed)))
        self._wake.set()
        await future

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch, self._waiting = self._waiting, []
            for statement in inserts([packed for _, packed in batch]):
                await self._connection.execute(*statement)
            for future, _ in batch:
                if not future.done():
                    future.set_result(None)

    def close(self) -> None:
        super().close()
        asyncio.run(self._connection.close())
