"""Stores: maps on disk from keys to Python values, behind one interface, for `bench tables`.

Each is used as a good engineer would use it. A store that leaves the encoding to its user gets
msgpack. Writes that need not wait are committed together if the store allows it.
"""

from __future__ import annotations

import dbm
import shelve
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import msgpack

from bench.group import GroupCommit
from journal import Tables

Row = tuple[Any, Any]
_COMMIT_EVERY_S = 0.010  # as the journal's flush_interval_s
_LMDB_BYTES = 1 << 33
_CACHE_KIB = 1 << 16  # of SQLite's pages; its own default is 2 MiB
_ROW = "(?, ?)"
# It takes 5 to 10 % less than INSERT OR REPLACE, which removes the old row first.
_UPSERT = f"INSERT INTO rows VALUES {_ROW} ON CONFLICT DO UPDATE SET value = excluded.value"


class Store:
    """A map on disk from a str to a dict."""

    has_prefixes = True
    is_durable = True

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()

    def set(self, key: str, value: Any) -> None:
        """Set a key without waiting for the disk. One thread calls this."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until all earlier sets are on stable storage, if the store can do that."""

    def set_durable(self, key: str, value: Any) -> None:
        """Set a key, and wait until it is on stable storage. Many threads call this."""
        with self._lock:
            self.set(key, value)
            self.settle()

    def get(self, key: str) -> Any:
        raise NotImplementedError

    def prefix(self, prefix: str) -> list[Row]:
        """Return the rows whose keys begin with `prefix`, in the order of the keys."""
        raise NotImplementedError

    def begin_fill(self) -> None:
        """Prepare for the first rows, whose sets are not measured."""

    def end_fill(self) -> None:
        """Prepare for the sets that are measured."""

    def begin_durable(self) -> None:
        """Prepare for sets that wait for the disk."""

    def end_durable(self) -> None:
        """Prepare for sets that need not wait."""

    def start_threads(self) -> None:
        """Prepare for durable sets by many threads."""

    def end_threads(self) -> None:
        """Prepare for calls by one thread."""

    def close(self) -> None:
        raise NotImplementedError


class OurTables(Store):
    """Tables of this project."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.tables = Tables.open(directory / "tables")
        self._rows = self.tables.table("rows")
        self.settle = self.tables.sync  # type: ignore[method-assign]

    def set(self, key: str, value: Any) -> None:
        self._rows[key] = value

    def set_durable(self, key: str, value: Any) -> None:
        self._rows[key] = value
        self.tables.sync()

    def get(self, key: str) -> Any:
        return self._rows[key]

    def prefix(self, prefix: str) -> list[Row]:
        return list(self._rows.prefix(prefix))

    def close(self) -> None:
        self.tables.close()


class Shelve(Store):
    """shelve, with the dbm module that Python has here.

    dbm.dumb never syncs its files, and dbm.sqlite3 (from 3.13 on) is bound to one thread.
    """

    has_prefixes = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        path = str(directory / "shelve")
        self._shelf = shelve.open(path, protocol=5)  # noqa: SIM115  # `close` closes it
        self.is_durable = dbm.whichdb(path) == "dbm.gnu"

    def set(self, key: str, value: Any) -> None:
        self._shelf[key] = value

    def settle(self) -> None:
        if self.is_durable:  # dbm.dumb writes all keys anew and does not sync
            self._shelf.sync()

    def get(self, key: str) -> Any:
        return self._shelf[key]

    def close(self) -> None:
        self._shelf.close()


class SqliteDict(Store):
    """sqlitedict with msgpack and WAL, and with syncs, which are off by default."""

    def __init__(self, directory: Path) -> None:
        from sqlitedict import SqliteDict as Opened

        super().__init__(directory)
        path = str(directory / "sqlitedict")
        self._dict = Opened(
            path, journal_mode="WAL", encode=msgpack.packb, decode=msgpack.unpackb, timeout=60
        )
        self._dict.conn.execute("PRAGMA synchronous=FULL")

    def set(self, key: str, value: Any) -> None:
        self._dict[key] = value

    def settle(self) -> None:
        self._dict.commit(blocking=True)

    def set_durable(self, key: str, value: Any) -> None:
        self._dict[key] = value  # its only thread commits the sets of all threads
        self._dict.commit(blocking=True)

    def get(self, key: str) -> Any:
        return self._dict[key]

    def prefix(self, prefix: str) -> list[Row]:
        rows = self._dict.conn.select(
            f"SELECT key, value FROM {self._dict.tablename} "
            "WHERE key >= ? AND key < ? ORDER BY key",
            _bounds(prefix),
        )
        return [(key, msgpack.unpackb(value)) for key, value in rows]

    def close(self) -> None:
        self._dict.close()


class DiskCache(Store):
    """diskcache without eviction."""

    has_prefixes = False

    def __init__(self, directory: Path) -> None:
        from diskcache import Cache

        super().__init__(directory)
        self._cache = Cache(
            str(directory / "diskcache"), eviction_policy="none", cull_limit=0, timeout=60
        )

    def set(self, key: str, value: Any) -> None:
        self._cache[key] = value

    def set_durable(self, key: str, value: Any) -> None:
        self._cache[key] = value

    def get(self, key: str) -> Any:
        return self._cache[key]

    def begin_durable(self) -> None:
        self._cache.reset("sqlite_synchronous", 2)

    def end_durable(self) -> None:
        self._cache.reset("sqlite_synchronous", 1)

    def close(self) -> None:
        self._cache.close()


class PersistQueue(Store):
    """persist-queue's PDict. Each set is a transaction that waits for the disk."""

    has_prefixes = False

    def __init__(self, directory: Path) -> None:
        from persistqueue import PDict

        super().__init__(directory)
        self._dict: Any = PDict(str(directory / "persistqueue"), "rows", multithreading=True)

    def begin_fill(self) -> None:
        self._dict._putter.execute("PRAGMA synchronous=OFF")

    def end_fill(self) -> None:
        self._dict._putter.execute("PRAGMA synchronous=FULL")

    def set(self, key: str, value: Any) -> None:
        self._dict[key] = value

    def set_durable(self, key: str, value: Any) -> None:
        self._dict[key] = value  # PDict has its own lock

    def get(self, key: str) -> Any:
        return self._dict[key]

    def close(self) -> None:
        self._dict.close()


