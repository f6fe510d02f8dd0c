"""Tables.changes with values in pieces and rows that expire."""

from __future__ import annotations

from typing import Any

import pytest

from journal import CompactedError, ConflictError, TableChange, TableChanges, Tables
from journal._tables.logged_pieces import LoggedPieces
from journal._tables.pieces import DROP, PIECE
from journal._tables.publisher import Publisher
from journal.testing import SimulatedDisk
from tests.support import PATH, TIMEOUT_S, logged, options
from tests.tables.tables_large_support import LARGE, UPLOAD, open_tables


@pytest.fixture
def small(disk: SimulatedDisk) -> Any:
    """Yield tables whose records are small."""
    with open_tables(disk) as tables:
        yield tables


def drained(app: Tables, after: int = 0) -> list[TableChange]:
    """Return the durable changes after an LSN."""
    app.sync(timeout_s=TIMEOUT_S)
    return drain(app.changes(after))


def drain(changes: TableChanges) -> list[TableChange]:
    """Return the changes that can be read now."""
    seen = []
    while not changes._must_wait():
        seen.append(next(changes))
    return seen


def brief(changes: list[TableChange]) -> list[tuple[Any, Any, float | None, bool]]:
    """Return the key, value, time and mark of each change."""
    return [(change.key, change.value, change.expires_at, change.last) for change in changes]


