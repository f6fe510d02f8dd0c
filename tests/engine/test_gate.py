"""The waiters of a gate in event loops: a bounded number is released per turn, and none is
forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from journal._commit.gate import _FUTURES_PER_TURN, Gate, _LoopPump


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

    assert asyncio.run(most_in_a_turn()) <= _FUTURES_PER_TURN
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
    pump, loop, waiting = _LoopPump(), Loop(), {InterruptedFuture(): None}
    with pytest.raises(KeyboardInterrupt):
        pump.add(loop, waiting)  # type: ignore[arg-type]
    turns = 0
    while loop.soon:
        turn, arguments = loop.soon.pop()
        turn(*arguments)
        turns += 1
    assert not waiting
    assert turns <= 2
