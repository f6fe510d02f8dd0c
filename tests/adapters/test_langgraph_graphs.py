"""Graphs that run with a JournalSaver, beside LangGraph's own saver in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from operator import add
from typing import Annotated, Any, TypedDict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import JournalError
from journal.testing import SimulatedDisk, lose
from tests.installed import import_package
from tests.tiers import examples

import_package("langgraph.graph")

from langgraph.channels.delta import DeltaChannel  # noqa: E402
from langgraph.checkpoint.base import BaseCheckpointSaver  # noqa: E402
from langgraph.checkpoint.memory import InMemorySaver  # noqa: E402
from langgraph.errors import EmptyInputError, InvalidUpdateError  # noqa: E402
from langgraph.graph import END, START, StateGraph  # noqa: E402
from langgraph.types import Command, RetryPolicy, Send, interrupt  # noqa: E402

from journal.adapters.langgraph import JournalSaver  # noqa: E402
from tests.adapters.langgraph_support import place, rows_left, saver_on  # noqa: E402

THREADS = ("t", "u")
ACTS = ("ok", "ok", "fail", "ask", "ask twice", "large", "nothing")
PLANS = st.lists(st.sampled_from(ACTS), max_size=10)
RUNS = st.tuples(
    st.sampled_from(["invoke", "go on", "resume", "command", "travel"]),
    st.sampled_from(THREADS),
    PLANS,
    st.sampled_from(["sync", "async", "exit"]),
    st.booleans(),
    st.integers(0, 9),
)
UPDATES = st.tuples(
    st.just("update"), st.sampled_from(THREADS), st.sampled_from("abd"), st.integers(0, 9)
)
OTHERS = st.sampled_from([("power cut",), *((kind, t) for kind in ("delete", "prune", "copy")
                                            for t in THREADS)])  # fmt: skip
STEPS = st.lists(RUNS | RUNS | UPDATES | OTHERS, max_size=10)
plan: list[str] = []  # what the next nodes do


class FailedError(Exception):
    """A node has failed."""


def appended(items: list[Any], writes: Sequence[list[Any]]) -> list[Any]:
    """Return the value of a delta channel after writes."""
    return [*items, *(item for write in writes for item in write)]


class State(TypedDict, total=False):
    n: Annotated[list[Any], add]
    m: Annotated[list[Any], DeltaChannel(appended, snapshot_frequency=3)]


def act(name: str) -> Any:
    """Do what the plan says, in a node."""
    match plan.pop(0) if plan else "ok":
        case "fail":
            raise FailedError(name)
        case "ask":
            return {"n": [name, interrupt(name)], "m": [name]}
        case "ask twice":
            return {"m": [interrupt(1), interrupt(2)]}
        case "large":
            return {"n": [name], "m": ["x" * 40_000]}
        case "nothing":
            return None
    return {"n": [name], "m": [name]}


def node(name: str, is_async: bool) -> Any:
    async def run(_: State) -> Any:
        await asyncio.sleep(0)
        return act(name)

    return run if is_async else lambda _: act(name)


def route(_: State) -> Any:
    """Return the nodes that run side by side."""
    return {
        "fail": ["b", "c"],
        "ask": [Send("c", {}), Send("c", {}), "b"],
        "nothing": END,
    }.get(plan.pop(0) if plan else "", ["b", "sub", "lasting"])


def compiled(saver: Any, is_async: bool) -> Any:
    """Return a graph with parallel branches, retries, and two kinds of subgraphs."""

    def subgraph(checkpointer: Any) -> Any:
        builder = StateGraph(State)
        builder.add_node("s1", node("s1", is_async))
        builder.add_node("s2", node("s2", is_async))
        builder.add_edge(START, "s1")
        builder.add_edge("s1", "s2")
        return builder.compile(checkpointer=checkpointer)

    retry = RetryPolicy(max_attempts=2, initial_interval=0, jitter=False, retry_on=FailedError)
    builder = StateGraph(State)
    for name in "acd":
        builder.add_node(name, node(name, is_async))
    builder.add_node("b", node("b", is_async), retry_policy=retry)
    builder.add_node("sub", subgraph(None))
    builder.add_node("lasting", subgraph(True))
    builder.add_edge(START, "a")
    builder.add_conditional_edges("a", route, ["b", "c", "sub", "lasting", END])
    for name in ("b", "c", "sub", "lasting"):
        builder.add_edge(name, "d")
    return builder.compile(checkpointer=saver)


class Both(BaseCheckpointSaver[str]):
    """A JournalSaver, whose changes are made to LangGraph's own saver, too."""

    def __init__(self, saver: JournalSaver, own: InMemorySaver) -> None:
        super().__init__(serde=saver.serde)
        self.own = own
        for name in (
            "get_tuple", "aget_tuple", "list", "alist", "get_next_version",
            "get_delta_channel_history", "aget_delta_channel_history",
        ):  # fmt: skip
            setattr(self, name, getattr(saver, name))
        self.saver = saver

    def put(self, *arguments: Any) -> Any:
        config = self.saver.put(*arguments)
        assert self.own.put(*arguments) == config
        return config

    async def aput(self, *arguments: Any) -> Any:
        config = await self.saver.aput(*arguments)
        assert self.own.put(*arguments) == config
        return config

    def put_writes(self, config: Any, writes: Any, task_id: str, task_path: str = "") -> None:
        self.saver.put_writes(config, writes, task_id, task_path)
        self.own.put_writes(config, writes, task_id, task_path)

    async def aput_writes(
        self, config: Any, writes: Any, task_id: str, task_path: str = ""
    ) -> None:
        await self.saver.aput_writes(config, writes, task_id, task_path)
        self.own.put_writes(config, writes, task_id, task_path)


