"""Expiry: the rows that reads hide, and their removal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from journal import JournalError
from journal._tables.expiry import EXPIRES_AT_MS_MAX
from journal._tables.keys import encode_key
from journal._tables.publisher import Publisher
from journal._tables.tables import Table, Tables
from journal.errors import BufferFullError, ConflictError
from journal.testing import SimulatedDisk
from tests.support import PATH, TIMEOUT_S, logged, options
from tests.tables.tables_support import in_thread

START_S = 1_000_000


def open_tables(disk: SimulatedDisk, **others: Any) -> Tables:
    return Tables.open(PATH, options=options(segment_bytes=1 << 20, **others), disk=disk)


def set_clock(disk: SimulatedDisk, seconds: float) -> None:
    """Set the clock to a number of seconds after the start. It stands still between calls."""
    disk.clock_ns, disk.tick_ns = round((START_S + seconds) * 1000) * 1_000_000, 0


@pytest.fixture
def app(disk: SimulatedDisk) -> Iterator[Tables]:
    """Return empty tables on a simulated disk whose clock stands still."""
    set_clock(disk, 0)
    with open_tables(disk) as tables:
        yield tables


@pytest.fixture
def table(app: Tables) -> Table:
    """Return a table with a row that stays, and one that expires 10 s after the start."""
    rows = app.table("t")
    rows["stays"] = 0
    rows.set("goes", 1, expires_at=START_S + 10)
    return rows


READS: list[tuple[str, Callable[[Any], Any], Any, Any]] = [
    ("[]", lambda t: t["goes"], 1, KeyError),
    ("get", lambda t: t.get("goes", 5), 1, 5),
    ("in", lambda t: "goes" in t, True, False),
    ("range", lambda t: list(t.range()), [("goes", 1), ("stays", 0)], [("stays", 0)]),
    ("range, reverse", lambda t: list(t.range(reverse=True, limit=2)),
     [("stays", 0), ("goes", 1)], [("stays", 0)]),
    ("limit", lambda t: list(t.range(limit=1)), [("goes", 1)], [("stays", 0)]),
    ("prefix", lambda t: list(t.prefix("go")), [("goes", 1)], []),
]  # fmt: skip
VIEW_READS: list[tuple[str, Callable[[Any], Any], Any, Any]] = [
    ("items", lambda t: list(t.items()), [("goes", 1), ("stays", 0)], [("stays", 0)]),
    ("iteration", list, ["goes", "stays"], ["stays"]),
]


def outcome(read: Callable[[Any], Any], source: Any) -> Any:
    """Return what a read returns, or the class of what it raises."""
    try:
        return read(source)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize(
    ("read", "before", "after"),
    [row[1:] for row in READS + VIEW_READS],
    ids=[row[0] for row in READS + VIEW_READS],
)
def test_reads_hide_a_row_that_has_expired(
    disk: SimulatedDisk, app: Tables, table: Table, read: Any, before: Any, after: Any
) -> None:
    """Reads hide a row from its time on, to the millisecond; a clock that is set back shows it."""
    app.sync(timeout_s=TIMEOUT_S)
    for seconds, expected in ((9.999, before), (10, after), (5, before), (1000, after)):
        set_clock(disk, seconds)
        assert outcome(read, table) == expected
    app.close()
    view = Tables.read(PATH, disk=disk).table("t")
    assert outcome(read, view) == after
    set_clock(disk, 5)
    assert outcome(read, view) == before


@pytest.mark.parametrize(
    ("read", "before", "after"), [row[1:] for row in READS], ids=[row[0] for row in READS]
)
def test_transactions_hide_a_row_that_has_expired(
    disk: SimulatedDisk, app: Tables, table: Table, read: Any, before: Any, after: Any
) -> None:
    """A transaction reads the clock once, so it hides and shows rows as of one moment."""
    for seconds, expected in ((9.999, before), (10, after), (5, before)):
        set_clock(disk, seconds)
        with app.transaction() as t:
            assert outcome(read, t[table]) == expected
            set_clock(disk, 15 - seconds)
            assert outcome(read, t[table]) == expected
        set_clock(disk, seconds)
        assert app.update(lambda t: outcome(read, t[table])) == expected


def test_a_row_that_has_expired_counts_as_absent(
    disk: SimulatedDisk, app: Tables, table: Table
) -> None:
    """The key of an expired row can be inserted, and can't be replaced or deleted."""
    set_clock(disk, 10)
    for refused in (
        lambda: table.replace("goes", 2),
        lambda: table.replace("goes", 2, expected=1),
        lambda: table.delete("goes"),
        lambda: app.transact(lambda t: t[table].replace("goes", 2), attempts=1),
        lambda: app.transact(lambda t: t[table].delete("goes"), attempts=1),
    ):
        with pytest.raises(ConflictError, match="is not there"):
            refused()
    with pytest.raises(KeyError):
        del table["goes"]
    table.insert("goes", 2, expires_at=START_S + 20)
    assert table["goes"] == 2
    set_clock(disk, 20)
    app.transact(lambda t: t[table].insert("goes", 3))
    assert table["goes"] == 3


