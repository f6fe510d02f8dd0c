"""The fleet alone: the table of transitions, replay, and the work under the lock."""

from __future__ import annotations

import gc
import json
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FrameType
from typing import Any, NoReturn, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import CowTable, FormatVersionError
from manager import AgentResult, ManagerError, SubAgentManager
from manager.agent import (
    ENDED,
    LIVE,
    STATUSES,
    TRANSITIONS,
    Row,
)
from manager.fleet import Fleet
from manager.layouts import Record
from tests.manager.fleet_support import MemoryState, contents, manager_in_memory

# --- transitions ---


def test_the_table_of_transitions_is_exact() -> None:
    """A queued agent can run, and a running one can end or be interrupted.

    An interrupted agent can run again, or end with its partial result. All three can be cancelled.
    """
    assert {status: set(targets) for status, targets in TRANSITIONS.items()} == {
        "queued": {"running", "cancelled"},
        "running": {"completed", "failed", "cancelled", "interrupted", "budget_exhausted"},
        "interrupted": {"running", *ENDED},
        "completed": set(),
        "failed": set(),
        "cancelled": set(),
        "budget_exhausted": set(),
    }
    assert {*LIVE, *ENDED} == set(STATUSES) == set(TRANSITIONS)
    assert set(LIVE) == {status for status, targets in TRANSITIONS.items() if targets}


# --- replay ---

Change = Callable[[SubAgentManager, str], object]

CHANGES: dict[str, Change] = {
    "start": lambda m, ref: m.start(ref),
    "resume": lambda m, ref: m.resume(ref),
    "resume anew": lambda m, ref: m.resume(ref, checkpoint=[2], token_budget=1000),
    "answer": lambda m, ref: m.answer(ref, {"yes": [1]}),
    "budget": lambda m, ref: m.set_token_budget(ref, 5),
    "take": lambda m, ref: m.take(ref, by=m.spawn("taker").agent_id, checkpoint={"took": ref}),
    "checkpoint": lambda m, ref: m.update_checkpoint(ref, {"at": [1, None, 2.5]}, steps_taken=3),
    "interrupt": lambda m, ref: m.interrupt(ref, "later", checkpoint=[1], needs_input="what?"),
    "failed": lambda m, ref: m.update_failed(ref, "broken"),
    "cancel": lambda m, ref: m.cancel(ref),
    "cancel all": lambda m, ref: m.cancel(ref, descendants=True),
    "cleanup": lambda m, ref: m.cleanup(0),
    "usage": lambda m, ref: m.record_usage(ref, input_tokens=3, output_tokens=4),
    "progress": lambda m, ref: m.progress(ref, "text", [1]),
    "usage of a source": lambda m, ref: m.record_usage(
        ref, input_tokens=1, output_tokens=1, source_id="resp_1"
    ),
    "child": lambda m, ref: m.spawn("a child", parent_id=ref, queued=True, token_budget=9),
    "named child": lambda m, ref: m.spawn("a child", name=ref.upper(), parent_id=ref),
    "spawn": lambda m, ref: m.spawn("p", name=ref, metadata={"k": {}}, allowed_tools=["t"]),
    **{
        status: lambda m, ref, status=status: m.update_from_result(  # type: ignore[misc]
            ref, AgentResult("done", status=status, input_tokens=2, output_tokens=3)
        )
        for status in TRANSITIONS["running"]
    },
}
NAMES = ("a", "b", "A")


@given(st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.sampled_from(NAMES)), max_size=30))
def test_replay_from_any_checkpoint_gives_the_live_fleet(
    changes: list[tuple[str, str]],
) -> None:
    """P6: A replay from any moment's checkpoint, or from none, gives the live fleet in order."""
    manager, state = manager_in_memory()
    frozen = {0: "[]"}
    for kind, ref in changes:
        with suppress(ManagerError):
            CHANGES[kind](manager, ref)
        frozen[len(state.log)] = json.dumps(list(state.machine.freeze()))
    for lsn, items in frozen.items():
        replayed = Fleet()
        for item in json.loads(items):
            replayed.load(item)
        for later, record in enumerate(state.log[lsn:], lsn + 1):
            replayed.apply(later, record)
        assert contents(replayed) == contents(state.machine)
        assert list(replayed.freeze()) == list(state.machine.freeze())


