"""Tables: single reads and writes, ranges, conditional writes, and reads without a lock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import msgpack
import pytest

from journal import (
    ConflictError,
    FailedError,
    FormatVersionError,
    JournalError,
    RecordError,
    Table,
    Tables,
)
from journal._tables.keys import encode_key
from journal.testing import SimulatedDisk, lose
from tests.support import PATH, TIMEOUT_S, open_on, put
from tests.tables.tables_support import open_tables, rows

# --- values ---


VALUES = [
    None, True, 0, -1, 2**64 - 1, -(2**63), 1.5, float("inf"), "", "\u00e4\0", b"", b"\xff\0",
    [], {}, [[None]], {"a": [1, {"b": b"x"}]}, {1: "one", b"k": 2}, {"$bytes": "AA=="},
    {"$$bytes": 1}, "\U0001f40d", [{"value": "\",\"value\":"}],
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_comes_back_equal(disk: SimulatedDisk, value: Any) -> None:
    """P6: A value is equal in memory, from the log, from a checkpoint, and from the line's copy."""
    with open_tables(disk) as app:
        table = app.table('quo"ted,"value":\u00e4')
        table[('key","value":', b"\0")] = value
        assert rows(table) == {('key","value":', b"\0"): value}
    for _ in range(3):
        with open_tables(disk) as app:
            table = app.table('quo"ted,"value":\u00e4')
            assert rows(table) == {('key","value":', b"\0"): value}
            app.compact()
            app.table("other")[0] = 0


def test_each_read_returns_a_fresh_value(users: Table) -> None:
    """A change of a value that was read changes nothing in the table."""
    users[("de", 1)]["name"] = "changed"
    value = users.get(("de", 1))
    value["name"] = "changed"
    assert users[("de", 1)] == {"name": "Ada"}


def test_a_value_is_what_it_was_when_it_was_set(users: Table) -> None:
    """A change of a value after it was set changes nothing in the table."""
    value = {"tags": ["a"]}
    users["x"] = value
    value["tags"].append("b")
    assert users["x"] == {"tags": ["a"]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1, 2}, "value is a set"),
        ({"a": [1, 2, 3, {4}]}, r"value\['a'\]\[3\] is a set"),
        ([(1, 2)], r"value\[0\] is a tuple"),
        ({"a": {(1, 2): 3}}, r"a key of value\['a'\] is a tuple"),
        ({"n": 1 << 64}, r"value\['n'\] is an int of more than 64 bits"),
        (object(), "value is an object"),
        ({"a": ["x", "ab\ud800"]}, r"value\['a'\]\[1\] has half a surrogate pair, '\\ud800', at 2"),
        ({"\udfff": 1}, "a key of value has half a surrogate pair"),
    ],
)
def test_a_value_that_cant_be_kept_names_its_place(users: Table, value: Any, message: str) -> None:
    """A wrong value is refused with an error that says where it is wrong."""
    with pytest.raises(RecordError, match=message):
        users["x"] = value
    assert "x" not in users


def test_a_value_that_contains_itself_is_refused(users: Table) -> None:
    """The error states the reason once, in the words of msgpack."""
    value: list[Any] = []
    value.append(value)
    with pytest.raises(RecordError, match=r"^the value can't be packed: [a-z ]+$"):
        users["x"] = value


# --- reads ---


def test_a_value_that_cant_be_read_back_is_refused(users: Table) -> None:
    """Msgpack packs extension types with a wrong code or time, which it can't unpack."""
    timestamp = msgpack.Timestamp(5, 5)
    timestamp.nanoseconds = (1 << 30) - 1
    forged = msgpack.ExtType(5, b"x")._replace(code=-1)
    place = r"value\['wrong'\] is an ExtType of code -1, not of 0 to 127"
    for wrong, message in (forged, place), (timestamp, "can't be packed"):
        with pytest.raises(RecordError, match=message):
            users["new"] = {"wrong": wrong}
        with pytest.raises(RecordError, match=message):
            users["new"] = {"wrong": wrong, "long": "x" * 2000}
    grown: dict[Any, Any] = {"a": 1}
    grown[forged] = 2
    for value in (forged, {forged: 1}, [forged], {"a": {"b": forged}}, grown):
        with pytest.raises(RecordError):
            users["new"] = value
    assert "new" not in users


