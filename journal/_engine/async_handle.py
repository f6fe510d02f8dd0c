"""AsyncHandle: opens and closes a handle in a thread, so that an event loop stays responsive.

Opening and closing read, write and sync files. A thread that does this can't be stopped. So a task
that is cancelled meanwhile waits for the thread first, and a handle that nobody will get is closed
before the cancellation goes on: no lock, no thread and no open journal remains.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar

from journal._commit.gate import Gate
from journal._handle import OpenHandle
from journal._mutex import Alarm
from journal._public import public
from journal._waits import warn_in_event_loop

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H", bound="AsyncHandle")
H_co = TypeVar("H_co", bound="AsyncHandle", covariant=True)


class _Opens(Protocol[P, H_co]):
    """A class of handles, as a type checker sees it."""

    def open(self, *args: P.args, **kwargs: P.kwargs) -> H_co: ...


class _OpenInThread:
    """The class method `aopen` of each class of handles, with the parameters of its `open`."""

    def __get__(self, instance: object, owner: _Opens[P, H]) -> Callable[P, AsyncOpening[H]]:
        def aopen(*args: P.args, **kwargs: P.kwargs) -> AsyncOpening[H]:
            """Open in a thread. Use the result in `async with`, or await it.

            The arguments, the handle and the errors are those of `open`. See AsyncHandle.aopen.
            """
            return AsyncOpening(partial(owner.open, *args, **kwargs))

        aopen.__annotations__ = {}  # those of `open` are shown, and AsyncHandle itself has none
        aopen.__qualname__ = "AsyncHandle.aopen"
        if opener := getattr(owner, "open", None):
            aopen = wraps(opener, assigned=("__module__",), updated=())(aopen)
        return aopen


@public
class AsyncHandle(OpenHandle, ABC):
    """A handle that can be opened and closed in an event loop without blocking it.

        async with DurableState.aopen("jobs.d", Jobs()) as state:
            await state.durable(state.update(decide))

    The base class of Journal, DurableState, Tables, DurableDict and SubAgentManager. `async with`
    also takes a handle that is open already, and closes it at the end.
    """

    aopen = _OpenInThread()
    """The class method that opens in a thread what `open` opens. It takes the arguments of `open`,
    raises what `open` raises, and returns an AsyncOpening: `async with` it, or await it."""

    @abstractmethod
    def close(self, *, timeout_s: float | None = None) -> None:
        """Make all changes durable, and close the journal; see Journal.close."""

    async def aclose(self, *, timeout_s: float | None = None) -> None:
        """Close in a thread, as `close` does. The event loop runs other tasks meanwhile.

        If the task is cancelled, the call still waits for the end of the close, and raises its
        error, if there is one. To limit that time, pass `timeout_s`. Raises what `close` raises.
        """
        await _run(partial(self.close, timeout_s=timeout_s))

    def __enter__(self) -> Self:
        return self

    @abstractmethod
    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None: ...

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await _run(partial(self.__exit__, kind, error, trace))

    def __repr__(self) -> str:
        return f"<{self._kind} {self._condition()}>"

    @abstractmethod
    def _condition(self) -> str:
        """Return the path, the state and the LSNs in words. Takes no lock, and raises nothing."""

    @staticmethod
    def _warn_in_event_loop(call: str, awaitable: str, timeout_s: float | None) -> None:
        warn_in_event_loop(call, awaitable, timeout_s)


@public
class AsyncOpening(Generic[H]):
    """An open that runs in a thread. `async with` it, or await it; then close what it returns.

    The thread does what `open` does, `apply` and `load` of a state machine included. If the task is
    cancelled meanwhile, it stops a wait for the lock, waits for the rest of the open, and closes
    what that opened. Then the cancellation continues.
    """

    def __init__(self, open_handle: Callable[[], H]) -> None:
        self._open_handle = open_handle
        self._handle: H | None = None

    def __await__(self) -> Generator[Any, None, H]:
        return self._open().__await__()

    async def __aenter__(self) -> H:
        self._handle = await self._open()
        return self._handle

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert self._handle is not None
        await self._handle.__aexit__(kind, error, trace)

    async def _open(self) -> H:
        from journal._disk.lock_wait import giving_up

        given_up = Alarm()

        def open_handle() -> H:
            giving_up.set(given_up)
            return self._open_handle()

        call = _ThreadCall(open_handle, given_up.wake, _discard)
        await call.end()
        if call.is_cancelled and call.results:
            await _ThreadCall(partial(_discard, call.results.pop())).end(may_block=True)
        call.raise_cancellation()
        return call.result()


async def _run(function: Callable[[], T]) -> T:
    """Return the result of a close that runs in a thread. If the task is cancelled meanwhile,
    raise the cancellation after the end of the close, unless the close raised an error."""
    call = _ThreadCall(function)
    await call.end(may_block=True)
    result = call.result()
    call.raise_cancellation()
    return result


def _discard(handle: AsyncHandle) -> None:
    """Close a handle that nobody will get. An error is logged."""
    error = GeneratorExit("the open was cancelled")
    handle.__exit__(GeneratorExit, error, None)


class _ThreadCall(Generic[T]):
    """A call in a thread of its own, for a task that waits until it has ended."""

    def __init__(
        self,
        function: Callable[[], T],
        give_up: Callable[[], object] = bool,
        discard: Callable[[T], None] | None = None,
    ) -> None:
        """Take the function. `give_up` is called when the task is cancelled, and `discard` with the
        result if the event loop ended before the call."""
        self._function = function
        self._give_up = give_up
        self._discard = discard
        self._gate = Gate()
        self._is_abandoned = False
        self._loop: AbstractEventLoop | None = None
        self._errors: list[BaseException] = []
        self.results: list[T] = []
        self._cancellations: list[BaseException] = []

    @property
    def is_cancelled(self) -> bool:
        """True if the task was cancelled during the call."""
        return bool(self._cancellations)

    async def end(self, *, may_block: bool = False) -> None:
        """Make the call, and wait until it has ended, even if the task is cancelled.

        If no thread can be started and the call `may_block` the event loop, it is made here.
        """
        import asyncio
        from contextvars import copy_context

        self._loop = asyncio.get_running_loop()  # raises RuntimeError if there is none
        # A daemon, so that an exit does not wait for a disk that never answers. The exit itself
        # closes the journals that are open.
        thread = threading.Thread(
            target=copy_context().run, args=(self._work,), name="journal-call", daemon=True
        )
        try:
            try:
                thread.start()
            except (RuntimeError, MemoryError):  # a limit of the system, or too little memory
                if not may_block or thread.ident is not None:
                    raise
                # Otherwise, nothing would ever close the handle.
                self._work()
                return
            while not self._gate.opened:
                try:
                    await self._gate.passed()
                except asyncio.CancelledError as error:
                    self._cancellations = [error]
                    self._give_up()
            thread.join()  # it has nothing left to do
        except BaseException:  # the coroutine is closed, because its event loop ended
            self._is_abandoned = True
            self._give_up()
            raise

    # Each error is removed before it is raised. Otherwise, its traceback would lead back to it, and
    # keep everything alive that the call refers to.

    def raise_cancellation(self) -> None:
        """Raise the last cancellation of the task during the call, if there was one. It takes the
        place of the call's error."""
        if self._cancellations:
            self._errors.clear()
            raise self._cancellations.pop()

    def result(self) -> T:
        """Return the result of the call, or raise its error. Only the first use works."""
        if self._errors:
            raise self._errors.pop()
        return self.results.pop()

    def _work(self) -> None:
        try:
            self.results.append(self._function())
        except BaseException as error:
            self._errors.append(error)
        self._gate.open()
        # A coroutine of a loop that was stopped and closed may stay suspended for long.
        is_abandoned = self._is_abandoned or (self._loop is not None and self._loop.is_closed())
        if is_abandoned and self._discard and self.results:
            self._discard(self.results.pop())
