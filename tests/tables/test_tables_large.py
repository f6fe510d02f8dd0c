"""Large values: written in pieces before the lock is taken, published by one record."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from journal import DurableState, FormatReason, FormatVersionError, JournalError
from journal._format import checkpoint
from journal._format.checkpoint import Checkpoint
from journal._format.items import EncodedItems
from journal._tables.durable_dict import DurableDict
from journal._tables.keys import encode_key
from journal._tables.machine import TablesMachine
from journal._tables.pieces import PIECE_BYTES_MAX
from journal._tables.tables import Table, Tables
from journal._tables.values import pack_value, unpack_value
from journal.testing import SimulatedDisk, lose
from tests.support import PATH, TIMEOUT_S, logged, open_on, options, put
from tests.tables.tables_large_support import LARGE, LIMIT_BYTES, UPLOAD, kinds, open_tables

LARGE_VALUES: list[Any] = [LARGE, LARGE.encode(), {"n": [LARGE, {"b": b"\xff" * 500}]}, {1: LARGE}]


# --- values ---


@pytest.mark.parametrize("value", LARGE_VALUES, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("expires_at", [None, 4e9])
def test_a_large_value_comes_back_equal(
    disk: SimulatedDisk, value: Any, expires_at: float | None
) -> None:
    """P6: A large value is equal in memory, from the log, and from checkpoints, with small rows."""
    expected = {0: "small", 1: value, 2: "small"}
    with open_tables(disk) as app:
        table = app.table("t")
        table[0] = table[2] = "small"
        table.set(1, value, expires_at=expires_at)
        assert dict(table.items()) == expected
    lines: list[list[Any]] = []
    for _ in range(3):
        with open_tables(disk) as app:
            assert dict(app.table("t").items()) == expected
            assert dict(Tables.read(PATH, disk=disk).table("t").items()) == expected
            lines.append(list(app.compact().items()))
            app.table("other")[0] = 0
    assert lines[0] == lines[1][:-1] == lines[2][:-1]


def test_a_large_value_is_kept_in_pieces_that_are_not_collected(disk: SimulatedDisk) -> None:
    """Pieces are stored as an exact tuple of bytes, which the garbage collector stops tracking."""
    with open_tables(disk) as app:
        app.table("t")[1] = LARGE
        stored = app._machine.get("t", encode_key(1))
        assert type(stored) is tuple
        assert max(map(len, stored)) == LIMIT_BYTES // 2
        gc.collect()
        assert not gc.is_tracked(stored)


def expire_all(app: Tables, _: Table) -> None:
    disk = app._publisher._disk
    assert isinstance(disk, SimulatedDisk)
    disk.clock_ns += 10**12
    app._publisher.remove_expired()


REPLACING: list[tuple[str, Callable[[Tables, Table], object]]] = [
    ("set", lambda app, table: table.__setitem__(1, 0)),
    ("delete", lambda app, table: table.delete(1)),
    ("transact", lambda app, table: app.transact(lambda t: t[table].delete(1))),
    ("Tables.update", lambda app, table: app.update(lambda t: t[table].delete(1))),
    ("expiry", expire_all),
]


@pytest.mark.parametrize("way", [way for _, way in REPLACING], ids=[name for name, _ in REPLACING])
def test_a_large_value_is_freed_outside_the_lock(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, way: Callable[[Tables, Table], object]
) -> None:
    """A replaced large value is freed after the lock is released, because that takes some 10 ms."""
    kept: list[int] = []
    update = DurableState.update

    def watch(self: Any, decide: Any, *, urgent: bool = False) -> int | None:
        lsn = update(self, decide, urgent=urgent)
        kept.append(len(self.machine.replaced))
        return lsn

    with open_tables(disk) as app:
        app.table("t").set(1, LARGE, expires_at=disk.clock_ns / 1e9 + 500)
        monkeypatch.setattr(DurableState, "update", watch)
        way(app, app.table("t"))
        assert (max(kept), len(app._machine.replaced)) == (1, 0)


WAYS: list[tuple[str, Callable[[Tables, Table], object]]] = [
    ("set", lambda app, table: table.__setitem__(1, LARGE)),
    ("insert", lambda app, table: table.insert(1, LARGE)),
    ("replace", lambda app, table: (table.insert(1, 0), table.replace(1, LARGE, expected=0))),
    ("Table.update", lambda app, table: table.update(1, lambda _: LARGE)),
    ("Tables.update", lambda app, table: app.update(lambda t: t[table].insert(1, LARGE))),
    ("transact", lambda app, table: app.transact(lambda t: t[table].insert(1, LARGE))),
]


@pytest.mark.parametrize("way", [way for _, way in WAYS], ids=[name for name, _ in WAYS])
def test_every_way_to_write_takes_a_large_value(
    disk: SimulatedDisk, way: Callable[[Tables, Table], object]
) -> None:
    """A large value survives a reopening, whatever call wrote it."""
    with open_tables(disk) as app:
        way(app, app.table("t"))
        assert app.table("t")[1] == LARGE
        assert "piece" in kinds(app)
    with open_tables(disk) as app:
        assert app.table("t")[1] == LARGE


def test_a_durable_dict_takes_large_values(disk: SimulatedDisk) -> None:
    """A DurableDict takes single large values, and several in one transaction."""
    small = options(segment_bytes=1 << 20, record_bytes_max=LIMIT_BYTES)
    with DurableDict.open(PATH, options=small, disk=disk) as items:
        items["a"] = LARGE
        items.update(b=LARGE, c=1)
    with DurableDict.open(PATH, options=small, disk=disk) as items:
        assert dict(items) == {"a": LARGE, "b": LARGE, "c": 1}
        assert items.pop("a") == LARGE


def test_an_event_loop_waits_for_room_between_pieces(disk: SimulatedDisk) -> None:
    """A value many times larger than the log buffer is written without blocking the loop."""

    async def main(app: Tables) -> None:
        async with app.transaction() as t:
            t[app.table("t")][1] = LARGE * 10

    with open_tables(disk, buffer_bytes=1024, flush_bytes=1) as app:
        asyncio.run(asyncio.wait_for(main(app), TIMEOUT_S))
        assert app.table("t")[1] == LARGE * 10


def test_a_cancelled_task_drops_its_pieces(disk: SimulatedDisk) -> None:
    """Cancellation between two pieces drops the pieces, and writes no row."""

    async def main(app: Tables) -> None:
        async def write() -> None:
            async with app.transaction() as t:
                t[app.table("t")][1] = LARGE * 10

        task = asyncio.create_task(write())
        while not app._machine.uploads.ids():
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with open_tables(disk, buffer_bytes=1024) as app:
        asyncio.run(asyncio.wait_for(main(app), TIMEOUT_S))
        assert (app._machine.uploads.ids(), len(app.table("t"))) == ([], 0)
        assert kinds(app)[-1] == "drop"


# --- crashes, and checkpoints ---


@pytest.mark.parametrize("is_compacted", [False, True])
def test_pieces_that_a_crash_left_are_dropped_at_the_next_open(
    disk: SimulatedDisk, is_compacted: bool
) -> None:
    """A checkpoint contains unpublished pieces; the next open journals their removal."""
    chosen = options(segment_bytes=1 << 20)
    state = DurableState.open(PATH, TablesMachine(), options=chosen, disk=disk)
    for number in range(3):
        state.update(lambda _, number=number: ["piece", UPLOAD, number, b"p" * 9])  # type: ignore[misc]
    if is_compacted:
        assert items_of(state.compact()) == [{"upload": UPLOAD, "piece": b"p" * 9}] * 3
    state.wait_durable()
    disk.power_cut(lose)
    with suppress(JournalError):
        state.close()
    assert Tables.read(PATH, disk=disk).names() == []
    with open_tables(disk) as app:
        assert app._machine.uploads.ids() == []
        app.sync(timeout_s=TIMEOUT_S)
        assert logged(app.journal, 3) == [["drop", [UPLOAD]]]
        last_lsn = app.journal.last_lsn
    with open_tables(disk) as app:
        assert app.journal.last_lsn == last_lsn


def test_a_value_whose_pieces_are_in_a_checkpoint_can_be_published(disk: SimulatedDisk) -> None:
    """P6: A compaction between two pieces loses neither."""
    with open_tables(disk) as app:
        stored = pack_value("in two pieces")
        parts = [stored[:5], stored[5:]]
        for number, part in enumerate(parts):
            app._state.update(lambda _, n=number, p=part: ["piece", UPLOAD, n, p])  # type: ignore[misc]
            app.compact()
        write = ["t", encode_key(1), [UPLOAD, 2]]
        app._state.update(lambda _: ["rows", write])
    with open_tables(disk) as app:
        assert app.table("t")[1] == "in two pieces"


def items_of(compacted: Checkpoint) -> list[Any]:
    return list(compacted.items())


def test_a_checkpoint_splits_large_values_over_lines(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line of a checkpoint holds more than one piece, however large a record may be."""
    monkeypatch.setattr(checkpoint, "LINE_BYTES_MAX", 3 * PIECE_BYTES_MAX)
    value = bytes(3 * PIECE_BYTES_MAX + 5)
    chosen = options(segment_bytes=1 << 24)
    with Tables.open(PATH, options=chosen, disk=disk) as app:
        for key in range(2):
            app.table("t")[key] = value
        items = items_of(app.compact())
        assert [list(item) for item in items[:5]] == [["piece"]] * 4 + [["table", "key", "pieces"]]
        assert max(len(item["piece"]) for item in items if "piece" in item) == PIECE_BYTES_MAX
    with Tables.open(PATH, options=chosen, disk=disk) as app:
        assert all(app.table("t")[key] == value for key in range(2))
        assert items_of(app.compact()) == items


