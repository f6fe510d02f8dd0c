"""Transactions with large values: conflicts, exceptions, and concurrent threads."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from journal import RecordError
from journal._tables import values
from journal._tables.publisher import Publisher
from journal._tables.tables import Tables
from journal._tables.transaction import Transaction, TransactionTable
from journal.errors import BufferFullError, ConflictError
from journal.testing import SimulatedDisk
from tests.support import PATH, TIMEOUT_S, logged
from tests.tables.tables_large_support import LARGE, kinds, open_tables
from tests.tables.tables_support import in_thread


def test_the_largest_values_are_written_as_pieces_until_the_rest_fits(disk: SimulatedDisk) -> None:
    """Only the largest values become pieces; the record holds the others, within its limit."""
    with open_tables(disk) as app:
        table = app.table("t")
        with app.transaction() as t:
            for key, size in enumerate((50, 300, 50, 10)):
                t[table][key] = "x" * size
        app.sync(timeout_s=TIMEOUT_S)
        *pieces, last = logged(app.journal)
        assert {piece[0] for piece in pieces} == {"piece"}
        assert [type(write[2]) for write in last[1:]] == [bytes, list, bytes, bytes]
        assert t.lsn == app.journal.last_lsn == len(pieces) + 1
        with app.transaction() as t:
            for key in range(4):
                t[table][key] = "y" * 100
        assert [len(table[key]) for key in range(4)] == [100] * 4


@pytest.mark.parametrize("size", range(60, 140))
def test_the_headers_of_many_small_rows_count(disk: SimulatedDisk, size: int) -> None:
    """A record that is too large only with the headers of its writes gets a piece, too."""
    with open_tables(disk) as app:
        table = app.table("t")
        with app.transaction() as t:
            for key in range(10):
                t[table][key] = key
            t[table]["large"] = "x" * size
        assert (table[9], table["large"]) == (9, "x" * size)
        assert kinds(app)[-1] == "rows"


def test_a_transaction_whose_keys_alone_are_too_large_is_refused(disk: SimulatedDisk) -> None:
    """A transaction whose keys are too large is refused before any piece is written."""
    with open_tables(disk) as app:

        def insert_all(rows: TransactionTable) -> None:
            for key in range(20):
                rows[key] = LARGE

        with pytest.raises(RecordError, match="a transaction of 20 rows takes"):
            app.transact(lambda t: insert_all(t[app.table("t")]))
        assert kinds(app) == []
    with open_tables(disk, limit_bytes=100) as app, pytest.raises(RecordError, match="of 1 rows"):
        app.table("t")[1] = LARGE


def test_a_value_has_a_limit(disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value over the limit is refused with an error that names it, and nothing is written."""
    assert values.VALUE_BYTES_MAX == 256 << 20
    monkeypatch.setattr(values, "VALUE_BYTES_MAX", 1000)
    with open_tables(disk) as app:
        app.table("t")[1] = "x" * 900
        with pytest.raises(RecordError, match="takes 1203 bytes, more than the limit of 1000"):
            app.table("t")[1] = LARGE
        assert app.table("t")[1] == "x" * 900


def test_pieces_stay_invisible_until_they_are_published(disk: SimulatedDisk) -> None:
    """Unpublished pieces are invisible to readers, as of any LSN, and to transactions."""
    with open_tables(disk) as app:
        app.table("t")[1] = "before"
        app.table("t")[1] = LARGE
        last_lsn = app.journal.last_lsn
        app.sync(timeout_s=TIMEOUT_S)
    for lsn in range(1, last_lsn + 1):
        view = Tables.read(PATH, at=lsn, disk=disk)
        assert view.lsn == lsn
        assert view.table("t")[1] == (LARGE if lsn == last_lsn else "before")


