"""Calls that wait: what they refuse before they wait, and their warning in an event loop."""

from __future__ import annotations

import asyncio
import math
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from journal import (
    DurableDict,
    DurableState,
    InterruptedCallError,
    Journal,
    Tables,
)
from journal import _waits as waits
from journal.testing import SimulatedDisk
from manager import SubAgentManager
from tests.engine.state_support import state_on
from tests.support import PATH, TIMEOUT_S, Held, Table, open_on

HUGE = 10**5000
WRONG_LSNS: list[Any] = [-1, -(10**30), 1.0, math.nan, True, "1", b"1", [1]]
WRONG_TIMEOUTS: list[Any] = [-1, -0.001, -math.inf, math.nan, True, "1", HUGE, -HUGE]
# With a simulated disk, so that a call that does wait waits for nothing.
OPENERS: dict[str, Callable[[SimulatedDisk], Any]] = {
    "journal": lambda disk: Journal.open(PATH, disk=disk),
    "state": lambda disk: DurableState.open(PATH, Table(), disk=disk),
    "state.journal": lambda disk: DurableState.open(PATH, Table(), disk=disk).journal,
    "manager": lambda disk: SubAgentManager.open("/", state_dir=PATH, disk=disk),
}


@pytest.fixture(params=OPENERS)
def handle(request: pytest.FixtureRequest, disk: SimulatedDisk) -> Iterator[Any]:
    """Yield an open handle of each kind that waits for LSNs."""
    with OPENERS[request.param](disk) as opened:
        yield opened


def awaited(awaitable: Awaitable[object]) -> object:
    return asyncio.run(asyncio.wait_for(awaitable, TIMEOUT_S))


@pytest.mark.parametrize("lsn", WRONG_LSNS, ids=repr)
def test_waits_refuse_wrong_lsns(handle: Any, lsn: Any) -> None:
    """A wait for something that is no LSN raises an error that shows it, and never waits."""
    kind = ValueError if type(lsn) is int else TypeError
    for wait in (handle.wait_durable, lambda lsn: awaited(handle.durable(lsn))):
        with pytest.raises(kind, match="lsn must be an LSN") as refused:
            wait(lsn)
        assert repr(lsn) in str(refused.value)


@pytest.mark.parametrize("lsn", [1000, 2**64, HUGE], ids=["1000", "2**64", "huge"])
def test_waits_refuse_lsns_that_were_never_given(handle: Any, lsn: int) -> None:
    """A wait for an LSN that no record has raises ValueError."""
    for wait in (handle.wait_durable, lambda lsn: awaited(handle.durable(lsn))):
        with pytest.raises(ValueError, match=r"never appended|Exceeds the limit"):
            wait(lsn)


@pytest.mark.parametrize("timeout_s", WRONG_TIMEOUTS, ids=range(len(WRONG_TIMEOUTS)))
def test_waits_refuse_wrong_timeouts(handle: Any, timeout_s: Any) -> None:
    """A time limit that is no number of seconds from 0 raises an error, even if there is nothing to
    wait for."""
    kind = TypeError if isinstance(timeout_s, bool | str) else ValueError
    for wait in (handle.wait_durable, handle.wait_room, handle.close):
        with pytest.raises(kind, match="timeout_s must be a number of seconds, at least 0"):
            wait(timeout_s=timeout_s)
    assert not handle.closed


@pytest.mark.parametrize("timeout_s", [0, 0.0, 5, math.inf, 1e300, None])
def test_waits_take_every_limit_from_0(handle: Any, timeout_s: Any) -> None:
    """Zero, infinity and None are time limits."""
    handle.wait_durable()
    handle.wait_durable(0, timeout_s=timeout_s)
    handle.wait_durable(timeout_s=timeout_s)
    handle.wait_room(timeout_s=timeout_s)
    handle.close(timeout_s=timeout_s or None)


def test_tables_refuse_wrong_timeouts(disk: SimulatedDisk) -> None:
    """`sync` and `close` of tables and dicts refuse a time limit that is none."""
    for kind in (Tables, DurableDict):
        with kind.open(PATH, disk=disk) as opened:
            for wait in (opened.sync, opened.close):
                with pytest.raises(ValueError, match="timeout_s must be"):
                    wait(timeout_s=-1)


def test_the_limit_for_room_is_checked_at_open(disk: SimulatedDisk) -> None:
    """An open with a wrong `room_timeout_s` raises ValueError, and leaves no lock."""
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError, match="room_timeout_s must be"):
            state_on(disk, room_timeout_s=wrong)
    state_on(disk).close()


WAITS_INSIDE: dict[str, Callable[[DurableState[Any]], object]] = {
    "state.wait_durable": lambda state: state.wait_durable(timeout_s=TIMEOUT_S),
    "state.wait_durable of a durable LSN": lambda state: state.wait_durable(1, timeout_s=TIMEOUT_S),
    "journal.wait_durable": lambda state: state.journal.wait_durable(timeout_s=TIMEOUT_S),
    "state.wait_room": lambda state: state.wait_room(timeout_s=TIMEOUT_S),
    "state.close": lambda state: state.close(timeout_s=TIMEOUT_S),
    "state.durable": lambda state: state.durable().send(None),
    "state.room": lambda state: state.room().send(None),
}