class Upload:
    """A large value that is being written, up to the moment before it is published."""

    def __init__(self, app: Tables, monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
        write = Publisher._write_record

        def write_later(publisher: Publisher, *args: Any) -> int | None:
            monkeypatch.setattr(Publisher, "_write_record", write)
            action()
            return write(publisher, *args)

        monkeypatch.setattr(Publisher, "_write_record", write_later)
        app.table("t")["large"] = LARGE


def test_large_values_arrive_whole(small: Tables) -> None:
    """A value in pieces arrives as a read gives it, together with the rest of its transaction.
    Pieces, and the removal of pieces, are not delivered."""
    table = small.table("t")
    with small.transaction() as t:
        t[table]["a"] = 1
        t[table].set("b", LARGE, expires_at=4e9)
        t[table]["c"] = [LARGE, LARGE]

    def conflict(t: Any) -> None:
        t[table]["d"] = LARGE + t[table]["b"]
        small._publisher.write_row(table._place("b"), b"\x01", None)  # as another thread does

    with pytest.raises(ConflictError):
        small.transact(conflict, attempts=1)
    assert brief(drained(small)) == [
        ("a", 1, None, False),
        ("b", LARGE, 4e9, False),
        ("c", [LARGE, LARGE], None, True),
        ("b", 1, None, True),
    ]


def test_a_consumer_that_begins_among_pieces_gets_the_value(
    small: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P5: The pieces before its beginning are read from the log."""
    afters: list[int] = []

    def between() -> None:
        afters.extend([small.journal.last_lsn, small.journal.last_lsn - 2])

    Upload(small, monkeypatch, between)
    for after in afters:
        assert brief(drained(small, after)) == [("large", LARGE, None, True)]


@pytest.mark.parametrize("has_begun", [False, True])
def test_pieces_that_compaction_removed_come_from_a_checkpoint(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, has_begun: bool
) -> None:
    """A consumer needs no piece from the log, whether it has read that piece or not."""
    with Tables.open(PATH, options=options(record_bytes_max=256), disk=disk) as app:
        changes = app.changes()

        def between() -> None:
            app.sync(timeout_s=TIMEOUT_S)
            if has_begun:
                drain(changes)
            for n in range(100):
                app.table("t")[n] = "x" * 200
                app.sync(timeout_s=TIMEOUT_S)
                if has_begun:
                    drain(changes)
                if n % 25 == 0:
                    app.compact()

        Upload(app, monkeypatch, between)
        app.sync(timeout_s=TIMEOUT_S)
        first_lsn = min(name.first_lsn for name in _segments(disk))
        assert first_lsn > 4
        consumer = changes if has_begun else app.changes(app.journal.last_lsn - 1)
        seen = [next(consumer)]
        while seen[-1].key != "large":
            seen.append(next(consumer))
    assert brief(seen)[-1] == ("large", LARGE, None, True)


def test_a_value_whose_pieces_are_gone_is_not_delivered_in_part(disk: SimulatedDisk) -> None:
    """A CompactedError names the change that was missed, and the changes go on after it."""
    with open_tables(disk) as app:
        app.table("t")["large"] = LARGE
        app.table("t")["after"] = 1
        app.sync(timeout_s=TIMEOUT_S)
        changes = app.changes(0)
        lsn = app.journal.last_lsn
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("journal._tables.logged_pieces.read_batches", _compacted)
            with pytest.raises(CompactedError) as caught:
                next(changes)
        assert (caught.value.lsn, caught.value.first_lsn) == (lsn - 1, lsn)
        assert next(app.changes(caught.value.first_lsn - 1)).key == "after"
        assert next(changes).key == "large"


def _compacted(*_: object) -> Any:
    raise CompactedError("gone", 99)


def test_a_slow_consumer_keeps_no_large_value(small: Tables) -> None:
    """The memory of a consumer does not grow with the values that it has not read yet."""
    table = small.table("t")
    for key in range(3):
        with small.transaction() as t:
            for n in range(3):
                t[table][key, n] = LARGE
    small.sync(timeout_s=TIMEOUT_S)
    with small.changes(0) as changes:
        for _ in range(9):
            change = next(changes)
            assert change.value == LARGE
            assert changes._place.change is None
            kept = [v for v in changes._steps.gi_frame.f_locals.values() if v is change]  # type: ignore[attr-defined]
            assert not kept


def test_the_removal_of_an_expired_row_is_a_change(disk: SimulatedDisk) -> None:
    """A change has the time at which its row expires. The row is removed by a later change, also
    from the compactor's thread."""
    disk.clock_ns = disk.tick_ns = 0
    with Tables.open(PATH, options=options(), disk=disk) as app:
        app.table("t").set("a", 1, expires_at=5)
        app.table("t").set("b", 2, expires_at=5.5)
        disk.clock_ns = 6 * 10**9
        assert list(app.table("t")) == []
        app.compact()
        app.sync(timeout_s=TIMEOUT_S)
        changes = drained(app)
    assert brief(changes) == [
        ("a", 1, 5, True),
        ("b", 2, 5.5, True),
        ("a", None, None, False),
        ("b", None, None, True),
    ]
    assert [change.removed for change in changes] == [False, False, True, True]


def _segments(disk: SimulatedDisk) -> Any:
    from journal._format.segment import segment_names

    return segment_names(list(disk.contents(PATH)))


def test_the_places_of_dropped_uploads_are_forgotten(disk: SimulatedDisk) -> None:
    """The memory of a consumer does not grow with the number of uploads."""
    pieces = LoggedPieces(disk.open_directory(PATH, write=True))
    pieces.note(1, [PIECE, UPLOAD, 0, b"a"])
    pieces.note(2, [PIECE, UPLOAD, 1, b"b"])
    assert len(pieces._first_lsns) == 1
    pieces.note(3, [DROP, [UPLOAD]])
    assert not pieces._first_lsns


def test_a_value_that_lacks_a_piece_is_refused(small: Tables, disk: SimulatedDisk) -> None:
    """A value is read with all of the pieces that its record states, or not at all."""
    small.table("t")["a"] = LARGE
    small.sync(timeout_s=TIMEOUT_S)
    upload_id, count = logged(small.journal)[-1][1][2]
    directory = disk.open_directory(PATH, write=False)
    lsn = small.journal.last_lsn
    assert len(LoggedPieces(directory).take([upload_id, count], lsn)) == count
    with pytest.raises(CompactedError, match="no longer kept"):
        LoggedPieces(directory).take([upload_id, count + 1], lsn)
    directory.close(unlock=False)
