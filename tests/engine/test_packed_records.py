"""Records that were packed before the lock is taken are records like any other."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import DurableState, FailedError, Journal, PackedRecord, RecordError, pack
from journal._format.record import pack_flat, unpack_one
from journal.testing import Owner, SimulatedDisk
from journal.testing.machine import CrashMachine
from manager import AgentResult, SubAgentManager
from manager.agent import FIELDS, Row
from tests.engine.state_support import state_on
from tests.support import PATH, Table, logged, open_on, options, reopened

APPENDS: dict[str, Callable[[Journal, Any], int]] = {
    "append": lambda journal, record: journal.append(record),
    "append_batch": lambda journal, record: journal.append_batch([record]),
}


def test_a_packed_record_is_appended_like_any_other(disk: SimulatedDisk) -> None:
    """P1: All four calls take packed records, alone and with others, and the machine gets the
    unpacked record."""
    with open_on(disk) as journal:
        assert journal.append(pack(["a", 1])) == 1
        assert journal.append_batch([pack(["b", 2]), ["c", 3], pack(["d", [4]])]) == 4
        journal.wait_durable()
        assert logged(journal) == [["a", 1], ["b", 2], ["c", 3], ["d", [4]]]
    disk = SimulatedDisk()
    with state_on(disk) as state:
        state.update(lambda _: pack(["a", 1]))
        state.update_batch(lambda _: [pack(["b", 2]), ["c", 3]])
        live = state.machine.content()
    with state_on(disk) as state:
        assert state.machine.content() == live == {"a": 1, "b": 2, "c": 3}


def test_later_changes_do_not_reach_a_packed_record(disk: SimulatedDisk) -> None:
    """P1: A change to the object after `pack` does not reach the log."""
    record = ["a", 1]
    packed = pack(record)
    record[1] = 2
    with open_on(disk) as journal:
        journal.append(packed)
    assert reopened(disk) == [["a", 1]]


@pytest.mark.parametrize(
    "record", [(1, 2), {1}, 2**64, "\ud800", object], ids=["tuple", "set", "int", "str", "type"]
)
def test_pack_refuses_what_append_refuses(disk: SimulatedDisk, record: Any) -> None:
    """P1: `pack` and `append` refuse the same records with the same message."""
    with open_on(disk) as journal, pytest.raises(RecordError) as by_append:
        journal.append(record)
    with pytest.raises(RecordError) as by_pack:
        pack(record)
    assert str(by_pack.value) == str(by_append.value)


@pytest.mark.parametrize("append", APPENDS.values(), ids=APPENDS.keys())
def test_the_journal_refuses_a_packed_record_that_is_too_large(
    disk: SimulatedDisk, append: Callable[[Journal, Any], int]
) -> None:
    """P8: The journal checks the size of a packed record when it is appended."""
    large = pack("x" * 100)
    with open_on(disk, record_bytes_max=100) as journal:
        with pytest.raises(RecordError, match="102 bytes is over record_bytes_max=100"):
            append(journal, large)
        assert journal.last_lsn == 0
    with open_on(disk) as journal:
        assert append(journal, large) == 1


@given(
    st.lists(
        st.recursive(
            st.none() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.binary(),
            lambda parts: st.lists(parts, max_size=3),
            max_leaves=8,
        )
    )
)
def test_a_flat_record_is_what_its_bytes_decode_to(record: list[Any]) -> None:
    """The value that `apply` gets is equal to the one that a replay reads."""
    value, packed = pack_flat(record)._take()
    assert value is record
    assert (packed, unpack_one(packed)) == (pack(record)._packed, record)


def test_threads_pack_independently() -> None:
    """P1: Packing takes no lock, and no thread gets the bytes of another."""

    def packed(number: int) -> list[PackedRecord]:
        return [pack([number, index, "x" * (index % 50)]) for index in range(2000)]

    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(packed, range(8)))
    disk = SimulatedDisk()
    with open_on(disk) as journal:
        for batch in batches:
            journal.append_batch(batch)
    expected = [[n, index, "x" * (index % 50)] for n in range(8) for index in range(2000)]
    assert reopened(disk) == expected


def test_a_history_contains_the_unpacked_records() -> None:
    """The crash tests compare the state with the unpacked records."""
    with Owner(Table) as owner:
        owner.state.update(lambda _: pack(["a", 1]))
        owner.state.update_batch(lambda _: [pack(["b", 2])])
        owner.wait()
        owner.power_cut()
        owner.reopen()
        assert owner.state.machine.content() == {"a": 1, "b": 2}


def test_a_packed_nil_is_a_record(disk: SimulatedDisk) -> None:
    """P6: A packed nil is a record, while a plain `None` means that there is nothing to do."""
    with DurableState.open(PATH, Applied(), options=options(), disk=disk) as state:
        assert state.update(lambda _: None) is None
        assert state.update(lambda _: pack(None)) == 1
        state.machine.fails = True
        with pytest.raises(ZeroDivisionError):
            state.update(lambda _: pack(None))
        with pytest.raises(FailedError, match="this state stopped at LSN 2"):
            state.update(lambda _: ["after"])
    with DurableState.open(PATH, Applied(), options=options(), disk=disk) as state:
        assert state.machine.records == [None]


class Applied:
    """A machine that keeps all records, and can be made to fail."""

    application = "applied/1"
    fails = False

    def __init__(self) -> None:
        self.records: list[Any] = []

    def load(self, item: Any) -> None:
        self.records.append(item)

    def apply(self, lsn: int, record: Any) -> None:
        if self.fails:
            raise ZeroDivisionError
        self.records.append(record)

    def freeze(self) -> list[Any]:
        return self.records.copy()


class PacksWhenCollected:
    """Garbage whose finalizer packs a record."""

    def __init__(self, packed: list[Any]) -> None:
        self._packed = packed
        self._cycle = self

    def __del__(self) -> None:
        self._packed.append(pack(["inner"])._packed)


def test_garbage_collection_during_a_refusal_mixes_no_bytes() -> None:
    """P1: Garbage collection may run when a record is refused, before Python 3.12 inside the
    packer. A record that a finalizer packs then contains no bytes of the refused one."""
    packed: list[bytes] = []
    threshold = gc.get_threshold()
    gc.freeze()  # the collector need not examine existing objects in each of the 59 rounds
    try:
        for allocations in range(1, 60):
            PacksWhenCollected(packed)
            gc.set_threshold(allocations)
            with suppress(RecordError):
                pack(["outer", "record", object()])
            gc.set_threshold(*threshold)
            gc.collect()
    finally:
        gc.set_threshold(*threshold)
        gc.unfreeze()
    assert set(packed) == {msgpack.packb(["inner"])}


def test_only_pack_makes_a_packed_record(disk: SimulatedDisk) -> None:
    """P1: A PackedRecord can't be made or copied by hand, since bytes that are no record would make
    a journal that does not open."""
    with pytest.raises(TypeError, match=r"make one with journal\.pack"):
        PackedRecord((1, b"\xc1"))
    packed = pack(["a", 1])
    assert pack(packed) is packed
    with pytest.raises(TypeError, match=r"make one with journal\.pack"):
        copy.copy(packed)
    with state_on(disk) as state:
        with pytest.raises(TypeError, match="not iterable"):
            state.update_batch(lambda _: cast("Any", packed))
        assert state.journal.last_lsn == 0


class PackedRecordsMachine(CrashMachine[Table]):
    """A crash machine that draws packed records."""

    machine = Table
    records = st.tuples(st.sampled_from("ab"), st.integers(0, 3)).map(lambda pair: pack([*pair]))


TestACrashMachineOfPackedRecords = PackedRecordsMachine.TestCase
TestACrashMachineOfPackedRecords.settings = settings(max_examples=5, deadline=None)


class ForbiddenPacker:
    """A packer that fails the test when it is called."""

    def __call__(self, record: Any) -> bytes:
        raise AssertionError(f"packed under the lock: {record}")


def test_the_manager_packs_before_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: The manager holds its lock no longer for a prompt, checkpoint or result of a megabyte
    than for one of a byte."""
    with SubAgentManager.open(tmp_path) as manager:
        monkeypatch.setattr(manager._state._buffer, "_pack", ForbiddenPacker())
        parent = manager.spawn("p", name="parent", queued=True)
        for ref in (parent.agent_id, "parent"):
            child = manager.spawn("p", parent_id=ref).agent_id
            assert manager.get(child).parent_id == parent.agent_id
            manager.update_checkpoint(child, ["x"], steps_taken=1)
            manager.interrupt(child, "why")
            manager.resume(child)
            manager.record_usage(child, input_tokens=1, output_tokens=1)
            manager.update_from_result(child, AgentResult("done"))
        manager.start("parent")
        manager.update_failed("parent", "why")
        manager.cancel(manager.spawn("p").agent_id)
        manager.record_usage("parent", input_tokens=1, output_tokens=1)  # the agent has ended
        manager.spawn("p", parent_id="parent")


