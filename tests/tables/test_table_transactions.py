"""Transactions of tables: their reads, their writes, and which changes conflict."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from journal import (
    ConflictError,
    JournalError,
    Table,
    Tables,
    Transaction,
    TransactionTooLargeError,
)
from journal.testing import SimulatedDisk
from tests.support import TIMEOUT_S
from tests.tables.tables_support import open_tables, rows


def test_a_transaction_writes_all_or_nothing(disk: SimulatedDisk) -> None:
    """P3: A transaction is one record, so a crash leaves all of its rows or none."""
    with open_tables(disk) as app:
        with app.transaction() as t:
            t[app.table("a")][1] = "a"
            t[app.table("b")][2] = "b"
        assert t.lsn == app.journal.last_lsn == 1
    with open_tables(disk) as app:
        assert (rows(app.table("a")), rows(app.table("b"))) == ({1: "a"}, {2: "b"})


def test_an_exception_in_the_body_writes_nothing(app: Tables, users: Table) -> None:
    """An exception in the body propagates, and nothing is written."""
    with pytest.raises(ZeroDivisionError), app.transaction() as t:
        t[users]["x"] = 1
        1 / 0  # noqa: B018
    assert "x" not in users


def test_reads_see_the_transactions_own_writes(app: Tables, users: Table) -> None:
    """Single reads and ranges in a transaction see its writes; nobody else does before its end."""
    with app.transaction() as t:
        t_users = t[users]
        t_users[("de", 0)] = "new"
        del t_users[("fr", 2)]
        t_users[("de", 1)] = "changed"
        assert ("fr", 2) not in t_users
        assert t_users[("de", 0)] == "new"
        assert list(t_users.range()) == [(("de", 0), "new"), (("de", 1), "changed")]
        assert list(t_users.prefix(("de",), reverse=True, limit=1)) == [(("de", 1), "changed")]
        assert rows(users) == {("de", 1): {"name": "Ada"}, ("fr", 2): {"name": "Blaise"}}
    assert rows(users) == {("de", 0): "new", ("de", 1): "changed"}


def tried(call: Callable[..., object], *args: Any) -> None:
    """Make a call that conflicts in the body, which goes on."""
    with pytest.raises(ConflictError):
        call(*args)


Body = Callable[[Any], object]
# What the body does with table `t`, what another thread does with it before the end, and the key
# of the conflict: an Ellipsis where there is none.
CONFLICTS: list[tuple[str, Body, Callable[[Table], object], Any]] = [
    ("read a, a set", lambda t: t["a"], lambda o: o.__setitem__("a", 2), "a"),
    ("read a, a set to an equal value", lambda t: t["a"], lambda o: o.__setitem__("a", "one"), "a"),
    ("read a, a removed", lambda t: t["a"], lambda o: o.delete("a"), "a"),
    ("read a, b set", lambda t: t["a"], lambda o: o.__setitem__("b", 2), ...),
    ("looked for x, x set", lambda t: "x" in t, lambda o: o.__setitem__("x", 1), "x"),
    ("get x, y set", lambda t: t.get("x"), lambda o: o.__setitem__("y", 1), ...),
    ("write a unread, a set", lambda t: t.__setitem__("a", 3),
     lambda o: o.__setitem__("a", 2), ...),
    ("write a unread, a removed", lambda t: t.__setitem__("a", 3), lambda o: o.delete("a"), ...),
    ("insert x, x set", lambda t: t.insert("x", 1), lambda o: o.__setitem__("x", 1), "x"),
    ("insert x, y set", lambda t: t.insert("x", 1), lambda o: o.__setitem__("y", 1), ...),
    ("replace a, a set", lambda t: t.replace("a", 5), lambda o: o.__setitem__("a", 2), "a"),
    ("replace a expecting one, a set to one", lambda t: t.replace("a", 5, expected="one"),
     lambda o: o.__setitem__("a", "one"), ...),
    ("replace a expecting one, a set to 2", lambda t: t.replace("a", 5, expected="one"),
     lambda o: o.__setitem__("a", 2), "a"),
    ("replace a expecting one, a removed", lambda t: t.replace("a", 5, expected="one"),
     lambda o: o.delete("a"), "a"),
    ("read a, set a to 2, replace a expecting 2, a set to 2",
     lambda t: (t["a"], t.__setitem__("a", 2), t.replace("a", 3, expected=2)),
     lambda o: o.__setitem__("a", 2), "a"),
    ("replace a expecting one, then 5, a set to 5",
     lambda t: (t.replace("a", 5, expected="one"), t.replace("a", 6, expected=5)),
     lambda o: o.__setitem__("a", 5), "a"),
    ("replace a expecting one, then 5, a set to one",
     lambda t: (t.replace("a", 5, expected="one"), t.replace("a", 6, expected=5)),
     lambda o: o.__setitem__("a", "one"), ...),
    ("read a, replace a expecting one, a set to one",
     lambda t: (t["a"], t.replace("a", 5, expected="one")),
     lambda o: o.__setitem__("a", "one"), "a"),
    ("delete a, a set", lambda t: t.delete("a"), lambda o: o.__setitem__("a", 2), ...),
    ("try to delete x, x set", lambda t: tried(t.delete, "x"),
     lambda o: o.__setitem__("x", 1), "x"),
    ("try to delete x, y set", lambda t: tried(t.delete, "x"),
     lambda o: o.__setitem__("y", 1), ...),
    ("try to insert a, a removed", lambda t: tried(t.insert, "a", 1), lambda o: o.delete("a"), "a"),
    ("discard a, a set", lambda t: t.discard("a"), lambda o: o.__setitem__("a", 2), ...),
    ("discard a, a removed", lambda t: t.discard("a"), lambda o: o.delete("a"), ...),
    ("delete a, a removed", lambda t: t.delete("a"), lambda o: o.delete("a"), "a"),
    ("read range, row in it set", lambda t: list(t.range("a", "c")),
     lambda o: o.__setitem__("b", 2), None),
    ("read range, row in it inserted", lambda t: list(t.range("a", "c")),
     lambda o: o.__setitem__("aa", 2), None),
    ("read empty range, row in it inserted", lambda t: list(t.prefix("zz")),
     lambda o: o.__setitem__("zzz", 2), None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "change", "key"), [row[1:] for row in CONFLICTS], ids=[row[0] for row in CONFLICTS]
)
def test_what_conflicts(
    app: Tables, body: Body, change: Callable[[Table], object], key: Any
) -> None:
    """A changed read conflicts, and nothing is written; a blind write never conflicts."""
    table = app.table("t")
    table["a"], table["b"] = "one", "one"

    def run() -> None:
        with app.transaction() as t:
            body(t[table])
            t[table]["own"] = 1
            other = threading.Thread(target=change, args=(table,))
            other.start()
            other.join(TIMEOUT_S)

    if key is ...:
        run()
        assert table["own"] == 1
        return
    with pytest.raises(ConflictError, match="nothing was written: try again") as caught:
        run()
    assert (caught.value.table, caught.value.key) == ("t", key)
    assert "own" not in table


def test_a_read_only_transaction_conflicts_too(app: Tables, users: Table) -> None:
    """A transaction without writes raises ConflictError unless its reads are of one moment."""
    other = threading.Thread(target=users.delete, args=(("de", 1),))
    with pytest.raises(ConflictError), app.transaction() as t:
        t[users][("de", 1)]
        other.start()
        other.join(TIMEOUT_S)


def test_transact_retries_after_a_conflict(app: Tables, users: Table) -> None:
    """After a conflict, `transact` calls its function again, at most `attempts` times in all."""
    runs = 0

    def count(t: Transaction) -> str:
        nonlocal runs
        runs += 1
        t[users].get("x")
        if runs < 3:
            other = threading.Thread(target=users.__setitem__, args=("x", runs))
            other.start()
            other.join(TIMEOUT_S)
        t[users]["done"] = runs
        return "result"

    assert app.transact(count) == "result"
    assert (runs, users["done"]) == (3, 3)
    runs = 0
    with pytest.raises(ConflictError):
        app.transact(count, attempts=2)
    with pytest.raises(ValueError, match="attempts is 0"):
        app.transact(count, attempts=0)


@pytest.mark.parametrize("attempts", [1, 2])
def test_transact_retries_what_reads_of_two_moments_raise(
    app: Tables, users: Table, attempts: int
) -> None:
    """An error that a function raises after it has read rows of different moments is a conflict."""
    calls = []

    def move(t: Transaction) -> object:
        first = next(key for key, _ in t[users].range(limit=1))
        calls.append(first)
        if len(calls) == 1:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(users.delete, first).result(TIMEOUT_S)
        return t[users][first]  # raises KeyError the first time

    if attempts == 1:
        with pytest.raises(ConflictError) as caught:
            app.transact(move, attempts=attempts)
        assert isinstance(caught.value.__cause__, KeyError)
    else:
        assert app.transact(move, attempts=attempts) == {"name": "Blaise"}
        assert calls == [("de", 1), ("fr", 2)]


def test_transact_never_retries_a_signal_handlers_exception(app: Tables, users: Table) -> None:
    """An exception of a type that stale reads do not cause propagates, even after stale reads."""

    class LimitError(Exception):
        pass

    def run(t: Transaction) -> None:
        t[users].get("x")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(users.insert, "x", 1).result(TIMEOUT_S)
        raise LimitError

    with pytest.raises(LimitError):
        app.transact(run)


def test_transact_does_not_retry_what_true_reads_raise(app: Tables, users: Table) -> None:
    """An exception of the function propagates if nothing that it read has changed."""
    calls = []

    def fail(t: Transaction) -> None:
        calls.append(t[users].get("missing"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app.transact(fail)
    assert len(calls) == 1


def test_transact_does_not_retry_what_a_commit_raises(
    app: Tables, users: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception after the writes have taken effect never makes them take effect twice."""
    publish = app._publisher.publish

    def strike(*arguments: Any) -> None:
        publish(*arguments)
        raise ZeroDivisionError

    def add(t: Transaction) -> None:
        t[users]["count"] = t[users].get("count", 0) + 1

    monkeypatch.setattr(app._publisher, "publish", strike)
    with pytest.raises(ZeroDivisionError):
        app.transact(add)
    assert users["count"] == 1


