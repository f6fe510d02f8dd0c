"""Calls of coroutines in the event loop of another thread, with a limit of time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

T = TypeVar("T")
_CANCEL_S = 0.1  # from one attempt to cancel a call to the next


async def within(timeout_s: float | None, call: Coroutine[Any, Any, T]) -> T:
    """Return what `call` returns. Raise TimeoutError after `timeout_s` seconds (None: never).

    It is cancelled until it ends: in Python 3.11, `asyncio.wait_for`, which nats-py uses, loses a
    cancellation at the moment at which its future ends, and nats-py would try to connect for ever.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait((task,), timeout=timeout_s)
        is_late = not task.done()
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_CANCEL_S)
    if is_late and task.cancelled():
        raise TimeoutError
    return task.result()


def error_of(future: Future[Any]) -> BaseException | None:
    """Wait for a call in another thread, and return its error. So whatever this raises is a signal
    handler's, and the call is cancelled then."""
    try:
        return future.exception()
    except BaseException as error:
        if isinstance(error, CancelledError) and future.cancelled():
            return error
        future.cancel()
        raise
