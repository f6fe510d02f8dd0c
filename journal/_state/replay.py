"""Replay: brings a new state machine to the state that its journal holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from journal._commit.buffer import LogBuffer
from journal._disk.disk import Disk, StrPath
from journal._engine.opening import Opening
from journal._format.checkpoint import Checkpoint
from journal._format.lines import count_lines, lines_of
from journal._log import shown
from journal._recovery.recovery import Recovery
from journal._recovery.walk import ReplayBatch
from journal._state.collection_pause import without_full_collections
from journal._state.owned_journal import ApplyProgress, OwnedJournal
from journal._state.state_machine import (
    JudgesApplication,
    LoadsLines,
    LoadsTogether,
    StateMachine,
)
from journal.errors import FormatReason, FormatVersionError
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
        return OwnedJournal(options, core, progress), core.buffer, progress


def _rebuild(machine: StateMachine, recovery: Recovery) -> None:
    if recovery.checkpoint:
        load_checkpoint(machine, recovery.checkpoint)
    for batch in recovery.batches():
        _apply(machine, batch)
        del batch  # before the next batch is read: each may be one large frame


def load_checkpoint(machine: StateMachine, checkpoint: Checkpoint) -> None:
    """Load all items of a checkpoint. Raises FormatVersionError if the machine refuses one."""
    _check_application(machine, checkpoint)
    _load(machine, checkpoint)


def _check_application(machine: StateMachine, checkpoint: Checkpoint) -> None:
    """Raise FormatVersionError if the machine judges applications, and refuses this one."""
    judge: object = machine
    problem = isinstance(judge, JudgesApplication) and judge.why_refused(checkpoint.application)
    if problem:
        raise FormatVersionError(
            f"{problem}; open it with the program that wrote it",
            path=checkpoint.path,
            reason=FormatReason.OTHER_APPLICATION,
        )


def _load(machine: StateMachine, checkpoint: Checkpoint) -> None:
    def refusal(error: Exception) -> FormatVersionError:
        return _refusal(machine, checkpoint.path, f"load raised {shown(error)} for an item")

    def take(block: bytes) -> bytes:
        try:
            if block.startswith(loader.heads_of_part, block.rfind(b"\n", 0, -1) + 1):
                block = b"".join(loader.load_lines_of_part(lines_of(block)))
            text = checkpoint._plain_text(block)
            is_loaded = text is not None and loader.load_text(text, count_lines(block))
        except Exception as error:
            raise refusal(error) from error
        return b"" if is_loaded else block

    loader: Any = machine
    load: Callable[[Any], object] = loader.load
    parts: Iterator[Any] = checkpoint.items()
    if isinstance(loader, LoadsLines):  # half the time of an open is decoding
        load, parts = loader.load_lines, checkpoint._blocks()
    elif isinstance(loader, LoadsTogether):
        load, parts = loader.load_items, checkpoint._item_lists(take)
    for part in parts:
        try:
            load(part)
        except Exception as error:
            raise refusal(error) from error


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
            raise _refusal(machine, batch.path, problem) from error


def _refusal(machine: StateMachine, path: str, problem: str) -> FormatVersionError:
    return FormatVersionError(
        f"{problem} of application {machine.application!r}; nothing was changed. Open the journal "
        "with the program version that wrote it. If that is this one, find out what has changed in "
        "`apply` or `load` since",
        path=path,
    )
