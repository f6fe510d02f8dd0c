"""Waits: the checks that calls make before they wait, of their arguments and of their thread, and
the wait for a thread's end. Calls that don't wait check their arguments here, too."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from journal import _time as time
from journal._public import PACKAGES

_SHOWN_CHARS = 80
_POLL_S = 0.01
_LONG_S = 1e10  # a longer timeout may be too large for a float

_has_warned = False  # of a wait in an event loop, in this process
_running_loop: Callable[[], object] | None = None  # of asyncio, once the program has imported it


def check_lsn(lsn: object, name: str = "lsn") -> None:
    """Raise TypeError or ValueError unless `lsn` is a whole number from 0."""
    if type(lsn) is int and lsn >= 0:
        return  # nearly always
    if isinstance(lsn, bool) or not isinstance(lsn, int):
        refuse(TypeError, f"{name} must be an LSN, a whole number", lsn)
    if lsn < 0:
        refuse(ValueError, f"{name} must be an LSN, at least 0", lsn)


def check_flag(flag: object, name: str) -> None:
    """Raise TypeError unless `flag` is True or False."""
    if not isinstance(flag, bool):
        refuse(TypeError, f"{name} must be True or False", flag)


def check_callable(function: object, name: str) -> None:
    """Raise TypeError unless the argument `name` can be called."""
    if not callable(function):
        refuse(TypeError, f"{name} must be callable", function)


def check_timeout_s(timeout_s: Any, name: str = "timeout_s") -> None:
    """Raise TypeError or ValueError unless this is a number of seconds from 0, or None."""
    kind = type(timeout_s)
    if timeout_s is None or ((kind is float or kind is int) and 0 <= timeout_s <= _LONG_S):
        return  # nearly always; the checks below take four times as long
    rule = f"{name} must be a number of seconds, at least 0, or None"
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)):
        refuse(TypeError, rule, timeout_s)
    try:
        is_valid = float(timeout_s) >= 0  # False for NaN
    except OverflowError:
        is_valid = False
    if not is_valid:
        refuse(ValueError, rule, timeout_s)


def in_event_loop() -> bool:
    """Return whether an event loop runs in this thread."""
    global _running_loop
    if _running_loop is None:
        # A program that runs a loop has imported asyncio. An import here would slow down others.
        # While another thread imports it, it may lack the function.
        _running_loop = getattr(sys.modules.get("asyncio"), "_get_running_loop", None)
    return _running_loop is not None and _running_loop() is not None


def this_runner() -> object:
    """Return the current task, or outside of a task the current thread."""
    task = sys.modules["asyncio"].current_task() if in_event_loop() else None
    return task or threading.current_thread()


def warn_in_event_loop(call: str, awaitable: str, timeout_s: float | None = None) -> None:
    """Warn at the first call in this process that blocks a thread in which an event loop runs.

    A call with a time limit of 0 only asks, and blocks nothing. The warning is a RuntimeWarning,
    like the one for a coroutine that was never awaited, because the caller's code needs the fix. It
    shows the line that called this project's packages.
    """
    global _has_warned
    if _has_warned or timeout_s == 0 or not in_event_loop():
        return
    _has_warned = True
    level, frame, called = 1, sys._getframe(), ""
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in PACKAGES:
        level, frame, called = level + 1, frame.f_back, frame.f_code.co_name
    if called == "sync":  # of tables and dicts, which call wait_durable
        call, awaitable = called, "durable()"
    warnings.warn(
        f"{call} blocks this thread and the event loop that runs in it; use `await {awaitable}` "
        "instead. Later calls are not reported",
        RuntimeWarning,
        stacklevel=level,
    )


def join(thread: threading.Thread, timeout_s: float | None = None) -> bool:
    """Wait at most `timeout_s` seconds for a thread to end. Return whether it has ended, or was
    never started.

    Before CPython 3.13, a signal handler's exception in Thread.join marks a running thread as
    ended. And one in Thread.start leaves a thread that can't be joined for a moment. The list of
    threads has both. It may also keep a thread that has ended: gevent's monkey.patch_all, called
    while the thread ran, makes its end fail. The interpreter knows which threads have frames.
    """
    until_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
    if thread.is_alive():  # not before it can be joined, unlike its ident
        thread.join(timeout_s)
    while thread in threading.enumerate() and (
        thread.ident is None or thread.ident in sys._current_frames()
    ):
        if time.monotonic() >= until_s:
            return False
        time.sleep(_POLL_S)
    return True


def refuse(kind: type[Exception], rule: str, value: object) -> NoReturn:
    """Raise an error of `kind`, with the rule that an argument breaks, and its value."""
    try:
        shown = repr(value)
    except Exception:  # a huge integer has no repr, and any class may define any
        shown = f"a value of type {type(value).__name__}"
    if len(shown) > _SHOWN_CHARS:
        shown = f"{shown[:_SHOWN_CHARS]}..."
    raise kind(f"{rule}, not {shown}")
