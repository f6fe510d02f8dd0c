"""Locks that another library, such as a profiler, has replaced in the process."""

from __future__ import annotations

from pathlib import Path

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
