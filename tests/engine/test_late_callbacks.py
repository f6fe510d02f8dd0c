"""Callbacks whose body would run only after the call: they are refused, and nothing is written."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial, wraps
from typing import Any

import pytest

from journal import RecordError, Tables
from journal.testing import SimulatedDisk
from manager import SubAgentManager
from tests.engine.state_support import state_on
from tests.support import PATH


def run_late(argument: Any) -> int:
    raise AssertionError(f"ran with {argument}")


async def run_async(argument: Any) -> int:
    return run_late(argument)


def generate(argument: Any) -> Iterator[int]:
    yield run_late(argument)


async def generate_async(argument: Any) -> AsyncIterator[int]:
    yield run_late(argument)


class Callbacks:
    def generate(self, argument: Any) -> Iterator[int]:
        yield run_late(argument)

    __call__ = generate


@wraps(generate)
def wrapped(argument: Any) -> Any:
    return generate(argument)


LATE: list[tuple[Callable[..., Any], str]] = [
    (run_async, "a coroutine function"),
    (partial(run_async), "a coroutine function"),
    (lambda argument: run_async(argument), "a coroutine function"),
    (generate, "a generator function"),
    (Callbacks().generate, "a generator function"),
    (Callbacks(), "a generator function"),
    (partial(Callbacks().generate), "a generator function"),
    (wrapped, "a generator function"),
    (generate_async, "an async generator function"),
]


@pytest.mark.parametrize(("late", "kind"), LATE)
def test_a_transaction_runs_within_its_call(
    late: Callable[..., Any], kind: str, disk: SimulatedDisk
) -> None:
    """`transact` and `update` refuse a function whose body would run after their end."""
    message = f"is {kind}; nothing was written: call an ordinary function"
    with Tables.open(PATH, disk=disk) as app:
        calls: list[Any] = [app.transact, app.update]
        for call in calls:
            with pytest.raises(TypeError, match=message):
                call(late)
    with SubAgentManager.open("/w", disk=disk) as manager:
        with pytest.raises(TypeError, match=message) as refused:
            manager.transact(late)
        assert str(refused.value).startswith(f"{late!r:.200} is a")
        assert manager.agents() == []


@pytest.mark.parametrize(("late", "kind"), LATE)
def test_a_query_runs_under_the_lock(
    late: Callable[..., Any], kind: str, disk: SimulatedDisk
) -> None:
    """`read` refuses a function whose body would run after the lock was released."""
    message = f"is {kind}, so it would run without the lock: "
    with state_on(disk) as state, pytest.raises(TypeError, match=message):
        state.read(late)


def test_a_generator_that_a_callback_makes_is_a_result(disk: SimulatedDisk) -> None:
    """A generator of another function, or one that has begun, is returned as any result is."""

    def begun(_: Any) -> Iterator[int]:
        yield from (1, 2)

    @wraps(begun)
    def begin(argument: Any) -> Iterator[int]:
        items = begun(argument)
        next(items)
        return items

    with Tables.open(PATH, disk=disk) as app:
        rows = app.table("rows")
        rows[1] = 2
        calls: list[Any] = [app.transact, app.update]
        for call in calls:
            assert [*call(lambda t: t[rows].items())] == [(1, 2)]
            assert [*call(lambda _: (number for number in (1, 2)))] == [1, 2]
            assert [*call(begin)] == [2]
    with state_on(SimulatedDisk()) as state:
        assert [*state.read(lambda _: (number for number in (1, 2)))] == [1, 2]
        assert [*state.read(begin)] == [2]


@pytest.mark.parametrize("late", [run_async, generate_async], ids=["coroutine", "generator"])
def test_a_decision_is_a_record(late: Any, disk: SimulatedDisk) -> None:
    """An update by a function that would run later is refused with the type of its result. Python
    does not warn about its coroutine, and nothing is changed."""
    kind = "coroutine" if late is run_async else "async_generator"
    with state_on(disk) as state:
        with pytest.raises(RecordError, match=f"^a record of type {kind} can't be packed"):
            state.update(late)
        with pytest.raises(TypeError, match=f"^a batch is a list of records, not an? {kind}$"):
            state.update_batch(late)
        with pytest.raises(TypeError, match=f"^decide returned an? {kind}, not a tuple"):
            state.update_with_result(late)
        assert state.journal.last_lsn == 0
    gc.collect()  # a coroutine that was not closed would warn now
