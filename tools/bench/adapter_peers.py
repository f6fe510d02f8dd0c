"""The stores of other libraries that `bench adapters` measures, each as its documentation uses it.

A superstep puts a checkpoint and a write of a thread of LangGraph, and waits for both. A turn adds
two items to a session of the Agents SDK, and reads the last ten.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypedDict

from journal import Tables

STATIC_BYTES = 1000  # of a value that does not change
_TEXT = "x" * 1000
_ITEM = "x" * 500
_ITEMS_READ = 10
_CONNECTIONS_MAX = 64  # of Postgres

Turn = Callable[[], Any]


@contextmanager
def saver(peer: str, directory: Path) -> Iterator[Any]:
    """Open a saver of LangGraph. A peer with "://" is the address of a Postgres server."""
    from journal.adapters.langgraph import JournalSaver

    if "://" in peer:
        with _postgres(peer) as opened:
            yield opened
    elif peer == "sqlite":
        from langgraph.checkpoint.sqlite import SqliteSaver

        with SqliteSaver.from_conn_string(str(directory / "steps.db")) as opened:
            yield opened
    else:
        waits = peer != "journal-loop"
        with JournalSaver.open(directory / "steps", wait_loop_puts=waits) as opened:
            yield opened


@contextmanager
def _postgres(url: str) -> Iterator[Any]:
    postgres, rows, pools = map(
        import_module, ("langgraph.checkpoint.postgres", "psycopg.rows", "psycopg_pool")
    )
    arguments = {"autocommit": True, "prepare_threshold": 0, "row_factory": rows.dict_row}
    with pools.ConnectionPool(url, max_size=_CONNECTIONS_MAX, kwargs=arguments) as pool:
        opened = postgres.PostgresSaver(pool)
        opened.setup()
        yield opened


@asynccontextmanager
async def async_saver(peer: str, directory: Path) -> AsyncIterator[Any]:
    """Open a saver of LangGraph in an event loop."""
    if peer == "sqlite":
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        async with AsyncSqliteSaver.from_conn_string(str(directory / "graph.db")) as opened:
            yield opened
    else:
        from journal.adapters.langgraph import JournalSaver

        async with JournalSaver.open(directory / "graph") as opened:
            yield opened


class Steps:
    """The supersteps of one thread of LangGraph, with the time that each took, in s."""

    def __init__(
        self, saver: Any, thread: str, static_bytes: int, *, changing_bytes: int = 1000
    ) -> None:
        from langgraph.checkpoint.base.id import uuid6

        self.times_s: list[float] = []
        self._saver, self._new_id, self._count = saver, uuid6, 0
        self._static, self._changing = "x" * static_bytes, "x" * changing_bytes
        self._config: Any = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}

    def call(self) -> None:
        """Put a checkpoint with a value that changes and one that does not, and a write."""
        began = time.perf_counter()
        self._count += 1
        versions = {"changing": f"{self._count:032}.5", "static": f"{1:032}.5"}
        checkpoint = {
            "v": 1,
            "id": str(self._new_id(clock_seq=-1)),
            "ts": "",
            "channel_values": {
                "changing": f"{self._count}{self._changing}",
                "static": self._static,
            },
            "channel_versions": versions,
            "versions_seen": {},
            "updated_channels": None,
        }
        changed = versions if self._count == 1 else {"changing": versions["changing"]}
        metadata = {"source": "loop", "step": self._count, "parents": {}}
        self._config = self._saver.put(self._config, checkpoint, metadata, changed)
        self._saver.put_writes(self._config, [("changing", self._count)], "task")
        self.times_s.append(time.perf_counter() - began)


def graph_turns(saver: Any, conversations: int) -> list[Turn]:
    """Return the turns of conversations with a graph of two nodes."""
    from langgraph.graph import END, START, StateGraph

    class State(TypedDict, total=False):
        text: str
        turns: int

    async def count(state: State) -> State:
        return {"turns": state.get("turns", 0) + 1}

    async def answer(state: State) -> State:
        return {"text": f"{state['turns']}{_TEXT}"}

    builder: Any = StateGraph(State)
    builder.add_node("count", count)
    builder.add_node("answer", answer)
    builder.add_edge(START, "count")
    builder.add_edge("count", "answer")
    builder.add_edge("answer", END)
    graph = builder.compile(checkpointer=saver)

    def turn_of(number: int) -> Turn:
        config = {"configurable": {"thread_id": f"{number}"}}
        return lambda: graph.ainvoke({"text": _TEXT}, config, durability="sync")

    return [turn_of(number) for number in range(conversations)]


@asynccontextmanager
async def session_turns(peer: str, directory: Path, sessions: int) -> AsyncIterator[list[Turn]]:
    """Open sessions of the Agents SDK. Yield the turn of each."""
    if peer == "sqlite":
        from agents import SQLiteSession

        with ExitStack() as stack:
            opened = [SQLiteSession(f"{n}", directory / "chats.db") for n in range(sessions)]
            for session in opened:
                stack.callback(session.close)
            yield [_turn_of(session) for session in opened]
    else:
        from journal.adapters.openai_agents import JournalSession

        async with Tables.aopen(directory / "chats") as tables:
            yield [_turn_of(JournalSession(f"{n}", tables)) for n in range(sessions)]


def _turn_of(session: Any) -> Turn:
    async def turn() -> None:
        items = [{"role": role, "content": _ITEM} for role in ("user", "assistant")]
        await session.add_items(items)
        await session.get_items(limit=_ITEMS_READ)

    return turn
