"""Workers: a loop runs queued agents with coroutines, and continues after restarts."""

from __future__ import annotations

import asyncio
import errno
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from journal import ClosedError, FailedError
from journal.testing import SimulatedDisk
from manager import AgentResult, Limits, SubAgentManager, TransitionError, WorkContext, run_workers
from tests.support import TIMEOUT_S

Body = Callable[[SubAgentManager], Awaitable[object]]


def run(folder: Path, body: Body, **limits: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            async with SubAgentManager.aopen(folder, limits=Limits(**limits)) as manager:
                await body(manager)

    asyncio.run(main())


def queue(manager: SubAgentManager, *names: str, agent_type: str = "t") -> None:
    for name in names:
        manager.spawn("p", name=name, agent_type=agent_type, queued=True)


async def echo(context: WorkContext) -> str:
    return f"result of {context.agent.name}"


def test_the_loop_runs_what_is_queued_and_returns(tmp_path: Path) -> None:
    """Queued agents of the given types run in order, at most `max_running` at a time, also those
    that are spawned meanwhile. Others are left alone."""
    order: list[str] = []
    running: set[str] = set()

    async def work(context: WorkContext) -> AgentResult:
        order.append(context.agent.name)
        running.add(context.agent.name)
        assert len(running) <= 2
        await asyncio.sleep(0.001)
        running.remove(context.agent.name)
        if context.agent.name == "b":
            queue(context.manager, "late")
        return AgentResult(context.agent.name, output_tokens=1)

    async def body(manager: SubAgentManager) -> None:
        await run_workers(manager, {"t": work})
        queue(manager, "a", "b", "c", "d")
        queue(manager, "other", agent_type="unknown")
        await run_workers(manager, {"t": work})
        assert order == ["a", "b", "c", "d", "late"]
        for name in order:
            agent = manager.get(name)
            assert (agent.status, agent.result, agent.tokens_used) == ("completed", name, 1)
        assert manager.get("other").status == "queued"

    run(tmp_path, body, max_running=2)


def test_a_context_stores_checkpoints_and_progress(tmp_path: Path) -> None:
    """A checkpoint is durable when it returns, and counts a step unless it is given the number."""

    async def work(context: WorkContext) -> str:
        agent = await context.checkpoint({"at": 1})
        assert context.manager.stats().durable_lsn >= agent.lsn
        assert (await context.checkpoint({"at": 2}, steps_taken=7)).steps_taken == 7
        await context.progress("half", [1])
        assert context.agent.progress == context.manager.events("a")[0]
        return "done"

    async def body(manager: SubAgentManager) -> None:
        queue(manager, "a")
        await run_workers(manager, {"t": work})
        agent = manager.get("a")
        assert (agent.checkpoint, agent.steps_taken) == ({"at": 2}, 7)

    run(tmp_path, body)


def test_an_exception_makes_the_agent_fail(tmp_path: Path) -> None:
    """Whatever a worker raises or returns wrongly is the reason of its agent's failure, and the
    other agents go on."""

    async def work(context: WorkContext) -> Any:
        match context.agent.name:
            case "raises":
                raise ValueError("no \ud800 way")
            case "cancels itself":
                raise asyncio.CancelledError
            case "returns a number":
                return 7
        return "fine"

    async def body(manager: SubAgentManager) -> None:
        queue(manager, "raises", "cancels itself", "returns a number", "fine")
        await run_workers(manager, {"t": work})
        assert manager.get("raises").reason == "ValueError: no ? way"
        for name in ("raises", "cancels itself", "returns a number"):
            assert manager.get(name).status == "failed"
        assert manager.get("fine").status == "completed"

    run(tmp_path, body)


@pytest.mark.parametrize("how", ["cancel", "interrupt"])
def test_a_worker_learns_that_its_agent_no_longer_runs(tmp_path: Path, how: str) -> None:
    """A call that ends or interrupts an agent sets `cancelled`, and the late result is ignored. The
    loop does not resume an agent that somebody has interrupted."""

    async def work(context: WorkContext) -> str:
        if how == "cancel":
            context.manager.cancel("a")
        else:
            context.manager.interrupt("a", "pause")
        await context.cancelled.wait()
        with pytest.raises(TransitionError):
            await context.checkpoint(1)
        return "late"

    async def body(manager: SubAgentManager) -> None:
        queue(manager, "a")
        await run_workers(manager, {"t": work})
        agent = manager.get("a")
        status = "cancelled" if how == "cancel" else "interrupted"
        assert (agent.status, agent.result) == (status, None)

    run(tmp_path, body)


def test_a_question_is_answered_and_the_agent_resumed(tmp_path: Path) -> None:
    """An agent that asks is resumed once it was answered, and finds the answer."""

    async def work(context: WorkContext) -> AgentResult:
        if context.agent.answer is None:
            return AgentResult(None, status="interrupted", needs_input="red?")
        return AgentResult(f"{context.agent.answer} it is")

    async def body(manager: SubAgentManager) -> None:
        queue(manager, "a")
        await run_workers(manager, {"t": work})
        assert manager.get("a").needs_input == "red?"
        manager.answer("a", "blue")
        await run_workers(manager, {"t": work})
        assert manager.get("a").result == "blue it is"

    run(tmp_path, body)


def test_the_loop_continues_after_a_restart(tmp_path: Path) -> None:
    """P2: The next process resumes what the last one left, from the last durable checkpoint."""

    async def dies(context: WorkContext) -> str:
        await context.checkpoint({"at": 1})
        raise KeyboardInterrupt

    async def first(manager: SubAgentManager) -> None:
        queue(manager, "a", "b")
        await run_workers(manager, {"t": dies})

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, first, max_running=1)
    gc.collect()  # asyncio logs the error of the task here, and not during another test

    async def continues(context: WorkContext) -> str:
        return f"{context.agent.checkpoint} {context.agent.starts}"

    async def second(manager: SubAgentManager) -> None:
        await run_workers(manager, {"t": continues})
        assert manager.get("a").result == "{'at': 1} 2"
        assert manager.get("b").result == "None 1"

    run(tmp_path, second)


