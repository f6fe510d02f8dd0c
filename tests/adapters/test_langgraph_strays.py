"""Rows that a JournalSaver stores before or after the time of their checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from journal import JournalError, Tables
from journal.testing import SimulatedDisk
from tests.installed import import_package

import_package("langgraph.checkpoint.base")

from journal.adapters.langgraph import JournalSaver, _recent, _retention  # noqa: E402
from journal.adapters.langgraph._retention import doom  # noqa: E402
from tests.adapters.langgraph_support import (  # noqa: E402
    checkpoint,
    place,
    put_steps,
    rows_left,
    saver_on,
    steps,
)

WHOLE = {
    "langgraph.checkpoints": 1, "langgraph.values": 2, "langgraph.writes": 1, "langgraph.heads": 1,
}  # fmt: skip


def put_strays(saver: Any, count: int = 1) -> Any:
    """Put checkpoints until the first one is removed. Then put writes and subgraphs of that one,
    as a slow run does. Return the config of the newest checkpoint."""
    slow, *_, newest = put_steps(saver, 4)
    parents = {"parents": {"": slow["configurable"]["checkpoint_id"]}}
    for number in range(count):
        saver.put_writes(slow, [("n", "slow")], f"slow-{number}")
        put_steps(saver, 1, place(namespace=f"node:{number}"), **parents)
    return newest


def test_a_prune_removes_what_came_after_its_checkpoint(disk: SimulatedDisk) -> None:
    """Writes and subgraphs of a removed checkpoint are removed by a prune."""
    with saver_on(disk, keep=1) as saver:
        put_strays(saver)
        saver.prune(["t"])
        assert steps(saver) == [3]
        assert rows_left(saver) == WHOLE


@pytest.mark.parametrize("keep", [1, 2, 8])
def test_puts_remove_what_came_after_its_checkpoint(disk: SimulatedDisk, keep: int) -> None:
    """Writes and subgraphs of a removed checkpoint are removed by later puts, too."""
    with saver_on(disk, keep=1) as saver:
        newest = put_strays(saver)
    with saver_on(disk, keep=keep) as saver:
        put_steps(saver, 2 * keep + 3, newest)
        left = rows_left(saver)
        assert left["langgraph.writes"] == left["langgraph.checkpoints"] == len(steps(saver))
        assert left["langgraph.heads"] == 1
        assert "langgraph.children" not in left


def test_many_strays_are_removed_in_slices(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction removes a bounded number of rows."""
    monkeypatch.setattr(_retention, "KEYS_A_SLICE", 3)
    with saver_on(disk, keep=1) as saver:
        newest = put_strays(saver, 20)
        put_steps(saver, 3, newest)
        assert rows_left(saver)["langgraph.children"] > 3
        saver.prune(["t"])
        assert rows_left(saver) == WHOLE


def test_a_removed_run_takes_its_strays_with_it(disk: SimulatedDisk) -> None:
    """`delete_for_runs` removes the strays that are older than the checkpoints of the run."""
    with saver_on(disk, keep=1) as saver:
        newest = put_strays(saver)
        put_steps(saver, 3, newest, run_id="last")
        saver.delete_for_runs(["last"])
        assert rows_left(saver) == {}


@pytest.mark.parametrize("keep", [1, 2, 8])
def test_a_write_may_come_before_its_checkpoint(disk: SimulatedDisk, keep: int) -> None:
    """P2: LangGraph stores a checkpoint while its tasks run already. Their writes and subgraphs
    stay, even if another run of the thread puts a checkpoint first."""
    with saver_on(disk, keep=keep) as saver:
        last = put_steps(saver, 20)[-1]
        late = checkpoint({"n": "late", "same": ""}, {"n": "late", "same": "1"})
        config = place(checkpoint_id=late["id"])
        saver.put_writes(config, [("n", "early")], "early")
        put_steps(saver, 1, place(namespace="node:1"), parents={"": late["id"]})
        put_steps(saver, 1, last)
        assert saver.put(last, late, {"source": "loop"}, {"n": "late"}) == config
        found = saver.get_tuple(config)
        assert found is not None
        assert found.pending_writes == [("early", "n", "early")]
        assert steps(saver, place(namespace="node:1")) == [0]


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("end", ["expired", "doomed", "doomed namespace"])
def test_an_early_write_begins_a_removed_thread_anew(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, end: str, is_async: bool
) -> None:
    """P2: a write may be the first of a run in a thread that has expired, or whose removal is not
    over. What was there goes first, and the write stays."""
    now = 1e9
    monkeypatch.setattr("time.time", lambda: now)
    with saver_on(disk, ttl_s=100) as saver:
        put_steps(saver, 3)
        if end == "expired":
            now += 200
        else:
            prefix = ("t",) if end == "doomed" else ("t", "")
            saver._saved.commit(lambda t: doom(t, saver._saved, prefix))
        new = checkpoint({"n": 7, "same": ""}, {"n": "1", "same": "1"})
        config = place(checkpoint_id=new["id"])
        if is_async:
            asyncio.run(saver.aput_writes(config, [("n", "early")], "early"))
        else:
            saver.put_writes(config, [("n", "early")], "early")
        saver.put(place(), new, {"source": "loop"}, {"n": "1", "same": "1"})
        found = saver.get_tuple(place())
        assert found is not None
        assert found.pending_writes == [("early", "n", "early")]
        assert steps(saver) == [7]
        now += 200
        assert saver.remove_expired() == 1
        assert rows_left(saver) == {}