def test_update_runs_under_the_lock(app: Tables, users: Table) -> None:
    """`update` loses no change by any thread, and returns its function's result."""

    def move(t: Transaction) -> int:
        a, b = t[users].get("a", 100), t[users].get("b", 0)
        t[users]["a"], t[users]["b"] = a - 1, b + 1
        return int(b)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: app.update(move), range(50)))
    assert sorted(results) == list(range(50))
    assert (users["a"], users["b"]) == (50, 50)

    def spoil(t: Transaction) -> None:
        t[users]["x"] = 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app.update(spoil)
    assert "x" not in users


def test_a_direct_write_in_a_body_is_refused(app: Tables, users: Table) -> None:
    """A body's thread can't write directly, call `update` or nest transactions; others can."""
    other = app.table("other")
    with app.transaction() as t:
        for call in (
            lambda: users.__setitem__("x", 1),
            lambda: users.delete(("de", 1)),
            lambda: users.insert("x", 1),
            lambda: users.update("x", lambda x: x),
            lambda: app.update(lambda _: None),
            lambda: app.transaction().__enter__(),
            lambda: app.transact(lambda _: None),
        ):
            with pytest.raises(JournalError, match="inside a transaction's body"):
                call()
        thread = threading.Thread(target=other.__setitem__, args=("y", 1))
        thread.start()
        thread.join(TIMEOUT_S)
        t[users]["z"] = 1
    users["after"] = 1
    assert (other["y"], users["z"]) == (1, 1)


