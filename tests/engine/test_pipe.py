"""The pipes through which crowds of threads pass: nobody passes early, and nobody is forgotten."""

from __future__ import annotations

import errno
import gc
import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from journal import ClosedError, Journal
from journal._commit.gate import Gate
from journal._commit.pipes import _READY, _USED_MAX, Pipes
from journal._disk.pipe import Pipe, new_pipe
from journal.testing import SimulatedDisk
from tests.support import TIMEOUT_S, Interrupted, open_on

CROWD = 8


@pytest.fixture
def pipe() -> Pipe:
    pipe = new_pipe()
    if pipe is None:
        pytest.skip("pipes are used on Linux only")
    return pipe


def handles() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def test_nobody_passes_before_the_gate_opens(pool: ThreadPoolExecutor, pipe: Pipe) -> None:
    """P2: All waiters pass when the gate opens, none before, and later ones at once."""
    gate = Gate(pipe=pipe)
    waiting = [pool.submit(gate.wait) for _ in range(4)]
    assert not gate.wait(0.02)
    assert not any(each.done() for each in waiting)
    gate.open()
    assert all(each.result(TIMEOUT_S) for each in waiting)
    assert gate.wait()
    assert gate.wait(1)


def test_a_gate_may_be_opened_again(pool: ThreadPoolExecutor, pipe: Pipe) -> None:
    """After an interrupt, another call finishes the opening."""
    gate = Gate(pipe=pipe)
    waiting = [pool.submit(gate.wait) for _ in range(4)]
    gate.open()
    gate.open()
    assert all(each.result(TIMEOUT_S) for each in waiting)
    assert gate.wait()


