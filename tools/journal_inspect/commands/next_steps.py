"""Next steps: the advice on damage in sentences, with the commands to type."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Sequence
from pathlib import Path
from shlex import join

from journal import Finding, JournalReader, RecoveryPreview
from journal_inspect.diagnosis.advice import Action, Advice, advise
from journal_inspect.rendering.entries import is_managers
from journal_inspect.rendering.text import command

_WITHOUT_LOSS = {
    Action.NOTHING: (
        "a torn tail: a crash left it unfinished, and nothing in the journal says that it was "
        "acknowledged, or a repair cut it off; no open goes through it, so nothing need be done; "
        "its bytes: {frames}"
    ),
    Action.MOVE_STRAYS: (
        "files that an open does not read; move them out of the directory if nobody knows them"
    ),
    Action.SEE_INFO: (
        "a checkpoint does not verify; an open takes an older one, or the log; what it would do: "
        "{info}. What is left of it can be read: it is text, one item a line"
    ),
    Action.UPGRADE: (
        "a newer version of the format wrote a checkpoint, and this version can't open the "
        "journal; open it with a newer journal-engine"
    ),
    Action.RESUME_WRITING: (
        "it opens as it is: the checkpoint at LSN {checkpoint_lsn} holds what came of what is "
        "damaged, and what follows it is whole. Next: copy the directory; then let its writer go "
        "on: when two more checkpoints are made, what is damaged is no longer kept"
    ),
    Action.SET_ASIDE: (
        "no record is lost, but files are in the way of an open that hold nothing of the journal; "
        "nothing was changed. Next: copy the directory; see what a repair would set aside: {repair}"
    ),
}


def advice_on(
    reader: JournalReader,
    findings: Sequence[Finding],
    preview: RecoveryPreview | None,
    *,
    is_salvageable: bool,
) -> Advice:
    """Return the advice on `findings`, given the names that are in the directory now."""
    taken = os.listdir(reader.path)
    return advise(findings, preview, taken=taken, is_salvageable=is_salvageable)


def told_next(reader: JournalReader, advice: Advice) -> str:
    """Return what the findings mean, what is safe, and what to type next."""
    path = reader.path
    if sentence := _WITHOUT_LOSS.get(advice.action):
        return sentence.format(
            checkpoint_lsn=advice.checkpoint_lsn,
            frames=command("log", path, "--frames"),
            info=command("info", path),
            repair=command("repair", path),
        )
    damaged = f"what was durable is damaged; nothing was changed. {_told_safe(reader, advice)}"
    if advice.action is Action.RENAME:
        return (
            f"{damaged}Next: copy the directory; files of it have each other's names, or wrong "
            f"ones: give back those that their headers say: {rename_commands(path, advice)}; then "
            f"look again: {command('verify', path)}"
        )
    if advice.copies:
        damaged += f"{describe_copies(path, advice)} "
    copy = "Next: copy the directory; restore a backup of it, if there is one; if not, see "
    if advice.action is Action.RESTORE_BACKUP:
        return (
            f"{damaged}What the log should go on from is missing, so no repair makes it open. "
            f"{copy}what is left: {command('log', path)}"
        )
    salvage = ["--salvage"] * (advice.action is Action.SALVAGE)
    return f"{damaged}{copy}what a repair would keep and cut: {command('repair', path, *salvage)}"


def _told_safe(reader: JournalReader, advice: Advice) -> str:
    """Return up to where the log can be read, and the newest state that is whole."""
    path, lsn = reader.path, advice.whole_lsn
    safe = ""
    if lsn >= min(reader.first_lsns, default=1):
        safe = f"Up to LSN {lsn} all is whole: {command('log', path, '--to-lsn', lsn)}. "
    at = max(lsn, advice.checkpoint_lsn)
    if is_managers(reader) and (safe or at > lsn):
        safe += f"The fleet as of LSN {at}: {command('agents', path, '--at', at)}. "
    return safe


def rename_commands(path: str, advice: Advice) -> str:
    """Return the commands that make the renames of `advice` in the directory `path`."""
    moves = [["mv", "-n", "--", *(str(Path(path, it)) for it in pair)] for pair in advice.renames]
    return " && ".join(map(join, moves))


def describe_copies(path: str, advice: Advice) -> str:
    """Return a sentence for each copy in the directory `path`, after comparing the files."""
    return " ".join(
        f"{file} {_describe_copy(Path(path, file), Path(path, name))}; "
        "what the log had there is not in it."
        for file, name in advice.copies
    )


def _describe_copy(file: Path, name: Path) -> str:
    if filecmp.cmp(file, name, shallow=False):
        return f"is a copy of {name.name}"
    return f"has the header of {name.name}, which is there too, and other bytes than that"
