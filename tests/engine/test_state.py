"""DurableState: the README's example, update and read, recovery."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    BufferFullError,
    CowTable,
    DurableState,
    FailedError,
    FormatVersionError,
    RecordError,
)
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
from tests.engine.state_support import len_of_rows, put, setting, state_on
from tests.support import (
    PATH,
    TIMEOUT_S,
    Table,
    Watched,
    crash,
    logged,
    names,
)

# --- the example of the page ---


class Jobs:
    application = "jobs/1"

    def __init__(self) -> None:
        self.table: CowTable[str, Any] = CowTable()

    def load(self, item: Any) -> None:
        self.table[item["id"]] = item

    def apply(self, lsn: int, record: Any) -> None:
        state, key = record
        self.table[key] = {"id": key, "state": state}

    def freeze(self) -> Any:
        return self.table.freeze()


def test_a_users_whole_program(tmp_path: Path) -> None:
    """The example of the public names runs as it stands, again and again."""
    for _ in range(3):
        with DurableState.open(tmp_path / "jobs.d", Jobs()) as jobs:
            jobs.wait_durable(
                jobs.update(lambda m: ["queued", "a"] if "a" not in m.table else None)
            )
            assert dict(jobs.machine.table) == {"a": {"id": "a", "state": "queued"}}
            assert jobs.journal.last_lsn == 1


# --- update and read ---


def test_update_appends_and_applies(disk: SimulatedDisk) -> None:
    """`decide` sees the machine; its record is appended, applied under its LSN, and seen by the
    next look; None is nothing to do."""
    with state_on(disk) as state:
        assert state.update(partial(setting, "a", 1)) == 1
        assert state.update(lambda m: ["a", m.rows["a"][1] + 1]) == 2
        assert state.update(lambda m: None) is None
        assert state.read(lambda m: m.rows["a"][1]) == 2
        assert state.machine.applied == [1, 2]
        state.wait_durable(2)
        assert (logged(state.journal), state.journal.last_lsn) == ([["a", 1], ["a", 2]], 2)


def test_update_batch_is_one_batch(disk: SimulatedDisk) -> None:
    """P3: all of `decide`'s records in one frame, each applied under its own LSN; none: None."""
    with state_on(disk) as state:
        put(state, "a", 1)
        assert state.update_batch(lambda m: [["b", 2], ["c", 3], ["a", None]]) == 4
        assert state.update_batch(lambda m: []) is None
        assert state.machine.applied == [1, 2, 3, 4]
        assert state.machine.content() == {"b": 2, "c": 3}
        state.wait_durable()
        crash(state.journal, disk)
    with state_on(disk) as state:
        assert state.machine.content() == {"b": 2, "c": 3}


def test_a_batch_may_be_any_iterable(disk: SimulatedDisk) -> None:
    """A tuple or a generator from `decide` is a batch like a list, and no reason to fail."""
    with state_on(disk) as state:
        assert state.update_batch(lambda m: (["a", n] for n in range(3))) == 3  # type: ignore[arg-type,return-value]
        assert state.update_batch(lambda m: (["b", 1],)) == 4  # type: ignore[arg-type,return-value]
        assert state.machine.content() == {"a": 2, "b": 1}


REFUSED: list[tuple[Any, type[BaseException]]] = [
    (lambda m: 1 // 0, ZeroDivisionError),
    (lambda m: ["a", {1, 2}], RecordError),
    (lambda m: ["a", "x" * 2000], BufferFullError),
]


@pytest.mark.parametrize(("decide", "error"), REFUSED, ids=["decide", "record", "buffer"])
def test_a_refused_update_changes_nothing(
    disk: SimulatedDisk, decide: Any, error: type[BaseException]
) -> None:
    """`decide` or `append` raises: the exception comes through, nothing has changed, and the next
    update goes on."""
    with state_on(disk, buffer_bytes=1000) as state:
        put(state, "a", 1)
        with pytest.raises(error):
            state.update(decide)
        with pytest.raises(error):
            state.update_batch(lambda m: [["b", 1], decide(m)])
        assert (state.journal.last_lsn, state.machine.content()) == (1, {"a": 1})
        assert put(state, "a", 2) == 2
        assert state.machine.applied == [1, 2]


def test_a_read_may_raise(disk: SimulatedDisk) -> None:
    """`read` lets exceptions through and frees the lock."""
    with state_on(disk) as state:
        with pytest.raises(KeyError):
            state.read(lambda m: m.rows["missing"])
        assert state.read(lambda m: len(m.rows)) == 0
        put(state, "a", 1)


def test_concurrent_updates_are_one_sequence(disk: SimulatedDisk) -> None:
    """P1, P6: read-modify-write from many threads loses no update; memory and log agree."""
    with state_on(disk, segment_bytes=1 << 18) as state:

        def work(thread: int) -> None:
            for n in range(100):
                lsn = state.update(lambda m: ["n", (m.rows["n"][1] if "n" in m.rows else 0) + 1])
                if n % 10 == 0:
                    state.wait_durable(lsn, timeout_s=TIMEOUT_S)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        assert state.read(lambda m: m.rows["n"][1]) == 800
        assert state.machine.applied == [*range(1, 801)]
    with state_on(disk) as state:
        assert state.machine.content() == {"n": 800}


def test_no_disk_io_happens_under_the_lock(disk: SimulatedDisk) -> None:
    """P7: whatever `update` and `read` do, the calling thread asks the disk for nothing."""
    with state_on(disk, flush_interval_s=0.001) as state:
        put(state, "a", 1)
        watched = Watched(disk)
        for n in range(500):
            state.update(partial(setting, "a", n))
            state.update_batch(lambda m: [["b", 1], ["c", 2]])
            state.read(len_of_rows)
        assert "MainThread" not in watched.threads


# --- recovery ---


@given(data=st.data())
def test_checkpoint_and_tail_are_the_state(data: st.DataObject) -> None:
    """P6: after any updates, compactions, closings and kills the reopened machine is what the live
    one was, and what replaying everything gives."""
    steps = data.draw(
        st.lists(
            st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 9))
            | st.sampled_from(["compact", "close", "kill"]),
            max_size=30,
        )
    )
    disk = SimulatedDisk()
    model: dict[str, int] = {}
    state = state_on(disk, checkpoints_kept=1000)
    for step in steps:
        if isinstance(step, tuple):
            key, value = step
            put(state, key, value)
            model[key] = value  # type: ignore[assignment]
            if value is None:
                del model[key]
        elif step == "compact":
            state.compact()
        else:
            if step == "kill":
                crash(state.journal, disk)
            else:
                state.close()
            state = state_on(disk, checkpoints_kept=1000)
        assert state.machine.content() == model
    state.wait_durable()
    everything = Table()
    for entry in state.journal.replay(0):
        everything.apply(entry.lsn, entry.record)
    assert everything.content() == model
    state.close()


