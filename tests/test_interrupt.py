"""Ctrl-C: a KeyboardInterrupt wherever the interpreter takes one, and what must hold after it.

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
from contextlib import contextmanager, suppress
from functools import partial
from types import CodeType, FrameType
from typing import Any

import pytest

from journal import CowTable, DurableState, FailedError, Journal, Options
from journal.testing import SimulatedDisk

ENGINE = tuple(
    f"/journal/{name}.py"
    for name in ("buffer", "committer", "engine", "gate", "lock", "state", "writer")
)
TIMEOUT_S = 10
POINTS = 150  # more than an append and a wait have
OPTIONS = Options(flush_interval_s=0.001, segment_bytes=4096)


class Interrupt:
    """Raises KeyboardInterrupt in this thread at the `nth` point where one could be noticed."""

    def __init__(self, nth: int) -> None:
        self._left = nth
        self._thread = threading.get_ident()
        self._noticing: dict[CodeType, set[int]] = {}
        self.struck = False

    def at(self, code: CodeType, offset: int) -> None:
        if self.struck or threading.get_ident() != self._thread:
            return
        if code not in self._noticing:
            is_ours = code.co_filename.endswith(ENGINE)
            self._noticing[code] = set(points(code)) if is_ours else set()
        if offset in self._noticing[code]:
            self._left -= 1
            if self._left < 0:
                self.struck = True
                raise KeyboardInterrupt

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.endswith(ENGINE):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self.at(frame.f_code, frame.f_lasti)
        return self.trace

    @contextmanager
    def armed(self) -> Iterator[None]:
        if sys.version_info < (3, 12):
            before = sys.gettrace()
            sys.settrace(self.trace)
            try:
                yield
            finally:
                sys.settrace(before)
        else:  # 3.13.0 traces no opcodes of a frame that asks for them as it begins
            monitoring, tool = sys.monitoring, sys.monitoring.DEBUGGER_ID
            monitoring.use_tool_id(tool, "interrupt")
            monitoring.register_callback(tool, monitoring.events.INSTRUCTION, self.at)
            monitoring.set_events(tool, monitoring.events.INSTRUCTION)
            try:
                yield
            finally:
                monitoring.set_events(tool, monitoring.events.NO_EVENTS)
                monitoring.free_tool_id(tool)


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


def interrupted(nth: int, action: Callable[[], Any]) -> bool:
    """Whether the `nth` interrupt struck `action`; then KeyboardInterrupt came out of it."""
    interrupt = Interrupt(nth)
    gc.disable()  # what a collection interrupts is some other test's journal
    try:
        with interrupt.armed():
            action()
    except KeyboardInterrupt:
        assert interrupt.struck
    finally:
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


def test_there_are_points_to_strike() -> None:
    """The tracer sees the engine: an append alone has several points."""
    with Journal.open("/j", disk=SimulatedDisk()) as journal:
        struck = sum(interrupted(nth, lambda: journal.append(1)) for nth in range(5))
    assert struck > 2


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "beside another waiter"])
def test_append_and_wait_survive_an_interrupt_anywhere(alone: bool) -> None:
    """P1, P2: no LSN is skipped, nothing is lost or doubled, nobody is left waiting."""
    disk = SimulatedDisk()
    journal = Journal.open("/j", options=OPTIONS, disk=disk)
    expected: list[Any] = []
    strikes = 0
    for nth in range(POINTS):  # who commits, and so how many points there are, differs
        before = journal.last_lsn
        record = ["interrupted", nth]

        def action(record: Any = record) -> None:
            journal.wait_durable(journal.append(record))

        if not alone:
            lsn = journal.append(["other", nth])
            other = threading.Thread(target=journal.wait_durable, args=(lsn,), daemon=True)
            other.start()
            expected.append(["other", nth])
            before = lsn
        strikes += interrupted(nth, action)
        if journal.last_lsn > before:
            assert journal.last_lsn == before + 1
            expected.append(record)
        in_other_thread(partial(put, journal, ["after", nth]))
        expected.append(["after", nth])
        if not alone:
            other.join(TIMEOUT_S)
            assert not other.is_alive(), "the other waiter hangs"
    assert strikes > 20
    assert [entry.record for entry in journal.replay()] == expected
    in_other_thread(journal.close)
    disk.kill()
    with Journal.open("/j", disk=disk) as reopened:
        assert [entry.record for entry in reopened.replay()] == expected


def test_a_sync_that_failed_is_never_tried_again() -> None:
    """P2: not either where an interrupt strikes the waiter in whose thread it failed. Then the
    kernel may count the lost pages as written, and a second sync acknowledges what is not there."""
    strikes = 0
    for nth in range(POINTS):
        disk = SimulatedDisk()
        journal = Journal.open("/j", options=OPTIONS, disk=disk)
        in_other_thread(partial(put, journal, "safe"))
        disk.fail("sync", errno.EIO, path=".seg")
        with suppress(FailedError):
            strikes += interrupted(nth, partial(put, journal, "lost"))
        with pytest.raises(FailedError):
            in_other_thread(partial(put, journal, "after"))
        with suppress(FailedError):
            in_other_thread(journal.close)
    assert strikes > 20


def put(journal: Journal, record: Any) -> None:
    journal.wait_durable(journal.append(record))


def update(state: DurableState[Any], decide: Callable[[Any], Any]) -> None:
    state.wait_durable(state.update(decide))


def _a(_: Any) -> str:
    return "a"


def _b(_: Any) -> str:
    return "b"


class Counter:
    """A machine for which applying twice, or not at all, shows."""

    application = "counter/1"

    def __init__(self) -> None:
        self.table: CowTable[str, dict[str, Any]] = CowTable()

    def load(self, item: Any) -> None:
        self.table[item["id"]] = item

    def apply(self, lsn: int, record: Any) -> None:
        seen = self.table[record]["seen"] if record in self.table else 0
        self.table[record] = {"id": record, "seen": seen + 1, "lsn": lsn}

    def freeze(self) -> Any:
        return self.table.freeze()


def test_update_survives_an_interrupt_anywhere() -> None:
    """P6: the live state is what replay gives, or the state refuses to go on."""
    for nth in range(10_000):
        disk = SimulatedDisk()
        state = DurableState.open("/j", Counter(), options=OPTIONS, disk=disk)
        state.update(_a)
        struck = interrupted(nth, partial(state.update, _a))
        stopped = False
        try:
            in_other_thread(partial(update, state, _b))
        except FailedError:
            stopped = True
        live = dict(state.machine.table)
        in_other_thread(state.close)
        with DurableState.open("/j", Counter(), disk=disk) as replayed:
            assert stopped or dict(replayed.machine.table) == live, nth
        if not struck:
            break
    assert nth > 10


def test_close_survives_an_interrupt_anywhere() -> None:
    """P2: an interrupted close is called again, and has lost nothing."""
    for nth in range(10_000):
        disk = SimulatedDisk()
        journal = Journal.open("/j", options=OPTIONS, disk=disk)
        journal.append(nth)
        struck = interrupted(nth, journal.close)
        in_other_thread(journal.close)
        with Journal.open("/j", disk=disk) as reopened:
            assert [entry.record for entry in reopened.replay()] == [nth]
        if not struck:
            break
    assert nth > 5
