"""Changes of tables beside a model, with slow consumers, compaction and power cuts."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from journal import CompactedError, FailedError, JournalError, TableChanges, Tables, TablesView
from journal._tables.chunked_map import rows_between
from journal._tables.expiry import expiry_of
from journal._tables.keys import decode_key
from journal._tables.publisher import Publisher
from journal._tables.values import unpack_value
from journal.testing import SimulatedDisk, lose
from tests.crash.crash_support import drawn_by
from tests.support import PATH, TIMEOUT_S, options
from tests.tiers import examples

KEYS = st.sampled_from([1, 2, "a", ("a", b"\0")])
LARGE: list[Any] = ["x" * 400, {1: b"\xff" * 300}]  # written in pieces
VALUES = st.sampled_from([None, 1, b"\xff", {"n": [1]}, *LARGE])
TIMES_S = st.none() | st.integers(1, 20)
NAMES = st.sampled_from(["t", "u"])
WRITES = st.lists(st.tuples(NAMES, KEYS, VALUES | st.just(...), TIMES_S), min_size=1, max_size=5)

Contents = dict[tuple[str, Any], tuple[Any, float | None]]


def open_tables(disk: SimulatedDisk) -> Tables:
    """Open tables with small records and segments."""
    return Tables.open(PATH, options=options(record_bytes_max=256, segment_bytes=4096), disk=disk)


def contents(app: Tables | TablesView) -> Contents:
    """Return all rows of all tables, each with its time, including expired ones."""
    rows: Contents = {}
    for name, table in app._machine.tables.items():
        for key, stored in rows_between(table.chunks_between(), b"", None):
            time_ms = expiry_of(stored)
            time_s = None if time_ms is None else time_ms / 1000
            rows[name, decode_key(key)] = unpack_value(stored), time_s
    return rows


class Consumer:
    """A replica of the tables, kept up to date by changes."""

    def __init__(self, changes: TableChanges, after: int, rows: Contents) -> None:
        self.changes = changes
        self.handled_lsn = after
        self.replica = dict(rows)
        self.lsn = 0  # of the last change, whose transaction may have more

    def read(self, count: int, history: dict[int, Contents]) -> None:
        """Read at most `count` changes. After each transaction, the replica is what the tables
        were."""
        while count and not self.changes._must_wait():
            change = next(self.changes, None)
            if change is None:
                return
            count -= 1
            assert self.handled_lsn < change.lsn
            assert self.lsn in (0, change.lsn)
            self.lsn = 0 if change.last else change.lsn
            if change.removed:
                assert change.value is change.expires_at is None
                self.replica.pop((change.table, change.key), None)
            else:
                self.replica[change.table, change.key] = change.value, change.expires_at
            if change.last:
                self.handled_lsn = change.lsn
                assert self.replica == history.get(change.lsn, self.replica)


class ChangesRun(RuleBasedStateMachine):
    """Tables with consumers that read a few changes now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.disk.clock_ns = self.disk.tick_ns = 0
        self.history: dict[int, Contents] = {}
        self.consumers: list[Consumer] = []
        self.app = open_tables(self.disk)
        self.note()

    def teardown(self) -> None:
        with suppress(FailedError):  # Hypothesis may end a run in the middle of a power cut
            self.app.close(timeout_s=TIMEOUT_S)

    def note(self) -> None:
        self.history[self.app.journal.last_lsn] = contents(self.app)

    def read(self, consumer: Consumer, count: int) -> None:
        """Let a consumer read. If it is told that it has missed changes, begin it anew."""
        error: CompactedError | None = None
        try:
            consumer.read(count, self.history)
        except CompactedError as missed:
            error = missed
        if error:
            assert error.lsn is not None
            assert consumer.handled_lsn < error.lsn < error.first_lsn
            self.consumers[self.consumers.index(consumer)] = self.begun()

    def begun(self) -> Consumer:
        """Return a consumer that begins with the durable rows, as a program does."""
        view = Tables.read(PATH, disk=self.disk)
        return Consumer(self.app.changes(view.lsn), view.lsn, contents(view))

    @rule(writes=WRITES)
    def transaction(self, writes: list[tuple[str, Any, Any, int | None]]) -> None:
        with self.app.transaction() as t:
            for name, key, value, time_s in writes:
                rows = t[self.app.table(name)]
                if value is not ...:
                    rows.set(key, value, expires_at=time_s)
                elif key in rows:
                    del rows[key]
        self.note()

    @rule(name=NAMES, key=KEYS, value=VALUES)
    def set(self, name: str, key: Any, value: Any) -> None:
        self.app.table(name)[key] = value
        self.note()

    @rule(key=KEYS, value=st.sampled_from(LARGE), is_broken_off=st.booleans(), data=st.data())
    def between_pieces(self, key: Any, value: Any, is_broken_off: bool, data: Any) -> None:
        """Do other things between the pieces of a value, and drop them or publish them."""
        app, patch = self.app, pytest.MonkeyPatch()
        write_record = Publisher._write_record

        def act(publisher: Publisher, *args: Any) -> int | None:
            patch.undo()
            self.set("u", 1, 1)
            for action in data.draw(st.lists(st.sampled_from(["compact", "begin"]), max_size=2)):
                if action == "compact":
                    self.compact()
                else:
                    self.consumers.append(self.begun())
            self.read_some(data)
            if is_broken_off:
                raise ZeroDivisionError
            return write_record(publisher, *args)

        patch.setattr(Publisher, "_write_record", act)
        with suppress(ZeroDivisionError):
            app.table("t")[key] = value
        self.note()

    @rule(seconds=st.integers(1, 6))
    def wait(self, seconds: int) -> None:
        self.disk.clock_ns += seconds * 10**9

    @rule()
    def sync(self) -> None:
        self.app.sync(timeout_s=TIMEOUT_S)

    @rule()
    def compact(self) -> None:
        self.app.compact()

    @rule()
    def compact_often(self) -> None:
        """Fill and compact the log, so that slow consumers miss changes."""
        for n in range(3):
            for _ in range(12):
                self.app.table("t")[1] = "x" * 120
                self.app.sync(timeout_s=TIMEOUT_S)
            self.app.table("t")[2] = n
            self.app.compact()
        self.note()

    @rule()
    def begin(self) -> None:
        self.consumers.append(self.begun())

    @precondition(lambda self: self.consumers)
    @rule(data=st.data())
    def read_some(self, data: st.DataObject) -> None:
        if self.consumers:
            consumer = data.draw(st.sampled_from(self.consumers))
            self.read(consumer, data.draw(st.integers(1, 6)))

    @precondition(lambda self: self.consumers)
    @rule()
    def check_all(self) -> None:
        """Let all consumers read all changes. Then each has the rows of the tables."""
        self.app.sync(timeout_s=TIMEOUT_S)
        # A consumer that was in the middle of a batch may wait once before it reads on.
        for _ in range(3):
            for consumer in list(self.consumers):
                self.read(consumer, 10_000)
        for consumer in self.consumers:
            assert consumer.replica == contents(self.app)

    @rule()
    def reopen(self) -> None:
        self.app.close(timeout_s=TIMEOUT_S)
        for consumer in list(self.consumers):
            self.read_to_the_end(consumer)
        self.restart()

    @rule(data=st.data())
    def power_cut(self, data: st.DataObject) -> None:
        """Cut the power. Nothing that a consumer has read is lost."""
        self.disk.power_cut(drawn_by(data))
        with suppress(FailedError, JournalError):
            self.app.close(timeout_s=TIMEOUT_S)
        self.restart()

    def read_to_the_end(self, consumer: Consumer) -> None:
        try:
            while not consumer.changes._place.is_over:
                consumer.read(10_000, self.history)
            assert list(consumer.changes) == []
            assert consumer.replica == contents(self.app)
        except CompactedError:
            self.consumers.remove(consumer)

    def restart(self) -> None:
        """Open the tables again. Each consumer goes on after the last transaction it has handled,
        unless it has read a part of the next one, which it has to undo."""
        self.app = open_tables(self.disk)
        for consumer in self.consumers:
            assert max(consumer.handled_lsn, consumer.lsn) <= self.app.journal.last_lsn
        last_lsn = self.app.journal.last_lsn
        self.history = {lsn: rows for lsn, rows in self.history.items() if lsn < last_lsn}
        self.history[last_lsn] = contents(self.app)
        whole = [consumer for consumer in self.consumers if not consumer.lsn]
        self.consumers = [
            Consumer(self.app.changes(c.handled_lsn), c.handled_lsn, c.replica) for c in whole
        ]