def test_rows_are_in_the_order_of_their_keys(app: Tables) -> None:
    """Iteration, ranges and prefixes ascend, or descend with `reverse`; `limit` bounds them."""
    table = app.table("t")
    keys: list[Any] = [3, "a", b"a", ("a",), ("a", 1), ("a", "b"), ("b",), -1, "ab"]
    for key in keys:
        table[key] = 0
    ordered = [-1, 3, "a", "ab", b"a", ("a",), ("a", 1), ("a", "b"), ("b",)]
    assert list(table) == ordered
    assert [key for key, _ in table.range(3, b"a")] == [3, "a", "ab"]
    assert [key for key, _ in table.range(reverse=True, limit=2)] == [("b",), ("a", "b")]
    assert [key for key, _ in table.prefix(("a",))] == [("a",), ("a", 1), ("a", "b")]
    assert [key for key, _ in table.prefix("a", reverse=True)] == ["ab", "a"]
    assert list(table.range(limit=0)) == []
    with pytest.raises(ValueError, match="limit is -1"):
        table.range(limit=-1)


def test_a_range_is_a_snapshot(users: Table) -> None:
    """Rows that change while a range is read do not change what it yields."""
    seen = users.items()
    first = next(seen)
    users[("fr", 2)] = "changed"
    users[("xx", 3)] = "new"
    assert [first, *seen] == [(("de", 1), {"name": "Ada"}), (("fr", 2), {"name": "Blaise"})]


def test_a_missing_key(users: Table) -> None:
    """For a missing key, `[]` and `del` raise KeyError, and `get` returns the default."""
    assert users.get("x") is None
    assert users.get("x", 5) == 5
    with pytest.raises(KeyError, match="x"):
        users["x"]
    with pytest.raises(KeyError, match="x"):
        del users["x"]
    assert len(users) == 2


def test_a_table_exists_once_it_has_a_row(app: Tables, users: Table) -> None:
    """`names` returns only tables that have rows."""
    assert app.names() == ["users"]
    app.table("empty")
    for key in users:
        del users[key]
    assert app.names() == []
    for name in ("", "x" * 256, b"users", None):
        with pytest.raises(ValueError, match="can't name a table"):
            app.table(name)  # type: ignore[arg-type]


# --- conditional writes ---


def test_insert_wants_a_new_key(users: Table) -> None:
    """`insert` raises ConflictError with the table and the key if the key exists."""
    users.insert("x", 1)
    with pytest.raises(ConflictError, match="table 'users', key 'x': is there already") as caught:
        users.insert("x", 2)
    assert (caught.value.table, caught.value.key, users["x"]) == ("users", "x", 1)


def test_replace_wants_a_key_and_its_value(users: Table) -> None:
    """`replace` raises ConflictError if the key is missing or its value is not `expected`."""
    with pytest.raises(ConflictError, match="is not there"):
        users.replace("x", 1)
    users["x"] = {"n": 1}
    users.replace("x", {"n": 2}, expected={"n": 1})
    with pytest.raises(ConflictError, match="another value"):
        users.replace("x", {"n": 3}, expected={"n": 1})
    users.replace("x", {"n": 4})
    assert users["x"] == {"n": 4}


def test_delete_wants_a_key(users: Table) -> None:
    """`delete` raises ConflictError if the key is missing."""
    users.delete(("de", 1))
    with pytest.raises(ConflictError, match="is not there"):
        users.delete(("de", 1))


def test_discard_removes_a_key_that_may_be_missing(app: Tables, users: Table) -> None:
    """`discard` returns the LSN of the removal, or None. In a transaction, it reads nothing."""
    assert users.discard(("de", 1)) == app.journal.last_lsn
    assert users.discard(("de", 1)) is None
    with app.transaction() as t:
        t[users].discard(("fr", 2))
        t[users].discard("missing")
        users_after = dict(t[users].items())
    assert ("fr", 2) not in users_after
    assert dict(users.items()) == users_after


