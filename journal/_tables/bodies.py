"""Bodies: the transactions whose bodies run in a thread or task."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from weakref import ReferenceType, ref

from journal._waits import this_runner
from journal.errors import JournalError


class Body:
    """The body of a transaction. `runner` is the thread or task that runs it, or None."""

    __slots__ = ("__weakref__", "runner")

    def __init__(self) -> None:
        self.runner: object = None


# The bodies that run here, by the id of their Tables' publisher. The references are weak: after an
# interrupt, a body may stay in here although it has ended. It must not make this thread's later
# writes fail.
running: ContextVar[Mapping[int, ReferenceType[Body]]] = ContextVar(
    "journal.tables.bodies", default=MappingProxyType({})
)


def enter(body: Body, publisher_id: int) -> None:
    """Note that this thread or task runs the body of a transaction of the Tables."""
    bodies = {publisher_id: ref(body)}
    for other_id, other in running.get().items():
        if other_id != publisher_id and other():
            bodies[other_id] = other
    running.set(bodies)
    body.runner = this_runner()  # last, so that no interrupt above leaves it set


def refuse_in_body(publisher_id: int, what: str) -> None:
    """Raise JournalError if this thread or task runs the body of a transaction of the Tables."""
    reference = running.get().get(publisher_id)
    body = reference and reference()
    if body and body.runner is this_runner():
        raise JournalError(
            f"can't {what} inside a transaction's body: it would not be part of the "
            "transaction; use the transaction, as in t[table][key] = value"
        )
