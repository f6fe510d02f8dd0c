"""The peers: engines that a Python program could use for durable updates. See `bench.peer`."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any

from bench.load import at_full_speed
from bench.peer import Gated, Peer, Reused
from bench.sqlite_peers import AiosqliteBatched, Sqlite, SqliteBatched, SqliteGated, SqliteUpserts
from journal import Journal

COOPY_DELAYS_S = (0.0, 0.0002, 0.001, 0.005)


class OurJournal(Peer):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._journal = Journal.open(directory / "journal")

    def update(self) -> None:
        self._journal.append_and_wait(next(self.records))

    def update_async(self) -> Awaitable[object]:
        return self._journal.append_durable(next(self.records))

    def close(self) -> None:
        super().close()
        self._journal.close()


class Lmdb(Peer):
    def __init__(self, directory: Path) -> None:
        import lmdb

        super().__init__(directory)
        self._environment = lmdb.open(str(directory / "lmdb"), map_size=1 << 33)
        self._keys = itertools.count()

    def update(self) -> None:
        packed = next(self.packed)
        with self._environment.begin(write=True) as transaction:
            transaction.put(next(self._keys).to_bytes(8, "big"), packed, append=True)

    def close(self) -> None:
        super().close()
        self._environment.close()


class LmdbGated(Gated, Lmdb):
    """LMDB behind one thread."""

    def commit_all(self, batch: list[bytes]) -> None:
        items = [(next(self._keys).to_bytes(8, "big"), packed) for packed in batch]
        with self._environment.begin(write=True) as transaction:
            transaction.cursor().putmulti(items, append=True)


class RocksDict(Peer):
    def __init__(self, directory: Path) -> None:
        from rocksdict import Options, Rdict, WriteOptions

        super().__init__(directory)
        self._db = Rdict(str(directory / "rocks"), Options(raw_mode=True))
        self._options = WriteOptions()
        self._options.sync = True
        self._keys = itertools.count()

    def update(self) -> None:
        self._db.put(next(self._keys).to_bytes(8, "big"), next(self.packed), self._options)

    def close(self) -> None:
        super().close()
        self._db.close()


class RocksDictGated(Gated, RocksDict):
    """RocksDB behind one thread."""

    def commit_all(self, batch: list[bytes]) -> None:
        from rocksdict import WriteBatch

        writes = WriteBatch(raw_mode=True)
        for packed in batch:
            writes.put(next(self._keys).to_bytes(8, "big"), packed)
        self._db.write(writes, self._options)


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
            tree[next(self._keys)] = next(self.records)
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
            self._system = system
            speed = at_full_speed([self.update] * 16, 0.2)
            loser, best = (best[1], (speed, system)) if speed > best[0] else (system, best)
            if loser is not None:
                loser.close()
        self._system = best[1]

    def update(self) -> None:
        self._system.step(next(self.records))

    def close(self) -> None:
        super().close()
        self._system.close()


PEERS: dict[str, type[Peer]] = {
    "sqlite": Sqlite,
    "sqlite-batched": SqliteBatched,
    "sqlite-gated": SqliteGated,
    "sqlite-upserts": SqliteUpserts,
    "aiosqlite-batched": AiosqliteBatched,
    "lmdb": Lmdb,
    "lmdb-gated": LmdbGated,
    "rocksdict": RocksDict,
    "rocksdict-gated": RocksDictGated,
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
