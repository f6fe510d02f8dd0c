"""The process: who writes, and what happens to open journals when it forks or exits."""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import sys
import weakref
from contextlib import suppress
from importlib import import_module
from typing import Protocol

from journal._disk.disk import LOCK, Directory, StrPath, is_disk_error, write_all
from journal._log import forget_posted, report, settle
from journal.errors import JournalError, UnsafePathError

_SETTLE_S = 1.0


class Owned(Protocol):
    """What belongs to this process alone."""

    @property
    def directory(self) -> Directory:
        """Return the journal's directory, for messages."""

    def abandon(self) -> None:
        """In a forked child: refuse all use from now on, without taking any lock."""

    def finish(self) -> None:
        """At exit: commit what is buffered, and close."""


def check_interpreter(path: StrPath) -> None:
    """Raise JournalError in an interpreter that lets no thread of the engine run."""
    if not _may_start_threads():
        raise JournalError(
            f"{os.fspath(path)}: can't be opened in an isolated subinterpreter, where no daemon "
            "thread may run; open it in the main interpreter"
        )


def _may_start_threads() -> bool:
    if sys.version_info >= (3, 12):
        return _thread.daemon_threads_allowed()
    # 3.11 says so only when a thread is started. So one is, outside the main interpreter.
    try:
        interpreters = import_module("_xxsubinterpreters")
    except ImportError:  # then there are none
        return True
    if interpreters.get_current() != interpreters.get_main():
        try:
            _thread.start_new_thread(int, ())
        except RuntimeError:
            return False
    return True


_owned: weakref.WeakSet[Owned] = weakref.WeakSet()


def own(owned: Owned) -> None:
    _owned.add(owned)


def disown(owned: Owned) -> None:
    _owned.discard(owned)


def write_pid_note(directory: Directory, epoch: int) -> None:
    """Tell people who holds the lock. It may fail: nothing depends on it."""
    _write_note(directory, f"pid {os.getpid()}\nepoch {epoch}\n")


def clear_pid_note(directory: Directory) -> None:
    with suppress(UnsafePathError):
        _write_note(directory, "")


def _write_note(directory: Directory, text: str) -> None:
    try:
        file = directory.open(LOCK, "update" if LOCK in directory.names() else "create")
        try:
            file.truncate(0)
            write_all(file, text.encode(), 0)
        finally:
            file.close()
    except UnsafePathError:
        raise
    except OSError as error:
        if not is_disk_error(error):
            raise
        report(logging.INFO, "%s/%s could not be written: %s", directory.path, LOCK, error)


def _abandon_all() -> None:
    forget_posted()
    for owned in list(_owned):
        owned.abandon()
    _owned.clear()


def _finish_all() -> None:
    """Finish every open journal, whatever finishing another one raises."""
    for owned in list(_owned):
        try:
            owned.finish()
        except BaseException as error:
            # An interrupt, too, gives up one journal only: the others' records are still here.
            with suppress(BaseException):
                path = owned.directory.path
                report(logging.ERROR, "%s: not finished at exit: %r", path, error, error=error)
    settle(_SETTLE_S)


# Registered when `journal` is imported, so that it runs after most other hooks: those may
# still append.
atexit.register(_finish_all)
os.register_at_fork(after_in_child=_abandon_all)
