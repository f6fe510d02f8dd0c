"""Replay: brings a new state machine to the state that its journal holds."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from journal._commit.buffer import LogBuffer
from journal._disk.disk import Disk, StrPath
from journal._engine.opening import Opening
from journal._log import shown
from journal._recovery.recovery import Recovery
from journal._recovery.walk import ReplayBatch
from journal._state.collection_pause import without_full_collections
from journal._state.loading import load_checkpoint, refusal_of
from journal._state.owned_journal import ApplyProgress, OwnedJournal
from journal._state.state_machine import JudgesApplication, StateMachine
from journal.options import Options

if TYPE_CHECKING:
    from journal._mirror.mirror import MirrorChoice


def recover_state(
    path: StrPath,
    machine: StateMachine,
    options: Options,
    disk: Disk | None,
    lock_timeout_s: float | None,
    mirror: MirrorChoice,
    takeover: bool,
) -> tuple[OwnedJournal, LogBuffer, ApplyProgress]:
    """Open the journal, and bring `machine` to its state. Return the journal, its log buffer, and
    the machine's progress."""
    accepts = (machine.application, *getattr(machine, "accepts", ()))
    is_judge = isinstance(machine, JudgesApplication)
    with Opening(path, options, disk, lock_timeout_s, mirror, takeover) as opening:
        recovery = opening.recover(() if is_judge else accepts)
        without_full_collections(partial(_rebuild, machine, recovery))
        core = opening.start()
        progress = ApplyProgress(core.buffer.last_lsn)
        return OwnedJournal(core, progress), core.buffer, progress


def _rebuild(machine: StateMachine, recovery: Recovery) -> None:
    if recovery.checkpoint:
        load_checkpoint(machine, recovery.checkpoint)
    for batch in recovery.batches():
        _apply(machine, batch)
        del batch  # before the next batch is read: each may be one large frame


def _apply(machine: StateMachine, batch: ReplayBatch) -> None:
    filler_lsn = batch.filler_lsn
    for lsn, record in enumerate(batch.records, batch.first_lsn):
        if lsn == filler_lsn:
            continue
        try:
            machine.apply(lsn, record)
        except Exception as error:
            place = f"offset {batch.offset_of(lsn)}, LSN {lsn}"
            problem = f"{place}: apply raised {shown(error)} for a record"
            raise refusal_of(machine, batch.path, problem) from error