class Batching(Store):
    """A store with transactions. Sets that need not wait share a transaction of 10 ms.

    Durable sets of several threads go to one thread, which commits all waiting ones together.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._is_begun, self._commit_at = False, 0.0
        self._group: GroupCommit[Row] | None = None

    def begin(self) -> None:
        raise NotImplementedError

    def put(self, key: str, value: Any) -> None:
        """Set a key in the transaction that has begun."""
        raise NotImplementedError

    def commit(self) -> None:
        raise NotImplementedError

    def set(self, key: str, value: Any) -> None:
        now = time.monotonic()
        if not self._is_begun:
            self.begin()
            self._is_begun, self._commit_at = True, now + _COMMIT_EVERY_S
        self.put(key, value)
        if now >= self._commit_at:
            self.settle()

    def settle(self) -> None:
        if self._is_begun:
            self._is_begun = False
            self.commit()

    def set_durable(self, key: str, value: Any) -> None:
        assert self._group is not None
        self._group.add((key, value))

    def commit_all(self, batch: list[Row]) -> None:
        """Set all keys durably."""
        self.begin()
        for key, value in batch:
            self.put(key, value)
        self.commit()

    def start_threads(self) -> None:
        self._group = GroupCommit(self.commit_all)

    def end_threads(self) -> None:
        if self._group:
            self._group.close()


class Sqlite(Batching):
    """sqlite3 with msgpack, WAL, synchronous=FULL and a page cache of 64 MiB."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._connection = sqlite3.connect(
            directory / "sqlite", isolation_level=None, check_same_thread=False
        )
        execute = self._execute = self._connection.execute
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID")
        self._pack = msgpack.Packer().pack

    def begin(self) -> None:
        self._execute("BEGIN IMMEDIATE")

    def put(self, key: str, value: Any) -> None:
        self._execute(_UPSERT, (key, self._pack(value)))

    def commit(self) -> None:
        self._execute("COMMIT")

    def commit_all(self, batch: list[Row]) -> None:
        # One statement, for the reason in `sqlite_peers.py`.
        values = chain.from_iterable((key, self._pack(value)) for key, value in batch)
        self._execute(_UPSERT.replace(_ROW, ", ".join([_ROW] * len(batch))), [*values])

    def get(self, key: str) -> Any:
        row = self._execute("SELECT value FROM rows WHERE key = ?", (key,)).fetchone()
        return msgpack.unpackb(row[0])

    def prefix(self, prefix: str) -> list[Row]:
        rows = self._execute(
            "SELECT key, value FROM rows WHERE key >= ? AND key < ? ORDER BY key", _bounds(prefix)
        )
        return [(key, msgpack.unpackb(value)) for key, value in rows]

    def close(self) -> None:
        self.settle()
        self._connection.close()


class Lmdb(Batching):
    """LMDB with msgpack."""

    def __init__(self, directory: Path) -> None:
        import lmdb

        super().__init__(directory)
        self._environment = lmdb.open(str(directory / "lmdb"), map_size=_LMDB_BYTES)
        self._begin = self._environment.begin
        self._transaction: Any = None
        self._pack = msgpack.Packer().pack

    def begin(self) -> None:
        self._transaction = self._begin(write=True)

    def put(self, key: str, value: Any) -> None:
        self._transaction.put(key.encode(), self._pack(value))

    def commit(self) -> None:
        self._transaction.commit()

    def get(self, key: str) -> Any:
        with self._begin() as transaction:
            return msgpack.unpackb(transaction.get(key.encode()))

    def prefix(self, prefix: str) -> list[Row]:
        start = prefix.encode()
        rows: list[Row] = []
        with self._begin(buffers=True) as transaction, transaction.cursor() as cursor:
            if cursor.set_range(start):
                for key, value in cursor:
                    if key[: len(start)] != start:
                        break
                    rows.append((str(key, "utf-8"), msgpack.unpackb(value)))
        return rows

    def close(self) -> None:
        self.settle()
        self._environment.close()


STORES: dict[str, Callable[[Path], Store]] = {
    "journal": OurTables,
    "shelve": Shelve,
    "sqlitedict": SqliteDict,
    "diskcache": DiskCache,
    "persist-queue": PersistQueue,
    "sqlite3": Sqlite,
    "lmdb": Lmdb,
}


def fill(store: Store, rows: Iterable[Row]) -> None:
    """Set all rows without waiting, and wait once at the end."""
    store.begin_fill()
    for key, value in rows:
        store.set(key, value)
    store.settle()
    store.end_fill()


def _bounds(prefix: str) -> tuple[str, str]:
    return prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)
