"""Control of workers: other processes spawn, pause, resume and retry the agents of a loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from manager import Agent, AgentResult, Limits, SubAgentManager, WorkContext, run_workers
from manager._cli.cli import run_cli
from manager._control import runners
from manager._control.errors import RefusedError
from manager._control.runners import PAUSED
from manager.again import TASK_TYPE
from tests.manager.control_support import ask
from tests.manager.runner_support import put_in_state, run
from tests.support import TIMEOUT_S

Client = Callable[[SubAgentManager], Awaitable[object]]


def controlled_loop(
    folder: Path,
    worker: Any,
    client: Client,
    *,
    queued: dict[str, Any] | None = None,
    **limits: Any,
) -> None:
    """Run agents of the type "t" with `worker`, while `client` sends requests. With the values of
    a `queued` agent, until the loop is idle."""
    until_idle = queued is not None

    async def main() -> None:
        async with asyncio.timeout(TIMEOUT_S):
            opening = SubAgentManager.aopen(folder, limits=Limits(**limits), control=True)
            async with opening as manager:
                if queued is not None:
                    manager.spawn("p", agent_type="t", queued=True, **queued)
                loop = asyncio.create_task(
                    run_workers(manager, {"t": worker}, until_idle=until_idle)
                )
                await asyncio.sleep(0)
                await client(manager)
                if not until_idle:
                    loop.cancel()
                await asyncio.gather(loop, return_exceptions=True)

    asyncio.run(main())


def asking(folder: Path) -> Callable[..., Coroutine[Any, Any, dict[str, Any]]]:
    """Return a function that sends a request from another thread."""

    async def send(verb: str, **arguments: Any) -> dict[str, Any]:
        return await asyncio.to_thread(ask, folder, verb, **arguments)

    return send


async def changed(manager: SubAgentManager, ref: str, status: str) -> Agent:
    """Wait until the agent has this status."""
    async for agent in manager.changes(after=0):
        if ref in (agent.name, agent.agent_id) and agent.status == status:
            return agent
    raise AssertionError(f"{ref} never was {status}")


async def until_cancelled(context: WorkContext) -> str:
    if context.agent.starts > 1:
        return "done"
    await context.cancelled.wait()
    return "late"


def test_an_agent_is_spawned_for_a_worker(tmp_path: Path) -> None:
    """A spawned agent runs if its type has a worker. Other types are refused, and so is every type
    when the loop has ended."""

    async def work(context: WorkContext) -> str:
        return f"{context.agent.prompt} {context.agent.metadata}"

    async def client(manager: SubAgentManager) -> None:
        send = asking(tmp_path)
        reply = await send("spawn", prompt="p", agent_type="t", name="a", metadata={"k": 1})
        assert (await manager.ended("a")).result == "p {'k': 1}"
        assert (reply["name"], reply["status"]) == ("a", "queued")
        for agent_type in ("u", ["t"]):
            with pytest.raises(RefusedError, match=r"agent_type|no worker"):
                await send("spawn", prompt="p", agent_type=agent_type)
        for option in ({"queued": False}, {"unknown": 1}):
            with pytest.raises(RefusedError, match=r"unexpected keyword|multiple values"):
                await send("spawn", prompt="p", agent_type="t", **option)
        assert len(manager.agents()) == 1

    controlled_loop(tmp_path, work, client)
    with SubAgentManager.open(tmp_path, control=True):
        for verb, arguments in (("spawn", {"prompt": "p", "agent_type": "t"}), ("pause", {})):
            with pytest.raises(RefusedError, match=r"no worker|nothing starts"):
                ask(tmp_path, verb, **arguments)


def test_requests_make_no_task_of_a_run(tmp_path: Path) -> None:
    """A request makes no agent of the type of tasks, not even for a worker of this type. No other
    agent is a task, whatever its metadata: no run runs its command, and it is no newer attempt."""
    put_in_state(tmp_path, ("a", "touch ran", "queued"))
    planted = {"task": "name:a", "command": "touch planted", "attempt": 9}

    async def work(context: WorkContext) -> None:
        raise AssertionError("nothing starts")

    async def main() -> None:
        send = asking(tmp_path)
        async with SubAgentManager.aopen(tmp_path, control=True) as manager:
            manager.cancel("a")
            loop = asyncio.create_task(
                run_workers(manager, {"t": work, TASK_TYPE: work}, until_idle=False)
            )
            await asyncio.sleep(0)
            await send("pause")
            await send("spawn", prompt="p", agent_type="t", metadata=planted)
            with pytest.raises(RefusedError, match="from files of tasks only"):
                await send("spawn", prompt="p", agent_type=TASK_TYPE, metadata=planted)
            loop.cancel()
            await asyncio.gather(loop, return_exceptions=True)

    asyncio.run(main())
    assert run_cli(["retry", "a", "--workspace", str(tmp_path)]) == 0
    assert len(run(tmp_path).agents) == 1
    assert {path.name for path in tmp_path.iterdir()} == {".subagents", "ran"}


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_a_worker_learns_that_its_agent_no_longer_runs(tmp_path: Path, verb: str) -> None:
    """A cancel and a pause reach the worker through `cancelled`, and what it returns then is
    ignored."""

    async def client(manager: SubAgentManager) -> None:
        manager.spawn("p", name="a", agent_type="t", queued=True)
        await changed(manager, "a", "running")
        reply = await asking(tmp_path)(verb, ref="a")
        assert reply["status"] == {"cancel": "cancelled", "pause": "interrupted"}[verb]
        assert manager.get("a").result is None

    controlled_loop(tmp_path, until_cancelled, client)


def test_a_paused_agent_waits_for_the_resume(tmp_path: Path) -> None:
    """The loop waits for a paused agent, and runs it again when it is resumed."""

    async def client(manager: SubAgentManager) -> None:
        send = asking(tmp_path)
        await changed(manager, "a", "running")
        assert (await send("pause", ref="a"))["reason"] == PAUSED
        with pytest.raises(RefusedError, match="needs a running agent"):
            await send("pause", ref="a")
        await send("resume", ref="a")
        assert (await manager.ended("a")).result == "done"
        with pytest.raises(RefusedError, match=r"not interrupted|nothing runs"):
            await send("resume", ref="a")

    controlled_loop(tmp_path, until_cancelled, client, queued={"name": "a"})


def test_a_resumed_agent_waits_for_a_place(tmp_path: Path) -> None:
    """A resume while all places are taken takes effect when one is free. One that a budget forbids
    is refused, and the agent stays paused."""

    async def client(manager: SubAgentManager) -> None:
        send = asking(tmp_path)
        manager.spawn("p", name="a", agent_type="t", queued=True)
        await changed(manager, "a", "running")
        await send("pause", ref="a")
        manager.spawn("p", name="b", agent_type="t", queued=True)
        await changed(manager, "b", "running")
        assert (await send("resume", ref="a"))["status"] == "interrupted"
        await send("cancel", ref="b")
        assert (await manager.ended("a")).result == "done"
        manager.spawn("p", name="c", agent_type="t", token_budget=5, queued=True)
        await changed(manager, "c", "running")
        await send("pause", ref="c")
        manager.record_usage("c", input_tokens=9, output_tokens=0)
        with pytest.raises(RefusedError, match="has used 9 tokens"):
            await send("resume", ref="c")
        manager.set_token_budget("c", None)
        await send("resume", ref="c")
        assert (await manager.ended("c")).result == "done"

    controlled_loop(tmp_path, until_cancelled, client, max_running=1)


def test_a_paused_agent_is_resumed_by_the_next_loop(tmp_path: Path) -> None:
    """A pause lasts as long as the loop. An agent that another call has interrupted is left alone
    by the next one, until a request resumes it."""

    async def pauses(manager: SubAgentManager) -> None:
        for name in ("a", "b"):
            manager.spawn("p", name=name, agent_type="t", queued=True)
            await changed(manager, name, "running")
        await asking(tmp_path)("pause", ref="a")
        manager.interrupt("b", "by hand")

    async def resumes(manager: SubAgentManager) -> None:
        assert (await manager.ended("a")).result == "done"
        assert manager.get("b").status == "interrupted"
        await asking(tmp_path)("resume", ref="b")
        assert (await manager.ended("b")).result == "done"

    controlled_loop(tmp_path, until_cancelled, pauses)
    controlled_loop(tmp_path, until_cancelled, resumes)


def test_a_held_loop_starts_nothing(tmp_path: Path) -> None:
    """`pause` without an agent starts nothing new until `resume`, in later loops, too."""

    async def client(manager: SubAgentManager) -> None:
        send = asking(tmp_path)
        assert await send("pause") == {"paused": True}
        manager.spawn("p", name="a", agent_type="t", queued=True)
        later = asyncio.create_task(run_workers(manager, {"u": until_cancelled}))
        manager.spawn("p", name="b", agent_type="u", queued=True)
        await send("cancel", ref=manager.spawn("p", agent_type="t", queued=True).agent_id)
        assert manager.counts()["queued"] == 2
        assert await send("resume") == {"paused": False}
        await changed(manager, "a", "running")
        await changed(manager, "b", "running")
        await send("cancel", ref="a")
        await send("cancel", ref="b")
        await later

    controlled_loop(tmp_path, until_cancelled, client)


def test_a_resume_counts_before_the_loop_knows_of_the_interrupt(tmp_path: Path) -> None:
    """An agent that is resumed right after it was interrupted runs, although the loop takes note of
    the interrupt only afterwards."""

    async def client(manager: SubAgentManager) -> None:
        send = asking(tmp_path)
        manager.spawn("p", name="a", agent_type="t", queued=True)
        await changed(manager, "a", "running")
        await send("pause")
        agent = manager.interrupt("a", "by hand")
        assert manager._control is not None
        (loop,) = manager._control.runners._calls
        assert (await loop.resume(agent.agent_id)).status == "interrupted"
        await send("resume")
        assert (await manager.ended("a")).result == "done"

    controlled_loop(tmp_path, until_cancelled, client)


def test_a_failed_agent_is_retried(tmp_path: Path) -> None:
    """A retry spawns another agent with the same name and values, once for each that failed."""

    async def work(context: WorkContext) -> AgentResult:
        agent = context.agent
        assert (agent.role, agent.allowed_tools, agent.token_budget) == ("r", ("x",), 9)
        return AgentResult("r", status="failed" if agent.attempt == 1 else "completed")

    async def client(manager: SubAgentManager) -> None:
        send = asking(tmp_path)
        more: dict[str, Any] = {"role": "r", "allowed_tools": ["x"], "token_budget": 9}
        metadata = {"tries": 7}
        first = manager.spawn("p", name="a", agent_type="t", queued=True, metadata=metadata, **more)
        await manager.ended("a")
        assert (await send("retry", ref="a"))["status"] == "queued"
        await changed(manager, "a", "completed")
        assert manager.get("a").metadata == metadata
        for ref, problem in (("a", "has completed"), (first.agent_id, "has a newer attempt")):
            with pytest.raises(RefusedError, match=problem):
                await send("retry", ref=ref)

    controlled_loop(tmp_path, work, client)


def test_a_busy_loop_keeps_no_client_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a worker blocks the event loop, a request that needs it fails after a while, and has no
    effect later. Others are fulfilled meanwhile."""
    monkeypatch.setattr(runners, "_BEGIN_S", 0.05)
    errors: list[str] = []
    done = threading.Event()

    def requests() -> None:
        with pytest.raises(RefusedError) as raised:
            ask(tmp_path, "pause", ref="a")
        errors.append(str(raised.value))
        ask(tmp_path, "cancel", ref="b")
        done.set()

    async def blocks(context: WorkContext) -> str:
        threading.Thread(target=requests).start()
        assert done.wait(TIMEOUT_S)
        return "done"

    async def client(manager: SubAgentManager) -> None:
        manager.spawn("p", name="b", queued=True)
        manager.spawn("p", name="a", agent_type="t", queued=True)
        assert (await manager.ended("a")).result == "done"
        assert manager.get("b").status == "cancelled"

    controlled_loop(tmp_path, blocks, client)
    assert "was busy" in errors[0]