def test_transact_sets_the_lsn_of_its_last_transaction(app: Tables, users: Table) -> None:
    """The transaction that `transact` passes to its function states the LSN afterwards."""
    called: list[Transaction] = []

    def body(t: Transaction) -> None:
        called.append(t)
        t[users]["x"] = t[users].get("x", 0) + 1
        if len(called) == 1:
            thread = threading.Thread(target=users.set, args=("x", 5))
            thread.start()
            thread.join(TIMEOUT_S)

    app.transact(body)
    assert [t.lsn for t in called] == [None, app.journal.last_lsn]
    assert users["x"] == 6


@pytest.mark.parametrize("way", ["transaction", "transact", "update"])
def test_a_transaction_that_has_ended_is_refused(app: Tables, users: Table, way: str) -> None:
    """Reads and writes through a transaction that has ended raise JournalError."""
    if way == "transaction":
        with app.transaction() as t:
            t_users = t[users]
    else:
        t_users = getattr(app, way)(lambda t: t[users])
    for call in (
        lambda: t_users["x"],
        lambda: t_users.insert("x", 1),
        lambda: list(t_users.range()),
    ):
        with pytest.raises(JournalError, match="has ended"):
            call()


def test_a_transaction_has_a_limit(disk: SimulatedDisk) -> None:
    """A transaction uses at most `transaction_keys_max` keys, so that its hold is bounded."""
    with open_tables(disk, transaction_keys_max=3) as app:
        table = app.table("t")
        with app.transaction() as t:
            for key in (1, 1, 2, 3):
                t[table][key] = key
        with pytest.raises(TransactionTooLargeError, match="more than 3 keys"):
            with app.transaction() as t:
                for key in range(4):
                    t[table].get(key)
        assert len(table) == 3


