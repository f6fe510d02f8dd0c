"""Records that are packed before the lock is taken: they are records like any other."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from journal import Journal, PackedRecord, RecordError, pack
from journal.testing import Owner, SimulatedDisk
from manager import AgentResult, SubAgentManager
from tests.state_support import state_on
from tests.support import Table, logged, open_on, reopened

APPENDS: dict[str, Callable[[Journal, Any], int]] = {
    "append": lambda journal, record: journal.append(record),
    "append_batch": lambda journal, record: journal.append_batch([record]),
}


def test_a_packed_record_is_appended_like_any_other(disk: SimulatedDisk) -> None:
    """P1: by each of the four, alone and among others; the machine is given the record itself."""
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


def test_it_is_taken_as_it_was_when_packed(disk: SimulatedDisk) -> None:
    """P1: whoever changes it afterwards changes only what the machine is given."""
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
    """P1: in the same words."""
    with open_on(disk) as journal, pytest.raises(RecordError) as by_append:
        journal.append(record)
    with pytest.raises(RecordError) as by_pack:
        pack(record)
    assert str(by_pack.value) == str(by_append.value)


@pytest.mark.parametrize("append", APPENDS.values(), ids=APPENDS.keys())
def test_the_journal_refuses_one_that_is_too_large(
    disk: SimulatedDisk, append: Callable[[Journal, Any], int]
) -> None:
    """P8: how large a record may be is the journal's to say, when it comes."""
    large = pack("x" * 100)
    with open_on(disk, record_bytes_max=100) as journal:
        with pytest.raises(RecordError, match="102 bytes is over record_bytes_max=100"):
            append(journal, large)
        assert journal.last_lsn == 0
    with open_on(disk) as journal:
        assert append(journal, large) == 1


def test_each_thread_packs_by_itself() -> None:
    """P1: it takes no lock, and no thread gets the bytes of another."""

    def packed(number: int) -> list[PackedRecord]:
        return [pack([number, index, "x" * (index % 50)]) for index in range(2000)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(packed, range(8)))
    disk = SimulatedDisk()
    with open_on(disk) as journal:
        for some in found:
            journal.append_batch(some)
    expected = [[n, index, "x" * (index % 50)] for n in range(8) for index in range(2000)]
    assert reopened(disk) == expected


def test_a_history_knows_what_was_packed() -> None:
    """What the crash tests compare with is the record."""
    with Owner(Table) as owner:
        owner.state.update(lambda _: pack(["a", 1]))
        owner.state.update_batch(lambda _: [pack(["b", 2])])
        owner.wait()
        owner.power_cut()
        owner.reopen()
        assert owner.state.machine.content() == {"a": 1, "b": 2}


class Refusing:
    """A packer that may not be asked."""

    def __call__(self, record: Any) -> bytes:
        raise AssertionError(f"packed under the lock: {record}")


def test_the_manager_packs_before_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: so a prompt, a checkpoint or a result of a megabyte is held no longer than one of a
    byte."""
    with SubAgentManager.open(tmp_path) as manager:
        monkeypatch.setattr(manager._state._buffer, "_pack", Refusing())
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


def test_a_record_that_names_another_agent_meanwhile_is_packed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P6: the name may be another's by the time that the lock is taken."""
    with SubAgentManager.open(tmp_path) as manager:
        ended = manager.spawn("p", name="one").agent_id
        stale = manager._state.machine.peek(ended)
        manager.cancel(ended)
        now = manager.spawn("p", name="one").agent_id
        with monkeypatch.context() as patch:
            patch.setattr(manager._state.machine, "peek", lambda ref: stale)
            assert manager.update_checkpoint("one", "c", steps_taken=1).agent_id == now
            child = manager.spawn("p", parent_id="one")
        assert (child.parent_id, child.spawn_depth) == (now, 1)
        live = {agent.agent_id: agent for agent in manager.agents()}
        assert live[now].checkpoint == "c"
        assert manager.get(ended).checkpoint is None
    with SubAgentManager.open(tmp_path) as manager:
        assert manager.get(now).checkpoint == "c"
        assert manager.get(child.agent_id).parent_id == now