def test_a_write_whose_checkpoint_never_comes_expires(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writes of a thread without checkpoints live for `ttl_s`."""
    now = 1e9
    monkeypatch.setattr("time.time", lambda: now)
    with saver_on(disk, ttl_s=100) as saver:
        saver.put_writes(place(checkpoint_id="1"), [("n", 1)], "task")
        now += 200
        assert saver.remove_expired() == 1
        assert rows_left(saver) == {}


def prune(saver: JournalSaver, last: Any) -> None:
    """Put a checkpoint and remove all others."""
    put_steps(saver, 1, last)
    saver.prune(["t"])


def delete(saver: JournalSaver) -> None:
    """Remove the thread."""
    saver.delete_thread("t")


def begin_anew(saver: JournalSaver, last: Any) -> None:
    """Remove the thread and put a checkpoint into it."""
    delete(saver)
    put_steps(saver, 1)


REMOVALS: dict[str, Callable[[JournalSaver, Any], object]] = {
    "other runs": lambda saver, last: put_steps(saver, 4, last),
    "prune": prune,
    "delete_for_runs": lambda saver, last: saver.delete_for_runs(["r"]),
    "delete_thread": lambda saver, _: delete(saver),
    "delete_thread and begin anew": begin_anew,
    "delete_thread of another saver": lambda saver, _: delete(JournalSaver(saver.tables)),
}


@pytest.mark.parametrize("kind", ["writes", "subgraph"])
@pytest.mark.parametrize("removal", REMOVALS)
def test_a_checkpoint_without_its_early_writes_is_refused(
    disk: SimulatedDisk, removal: str, kind: str
) -> None:
    """P2: a resumed run would repeat tasks whose writes were acknowledged, and run a subgraph from
    its beginning."""
    with saver_on(disk, keep=2) as saver:
        last = put_steps(saver, 3, run_id="r")[-1]
        late = checkpoint({"n": "late", "same": ""}, {"n": "late", "same": "1"})
        last = put_steps(saver, 1, last, run_id="r")[-1]
        if kind == "writes":
            saver.put_writes(place(checkpoint_id=late["id"]), [("n", "early")], "early")
        else:
            put_steps(saver, 1, place(namespace="node:1"), parents={"": late["id"]})
        REMOVALS[removal](saver, last)
        before = steps(saver)
        with pytest.raises(JournalError, match="stored writes or subgraphs"):
            saver.put(last, late, {"source": "loop"}, {"n": "late"})
        assert steps(saver) == before


def test_a_removed_checkpoint_may_be_put_again(disk: SimulatedDisk) -> None:
    """Only what came before its checkpoint is missed. What was removed with it is not."""
    with saver_on(disk) as saver:
        config = put_steps(saver, 1)[0]
        state = saver.get(config)
        saver.put_writes(place(checkpoint_id="0"), [("n", "early")], "early")
        saver.delete_thread("t")
        saver.put(place(), state, {"source": "loop"}, {"n": "1", "same": "1"})
        assert steps(saver) == [0]
        saver.copy_thread("t", "copy")
        assert steps(saver, place("copy")) == [0]


def test_a_checkpoint_may_be_put_again_after_an_interrupted_removal(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put that finishes a removal misses only what came before its checkpoint."""

    def interrupt(*_: Any) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with saver_on(disk) as saver:
        config = put_steps(saver, 1)[0]
        state = saver.get(config)
        monkeypatch.setattr(saver._saved.heads, "prefix", interrupt)  # after the checkpoints
        with pytest.raises(KeyboardInterrupt):
            saver.delete_thread("t")
        assert rows_left(saver)["langgraph.writes"] == 1
        saver.put(place(), state, {"source": "loop"}, {"n": "1", "same": "1"})
        assert steps(saver) == [0]


@pytest.mark.parametrize("kind", ["writes", "subgraphs"])
@pytest.mark.parametrize("is_removed_before", [False, True])
def test_a_checkpoint_may_come_after_an_interrupted_prune(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch, is_removed_before: bool, kind: str
) -> None:
    """An interrupted prune removed nothing, so the put is accepted. It is refused if a prune before
    that removed writes or subgraphs."""
    transact = Tables._transact_once

    def interrupted(tables: Tables, write: Any) -> Any:
        def interrupt(t: Any) -> None:
            write(t)
            raise KeyboardInterrupt

        return transact(tables, interrupt)

    with saver_on(disk) as saver:
        first = put_steps(saver, 1)[0]
        late = checkpoint({"n": "late", "same": ""}, {"n": "late", "same": "1"})
        config = place(checkpoint_id=late["id"])

        def store_early(name: str) -> None:
            if kind == "writes":
                saver.put_writes(config, [("n", "early")], name)
            else:
                put_steps(saver, 1, place(namespace=f"{name}:1"), parents={"": late["id"]})

        put_steps(saver, 2, first)
        if is_removed_before:
            store_early("removed")
            saver.prune(["t"])
        store_early("left")
        monkeypatch.setattr(Tables, "_transact_once", interrupted)
        with pytest.raises(KeyboardInterrupt):
            saver.prune(["t"])
        monkeypatch.undo()
        if is_removed_before:
            with pytest.raises(JournalError, match="stored writes or subgraphs"):
                saver.put(first, late, {"source": "loop"}, {"n": "late"})
        else:
            assert saver.put(first, late, {"source": "loop"}, {"n": "late"}) == config


def test_removed_early_checkpoints_take_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """At least the last keys are remembered, and at most twice as many."""
    monkeypatch.setattr(_recent, "_KEYS", 4)
    recent = _recent.RecentKeys()
    for number in range(100):
        recent.add(number)
        found = [key for key in range(number + 1) if key in recent]
        assert found[-4:] == [*range(max(number - 3, 0), number + 1)]
        assert len(found) <= 8
