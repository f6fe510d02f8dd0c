"""Tables.changes: the durable changes in order, for a reader that may be slow or resume later."""

from __future__ import annotations

import asyncio
import errno
import signal
import threading
from collections.abc import Iterable
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    ClosedError,
    CompactedError,
    DurableDict,
    FailedError,
    JournalError,
    TableChange,
    Tables,
)
from journal.testing import SimulatedDisk, SimulatedFile
from tests.support import PATH, TIMEOUT_S, options
from tests.tables.tables_support import files_open_for_reading, open_tables

KEYS = st.sampled_from([1, 2, "a", ("a", b"\0")])
VALUES = st.sampled_from([None, 1, b"\xff", {"n": [1]}])
WRITES = st.lists(st.tuples(st.sampled_from("tu"), KEYS, VALUES | st.just(...)), max_size=4)


class Consumer:
    """A thread that collects changes until they end."""

    def __init__(self, changes: Iterable[TableChange]) -> None:
        self.seen: list[TableChange] = []
        self.error: Exception | None = None
        self.has_seen_one = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(changes,))
        self._thread.start()

    def _run(self, changes: Iterable[TableChange]) -> None:
        try:
            for change in changes:
                self.seen.append(change)
                self.has_seen_one.set()
        except Exception as error:
            self.error = error

    def join(self) -> list[TableChange]:
        """Wait for the end of the changes, and return all of them."""
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        return self.seen


def write(app: Tables, writes: list[tuple[str, Any, Any]]) -> None:
    """Write in one transaction; a value of `...` removes the key."""
    with app.transaction() as t:
        for name, key, value in writes:
            rows = t[app.table(name)]
            if value is not ...:
                rows[key] = value
            elif key in rows:
                del rows[key]


def contents(app: Tables) -> dict[tuple[str, Any], Any]:
    return {(name, key): v for name in app.names() for key, v in app.table(name).items()}


# --- order and content ---


def test_a_change_says_what_happened(app: Tables) -> None:
    """Fields of a change are its LSN, table, key, value and time of expiry. A removal and the last
    change of a transaction are marked."""
    users, orders = app.table("users"), app.table("orders")
    changes = app.changes(0)
    with app.transaction() as t:
        t[users][("de", 7)] = {"name": "Ada"}
        t[orders].insert((7, 1), b"\xff", expires_at=4e9)
    users.delete(("de", 7))
    app.close()
    assert list(changes) == [
        TableChange(1, "users", ("de", 7), {"name": "Ada"}, None, removed=False, last=False),
        TableChange(1, "orders", (7, 1), b"\xff", 4e9, removed=False, last=True),
        TableChange(2, "users", ("de", 7), None, None, removed=True, last=True),
    ]


@given(runs=st.lists(st.lists(WRITES, max_size=4), min_size=1, max_size=4), data=st.data())
def test_changes_lead_to_the_tables(
    runs: list[list[list[tuple[str, Any, Any]]]], data: st.DataObject
) -> None:
    """Replay of all changes on a dict gives the tables. Those after an LSN are the rest of them.

    This holds across openings, and across checkpoints that retain the log.
    """
    disk = SimulatedDisk()
    for run in runs:
        with Tables.open(PATH, options=options(checkpoints_kept=100), disk=disk) as app:
            for writes in run:
                write(app, writes)
            app.compact()
            after = data.draw(st.integers(0, app.journal.last_lsn))
            every, later = app.changes(0), app.changes(after)
        seen = list(every)
    model: dict[tuple[str, Any], Any] = {}
    for change in seen:
        model[change.table, change.key] = change.value
        if change.removed:
            del model[change.table, change.key]
    assert model == contents(app)
    assert list(later) == [change for change in seen if change.lsn > after]
    groups = [[change.last for change in group] for _, group in groupby(seen, lambda c: c.lsn)]
    assert all(flags == [False] * (len(flags) - 1) + [True] for flags in groups)
    assert [change.lsn for change in seen] == sorted(change.lsn for change in seen)


def test_changes_begin_at_the_call(app: Tables) -> None:
    """The first change without an LSN is the first one after the call."""
    app.table("t")["before"] = 1
    changes = app.changes()
    app.table("t")["after"] = 2
    app.close()
    assert [(change.lsn, change.key) for change in changes] == [(2, "after")]


@pytest.mark.parametrize("after", [-1, 2, True, 1.0, "1"])
def test_an_lsn_that_was_never_appended_is_refused(app: Tables, after: Any) -> None:
    """A consumer that is ahead of the log would skip changes. The message gives the last LSN."""
    app.table("t")["a"] = 1
    with pytest.raises(ValueError, match="up to the last one, which is 1, not "):
        app.changes(after)