KEY = encode_key(1)
HEAD_MAX = b"\xc1\x01" + b"\xff" * 8  # a time that no checkpoint could hold
FORGED: list[tuple[str, list[Any]]] = [
    ("a short piece", [["piece", UPLOAD, 0]]),
    ("an empty piece", [["piece", UPLOAD, 0, b""]]),
    ("a piece of text", [["piece", UPLOAD, 0, "x"]]),
    ("a short id", [["piece", b"u", 0, b"x"]]),
    ("a first piece that is not the first", [["piece", UPLOAD, 1, b"x"]]),
    ("a large piece", [["piece", UPLOAD, 0, bytes(PIECE_BYTES_MAX + 1)]]),
    ("a gap", [["piece", UPLOAD, 0, b"x"], ["piece", UPLOAD, 2, b"x"]]),
    ("a removal of nothing", [["drop", []]]),
    ("a removal of what is not there", [["drop", [UPLOAD]]]),
    ("no pieces", [["rows", ["t", KEY, [UPLOAD, 1]]]]),
    ("too few pieces", [["piece", UPLOAD, 0, b"\x01"], ["rows", ["t", KEY, [UPLOAD, 2]]]]),
    ("no value", [["piece", UPLOAD, 0, b"\xc1"], ["rows", ["t", KEY, [UPLOAD, 1]]]]),
    (
        "one value twice",
        [
            ["piece", UPLOAD, 0, b"\x01"],
            ["rows", ["t", KEY, [UPLOAD, 1]], ["t", encode_key(2), [UPLOAD, 1]]],
        ],
    ),
    (
        "a time beside other bytes",
        [
            ["piece", UPLOAD, 0, b"\xc1\x01" + bytes(8) + b"\x01"],
            ["rows", ["t", KEY, [UPLOAD, 1]]],
        ],
    ),
    ("text with an LF", [["rows", ["t", KEY, b"\xc11\n"]]]),
    ("text with a time", [["rows", ["t", KEY, b"\xc1\x01" + bytes(8) + b"\xc11"]]]),
    ("text in a piece", [["piece", UPLOAD, 0, b"\xc11\n"], ["rows", ["t", KEY, [UPLOAD, 1]]]]),
    ("a time that is too large", [["rows", ["t", KEY, HEAD_MAX + b"\x01"]]]),
    (
        "a time of pieces that is too large",
        [
            ["piece", UPLOAD, 0, HEAD_MAX],
            ["piece", UPLOAD, 1, b"\x01"],
            ["rows", ["t", KEY, [UPLOAD, 2]]],
        ],
    ),
    ("a table without a name", [["rows", ["", KEY, b"\x01"]]]),
    ("a table whose name is too long", [["rows", ["t" * 256, KEY, b"\x01"]]]),
]  # fmt: skip


