"""Next steps: the advice on damage as sentences, with the commands to type."""

from __future__ import annotations

import filecmp
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from _journal_console.text import count_of

from journal import Finding, JournalReader, RecoveryPreview
from journal_inspect.diagnosis.advice import Action, Advice, advise
from journal_inspect.diagnosis.damage import AfterDamage
from journal_inspect.diagnosis.mirrored import advise_mirror
from journal_inspect.rendering.entries import is_managers
from journal_inspect.rendering.messages import command

WITHOUT_STEPS = {
    Action.UPGRADE: "a newer version of the format wrote a checkpoint; open the journal with a "
    "newer journal-engine",
    Action.REMOVE_MARKER: "only the file MIRROR keeps it from opening; if the directory is the one "
    "that was last written, remove that file, and open it with its mirror and takeover=True",
}

_REPAIRS = {
    *(Action.FIX, Action.SET_ASIDE, Action.SET_ASIDE_COPY),
    *(Action.REPAIR, Action.SALVAGE, Action.RESTORE_BACKUP),
}


def advice_on(
    reader: JournalReader,
    findings: Sequence[Finding],
    preview: RecoveryPreview | None,
    after_damage: AfterDamage | None,
) -> Advice:
    """Return the advice on `findings`, given the names that are in the directory now."""
    return advise(
        findings,
        preview,
        taken=os.listdir(reader.path),
        is_salvageable=after_damage is not None and bool(after_damage.readable),
        is_open_ended=after_damage is not None and after_damage.is_open_ended,
    )


class Step(NamedTuple):
    """A command to type, and what it does, in a few words."""

    line: str
    purpose: str = ""


class NextSteps(NamedTuple):
    """The meaning of findings of one kind, and the commands to type next."""

    meaning: str
    steps: tuple[Step, ...] = ()


def next_steps(reader: JournalReader, advice: Advice, count: int = 1) -> NextSteps:
    """Return what `count` findings mean, which records are safe, and what to type next. A damaged
    journal with a mirror needs none of these commands if the mirror is whole."""
    plan = _next_steps(reader, advice, count)
    first = advise_mirror(reader.path) if advice.action in _REPAIRS else None
    if first is None:
        return plan
    return NextSteps(f"{first}; if that refuses, too: {plan.meaning}", plan.steps)


def _next_steps(reader: JournalReader, advice: Advice, count: int) -> NextSteps:
    path = reader.path
    copy = Step(shlex.join(["cp", "-a", path, f"{path}.damaged"]), "keep it as it is")
    repair = Step(command("repair", path), "what a repair would do; changes nothing")
    match advice.action:
        case Action.NOTHING:
            return NextSteps(
                "the torn tail is the end of an unfinished write, or of a repair; nothing to do: "
                f"the next open goes on at LSN {reader.last_lsn + 1}",
                (Step(command("log", path, "--frames"), "its bytes"),),
            )
        case Action.MOVE_STRAYS:
            verb = "does" if count == 1 else "do"
            harm = "it does no harm" if count == 1 else "they do no harm"
            return NextSteps(f"{count_of(count, 'file')} {verb} not belong to the journal; {harm}")
        case Action.SEE_INFO:
            return NextSteps(
                "a checkpoint does not verify; an open uses an older one, or the log; to see what "
                "is left of it, read the file: it is text, one item a line",
                (Step(command("info", path), "what an open would do"),),
            )
        case Action.UPGRADE | Action.REMOVE_MARKER:
            return NextSteps(WITHOUT_STEPS[advice.action])
        case Action.RESUME_WRITING:
            return NextSteps(
                "it opens as it is, and no state is lost: the checkpoint at LSN "
                f"{advice.checkpoint_lsn} has it; let the writer go on, and after two more "
                "checkpoints the damaged files are gone",
                (copy,),
            )
        case Action.SET_ASIDE:
            meaning = "no record is lost, but files without records of the log keep it from opening"
            return NextSteps(meaning, (copy, repair))
        case Action.SET_ASIDE_COPY:
            meaning = (
                "if the checkpoint has replaced a later one, the end of the log is lost: restore "
            )
            meaning += "a backup; if it is a copy or was renamed, a repair loses nothing"
            return NextSteps(meaning, (copy, repair))
        case Action.FIX:
            return NextSteps(
                "a repair fixes wrong names of files and damaged headers of segments, which loses "
                "nothing, and cuts only what is still damaged after that",
                (copy, repair, *_safe(reader, advice)),
            )
    copies = [*describe_copies(path, advice).split("; ")] * bool(advice.copies)
    if advice.action is Action.RESTORE_BACKUP:
        start = "the beginning of the log is missing, and no checkpoint replaces it, so no repair "
        meaning = f"{start}helps; restore a backup"
        left = Step(command("log", path), "what is left")
        return NextSteps("; ".join([*copies, meaning]), (copy, left, *_safe(reader, advice)))
    salvage = ["--salvage"] * (advice.action is Action.SALVAGE)
    keep = Step(command("repair", path, *salvage), "what it would keep; changes nothing")
    meaning = "restore a backup if there is one; if not, repair it"
    return NextSteps("; ".join([*copies, meaning]), (copy, keep, *_safe(reader, advice)))


def _safe(reader: JournalReader, advice: Advice) -> list[Step]:
    """Return the commands that show the readable part of the log and the newest whole state."""
    path, lsn = reader.path, advice.whole_lsn
    steps = []
    if lsn and lsn >= min(reader.first_lsns, default=1):
        steps.append(Step(command("log", path, "--to-lsn", lsn), "the records before the damage"))
    at = max(lsn, advice.checkpoint_lsn)
    if is_managers(reader) and (steps or at > lsn):
        steps.append(Step(command("agents", path, "--at", at), "the fleet as of then"))
    return steps


def describe_copies(path: str, advice: Advice) -> str:
    """Describe which files in the directory `path` are copies, after comparing them."""
    return "; ".join(
        f"{file} {_describe_copy(Path(path, file), Path(path, name))}, so the records that the log "
        "had there are not in it"
        for file, name in advice.copies
    )


def _describe_copy(file: Path, name: Path) -> str:
    if filecmp.cmp(file, name, shallow=False):
        return f"is a copy of {name.name}"
    return f"has the header of {name.name}, which exists too, but other contents"
