"""Messages that one side gets wrong, or that no message can carry: they harm one agent at most."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from manager import AgentResult, FleetTransaction, WorkContext
from manager._remote.messages import MessageError
from manager._remote.pieces import Piece
from tests.remote.fleets import World, echo, queue, run
from tests.remote.network import MESSAGE_BYTES_MAX


class PanicError(BaseException):
    """An error such as that of a package in Rust that panics."""


def test_what_a_runner_does_wrong_makes_its_agent_fail() -> None:
    """An exception, a result of another type and one that no message can carry end the agent."""

    async def work(context: WorkContext) -> Any:
        match context.agent.name:
            case "raises":
                raise ValueError("\ud800 no")
            case "panics":
                raise PanicError("no")
            case "returns":
                return 7
            case "nests":
                return AgentResult("x", checkpoint=object())
            case "is huge":
                return AgentResult("x", checkpoint="x" * (1 << 20))
            case "counts on":
                return AgentResult("x", input_tokens=1 << 64)
            case "counts down":
                return AgentResult("x", steps_taken=-(1 << 63) - 1)
            case "steps on":
                await context.checkpoint(None, steps_taken=(1 << 64) - 1)
                return await context.checkpoint(None)
            case "is long":
                return "y" * (1 << 21)

    async def body(world: World) -> None:
        world.work({"t": work})
        expected = {
            "raises": "ValueError: ",
            "panics": "tests.remote.test_bad_messages.PanicError: no",
            "returns": "TypeError: result must be a string",
            "nests": "TypeError: checkpoint is of type object",
            "is huge": "ValueError: the result has ",
            "counts on": "ValueError: an integer does not fit in 64 bits",
            "counts down": "ValueError: an integer does not fit in 64 bits",
            "steps on": "ValueError: an integer does not fit in 64 bits",
        }
        for name, reason in expected.items():
            queue(world, name)
            agent = await world.ended(name)
            assert agent.status == "failed"
            assert str(agent.reason).startswith(reason)
        queue(world, "is long")
        agent = await world.ended("is long")
        assert agent.status == "completed"
        assert str(agent.result).startswith("[2097152 bytes, cut to the last ones]")

    run(body)


def test_a_grant_that_no_message_can_carry_fails() -> None:
    """An agent that is larger than a message fails, and the agents after it run."""

    async def body(world: World) -> None:
        await world.kill_manager()
        with world.opened() as manager:  # without a dispatcher, which would refuse it
            metadata = {"text": "x" * (1 << 20)}
            manager.spawn("p", name="large", agent_type="t", queued=True, metadata=metadata)
        await world.open()
        world.work({"t": echo})
        queue(world, "small")
        assert (await world.ended("small")).status == "completed"
        agent = world.manager.get("large")
        assert agent.status == "failed"
        assert "more than the servers carry" in str(agent.reason)

    run(body)


def test_a_spawn_that_no_message_can_carry_is_refused() -> None:
    """While a dispatcher is open, a queued agent that is larger than a message is refused, also in
    a transaction, and nothing is changed. One that just fits is run. An agent that runs in this
    process, or is spawned after the dispatcher has ended, may be larger."""

    async def body(world: World) -> None:
        world.work({"t": echo})
        size = MESSAGE_BYTES_MAX - (1 << 14)
        prompt, metadata = "x" * (size // 8), {"text": "x" * size}
        queue(world, "fits", metadata=metadata)
        lsn = world.manager.stats().last_lsn
        options: dict[str, Any] = {"agent_type": "t", "metadata": metadata}
        with pytest.raises(ValueError, match=r"the agent has \d+ bytes, over the 1044480 that"):
            world.manager.spawn(prompt, name="large", queued=True, **options)
        with pytest.raises(ValueError, match="shorten its prompt"):
            world.manager.find_or_spawn(prompt, name="large", queued=True, **options)

        def both(transaction: FleetTransaction) -> None:
            transaction.spawn("p", name="small", queued=True)
            transaction.spawn(prompt, name="large", queued=True, **options)

        with pytest.raises(ValueError, match="shorten its prompt"):
            world.manager.transact(both)
        assert world.manager.stats().last_lsn == lsn
        assert (await world.ended("fits")).status == "completed"
        world.manager.spawn(prompt, name="here", **options)
        await world.kill_manager()
        with world.opened() as manager:
            manager.spawn(prompt, name="large", queued=True, **options)
        await world.open()

    run(body)


def test_a_report_that_no_message_can_carry_is_refused() -> None:
    """A checkpoint or an event that is larger than a message raises ValueError, and reports after
    it arrive."""

    async def work(context: WorkContext) -> str:
        with pytest.raises(ValueError, match=r"checkpoint has \d+ bytes, over the 1044480 that"):
            await context.checkpoint("x" * MESSAGE_BYTES_MAX)
        with pytest.raises(ValueError, match="progress has "):
            await context.progress("x", "x" * MESSAGE_BYTES_MAX)
        await context.checkpoint("small")
        return "done"

    async def body(world: World) -> None:
        world.work({"t": work})
        queue(world, "a")
        agent = await world.ended("a")
        assert (agent.result, agent.checkpoint, agent.steps_taken) == ("done", "small", 1)

    run(body)


def test_only_the_last_events_of_progress_wait_for_a_silent_manager() -> None:
    """A worker keeps the last of the events that it could not report, and the first one, which may
    have been recorded."""
    began, cut_off = asyncio.Event(), asyncio.Event()

    async def work(context: WorkContext) -> str:
        began.set()
        await cut_off.wait()
        for number in range(500):
            await context.progress(str(number))
        return "done"

    async def body(world: World) -> None:
        worker = world.work({"t": work})
        queue(world, "a")
        await began.wait()
        world.link_of(worker).is_connected = False
        cut_off.set()
        await asyncio.sleep(1)
        world.link_of(worker).is_connected = True
        await world.ended("a")
        texts = [event["text"] for event in world.manager.events("a")]
        assert texts == ["0", *map(str, range(500 - 64, 500))]

    run(body)


def test_a_piece_before_the_wanted_one_is_refused() -> None:
    """A piece that begins before the wanted position is malformed, because a client that takes its
    data for later ones would print them twice."""
    with pytest.raises(MessageError):
        Piece.of({"is_known": True, "position": 2, "data": b"x"}, 3)


def test_a_malformed_answer_ends_no_worker() -> None:
    """A worker ignores an answer that is malformed, and asks again."""

    async def body(world: World) -> None:
        world.work({"t": echo})
        beat, malformed = world.desk._beat, iter([{"stop": None}, {"stop": 7}, {"stop": [7]}])

        async def answer(*arguments: Any) -> Any:
            return next(malformed, None) or await beat(*arguments)

        world.desk._beat = answer  # type: ignore[assignment,method-assign]
        queue(world, "a")
        assert (await world.ended("a")).status == "completed"
        assert next(malformed, None) is None

    run(body)
