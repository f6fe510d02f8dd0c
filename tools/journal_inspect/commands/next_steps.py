"""Next steps: the advice on damage as sentences, with the commands to type."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Sequence
from pathlib import Path

from journal import Finding, JournalReader, RecoveryPreview
from journal_inspect.diagnosis.advice import Action, Advice, advise
from journal_inspect.rendering.entries import is_managers
from journal_inspect.rendering.text import command

_WITHOUT_LOSS = {
    Action.NOTHING: (
        "a torn tail: a crash left a commit unfinished, and nothing in the journal says that it "
        "was acknowledged, or a repair cut it off; an open passes over it, so nothing needs to be "
        "done; see its bytes: {frames}"
    ),
    Action.MOVE_STRAYS: (
        "stray files, which an open does not read; move them out of the directory if nobody needs "
        "them"
    ),
    Action.SEE_INFO: (
        "a checkpoint does not verify; an open uses an older one, or the log; see what an open "
        "would do: {info}; to see what is left of the checkpoint, read the file: it is text, one "
        "item a line"
    ),
    Action.UPGRADE: (
        "a newer version of the format wrote a checkpoint, so this version can't open the journal; "
        "open it with a newer journal-engine"
    ),
    Action.RESUME_WRITING: (
        "it opens as it is: the checkpoint at LSN {checkpoint_lsn} holds the state after the "
        "damage, and the log after it is whole; next: copy the directory, then let its writer "
        "continue; after two more checkpoints, the damaged files are no longer kept"
    ),
    Action.SET_ASIDE: (
        "no record is lost, but files that hold no record of the log keep it from opening; nothing "
        "was changed; next: copy the directory, then see what a repair would set aside: {repair}"
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
    """Describe what the findings mean, which records are safe, and what to type next."""
    path = reader.path
    if sentence := _WITHOUT_LOSS.get(advice.action):
        return sentence.format(
            checkpoint_lsn=advice.checkpoint_lsn,
            frames=command("log", path, "--frames"),
            info=command("info", path),
            repair=command("repair", path),
        )
    damaged = f"durable records are damaged; nothing was changed; {_describe_safe(reader, advice)}"
    if advice.action is Action.FIX:
        return (
            f"{damaged}next: copy the directory; a repair fixes wrong names and damaged headers of "
            "segments, and cuts only what is still damaged after that; see what it would do: "
            f"{command('repair', path)}"
        )
    if advice.copies:
        damaged += f"{describe_copies(path, advice)}; "
    copy = "next: copy the directory; restore a backup if there is one; if not, see "
    if advice.action is Action.RESTORE_BACKUP:
        return (
            f"{damaged}the beginning of the log is missing, and no checkpoint replaces it, so no "
            f"repair can make the journal open; {copy}what is left: {command('log', path)}"
        )
    salvage = ["--salvage"] * (advice.action is Action.SALVAGE)
    return f"{damaged}{copy}what a repair would keep and cut: {command('repair', path, *salvage)}"


def _describe_safe(reader: JournalReader, advice: Advice) -> str:
    """Return the commands that show the readable part of the log and the newest whole state."""
    path, lsn = reader.path, advice.whole_lsn
    safe = ""
    if lsn >= min(reader.first_lsns, default=1):
        safe = f"everything up to LSN {lsn} is whole: {command('log', path, '--to-lsn', lsn)}; "
    at = max(lsn, advice.checkpoint_lsn)
    if is_managers(reader) and (safe or at > lsn):
        safe += f"the fleet as of LSN {at}: {command('agents', path, '--at', at)}; "
    return safe


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
