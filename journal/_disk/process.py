"""The process: the note that names the writer, and what a fork and an exit do to open journals."""

from __future__ import annotations

import _thread
import atexit
import logging
import os
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Protocol

from journal._disk.disk import LOCK, Directory, StrPath, is_disk_error, write_all
from journal._log import forget_posted, report, settle
from journal.errors import JournalError, UnsafePathError

_SETTLE_S = 1.0
# How each library that replaces threads by greenlets can be told to keep threads.
_KEEPS_THREADS = {
    "gevent": "monkey.patch_all(thread=False)",
    "eventlet": "eventlet.monkey_patch(thread=False)",
}


class Owned(Protocol):
    """An open journal, which belongs to this process and not to its forks."""

    @property
    def directory(self) -> Directory:
        """The journal's directory, for messages."""

    def abandon(self) -> None:
        """Refuse all use from now on, without taking any lock. Called in a forked child."""

    def finish(self) -> None:
        """Commit the buffered records, and close. Called at exit."""


def check_interpreter(path: StrPath) -> None:
    """Raise JournalError in an interpreter that can't run the engine's threads."""
    maker = getattr(_thread.start_new_thread, "__module__", None) or ""
    if (library := maker.partition(".")[0]) in _KEEPS_THREADS:
        raise JournalError(
            f"{os.fspath(path)}: can't be opened, because {library} has replaced threads by "
            "greenlets, and the engine needs threads; patch everything else, with "
            f"{_KEEPS_THREADS[library]}, or open it in a process that is not patched"
        )
    if not _may_start_threads():
        raise JournalError(
            f"{os.fspath(path)}: can't be opened in an isolated subinterpreter, which runs no "
            "daemon threads; open it in the main interpreter"
        )


def _may_start_threads() -> bool:
    if sys.version_info >= (3, 12):
        return _thread.daemon_threads_allowed()
    # In 3.11, only starting a thread shows whether threads may start. So try it, unless this is the
    # main interpreter.
    try:
        interpreters = import_module("_xxsubinterpreters")
    except ImportError:  # this Python has no subinterpreters
        return True
    if interpreters.get_current() != interpreters.get_main():
        try:
            _thread.start_new_thread(int, ())
        except RuntimeError:
            return False
    return True


_owned: weakref.WeakValueDictionary[int, Owned] = weakref.WeakValueDictionary()
_child_pid = 0  # of the last child of these libraries that has opened a journal


def own(owned: Owned) -> None:
    _owned[id(owned)] = owned
    _finish_with_child()


def _finish_with_child() -> None:
    """Let a child of multiprocessing, or of Celery's fork of it, finish its open journals at its
    end. If it was forked, it runs no hook of atexit, but its own finalizers."""
    global _child_pid
    if _child_pid == os.getpid():
        return
    for library in ("multiprocessing", "billiard"):
        if _has_begun_process(library):
            _child_pid = os.getpid()
            import_module(f"{library}.util").Finalize(None, _finish_all, exitpriority=-1)


def _has_begun_process(library: str) -> bool:
    """Return whether this process is a child that the library has begun, or a fork of one."""
    processes = sys.modules.get(f"{library}.process")
    # Not `parent_process()`, which fails while another thread still imports the module. In a child,
    # the module is whole.
    current = getattr(processes, "_current_process", None)
    return getattr(current, "_parent_pid", None) is not None


def disown(owned: Owned) -> None:
    _owned.pop(id(owned), None)


def _all_owned() -> list[Owned]:
    """Return the open journals. Other threads may open and close some meanwhile, during which
    CPython refuses to iterate over a WeakSet."""
    return [owned for reference in _owned.valuerefs() if (owned := reference()) is not None]


def call_in_forked_children(call: Callable[[], None]) -> None:
    """Call `call` in each child that this process forks from now on."""
    os.register_at_fork(after_in_child=call)


def environment(name: str) -> str:
    """Return the value of an environment variable, or "" if it is not set."""
    return os.environ.get(name, "")


def host_and_pid() -> tuple[str, int]:
    """Return the machine's name and this process's ID."""
    return os.uname().nodename, os.getpid()


def write_pid_note(directory: Directory, epoch: int) -> None:
    """Write the writer's pid and epoch into LOCK, for people.

    A write that fails is only logged, because nothing depends on the note.
    """
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
    for owned in _all_owned():
        owned.abandon()
    _owned.clear()


def _finish_all() -> None:
    """Finish every open journal, even if finishing another one raises."""
    for owned in _all_owned():
        try:
            owned.finish()
        except BaseException as error:
            # Even an interrupt gives up only one journal: the others still have buffered records.
            with suppress(BaseException):
                path, traced = owned.directory.path, error if isinstance(error, Exception) else None
                report(
                    logging.ERROR, "%s: closing it at exit failed: %r", path, error, error=traced
                )
    settle(_SETTLE_S)


# Hooks run in reverse order. This one is registered when `journal` is imported, so it runs after
# most other hooks, which may still append.
atexit.register(_finish_all)
os.register_at_fork(after_in_child=_abandon_all)