def test_tokens_of_a_result_reach_all_ancestors() -> None:
    """A result's tokens count for the agent and all its ancestors, at the LSN of that change."""
    manager, _ = manager_in_memory()
    root, other = manager.spawn("root"), manager.spawn("other")
    child = manager.spawn("child", parent_id=root.agent_id)
    leaf = manager.spawn("leaf", parent_id=child.agent_id)
    result = AgentResult("done", input_tokens=30, output_tokens=12)
    ended = manager.update_from_result(leaf.agent_id, result)
    for agent in (root, child, leaf):
        assert manager.get(agent.agent_id).tokens_used == 42
        assert manager.get(agent.agent_id).lsn == ended.lsn
    assert manager.get(other.agent_id) == other
    manager.update_from_result(child.agent_id, AgentResult("done", output_tokens=8))
    assert [manager.get(a.agent_id).tokens_used for a in (root, child, leaf)] == [50, 50, 42]


@pytest.mark.parametrize(
    "record",
    [["promote", "agent_1", 1], ["boot", "subagents/2", "boot_1", 1, 2], {"k": 1}, [], [[]], None],
)
def test_a_record_of_a_newer_version_is_refused_with_its_lsn(record: object) -> None:
    """An unknown record is refused with its LSN, and without its content, which may be secret."""
    with pytest.raises(FormatVersionError) as caught:
        Fleet().apply(17, cast("Record", record))
    assert "LSN 17" in str(caught.value)
    assert record is None or str(record) not in str(caught.value)


@pytest.mark.parametrize("item", [{}, {"agent_id": "agent_1"}, [1], None])
def test_a_checkpoint_of_something_else_is_refused(item: Any) -> None:
    """An item that lacks a field of an agent is refused, and the version that is read is named."""
    with pytest.raises(FormatVersionError, match="subagents/1"):
        Fleet().load(item)


def test_a_boot_record_changes_no_agent() -> None:
    """A boot record names its session. An agent's session comes from the agent's own records."""
    fleet = Fleet()
    fleet.apply(1, ["boot", "subagents/1", "boot_1", 1, 2])
    assert contents(fleet) == contents(Fleet())
    assert fleet.boot_id == "boot_1"


# --- work under the lock ---

# Calls of constant time here: what they iterate over is the counts by status, the names in a
# message, or the agents to cancel.
CHEAP = {"dict.copy", "dict.get", "dict.items", "dict.setdefault", "isinstance", "iter", "len"}
CHEAP |= {"dict.pop", "list.append", "list.pop", "next", "str.join"}
UNDER_THE_LOCK = {
    *("manager.manager", "manager.updates", "manager.cleanup", "manager.records"),
    "manager.removal",
    *("manager.fleet", "manager.steps", "manager.family", "manager.errors"),
    *("manager.admission", "manager.names", "manager.queue", "manager.sources"),
    *("journal._state.cow_table", "collections.abc", "typing", "tests.manager.test_fleet"),
    *("manager.agent.extras", "manager.agent._extra.<locals>.<lambda>"),
    "tests.manager.fleet_support",
}


class Uniterable(dict[str, Any]):
    """An index that can be searched and not be iterated."""

    def _refuse(self, *_: object) -> NoReturn:
        raise AssertionError("the whole fleet was iterated under the lock")

    __iter__ = keys = values = items = copy = __eq__ = _refuse


class UniterableTable(CowTable[str, Row]):
    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the whole fleet was iterated under the lock")


Calls = list[str]


