"""Progress: a bounded number of events for each agent, and readers that go on after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from journal import InterruptedCallError
from manager import Agent, AgentResult, Limits, SubAgentManager, TransitionError, read_fleet
from tests.manager_support import ROOMY
from tests.support import TIMEOUT_S

LIMITS = Limits(progress_max=3, progress_bytes_max=50)


def test_the_last_events_are_kept(tmp_path: Path) -> None:
    """P2: The last `progress_max` events survive restarts and the agent's end, numbered without
    reuse, and readers in other processes see them, too."""
    with SubAgentManager.open(tmp_path, limits=LIMITS) as manager:
        agent = manager.spawn("p", name="a")
        assert (agent.progress, manager.events("a")) == (None, [])
        for number in range(1, 6):
            agent = manager.progress("a", f"step {number}", {"n": number})
        assert agent.progress == manager.events("a")[-1]
        assert [event["number"] for event in manager.events("a")] == [3, 4, 5]
        assert manager.events("a", after=4) == [agent.progress]
        manager.events("a")[0]["data"]["n"] = "changed"
        manager.compact()
    with SubAgentManager.open(tmp_path, limits=Limits(progress_max=2)) as manager:
        manager.resume("a")
        event = manager.progress("a", "more").progress
        assert event is not None
        assert (event["number"], event["text"], event["data"]) == (6, "more", None)
        assert event["at_ms"] == manager.get("a").updated_at_ms
        manager.update_from_result("a", AgentResult("done"))
        events = manager.events("a")
        assert [event["text"] for event in events] == ["step 5", "more"]
        with pytest.raises(TransitionError, match="needs a running agent; this one has ended"):
            manager.progress("a", "late")
    assert read_fleet(tmp_path / ".subagents").events("a") == events


def test_an_event_is_bounded(tmp_path: Path) -> None:
    """An event over `progress_bytes_max` is refused, and nothing changes."""
    with SubAgentManager.open(tmp_path, limits=LIMITS) as manager:
        before = manager.spawn("p", name="a")
        with pytest.raises(ValueError, match="over progress_bytes_max=50"):
            manager.progress("a", "x" * 20, "y" * 30)
        assert manager.get("a") == before
        assert manager.progress("a", "x" * 20, "y" * 20).progress is not None


async def read(manager: SubAgentManager, count: int, cursor: str = "mine") -> list[Agent]:
    """Read `count` changes with a cursor, and ask for one more unless there is none."""
    reader = manager.changes(cursor=cursor)
    got = []
    async with asyncio.timeout(TIMEOUT_S):
        for _ in range(count):
            got.append(await anext(reader))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            got.append(await anext(reader))
    await reader.aclose()
    return got


def names(agents: list[Agent]) -> list[str]:
    return [agent.name for agent in agents]


def test_a_reader_with_a_cursor_goes_on_after_a_restart(tmp_path: Path) -> None:
    """P2: A reader with a cursor gets each change that it has not dealt with, also those that were
    made while it was away; another cursor is independent of it."""
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        for name in ("a", "b", "c"):
            manager.spawn("p", name=name)
        assert names(asyncio.run(read(manager, 3))) == ["a", "b", "c"]
        manager.progress("b", "half")
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        got = asyncio.run(read(manager, 3))  # all were interrupted, and `b` made progress before
        assert sorted(names(got)) == ["a", "b", "c"]
        assert asyncio.run(read(manager, 0)) == []
        manager.resume("c")
        manager.compact()
    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        got = asyncio.run(read(manager, 1))
        assert [(agent.name, agent.status) for agent in got] == [("c", "interrupted")]
        assert len(asyncio.run(read(manager, 3, "another"))) == 3


def test_a_change_in_work_is_read_again(tmp_path: Path) -> None:
    """A change counts as dealt with when the next one is asked for: a crash before delivers it
    again."""

    async def first(manager: SubAgentManager) -> Agent:
        async with asyncio.timeout(TIMEOUT_S):
            return await anext(manager.changes(cursor="mine"))

    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        manager.spawn("p", name="a")
        assert asyncio.run(first(manager)).name == "a"
        assert asyncio.run(first(manager)).name == "a"


def test_a_busy_reader_stores_its_position(tmp_path: Path) -> None:
    """A reader that always finds more to read stores its position now and then."""

    async def busy(manager: SubAgentManager) -> None:
        reader = manager.changes(cursor="mine")
        for _ in range(200):
            await anext(reader)

    with SubAgentManager.open(tmp_path, limits=ROOMY) as manager:
        for _ in range(300):
            manager.spawn("p")
        asyncio.run(busy(manager))
        position = manager.tables.table("changes.cursors")["mine"]
        assert 100 < position < 200


def test_a_signal_handler_s_error_ends_a_reader_with_a_cursor(tmp_path: Path) -> None:
    """Only the errors of a full, failed or closed journal leave a position for later."""

    def interrupted(lsn: int) -> None:
        raise InterruptedCallError

    async def body() -> None:
        with SubAgentManager.open(tmp_path) as manager:
            manager.spawn("p")
            reader = manager.changes(cursor="mine")
            await anext(reader)
            reader._store = interrupted
            with pytest.raises(InterruptedCallError):
                await anext(reader)

    asyncio.run(body())


def test_a_cursor_excludes_a_position(tmp_path: Path) -> None:
    """An iterator begins at a cursor or after an LSN, and not at both."""
    with (
        SubAgentManager.open(tmp_path) as manager,
        pytest.raises(ValueError, match="exclude each other"),
    ):
        manager.changes(0, cursor="mine")