def test_a_conflict_after_pieces_were_written_drops_them(disk: SimulatedDisk) -> None:
    """P1: After a conflict, the removal of the pieces is journaled, and replay drops them."""
    with open_tables(disk) as app:
        table = app.table("t")
        table[1] = 1

        def copy(t: Transaction) -> None:
            t[table][2] = LARGE + str(t[table][1])
            in_thread(lambda: table.__setitem__(1, 2))

        with pytest.raises(ConflictError):
            app.transact(copy, attempts=1)
        assert app._machine.uploads.ids() == []
        assert kinds(app)[-2:] == ["piece", "drop"]
    with open_tables(disk) as app:
        assert dict(app.table("t").items()) == {1: 2}
        assert kinds(app)[-1] == "drop"


class StrangeError(BaseException):
    """An exception that no code expects."""


@pytest.mark.parametrize("after_pieces", [0, 1, 3])
def test_whatever_is_raised_between_pieces_drops_them(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, after_pieces: int
) -> None:
    """Any exception between pieces drops them, and leaves the old rows unchanged."""
    with open_tables(disk) as app:
        app.table("t")[1] = "before"
        write_piece, count = Publisher._write_piece, 0

        def strike(self: Publisher, piece: Any) -> None:
            nonlocal count
            if count == after_pieces:
                raise StrangeError
            count += 1
            write_piece(self, piece)

        monkeypatch.setattr(Publisher, "_write_piece", strike)
        with pytest.raises(StrangeError):
            app.table("t")[1] = LARGE
        assert (app.table("t")[1], app._machine.uploads.ids()) == ("before", [])
        assert kinds(app)[1:] == ["piece"] * after_pieces + ["drop"] * bool(after_pieces)


def test_what_a_comparison_raises_drops_the_pieces(disk: SimulatedDisk) -> None:
    """An exception of a user's comparison, at the end of a transaction, drops its pieces."""
    with open_tables(disk) as app:
        table = app.table("t")
        table[1] = "a"

        class Once:
            calls = 0

            def __eq__(self, other: object) -> bool:
                Once.calls += 1
                if Once.calls == 1:
                    return True
                raise StrangeError

            __hash__ = None  # type: ignore[assignment]

        def replace(t: Transaction) -> None:
            t[table].replace(1, LARGE, expected=Once())
            in_thread(lambda: table.__setitem__(1, "b"))

        with pytest.raises(StrangeError):
            app.transact(replace)
        assert (table[1], app._machine.uploads.ids()) == ("b", [])