def test_a_table_of_other_tables_is_refused(app: Tables) -> None:
    """A transaction refuses a table of another journal."""
    with open_tables(SimulatedDisk()) as others, app.transaction() as t:
        with pytest.raises(ValueError, match="belongs to other Tables"):
            t[others.table("t")]


def test_a_transaction_takes_tables_only(app: Tables) -> None:
    """A table's name in place of the table raises a clear TypeError, as do `in` and iteration."""
    with app.transaction() as t:
        for call in (lambda: t["users"], lambda: "users" in t, lambda: list(t)):  # type: ignore
            with pytest.raises(TypeError, match=r"give a table, as in t\[table\]"):
                call()


def test_a_table_in_a_transaction_is_iterated_like_a_table(app: Tables, users: Table) -> None:
    """Iteration in a transaction yields its keys in order, and conflicts like a range."""
    with pytest.raises(ConflictError), app.transaction() as t:
        t[users]["a"] = 1
        assert list(t[users]) == ["a", ("de", 1), ("fr", 2)]
        assert dict(t[users].items()) == {"a": 1, **rows(users)}
        with ThreadPoolExecutor(1) as pool:
            pool.submit(users.insert, "b", 2).result(TIMEOUT_S)


# --- event loops ---


def test_tasks_have_transactions_of_their_own(app: Tables, users: Table) -> None:
    """`async with` works like `with`; a task that a body starts is outside of the transaction."""

    async def main() -> None:
        async with app.transaction() as t:
            t[users]["x"] = 1

            async def other() -> None:
                users["direct"] = 1
                async with app.transaction() as inner:
                    inner[users]["inner"] = 1

            await asyncio.create_task(other())
            with pytest.raises(JournalError, match="inside a transaction's body"):
                users["y"] = 1
        await app.durable()

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))
    assert {"x", "direct", "inner"} <= set(users)
    assert app.stats().durable_lsn == app.journal.last_lsn
