"""How a journal ends: closed, dropped, at the interpreter's exit, and in a forked child."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journal import ClosedError, DurableState, FailedError, Journal, LockedError
from journal.testing import SimulatedDisk
from tests.support import (
    PATH,
    TIMEOUT_S,
    Held,
    Table,
    child,
    crash,
    frozen,
    line_of,
    logged,
    names,
    on_disk,
    open_on,
    options,
    put,
    put_lines,
    reopened,
    run,
    until,
)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


def journal_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith("journal-")}


# --- close ---


def test_close_commits_all_and_frees_everything(disk: SimulatedDisk) -> None:
    """All that was appended is durable, both threads have ended, the lock is free."""
    before = journal_threads()
    journal = open_on(disk)
    journal.start_compaction(frozen(journal))
    for n in range(100):
        journal.append(n)
    assert len(journal_threads() - before) == 2
    journal.close()
    assert journal_threads() == before
    assert (journal.closed, journal.durable_lsn) == (True, 100)
    assert on_disk(disk) == [*range(100)] == reopened(disk)


def test_closing_again_does_nothing(disk: SimulatedDisk) -> None:
    """A second close returns, and does not touch a journal that was opened meanwhile."""
    journal = open_on(disk)
    put(journal, 1)
    journal.close()
    with open_on(disk) as other:
        operations = list(disk.operations)
        journal.close()
        journal.close(timeout_s=0)
        with journal:
            pass
        assert disk.operations == operations
        put(other, 2)
    assert reopened(disk) == [1, 2]


CALLS: dict[str, Callable[[Journal], object]] = {
    "append": lambda journal: journal.append(1),
    "append urgent": lambda journal: journal.append(1, urgent=True),
    "append_batch": lambda journal: journal.append_batch([1, 2]),
    "wait_room": lambda journal: journal.wait_room(),
    "replay": lambda journal: journal.replay(),
    "compact": lambda journal: journal.compact(lambda: (0, [])),
    "start_compaction": lambda journal: journal.start_compaction(lambda: (0, [])),
    "backup": lambda journal: journal.backup("/copy"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_closed_journal_refuses(disk: SimulatedDisk, call: Callable[[Journal], object]) -> None:
    """Every use after close is a ClosedError that says what to do, and changes nothing."""
    with open_on(disk) as journal:
        put(journal, 1)
    operations = list(disk.operations)
    with pytest.raises(ClosedError, match="closed; open it again"):
        call(journal)
    assert (disk.operations, journal.last_lsn, journal.durable_lsn) == (operations, 1, 1)


def test_a_closed_journal_still_answers(disk: SimulatedDisk) -> None:
    """What needs no disk can be asked for after close: who it was, and its figures."""
    with open_on(disk) as journal:
        put(journal, 1, 2)
    assert (journal.last_lsn, journal.durable_lsn, journal.epoch) == (2, 2, 1)
    assert (journal.path, journal.closed) == (PATH, True)
    stats = journal.stats()
    assert (stats.records, stats.last_lsn, stats.buffered_bytes) == (2, 2, 0)


def test_a_replay_that_a_close_overtakes_is_told(disk: SimulatedDisk) -> None:
    """Entries of a segment that is not read yet are refused with ClosedError."""
    journal = open_on(disk)
    put_lines(journal, 20, size=700)
    entries = journal.replay()
    next(entries)
    journal.close()
    with pytest.raises(ClosedError):
        list(entries)


def test_close_on_a_slow_disk_may_have_a_limit(disk: SimulatedDisk) -> None:
    """Time over: TimeoutError, the lock still held, nothing more taken; called again it closes."""
    journal = open_on(disk)
    put(journal, 0)
    with Held(disk, "sync", ".seg") as held:
        journal.append(1)
        for timeout_s in (0, 0.01):
            with pytest.raises(TimeoutError, match=rf"within {timeout_s} s, \d+ bytes are still"):
                journal.close(timeout_s=timeout_s)
            assert not journal.closed
            with pytest.raises(LockedError):
                open_on(disk)
            with pytest.raises(ClosedError):
                journal.append(2)
        held.let_all()
        journal.close(timeout_s=TIMEOUT_S)
    assert journal.closed
    assert reopened(disk) == [0, 1]


def test_close_on_a_full_disk_may_have_a_limit(disk: SimulatedDisk) -> None:
    """P2: nothing that was appended is given up for want of space: close waits, or times out and
    can be called again when there is room."""
    journal = open_on(disk)
    put(journal, 0)
    disk.fail("write", errno.ENOSPC, times=None)
    journal.append(1)
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"call close\(\) again"):
            journal.close(timeout_s=0.05)
        with pytest.raises(LockedError):
            open_on(disk)
    disk.before = None
    journal.close(timeout_s=TIMEOUT_S)
    assert reopened(disk) == [0, 1]


def fail_stop(disk: SimulatedDisk, journal: Journal) -> None:
    disk.fail("sync", errno.EIO)
    journal.append("lost")
    with pytest.raises(FailedError):
        journal.wait_durable()
    disk.before = None


def test_close_after_a_failure_frees_everything_and_writes_nothing(disk: SimulatedDisk) -> None:
    """P2: FailedError if something that was appended isn't durable, once; the lock is free."""
    journal = open_on(disk)
    journal.start_compaction(frozen(journal))
    put(journal, 0)
    fail_stop(disk, journal)
    before = disk.contents(PATH)
    with pytest.raises(FailedError, match="EIO"):
        journal.close()
    journal.close()
    assert journal.closed
    # Nobody writes any more, and so nobody is named.
    assert disk.contents(PATH) == {**before, "LOCK": b""}
    assert reopened(disk)[:1] == [0]