def test_a_request_ends_with_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that is under way when the loop ends fails after a while."""
    monkeypatch.setattr(runners, "_END_S", 0.01)

    class Ending:
        types = ()

        def has(self, agent: Agent) -> bool:
            return True

        def wake(self) -> None:
            pass

        async def pause(self, agent_id: str) -> Agent:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

        resume = retry = pause

    begun = asyncio.Event()

    async def main() -> None:
        async with SubAgentManager.aopen(tmp_path, control=True) as manager:
            manager.spawn("p", name="a")
            assert manager._control is not None
            async with manager._control.runners.running(Ending()):
                request = asyncio.create_task(asking(tmp_path)("pause", ref="a"))
                await begun.wait()
            with pytest.raises(RefusedError, match="has just ended"):
                await request

    asyncio.run(main())


def test_an_agent_without_a_loop_is_interrupted(tmp_path: Path) -> None:
    """In a program that runs agents in another way, a pause is an interrupt. What needs a runner is
    refused."""
    with SubAgentManager.open(tmp_path, control=True) as manager:
        manager.spawn("p", name="a")
        assert ask(tmp_path, "pause", ref="a")["reason"] == PAUSED
        for verb in ("resume", "retry"):
            with pytest.raises(RefusedError, match=r"nothing runs agent|only one that has ended"):
                ask(tmp_path, verb, ref="a")
        manager.update_failed("a", "no")
        with pytest.raises(RefusedError, match="nothing runs agent"):
            ask(tmp_path, "retry", ref="a")
        assert manager.get("a").attempt == 1
