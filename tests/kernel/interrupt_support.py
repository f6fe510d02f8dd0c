"""Interrupts at every point where the interpreter handles signals: Ctrl-C, or another exception of
a signal handler, once or twice.

CPython looks for signals after a call returns, at the beginning of a function and at the backward
jump of a loop, and nowhere else. A tracer raises at these points inside the engine, one at a time.
"""

from __future__ import annotations

import dis
import errno
import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest

import journal.testing
import manager
from tests.tiers import is_quick_part, is_thorough, slow_unless

if TYPE_CHECKING:
    from _typeshed import TraceFunction

_PACKAGES = tuple(f"{folder}/" for package in (journal, manager) for folder in package.__path__)
_TESTING = tuple(f"{folder}/" for folder in journal.testing.__path__)
TIMEOUT_S = 10
MANY = 10_000  # more points than any tested call has
STEP = 5
# Before Python 3.12, a tracer that has raised is removed.
TWICE = pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring strikes twice")


class Interrupt:
    """An exception of `kind`, raised in this thread at the `nth` point that could notice a signal.

    After that, it is raised once more for each gap in `gaps`, that many points later. `struck`
    lists the functions in which it was raised.
    """

    def __init__(self, kind: type[BaseException], nth: int, *gaps: int) -> None:
        self._kind = kind
        self.raised: list[BaseException] = []
        self._left = nth
        self._gaps = [*gaps]
        self._thread = threading.get_ident()
        self._is_over = False
        self.struck: list[str] = []

    def strike(self) -> None:
        """Raise the handler's exception at the chosen point."""
        self.raised.append(self._kind("struck"))
        raise self.raised[-1]

    def at(self, code: CodeType) -> None:
        """Count a point in `code`, and strike if it is the chosen one."""
        if self._is_over or threading.get_ident() != self._thread:
            return
        self._left -= 1
        if self._left < 0:
            self.struck.append(code.co_qualname)
            self._is_over = not self._gaps
            self._left = self._gaps.pop(0) if self._gaps else 0
            self.strike()


class Handler(Interrupt):
    """A call of `handler` at the `nth` point of this thread, as the interpreter calls it."""

    def __init__(self, handler: Callable[[], object], nth: int) -> None:
        super().__init__(KeyboardInterrupt, nth)
        self._handler = handler

    def strike(self) -> None:
        self._handler()


