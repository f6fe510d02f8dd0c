"""Open journals when their process forks."""

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
warnings.simplefilter("ignore", DeprecationWarning)  # this test forks with threads
from journal import *

class Machine:
    application = "machine/1"
    def __init__(self): self.table = CowTable()
    def load(self, item): self.table[item] = item
    def apply(self, lsn, record): self.table[record] = record
    def freeze(self): return self.table.freeze()

def in_child(call, seconds=3):
    "Return what `call` returns or raises in a forked child, or that it hung."
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)
        try:
                    os.write(write, repr(call()).encode())
        except BaseException as error:
            os.write(write, repr(error).encode())
        os._exit(0)
    os.close(write)
    answer = b""
    while data := os.read(read, 65536):
        answer += data
    os.close(read)
    _, status = os.waitpid(pid, 0)
    return "hung" if os.WIFSIGNALED(status) else answer.decode()

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
results = in_child(lambda: {name: outcome(call) for name, call in calls.items()})
print(results)
journal.wait_durable(journal.append(3))
print([e.record for e in journal.replay()])
"""


def test_a_forked_child_cannot_use_the_journal(tmp_path: Path) -> None:
    """Every call raises ClosedError in the child, and the parent's journal continues."""
    process = run(FORK + CHILD_CALLS, tmp_path / "j")
    results, records = process.stdout.splitlines()
    names = "append append_batch wait_durable durable wait_room room replay compact"
    names += " start_compaction backup"
    assert results == repr(dict.fromkeys(names.split(), "ClosedError")), process.stderr
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


def test_the_end_of_a_child_does_not_affect_the_parent(tmp_path: Path) -> None:
    """P1: A child that closes, forgets the journal or exits writes no records of the parent.

    It does not release the parent's lock either.
    """
    process = run(FORK + CHILD_CLOSE, tmp_path / "j")
    child_result, parent_result, records = process.stdout.splitlines()
    assert child_result.startswith("[None, None, "), process.stderr
    assert (parent_result, records) == ("False LockedError", "[1, 2]")
    assert "ResourceWarning" not in process.stderr


CHILD_CHANGES = """
from journal import Tables
with Tables.open(path, options=quiet) as app:
    app.table("t")["a"] = app.table("t")["b"] = 1
    app.sync()
    changes = app.changes(0)
    next(changes)
    print(in_child(lambda: [outcome(lambda: next(changes)), outcome(lambda: app.changes(0))]))
    print(in_child(lambda: [changes.close(), list(changes)]))
print([change.key for change in changes])
"""


def test_a_child_reads_no_changes_of_the_parent(tmp_path: Path) -> None:
    """A child's reads raise ClosedError. Its close does not affect the parent's changes."""
    process = run(FORK + CHILD_CHANGES, tmp_path / "j")
    assert process.stdout.splitlines() == [
        "['ClosedError', 'ClosedError']",
        "[None, []]",
        "['b']",
    ], process.stderr


EXIT_DURING_A_COMPACTION = """
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


def test_the_exit_of_a_child_does_not_wait_for_the_parents_compaction(tmp_path: Path) -> None:
    """A compaction does not continue in a forked child, so the child's exit does not wait for
    it."""
    process = run(FORK + EXIT_DURING_A_COMPACTION, tmp_path / "j")
    assert (process.stdout, process.returncode) == ("True\n", 0), process.stderr


def test_stats_in_a_child_are_refused(tmp_path: Path) -> None:
    """`stats()` raises ClosedError in the child, not an error of a closed descriptor."""
    script = "journal = Journal.open(path)\nprint(in_child(lambda: outcome(journal.stats)))"
    assert run(FORK + script, tmp_path / "j").stdout == "'ClosedError'\n"


def test_lock_stats_in_a_child_are_refused(tmp_path: Path) -> None:
    """`lock_stats` raises ClosedError, because its lock may be held forever in the child."""
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
counts = {{}}
for n in range(25):
    result = in_child(lambda: outcome(lambda: {call}))
    counts[result] = counts.get(result, 0) + 1
    if result == "hung":
        break
stop.set()
for thread in threads: thread.join()
print(counts)
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


# The other calls take the same locks as these.
QUICK = {"append", "update", "compact"}


@pytest.mark.parametrize(
    ("call", "work"),
    [
        pytest.param(*race, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, race in RACES.items()
    ],
)
def test_a_fork_while_others_append_never_hangs(tmp_path: Path, call: str, work: str) -> None:
    """The child is refused before it takes a lock that a thread may have held at the fork."""
    process = run(FORK + CHILD_RACE.format(call=call, work=work), tmp_path / "j")
    counts, *are_complete = process.stdout.splitlines() or [process.stderr]
    outcome = None if "close" in call else "ClosedError"
    assert counts == repr({repr(outcome): 25})
    assert are_complete == ["True", "True"], process.stderr


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
    """P5: After the parent's death, the journal can be opened although the child lives."""
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
            except LockedError:  # the kernel is still ending the parent
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


def test_a_child_can_open_its_own_journals(tmp_path: Path) -> None:
    """P10: A child can open another journal at once, and the parent's after the parent closed
    it."""
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


def test_a_child_logs_its_own_messages(tmp_path: Path) -> None:
    """A child has its own logging thread, even if a log handler is stuck in the parent."""
    process = run(FORK + CHILD_POSTS, tmp_path / "j")
    assert process.stdout.splitlines() == ["posted", "True"], process.stderr


def test_a_handle_of_a_killed_simulated_process_is_only_freed(disk: SimulatedDisk) -> None:
    """After the process's death, freeing a handle makes no call to the disk."""
    journal = open_on(disk)
    put(journal, 1)
    journal.append(2)
    disk.kill()
    operations = list(disk.operations)
    crash(journal, disk)
    assert disk.operations == operations
    assert reopened(disk) == [1]