def watch_the_lock(state: MemoryState) -> list[Calls]:
    """Record every call under the lock from now on, in one list for each hold."""
    fleet = state.machine
    fleet.rows.__class__ = UniterableTable
    names = fleet.by_name
    names._live, names._ended = Uniterable(names._live), Uniterable(names._ended)
    family = fleet.family
    family._children, family._branches = Uniterable(family._children), Uniterable(family._branches)
    holds: list[Calls] = []

    def note(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            module = frame.f_globals["__name__"]
            called = f"{module}.{frame.f_code.co_qualname}"
            assert module in UNDER_THE_LOCK or called in UNDER_THE_LOCK, called
            holds[-1].append(called)
        elif event == "c_call" and arg is not sys.setprofile:
            holds[-1].append(arg.__qualname__.replace("Uniterable", "dict"))

    def watched(work: Callable[..., Any], *args: object) -> Any:
        holds.append([])
        gc.disable()  # a collection calls the hooks of the test's process
        sys.setprofile(note)
        try:
            return work(*args)
        finally:
            sys.setprofile(None)
            gc.enable()

    state.around = watched
    return holds


def calls_under_lock(fleet_size: int, feed: deque[Row] | None) -> dict[str, Calls]:
    """Return every call that each of the manager's methods makes under its lock, by method."""
    manager, state = manager_in_memory()
    manager.spawn("p", name="parent")
    for number in range(fleet_size):
        if number % 3 == 0:
            manager.cancel(manager.spawn("p", parent_id="parent").agent_id)
        else:
            manager.spawn("p", name=f"name {number}", queued=number % 2 == 0)
    for name in ("queued", "running", "interrupted", "twice"):
        manager.spawn("p", name=name, queued=name == "queued", parent_id="parent")
    manager.interrupt("interrupted", "later")
    manager.cancel("twice")
    manager.cancel(manager.spawn("p", name="twice").agent_id)
    if feed is not None:
        state.machine.feed_to(feed)
    queries: dict[str, Change] = {
        "get": lambda m, ref: m.get(ref),
        "agents": lambda m, ref: m.agents(),
        "counts": lambda m, ref: m.counts(),
        "touch": lambda m, ref: m.touch(ref),
    }
    holds = watch_the_lock(state)
    calls_by_case = {}
    for kind, change in (CHANGES | queries).items():
        for ref in ("queued", "running", "interrupted", "twice", "nobody", "new one", "parent"):
            if kind != "cleanup":
                holds.clear()
                with suppress(ManagerError):
                    change(manager, ref)
                calls_by_case[f"{kind} {ref}"] = [call for calls in holds for call in calls]
    return calls_by_case


def test_no_work_under_the_lock_grows_with_the_fleet() -> None:
    """P7: Each method makes the same calls under the lock for any size of the fleet.

    All of them take constant time, and none iterates over what holds the fleet.
    """
    few, many = calls_under_lock(10, None), calls_under_lock(1000, None)
    assert few == many
    assert all(few.values())
    called = {call for calls in few.values() for call in calls}
    assert {call for call in called if not call.startswith(tuple(UNDER_THE_LOCK))} <= CHEAP
    copying = {kind.split()[0] for kind, calls in few.items() if "dict.copy" in calls}
    assert copying == {"counts"}


def test_watching_adds_one_append_a_changed_agent_under_the_lock() -> None:
    """P7: Watchers cost one append to the feed for each changed agent under the lock, no more."""
    feed: deque[Row] = deque()
    without, watched = calls_under_lock(10, None), calls_under_lock(10, feed)
    assert sum(map(len, watched.values())) == sum(map(len, without.values())) + len(feed)
    for kind, calls in watched.items():
        assert [call for call in calls if call != "deque.append"] == without[kind]


def test_cleanup_holds_the_lock_for_a_slice_at_a_time() -> None:
    """P7: No hold of the lock removes or cancels more than 64 agents, whatever cleanup removes."""
    longest = []
    for size in (200, 1000):
        manager, state = manager_in_memory()
        for _ in range(size):
            manager.cancel(manager.spawn("p", name="same").agent_id)
        before = len(state.log)
        holds = watch_the_lock(state)
        assert len(manager.cleanup(0)) == size == len(state.log) - before
        removals = [calls.count("manager.fleet.Fleet._remove") for calls in holds]
        assert max(removals) == 64
        assert sum(removals) == size
        longest.append(max(map(len, holds)))
    assert longest[0] == longest[1]


def test_cleanup_takes_no_lock_for_agents_that_stay() -> None:
    """P7: Cleanup recognizes ended parents of live children without the lock."""
    manager, state = manager_in_memory()
    for _ in range(100):
        parent = manager.spawn("parent").agent_id
        manager.spawn("child", parent_id=parent)
        manager.cancel(parent)
    holds = watch_the_lock(state)
    assert manager.cleanup(0) == ()
    assert len(holds) == 1  # for the snapshot