@pytest.fixture
def interrupts() -> Iterator[None]:
    def handle(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def wait_at(gate: Gate, passed: list[bool]) -> None:
    passed.append(gate.wait() and gate.opened)


@pytest.mark.usefixtures("interrupts", "pipe")
def test_an_interrupted_waiter_lets_the_others_pass() -> None:
    """P2: A signal handler's exception may strike a waiter at any moment, also as it passes. All
    others pass, and none passes early."""
    draw = random.Random(24)
    early = 0
    for _ in range(100):
        gate = Gate(pipe=new_pipe())
        passed: list[bool] = []
        threads = [threading.Thread(target=wait_at, args=(gate, passed)) for _ in range(CROWD)]
        opener = threading.Timer(draw.uniform(0, 0.002), gate.open)
        for thread in threads:
            thread.start()
        opener.start()
        with suppress(Interrupted):
            signal.setitimer(signal.ITIMER_REAL, draw.uniform(0.0001, 0.003))
            while True:
                gate.wait()
                early += not gate.opened
        opener.join(TIMEOUT_S)
        for thread in threads:
            thread.join(TIMEOUT_S)
        assert passed == [True] * CROWD
    assert not early


@pytest.mark.usefixtures("pipe")
def test_a_signal_handler_of_a_waiter_may_wait_for_the_others() -> None:
    """P2: A signal handler that runs while its thread passes does not hold the token. So it may
    wait for another thread that passes the same gate."""
    stuck: list[threading.Thread] = []

    def handle(*_: object) -> None:
        other.join(2)
        if other.is_alive():
            stuck.append(other)

    def open_and_interrupt() -> None:
        started.join(TIMEOUT_S)  # a handler can't wait for a thread that has not started
        gate.open()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        for _ in range(50):
            gate = Gate(pipe=new_pipe())
            other = threading.Thread(target=gate.wait)
            started = threading.Timer(0.002, other.start)  # behind the main thread
            started.start()
            opener = threading.Timer(0.01, open_and_interrupt)
            opener.start()
            gate.wait()
            opener.join(TIMEOUT_S)
            other.join(TIMEOUT_S)
            assert not stuck
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_pipe_is_used_again_when_its_gate_is_gone(pipe: Pipe) -> None:
    """A pipe goes to another gate when all waiters of the last one have left, and is shut then."""
    pipes = Pipes()
    pipes.used_by(gate := Gate(pipe=pipe), pipe)
    gate.open()
    assert gate.wait()
    pipes.prepare()
    assert pipe not in pipes._ready
    del gate
    pipes.prepare()
    assert pipe in pipes._ready
    assert not Gate(pipe=pipe).wait(0.01)
    assert len(pipes._ready) <= _READY


def test_a_pipe_without_a_token_is_not_used_again(pipe: Pipe) -> None:
    """The flusher never waits for the token of a gate that did not open."""
    pipes = Pipes()
    pipes.used_by(Gate(pipe=pipe), pipe)
    pipes.prepare()
    assert pipe not in pipes._ready


def test_few_pipes_are_used_at_a_time(pipe: Pipe) -> None:
    """However many gates stay closed, they hold few file handles."""
    pipes, gates = Pipes(), [Gate() for _ in range(100)]
    before = len(handles())
    for gate in gates:
        pipes.prepare()
        if pipe_of_gate := pipes.take():
            pipes.used_by(gate, pipe_of_gate)
    assert len(handles()) - before <= 2 * (_USED_MAX + _READY)
    pipes.clear()
    gc.collect()
    assert len(handles()) <= before


def put_by_crowd(journal: Journal, pool: ThreadPoolExecutor) -> set[int]:
    """Append a hundred records in each of `CROWD` threads. Return their LSNs."""

    def put(thread: int) -> list[int]:
        return [journal.append_and_wait([thread, number]) for number in range(100)]

    results = [pool.submit(put, thread) for thread in range(CROWD)]
    return {lsn for result in results for lsn in result.result(TIMEOUT_S)}


@pytest.mark.usefixtures("pipe")
def test_a_crowd_of_a_journal_passes_through_pipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2, P7: A crowd passes through a few pipes, which the end of the journal closes."""
    gates: list[Pipe | None] = []

    class RecordedGate(Gate):
        def __init__(self, *, wakes_all_at_once: bool = False, pipe: Pipe | None = None) -> None:
            gates.append(pipe)
            super().__init__(wakes_all_at_once=wakes_all_at_once, pipe=pipe)

    monkeypatch.setattr("journal._commit.commit_turn.Gate", RecordedGate)
    before = handles()
    with Journal.open(tmp_path / "j") as journal, ThreadPoolExecutor(CROWD) as pool:
        assert put_by_crowd(journal, pool) == set(range(1, CROWD * 100 + 1))
        assert journal.durable_lsn == journal.last_lsn
    pipes = [pipe for pipe in gates if pipe]
    assert pipes
    assert len({id(pipe) for pipe in pipes}) <= _USED_MAX + _READY + CROWD
    del pipes
    gates.clear()
    gc.collect()
    assert handles() == before


def test_a_crowd_passes_without_a_file_handle_left(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: If no pipe can be made, the waiters pass through locks."""

    def full() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(os, "pipe", full)
    with open_on(disk, segment_bytes=1 << 16) as journal, ThreadPoolExecutor(CROWD) as pool:
        assert len(put_by_crowd(journal, pool)) == CROWD * 100


@pytest.mark.usefixtures("pipe")
def test_a_forked_child_has_no_handle_of_a_pipe(tmp_path: Path) -> None:
    """The child closes its copies at once: later, their numbers may be those of its own files."""
    before = handles()
    with Journal.open(tmp_path / "j") as journal, ThreadPoolExecutor(CROWD) as pool:
        put_by_crowd(journal, pool)
        assert journal._turn._pipes._ready or journal._turn._pipes._used
        child = os.fork()
        if not child:
            os._exit(len(handles() - before))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(put_by_crowd(journal, pool)) == CROWD * 100


def test_a_thread_of_a_forked_child_is_not_taken_for_the_flusher(tmp_path: Path) -> None:
    """The system may give the id of a thread of the parent to one of the child."""
    with Journal.open(tmp_path / "j") as journal:
        journal.append_and_wait(1)
        child = os.fork()
        if not child:
            if journal._turn.own_ids:
                journal._turn.own_ids.add(threading.get_ident())
            code = 1
            with suppress(BaseException):
                try:
                    journal.append_and_wait(2)
                except ClosedError:
                    code = 0
            os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("end", ["_read_end", "_write_end"])
def test_a_pipe_that_the_program_has_closed_lets_nobody_pass_early(
    pool: ThreadPoolExecutor, pipe: Pipe, end: str
) -> None:
    """P2: After an os.closerange, the waiters wait with locks, and the flusher goes on."""
    gate = Gate(pipe=pipe)
    number = getattr(pipe, end)
    other = os.open(os.devnull, os.O_RDWR)
    os.dup2(other, number)  # the program has opened a file with the same number
    waiting = [pool.submit(gate.wait) for _ in range(4)]
    with pytest.raises(TimeoutError):
        waiting[0].result(0.05)
    gate.open()
    assert all(each.result(TIMEOUT_S) for each in waiting)
    os.close(other)


@pytest.mark.parametrize("end", ["_read_end", "_write_end"])
def test_a_pipe_of_which_the_program_has_closed_an_end_closes_the_other(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """Nothing is printed ("Exception ignored"), and no handle stays open."""
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    pipe = new_pipe()
    if pipe is None:
        pytest.skip("pipes are used on Linux only")
    ends = {"_read_end": pipe._read_end, "_write_end": pipe._write_end}
    os.close(ends.pop(end))
    del pipe
    [other] = ends.values()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(other)
    assert capsys.readouterr().err == ""


def test_a_closed_pipe_is_not_used_again(pool: ThreadPoolExecutor, pipe: Pipe) -> None:
    """A pipe without file handles raises nothing in the flusher, and its waiters pass."""
    gate = Gate(pipe=pipe)
    pipe.abandon()
    waiting = [pool.submit(gate.wait) for _ in range(4)]
    with pytest.raises(TimeoutError):
        waiting[0].result(0.05)
    gate.open()
    assert all(each.result(TIMEOUT_S) for each in waiting)
    assert not pipe.shut()
