"""Contract: checks a caller's state machine, and the items that its `freeze` returns.

StateMachine in state_machine.py states the rules. Nothing here calls a method of the machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MappingView
from types import CodeType, GeneratorType
from typing import Any

from journal._callbacks import close_coroutine, codes_of, kind_if_later

_METHODS = ("load", "apply", "freeze")
_RETURN_SNAPSHOT = "return a snapshot: `return self.table.freeze()`"
_RIGHT_FORM = (
    "take every snapshot before you return: `return self.table.freeze()`; for several tables: "
    "`tables = self.a.freeze(), self.b.freeze(); return itertools.chain(*tables)`"
)
_TOO_LATE = "body would run after the lock is released, and take its snapshots too late"


def check_machine(machine: object) -> None:
    """Raise TypeError unless `machine` has the members that a StateMachine needs."""
    name = type(machine).__name__
    if isinstance(machine, type):
        name = machine.__name__
        raise TypeError(f"{name} is a class, not a state machine: pass an instance, {name}()")
    application, *methods = (_member(machine, key) for key in ("application", *_METHODS))
    if not isinstance(application, str):
        raise TypeError(
            f"{name}.application is {application!r:.200}, not a string: name the application and "
            'the version of its records, such as "jobs/1"'
        )
    accepts = getattr(machine, "accepts", ())
    if not isinstance(accepts, tuple) or not all(isinstance(older, str) for older in accepts):
        raise TypeError(
            f"{name}.accepts is {accepts!r:.200}, not a tuple of strings: list the older "
            'applications that the machine understands, such as ("jobs/1",)'
        )
    for key, method in zip(_METHODS, methods, strict=True):
        _check_method(f"{name}.{key}", method)


def check_items(machine: object, items: object) -> None:
    """Raise TypeError if the `items` that `freeze` returned change while they are read.

    Generators and iterators of other functions hide what they read. `journal.testing` reads them
    late, and compares.
    """
    close_coroutine(items)
    kind = "None" if items is None else f"an object of type {type(items).__name__}"
    fault = ""
    if isinstance(items, GeneratorType):
        if items.gi_code in _codes_of_freeze(machine):
            fault = f"its own generator, whose {_TOO_LATE}; {_RIGHT_FORM}"
    elif isinstance(items, Mapping | MappingView):
        fault = f"{kind}, which changes while it is read; {_RIGHT_FORM}"
    elif isinstance(items, str | bytes | bytearray) or not isinstance(items, Iterable):
        fault = f"{kind}, not an iterable of items; {_RETURN_SNAPSHOT}"
    if fault:
        raise TypeError(f"{type(machine).__name__}.freeze returned {fault}")


def _member(machine: object, name: str) -> Any:
    try:
        return getattr(machine, name)
    except AttributeError as error:
        raise TypeError(
            f"{type(machine).__name__} has no `{name}`: a state machine has `application`, "
            "`load`, `apply` and `freeze`; see StateMachine"
        ) from error


def _check_method(name: str, method: Any) -> None:
    if not callable(method):
        raise TypeError(f"{name} is {method!r:.200}, which can't be called: make it a method")
    kind = kind_if_later(method)
    if not kind:
        return
    if name.endswith(".freeze"):
        raise TypeError(f"{name} is {kind} function: its {_TOO_LATE}; {_RIGHT_FORM}")
    raise TypeError(
        f"{name} is {kind} function: calling it does not run it; make it a plain method"
    )


def _codes_of_freeze(machine: Any) -> set[CodeType]:
    """Return the code of `freeze`, of each one that it overrides, and of the functions they wrap.

    An open does not refuse a generator function that is wrapped: its wrapper may make a list.
    """
    return codes_of([machine.freeze, *(vars(kind).get("freeze") for kind in type(machine).__mro__)])