def test_a_cancelled_loop_interrupts_its_agents(tmp_path: Path) -> None:
    """The agents of a cancelled loop are interrupted, and the next loop resumes them."""

    async def forever(context: WorkContext) -> None:
        await asyncio.Event().wait()

    async def body(manager: SubAgentManager) -> None:
        queue(manager, "a")
        loop = asyncio.ensure_future(run_workers(manager, {"t": forever}, until_idle=False))
        while manager.get("a").status != "running":
            await asyncio.sleep(0)
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop
        assert manager.get("a").status == "interrupted"
        await run_workers(manager, {"t": echo})
        assert manager.get("a").result == "result of a"

    run(tmp_path, body)


def test_an_endless_loop_runs_what_comes_later(tmp_path: Path) -> None:
    """Without `until_idle`, the loop waits for more agents, until the manager is closed."""

    async def body(manager: SubAgentManager) -> None:
        loop = asyncio.ensure_future(run_workers(manager, {"t": echo}, until_idle=False))
        await asyncio.sleep(0)
        queue(manager, "a")
        assert (await manager.ended("a")).result == "result of a"
        await manager.aclose()
        with pytest.raises(ClosedError):
            await loop

    run(tmp_path, body)


@pytest.mark.parametrize("method", ["resume", "update_from_result"])
def test_a_signal_handler_s_error_ends_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A LookupError that a signal handler raises within a call is not taken for a removed agent."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyError("of a handler")

    async def body(manager: SubAgentManager) -> None:
        manager.spawn("p", name="a", agent_type="t")
        manager.interrupt("a", "asks", needs_input="?")
        manager.answer("a", "yes")
        monkeypatch.setattr(SubAgentManager, method, interrupted)
        with pytest.raises(KeyError, match="of a handler"):
            await run_workers(manager, {"t": echo})

    run(tmp_path, body)


def test_a_failed_journal_names_its_cause() -> None:
    """The FailedError that ends the loop has the disk's error as its cause."""
    disk = SimulatedDisk()

    async def work(context: WorkContext) -> str:
        disk.fail("sync", errno.EIO)
        await context.checkpoint({})
        return "never"

    async def main() -> None:
        with SubAgentManager.open("/", state_dir="s", disk=disk) as manager:
            queue(manager, "a")
            async with asyncio.timeout(TIMEOUT_S):
                await run_workers(manager, {"t": work})

    with pytest.raises(FailedError) as raised:
        asyncio.run(main())
    cause = raised.value.__cause__
    assert isinstance(cause, OSError)
    assert cause.errno == errno.EIO
