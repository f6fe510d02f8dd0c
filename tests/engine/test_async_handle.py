"""Opening and closing in an event loop: the loop runs on, and a cancelled task leaves nothing."""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from journal import (
    DurableDict,
    DurableState,
    FailedError,
    Journal,
    LockedError,
    Tables,
)
from journal.testing import SimulatedDisk
from journal.testing.disk import Operation
from manager import SubAgentManager
from tests.support import NEVER_S, PATH, TIMEOUT_S, Held, Table, open_on, options, until

OPTIONS = options(segment_bytes=1 << 16)


def manager_on(disk: SimulatedDisk, **more: Any) -> Any:
    return SubAgentManager.aopen("/", state_dir=PATH, options=OPTIONS, disk=disk, **more)


# By class, what begins an open, and what appends a record that only a close commits.
OPENERS: dict[str, Callable[..., Any]] = {
    "Journal": lambda disk, **more: Journal.aopen(PATH, options=OPTIONS, disk=disk, **more),
    "DurableState": lambda disk, **more: DurableState[Table].aopen(
        PATH, Table(), options=OPTIONS, disk=disk, **more
    ),
    "Tables": lambda disk, **more: Tables.aopen(PATH, options=OPTIONS, disk=disk, **more),
    "DurableDict": lambda disk, **more: DurableDict.aopen(PATH, options=OPTIONS, disk=disk, **more),
    "SubAgentManager": manager_on,
}
CHANGES: dict[str, Callable[[Any], object]] = {
    "Journal": lambda journal: journal.append("a"),
    "DurableState": lambda state: state.update(lambda _: ["a", 1]),
    "Tables": lambda tables: tables.table("t").set(1, 1),
    "DurableDict": lambda whole: whole.update({1: 1}),
    "SubAgentManager": lambda manager: manager.spawn("work"),
}
KINDS = pytest.mark.parametrize("kind", OPENERS)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine. It must end in time, and leave no lock-holding thread."""
    asyncio.run(asyncio.wait_for(main, TIMEOUT_S))


def assert_free(disk: SimulatedDisk) -> None:
    """Fail if somebody holds the lock, or a thread of the engine still runs."""
    until(lambda: not engine_threads(), f"no thread is left, but: {engine_threads()}")
    open_on(disk).close()


def engine_threads() -> list[str]:
    names = (thread.name for thread in threading.enumerate())
    return [name for name in names if name.startswith("journal")]


async def reached(held: Held) -> None:
    """Wait until a disk operation waits. The event loop must run meanwhile."""
    while not held._reached.acquire(blocking=False):
        await asyncio.sleep(0.001)


@KINDS
def test_the_loop_runs_while_a_handle_opens_and_closes(disk: SimulatedDisk, kind: str) -> None:
    """While the disk does not answer, other tasks run. Then the handle is open, and closed with all
    its changes durable."""

    async def main() -> None:
        with Held(disk, "lock") as held:
            opening = asyncio.create_task(anext_of(OPENERS[kind](disk)))
            await reached(held)
            assert not opening.done()
            held.release_all()
            handle = await opening
        async with handle as entered:
            assert entered is handle
            assert not handle.closed
            CHANGES[kind](handle)
        assert handle.closed
        handle = await OPENERS[kind](disk)
        CHANGES[kind](handle)
        with Held(disk, "sync") as held:
            closing = asyncio.create_task(handle.aclose())
            await reached(held)
            assert not closing.done()
            held.release_all()
            await closing
        assert handle.closed
        await handle.aclose()

    run(main())
    assert_free(disk)
    with open_on(disk) as journal:
        assert journal.last_lsn > 0


async def anext_of(awaitable: Any) -> Any:
    return await awaitable


@KINDS
def test_async_with_opens_and_closes(disk: SimulatedDisk, kind: str) -> None:
    """`async with K.aopen(...)` binds the open handle, and closes it at the end of the body."""

    async def main() -> None:
        async with OPENERS[kind](disk) as handle:
            assert type(handle).__name__ == kind
            assert not handle.closed
        assert handle.closed

    run(main())
    assert_free(disk)


@KINDS
def test_a_cancelled_open_leaves_nothing(kind: str) -> None:
    """A task that is cancelled at any disk operation of an open gets CancelledError, and neither a
    lock nor a thread nor an open journal remains."""
    for nth in range(1000):
        disk = SimulatedDisk()
        if not cancelled_at(disk, nth, kind):
            break
        assert_free(disk)
    assert nth > 10


def cancelled_at(disk: SimulatedDisk, nth: int, kind: str) -> bool:
    """Cancel an open at its operation number `nth`. Return whether there was one."""
    loop = asyncio.new_event_loop()
    calls, was_cancelled = 0, threading.Event()

    async def main() -> bool:
        task = asyncio.create_task(anext_of(OPENERS[kind](disk)))

        def before(operation: Operation, path: str) -> None:
            nonlocal calls
            calls += 1
            if calls == nth + 1:
                loop.call_soon_threadsafe(cancel)
                assert was_cancelled.wait(TIMEOUT_S)

        def cancel() -> None:
            task.cancel()
            loop.call_soon(was_cancelled.set)

        disk.before = before
        await asyncio.wait([task], timeout=TIMEOUT_S)
        if was_cancelled.is_set():
            assert task.cancelled()
            return True
        await (await task).aclose()
        return was_cancelled.is_set()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main())
        disk.before = None
    return result


@KINDS
def test_a_cancelled_wait_for_the_lock_ends_at_once(disk: SimulatedDisk, kind: str) -> None:
    """A task that waits for the lock ends long before its limit when it is cancelled, and opens
    nothing."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with open_on(disk):
            began_s = loop.time()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await OPENERS[kind](disk, lock_timeout_s=8.0)
            assert loop.time() < began_s + 6.0
            assert [name for name in engine_threads() if "call" in name] == []

    run(main())
    assert_free(disk)