def test_updates_of_one_key_by_many_threads_all_count(users: Table) -> None:
    """`update` runs its function again if the value was changed meanwhile."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: users.update("n", lambda n: n + 1, default=0), range(400)))
    assert users["n"] == 400


# --- durability ---


def test_sync_waits_for_every_change_before_it(disk: SimulatedDisk) -> None:
    """P2: Changes of any thread, and of transactions, survive a power cut after `sync`."""
    app = open_tables(disk)
    table = app.table("t")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: table.__setitem__(key, key), range(20)))
    with app.transaction() as t:
        t[table]["last"] = 1
    app.sync(timeout_s=TIMEOUT_S)
    table["lost"] = 1
    disk.power_cut(lose)
    with suppress(FailedError):
        app.close(timeout_s=TIMEOUT_S)
    with open_tables(disk) as app:
        assert set(app.table("t")) == {*range(20), "last"}


# --- readers ---


def test_read_shows_what_is_durable(disk: SimulatedDisk) -> None:
    """`read` shows durable rows, with or without a live writer; `at` shows an earlier moment."""
    with open_tables(disk) as app:
        table = app.table("t")
        table[1] = "first"
        lsn = table.insert(2, "second")
        app.compact()
        table[1] = "changed"
        app.sync(timeout_s=TIMEOUT_S)
        app.table("u")["x"] = {1: 2}
        app.sync(timeout_s=TIMEOUT_S)
        view = Tables.read(PATH, disk=disk)
        assert dict(view.table("t").items()) == {1: "changed", 2: "second"}
        assert (view.lsn, view.names()) == (3, ["t"])  # the last commit has no evidence yet
    view = Tables.read(PATH, disk=disk)
    assert (view.lsn, view.names(), view.table("u")["x"]) == (4, ["t", "u"], {1: 2})
    earlier = Tables.read(PATH, at=lsn, disk=disk)
    assert (earlier.lsn, dict(earlier.table("t").items())) == (2, {1: "first", 2: "second"})
    assert len(view.table("none")) == 0
    assert list(view.table("t").prefix("x")) == []


def test_read_refuses_another_applications_journal(disk: SimulatedDisk) -> None:
    """`read` refuses the records and the checkpoints of another application."""
    with open_on(disk) as journal:
        put(journal, ["queued", "a"], ["queued", "b"])
    with pytest.raises(FormatVersionError, match=r"not a record of 'journal\.tables/1'"):
        Tables.read(PATH, disk=disk, at=1)
    with open_on(disk, application="jobs/1") as journal:
        journal.compact(lambda: (journal.last_lsn, []))
    with pytest.raises(FormatVersionError, match="a checkpoint of application 'jobs/1'"):
        Tables.read(PATH, disk=disk)


def test_an_item_of_a_newer_version_is_refused(disk: SimulatedDisk) -> None:
    """The error names the checkpoint, for a writer and for a reader."""
    item = {"table": "t", "key": 1, "new": True, "packed": b"\x01"}
    with open_on(disk, application="journal.tables/1") as journal:
        put(journal, ["rows", ["t", encode_key(1), b"\x01"]])
        journal.compact(lambda: (journal.last_lsn, [item]))
    with pytest.raises(FormatVersionError, match="no fields table, key, new, packed"):
        open_tables(disk)
    with pytest.raises(FormatVersionError, match=r"checkpoint-.*not one of 'journal\.tables/1'"):
        Tables.read(PATH, disk=disk)


def test_another_applications_journal_is_refused(disk: SimulatedDisk) -> None:
    """An open refuses a record that Tables never write, and changes nothing."""
    for record in ("x", ["rows"], ["rows", ["t", b"x", b"\xc0"]], ["rows", ["t", "k", None]]):
        other = SimulatedDisk()
        with open_on(other) as journal:
            put(journal, record)
        before = other.contents(PATH)
        with pytest.raises(JournalError, match="apply raised"):
            open_tables(other)
        assert other.contents(PATH) == before