# --- waiting ---


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_a_change_arrives_once_it_is_durable(disk: SimulatedDisk, durability: Any) -> None:
    """P2: A change arrives when it is durable, not before, and not only when the tables close."""
    given_options = options(durability=durability)
    with Tables.open(PATH, options=given_options, disk=disk) as app:
        consumer = Consumer(app.changes())
        app.table("t")["a"] = 1
        assert not consumer.has_seen_one.wait(0.1)
        app.sync(timeout_s=TIMEOUT_S)
        assert consumer.has_seen_one.wait(TIMEOUT_S)
        app.table("t")["b"] = 2
    assert [change.key for change in consumer.join()] == ["a", "b"]
    assert consumer.error is None


def test_the_last_commit_is_delivered_at_once(app: Tables) -> None:
    """A change needs no later commit, and no idle log, before it arrives."""
    changes = app.changes()
    assert changes._must_wait()
    for key in range(3):
        app.table("t")[key] = key
        assert changes._must_wait()
        app.sync(timeout_s=TIMEOUT_S)
        assert not changes._must_wait()
        assert next(changes).key == key


def test_a_dict_has_changes(disk: SimulatedDisk) -> None:
    """Changes of a dict are those of its table."""
    with DurableDict.open(PATH, options=options(), disk=disk) as settings:
        settings["theme"] = "dark"
        changes = settings.changes(0)
    assert [(change.table, change.key, change.value) for change in changes] == [
        ("items", "theme", "dark")
    ]


def test_changes_end_when_the_tables_are_closed(disk: SimulatedDisk) -> None:
    """Changes that the close committed are delivered, and none that a later writer adds."""
    with open_tables(disk) as app:
        changes = app.changes()
        consumer = Consumer(app.changes())
        app.table("t")["a"] = 1
    with pytest.raises(ClosedError):
        app.changes()
    assert [change.key for change in consumer.join()] == ["a"]
    with open_tables(disk) as later:
        later.table("t")["b"] = 2
    assert [change.key for change in changes] == ["a"]


def test_changes_outlast_the_last_commit(disk: SimulatedDisk) -> None:
    """The end of the log is not the end of the changes while a close is committing."""
    app = open_tables(disk)
    changes = app.changes()
    app.table("t")["a"] = 1
    steps: list[Any] = []

    def step(operation: str, path: str) -> None:
        if operation == "sync":
            disk.before = None
            steps.append(changes._must_wait())

    disk.before = step
    app.close(timeout_s=TIMEOUT_S)
    assert steps == [True]
    assert [change.key for change in changes] == ["a"]


def test_closing_changes_ends_them(app: Tables) -> None:
    """A close by any thread ends the iteration; a second one does nothing."""
    changes = app.changes()
    consumer = Consumer(changes)
    app.table("t")["a"] = 1
    app.sync(timeout_s=TIMEOUT_S)
    assert consumer.has_seen_one.wait(TIMEOUT_S)
    changes.close()
    changes.close()
    assert len(consumer.join()) == 1
    assert list(changes) == []


def test_changes_in_an_event_loop(app: Tables) -> None:
    """A loop with `async for` waits for changes as one with `for` does, and other tasks run."""

    async def main() -> list[Any]:
        async def write_later() -> None:
            for key in range(300):
                app.table("t")[key] = key
            await app.durable()
            app.table("t")["last"] = None
            app.close()

        writer = asyncio.create_task(write_later())
        async with asyncio.timeout(TIMEOUT_S):
            keys = [change.key async for change in app.changes()]
        await writer
        return keys

    assert asyncio.run(main()) == [*range(300), "last"]


# --- foreign code ---


def test_a_consumer_reads_and_writes_tables_in_its_loop(app: Tables) -> None:
    """A consumer's own writes become changes, too. No lock is held while it runs."""
    table = app.table("t")
    table[0] = "x"
    app.sync(timeout_s=TIMEOUT_S)
    with app.changes(0) as changes:
        for change in changes:
            assert table[change.key] == change.value
            if change.key == 3:
                break
            app.update(lambda t, n=change.key: t[table].set(n + 1, "x"))  # type: ignore[misc]
            app.sync(timeout_s=TIMEOUT_S)
    assert list(changes) == []


