"""Callbacks: functions of callers, of which some have a body that runs only after the call."""

from __future__ import annotations

import inspect  # takes no time: `dataclasses` has imported it already
from collections.abc import Iterable
from functools import partial, partialmethod
from types import AsyncGeneratorType, CodeType, CoroutineType, GeneratorType, MethodType
from typing import Any

_FLAGS_OF_LATER = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
RUN_LATER = frozenset({CoroutineType, GeneratorType, AsyncGeneratorType})
"""The types of results whose body may run later. They have no subclasses."""


def late_fault(function: object, result: object) -> str:
    """Return "F is a coroutine function", or a generator function, if a call of `function` returned
    `result` and has run none of its body. Otherwise return "".

    A generator that another function made is a result like any other.
    """
    kind = ""
    if isinstance(result, CoroutineType):
        kind = "a coroutine function"
        result.close()
    elif isinstance(result, AsyncGeneratorType):
        kind = "an async generator function"
    elif isinstance(result, GeneratorType) and result.gi_code in codes_of([function]):
        has_begun = inspect.getgeneratorstate(result) != inspect.GEN_CREATED
        kind = "" if has_begun else "a generator function"
    return kind and f"{getattr(function, '__wrapped__', function)!r:.200} is {kind}"


def close_coroutine(value: object) -> None:
    """Close a coroutine that nobody will run, so that Python does not warn about it."""
    if isinstance(value, CoroutineType):
        value.close()


def check_freeze(freeze: object) -> None:
    """Raise TypeError unless `freeze` is a function that a compaction can call."""
    if not callable(freeze):
        raise TypeError(
            f"freeze must be a function that returns an LSN and items, not {freeze!r:.200}"
        )
    if kind := kind_if_later(freeze):
        raise TypeError(
            f"freeze must be a plain function, not {kind} function: calling {freeze!r:.200} does "
            "not run it"
        )


def kind_if_later(call: Any) -> str:
    """Return "a generator" or "an async" for a function whose body does not run when it is called,
    and "" for any other."""
    code = getattr(function_of(call), "__code__", None)
    if not isinstance(code, CodeType) or not code.co_flags & _FLAGS_OF_LATER:
        return ""
    return "a generator" if code.co_flags & inspect.CO_GENERATOR else "an async"


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
