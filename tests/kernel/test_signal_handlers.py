"""Signal handlers that call the journal while their thread is inside another call.

Wherever a handler strikes, its call succeeds or raises InterruptedCallError, and never hangs. The
interrupted call and the journal continue.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from journal import (
    ClosedError,
    DurableState,
    HandlerSafeLock,
    InterruptedCallError,
    Journal,
    Options,
)
from journal.testing import SimulatedDisk
from manager import AgentResult, SubAgentManager
from tests.kernel.interrupt_support import (
    MANY,
    SPARSE,
    TIMEOUT_S,
    in_other_thread,
    monitored,
    point_numbers,
    run_with_handler,
)
from tests.kernel.test_interrupt import Counter, put, update
from tests.tiers import is_quick_part

__all__ = ["monitored", "point_numbers"]  # fixtures
pytestmark = [
    pytest.mark.usefixtures("monitored"),
    pytest.mark.parametrize("monitored", [KeyboardInterrupt], indirect=True, ids=[""]),
]
OPTIONS = Options(flush_interval_s=0.001, segment_bytes=4096)
State = DurableState[Any]
Call = Callable[[State], object]


def wait_in_loop(state: State) -> None:
    asyncio.run(state.durable(state.update(lambda _: "a")))


ACTIONS: dict[str, Call] = {
    "update": lambda state: state.update(lambda _: "a"),
    "update_batch": lambda state: state.update_batch(lambda _: ["a", "b"]),
    "wait_durable": lambda state: update(state, lambda _: "a"),
    "wait_durable with a limit": lambda state: state.wait_durable(
        state.update(lambda _: "a"), timeout_s=10
    ),
    "durable": wait_in_loop,
    "read": lambda state: state.read(lambda machine: len(machine.table)),
    "wait_room": lambda state: state.wait_room(),
    "compact": lambda state: state.compact().close(),
    "stats": lambda state: (state.stats(), state.lock_stats()),
    "close": lambda state: state.close(),
}
HANDLERS: dict[str, Call] = {
    "update": lambda state: state.update(lambda _: "h"),
    "wait_durable": lambda state: state.wait_durable(),
    "update and wait": lambda state: state.wait_durable(state.update(lambda _: "h")),
    "wait_room": lambda state: state.wait_room(),
    "compact": lambda state: state.compact().close(),
    "stats": lambda state: (state.stats(), state.lock_stats()),
    "close": lambda state: state.close(),
}

# At some point, the handler's call would have to wait for the interrupted call.
REFUSED = [
    (ACTIONS["update"], HANDLERS["update"]),
    (ACTIONS["wait_durable"], HANDLERS["wait_durable"]),
    (ACTIONS["wait_durable"], HANDLERS["close"]),
    (ACTIONS["compact"], HANDLERS["compact"]),
    (ACTIONS["compact"], HANDLERS["close"]),
    (ACTIONS["close"], HANDLERS["close"]),
]


def strike(
    action: Callable[[], object], handler: Callable[[], object], nth: int, where: list[str]
) -> None:
    where += run_with_handler(action, handler, nth)


@SPARSE
@pytest.mark.filterwarnings("ignore:.* blocks this thread:RuntimeWarning")
@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS.keys())
@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS.keys())
def test_a_call_in_a_handler_succeeds_or_is_refused(
    action: Call, handler: Call, point_numbers: range
) -> None:
    """P2, P6: A call in a handler succeeds or is refused at every point.

    After that, the state continues unless the handler has closed it, and a replay gives the live
    state.
    """
    refused = 0
    for nth in point_numbers:
        disk = SimulatedDisk()
        state = DurableState.open("/j", Counter(), options=OPTIONS, disk=disk)
        update(state, lambda _: "first")
        outcome: list[BaseException | None] = []

        def call(state: State = state, outcome: list[BaseException | None] = outcome) -> None:
            try:
                handler(state)
                outcome.append(None)
            except (InterruptedCallError, ClosedError, OSError) as error:
                outcome.append(error)

        def act(state: State = state) -> None:
            with suppress(ClosedError):
                action(state)

        where: list[str] = []
        in_other_thread(partial(strike, act, call, nth, where))
        assert len(outcome) == len(where)
        refused += isinstance(next(iter(outcome), None), InterruptedCallError)
        with suppress(ClosedError):
            in_other_thread(partial(update, state, lambda _: "after"))
        live_table = dict(state.machine.table)
        in_other_thread(state.close)
        with DurableState.open("/j", Counter(), disk=disk) as replayed:
            assert dict(replayed.machine.table) == live_table, where
        if not where:
            break
    else:
        pytest.fail("the action has more points than MANY")
    assert nth > 1
    if not is_quick_part():
        assert refused or (action, handler) not in REFUSED


@pytest.mark.parametrize("size", [1, 3], ids=["append", "append_batch"])
def test_appends_in_a_handler_are_complete_and_in_order(size: int) -> None:
    """P1, P3: An append in a handler that interrupts an append and a wait succeeds or is refused.

    Records are in the order of their LSNs, and a batch is complete.
    """
    appended = refused = 0
    for nth in range(MANY):
        disk = SimulatedDisk()
        journal = Journal.open("/j", options=OPTIONS, disk=disk)
        numbers: list[int] = []

        def call(journal: Journal = journal, numbers: list[int] = numbers) -> None:
            nonlocal refused
            try:
                if size == 1:
                    numbers.append(journal.append(["h", 0]))
                else:
                    numbers.append(journal.append_batch([["h", part] for part in range(size)]))
            except InterruptedCallError:
                refused += 1

        action = partial(put, journal, "interrupted")
        where: list[str] = []
        in_other_thread(partial(strike, action, call, nth, where))
        appended += len(numbers)
        in_other_thread(journal.close)
        with Journal.open("/j", disk=disk) as reopened:
            kept = {entry.lsn: entry.record for entry in reopened.replay()}
        assert len(kept) == 1 + size * len(numbers)
        for last_lsn in numbers:
            lsns = range(last_lsn + 1 - size, last_lsn + 1)
            assert [kept[lsn] for lsn in lsns] == [["h", part] for part in range(size)]
        if not where:
            break
    assert 10 < appended < nth
    assert refused > 0


AGENTS: dict[str, Callable[[SubAgentManager], object]] = {
    "spawn": lambda manager: manager.spawn("handler"),
    "wait_durable": lambda manager: manager.wait_durable(),
    "wait_ended": lambda manager: manager.wait_ended("a", timeout_s=0),
    "changes": lambda manager: manager.changes(0),
    "agents": lambda manager: manager.agents(),
    "close": lambda manager: manager.close(),
}


@SPARSE
@pytest.mark.parametrize("handler", AGENTS.values(), ids=AGENTS.keys())
def test_a_manager_called_in_a_handler_continues(
    handler: Callable[[SubAgentManager], object], point_numbers: range
) -> None:
    """A manager continues after any call in a handler, even one that needs the lock of its watch.

    Agents are spawned, end and are waited for, and a reader reads the changes.
    """

    def act(manager: SubAgentManager) -> None:
        with suppress(ClosedError):
            manager.spawn("work", name="b")
            reader = manager.changes()
            manager.wait_durable(manager.update_from_result("b", AgentResult("done")).lsn)
            manager.wait_ended("b")
            del reader

    for nth in point_numbers[::3]:
        disk = SimulatedDisk()
        manager = SubAgentManager.open("/w", options=OPTIONS, disk=disk)
        manager.spawn("work", name="a")

        def call(manager: SubAgentManager = manager) -> None:
            with suppress(InterruptedCallError, ClosedError, TimeoutError):
                handler(manager)

        where: list[str] = []
        in_other_thread(partial(strike, partial(act, manager), call, nth, where))
        with suppress(ClosedError):
            in_other_thread(partial(manager.spawn, "after"))
        live_ids = [agent.agent_id for agent in manager.agents(include_archived=True)]
        in_other_thread(manager.close)
        with SubAgentManager.open("/w", disk=disk) as reopened:
            assert {agent.agent_id for agent in reopened.agents(include_archived=True)} == {
                *live_ids
            }
        if not where:
            break
    assert nth > 100


def test_a_thread_that_holds_the_lock_is_refused_it() -> None:
    """The lock is refused to the thread that holds it. Another thread waits for it."""
    lock = HandlerSafeLock()
    with lock.checked():
        assert lock.is_held_here()
        with pytest.raises(InterruptedCallError, match="signal handler"):
            lock.checked()
    assert not lock.is_held_here()
    with lock.checked():
        pass


BUSY: dict[str, Call] = {
    "wait_durable": lambda state: update(state, lambda _: "a"),
    "stats": lambda state: state.stats(),
}


@SPARSE
@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS.keys())
@pytest.mark.parametrize("action", BUSY.values(), ids=BUSY.keys())
def test_a_handler_does_not_wait_for_threads_that_wait_for_its_own(
    action: Call, handler: Call, point_numbers: range
) -> None:
    """A handler's call does not wait for threads that wait for the interrupted call.

    The interrupted call may hold the buffer's lock. Other threads, which update and compact, wait
    for that lock and hold locks that the handler's call needs.
    """
    busy = Options(flush_interval_s=0.001, checkpoint_min_bytes=1, checkpoint_growth=0.0)
    for nth in point_numbers[::3]:
        state = DurableState.open("/j", Counter(), options=busy, disk=SimulatedDisk())
        is_over = threading.Event()

        def hammer(state: State = state, is_over: threading.Event = is_over) -> None:
            with suppress(ClosedError):
                while not is_over.is_set():
                    state.update(lambda _: "other")

        def call(state: State = state) -> None:
            time.sleep(0.001)  # time for the other threads to begin to wait
            with suppress(InterruptedCallError, ClosedError, OSError):
                handler(state)

        def act(state: State = state) -> None:
            with suppress(ClosedError):
                action(state)

        other = threading.Thread(target=hammer, daemon=True)
        other.start()
        where: list[str] = []
        in_other_thread(partial(strike, act, call, nth, where))
        is_over.set()
        other.join(TIMEOUT_S)
        assert not other.is_alive(), where
        in_other_thread(state.close)
        if not where:
            break
    assert nth > 1
