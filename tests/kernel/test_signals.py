"""Real signals, with handlers that raise, close, append and wait."""

from __future__ import annotations

import ast
import gc
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

import journal
import manager
from journal import DurableState, FailedError, Journal, Options
from journal._disk.posix_file import PosixFile
from journal.testing import SimulatedDisk
from tests.kernel.interrupt_support import in_other_thread
from tests.kernel.test_interrupt import update
from tests.support import TIMEOUT_S, Table, logged, options, put

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from journal import DurableState, InterruptedCallError, Journal, Options

path, behavior = sys.argv[1:]
journal = Journal.open(path, options=Options(flush_interval_s=0.001, segment_bytes=1 << 20))
once = behavior.startswith("close")
done, refused, raised, in_call = 0, 0, 0, False


def call(action):
    global done, refused
    try:
        action()
        done += 1
    except InterruptedCallError:
        refused += 1


class Limit(Exception):
    pass


def on_alarm(signum, frame):
    if behavior == "raise" and in_call:
        raise Limit("time is up")
    if behavior == "append":
        call(lambda: journal.append("handler"))
    if behavior == "wait":
        call(lambda: journal.wait_durable(journal.append("handler")))
    if behavior.startswith("close"):
        call(journal.close)
        raise SystemExit(0)


def continues(began):
    # A loaded machine lets few signals through in such a short time.
    took = time.monotonic() - began
    return took < 0.7 or (not once and done + raised <= 5 and took < 20)


def work():
    global raised, in_call
    began = time.monotonic()
    while continues(began):
        try:
            in_call = True
            journal.wait_durable(journal.append("main"))
            in_call = False
        except Limit:
            in_call = False
            raised += 1


async def work_in_loop():
    began = time.monotonic()
    while continues(began):
        await journal.durable(journal.append("main"))


def run_loop():
    # An exception of a handler may strike inside asyncio, and lose a task's wake-up. `asyncio.run`
    # would then wait forever for that cancelled task: once in 1,000 runs, with the journal closed.
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: None)  # the task is destroyed while it waits
    try:
        loop.run_until_complete(work_in_loop())
    finally:
        loop.close()


signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0 if once else 0.0005)
try:
    run_loop() if behavior.endswith("in a loop") else work()
finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    if once:  # as a `with` does
        journal.close()
    print(done, refused, raised, journal.durable_lsn == journal.last_lsn, flush=True)
