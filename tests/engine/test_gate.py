"""The waiters of a gate in event loops: a bounded number is released per turn, and none is
forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from journal._commit.gate import _FUTURES_PER_TURN, Gate, _LoopPump, _Waiting
from tests.support import TIMEOUT_S


def test_a_turn_resolves_a_bounded_number_of_futures() -> None:
    """The waiters of five batches share the turns of their loop, which runs other tasks in
    between."""
    passed: list[Gate] = []

    async def wait(gate: Gate) -> None:
        await gate.passed()
        passed.append(gate)

    async def most_in_a_turn() -> int:
        gates = [Gate() for _ in range(5)]
        tasks = [asyncio.create_task(wait(gate)) for gate in gates for _ in range(100)]
        await asyncio.sleep(0)
        for gate in gates:
            gate.open()
        most = 0
        while len(passed) < len(tasks):
            before = len(passed)
            await asyncio.sleep(0)
            most = max(most, len(passed) - before)
        return most

    assert asyncio.run(asyncio.wait_for(most_in_a_turn(), TIMEOUT_S)) <= _FUTURES_PER_TURN
    assert len(passed) == 500


class InterruptedFuture:
    """A future whose first call of `done` is interrupted."""

    calls = 0

    def done(self) -> bool:
        self.calls += 1
        if self.calls == 1:
            raise KeyboardInterrupt
        return True


class Loop:
    def __init__(self) -> None:
        self.soon: list[tuple[Callable[..., object], Any]] = []

    def call_soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        self.soon.append((callback, arguments))


def test_an_interrupted_turn_is_followed_by_another() -> None:
    """After an interrupted turn, the pump runs again. Otherwise, later waiters of that loop would
    wait forever."""
    pump, loop, waiting = _LoopPump(), Loop(), _Waiting()
    futures = [InterruptedFuture() for _ in range(3)]
    waiting.extend(futures)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        pump.add(loop, waiting)  # type: ignore[arg-type]
    turns = 0
    while loop.soon:
        turn, arguments = loop.soon.pop()
        with suppress(KeyboardInterrupt):
            turn(*arguments)
        turns += 1
    assert all(future.calls > 1 for future in futures)
    assert not pump._opened
    assert turns <= 4


def test_cancelled_waits_leave_little_behind() -> None:
    """A gate that stays closed does not collect the futures of waiters that have left."""

    async def main() -> int:
        gate = Gate()
        staying = [gate.future() for _ in range(10)]
        for _ in range(1000):
            future = gate.future()
            future.cancel()
            gate.forget(future)
        left = sum(map(len, gate._loops.values()))
        gate.open()
        await asyncio.gather(*staying)
        return left

    assert asyncio.run(main()) <= 21


def test_a_wait_that_is_cancelled_during_a_turn_holds_up_no_other() -> None:
    """The pump finds its place again when waiters leave between two of its turns."""

    async def main() -> None:
        gate = Gate()
        tasks = [asyncio.create_task(gate.passed()) for _ in range(8 * _FUTURES_PER_TURN)]
        await asyncio.sleep(0)
        gate.open()
        while not any(task.done() for task in tasks):
            await asyncio.sleep(0)
        waiting = [task for task in tasks if not task.done()]
        for task in waiting[:-1]:
            task.cancel()
        await asyncio.wait_for(waiting[-1], TIMEOUT_S)
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), TIMEOUT_S))
