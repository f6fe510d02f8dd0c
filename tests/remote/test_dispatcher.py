"""The dispatcher's handle: its calls in the caller's thread, and the end of its own thread."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from journal.testing import SimulatedDisk
from manager import SubAgentManager
from manager._control.errors import RequestError
from manager._remote.address import Address
from manager._remote.desk import Desk, Hooks
from manager._remote.dispatcher import Dispatcher
from manager._remote.link import Link
from manager._remote.supply import FleetSupply
from tests.remote.network import Network, NetworkLink
from tests.support import foreign_loop, until


class ForeignError(RuntimeError):
    """An error that only a signal handler raises."""


@contextmanager
def made(connect: Callable[[], object] = lambda: None) -> Iterator[Dispatcher]:
    """Make a dispatcher that has not begun. It connects once `connect` returns."""
    with SubAgentManager.open("/", state_dir="s", disk=SimulatedDisk()) as manager:

        def desk(link: Link) -> Desk:
            hooks = Hooks(supply=FleetSupply(manager._state))
            return Desk(manager, hooks, manager.durable, message_bytes_max=link.message_bytes_max)

        address = Address.of("nats://127.0.0.1/f")
        dispatcher = Dispatcher(desk, address, manager, lambda: None)

        async def connected() -> Link:
            await asyncio.to_thread(connect)
            return NetworkLink(Network(iter(())))

        dispatcher._connect = connected
        yield dispatcher
        dispatcher.close()


@contextmanager
def struck_while_blocked() -> Iterator[None]:
    """Raise ForeignError in this thread, the main one, while it waits in the block."""

    def strike(*_: object) -> None:
        raise ForeignError

    before = signal.signal(signal.SIGUSR1, strike)
    timer = threading.Timer(0.2, signal.pthread_kill, (threading.get_ident(), signal.SIGUSR1))
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def test_an_interrupted_open_leaves_no_dispatcher() -> None:
    """If a signal handler raises while a dispatcher opens, its thread ends."""
    release = threading.Event()
    with made(release.wait) as dispatcher:
        with struck_while_blocked(), pytest.raises(ForeignError):
            dispatcher._begin(dispatcher._connect)
        assert not dispatcher.closed
        release.set()
        until(lambda: dispatcher.closed, "the dispatcher has ended")


def test_a_handler_s_error_is_not_swallowed() -> None:
    """`workers` raises the error of a signal handler that runs while it waits for the thread."""
    release = threading.Event()
    with made() as dispatcher:
        dispatcher._begin(dispatcher._connect)
        dispatcher._loop.call_soon_threadsafe(release.wait)
        with struck_while_blocked(), pytest.raises(ForeignError):
            dispatcher.workers()
        release.set()
        assert dispatcher.workers() == []


def test_workers_are_none_if_the_dispatcher_ends_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`workers` does not wait for a thread that has ended before it could look."""
    with made() as dispatcher:
        dispatcher._begin(dispatcher._connect)

        def end(*_: object) -> None:
            dispatcher._loop.call_soon_threadsafe(dispatcher._stop.set)

        monkeypatch.setattr("manager._remote.dispatcher.call_in_loop", end)
        assert dispatcher.workers() == []
        assert dispatcher.closed


def test_the_thread_runs_no_loop_of_the_program_s_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The dispatcher runs where a loop that the program's policy makes can't run in a thread."""
    monkeypatch.setattr(asyncio, "new_event_loop", foreign_loop)
    with made() as dispatcher:
        dispatcher._begin(dispatcher._connect)
        assert not dispatcher.closed


def test_a_dispatcher_that_has_ended_asks_no_worker() -> None:
    """A question to workers that comes after the end of the dispatcher is refused, and a removal
    does nothing."""
    with made() as dispatcher:
        dispatcher._begin(dispatcher._connect)
        workers = dispatcher._manager._workers
    assert workers is not None
    with pytest.raises(RequestError, match="has just ended"):
        asyncio.run(workers.signs([]))
    workers.forget({"agent": "w.1"}, 1)