def test_an_update_keeps_the_time(disk: SimulatedDisk, app: Tables, table: Table) -> None:
    """`update` keeps a row's time, and `set` without a time makes the row stay."""
    assert table.update("goes", lambda n: n + 1) == 2
    assert app.update(lambda t: t[table]._update("goes", lambda n: n + 1, None)) == 3
    table.replace("stays", 5, expires_at=START_S + 10.5)
    set_clock(disk, 10.499)
    assert (table.get("goes"), table["stays"]) == (None, 5)
    table.set("stays", 6)
    assert table.update("goes", lambda n: n + 1, default=10) == 11
    set_clock(disk, 1000)
    assert dict(table.items()) == {"goes": 11, "stays": 6}


def test_a_transaction_writes_rows_that_expire(
    disk: SimulatedDisk, app: Tables, table: Table
) -> None:
    """A transaction hides its own writes, too, if they have expired at its reading of the clock."""
    with app.transaction() as t:
        rows = t[table]
        rows.set("a", 1, expires_at=START_S + 5)
        rows.insert("b", 2, expires_at=START_S - 5)
        rows.replace("stays", 3, expires_at=START_S + 5)
        assert dict(rows.range()) == {"a": 1, "goes": 1, "stays": 3}
        assert "b" not in rows
    assert set(table) == {"a", "goes", "stays"}
    set_clock(disk, 5)
    assert set(table) == {"goes"}


def test_a_removal_of_what_was_hidden_does_not_conflict(
    disk: SimulatedDisk, app: Tables, table: Table
) -> None:
    """The removal of an expired row conflicts with reads that showed it, and with no others."""
    set_clock(disk, 10)
    with app.transaction() as t:
        assert "goes" not in t[table]
        in_thread(app._publisher.remove_expired)
        assert len(table) == 1
        t[table].insert("goes", 2)
    assert table["goes"] == 2
    table.set("goes", 1, expires_at=START_S + 20)

    def read(t: Any) -> None:
        assert t[table]["goes"] == 1
        set_clock(disk, 20)
        in_thread(app._publisher.remove_expired)

    with pytest.raises(ConflictError, match="was removed"):
        app.transact(read, attempts=1)


