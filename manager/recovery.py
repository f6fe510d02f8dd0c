"""Recovery: opens a fleet from its journal, and refuses a journal that no manager wrote."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal

from journal import DurableState, FormatVersionError, Options
from manager.fleet import Fleet

if TYPE_CHECKING:
    from journal import Mirror


def open_fleet(
    path: str,
    *,
    options: Options,
    disk: Any,
    lock_timeout_s: float | None = 0.0,
    mirror: str | Mirror | Literal[False] | None = None,
    takeover: bool = False,
) -> DurableState[Fleet]:
    """Open the fleet in the directory `path`.

    Raises FormatVersionError, with file and field, for a value that no manager writes, and the
    errors of opening a journal.
    """
    with ExitStack() as undo:
        state = DurableState.open(
            path,
            Fleet(),
            options=options,
            lock_timeout_s=lock_timeout_s,
            mirror=mirror,
            takeover=takeover,
            disk=disk,
        )
        undo.push(state)
        checkpoint, fleet = state.journal.checkpoint, state.machine
        try:
            if checkpoint is not None:
                where = checkpoint.path
                fleet.check_loaded(checkpoint.lsn)  # replay did this if a record followed
            where = state.journal.path
            fleet.end_replay()
        except FormatVersionError as error:
            raise FormatVersionError(error.what, path=where, reason=error.reason) from error
        undo.pop_all()
    return state
