"""DurableState: the documented example, updates, reads and recovery."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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
    JournalReader,
    RecordError,
    load_checkpoint,
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

# --- the documented example ---


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


def test_the_documented_example_runs(tmp_path: Path) -> None:
    """The documented example runs as it is written, also repeatedly."""
    for _ in range(3):
        with DurableState.open(tmp_path / "jobs.d", Jobs()) as jobs:
            jobs.wait_durable(
                jobs.update(lambda m: ["queued", "a"] if "a" not in m.table else None)
            )
            assert dict(jobs.machine.table) == {"a": {"id": "a", "state": "queued"}}
            assert jobs.journal.last_lsn == 1


# --- update and read ---


def test_update_appends_and_applies(disk: SimulatedDisk) -> None:
    """`decide` sees the machine. Its record is appended, applied under its LSN, and seen by the
    next read. None changes nothing."""
    with state_on(disk) as state:
        assert state.update(partial(setting, "a", 1)) == 1
        assert state.update(lambda m: ["a", m.rows["a"][1] + 1]) == 2
        assert state.update(lambda m: None) is None
        assert state.read(lambda m: m.rows["a"][1]) == 2
        assert state.machine.applied == [1, 2]
        state.wait_durable(2)
        assert (logged(state.journal), state.journal.last_lsn) == ([["a", 1], ["a", 2]], 2)


def test_update_batch_is_one_batch(disk: SimulatedDisk) -> None:
    """P3: All records of `decide` are in one frame, and each is applied under its own LSN. An empty
    list changes nothing."""
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
    """`decide` may return a tuple or a generator as a batch."""
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
    """If `decide` or `append` raises, the caller gets the error, nothing has changed, and the next
    update works."""
    with state_on(disk, buffer_bytes=1000) as state:
        put(state, "a", 1)
        with pytest.raises(error):
            state.update(decide)
        with pytest.raises(error):
            state.update_batch(lambda m: [["b", 1], decide(m)])
        assert (state.journal.last_lsn, state.machine.content()) == (1, {"a": 1})
        assert put(state, "a", 2) == 2
        assert state.machine.applied == [1, 2]


def test_an_error_in_a_read_frees_the_lock(disk: SimulatedDisk) -> None:
    """An error in `read` reaches the caller, and the lock is freed."""
    with state_on(disk) as state:
        with pytest.raises(KeyError):
            state.read(lambda m: m.rows["missing"])
        assert state.read(lambda m: len(m.rows)) == 0
        put(state, "a", 1)


def test_concurrent_updates_are_one_sequence(disk: SimulatedDisk) -> None:
    """P1, P6: Read-modify-write in many threads loses no update, and memory and log agree."""
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
    """P7: `update` and `read` make no call to the disk in the calling thread."""
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
def test_a_checkpoint_and_later_records_give_the_state(data: st.DataObject) -> None:
    """P6: After any mix of updates, compactions, closes and kills, the reopened machine equals the
    live one and a replay of all records."""
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


def test_items_are_loaded_before_records_are_applied(disk: SimulatedDisk) -> None:
    """P6: Recovery loads the items of the newest checkpoint, then applies each later record
    once."""
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


def test_a_frame_across_the_checkpoint_is_applied_in_part(disk: SimulatedDisk) -> None:
    """P6: Of a frame with records before and after the checkpoint's LSN, only the later ones are
    applied."""
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


def test_another_application_must_be_accepted(disk: SimulatedDisk) -> None:
    """A checkpoint of another application does not open unless the machine accepts it. The next
    checkpoint is the newer application's."""
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
def test_a_rejected_item_or_record_is_named(disk: SimulatedDisk, refused: str) -> None:
    """If the machine rejects an item or a record, the error names the file, the application, the
    cause and what to do. Nothing has changed, and the lock is free."""
    with state_on(disk) as state:
        put(state, "a", 1)
        state.compact()
        put(state, "b", 2)
    before = {**disk.contents(PATH), "LOCK": b""}
    message = rf"{refused} raised .*of tomorrow.*'table/1'.*If that is this one, find"
    with pytest.raises(FormatVersionError, match=message) as caught:
        state_on(disk, Refusing(refused))
    assert PATH in str(caught.value)
    assert ("LSN 2: apply" in str(caught.value)) == (refused == "apply")
    assert {**disk.contents(PATH), "LOCK": b""} == before
    with state_on(disk) as state:
        assert state.machine.content() == {"a": 1, "b": 2}


def test_a_reader_loads_a_checkpoint_as_an_open_does(disk: SimulatedDisk) -> None:
    """P4: A new machine gets the items of a checkpoint, unless that is of another application, or
    the machine rejects an item."""
    with state_on(disk) as state:
        put(state, "a", 1)
        state.compact()
    with JournalReader.open(PATH, disk=disk) as reader:
        checkpoint = reader.base()
        assert checkpoint is not None
        with closing(checkpoint):
            for machine in (Table(), Accepting()):
                load_checkpoint(machine, checkpoint)
                assert machine.content() == {"a": 1}
            for machine, message in ((Newer(), "for 'table/2'"), (Refusing("load"), "of tomorrow")):
                with pytest.raises(FormatVersionError, match=message) as caught:
                    load_checkpoint(machine, checkpoint)
                assert caught.value.path == checkpoint.path
                assert machine.content() == {}


def test_a_read_error_is_no_version_error(disk: SimulatedDisk) -> None:
    """P4: An I/O error while the checkpoint's items are read is a FailedError, and not a
    FormatVersionError."""
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
    until_items = len(reads) - 1  # fail the last read, which is of the items
    reads.clear()
    with pytest.raises(FailedError, match="unreadable"):
        state_on(disk)
    disk.before = None
    state_on(disk).close()
