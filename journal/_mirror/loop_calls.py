"""Calls of coroutines in the event loop of another thread, with a limit of time."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from typing import Any

from journal._mutex import is_raised_by_call


def error_of(future: Future[Any], timeout_s: float | None) -> BaseException | None:
    """Wait for a call in another thread, and return its error. Cancel it after `timeout_s` seconds
    (None: never), and return TimeoutError. So whatever this raises is a signal handler's, and the
    call is cancelled then, too.

    The limit holds here, and not in the event loop: before Python 3.12, `asyncio.wait_for`, which
    nats-py uses, may lose a cancellation, and nats-py may go on forever.
    """
    try:
        return future.exception(timeout_s)
    except BaseException as error:
        is_cancelled = isinstance(error, CancelledError) and future.cancelled()
        future.cancel()
        is_late = isinstance(error, TimeoutError)
        if is_cancelled or (is_late and is_raised_by_call(error, "concurrent", "threading")):
            return error
        raise
