"""Kinds of workers: a loop refuses what can't be one before any agent starts, and stops at the
first call that shows one."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest

from manager import SubAgentManager, WorkContext, run_workers
from manager._remote.serving import serve
from manager.records import STOPPED
from tests.manager.test_worker import echo, queue, run


class Work:
    """A worker with state, whose method or call runs an agent."""

    async def work(self, context: WorkContext) -> str:
        return await echo(context)

    __call__ = work

    def generate(self, context: WorkContext) -> Iterator[str]:
        yield "never"


class Generating:
    def __call__(self, context: WorkContext) -> Iterator[str]:
        yield "never"


class Later:
    """A result that is awaited, made by a class."""

    def __init__(self, context: WorkContext) -> None:
        self._context = context

    def __await__(self) -> Generator[Any, Any, str]:
        return echo(self._context).__await__()


async def generate_async(context: WorkContext) -> AsyncIterator[str]:
    yield "never"


async def with_steps(context: WorkContext, steps: int) -> str:
    return await echo(context)


@types.coroutine
def of_generator(context: WorkContext) -> Generator[Any, Any, str]:
    yield from asyncio.sleep(0).__await__()
    return f"result of {context.agent.name}"


def decorated(worker: Any) -> Callable[[WorkContext], Awaitable[str]]:
    @wraps(worker)
    def call(context: WorkContext) -> Awaitable[str]:
        called: Awaitable[str] = worker(context)
        return called

    return call


REFUSED: list[tuple[Any, str]] = [
    (None, "None"),
    ("echo", "'echo'"),
    (Work, "the class Work"),
    (Generating(), "the generator function Generating.__call__"),
    (Work().generate, "the generator function Work.generate"),
    (partial(Work().generate), "the generator function Work.generate"),
    (generate_async, "the generator function generate_async"),
]


@pytest.mark.parametrize(("worker", "shown"), REFUSED, ids=[shown for _, shown in REFUSED])
def test_what_can_t_run_an_agent_is_refused_at_once(
    tmp_path: Path, worker: Any, shown: str
) -> None:
    """A worker that no call could await is refused by its key, and no agent starts."""
    rule = (
        r"^workers\['t'\] must be a coroutine function, such as `async def work\(context\)`, not "
    )

    async def body(manager: SubAgentManager) -> None:
        queue(manager, "a")
        for call in (run_workers(manager, {"t": worker}), serve("nats://h", {"t": worker})):
            with pytest.raises(TypeError, match=rf"{rule}{shown}"):
                await call
        assert manager.get("a").status == "queued"

    run(tmp_path, body)


@pytest.mark.parametrize(
    "worker",
    [
        echo,
        Work().work,
        Work(),
        partial(with_steps, steps=5),
        lambda context: with_steps(context, 5),
        lambda context: asyncio.ensure_future(echo(context)),
        decorated(echo),
        of_generator,
        Later,
    ],
)
def test_every_kind_of_call_that_is_awaited_runs_agents(tmp_path: Path, worker: Any) -> None:
    """A worker may be any call whose result is awaited."""

    async def body(manager: SubAgentManager) -> None:
        queue(manager, "a")
        await run_workers(manager, {"t": worker})
        assert manager.get("a").result == "result of a"

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("returned", "shown"),
    [("done", "a str"), (5, "an int"), (None, "None"), (iter(()), "a tuple_iterator")],
)
def test_a_plain_function_stops_the_loop_at_its_first_call(
    tmp_path: Path, returned: object, shown: str
) -> None:
    """A worker that returns a result in place of an awaitable fails its agent and ends the loop.
    Agents that run meanwhile are interrupted, and those that follow stay as they are."""
    message = f"worker 't' returned {shown}, not an awaitable: make it an async function"
    called: list[str] = []

    def work(context: WorkContext) -> Any:
        called.append(context.agent.name)
        return returned

    async def forever(context: WorkContext) -> None:
        called.append(context.agent.name)
        await asyncio.Event().wait()

    async def body(manager: SubAgentManager) -> None:
        queue(manager, "other", agent_type="forever")
        queue(manager, "a", "b", "c", "d")
        workers: Any = {"t": work, "forever": forever}
        with pytest.raises(TypeError, match=f"^{message}$"):
            await run_workers(manager, workers, until_idle=False)
        assert called == ["other", "a"]
        assert (manager.get("a").status, manager.get("a").reason) == (
            "failed",
            f"TypeError: {message}",
        )
        assert manager.get("other").status == manager.get("b").status == "interrupted"
        assert manager.get("d").status == "queued"
        await run_workers(manager, {"t": echo, "forever": echo})
        for name in ("other", "b", "c", "d"):
            assert manager.get(name).result == f"result of {name}"

    run(tmp_path, body, max_running=3)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="has no eager tasks")
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_a_plain_function_stops_a_loop_of_eager_tasks(tmp_path: Path, is_interrupted: bool) -> None:
    """If a mistake is found while its agent is launched, no other agent is started or resumed, so
    none stays running."""

    def work(context: WorkContext) -> Any:
        return None

    async def body(manager: SubAgentManager) -> None:
        queue(manager, "a", "b")
        if is_interrupted:
            for name in "ab":
                manager.start(name)
                manager.interrupt(name, STOPPED)
        loop: Any = asyncio.get_running_loop()
        loop.set_task_factory(vars(asyncio)["eager_task_factory"])
        workers: Any = {"t": work}
        with pytest.raises(TypeError, match=r"^worker 't' returned None, "):
            await run_workers(manager, workers)
        status = "interrupted" if is_interrupted else "queued"
        assert [manager.get(name).status for name in "ab"] == ["failed", status]
        await run_workers(manager, {"t": echo})
        assert manager.get("b").result == "result of b"

    run(tmp_path, body)


def test_a_plain_function_that_ended_its_agent_stops_the_loop(tmp_path: Path) -> None:
    """The loop ends with the mistake also if the function itself has ended or removed its agent."""

    def work(context: WorkContext) -> Any:
        context.manager.cancel(context.agent.name)

    async def body(manager: SubAgentManager) -> None:
        queue(manager, "a")
        workers: Any = {"t": work}
        with pytest.raises(TypeError, match=r"^worker 't' returned None, "):
            await run_workers(manager, workers)
        assert manager.get("a").status == "cancelled"

    run(tmp_path, body)


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        (None, "^workers must be a mapping from types to coroutine functions, not None$"),
        ([("t", echo)], r"^workers must be a mapping from types to coroutine functions, not \["),
        ({5: echo}, "^a key of workers must be a string, not int$"),
    ],
)
def test_workers_are_a_mapping_of_types(tmp_path: Path, workers: Any, message: str) -> None:
    """Workers that are in no mapping by type are refused."""

    async def body(manager: SubAgentManager) -> None:
        for call in (run_workers(manager, workers), serve("nats://h", workers)):
            with pytest.raises(TypeError, match=message):
                await call

    run(tmp_path, body)


@pytest.mark.parametrize("manager", [None, "fleet", SubAgentManager])
def test_a_loop_without_a_manager_is_refused(manager: Any) -> None:
    """`run_workers` refuses an object that is no manager, and names the argument."""
    with pytest.raises(TypeError, match=r"^manager must be a SubAgentManager, not "):
        asyncio.run(run_workers(manager, {"t": echo}))
