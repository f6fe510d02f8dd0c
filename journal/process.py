"""The process: what must happen to open journals when it forks, and when it exits."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Protocol


class Owned(Protocol):
    """What belongs to this process alone."""

    def abandon(self) -> None:
        """In a forked child: refuse all use from now on, without taking any lock."""

    def finish(self) -> None:
        """At exit: commit what is buffered, and close."""


_owned: weakref.WeakSet[Owned] = weakref.WeakSet()


def pid() -> int:
    return os.getpid()


def own(owned: Owned) -> None:
    _owned.add(owned)


def disown(owned: Owned) -> None:
    _owned.discard(owned)


def _abandon_all() -> None:
    for owned in list(_owned):
        owned.abandon()
    _owned.clear()


def _finish_all() -> None:
    for owned in list(_owned):
        owned.finish()


# Registered when `journal` is imported, so that it runs after most other hooks: those may
# still append.
atexit.register(_finish_all)
os.register_at_fork(after_in_child=_abandon_all)