def test_a_row_that_was_set_to_be_hidden_counts_as_removed(
    app: Tables, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that is set with a past time conflicts like a removal, even before it is removed."""
    monkeypatch.setattr(Publisher, "tidy", lambda _: None)

    def hide() -> None:
        table.set("goes", 1, expires_at=START_S - 1)

    for body in (lambda rows: rows.delete("goes"), lambda rows: rows["goes"]):

        def run(t: Any, body: Callable[[Any], Any] = body) -> None:
            body(t[table])
            in_thread(hide)

        table.set("goes", 1, expires_at=START_S + 10)
        with pytest.raises(ConflictError, match="was removed"):
            app.transact(run, attempts=1)


@pytest.mark.parametrize(
    ("expires_at", "error"),
    [
        (True, TypeError), ("1", TypeError), (float("nan"), ValueError), (-1, ValueError),
        (float("inf"), ValueError), (EXPIRES_AT_MS_MAX // 1000 + 1, ValueError),
        pytest.param(10**400, ValueError, id="huge"), (1e308, ValueError),
    ],
)  # fmt: skip
def test_a_time_that_is_none_is_refused(table: Table, expires_at: Any, error: Any) -> None:
    """An `expires_at` that is not a time is refused, and nothing is written."""
    with pytest.raises(error, match="expires_at is"):
        table.set("x", 1, expires_at=expires_at)
    assert "x" not in table


# --- removal ---


def fill(table: Table, count: int) -> None:
    """Set rows that expire 1 s after the start, 2 s, and so on."""
    for n in range(1, count + 1):
        table.set(("row", n), n, expires_at=START_S + n)


def test_each_write_removes_a_few_rows(disk: SimulatedDisk, app: Tables, table: Table) -> None:
    """Each write removes a few expired rows, the earliest first; `len` counts the others."""
    fill(table, 9)
    set_clock(disk, 8)
    assert (len(table), len(list(table))) == (11, 3)
    table["stays"] = 1
    assert len(table) == 7
    app.update(lambda t: t[table].set("stays", 2))
    assert len(table) == 3
    table["stays"] = 3
    assert len(table) == 3
    last_lsn = app.journal.last_lsn
    table["stays"] = 4
    assert app.journal.last_lsn == last_lsn + 1


def test_a_transaction_that_only_reads_removes_nothing(
    disk: SimulatedDisk, app: Tables, table: Table
) -> None:
    """A transaction that only reads writes no removals."""
    set_clock(disk, 10)
    last_lsn = app.journal.last_lsn
    app.transact(lambda t: t[table].get("goes"))
    app.update(lambda t: t[table].get("goes"))
    assert app.journal.last_lsn == last_lsn


def test_a_removal_is_journaled(disk: SimulatedDisk, app: Tables, table: Table) -> None:
    """A removal is journaled, so a clock that is set back does not show the row again."""
    set_clock(disk, 10)
    table["stays"] = 1
    app.close()
    assert logged_last(disk) == ["rows", ["t", encode_key("goes"), None]]
    set_clock(disk, 0)
    with open_tables(disk) as again:
        assert dict(again.table("t").items()) == {"stays": 1}


def logged_last(disk: SimulatedDisk) -> Any:
    with open_tables(disk) as app:
        return logged(app.journal)[-1]


def test_a_compaction_removes_what_has_expired_first(
    disk: SimulatedDisk, app: Tables, table: Table
) -> None:
    """A compaction first removes expired rows, in small records, so that no hold is long."""
    fill(table, 40)
    set_clock(disk, 38)
    last_lsn = app.journal.last_lsn
    items = list(app.compact().items())
    assert [item["key"] for item in items] == ["stays", ["row", 39], ["row", 40]]
    assert items[-1]["expires_at_ms"] == (START_S + 40) * 1000
    app.sync(timeout_s=TIMEOUT_S)
    sizes = [len(record) - 1 for record in logged(app.journal, last_lsn)]
    assert (sum(sizes), max(sizes)) == (39, 8)


def test_removals_fit_in_records(disk: SimulatedDisk) -> None:
    """Removals fit in records, however small the limit is and however long the keys are."""
    set_clock(disk, 0)
    with open_tables(disk, record_bytes_max=200) as app:
        table = app.table("t" * 60)
        for n in range(10):
            table.set("k" * 80 + str(n), n, expires_at=START_S + 1)
        set_clock(disk, 1)
        app.compact()
        assert len(table) == 0


def test_a_removal_that_is_refused_fails_no_write(
    disk: SimulatedDisk, app: Tables, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: A refused removal fails neither the write before it nor a checkpoint."""

    def refuse(*_: object) -> bool:
        raise BufferFullError("no room")

    set_clock(disk, 10)
    monkeypatch.setattr(Publisher, "_remove", refuse)
    table["stays"] = 1
    assert table["stays"] == 1
    assert app.compact().count == 2


@pytest.mark.parametrize("is_compacted", [False, True])
def test_times_survive_a_reopen(disk: SimulatedDisk, is_compacted: bool) -> None:
    """P6: Times survive in the log and in a checkpoint, even with values that JSON can't hold."""
    set_clock(disk, 0)
    with open_tables(disk, record_bytes_max=256) as app:
        table = app.table("t")
        for n, value in enumerate(({"a": 1}, {1: 2}, b"x" * 999, {2: "x" * 999}), 1):
            table.set(n, value, expires_at=START_S + n)
        if is_compacted:
            app.compact()
    for _ in range(2):
        set_clock(disk, 2.5)
        with open_tables(disk, record_bytes_max=256) as app:
            assert list(app.table("t")) == [3, 4]
            if is_compacted:
                app.compact()
    with open_tables(disk) as app:
        set_clock(disk, 4)
        app.table("t")["x"] = app.table("t")["y"] = 1
        assert (len(app.table("t")), app._machine.expiries.count) == (2, 0)


def test_a_row_in_the_log_replaces_one_of_the_checkpoint(disk: SimulatedDisk) -> None:
    """A write in the log replaces a row of the checkpoint together with its time."""
    set_clock(disk, 0)
    with open_tables(disk) as app:
        fill(app.table("t"), 3)
        app.compact()
    with open_tables(disk) as app:
        assert not app._machine.expiries._loaded  # sorted before anybody waits for the lock
        app.table("t")["row", 1] = "stays"
        del app.table("t")["row", 2]
    with open_tables(disk) as app:
        assert app._machine.expiries.count == 1
        set_clock(disk, 100)
        app.table("t")["x"] = 1
        assert dict(app.table("t").items()) == {("row", 1): "stays", "x": 1}


def test_the_compactors_thread_ends_when_the_journal_is_closed(
    disk: SimulatedDisk, app: Tables, table: Table
) -> None:
    """A compaction of closed tables raises, even if rows have expired."""
    set_clock(disk, 10)
    app.close()
    with pytest.raises(JournalError):
        app.compact()
