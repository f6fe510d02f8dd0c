"""Whole threads of a JournalSaver: their removal while they are used, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from journal.testing import SimulatedDisk
from tests.installed import import_package

import_package("langgraph.checkpoint.base")

from journal.adapters import _commits  # noqa: E402
from journal.adapters.langgraph._retention import doom, doom_thread, drop  # noqa: E402
from journal.adapters.langgraph._rows import SaverTables  # noqa: E402
from tests.adapters.langgraph_support import (  # noqa: E402
    checkpoint,
    place,
    put_steps,
    rows_left,
    saver_on,
    steps,
)

WHOLE = {"langgraph.checkpoints": 1, "langgraph.values": 2, "langgraph.heads": 1}


def put_one(saver: Any) -> None:
    """Put a checkpoint without a parent."""
    versions = {"n": "1", "same": "1"}
    saver.put(place(), checkpoint({"n": 7, "same": ""}, versions), {"source": "loop"}, versions)


def before_commit(
    monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]
) -> list[int]:
    """Call `act` before the commit of this number. Return a list that gets that number then."""
    commit, begun, acted = SaverTables.commit, [0], list[int]()

    def counted(self: SaverTables, write: Any) -> Any:
        begun[0] += 1
        if begun[0] == number:
            acted.append(number)
            act()
        return commit(self, write)

    monkeypatch.setattr(SaverTables, "commit", counted)
    return acted


def test_changes_under_the_lock_remove_the_same(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that has conflicted many times runs under the lock. It removes the same rows."""
    monkeypatch.setattr(_commits, "_ATTEMPTS", 0)
    with saver_on(disk, keep=2) as saver:
        [config] = put_steps(saver, 1)
        parents = {"parents": {"": config["configurable"]["checkpoint_id"]}}
        put_steps(saver, 1, place(namespace="node:1"), **parents)
        put_steps(saver, 4, config, run_id="r")
        assert steps(saver) == [3, 2]
        saver.copy_thread("t", "copy")
        saver.prune(["copy"])
        assert steps(saver, place("copy")) == [3]
        saver.delete_for_runs(["r"])
        assert rows_left(saver) == {}


