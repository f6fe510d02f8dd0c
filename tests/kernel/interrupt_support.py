"""Ctrl-C, or what a signal handler raises, once or twice, wherever the interpreter takes it.

CPython looks for signals when a call has returned, when a function begins and when a loop turns
back, and nowhere else. A tracer raises at each of these points inside the engine, one at a time.
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

if TYPE_CHECKING:
    from _typeshed import TraceFunction

_PACKAGES = tuple(f"{folder}/" for package in (journal, manager) for folder in package.__path__)
_TESTING = tuple(f"{folder}/" for folder in journal.testing.__path__)
TIMEOUT_S = 10
MANY = 10_000  # more points than anything has
STEP = 5
# Before 3.12 a tracer that has raised is taken away.
TWICE = pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring strikes twice")


class Interrupt:
    """Raises `kind` in this thread at the `nth` point where a signal could be noticed; then, for
    each gap in `again`, once more that many points later. `struck` tells where."""

    def __init__(self, kind: type[BaseException], nth: int, *again: int) -> None:
        self._kind = kind
        self.raised: list[BaseException] = []
        self._left = nth
        self._again = [*again]
        self._thread = threading.get_ident()
        self._is_over = False
        self.struck: list[str] = []

    def strike(self) -> None:
        """Raise the handler's exception at the point that was chosen."""
        self.raised.append(self._kind("struck"))
        raise self.raised[-1]

    def at(self, code: CodeType) -> None:
        """Count a point that the thread is at in `code`, and strike if it is the chosen one."""
        if self._is_over or threading.get_ident() != self._thread:
            return
        self._left -= 1
        if self._left < 0:
            self.struck.append(code.co_qualname)
            self._is_over = not self._again
            self._left = self._again.pop(0) if self._again else 0
            self.strike()


class Handler(Interrupt):
    """Calls `handler` in this thread at the `nth` point, as the interpreter calls a signal's."""

    def __init__(self, handler: Callable[[], object], nth: int) -> None:
        super().__init__(KeyboardInterrupt, nth)
        self._handler = handler

    def strike(self) -> None:
        self._handler()


class Tracer:
    """Tells an interrupt of each point that the engine comes to. Code is known by its id, and so
    is kept: its hash takes as long as its text is."""

    def __init__(self) -> None:
        self.kind: type[BaseException] = KeyboardInterrupt
        self.interrupt: Interrupt | None = None
        self._points: dict[int, tuple[CodeType, set[int]]] = {}
        self._before: TraceFunction | None = None

    def is_point(self, code: CodeType, offset: int) -> bool:
        if id(code) not in self._points:
            self._points[id(code)] = code, set(points(code)) if is_ours(code) else set()
        return offset in self._points[id(code)][1]

    # No context manager of contextlib's: its own code has points.

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
        if not is_ours(frame.f_code):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode" and self.interrupt and self.is_point(frame.f_code, frame.f_lasti):
            self.interrupt.at(frame.f_code)
        return self._trace

    # 3.13.0 traces no opcodes of a frame that asks for them as it begins.

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
        if not self.is_point(code, offset):
            if sys.version_info >= (3, 12):
                return sys.monitoring.DISABLE
            return None
        if self.interrupt:
            self.interrupt.at(code)
        return None


_tracer = Tracer()


class NoFilesError(OSError):
    """A handler's OSError with an errno that a disk may have, too."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EMFILE, text)


KINDS = (KeyboardInterrupt, Exception, RuntimeError, TimeoutError, ValueError, NoFilesError)


@pytest.fixture(params=KINDS)
def monitored(request: pytest.FixtureRequest) -> Iterator[None]:
    """`struck` strikes with each of these. On 3.12 it also slows down everything else."""
    _tracer.kind = request.param
    with _tracer.monitoring():
        yield


@pytest.fixture(params=[STEP, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "each"])
def point_numbers(request: pytest.FixtureRequest) -> range:
    """Return the numbers of the points to strike, without an end. The quick part strikes every
    `STEP`th one, and each test begins with another; the slow part strikes them all."""
    step: int = request.param
    return range(crc32(request.node.nodeid.encode()) % step, MANY, step)


def is_ours(code: CodeType) -> bool:
    """Whether it is the engine's or the manager's, or a `with` of theirs that is written in Python;
    and not the simulated disk's."""
    path = code.co_filename
    ours = path.startswith(_PACKAGES) and not path.startswith(_TESTING)
    return ours or path.endswith("/contextlib.py")


def points(code: CodeType) -> Iterator[int]:
    """Offsets of the instructions before which the interpreter has looked for signals.

    It raises as part of the instruction that looked, so one that is guarded by another handler
    than the next (the last call in a `with`) can't be told by a tracer, and is left out.
    """
    handlers = dis._parse_exception_table(code)  # type: ignore[attr-defined]

    def handler(offset: int) -> Any:
        return next((h.target for h in handlers if h.start <= offset < h.end), None)

    noticed: int | None = None
    for instruction in dis.get_instructions(code):
        if instruction.opname == "CACHE":
            continue
        if noticed is not None and handler(noticed) == handler(instruction.offset):
            yield instruction.offset
        looks = instruction.opname.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))
        noticed = instruction.offset if looks else None


def struck(action: Callable[[], Any], nth: int, *again: int) -> list[str]:
    """Strike `action`, and return where. What was raised came out of it, if any was; or out of a
    generator that was just being closed, where the interpreter has nobody to raise it to."""
    interrupt = Interrupt(_tracer.kind, nth, *again)
    came_out: list[object] = []
    before, sys.unraisablehook = sys.unraisablehook, came_out.append
    gc.disable()  # what a collection interrupts is some other test's journal
    try:
        _tracer.arm(interrupt)
        action()
    except _tracer.kind as error:
        if error not in interrupt.raised:
            raise
        came_out.append(type(error))
    finally:
        _tracer.disarm()
        gc.enable()
        sys.unraisablehook = before
    assert bool(came_out) == bool(interrupt.struck), interrupt.struck
    return interrupt.struck


def handled(action: Callable[[], Any], handler: Callable[[], object], nth: int) -> list[str]:
    """Run `action`, and `handler` on top of it. Return where."""
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
    """Run `action` where it can hang without hanging the test."""
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
