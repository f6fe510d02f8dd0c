"""States: reads the fleet of a state directory, and says what to do if there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from manager._cli.messages import NO_STATE
from manager.agent import Agent
from manager.view import FleetView, follow_fleet, read_fleet


def fleet_at(path: str) -> FleetView:
    """Return the fleet of the state directory `path`. Raise what `read_fleet` raises."""
    with naming_state(path):
        return read_fleet(path)


def changes_at(path: str) -> Iterator[Agent]:
    """Yield the agents of a state directory, and then each change, as `follow_fleet` does."""
    with naming_state(path):
        yield from follow_fleet(path)


@contextmanager
def naming_state(path: str) -> Iterator[None]:
    """Let the error of a missing state directory say what to do."""
    try:
        yield
    except FileNotFoundError as error:
        if error.filename == path:
            error.strerror = NO_STATE
        raise
