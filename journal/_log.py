"""The engine's logger. Log filters, handlers and record factories are foreign code: they may raise
anything, take a lock that a waiter holds, or never return.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from types import TracebackType
from typing import NamedTuple

from journal import _time as time

# It has no NullHandler: in a program that sets up no logging, Python prints warnings on stderr.
log = logging.getLogger("journal")

_POSTED_MAX = 1000  # while a handler is stuck, the oldest messages are dropped
_TRACEBACKS_MAX = 10  # messages beyond it lose their tracebacks, which keep an owner's state alive
_POLL_S = 0.005
# An error, logged with its own traceback; or its type, the error and a traceback saved earlier.
Raised = BaseException | tuple[type[BaseException], BaseException, TracebackType] | None


class _Message(NamedTuple):
    level: int
    text: str
    arguments: tuple[object, ...]
    error: Raised


def report(level: int, text: str, *arguments: object, error: Raised = None) -> None:
    """Log in this thread, and ignore exceptions that logging raises.

    In the main thread, KeyboardInterrupt, SystemExit and the like propagate, because a signal
    handler may have raised them.
    """
    try:
        log.log(level, text, *arguments, exc_info=error, stacklevel=2)
    except Exception:  # noqa: S110 - there is nowhere left to report it
        pass
    except BaseException:
        if threading.current_thread() is threading.main_thread():
            raise


def post(level: int, text: str, *arguments: object, error: Raised = None) -> None:
    """Let a separate thread log the message. Returns at once and raises nothing.

    The engine's threads log this way, because no log handler may hold them up. Messages keep their
    order.
    """
    _reporter.post(_Message(level, text, arguments, error))


def shown(error: BaseException) -> str:
    """Return an error's repr, cut off. It is foreign code, which may raise."""
    try:
        return f"{error!r:.200}"
    except Exception:
        return f"{type(error).__name__}, whose repr raises"


def settle(timeout_s: float) -> bool:
    """Wait until all posted messages are logged, for at most `timeout_s` seconds. Return whether
    they are."""
    until_s = time.monotonic() + timeout_s
    while _reporter.is_busy and time.monotonic() < until_s:
        time.sleep(_POLL_S)
    return not _reporter.is_busy


def forget_posted() -> None:
    """Drop all posted messages in a forked child, where the reporting thread does not exist."""
    global _reporter
    _reporter = _Reporter()


class _Reporter:
    """Logs the posted messages in a thread of its own, which runs only while there are any."""

    def __init__(self) -> None:
        # Guards the fields below. Only the engine's threads take it, where no signal handler runs.
        # None holds it while a message is logged, or is freed: what an error keeps alive may have
        # finalizers.
        self._lock = threading.Lock()
        self._messages: deque[_Message] = deque()
        self.is_busy = False

    def post(self, message: _Message) -> None:
        dropped, shortened = None, message._replace(error=None)
        with self._lock:
            waiting = len(self._messages)
            if waiting == _POSTED_MAX:
                dropped = self._messages.popleft()
            self._messages.append(message if waiting < _TRACEBACKS_MAX else shortened)
            was_busy, self.is_busy = self.is_busy, True
        del dropped
        if was_busy:
            return
        try:
            threading.Thread(target=self._run, name="journal-reporter", daemon=True).start()
        except BaseException:  # too many threads, or the interpreter is exiting
            self._run()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._messages:
                    self.is_busy = False
                    return
                message = self._messages.popleft()
            report(message.level, message.text, *message.arguments, error=message.error)
            del message


_reporter = _Reporter()