def test_an_update_that_is_too_large_runs_again_after_a_conflict(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update whose large writes are made without the lock runs again after a conflict."""
    with open_tables(disk) as app:
        table = app.table("t")
        table["n"] = 0
        write_piece = Publisher._write_piece

        def interfere(self: Publisher, piece: Any) -> None:
            write_piece(self, piece)
            if table["n"] < 3:
                table["n"] += 1

        monkeypatch.setattr(Publisher, "_write_piece", interfere)
        runs = 0

        def copy(t: Transaction) -> int:
            nonlocal runs
            runs += 1
            n = int(t[table]["n"])
            t[table]["copy"] = [n, LARGE]
            return n

        assert app.update(copy) == 3
        assert (table["copy"], app._machine.uploads.ids()) == ([3, LARGE], [])
        assert runs == 2


def test_a_replace_compares_a_large_value_outside_the_lock(disk: SimulatedDisk) -> None:
    """`replace` compares large values without the lock; an unequal value is a conflict."""
    with open_tables(disk) as app:
        table = app.table("t")
        table[1] = LARGE
        table.replace(1, LARGE + "2", expected=LARGE)
        with pytest.raises(ConflictError, match="another value"):
            table.replace(1, 0, expected=LARGE)
        with app.transaction() as t:
            t[table].replace(1, 1, expected=LARGE + "2")
        assert table[1] == 1


@pytest.mark.parametrize("size", [1 << 10, 1 << 15])
@pytest.mark.parametrize("limit_bytes", [256, 1 << 20], ids=["in pieces", "whole"])
def test_no_large_value_is_compared_under_the_lock(
    disk: SimulatedDisk, size: int, limit_bytes: int
) -> None:
    """A large value that was set again is a conflict, even if it is the expected one."""
    is_small = size < limit_bytes and size < 1 << 14
    expected = "x" * size
    with open_tables(disk, limit_bytes=limit_bytes) as app:
        table = app.table("t")
        table[1] = expected

        def replace(t: Transaction) -> None:
            t[table].replace(1, "after", expected=expected)
            in_thread(lambda: table.__setitem__(1, expected))

        if is_small:
            app.transact(replace, attempts=1)
        else:
            with pytest.raises(ConflictError, match="was changed"):
                app.transact(replace, attempts=1)
        assert table[1] == ("after" if is_small else expected)


def test_a_replace_compares_again_if_the_value_was_changed_meanwhile(disk: SimulatedDisk) -> None:
    """`replace` compares again if another thread changed the value after the comparison."""
    with open_tables(disk) as app:
        table = app.table("t")
        table[1] = "before"
        seen: list[object] = []

        class Expected:
            def __eq__(self, other: object) -> bool:
                seen.append(other)
                if len(seen) == 1:
                    in_thread(lambda: table.__setitem__(1, "changed"))
                return other == "before"

            __hash__ = None  # type: ignore[assignment]

        with pytest.raises(ConflictError, match="another value"):
            table.replace(1, "after", expected=Expected())
        assert (seen, table[1]) == (["before", "changed"], "changed")


def test_pieces_that_can_not_be_dropped_now_are_dropped_later(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a full log buffer refuses the removal of pieces, the next write repeats it."""
    with open_tables(disk) as app:
        table = app.table("t")
        write_piece, drop = Publisher._write_piece, Publisher.drop

        def refuse(*_: object) -> None:
            raise BufferFullError("no room")

        def strike(self: Publisher, piece: Any) -> None:
            write_piece(self, piece)
            raise StrangeError

        with monkeypatch.context() as patch:
            patch.setattr(Publisher, "drop", refuse)
            patch.setattr(Publisher, "_write_piece", strike)
            with pytest.raises(StrangeError):
                table[1] = LARGE
            table["x"] = 1
        assert len(app._machine.uploads.ids()) == 1
        assert Publisher.drop is drop
        table["y"] = 1
        assert app._machine.uploads.ids() == []


class InterruptedDeque(deque[list[bytes]]):
    """A deque in whose `remove` a signal handler raises."""

    def remove(self, ids: list[bytes]) -> None:
        super().remove(ids)
        raise ValueError("of a signal handler")


def test_a_signal_handlers_error_passes_while_pieces_are_dropped(disk: SimulatedDisk) -> None:
    """Also one of the type by which a deque says that another thread was faster."""
    with open_tables(disk) as app:
        app._publisher._undropped = InterruptedDeque([[b"u" * 16]])
        with pytest.raises(ValueError, match="of a signal handler"):
            app.table("t")["x"] = 1
        assert app.table("t")["x"] == 1


def test_threads_write_large_values_beside_compactions(disk: SimulatedDisk) -> None:
    """P1, P6: Beside other writers of pieces, a transaction takes effect or leaves nothing."""
    written: list[int] = []

    def work(app: Tables, number: int) -> None:
        table = app.table("t")

        def add(t: Transaction) -> None:
            count = t[table].get("count", [0])[0]
            t[table]["count"] = [count + 1, LARGE]

        for n in range(10):
            with suppress(ConflictError):
                app.transact(add, attempts=2)
                written.append(n)
            table.set(number, LARGE + str(n), expires_at=disk.clock_ns / 1e9 + (-1) ** n)
            app.compact()

    with open_tables(disk) as app:
        with ThreadPoolExecutor(4) as pool:
            for run in [pool.submit(work, app, number) for number in range(4)]:
                run.result(TIMEOUT_S)
        assert app._machine.uploads.ids() == []
        assert app.table("t")["count"] == [len(written), LARGE]
    with open_tables(disk) as app:
        assert app.table("t")["count"] == [len(written), LARGE]
