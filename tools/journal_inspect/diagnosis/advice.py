"""Advice: what a person should do about the findings of `verify`, decided from their fields.

This module reads no file and writes no sentence. The caller gives the names that are taken, and
`commands.next_steps` puts the advice into words.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from journal import DamageReason, Finding, RecoveryPreview
from journal_inspect.diagnosis.misnamed import Pair, find_copies


class Action(StrEnum):
    """The next step for findings of one kind."""

    NOTHING = "nothing"
    """A torn tail: an open passes over it."""

    MOVE_STRAYS = "move_strays"
    """Files that no open reads may be moved away."""

    SEE_INFO = "see_info"
    """A checkpoint does not verify. An open uses an older one, or the log; `info` shows which."""

    UPGRADE = "upgrade"
    """A newer version of the format wrote a checkpoint. Only a newer engine opens the journal."""

    RESUME_WRITING = "resume_writing"
    """The journal opens: a checkpoint covers the damage. Compaction will remove the damage."""

    SET_ASIDE = "set_aside"
    """No record is lost. A repair sets aside the files that keep the journal from opening."""

    SET_ASIDE_COPY = "set_aside_copy"
    """A checkpoint has the name of a later one, which may have existed. A repair sets it aside."""

    FIX = "fix"
    """A repair fixes wrong names of files or damaged headers of segments."""

    REMOVE_MARKER = "remove_marker"
    """The file MIRROR is damaged, and nothing else keeps the journal from opening. If the directory
    is the one that was last written, an open with the mirror and `takeover` makes the file anew."""

    RESTORE_BACKUP = "restore_backup"
    """Neither a checkpoint nor the beginning of the log is left, so no repair helps."""

    REPAIR = "repair"
    """A repair, if there is no backup, cuts off the damage, and nothing after it can be read."""

    SALVAGE = "salvage"
    """A repair, if there is no backup, cuts off the damage, and saves frames that follow it."""


@dataclass(frozen=True, slots=True)
class Advice:
    """An action, and the facts for the sentence about it."""

    action: Action

    copies: tuple[Pair, ...] = ()
    """The files that lost records, each with the existing file whose header it has."""

    whole_lsn: int = 0
    """The last LSN before all damage. A checkpoint may hold a later state."""

    checkpoint_lsn: int = 0
    """The LSN of the checkpoint from which an open or a repair continues."""


def advise(
    findings: Sequence[Finding],
    preview: RecoveryPreview | None = None,
    *,
    taken: Collection[str] = (),
    is_salvageable: bool = False,
    is_open_ended: bool = False,
) -> Advice:
    """Return the advice on `findings`, which are all of one kind.

    `preview`: the forecast of the next open; None while a writer is running, and then no file may
    be renamed. `taken`: the names in the journal's directory. `is_salvageable`: whether whole
    frames follow the damage. `is_open_ended`: whether the last segment was lost, so that nothing
    says how many records it had.
    """
    match findings[0].kind:
        case "torn_tail":
            return Advice(Action.NOTHING)
        case "stray":
            return Advice(Action.MOVE_STRAYS)
        case "bad_checkpoint":
            is_newer = any(finding.reason is DamageReason.NEWER_VERSION for finding in findings)
            return Advice(Action.UPGRADE if is_newer else Action.SEE_INFO)
    refusal = preview.refusal if preview else None
    reasons = {refusal.reason} if refusal else {finding.reason for finding in findings}
    if reasons == {DamageReason.MIRROR_DAMAGED}:
        return Advice(Action.REMOVE_MARKER)
    checkpoint_lsn = preview.checkpoint_lsn if preview else 0
    if preview and not preview.problem:
        return Advice(Action.RESUME_WRITING, checkpoint_lsn=checkpoint_lsn)
    if not is_open_ended and not any(finding.lsn for finding in findings):
        is_copy = any(finding.reason is DamageReason.MISNAMED for finding in findings)
        if is_copy and preview and preview.fixes:
            return Advice(Action.FIX)
        return Advice(Action.SET_ASIDE_COPY if is_copy else Action.SET_ASIDE)
    action = Action.SALVAGE if is_salvageable else Action.REPAIR
    is_fixable = preview is not None and preview.fixes > 0
    if is_fixable:
        action = Action.FIX
    elif preview and preview.has_no_start:
        action = Action.RESTORE_BACKUP
    copies = () if is_fixable else find_copies(findings, taken)
    return Advice(action, copies, _whole_lsn(findings), checkpoint_lsn)


def _whole_lsn(corruptions: Sequence[Finding]) -> int:
    """Return the last LSN before the first of `corruptions`.

    A segment that lost no record but does not belong there ends the log too, just before it.
    """
    lsns = [finding.lsn for finding in corruptions if finding.lsn]
    files = [finding.file for finding in corruptions if not finding.lsn]
    return min([*lsns, *(file.lsn for file in files if file.kind == "segment")]) - 1
