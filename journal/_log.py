"""The engine's logger. Filters, handlers and record factories are other people's code: they may
raise anything, take a lock that a waiter holds, or never return.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from types import TracebackType
from typing import NamedTuple

# Without a NullHandler: in a program that sets up no logging Python prints warnings on stderr.
log = logging.getLogger("journal")

_POSTED_MAX = 1000  # while a handler is stuck, older messages are dropped
_TRACEBACKS_MAX = 10  # and before that, tracebacks: their frames keep an owner's state alive
_POLL_S = 0.005
# An error whose traceback is logged, too; or its type, itself and the traceback that it had.
Raised = BaseException | tuple[type[BaseException], BaseException, TracebackType] | None


class _Message(NamedTuple):
    level: int
    text: str
    arguments: tuple[object, ...]
    error: Raised


def report(level: int, text: str, *arguments: object, error: Raised = None) -> None:
    """Log in this thread. Drop what logging raises, except in the main thread KeyboardInterrupt,
    SystemExit and the like: a signal handler may have raised those.
    """
    try:
        log.log(level, text, *arguments, exc_info=error, stacklevel=2)
    except Exception:  # noqa: S110 - there is nobody to tell
        pass
    except BaseException:
        if threading.current_thread() is threading.main_thread():
            raise


def post(level: int, text: str, *arguments: object, error: Raised = None) -> None:
    """Have a separate thread log the message, for the engine's threads, which no log handler may
    hold up. Messages keep their order. Returns at once and raises nothing.
    """
    _reporter.post(_Message(level, text, arguments, error))


def settle(timeout_s: float) -> bool:
    """Wait until all posted messages were reported, at most `timeout_s` seconds. Return whether
    they were."""
    until_s = time.monotonic() + timeout_s
    while _reporter.is_busy and time.monotonic() < until_s:
        time.sleep(_POLL_S)
    return not _reporter.is_busy


def forget_posted() -> None:
    """Begin anew, in a forked child, where the reporting thread doesn't live on."""
    global _reporter
    _reporter = _Reporter()


class _Reporter:
    """Reports messages in a thread that it starts when there are some, and ends after them."""

    def __init__(self) -> None:
        # Guards the fields below. Taken in the engine's threads only, where no handler runs, and
        # never held while a message is reported.
        self._lock = threading.Lock()
        self._messages: deque[_Message] = deque(maxlen=_POSTED_MAX)
        self.is_busy = False

    def post(self, message: _Message) -> None:
        with self._lock:
            if len(self._messages) >= _TRACEBACKS_MAX:
                message = message._replace(error=None)
            self._messages.append(message)
            if self.is_busy:
                return
            self.is_busy = True
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


_reporter = _Reporter()
