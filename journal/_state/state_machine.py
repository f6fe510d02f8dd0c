"""StateMachine: what a DurableState asks of the state that it keeps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from journal._format.checkpoint import JSON
from journal._public import public


@public
@runtime_checkable
class StateMachine(Protocol):
    """State that results from its records alone.

    The journal states the `application`, such as "jobs/1"; an open refuses a journal of another
    application. A machine may have `accepts`, a tuple of older applications that it understands.
    `isinstance` only checks that the members exist.
    """

    @property
    def application(self) -> str:
        """The name of the application and the version of its records, such as "jobs/1"."""

    def load(self, item: Any) -> None:
        """Add one item of a checkpoint to the state."""

    def apply(self, lsn: int, record: Any) -> None:
        """Apply one record to the state. Must be pure, take constant time, and never fail.

        It does the same live and in replay.
        """

    def freeze(self) -> Iterable[JSON]:
        """Return the items of the current state, in constant time, because the lock is held.

        It must take each snapshot before it returns, as `return self.table.freeze()` does: the
        items are read later, outside the lock, while `apply` continues. So `freeze` must not be a
        generator function, and must not return a dict, a CowTable or a view of one, which would
        change meanwhile. Values must be replaced, never changed in place.
        """


# The next two are base classes, not protocols: a method of the same name in a user's machine has
# nothing to do with them.


class LoadsLines(ABC):
    """A state machine that loads a checkpoint from its lines, before they are decoded."""

    @abstractmethod
    def load_lines(self, block: bytes) -> None:
        """Load the items in these lines. Each ends with an LF, which a comma may precede."""


class JudgesApplication(ABC):
    """A state machine that decides itself which applications' checkpoints it can load."""

    @abstractmethod
    def why_refused(self, application: str) -> str:
        """Return why a checkpoint of `application` can't be loaded, or "" if it can."""


def why_refused(machine: Any, application: str) -> str:
    """Return why `machine` can't load a checkpoint of `application`, or "" if it can."""
    if isinstance(machine, JudgesApplication):
        return machine.why_refused(application)
    accepts = (machine.application, *getattr(machine, "accepts", ()))
    if application in accepts:
        return ""
    return (
        f"the journal was written for application {application!r}, not for "
        f"{' or '.join(map(repr, accepts))}"
    )


@runtime_checkable
class LoadsTogether(Protocol):
    """A state machine that loads items together, of which one part loads lines of a checkpoint
    before they are decoded.

    A protocol, for machines outside this package. No user's machine has these members by chance.
    """

    heads_of_part: tuple[bytes, ...]
    """The beginnings of the part's lines."""

    def load_lines_of_part(self, lines: list[bytes]) -> list[bytes]:
        """Load the last of these lines, as far as they are the part's. Return the ones before
        them, whose items `load_items` gets. Each line ends with a comma, if it has one, and an
        LF. The last line is the part's."""

    def load_items(self, items: list[Any]) -> None:
        """Do what `load` does for each of the items, one after the other, in less time."""

    def load_text(self, text: str, count: int) -> bool:
        """Load the `count` items of this JSON array with msgspec. Return False, and load none, if
        they must be decoded for `load_items`, for example because their number is another."""