def row_of(agent_id: str, depth: int) -> Row:
    fields = {"agent_id": agent_id, "spawn_depth": depth}
    return tuple(fields.get(name) for name in FIELDS)


def test_a_record_with_an_outdated_name_is_packed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: If a name belongs to another agent by the time the lock is taken, the record is packed
    again."""
    with SubAgentManager.open(tmp_path) as manager:
        ended = manager.spawn("p", name="one").agent_id
        stale = manager._state.machine.prefetch(ended)
        manager.cancel(ended)
        current = manager.spawn("p", name="one").agent_id
        with monkeypatch.context() as patch:
            patch.setattr(manager._state.machine, "prefetch", lambda ref: stale)
            assert manager.update_checkpoint("one", "c", steps_taken=1).agent_id == current
            child = manager.spawn("p", parent_id="one")
        assert (child.parent_id, child.spawn_depth) == (current, 1)
        # The same id, as if it had been imported at another depth.
        with monkeypatch.context() as patch:
            patch.setattr(manager._state.machine, "prefetch", lambda ref: row_of(current, 3))
            assert manager.spawn("p", parent_id=current).spawn_depth == 1
        live = {agent.agent_id: agent for agent in manager.agents()}
        assert live[current].checkpoint == "c"
        assert manager.get(ended).checkpoint is None
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get(current).checkpoint == "c"
        assert manager.get(child.agent_id).parent_id == current