class Tracer:
    """A tracer that reports each point of the engine to an interrupt.

    Code objects are looked up by id, because the time to hash one grows with its length. They are
    kept alive, so that their ids stay unique.
    """

    def __init__(self) -> None:
        self.kind: type[BaseException] = KeyboardInterrupt
        self.interrupt: Interrupt | None = None
        self._points: dict[int, tuple[CodeType, set[int]]] = {}
        self._traces: dict[int, TraceFunction | None] = {}
        self._before: TraceFunction | None = None

    def offsets(self, code: CodeType) -> set[int]:
        """Return the offsets of the points in `code`. Code that is not the engine's has none."""
        if id(code) not in self._points:
            self._points[id(code)] = code, set(points(code)) if is_ours(code) else set()
        return self._points[id(code)][1]

    # These are plain methods, because the code of a context manager from contextlib has points
    # itself.

    def arm(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt
        if sys.version_info < (3, 12):
            self._before = sys.gettrace()
            sys.settrace(self._trace)

    def disarm(self) -> None:
        self.interrupt = None
        if sys.version_info < (3, 12):
            sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if id(code) not in self._traces:
            self._traces[id(code)] = self._trace_of(code)
        trace = self._traces[id(code)]
        if trace:
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return trace

    def _trace_of(self, code: CodeType) -> TraceFunction | None:
        """Return the trace function of `code`, or None if it has no points.

        It runs at each instruction, so it has the points of this code at hand.
        """
        offsets = self.offsets(code)

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            if frame.f_lasti in offsets and event == "opcode" and self.interrupt:
                self.interrupt.at(code)
            return trace

        return trace if offsets else None

    # Python 3.13.0 traces no opcodes in a frame that asks for them when it begins.

    @contextmanager
    def monitoring(self) -> Iterator[None]:
        if sys.version_info >= (3, 12):
            monitoring, tool = sys.monitoring, sys.monitoring.DEBUGGER_ID
            monitoring.use_tool_id(tool, "interrupt")
            monitoring.register_callback(tool, monitoring.events.INSTRUCTION, self._instruction)
            monitoring.set_events(tool, monitoring.events.INSTRUCTION)
            try:
                yield
            finally:
                monitoring.set_events(tool, monitoring.events.NO_EVENTS)
                monitoring.free_tool_id(tool)
                monitoring.restart_events()
        else:
            yield

    def _instruction(self, code: CodeType, offset: int) -> Any:
        if offset not in self.offsets(code):
            if sys.version_info >= (3, 12):
                return sys.monitoring.DISABLE
            return None
        if self.interrupt:
            self.interrupt.at(code)
        return None


_tracer = Tracer()


class NoFilesError(OSError):
    """A handler's OSError with an errno that a disk may also have."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EMFILE, text)


IN_TURN = (NoFilesError, Exception, RuntimeError, TimeoutError, ValueError)
_PARAMS = slow_unless(lambda kind: kind is KeyboardInterrupt, (KeyboardInterrupt, *IN_TURN))


@pytest.fixture(params=_PARAMS)
def monitored(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let `struck` strike with each kind of exception. On Python 3.12, everything else is
    slower."""
    _tracer.kind = request.param
    with _tracer.monitoring():
        yield


@pytest.fixture
def point_numbers(request: pytest.FixtureRequest, monitored: None) -> range:
    """Return the numbers of the points to strike, up to `MANY`.

    In the profile `thorough`, each kind of exception strikes each point. In the whole suite,
    KeyboardInterrupt does, and the other kinds take turns. The quick part has only
    KeyboardInterrupt, at every `STEP`th point. With `SPARSE`, there are fewer points in both, and
    each test begins with another one.
    """
    if is_thorough():
        return range(MANY)
    step: int = getattr(request, "param", 1)
    begin = crc32(request.node.nodeid.encode()) % step
    if _tracer.kind in IN_TURN:
        return range(begin + IN_TURN.index(_tracer.kind) * step, MANY, len(IN_TURN) * step)
    if is_quick_part():
        step *= STEP
        begin = crc32(request.node.nodeid.encode()) % step
    return range(begin, MANY, step)


# A long call, or each of many combinations of calls, takes every fourth of the points.
SPARSE = pytest.mark.parametrize("point_numbers", [4], ids=["long"], indirect=True)


def is_ours(code: CodeType) -> bool:
    """Return whether the code is the engine's, the manager's or contextlib's.

    The simulated disk does not count.
    """
    path = code.co_filename
    is_in_packages = path.startswith(_PACKAGES) and not path.startswith(_TESTING)
    return is_in_packages or path.endswith("/contextlib.py")


def points(code: CodeType) -> Iterator[int]:
    """Yield the offsets of the instructions before which the interpreter has looked for signals.

    The interpreter raises as part of the instruction that looked. If the next instruction has
    another exception handler, as after the last call in a `with`, a tracer can't imitate that, and
    the point is left out.
    """
    handlers = dis._parse_exception_table(code)  # type: ignore[attr-defined]

    def handler(offset: int) -> Any:
        return next((h.target for h in handlers if h.start <= offset < h.end), None)

    checked_at: int | None = None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "CACHE":
            continue
        if checked_at is not None and handler(checked_at) == handler(instruction.offset):
            yield instruction.offset
        checks_signals = instruction.opname.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))
        checked_at = instruction.offset if checks_signals else None


def struck(action: Callable[[], Any], nth: int, *gaps: int) -> list[str]:
    """Strike `action`, and return the functions in which the exception was raised.

    Check that the exception came out of `action`. If it was raised in a generator that was being
    closed, the interpreter passes it to the unraisable hook instead.
    """
    interrupt = Interrupt(_tracer.kind, nth, *gaps)
    caught: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, caught.append
    gc.disable()  # a collection would run code of another test's journal
    try:
        _tracer.arm(interrupt)
        action()
    except _tracer.kind as error:
        if error not in interrupt.raised:
            raise
        caught.append(type(error))
    finally:
        _tracer.disarm()
        gc.enable()
        sys.unraisablehook = before
    assert bool(caught) == bool(interrupt.struck), interrupt.struck
    return interrupt.struck


def run_with_handler(
    action: Callable[[], Any], handler: Callable[[], object], nth: int
) -> list[str]:
    """Run `action`, call `handler` at its `nth` point, and return the function with that point."""
    interrupt = Handler(handler, nth)
    gc.disable()
    try:
        _tracer.arm(interrupt)
        action()
    finally:
        _tracer.disarm()
        gc.enable()
    return interrupt.struck


def in_other_thread(action: Callable[[], Any]) -> None:
    """Run `action` in another thread, where it can hang without hanging the test."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive(), "hangs"
    if errors:
        raise errors[0]