def test_a_signal_handler_may_close_the_tables(app: Tables) -> None:
    """A close in the middle of a read, or of a wait, ends the changes after the last one."""
    app.table("t")["a"] = 1
    changes = app.changes(0)
    before = signal.signal(signal.SIGALRM, lambda *_: app.close(timeout_s=TIMEOUT_S))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert [change.key for change in changes] == ["a"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_call_during_a_read_is_refused(app: Tables, disk: SimulatedDisk) -> None:
    """A second thread, or a signal handler, can't read the same changes at the same time. A close
    then ends them after the change that is being read."""
    app.table("t")["a"] = app.table("t")["b"] = 1
    app.sync(timeout_s=TIMEOUT_S)
    changes, errors = app.changes(0), []

    def interrupt(operation: str, path: str) -> None:
        disk.before = None
        with pytest.raises(JournalError, match="another call is reading") as caught:
            next(changes)
        errors.append(caught.value)
        changes.close()

    read = disk.open_directory

    def open_directory(*args: Any, **others: Any) -> Any:
        interrupt("", "")
        return read(*args, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "open_directory", open_directory)
        assert [change.key for change in changes] == ["a"]
    assert len(errors) == 1


def test_changes_go_on_after_an_error_of_the_disk(app: Tables, disk: SimulatedDisk) -> None:
    """An OSError of a read propagates. The next call reads on from there."""
    for key in range(3):
        app.table("t")[key] = key
    app.sync(timeout_s=TIMEOUT_S)
    changes = app.changes(0)
    assert next(changes).key == 0
    app.table("t")[3] = 3
    app.sync(timeout_s=TIMEOUT_S)
    assert [next(changes).key, next(changes).key] == [1, 2]

    def fail(*_: Any) -> Any:
        raise OSError(errno.EIO, "a fault")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SimulatedFile, "read", fail)
        with pytest.raises(OSError, match="a fault"):
            next(changes)
    assert next(changes).key == 3


def test_a_dropped_consumer_leaves_nothing(tmp_path: Path) -> None:
    """The files of a consumer that was abandoned in its loop are closed."""
    with Tables.open(tmp_path / "app.d") as app:
        app.table("t")["a"] = 1
        app.sync(timeout_s=TIMEOUT_S)
        before = files_open_for_reading()
        changes = app.changes(0)
        assert next(changes).key == "a"
        assert files_open_for_reading() == before + 1
        del changes
        assert files_open_for_reading() == before


# --- what can't be delivered ---


def test_a_slow_consumer_is_told_what_it_missed(disk: SimulatedDisk) -> None:
    """A CompactedError has the first LSN that was missed, and the first that is retained."""
    with Tables.open(PATH, options=options(), disk=disk) as app:
        table = app.table("t")
        table["a"] = "x" * 8000
        app.sync(timeout_s=TIMEOUT_S)
        slow = app.changes(0)
        assert next(slow).lsn == 1
        for n in range(10):
            table[n] = "x" * 3000
            app.sync(timeout_s=TIMEOUT_S)
            app.compact()
        with pytest.raises(CompactedError) as caught:
            list(slow)
        first_lsn = caught.value.first_lsn
        assert caught.value.lsn == 2
        assert 1 < first_lsn <= 11
        with pytest.raises(CompactedError):
            next(app.changes(0))
        rest = app.changes(first_lsn - 1)
    assert [change.lsn for change in rest] == list(range(first_lsn, 12))


def test_a_failed_journal_ends_the_changes(disk: SimulatedDisk) -> None:
    """The journal's error propagates at each call, because nothing more becomes durable."""
    app = open_tables(disk)
    consumer, changes = Consumer(app.changes()), app.changes()

    def fail(operation: str, path: str) -> None:
        if operation == "sync":
            raise OSError(errno.EIO, "a fault", path)

    disk.before = fail
    app.table("t")["a"] = 1
    with pytest.raises(FailedError):
        app.sync(timeout_s=TIMEOUT_S)
    assert consumer.join() == []
    assert isinstance(consumer.error, FailedError)
    disk.before = None
    for _ in range(2):
        with pytest.raises(FailedError):
            list(changes)
    with pytest.raises(FailedError):
        app.changes()
    with pytest.raises(FailedError):
        app.close(timeout_s=TIMEOUT_S)
    with pytest.raises(FailedError):
        list(changes)


def test_changes_can_be_resumed(app: Tables) -> None:
    """The changes after the last LSN that was handled come once each."""
    for key in range(5):
        app.table("t")[key] = key
    app.sync(timeout_s=TIMEOUT_S)
    with app.changes(0) as changes:
        handled = list(islice(changes, 3))[-1].lsn
    rest = app.changes(handled)
    app.close()
    assert [change.key for change in rest] == [3, 4]
