"""Machine: the state machine of a fleet, for programs that try records on it."""

from __future__ import annotations

from journal import StateMachine
from manager._public import public
from manager.fleet import Fleet


@public
def fleet_machine() -> StateMachine:
    """Return a new state machine of a fleet, for `journal.put_back` to try records on."""
    return Fleet()