other = threading.Thread(target=lambda: journal.wait_durable(journal.append("other")))
other.start()
other.join(10)
assert not other.is_alive()
journal.close()
print("continued", flush=True)
"""


def run(path: Path, behavior: str) -> list[str]:
    command = [sys.executable, "-c", PROGRAM, str(path), behavior]
    process = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    with Journal.open(path) as journal:
        assert {*logged(journal)} <= {"main", "handler", "other"}
    return process.stdout.splitlines()


@pytest.mark.parametrize("behavior", ["close", "close in a loop"])
def test_a_handler_that_closes_never_hangs(tmp_path: Path, behavior: str) -> None:
    """A SIGTERM handler can call `close` and `sys.exit` while the main thread writes.

    This is the usual shutdown. The handler's close succeeds, or is refused and done by the `with`.
    """
    for number in range(4):
        [line] = run(tmp_path / str(number), behavior)
        done, refused, _, all_durable = line.split()
        assert int(done) + int(refused) <= 1  # if it is refused, its exception propagates
        assert all_durable == "True"


@pytest.mark.parametrize("behavior", ["append", "wait"])
def test_a_handler_that_writes_never_hangs(tmp_path: Path, behavior: str) -> None:
    """A handler that appends or waits two thousand times a second does not stop the main thread."""
    line, last = run(tmp_path / "j", behavior)
    done, *_ = line.split()
    assert int(done) > 5
    assert last == "continued"


def test_a_handler_that_raises_stops_nothing(tmp_path: Path) -> None:
    """The exception of a soft time limit leaves the call that it strikes. The journal continues."""
    line, last = run(tmp_path / "j", "raise")
    _, _, raised, _ = line.split()
    assert int(raised) > 5
    assert last == "continued"


def depth() -> int:
    frame, count = sys._getframe(), 0
    while frame.f_back is not None:
        frame, count = frame.f_back, count + 1
    return count


@pytest.mark.usefixtures("few_to_collect")
def test_at_the_recursion_limit_only_the_caller_fails() -> None:
    """A caller near its recursion limit gets RecursionError. The journal and the state continue."""
    disk, failed = SimulatedDisk(), 0
    journal = Journal.open("/j", options=Options(flush_interval_s=0.001), disk=disk)
    state = DurableState.open("/s", Table(), options=Options(flush_interval_s=0.001), disk=disk)

    def deeper(depth: int, number: int) -> None:
        if depth:
            return deeper(depth - 1, number)
        put(journal, number)
        journal.wait_durable(journal.append(number))
        update(state, lambda _: ["key", number])
        return None

    depth_left = sys.getrecursionlimit() - depth()
    for number in range(80):
        try:
            deeper(depth_left - 80 + number, number)
        except RecursionError:
            failed += 1
        journal.wait_durable(journal.append("after"), timeout_s=TIMEOUT_S)
        try:
            state.wait_durable(state.update(lambda _: ["after", 1]), timeout_s=TIMEOUT_S)
        except FailedError:  # the error struck inside `apply`, or right after it
            state.close()
            state = DurableState.open("/s", Table(), disk=disk)
    live_content = state.machine.content()
    state.close()
    journal.close()
    assert 1 <= failed < 80
    with DurableState.open("/s", Table(), disk=disk) as state:
        assert state.machine.content() == live_content


def test_the_engine_waits_only_on_plain_locks() -> None:
    """An interrupt in an Event or a Condition may leave its lock taken forever.

    The engine and the manager therefore use neither. asyncio's take no lock.
    """
    for package in (journal, manager):
        (folder,) = package.__path__
        for path in set(Path(folder).glob("**/*.py")) - set(Path(folder).glob("docs/**/*.py")):
            names = {
                n.attr
                for n in ast.walk(ast.parse(path.read_text()))
                if isinstance(n, ast.Attribute) and ast.unparse(n.value) != "asyncio"
            }
            assert not names & {"Event", "Condition", "Semaphore", "Barrier"}, path


class Terminated(BaseException):
    """The exception of this test's SIGTERM handler."""


def test_two_signals_at_once_do_not_stop_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: SIGINT and SIGTERM come together during the sync of a lone waiter.

    Both are raised, one after the other. The record is still committed, and other waiters continue.
    """
    real, armed = PosixFile.sync, threading.Event()

    def sync(self: PosixFile) -> None:
        real(self)
        if armed.is_set() and threading.current_thread() is threading.main_thread():
            armed.clear()
            # Both wait for this thread, and their handlers run one after the other.
            signals = {signal.SIGINT, signal.SIGTERM}
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
            for number in signals:
                signal.pthread_kill(threading.get_ident(), number)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    def terminate(*_: object) -> None:
        raise Terminated

    monkeypatch.setattr(PosixFile, "sync", sync)
    gc.disable()  # an exception in a collection's callback would be lost
    before = signal.signal(signal.SIGTERM, terminate)
    journal = Journal.open(tmp_path / "j", options=options())
    try:
        journal.wait_durable(journal.append(1))
        armed.set()
        with pytest.raises((KeyboardInterrupt, Terminated)):
            journal.wait_durable(journal.append(2))
        in_other_thread(journal.wait_durable)
        in_other_thread(partial(put, journal, 3))
        assert logged(journal) == [1, 2, 3]
    finally:
        gc.enable()
        signal.signal(signal.SIGTERM, before)
        in_other_thread(journal.close)