@KINDS
def test_an_open_waits_for_the_lock(disk: SimulatedDisk, kind: str) -> None:
    """`aopen` waits for the lock up to its limit, and gets it when the other writer closes."""

    async def main() -> None:
        other = open_on(disk)
        with pytest.raises(LockedError):
            await OPENERS[kind](disk)
        with pytest.raises(LockedError):
            await OPENERS[kind](disk, lock_timeout_s=0.01)
        opening = asyncio.create_task(anext_of(OPENERS[kind](disk, lock_timeout_s=TIMEOUT_S)))
        await asyncio.sleep(0.02)
        assert not opening.done()
        other.close()
        await (await opening).aclose()

    run(main())
    assert_free(disk)


@KINDS
def test_a_cancelled_close_closes(disk: SimulatedDisk, kind: str) -> None:
    """A task that is cancelled again and again while it closes gets CancelledError after the end of
    the close."""

    async def main() -> None:
        handle = await OPENERS[kind](disk)
        CHANGES[kind](handle)
        with Held(disk, "sync") as held:
            closing = asyncio.create_task(handle.aclose())
            await reached(held)
            for _ in range(3):
                closing.cancel()
                await asyncio.sleep(0.001)
            assert not closing.done()
            held.release_all()
            with pytest.raises(asyncio.CancelledError):
                await closing
        assert handle.closed

    run(main())
    assert_free(disk)


@KINDS
def test_a_cancelled_body_closes(disk: SimulatedDisk, kind: str) -> None:
    """The end of a cancelled body closes the handle, and the cancellation goes on."""
    handles = []

    async def body() -> None:
        async with OPENERS[kind](disk) as handle:
            handles.append(handle)
            CHANGES[kind](handle)
            await asyncio.sleep(NEVER_S)

    async def main() -> None:
        task = asyncio.create_task(body())
        while not handles:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert handles[0].closed

    run(main())
    assert_free(disk)


async def body_that_fails(disk: SimulatedDisk, kind: str, error: Exception | None = None) -> None:
    """Make a change that can't be synced, then raise `error`, in a body of `async with`."""
    handle = await OPENERS[kind](disk)
    try:
        async with handle:
            CHANGES[kind](handle)
            disk.fail("sync", errno.EIO)
            if error:
                raise error
    finally:
        assert handle.closed


