"""What becomes of an open journal when its process forks."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from journal import Journal, LockedError
from journal.testing import SimulatedDisk
from tests.support import (
    TIMEOUT_S,
    child,
    crash,
    line_of,
    logged,
    open_on,
    put,
    reopened,
    run,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks with threads")


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


EXIT_AMID_A_COMPACTION = """
journal = Journal.open(path, options=quiet)
reached, may_go = threading.Event(), threading.Event()
def items():
    yield 1
    reached.set()
    may_go.wait(60)
compacting = threading.Thread(target=lambda: journal.compact(lambda: (0, items())))
compacting.start()
reached.wait(60)
pid = os.fork()
if pid == 0:
    sys.exit(0)  # with all hooks
began = time.monotonic()
os.waitpid(pid, 0)
print(time.monotonic() - began < 8)
may_go.set()
compacting.join()
journal.close()
"""


def test_the_exit_of_a_child_waits_for_nothing_of_the_parents(tmp_path: Path) -> None:
    """A compaction under way as the process forks is over in the child; its exit does not wait."""
    process = run(FORK + EXIT_AMID_A_COMPACTION, tmp_path / "j")
    assert (process.stdout, process.returncode) == ("True\n", 0), process.stderr


def test_the_figures_of_a_dead_handle_are_refused(tmp_path: Path) -> None:
    """In the child `stats()` is a ClosedError too, no error of a closed descriptor."""
    script = "journal = Journal.open(path)\nprint(in_child(lambda: outcome(journal.stats)))"
    assert run(FORK + script, tmp_path / "j").stdout == "'ClosedError'\n"


def test_the_figures_of_a_dead_states_lock_are_refused(tmp_path: Path) -> None:
    """A lock that guards them may be held in the child forever."""
    script = "state = DurableState.open(path, Machine())\n"
    script += "print(in_child(lambda: outcome(state.lock_stats)))"
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


CHILD_POSTS = """
import logging, journal._log
handler = logging.StreamHandler(sys.stdout)
logging.getLogger("journal").addHandler(handler)
emit, parent = handler.emit, os.getpid()
handler.emit = lambda record: time.sleep(3600) if os.getpid() == parent else emit(record)
journal._log.post(logging.ERROR, "stuck in the parent")
print(in_child(lambda: journal._log.settle(1) and not journal._log.post(logging.ERROR, "posted")
    and journal._log.settle(1)), flush=True)
os._exit(0)
"""


def test_a_child_posts_its_own_messages(tmp_path: Path) -> None:
    """A child of a process whose log handler is stuck has a reporter of its own."""
    process = run(FORK + CHILD_POSTS, tmp_path / "j")
    assert process.stdout.splitlines() == ["posted", "True"], process.stderr


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