def test_close_after_a_failure_that_cost_nothing_is_silent(disk: SimulatedDisk) -> None:
    """P2: if all that was appended is durable, the failure of a mark is no reason to raise."""
    journal = open_on(disk)
    put(journal, 0)
    disk.fail("write", errno.EIO, times=None)
    journal.close()
    disk.before = None
    assert reopened(disk) == [0]


@pytest.mark.parametrize("failed", [True, False])
def test_a_with_never_hides_what_left_it(
    disk: SimulatedDisk, failed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The exception that leaves the `with` comes through; that the close failed too is logged."""
    journal = open_on(disk)
    put(journal, 0)
    if failed:
        fail_stop(disk, journal)
    with pytest.raises(KeyError, match="mine"), journal:
        raise KeyError("mine")
    assert journal.closed
    not_closed_well = [r for r in caplog.records if "not closed well" in r.getMessage()]
    assert len(not_closed_well) == failed
    assert reopened(disk)[:1] == [0]


def test_a_with_tells_of_a_failure(disk: SimulatedDisk) -> None:
    """P2: leaving the `with` in peace is a promise that all is durable."""
    journal = open_on(disk)
    put(journal, 0)
    fail_stop(disk, journal)
    with pytest.raises(FailedError):
        journal.__exit__(None, None, None)


def test_closing_in_several_threads_at_once(disk: SimulatedDisk) -> None:
    """Whoever closes, when all calls have returned it is closed, once."""
    journal = open_on(disk)
    journal.start_compaction(frozen(journal))
    for n in range(10):
        journal.append(n)
    threads = [threading.Thread(target=journal.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert journal.closed
    assert reopened(disk) == [*range(10)]


def test_close_waits_for_a_compaction_of_another_thread(disk: SimulatedDisk) -> None:
    """P5: a compaction under way in any thread is given up before the lock is free; no `*.tmp`."""
    journal = open_on(disk)
    put(journal, 1)
    reached = threading.Event()
    errors: list[BaseException] = []

    def items() -> Any:
        while True:
            yield 1
            reached.set()

    def compact() -> None:
        try:
            journal.compact(lambda: (1, items()))
        except ClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=compact)
    thread.start()
    assert reached.wait(TIMEOUT_S)
    journal.close(timeout_s=TIMEOUT_S)
    left = names(disk, ".tmp")
    thread.join(TIMEOUT_S)
    assert len(errors) == 1
    assert left == names(disk, ".tmp") == []
    assert reopened(disk) == [1]


# --- dropped without a close ---


def drop(make: Callable[[], object]) -> None:
    """Lets go of what `make` returns, without a reference to it left anywhere."""
    kept = [make()]

    def let_go() -> None:
        kept.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match=r"journal \S+ was never closed"):
        let_go()


@pytest.mark.parametrize("kind", ["journal", "compacted", "state"])
def test_a_dropped_journal_warns_commits_and_lets_go(disk: SimulatedDisk, kind: str) -> None:
    """A journal that is never closed is a ResourceWarning; what it was given is committed, both its
    threads end, and the lock is free, without anybody waiting."""
    before = journal_threads()

    def make() -> object:
        if kind == "state":
            state = DurableState.open(PATH, Table(), options=options(), disk=disk)
            state.update(lambda _: ["a", 1])
            return state
        journal = open_on(disk)
        if kind == "compacted":
            journal.start_compaction(lambda: (0, []))
        journal.append(["a", 1])
        return journal

    drop(make)
    until(lambda: disk.open_directory(PATH, write=False).lock_holder() is None, "the unlock")
    until(lambda: journal_threads() == before, "the threads' end")
    assert on_disk(disk) == [["a", 1]]
    assert reopened(disk) == [["a", 1]]


def test_a_dropped_failure_lets_go(tmp_path: Path) -> None:
    """P5: a state whose journal failed, and that nobody closed, is in nobody's way."""
    before = journal_threads()

    def make() -> DurableState[Table]:
        state = DurableState.open(tmp_path / "j", Table(), options=options())
        state.wait_durable(state.update(lambda _: ["a", 1]))
        (segment,) = (tmp_path / "j").glob("*.seg")
        segment.unlink()
        state.update(lambda _: ["a", 2])
        with pytest.raises(FailedError):
            state.wait_durable()
        until(lambda: journal_threads() == before, "the threads' end")
        return state

    drop(make)
    gc.collect()
    Journal.open(tmp_path / "j").close()


def test_a_closed_journal_is_dropped_in_silence(disk: SimulatedDisk) -> None:
    """Only those never closed warn: not a closed one, nor one that failed and was closed."""
    journal: Journal | None = open_on(disk)
    assert journal is not None
    journal.close()
    failed: Journal | None = open_on(disk)
    assert failed is not None
    fail_stop(disk, failed)
    with pytest.raises(FailedError):
        failed.close()
    journal = failed = None
    gc.collect()  # a warning would fail this test


# --- the interpreter's exit ---

EXIT = """
import atexit, sys, threading
from journal import Journal, Options

journal = Journal.open(sys.argv[1], options=Options(flush_interval_s=3600))

def main():
    for n in range(10):
        journal.append(n)

{}
"""
EXITS = {
    "the end": "main()",
    "sys.exit": "main(); sys.exit(3)",
    "an exception": "main(); raise RuntimeError",
    "a thread": "threading.Thread(target=main).start()",
    "a daemon": "t = threading.Thread(target=main, daemon=True); t.start(); t.join()",
    "a later hook": "atexit.register(main)",
    "compaction": "journal.start_compaction(lambda: (0, [])); main()",
    "forgotten": "main(); del journal",
    "with": "with journal: main(); sys.exit(3)",
    "a close in time": "main(); journal.close()",
    "interrupted": "main(); import signal; signal.raise_signal(signal.SIGINT)",
}


@pytest.mark.parametrize("how", EXITS.values(), ids=EXITS.keys())
def test_what_is_buffered_is_committed_at_exit(tmp_path: Path, how: str) -> None:
    """However the interpreter ends in good order, what was appended is committed, and marked."""
    process = run(EXIT.format(how), tmp_path / "j")
    assert "atexit" not in process.stderr
    assert "lost" not in process.stderr
    with Journal.open(tmp_path / "j") as journal:
        assert logged(journal) == [*range(10)]
        assert journal.epoch == 2


def test_an_exit_with_threads_that_append_on(tmp_path: Path) -> None:
    """P1: a daemon thread that appends until the very end gets ClosedError, and no record twice."""
    script = EXIT.format(
        "def on():\n"
        "    n = 0\n"
        "    while True:\n"
        "        journal.append(n)\n"
        "        n += 1\n"
        "        started.set()\n"
        "started = threading.Event()\n"
        "threading.excepthook = lambda args: print(args.exc_type.__name__)\n"
        "threading.Thread(target=on, daemon=True).start()\n"
        "started.wait()"
    )
    process = run(script, tmp_path / "j")
    assert process.returncode == 0, process.stderr
    assert process.stdout in ("", "ClosedError\n")
    with Journal.open(tmp_path / "j") as journal:
        log = logged(journal)
    assert log == [*range(len(log))]
    assert log


@pytest.mark.slow
def test_an_exit_on_a_full_disk_ends(tmp_path: Path) -> None:
    """A disk that stays full does not hang the exit: after some seconds it says what is lost."""
    script = (
        "import errno, logging\n"
        "from journal import Journal\n"
        "from journal.testing import SimulatedDisk\n"
        "logging.basicConfig()\n"
        "disk = SimulatedDisk()\n"
        "journal = Journal.open('/j', disk=disk)\n"
        "disk.fail('write', errno.ENOSPC, times=None)\n"
        "journal.append('x' * 98)\n"
    )
    process = run(script)
    assert process.returncode == 0
    assert "/j: 100 bytes could not be written before exit, and are lost" in process.stderr


# --- fork ---

pytestmark_fork = pytest.mark.skipif(sys.platform != "linux", reason="forks with threads")

FORK = """
import asyncio, gc, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads: that is the test
from journal import *

class Machine:
    application = "machine/1"
    def __init__(self): self.table = CowTable()
    def load(self, item): self.table[item] = item
    def apply(self, lsn, record): self.table[record] = record
    def freeze(self): return self.table.freeze()

def in_child(what, seconds=3):
    "Runs `what` in a forked child; what it prints, and whether it hung."
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        try:
            os.write(write, repr(what()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        os._exit(0)
    os.close(write)
    found = b""
    while data := os.read(read, 65536):
        found += data
    os.close(read)
    _, status = os.waitpid(pid, 0)
    return "hung" if os.WIFSIGNALED(status) else found.decode()

def outcome(call):
    try:
        return call()
    except Exception as error:
        return type(error).__name__

path = sys.argv[1]
quiet = Options(flush_interval_s=3600)
"""

CHILD_CALLS = """
journal = Journal.open(path, options=quiet)
journal.wait_durable(journal.append(1))
journal.append(2)
calls = dict(
    append=lambda: journal.append(3),
    append_batch=lambda: journal.append_batch([3]),
    wait_durable=lambda: journal.wait_durable(2),
    durable=lambda: asyncio.run(journal.durable(2)),
    wait_room=lambda: journal.wait_room(),
    room=lambda: asyncio.run(journal.room()),
    replay=lambda: list(journal.replay()),
    compact=lambda: journal.compact(lambda: (1, [])),
    start_compaction=lambda: journal.start_compaction(lambda: (1, [])),
    backup=lambda: journal.backup(path + "-copy"),
)
found = in_child(lambda: {name: outcome(call) for name, call in calls.items()})
print(found)
journal.wait_durable(journal.append(3))
print([e.record for e in journal.replay()])
"""


def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    """The child's handle is dead, ClosedError in every call; the parent's goes on."""
    process = run(FORK + CHILD_CALLS, tmp_path / "j")
    found, records = process.stdout.splitlines()
    names = "append append_batch wait_durable durable wait_room room replay compact"
    names += " start_compaction backup"
    assert found == repr(dict.fromkeys(names.split(), "ClosedError")), process.stderr
    assert records == "[1, 2, 3]"
    assert not (tmp_path / "j-copy").exists()


CHILD_CLOSE = """
journal = Journal.open(path, options=quiet)
journal.append(1)
def end():
    result = [outcome(journal.close), outcome(journal.close), outcome(journal.stats)]
    with journal:
        pass
    globals().pop("journal")
    gc.collect()
    return result
print(in_child(end))
pid = os.fork()
if pid == 0:
    sys.exit(0)  # with all hooks
os.waitpid(pid, 0)
print(journal.closed, outcome(lambda: Journal.open(path)))
journal.append(2)
journal.close()
print([e.record for e in JournalReader.open(path).entries()])
"""


def test_the_end_of_a_child_leaves_the_parent_alone(tmp_path: Path) -> None:
    """P1: a child that closes, drops, or exits with all its hooks neither writes the parent's
    records nor frees its lock."""
    process = run(FORK + CHILD_CLOSE, tmp_path / "j")
    child_found, parent, records = process.stdout.splitlines()
    assert child_found.startswith("[None, None, "), process.stderr
    assert (parent, records) == ("False LockedError", "[1, 2]")
    assert "ResourceWarning" not in process.stderr


def test_the_figures_of_a_dead_handle_are_refused(tmp_path: Path) -> None:
    """In the child `stats()` is a ClosedError too, no error of a closed descriptor."""
    script = "journal = Journal.open(path)\nprint(in_child(lambda: outcome(journal.stats)))"
    assert run(FORK + script, tmp_path / "j").stdout == "'ClosedError'\n"


CHILD_RACE = """
state = DurableState.open(path, Machine(), options=quiet)
journal = Journal.open(path + "-2", options=quiet)
stop = threading.Event()
def work(n):
    while not stop.is_set():
        try:
            {work}
        except BufferFullError:
            state.wait_room()
            journal.wait_room()
threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
for thread in threads: thread.start()
found = {{}}
for n in range(25):
    result = in_child(lambda: outcome(lambda: {call}))
    found[result] = found.get(result, 0) + 1
    if result == "hung":
        break
stop.set()
for thread in threads: thread.join()
print(found)
for each in (state.journal, journal):
    last = each.last_lsn
    each.close()
    print(len(list(JournalReader.open(each.path).entries())) == last)
"""
APPEND = "for _ in range(100): journal.append(n)"
UPDATE = "state.update(lambda m: n)"
RACES = {
    "append": ("journal.append(1)", APPEND),
    "append_batch": ("journal.append_batch([1])", APPEND),
    "wait_durable": ("journal.wait_durable()", APPEND),
    "wait_durable with a limit": ("journal.wait_durable(timeout_s=1)", APPEND),
    "durable": ("asyncio.run(journal.durable())", APPEND),
    "wait_room": ("journal.wait_room()", APPEND),
    "update": ("state.update(lambda m: 1)", UPDATE),
    "update_batch": ("state.update_batch(lambda m: [1])", UPDATE),
    "read": ("state.read(lambda m: 1)", "state.read(lambda m: [x for x in m.table])"),
    "compact": ("state.compact()", "state.compact()"),
    "close": ("journal.close()", APPEND),
    "close state": ("state.close()", UPDATE),
}


@pytest.mark.parametrize(("call", "work"), RACES.values(), ids=RACES.keys())
def test_a_fork_while_others_append_never_hangs(tmp_path: Path, call: str, work: str) -> None:
    """The child is refused before any lock is taken: another thread of the parent may have held
    each of them when it forked."""
    process = run(FORK + CHILD_RACE.format(call=call, work=work), tmp_path / "j")
    found, *whole = process.stdout.splitlines() or [process.stderr]
    outcome = None if "close" in call else "ClosedError"
    assert found == repr({repr(outcome): 25})
    assert whole == ["True", "True"], process.stderr


ORPHAN = """
journal = Journal.open(path, options=quiet)
journal.wait_durable(journal.append(1))
if os.fork() == 0:
    os.close(1)
    sys.stdin.read()
    os._exit(0)
print("forked", flush=True)
signal.pause()
"""


def test_a_child_does_not_hold_the_lock_of_a_dead_parent(tmp_path: Path) -> None:
    """P5: once the parent is gone the journal can be opened, though a fork of it lives."""
    with child(FORK + ORPHAN, tmp_path / "j") as parent:
        assert line_of(parent) == "forked"
        with pytest.raises(LockedError):
            Journal.open(tmp_path / "j")
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(TIMEOUT_S)
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                journal = Journal.open(tmp_path / "j")
            except LockedError:  # the kernel is still taking the parent apart
                assert time.monotonic() < deadline
            else:
                break
        with journal:
            assert logged(journal) == [1]


CHILD_OWN = """
journal = Journal.open(path, options=quiet)
journal.wait_durable(journal.append(1))
def own():
    with Journal.open(path + "-2") as mine:
        mine.wait_durable(mine.append("child"))
        first = [e.record for e in mine.replay()]
    return first, outcome(lambda: Journal.open(path))
print(in_child(own))
journal.close()
def inherit():
    with Journal.open(path) as mine:
        mine.wait_durable(mine.append(2))
        return [e.record for e in mine.replay()]
print(in_child(inherit))
"""


def test_a_child_may_open_journals_of_its_own(tmp_path: Path) -> None:
    """P10: another journal at once, the parent's once that has closed it, never beside it."""
    process = run(FORK + CHILD_OWN, tmp_path / "j")
    assert process.stdout.splitlines() == ["(['child'], 'LockedError')", "[1, 2]"], process.stderr


def test_the_logger_is_quiet_by_default(tmp_path: Path) -> None:
    """A library says nothing on stderr unless its user sets up logging."""
    assert any(
        isinstance(handler, logging.NullHandler)
        for handler in logging.getLogger("journal").handlers
    )
    script = (
        "import errno\n"
        "from journal import *\n"
        "from journal.testing import SimulatedDisk\n"
        "disk = SimulatedDisk()\n"
        "journal = Journal.open('/j', disk=disk)\n"
        "disk.fail('sync', errno.EIO)\n"
        "journal.append(1)\n"
        "try: journal.wait_durable()\n"
        "except FailedError: pass\n"
        "try: journal.close()\n"
        "except FailedError: pass\n"
    )
    process = run(script)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")


def test_a_killed_simulated_process_can_be_tidied_away(disk: SimulatedDisk) -> None:
    """After the process's death a handle that is left is only freed: it reaches no disk."""
    journal = open_on(disk)
    put(journal, 1)
    journal.append(2)
    disk.kill()
    operations = list(disk.operations)
    crash(journal, disk)
    assert disk.operations == operations
    assert reopened(disk) == [1]
