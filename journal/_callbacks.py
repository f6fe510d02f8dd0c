"""Callbacks: the functions that a call of a caller's object runs, and what it returned."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial, partialmethod
from types import CodeType, CoroutineType, MethodType
from typing import Any


def close_coroutine(value: object) -> None:
    """Close a coroutine that nobody will run, so that Python does not warn about it."""
    if isinstance(value, CoroutineType):
        value.close()


def function_of(call: Any) -> Any:
    """Return the function that a call of `call` runs, inside any methods and partials."""
    while True:
        if isinstance(call, MethodType | staticmethod | classmethod):
            call = call.__func__
        elif isinstance(call, partial | partialmethod):
            call = call.func
        else:
            is_function = hasattr(call, "__code__") or not callable(call)
            return call if is_function else type(call).__call__


def codes_of(calls: Iterable[Any]) -> set[CodeType]:
    """Return the code of the functions that these calls run, and of those that they wrap."""
    codes: set[CodeType] = set()
    left = [*calls]
    seen: set[int] = set()  # `__wrapped__` may lead in a circle
    while left:
        function = function_of(left.pop())
        code = getattr(function, "__code__", None)
        if isinstance(code, CodeType) and id(function) not in seen:
            seen.add(id(function))
            codes.add(code)
            left.append(getattr(function, "__wrapped__", None))
    return codes
