"""DurableState: one small lock, and a state that its records alone can bring back."""

from __future__ import annotations

import asyncio
import errno
import itertools
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    BufferFullError,
    ClosedError,
    CowTable,
    DurableState,
    FailedError,
    FormatVersionError,
    RecordError,
)
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
from tests.support import (
    PATH,
    TIMEOUT_S,
    Held,
    Interrupted,
    Table,
    Watched,
    crash,
    interrupt_after,
    logged,
    names,
    options,
    sized,
    until,
)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


def state_on(
    disk: SimulatedDisk, machine: Any = None, *, room_timeout_s: float = TIMEOUT_S, **others: Any
) -> DurableState[Any]:
    return DurableState.open(
        PATH,
        machine or Table(),
        options=options(**others),
        room_timeout_s=room_timeout_s,
        disk=disk,
    )


def setting(key: str, value: Any, _: Table) -> list[Any]:
    return [key, value]


def put(state: DurableState[Any], key: str, value: Any) -> int:
    lsn = state.update(partial(setting, key, value))
    assert lsn is not None
    state.wait_durable(lsn, timeout_s=TIMEOUT_S)
    return lsn


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
def test_what_is_refused_changes_nothing(
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


def test_a_look_may_raise(disk: SimulatedDisk) -> None:
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


def test_nothing_is_done_to_the_disk_under_the_lock(disk: SimulatedDisk) -> None:
    """P7: whatever `update` and `read` do, the calling thread asks the disk for nothing."""
    with state_on(disk, flush_interval_s=0.001) as state:
        put(state, "a", 1)
        watched = Watched(disk)
        for n in range(500):
            state.update(partial(setting, "a", n))
            state.update_batch(lambda m: [["b", 1], ["c", 2]])
            state.read(len_of_rows)
        assert "MainThread" not in watched.threads


def len_of_rows(machine: Table) -> int:
    return len(machine.rows)


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
def test_what_the_machine_does_not_understand_is_told(disk: SimulatedDisk, refused: str) -> None:
    """An item or record that the machine can't take in: the error names the file and the
    application, nothing has changed, and the lock is free."""
    with state_on(disk) as state:
        put(state, "a", 1)
        state.compact()
        put(state, "b", 2)
    before = {**disk.contents(PATH), "LOCK": b""}
    with pytest.raises(FormatVersionError, match=r"'table/1'.*of tomorrow") as caught:
        state_on(disk, Refusing(refused))
    assert PATH in str(caught.value)
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


# --- fail-stop ---


class Fragile(Table):
    def apply(self, lsn: int, record: Any) -> None:
        if record[1] == "poison":
            raise ValueError("apply's own")
        super().apply(lsn, record)


@pytest.mark.parametrize("batch", [True, False])
def test_apply_raising_is_fail_stop(disk: SimulatedDisk, batch: bool) -> None:
    """P6: the caller gets the exception; from then on no update and no checkpoint is made of a
    state that is half-way through a record."""
    with state_on(disk, Fragile()) as state:
        put(state, "a", 1)
        poisoned = [["b", 2], ["c", "poison"], ["d", 3]]
        with pytest.raises(ValueError, match="apply's own"):
            state.update_batch(lambda m: poisoned) if batch else state.update(lambda m: poisoned[1])
        calls: list[Any] = [
            lambda: state.update(partial(setting, "d", 1)),
            lambda: state.update_batch(lambda m: [["d", 1]]),
            state.compact,
        ]
        for call in calls:
            with pytest.raises(
                FailedError, match=r"apply's own.*close it and open it again"
            ) as failed:
                call()
            assert isinstance(failed.value.__cause__, ValueError)
        last_lsn = state.journal.last_lsn
        state.wait_durable(timeout_s=TIMEOUT_S)
    assert names(disk, ".json") == []
    with state_on(disk) as again:
        assert again.journal.last_lsn == last_lsn == (4 if batch else 2)
        assert again.machine.content()["c"] == "poison"


def test_a_failed_journal_changes_no_state(disk: SimulatedDisk) -> None:
    """P2: after a failed sync update raises FailedError before it changes anything, also where the
    machine has been asked already."""
    with suppress(FailedError), state_on(disk) as state:
        put(state, "a", 1)
        disk.fail("sync", errno.EIO)
        state.update(partial(setting, "a", 2))
        with pytest.raises(FailedError):
            state.wait_durable()
        for _ in range(3):
            with pytest.raises(FailedError):
                state.update(partial(setting, "a", 3))
            with pytest.raises(FailedError):
                state.update_batch(lambda m: [["a", 3]], urgent=True)
        assert state.machine.content() == {"a": 2}
        with pytest.raises(FailedError):
            state.compact()


def test_a_closed_state_refuses(disk: SimulatedDisk) -> None:
    """Closed: ClosedError from update, update_batch, compact and waiting for room."""
    with state_on(disk) as state:
        put(state, "a", 1)
    calls: list[Any] = [
        lambda: state.update(partial(setting, "a", 2)),
        lambda: state.update(lambda m: None),
        lambda: state.update_batch(lambda m: [["a", 2]], urgent=True),
        state.compact,
        state.wait_room,
        lambda: asyncio.run(state.room()),
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    assert state.machine.content() == {"a": 1}
    state.close()


# --- interrupts ---


@pytest.mark.parametrize("batch", [True, False])
def test_an_interrupt_between_append_and_apply(
    disk: SimulatedDisk, batch: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: whatever is in the log is in memory: an interrupt after the record got its LSN comes
    through once the record is applied, and the state goes on."""
    with state_on(disk) as state:
        put(state, "a", 1)
        name = "append_batch" if batch else "append"
        append = getattr(state.journal, name)

        def interrupted(*arguments: Any, **others: Any) -> int:
            append(*arguments, **others)
            raise KeyboardInterrupt

        monkeypatch.setattr(state.journal, name, interrupted)
        records = [["b", 2], ["c", 3]]
        with pytest.raises(KeyboardInterrupt):
            state.update_batch(lambda m: records) if batch else state.update(lambda m: records[0])
        monkeypatch.undo()
        expected = {"a": 1, "b": 2, "c": 3} if batch else {"a": 1, "b": 2}
        assert state.machine.content() == expected
        assert state.machine.applied == [*range(1, state.journal.last_lsn + 1)]
        put(state, "d", 4)
        state.compact()
    with state_on(disk) as state:
        assert state.machine.content() == {**expected, "d": 4}


def test_an_interrupt_before_the_append_changes_nothing(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt in `decide` or at the start of `append` leaves log and memory as they were."""

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with state_on(disk) as state:
        put(state, "a", 1)
        with pytest.raises(KeyboardInterrupt):
            state.update(interrupted)
        monkeypatch.setattr(state.journal, "append", interrupted)
        with pytest.raises(KeyboardInterrupt):
            state.update(partial(setting, "b", 2))
        monkeypatch.undo()
        assert (state.machine.content(), state.journal.last_lsn) == ({"a": 1}, 1)
        put(state, "b", 2)


def test_an_interrupt_in_apply_is_fail_stop(disk: SimulatedDisk) -> None:
    """P6: amid `apply` nobody knows how far it got: no checkpoint of that, a reopening puts it
    right."""

    class InterruptedTable(Table):
        def apply(self, lsn: int, record: Any) -> None:
            super().apply(lsn, record)
            if lsn == 2 and armed:
                raise KeyboardInterrupt

    armed = True
    with state_on(disk, InterruptedTable()) as state:
        put(state, "a", 1)
        with pytest.raises(KeyboardInterrupt):
            state.update(partial(setting, "b", 2))
        with pytest.raises(FailedError, match="KeyboardInterrupt"):
            state.update(partial(setting, "c", 3))
        with pytest.raises(FailedError):
            state.compact()
    armed = False
    with state_on(disk) as again:
        assert again.machine.content() == {"a": 1, "b": 2}


def test_no_interrupt_parts_log_and_memory(disk: SimulatedDisk) -> None:
    """P6: struck again and again at any point of update, update_batch and read, the state agrees
    with the log, or stops; a reopening agrees in any case."""
    state = state_on(disk, segment_bytes=1 << 20)
    numbers = itertools.count()
    for _ in range(150):
        with suppress(Interrupted), interrupt_after(0.0007):
            while True:
                n = next(numbers)
                state.update(partial(setting, f"key {n % 10}", n))
                state.update_batch(lambda m, n=n: [["last", n], ["last", -n]])  # type: ignore[misc]
                state.read(len_of_rows)
        live = state.machine
        try:
            state.update(partial(setting, "after", next(numbers)))
        except FailedError:
            state.close()
            state = state_on(disk, segment_bytes=1 << 20)
        else:
            assert live.applied[-1] == state.journal.last_lsn
            assert live.applied == [*range(live.applied[0], state.journal.last_lsn + 1)]
    content = state.machine.content()
    state.close()
    with state_on(disk) as again:
        assert again.machine.content() == content


# --- room ---


def fill(disk: SimulatedDisk, state: DurableState[Any]) -> None:
    """Over half of a buffer of 1,000 bytes, on a disk that is full."""
    disk.fail("write", errno.ENOSPC, times=None)
    state.update(lambda m: ["a", sized(600)])


def test_update_waits_for_room_before_its_lock(disk: SimulatedDisk) -> None:
    """P7, P8: over half of the bound an update waits, and nobody else does: the lock is free; with
    room it goes on."""
    with state_on(disk, buffer_bytes=1000) as state, ThreadPoolExecutor(2) as pool:
        fill(disk, state)
        waiting = pool.submit(state.update, partial(setting, "b", 1))
        another = pool.submit(state.update_batch, lambda m: [["b", 2]])
        assert state.read(len_of_rows) == 1
        assert state.update(partial(setting, "c", 3), urgent=True) == 2
        assert not waiting.done()
        assert not another.done()
        disk.before = None
        assert {waiting.result(TIMEOUT_S), another.result(TIMEOUT_S)} == {3, 4}


def test_waiting_for_room_has_a_limit(disk: SimulatedDisk) -> None:
    """After `room_timeout_s` BufferFullError, and nothing has changed; who is urgent goes on."""
    with state_on(disk, buffer_bytes=1000, room_timeout_s=0.02) as state:
        fill(disk, state)
        for _ in range(2):
            with pytest.raises(BufferFullError, match=r"within 0.02 s; nothing was changed"):
                state.update(partial(setting, "b", 1))
        with pytest.raises(BufferFullError):
            state.update_batch(lambda m: [["b", 1]])
        assert state.update(partial(setting, "c", 3), urgent=True) == 2
        assert state.machine.content().keys() == {"a", "c"}
        disk.before = None
        state.wait_room(timeout_s=TIMEOUT_S)
        assert put(state, "b", 1) == 3


def test_update_never_waits_in_an_event_loop(disk: SimulatedDisk) -> None:
    """P7: in a thread that runs a loop it appends as long as there is space, then BufferFullError
    at once; `await room()` waits without holding up the loop."""

    async def main(state: DurableState[Any]) -> None:
        fill(disk, state)
        assert state.update(lambda m: ["b", sized(300)]) == 2
        with pytest.raises(BufferFullError, match="nothing was appended"):
            state.update(lambda m: ["b", sized(300)])
        room = asyncio.create_task(state.room())
        for _ in range(50):
            await asyncio.sleep(0)
        assert not room.done()
        disk.before = None
        await asyncio.wait_for(room, TIMEOUT_S)
        lsn = state.update(partial(setting, "c", 3))
        await asyncio.wait_for(state.durable(lsn), TIMEOUT_S)

    with state_on(disk, buffer_bytes=1000) as state:
        asyncio.run(main(state))
        assert state.journal.durable_lsn == 3
        assert state.machine.content().keys() == {"a", "b", "c"}


def test_a_failure_ends_the_wait_for_room(disk: SimulatedDisk) -> None:
    """P2: an update that waits for room on a disk that breaks: FailedError, and nothing changed."""
    with suppress(FailedError), state_on(disk, buffer_bytes=1000) as state:
        fill(disk, state)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(state.update, partial(setting, "b", 1))
            disk.fail("write", errno.EIO, times=None)
            with pytest.raises(FailedError):
                waiting.result(TIMEOUT_S)
        assert state.machine.content().keys() == {"a"}
    disk.before = None


# --- the lock's figures ---


def test_every_hold_counts(disk: SimulatedDisk) -> None:
    """P7: updates, batches, looks, snapshots, those that raise: each is one hold and one wait."""
    with state_on(disk) as state:
        expected = 0
        for n in range(10):
            state.update(partial(setting, "a", n))
            state.update(lambda m: None)
            state.update_batch(lambda m: [["b", 1], ["c", 2]])
            state.update_batch(lambda m: [])
            state.read(len_of_rows)
            with suppress(ZeroDivisionError):
                state.update(lambda m: 1 // 0)
            with suppress(ZeroDivisionError):
                state.read(lambda m: 1 // 0)
            state.compact()
            expected += 8
            stats = state.lock_stats()
            assert (stats.hold.count, stats.wait.count) == (expected, expected)
        assert 0 < stats.hold.p50 <= stats.hold.p99 <= stats.hold.max


def test_waits_are_waits_and_holds_are_holds(disk: SimulatedDisk) -> None:
    """P7: what one thread holds the lock, another waits for it; both figures are in nanoseconds."""
    with state_on(disk) as state, ThreadPoolExecutor(1) as pool:
        holding, let_go = threading.Event(), threading.Event()

        def hold(_: Table) -> None:
            holding.set()
            assert let_go.wait(TIMEOUT_S)

        held = pool.submit(state.read, hold)
        assert holding.wait(TIMEOUT_S)
        timer = threading.Timer(0.05, let_go.set)
        timer.start()
        state.update(partial(setting, "a", 1))
        held.result(TIMEOUT_S)
        timer.join()
        stats = state.lock_stats()
        assert stats.hold.max >= 40_000_000
        assert stats.wait.max >= 10_000_000


def test_the_figures_take_no_more_memory_the_longer_it_runs(disk: SimulatedDisk) -> None:
    """P8: a state that is only ever read keeps its figures within bounds."""
    with state_on(disk) as state:
        for _ in range(10_000):
            state.read(len_of_rows)
        tracemalloc.start()
        for _ in range(30_000):
            state.read(len_of_rows)
        grown, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < 1_000_000
        assert state.lock_stats().hold.count == 40_000


# --- snapshots ---


def test_freeze_is_consistent_with_its_lsn(disk: SimulatedDisk) -> None:
    """P6: a checkpoint holds the state as of its LSN, though updates go on while it is written."""
    with state_on(disk) as state, ThreadPoolExecutor(1) as pool:
        for n in range(20):
            put(state, f"key {n}", 0)
        with Held(disk, "create", ".json.tmp") as held:
            compacting = pool.submit(state.compact)
            held.wait_reached()
            for n in range(20):
                state.update(partial(setting, f"key {n}", None if n % 2 else 1))
            put(state, "new", 1)
        checkpoint = compacting.result(TIMEOUT_S)
        assert checkpoint.lsn == 20
        assert dict(checkpoint.items()) == {f"key {n}": 0 for n in range(20)}
        live = state.machine.content()
    with state_on(disk) as state:
        assert state.machine.content() == live


def test_the_state_is_compacted_by_itself(disk: SimulatedDisk) -> None:
    """P8: opening a state starts its compaction; the thread keeps no dropped state alive."""
    with state_on(disk, checkpoint_min_bytes=2000, segment_bytes=4096) as state:
        for n in range(60):
            put(state, f"key {n % 5}", "x" * 200)
        until(lambda: state.stats().compactions >= 2, "the compactions")
        until(lambda: len(names(disk, ".json")) == 2, "two checkpoints")
        live = state.machine.content()
    assert len(names(disk, ".seg")) < 5
    with state_on(disk) as state:
        assert state.machine.content() == live
