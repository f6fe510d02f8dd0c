"""Locks and threads that another library has replaced in the process: profilers, gevent."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import Tables
from tests.support import run

# What the lock profiler of ddtrace does, in Python instead of Cython.
PROFILED = """
import sys, threading

class ProfiledLock:
    def __init__(self, allocate=threading.Lock): self.wrapped = allocate()
    def acquire(self, *arguments, **named): return self.wrapped.acquire(*arguments, **named)
    def release(self): return self.wrapped.release()
    def __getattr__(self, name): return getattr(self.wrapped, name)
    def __enter__(self): return self.acquire()
    def __exit__(self, *error): self.release()

threading.Lock = ProfiledLock
"""
USE = """
from concurrent.futures import ThreadPoolExecutor
from journal import Tables

def count(_):
    for _ in range(20):
        counts.update("all", lambda count: count + 1, default=0)
        app.sync()

with Tables.open(sys.argv[1]) as app, ThreadPoolExecutor(8) as pool:
    counts = app.table("counts")
    list(pool.map(count, range(8)))
    app.compact()
left_open = Tables.open(sys.argv[1])
left_open.table("counts")["exit"] = 1
"""


def test_a_profiler_of_locks_changes_nothing(tmp_path: Path) -> None:
    """Commits, waits, closes and the exit work if `threading.Lock` is a class whose methods add
    frames to the traceback of an error."""
    process = run(PROFILED + USE, tmp_path / "j")
    assert (process.returncode, process.stderr) == (0, "")
    assert dict(Tables.read(tmp_path / "j").table("counts").items()) == {"all": 160, "exit": 1}


# What `monkey.patch_all()` of gevent and `eventlet.monkey_patch()` do, as far as it matters.
GREEN = """
import _thread, sys

def start_new_thread(*arguments): raise AssertionError("a thread is started")

start_new_thread.__module__ = sys.argv[2]
if sys.argv[3] == "late":
    import journal, manager
_thread.start_new_thread = start_new_thread
from journal import Journal, JournalError, follow
from manager import SubAgentManager

path = sys.argv[1] + "/j"
opens = [
    lambda: Journal.open(path),
    lambda: SubAgentManager.open(sys.argv[1]),
    lambda: follow(f"file://{sys.argv[1]}", path),
]
for call in opens:
    try:
        call()
    except JournalError as error:
        print(error)
"""


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize(
    ("module", "fix"),
    [
        ("gevent.thread", "monkey.patch_all(thread=False)"),
        ("eventlet.green.thread", "eventlet.monkey_patch(thread=False)"),
    ],
)
def test_greenlets_in_place_of_threads_are_refused(
    tmp_path: Path, module: str, fix: str, when: str
) -> None:
    """Each open raises JournalError and makes no journal if a library has replaced threads by
    greenlets, before or after the import. The error names the library and its fix."""
    process = run(GREEN, tmp_path, module, when)
    library = module.partition(".")[0]
    assert (process.returncode, process.stderr) == (0, "")
    lines = process.stdout.splitlines()
    assert len(lines) == 3
    assert all(f"{library} has replaced threads" in line and fix in line for line in lines)
    assert not (tmp_path / "j").exists()


def test_a_debugger_may_wrap_the_start_of_threads(tmp_path: Path) -> None:
    """A library that only wraps the function is not refused."""
    wrapped = """
import _thread, sys
start = _thread.start_new_thread
_thread.start_new_thread = lambda *arguments: start(*arguments)
"""
    process = run(wrapped + USE, tmp_path / "j")
    assert (process.returncode, process.stderr) == (0, "")