@pytest.mark.parametrize("number", range(1, 8))
def test_a_put_during_a_removal_leaves_a_whole_checkpoint_or_none(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """P2: a put that comes while its thread is removed finishes the removal first. So its
    checkpoint is whole, or it was removed with the thread."""
    with saver_on(disk) as saver:
        put_steps(saver, 3)
        acted = before_commit(monkeypatch, number, lambda: put_one(saver))
        saver.delete_thread("t")
        assert acted or number == 7  # a removal has six commits
        assert steps(saver) == ([] if number in (1, 7) else [7])
        assert rows_left(saver) == ({} if number in (1, 7) else WHOLE)


@pytest.mark.parametrize("number", range(2, 7))
def test_a_late_end_of_a_removal_does_not_end_the_next_one(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """P2: a thread that is put and removed again stays removed, even if the first removal was not
    over in its own thread."""

    def begin_next() -> None:
        put_one(saver)
        saver._saved.commit(lambda t: doom_thread(t, saver._saved, "t"))

    with saver_on(disk) as saver:
        put_steps(saver, 3)
        acted = before_commit(monkeypatch, number, begin_next)
        saver.delete_thread("t")
        assert acted
        drop(saver._saved, ("t",))
        assert rows_left(saver) == {}


@pytest.mark.parametrize("number", range(2, 7))
def test_a_removal_that_another_joins_returns_when_all_is_removed(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """P2: a removal ends as it began, even if another call dooms the thread once more."""
    with saver_on(disk) as saver:
        put_steps(saver, 3)
        doomed_again = before_commit(
            monkeypatch,
            number,
            lambda: saver._saved.commit(lambda t: doom_thread(t, saver._saved, "t")),
        )
        saver.delete_thread("t")
        assert doomed_again
        assert rows_left(saver) == {}


def test_an_async_put_finishes_a_removal(disk: SimulatedDisk) -> None:
    """P2: `aput` finishes the removal of its thread first, as `put` does."""
    versions = {"n": "1", "same": "1"}

    async def put(saver: Any) -> None:
        state = checkpoint({"n": 7, "same": ""}, versions)
        await saver.aput(place(), state, {"source": "loop"}, versions)

    with saver_on(disk) as saver:
        put_steps(saver, 3)
        saver._saved.commit(lambda t: doom_thread(t, saver._saved, "t"))
        asyncio.run(put(saver))
        assert steps(saver) == [7]
        assert rows_left(saver) == WHOLE
        drop(saver._saved, ("t",))  # late: what it would remove is another thread's by now
        assert rows_left(saver) == WHOLE


def test_a_put_into_a_doomed_namespace_finishes_its_removal(disk: SimulatedDisk) -> None:
    """P2: the namespace of a subgraph is removed before a put begins it anew."""
    with saver_on(disk) as saver:
        put_steps(saver, 2, place("t", "node:1"))
        saver.tables.table("langgraph.doomed")["t", "node:1"] = None
        put_steps(saver, 1, place("t", "node:1"))
        assert steps(saver, place("t", "node:1")) == [0]
        assert rows_left(saver) == {**WHOLE, "langgraph.writes": 1}


def test_the_marks_of_namespaces_go_with_their_thread(disk: SimulatedDisk) -> None:
    """A namespace whose removal was interrupted leaves nothing once its thread is removed."""
    with saver_on(disk) as saver:
        put_steps(saver, 1)
        put_steps(saver, 1, place("t", "node:1"))
        saver._saved.commit(lambda t: doom(t, saver._saved, ("t", "node:1")))
        saver.delete_thread("t")
        assert rows_left(saver) == {}


@pytest.mark.parametrize("number", range(1, 5))
@pytest.mark.parametrize("change", ["put", "copy again", "delete", "prune"])
def test_a_copy_beside_changes_of_its_target_is_whole(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, number: int, change: str
) -> None:
    """P2: each checkpoint of a copy has its values, whatever others do to the copy meanwhile."""
    with saver_on(disk, keep=4) as saver:
        put_steps(saver, 4)
        saver.copy_thread("t", "copy")
        act = {
            "put": lambda: put_steps(saver, 3, place("copy")),
            "copy again": lambda: saver.copy_thread("t", "copy"),
            "delete": lambda: saver.delete_thread("copy"),
            "prune": lambda: saver.prune(["copy"]),
        }
        acted = before_commit(monkeypatch, number, act[change])
        saver.copy_thread("t", "copy")
        assert acted
        assert all(saver.get_tuple(found.config) == found for found in saver.list(place("copy")))
        saver.delete_thread("copy")
        saver.delete_thread("t")
        assert rows_left(saver) == {}


@pytest.mark.parametrize("table", ["heads", "children", "checkpoints", "writes"])
def test_a_copy_beside_changes_of_its_source_is_whole(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """P2: each checkpoint of a copy has its values, whatever is put into the source meanwhile."""
    with saver_on(disk, keep=1) as saver:
        [config] = put_steps(saver, 1)
        read, acted = getattr(saver._saved, table).prefix, list[str]()

        def read_late(*arguments: Any, **options: Any) -> Any:
            if not acted:
                acted.append(table)
                put_steps(saver, 2, config)
            return read(*arguments, **options)

        monkeypatch.setattr(getattr(saver._saved, table), "prefix", read_late)
        saver.copy_thread("t", "copy")
        assert acted
        assert len(steps(saver, place("copy"))) in (0, 1)


@pytest.mark.parametrize("change", ["put", "prune"])
def test_a_copy_of_a_subgraph_goes_with_its_root(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """The subgraphs of a copy are removed with the checkpoint under which they ran, also if they
    were put, or removed from the source, while the thread was copied."""
    with saver_on(disk) as saver:
        root = put_steps(saver, 2)[0]["configurable"]["checkpoint_id"]
        read, acted = saver._saved.heads.prefix, list[str]()

        def act() -> None:
            acted.append(change)
            if change == "put":
                put_steps(saver, 1, place(namespace="node:1"), parents={"": root})
            else:
                saver._saved.commit(lambda t: t[saver._saved.children].discard(child))

        def read_late(*arguments: Any, **options: Any) -> Any:
            if not acted:
                act()
            return read(*arguments, **options)

        child = ("t", root, "node:1")
        if change == "prune":  # its removal has begun
            put_steps(saver, 1, place(namespace="node:1"), parents={"": root})
        monkeypatch.setattr(saver._saved.heads, "prefix", read_late)
        saver.copy_thread("t", "copy")
        assert acted
        assert steps(saver, place("copy", "node:1")) == [0]
        saver.prune(["copy"])
        assert steps(saver, place("copy", "node:1")) == []


def test_a_copy_keeps_the_values_of_its_target(disk: SimulatedDisk) -> None:
    """A value of the target with the same version as one of the source stays."""
    with saver_on(disk) as saver:
        for thread in ("t", "copy"):
            state = checkpoint({"n": thread}, {"n": "1"})
            saver.put(place(thread), state, {"source": "loop"}, {"n": "1"})
        saver.copy_thread("t", "copy")
        assert steps(saver, place("copy")) == ["copy", "t"]


def test_an_expired_thread_begins_anew(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoints of an expired thread are in no list, and no put brings them back."""
    now = 1e9
    monkeypatch.setattr("time.time", lambda: now)
    with saver_on(disk, ttl_s=100) as saver:
        put_steps(saver, 3)
        now += 200
        for config in (place(), {"configurable": {"thread_id": "t"}}, None):
            assert list(saver.list(config)) == []
        put_one(saver)
        assert steps(saver) == [7]
        now += 200
        assert saver.remove_expired() == 1
        assert rows_left(saver) == {}


def test_a_copy_expires_as_a_thread_does(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy lives as long as a thread that is put then. What has expired is not copied, and what
    is left of a target goes first."""
    now = 1e9
    monkeypatch.setattr("time.time", lambda: now)
    with saver_on(disk, ttl_s=100) as saver:
        put_steps(saver, 2, place("expired"))
        put_steps(saver, 2, place("doomed"))
        saver._saved.commit(lambda t: doom_thread(t, saver._saved, "doomed"))
        now += 60
        put_steps(saver, 1)
        now += 60
        for target in ("new", "expired", "doomed"):
            saver.copy_thread("t", target)
            assert steps(saver, place(target)) == [0]
        now += 60
        for target in ("new", "expired", "doomed"):
            assert steps(saver, place(target)) == [0]
        saver.copy_thread("t", "late")
        assert steps(saver, place("late")) == steps(saver) == []
        now += 60
        assert saver.remove_expired() == 4
        assert rows_left(saver) == {}


def test_a_thread_that_is_put_again_does_not_expire(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: a put keeps its thread, even if the removal of expired threads has found that one."""
    now = 1e9
    monkeypatch.setattr("time.time", lambda: now)
    with saver_on(disk, ttl_s=100) as saver:
        put_steps(saver, 3)
        now += 200
        assert before_commit(monkeypatch, 1, lambda: put_one(saver)) == []
        saver.remove_expired()
        assert steps(saver) == [7]


def test_a_call_that_waits_shortens_no_life(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put, and the first write of a thread, count from when they are stored, not from the call.
    One that was overtaken ends no thread early."""
    now = 1e9
    monkeypatch.setattr("time.time", lambda: now)

    def overtake() -> None:
        nonlocal now
        now += 50
        put_one(saver)

    with saver_on(disk, ttl_s=100) as saver:
        put_steps(saver, 1)
        assert before_commit(monkeypatch, 1, overtake) == []
        put_one(saver)
        now += 99
        assert saver.get_tuple(place()) is not None
        assert before_commit(monkeypatch, 1, overtake) == []
        saver.put_writes(place("new", "", "1"), [("n", 1)], "task")
        assert saver.tables.table("langgraph.deadlines")["new"] == now + 100


def test_the_last_put_decides_when_a_thread_expires(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another `ttl_s` moves the deadline at the next put, to a later or an earlier time, and a put
    without one removes it."""
    now = 1e9
    monkeypatch.setattr("time.time", lambda: now)

    def put(ttl_s: float | None) -> None:
        with saver_on(disk, ttl_s=ttl_s) as saver:
            put_steps(saver, 1)

    def is_there_after(seconds: float) -> bool:
        nonlocal now
        now += seconds
        with saver_on(disk, ttl_s=1) as saver:
            return saver.get_tuple(place()) is not None

    put(100)
    put(10_000)
    assert is_there_after(200)
    put(100)
    assert is_there_after(99)
    assert not is_there_after(2)
    put(100)
    put(None)
    assert is_there_after(1e8)
    put(100)
    assert not is_there_after(101)
    with saver_on(disk) as saver:
        assert saver.remove_expired() == 1
        assert rows_left(saver) == {}


@pytest.mark.parametrize(("before", "after"), [(1000, 10), (None, 10), (10, 4), (4, 10)])
def test_another_keep_applies_from_the_next_put(
    disk: SimulatedDisk, before: int | None, after: int
) -> None:
    """A saver keeps as many checkpoints as its own `keep` says, whatever an earlier one kept."""
    with saver_on(disk, keep=before) as saver:
        put_steps(saver, 90)
    with saver_on(disk, keep=after) as saver:
        put_steps(saver, 10)
        assert after <= len(steps(saver)) <= after + after // 4