class Program:
    """A program that runs graphs and is restarted."""

    def __init__(self, keep: int | None) -> None:
        self._disk, self._keep, self.own = SimulatedDisk(), keep, InMemorySaver()
        self._open()

    def _open(self) -> None:
        self._stack = ExitStack()
        self.saver = self._stack.enter_context(saver_on(self._disk, keep=self._keep))
        self.own.serde = self.saver.serde
        both = Both(self.saver, self.own)
        self._graphs = [compiled(both, is_async) for is_async in (False, True)]

    def close(self) -> None:
        self._stack.close()

    def take(self, step: Any) -> None:
        match step:
            case ("power cut",):
                self._disk.power_cut(lose)
                with suppress(JournalError):
                    self.close()
                self._open()
            case "delete", thread:
                self.saver.delete_thread(thread)
                self.own.delete_thread(thread)
            case "prune", thread if self._keep is not None:
                self.saver.prune([thread])
            case "copy", thread:
                self.saver.copy_thread(thread, "copy")
                assert shown(self.saver, "copy") == shown(self.saver, thread)
                self.saver.delete_thread("copy")
            case "update", thread, name, index:
                with suppress(InvalidUpdateError):
                    self._graphs[0].update_state(
                        self._at(thread, index), {"n": ["u"], "m": ["u"]}, as_node=name
                    )
            case kind, thread, acts, durability, is_async, index:
                self._run(kind, thread, acts, durability, is_async, index)

    def _run(
        self, kind: str, thread: str, acts: list[str], durability: str, is_async: bool, index: int
    ) -> None:
        config = self._at(thread, index if kind == "travel" else None)
        state = self._graphs[0].get_state(config)
        if kind != "invoke" and state.created_at is None:
            return
        given: Any = {
            "invoke": {"n": ["in"], "m": ["in"]},
            "resume": Command(resume={each.id: index for each in state.interrupts} or index),
            "command": Command(update={"n": ["cmd"], "m": ["cmd"]}, goto="d"),
        }.get(kind)
        plan[:] = acts
        with suppress(FailedError, InvalidUpdateError, EmptyInputError):
            if is_async:
                asyncio.run(self._graphs[1].ainvoke(given, config, durability=durability))
            else:
                self._graphs[0].invoke(given, config, durability=durability)

    def _at(self, thread: str, index: int | None) -> Any:
        """Return the config of a checkpoint of a thread, or of its newest one."""
        configs = [found.config for found in self.saver.list(place(thread))]
        return configs[index % len(configs)] if configs and index is not None else place(thread)

    def compare(self) -> None:
        """Assert that what is there is LangGraph's, and that nothing is missing but what `keep`
        and a prune remove."""
        for thread in THREADS:
            found, own = shown(self.saver, thread), shown(self.own, thread)
            if self._keep is None:
                assert found == own
            newest = max((key for key in own if key[0] == ""), default=None)
            assert newest is None or newest in found
            assert found == {key: own[key] for key in found}


def shown(saver: Any, thread: str) -> dict[Any, Any]:
    """Return what a saver shows of each checkpoint of a thread, by namespace and id."""
    found = {}
    for each in saver.list({"configurable": {"thread_id": thread}}):
        history = None
        if "m" in each.checkpoint["channel_versions"].keys() - each.checkpoint["channel_values"]:
            history = saver.get_delta_channel_history(config=each.config, channels=["m"])
        _, namespace, checkpoint_id = each.config["configurable"].values()
        parent = each.parent_config and each.parent_config["configurable"]["checkpoint_id"]
        rest = (each.checkpoint, each.metadata, parent, each.pending_writes, history)
        found[namespace, checkpoint_id] = rest
    return found


@pytest.mark.parametrize("keep", [None, 1, 3])
@given(steps=STEPS)
@settings(max_examples=examples(40), deadline=None)
def test_graphs_run_as_with_langgraphs_saver(keep: int | None, steps: list[Any]) -> None:
    """P2: after each run, each change of its state and each power cut, the saver shows what
    LangGraph's own shows: checkpoints, writes, and the histories of delta channels."""
    with closing(Program(keep)) as program:
        for step in steps:
            program.take(step)
            program.compare()
        for thread in THREADS:
            program.saver.delete_thread(thread)
        assert rows_left(program.saver) == {}