def test_load_comes_before_apply(disk: SimulatedDisk) -> None:
    """P6: recovery loads the newest checkpoint's items, then applies each later record, once."""
    with state_on(disk) as state:
        put(state, "a", 1)
        put(state, "b", 2)
        state.compact()
        put(state, "c", 3)

    class Spy(Table):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[Any] = []

        def load(self, item: Any) -> None:
            self.calls.append(("load", item))
            super().load(item)

        def apply(self, lsn: int, record: Any) -> None:
            self.calls.append((lsn, record))
            super().apply(lsn, record)

    with state_on(disk, Spy()) as state:
        assert state.machine.calls == [("load", ["a", 1]), ("load", ["b", 2]), (3, ["c", 3])]
        assert state.journal.checkpoint is not None
        assert state.journal.checkpoint.application == "table/1"


def test_a_batch_that_a_checkpoint_parts_is_applied_from_there(disk: SimulatedDisk) -> None:
    """P6: a frame that holds records before and after the checkpoint's LSN is applied in part."""
    with state_on(disk) as state:
        for n in range(5):
            state.update(partial(setting, "n", n))
        state.journal.compact(lambda: (3, [["n", 2]]))
    with state_on(disk) as state:
        assert (state.machine.applied, state.machine.content()) == ([4, 5], {"n": 4})


class Newer(Table):
    application = "table/2"


class Accepting(Table):
    application = "table/2"
    accepts = ("table/1", "table/0")


def test_an_older_application_needs_to_be_accepted(disk: SimulatedDisk) -> None:
    """Another application's checkpoint refuses to open, unless the machine says it understands it;
    from then on it is the newer one's."""
    with state_on(disk) as state:
        put(state, "a", 1)
        state.compact()
        before = disk.contents(PATH)
    with pytest.raises(FormatVersionError, match="'table/1', not for 'table/2'"):
        state_on(disk, Newer())
    assert disk.contents(PATH)[names(disk, ".json")[0]] == before[names(disk, ".json")[0]]
    with state_on(disk, Accepting()) as state:
        assert state.machine.content() == {"a": 1}
        put(state, "a", 2)
        state.compact()
    with pytest.raises(FormatVersionError, match="'table/2', not for 'table/1'"):
        state_on(disk)
    with state_on(disk, Newer()) as state:
        assert state.machine.content() == {"a": 2}


class Refusing(Table):
    def __init__(self, refused: str) -> None:
        super().__init__()
        self.refused = refused

    def load(self, item: Any) -> None:
        if self.refused == "load":
            raise KeyError("an item of tomorrow")
        super().load(item)

    def apply(self, lsn: int, record: Any) -> None:
        if self.refused == "apply":
            raise OSError(errno.EACCES, "a record of tomorrow")
        super().apply(lsn, record)


@pytest.mark.parametrize("refused", ["load", "apply"])
def test_an_item_or_record_that_the_machine_rejects_is_named(
    disk: SimulatedDisk, refused: str
) -> None:
    """An item or record that the machine can't take in: the error names the file and the
    application, what raised and what to do; nothing has changed, and the lock is free."""
    with state_on(disk) as state:
        put(state, "a", 1)
        state.compact()
        put(state, "b", 2)
    before = {**disk.contents(PATH), "LOCK": b""}
    told = rf"{refused} raised .*of tomorrow.*'table/1'.*or, if this program wrote it, fix"
    with pytest.raises(FormatVersionError, match=told) as caught:
        state_on(disk, Refusing(refused))
    assert PATH in str(caught.value)
    assert ("LSN 2: apply" in str(caught.value)) == (refused == "apply")
    assert {**disk.contents(PATH), "LOCK": b""} == before
    with state_on(disk) as state:
        assert state.machine.content() == {"a": 1, "b": 2}


def test_a_read_error_is_no_question_of_versions(disk: SimulatedDisk) -> None:
    """P4: a disk that can't read the checkpoint's items is a FailedError."""
    with state_on(disk) as state:
        for n in range(1000):
            state.update(partial(setting, f"key {n}", "x" * 50))
        state.compact()
    reads = []

    def fail(operation: Operation, path: str) -> None:
        if operation == "read" and path.endswith(".json"):
            reads.append(path)
            if len(reads) > until_items:
                raise OSError(errno.EIO, "unreadable", path)

    until_items = 1 << 30
    disk.before = fail
    state_on(disk).close()
    until_items = len(reads) - 1  # the last one, amid the items
    reads.clear()
    with pytest.raises(FailedError, match="unreadable"):
        state_on(disk)
    disk.before = None
    state_on(disk).close()
