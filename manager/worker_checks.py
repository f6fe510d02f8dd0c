"""Checks of workers: their kind before any agent starts, and what the first call returns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from types import CodeType, MethodType
from typing import Any

from manager.arguments import short_repr
from manager.values import text

_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def checked_workers(workers: object) -> dict[str, Any]:
    """Return a copy of the workers, by type. Raises TypeError or ValueError if one can't run
    agents.

    A plain function is accepted, because it may return a coroutine, as a lambda can. Only its first
    call shows whether it does: see `not_awaitable`.
    """
    if not isinstance(workers, Mapping):
        raise TypeError(
            "workers must be a mapping from types to coroutine functions, not "
            f"{short_repr(workers)}"
        )
    checked = {text("a key of workers", key): worker for key, worker in workers.items()}
    for key, worker in checked.items():
        if fault := _fault(worker):
            raise TypeError(
                f"workers[{key!r}] must be a coroutine function, such as "
                f"`async def work(context)`, not {fault}"
            )
    return checked


def not_awaitable(agent_type: str, returned: object) -> TypeError | None:
    """Return the error of a worker that returned something that can't be awaited, else None."""
    if inspect.isawaitable(returned):
        return None
    kind = type(returned).__name__
    article = "an" if kind[0] in "aeiouAEIOU" else "a"
    shown = "None" if returned is None else f"{article} {kind}"
    return TypeError(
        f"worker {agent_type!r} returned {shown}, not an awaitable: make it an async function"
    )


def _fault(worker: object) -> str | None:
    """Return a description of a worker whose call returns nothing to await, else None."""
    if isinstance(worker, type) and not hasattr(worker, "__await__"):
        return f"the class {worker.__name__}"
    if not callable(worker):
        return short_repr(worker)
    function = _function(worker)
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or code.co_flags & inspect.CO_ITERABLE_COROUTINE:
        return None
    return f"the generator function {function.__qualname__}" if code.co_flags & _GENERATOR else None


def _function(call: Any) -> Any:
    """Return the function that a call of `call` runs, inside any methods and partials."""
    while isinstance(call, MethodType | partial):
        call = call.__func__ if isinstance(call, MethodType) else call.func
    return call if hasattr(call, "__code__") else type(call).__call__