@pytest.mark.parametrize("call", WAITS_INSIDE)
def test_waits_inside_decide_are_refused(disk: SimulatedDisk, call: str) -> None:
    """A wait in `decide` raises InterruptedCallError: it would hold the lock while it waits. The
    update changes nothing."""
    with state_on(disk) as state:
        state.wait_durable(state.update(lambda m: ["a", 1]))

        def decide(_: Table) -> Any:
            WAITS_INSIDE[call](state)

        for run in (state.update, state.update_batch, state.read):
            with pytest.raises(InterruptedCallError):
                run(decide)
        assert state.journal.last_lsn == 1


# --- in an event loop ---


@pytest.fixture
def unwarned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget that this process has warned."""
    monkeypatch.setattr(waits, "_has_warned", False)


def in_loop(call: Callable[[], object]) -> list[warnings.WarningMessage]:
    """Return the warnings of a call in an event loop's thread."""

    async def main() -> None:
        call()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main())
    return caught


@pytest.mark.usefixtures("unwarned")
def test_a_blocking_wait_in_an_event_loop_warns_once(disk: SimulatedDisk) -> None:
    """The first wait that blocks an event loop warns in the caller's line, and names the awaitable.
    Later ones don't."""
    with state_on(disk) as state:

        def wait() -> None:
            state.wait_durable(state.update(lambda m: ["a", 1]), timeout_s=TIMEOUT_S)

        (first,) = in_loop(wait)
        assert in_loop(wait) == []
    assert first.category is RuntimeWarning
    assert "wait_durable blocks" in str(first.message)
    assert "`await durable(...)`" in str(first.message)
    assert Path(first.filename) == Path(__file__)


@pytest.mark.usefixtures("unwarned")
def test_a_wait_that_does_not_block_does_not_warn(disk: SimulatedDisk) -> None:
    """Waits for what is durable, polls with a limit of 0, and waits in a thread without an event
    loop don't warn."""
    with open_on(disk) as journal:
        journal.wait_durable(journal.append("a"), timeout_s=TIMEOUT_S)

        def poll() -> None:
            journal.wait_durable()
            journal.wait_room()
            with pytest.raises(TimeoutError):
                journal.wait_durable(journal.append("b"), timeout_s=0)

        async def in_thread() -> None:
            await asyncio.to_thread(journal.wait_durable, timeout_s=TIMEOUT_S)

        with Held(disk, "sync"):
            assert in_loop(poll) == []
        asyncio.run(in_thread())
    assert not waits._has_warned


@pytest.mark.usefixtures("unwarned")
def test_a_wait_while_another_thread_imports_asyncio(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait in a thread does not fail because asyncio lacks its functions yet."""
    monkeypatch.setattr(waits, "_running_loop", None)
    with open_on(disk) as journal:
        monkeypatch.setitem(sys.modules, "asyncio", ModuleType("asyncio"))
        journal.wait_durable(journal.append("a"), timeout_s=TIMEOUT_S)
    assert waits._running_loop is None


@pytest.mark.usefixtures("unwarned")
def test_a_warning_that_is_an_error_stops_the_wait(disk: SimulatedDisk) -> None:
    """If warnings are errors, the wait raises instead of blocking, and can be repeated."""
    with open_on(disk) as journal:
        lsn = journal.append("a")

        async def main() -> None:
            with pytest.raises(RuntimeWarning, match="wait_durable"):
                journal.wait_durable(lsn, timeout_s=TIMEOUT_S)
            assert journal.durable_lsn < lsn
            journal.wait_durable(lsn, timeout_s=TIMEOUT_S)

        asyncio.run(main())
        assert journal.durable_lsn == lsn


@pytest.mark.usefixtures("unwarned")
def test_waiting_for_an_agent_in_an_event_loop_warns(disk: SimulatedDisk) -> None:
    """`wait_ended` warns, too, unless its limit is 0."""
    with SubAgentManager.open("/", state_dir=PATH, disk=disk) as manager:
        agent = manager.spawn("work")

        def wait(timeout_s: float) -> None:
            with pytest.raises(TimeoutError):
                manager.wait_ended(agent.agent_id, timeout_s=timeout_s)

        assert in_loop(lambda: wait(0)) == []
        (warning,) = in_loop(lambda: wait(0.001))
    assert "`await ended(...)`" in str(warning.message)


def test_a_thread_that_begins_is_waited_for() -> None:
    """An exception in Thread.start may leave a thread that has an ident, and can't be joined yet.
    A wait for its end is a wait like any other."""
    has_ident, may_go_on = threading.Event(), threading.Event()

    class Beginning(threading.Thread):
        def _set_native_id(self) -> None:  # called before the thread counts as started
            has_ident.set()
            may_go_on.wait(TIMEOUT_S)

    thread = Beginning(daemon=True)
    starter = threading.Thread(target=thread.start)
    starter.start()
    try:
        assert has_ident.wait(TIMEOUT_S)
        assert thread.ident is not None
        assert not waits.join(thread, 0)
    finally:
        may_go_on.set()
        starter.join(TIMEOUT_S)
    assert waits.join(thread, TIMEOUT_S)
    assert not thread.is_alive()


def test_a_thread_that_could_not_leave_the_list_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread whose end failed, as after a late monkey patch of gevent, has ended."""
    thread = threading.Thread(target=bool)
    thread.start()
    thread.join(TIMEOUT_S)
    monkeypatch.setattr(threading, "enumerate", lambda: [thread])
    assert waits.join(thread, 0)