@pytest.mark.parametrize("records", [row[1] for row in FORGED], ids=[row[0] for row in FORGED])
def test_records_that_no_tables_write_are_refused(records: list[Any]) -> None:
    """An open refuses records that Tables never write, and changes nothing."""
    disk = SimulatedDisk()
    with open_on(disk, segment_bytes=1 << 22) as journal:
        put(journal, *records)
    before = disk.contents(PATH)
    with pytest.raises(JournalError, match="apply raised"):
        open_tables(disk)
    assert disk.contents(PATH) == before


def line(text: str) -> EncodedItems:
    return EncodedItems(text.encode(), 1)


ROW = {"table": "t", "key": 1}
FORGED_ITEMS: list[tuple[str, list[Any]]] = [
    ("too few pieces", [{"piece": b"\x01"}, {**ROW, "pieces": 2}]),
    ("no pieces", [{**ROW, "pieces": 0}]),
    ("pieces of no row", [{"piece": b"\x01"}, {**ROW, "value": 1}]),
    ("pieces of a packed row", [{"piece": b"\x01"}, {**ROW, "packed": b"\x01"}]),
    ("an empty piece", [{"piece": b""}]),
    ("a short id", [{"upload": b"u", "piece": b"x"}]),
    ("a time in the value", [{**ROW, "packed": b"\xc1\x01" + bytes(8) + b"\x01"}]),
    ("a time in a piece", [{"piece": b"\xc1\x01" + bytes(8) + b"\x01"}, {**ROW, "pieces": 1}]),
    ("a time that is no number", [{**ROW, "expires_at_ms": "1", "value": 1}]),
    ("a time that is too large", [{**ROW, "expires_at_ms": 1 << 53, "value": 1}]),
    ("text that is packed", [{**ROW, "packed": b"\xc11\n"}]),
    ("text in a piece", [{"piece": b"\xc11"}, {**ROW, "pieces": 1}]),
    ("no dict", [5]),
    ("other keys", [{"id": 1}]),
    ("a name that is too long", [{**ROW, "table": "t" * 256, "value": 1}]),
    ("no name", [{**ROW, "table": "", "value": 1}]),
    ("half a surrogate in a name", [line('{"table":"\\ud800","key":1,"value":1}')]),
    ("two keys", [line('{"table":"t","key":1,2,"value":1}')]),
    ("no JSON", [line('{"table":"t","key":{,"value":1}')]),
]


@pytest.mark.parametrize(
    "items", [row[1] for row in FORGED_ITEMS], ids=[row[0] for row in FORGED_ITEMS]
)
def test_items_that_no_tables_write_are_refused(items: list[Any]) -> None:
    """An open refuses items that Tables never write, and changes nothing."""
    disk = SimulatedDisk()
    with open_on(disk, application=TablesMachine.application) as journal:
        put(journal, ["rows", ["t", encode_key(1), b"\x01"]])
        journal.compact(lambda: (journal.last_lsn, items))
    before = disk.contents(PATH)
    with pytest.raises(JournalError, match="load raised"):
        open_tables(disk)
    assert disk.contents(PATH) == before
    with pytest.raises(FormatVersionError, match="not one of") as caught:
        Tables.read(PATH, disk=disk)
    assert caught.value.reason == FormatReason.OTHER_APPLICATION


def test_unpacking_joins_the_pieces() -> None:
    """A value in pieces of any size is unpacked to the same value."""
    stored = pack_value([LARGE, 1])
    for size in (1, 7, 2000):
        pieces = tuple(stored[at : at + size] for at in range(0, len(stored), size))
        assert unpack_value(pieces) == [LARGE, 1]
