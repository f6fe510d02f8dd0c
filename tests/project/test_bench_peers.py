"""The peers of `python tools/bench commits`: what their updates store."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest
from bench.load import run_threads
from bench.peer import FIRST, FRAME_HEADER_BYTES, PACKED, BareDisk, BareGroup, record_of
from bench.peers import PEERS, OurJournal
from bench.sqlite_peers import inserts

from journal import JournalReader
from tests.installed import import_package


def in_journal(directory: Path) -> Iterator[Any]:
    with JournalReader.open(directory / "journal") as reader:
        for entry in reader.entries():
            yield entry.record


def in_sqlite(directory: Path, file: str, column: str) -> Iterator[Any]:
    connection = sqlite3.connect(directory / file)
    for (packed,) in connection.execute(f"SELECT {column}"):
        yield msgpack.unpackb(packed)
    connection.close()


def in_lmdb(directory: Path) -> Iterator[Any]:
    with import_package("lmdb").open(str(directory / "lmdb")) as opened, opened.begin() as reading:
        for _, packed in reading.cursor():
            yield msgpack.unpackb(packed)


def in_rocksdict(directory: Path) -> Iterator[Any]:
    rocksdict = import_package("rocksdict")
    db = rocksdict.Rdict(str(directory / "rocks"), rocksdict.Options(raw_mode=True))
    yield from map(msgpack.unpackb, db.values())
    db.close()


def in_zodb(directory: Path) -> Iterator[Any]:
    db = import_package("ZODB").DB(str(directory / "zodb.fs"))
    with db.transaction() as connection:
        for tree in connection.root().values():
            yield from tree.values()
    db.close()


in_log = partial(in_sqlite, file="sqlite", column="record FROM log")
STORED: dict[str, tuple[str, Callable[[Path], Iterator[Any]]]] = {  # package, how to read it back
    "journal": ("journal", in_journal),
    "sqlite": ("sqlite3", in_log),
    "sqlite-batched": ("sqlite3", in_log),
    "sqlite-gated": ("sqlite3", in_log),
    "sqlite-upserts": ("sqlite3", partial(in_sqlite, file="sqlite", column="v FROM state")),
    "aiosqlite-batched": ("aiosqlite", partial(in_log, file="aiosqlite")),
    "lmdb": ("lmdb", in_lmdb),
    "lmdb-gated": ("lmdb", in_lmdb),
    "rocksdict": ("rocksdict", in_rocksdict),
    "rocksdict-gated": ("rocksdict", in_rocksdict),
    "zodb": ("ZODB", in_zodb),
}


@pytest.mark.parametrize("name", STORED)
def test_each_update_stores_the_next_record(name: str, tmp_path: Path) -> None:
    """The updates of each engine, by tasks and by threads, store the same sequence of records, of
    which no two are equal."""
    package, read = STORED[name]
    import_package(package)
    peer = OurJournal(tmp_path) if name == "journal" else PEERS[name](tmp_path)

    async def by_tasks() -> None:
        await asyncio.gather(*(peer.update_async() for _ in range(20)))

    asyncio.run(by_tasks())
    if peer.has_threads:
        run_threads(20, lambda _: peer.update())
    peer.close()
    count = 40 if peer.has_threads else 20
    assert sorted(read(tmp_path)) == [record_of(FIRST + number) for number in range(count)]


@pytest.mark.parametrize("count", [1, 32_766, 32_767])
def test_a_batch_of_any_size_is_inserted(count: int) -> None:
    """SQLite limits the values of a statement. A peer whose thread failed would wait forever."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE log (record BLOB)")
    for statement in inserts([b"x"] * count):
        connection.execute(*statement)
    assert connection.execute("SELECT count(*) FROM log").fetchone() == (count,)
    connection.close()


@pytest.mark.parametrize("floor", [BareDisk, BareGroup])
def test_a_bare_floor_writes_the_same_bytes(floor: type[BareDisk], tmp_path: Path) -> None:
    """The bare disk and the bare group commit pack nothing: they write one record again and
    again."""
    peer = floor(tmp_path)
    peer.update()
    peer.update()
    peer.close()
    frame = bytes(FRAME_HEADER_BYTES) + PACKED
    with (tmp_path / floor.__name__).open("rb") as file:
        assert file.read(3 * len(frame)) == 2 * frame + bytes(len(frame))