@KINDS
def test_an_error_of_the_close_is_raised(disk: SimulatedDisk, kind: str) -> None:
    """If a change can't be synced, the end of the body raises FailedError, also in a task that is
    cancelled meanwhile."""

    async def main() -> None:
        with pytest.raises(FailedError):
            await body_that_fails(disk, kind)
        disk.before = None
        handle = await OPENERS[kind](disk)
        CHANGES[kind](handle)
        disk.fail("sync", errno.EIO)
        closing = asyncio.create_task(handle.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(FailedError):
            await closing
        assert handle.closed
        disk.before = None

    run(main())
    assert_free(disk)


@KINDS
def test_an_error_of_the_body_is_kept(
    disk: SimulatedDisk, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The body's exception propagates, and an error of the close is logged."""

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await body_that_fails(disk, kind, ZeroDivisionError())
        disk.before = None

    run(main())
    assert "was not closed cleanly" in caplog.text
    assert_free(disk)


def test_a_close_can_be_limited(disk: SimulatedDisk) -> None:
    """`aclose` raises TimeoutError after `timeout_s`, and may be called again."""

    async def main() -> None:
        journal = await Journal.aopen(PATH, options=OPTIONS, disk=disk)
        journal.append("a")
        with Held(disk, "sync"):
            with pytest.raises(TimeoutError, match="call close"):
                await journal.aclose(timeout_s=0.01)
            assert not journal.closed
        await journal.aclose()
        assert journal.closed

    run(main())
    assert_free(disk)


def test_an_open_whose_loop_ends_is_closed(disk: SimulatedDisk) -> None:
    """If the coroutine is closed, because its loop ended, the thread closes what it opens."""
    opening = anext_of(OPENERS["DurableState"](disk))

    async def main() -> None:
        task = asyncio.ensure_future(opening)
        await reached(held)
        task.get_coro().close()
        with suppress(asyncio.CancelledError):
            task.cancel()
            await task

    with Held(disk, "lock") as held:
        with suppress(RuntimeError):
            asyncio.run(main())
        held.release_all()
        until(lambda: not engine_threads(), "the thread has ended")
    assert_free(disk)


def test_errors_of_an_open_are_raised(disk: SimulatedDisk) -> None:
    """`aopen` raises what `open` raises, and arguments are checked by `open`."""

    async def main() -> None:
        with pytest.raises(TypeError, match="is a class"):
            await DurableState.aopen(PATH, Table, disk=disk)  # type: ignore[type-var]
        disk.fail("open_directory", errno.EACCES)
        with pytest.raises(PermissionError):
            await Tables.aopen(PATH, disk=disk)
        with pytest.raises(ValueError, match="lock_timeout_s"):
            await Tables.aopen(PATH, lock_timeout_s=-1, disk=disk)

    run(main())
    assert_free(disk)


def test_a_cancelled_open_keeps_nothing_alive(disk: SimulatedDisk) -> None:
    """When a cancelled open has ended, the machine is free without the garbage collector."""

    async def main() -> None:
        machine = Table()
        alive = weakref.ref(machine)
        with open_on(disk), suppress(TimeoutError):
            async with asyncio.timeout(0.01):
                await DurableState[Table].aopen(PATH, machine, disk=disk, lock_timeout_s=None)
        del machine
        until(lambda: alive() is None, "the machine is free", 5)

    gc.disable()
    try:
        run(main())
    finally:
        gc.enable()


def test_without_a_loop_nothing_is_opened(disk: SimulatedDisk) -> None:
    """Outside of an event loop, `aopen` and `aclose` raise RuntimeError, and start no thread."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        OPENERS["Journal"](disk).__await__().send(None)
    assert disk.operations == []
    with open_on(disk) as journal, pytest.raises(RuntimeError, match="no running event loop"):
        journal.aclose().send(None)
    assert_free(disk)


@pytest.mark.parametrize("kind", [Journal, DurableState, Tables, DurableDict, SubAgentManager])
def test_aopen_has_the_parameters_of_open(kind: Any) -> None:
    """Editors and `help` show the parameters of `open` for `aopen`."""
    assert inspect.signature(kind.aopen) == inspect.signature(kind.open)
    assert kind.aopen.__name__ == "aopen"
    assert "AsyncHandle.aopen" in kind.aopen.__doc__