def test_no_power_cut_takes_away_what_was_read() -> None:
    """P2: A change is durable when it is read, whatever the log has."""
    for count in range(1000):
        disk = SimulatedDisk()
        app = open_tables(disk)
        reader = EagerReader(disk, app.changes(0), count)
        disk.before = reader.read
        with suppress(JournalError, OSError):
            for n in range(4):
                with app.transaction() as t:
                    t[app.table("t")][1] = LARGE[0] if n % 2 else n
                    t[app.table("u")][n] = n
                app.sync(timeout_s=TIMEOUT_S)
                if n == 2:
                    app.compact()
        is_over = not disk.crashed
        with suppress(JournalError, OSError):
            app.close(timeout_s=TIMEOUT_S)
        disk.before = None
        disk.power_cut(lose)
        with open_tables(disk) as recovered:
            assert reader.lsn <= recovered.journal.last_lsn
        if is_over:
            assert reader.lsn > 0
            return
    raise AssertionError("too many operations")


class EagerReader:
    """A reader of all that it can get before each sync, when the log has more than is durable.
    After `syncs` of them, the disk crashes."""

    def __init__(self, disk: SimulatedDisk, changes: TableChanges, syncs: int) -> None:
        self.lsn = 0
        self._disk = disk
        self._syncs_left = syncs
        self._changes = changes
        self._turn = threading.Lock()  # reading is an operation of the disk, too

    def read(self, operation: str, path: str) -> None:
        """Read all changes that are delivered now."""
        if operation == "sync" and self._turn.acquire(blocking=False):
            try:
                with suppress(JournalError, OSError):
                    while not self._changes._must_wait():
                        change = next(self._changes, None)
                        if change is None:
                            return
                        self.lsn = change.lsn
            finally:
                self._turn.release()
            if not self._syncs_left:
                self._disk.crash_after(0)
            self._syncs_left -= 1


TestChangesRun = ChangesRun.TestCase
TestChangesRun.settings = settings(max_examples=examples(60), stateful_step_count=25)
