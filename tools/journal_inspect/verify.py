"""verify: every segment and checkpoint looked at, what is wrong with them, and what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from journal import Finding, JournalReader
from journal_inspect import damage
from journal_inspect.damage import Behind, look_behind
from journal_inspect.entries import is_managers
from journal_inspect.exits import CORRUPT, FINE, NEGATIVE
from journal_inspect.look import Look
from journal_inspect.objects import JSON, as_object, dumps, put_objects, versioned
from journal_inspect.progress import bar
from journal_inspect.text import command, escaped, painted, put_lines, say, size

_EXITS = {"corruption": CORRUPT, "torn_tail": NEGATIVE, "bad_checkpoint": NEGATIVE, "stray": FINE}


def show_findings(reader: JournalReader, look: Look, *, from_lsn: int) -> int:
    """One object or line for each finding as it is found, then one for all of them."""
    kinds: Counter[str] = Counter()
    lost_lsns: list[int] = []

    def findings() -> Iterator[Finding]:
        for finding in _verified(reader, from_lsn):
            kinds[finding.kind] += 1
            if finding.kind == "corruption" and finding.lsn:
                lost_lsns.append(finding.lsn)
            yield finding

    found: list[JSON] = []
    if look.form == "text":
        put_lines(map(_line, findings()))
    elif look.form == "jsonl":
        put_objects(map(as_object, findings()), look.form)
    else:
        found = list(map(as_object, findings()))
    last_good_lsn = min(lost_lsns) - 1 if lost_lsns else reader.last_lsn
    behind = None
    if kinds["corruption"] or kinds["torn_tail"]:
        behind = look_behind(reader, last_good_lsn)
    looked = ""
    if from_lsn > 1:
        looked = f"; looked at from LSN {_first_looked_at(reader, from_lsn)}"
    if look.form == "text":
        put_lines(_behind_lines(behind))
        what = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no findings"
        print(f"last good LSN {last_good_lsn}; {what}{looked}")
    else:
        summary = _summary(reader, last_good_lsn, kinds, behind)
        print(dumps(summary | {"findings": found} if look.form == "json" else summary))
    for kind in kinds:
        say(f"{reader.path}: {_advice(reader, kind, last_good_lsn, behind)}")
    code = max((_EXITS[kind] for kind in kinds), default=FINE)
    if from_lsn > 1 and from_lsn > reader.last_lsn:
        say(f"{reader.path}: nothing from LSN {from_lsn} on: the log ends at LSN {reader.last_lsn}")
        return max(code, NEGATIVE)
    return code


def _first_looked_at(reader: JournalReader, from_lsn: int) -> int:
    """Whole segments are."""
    first_lsns = reader.first_lsns
    begun = [first_lsn for first_lsn in first_lsns if first_lsn <= from_lsn]
    return max(begun, default=min(first_lsns, default=from_lsn))


def _verified(reader: JournalReader, from_lsn: int) -> Iterable[Finding]:
    with bar("verify", reader.path) as progress:
        if progress is None:
            yield from reader.verify(from_lsn=from_lsn)
            return
        # On one terminal a bar and lines would write over each other.
        found = list(reader.verify(from_lsn=from_lsn, progress=progress))
    yield from found


def _line(finding: Finding) -> str:
    kind = painted(finding.kind, f"{finding.kind:<14}")
    place = (
        f"{finding.path}: offset {finding.offset}, LSN {finding.lsn}, {size(finding.size_bytes)}"
    )
    return f"{kind}  {escaped(f'{place}: {finding.message}')}"


def _behind_lines(behind: Behind | None) -> Iterator[str]:
    if behind is None:
        return
    if behind.lost or behind.is_open_ended:
        lost = damage.told_lost(behind)
        yield f"{painted('lost', 'lost          ')}  {lost}"
        yield f"of it readable  {damage.told(behind.readable)}"
    if behind.cut:
        yield f"behind a cut    {damage.told(behind.cut)}, no part of the log"


def _summary(
    reader: JournalReader, last_good_lsn: int, kinds: Counter[str], behind: Behind | None
) -> dict[str, JSON]:
    is_lost = behind is not None and behind.lost
    return versioned(
        kind="summary",
        path=reader.path,
        last_good_lsn=last_good_lsn,
        counts={kind: kinds[kind] for kind in _EXITS},
        first_lost_lsn=last_good_lsn + 1 if is_lost else None,
        last_lost_lsn=behind.last_lsn if behind and is_lost else None,
        readable=damage.as_json(behind.readable if behind else []),
        cut=damage.as_json(behind.cut if behind else []),
    )


def _has_a_start(reader: JournalReader, last_good_lsn: int) -> bool:
    """Whether there is a checkpoint, or the log's beginning, without which repair refuses."""
    checkpoints = reader.checkpoints()
    for checkpoint in checkpoints:
        checkpoint.close()
    is_checkpoint = any(checkpoint.lsn <= last_good_lsn for checkpoint in checkpoints)
    return is_checkpoint or min(reader.first_lsns, default=1) == 1


def _advice(reader: JournalReader, kind: str, last_good_lsn: int, behind: Behind | None) -> str:
    path = reader.path
    if kind == "corruption":
        salvage = ["--salvage"] if behind and behind.readable else []
        safe = ""
        if last_good_lsn >= min(reader.first_lsns, default=1):
            safe = f"Up to LSN {last_good_lsn} all is whole: "
            safe += command("log", path, "--to-lsn", last_good_lsn)
            if is_managers(reader):
                safe += f" or {command('agents', path, '--at', last_good_lsn)}"
            safe += ". "
        if not _has_a_start(reader, last_good_lsn):
            return (
                "what was durable is damaged; nothing was changed. "
                f"{safe}What the log should go on from is missing, so no repair makes it open. "
                "Next: copy the directory; restore a backup of it, if there is one; if not, see "
                f"what is left: {command('log', path)}"
            )
        return (
            f"what was durable is damaged; nothing was changed. {safe}"
            "Next: copy the directory; restore a backup of it, if there is one; if not, see what "
            f"a repair would keep and cut: {command('repair', path, *salvage)}"
        )
    if kind == "torn_tail":
        return (
            "a crash left a torn tail; nothing in the journal says that it was acknowledged; the "
            "next open leaves it behind, so nothing need be done; its bytes: "
            f"{command('log', path, '--frames')}"
        )
    if kind == "bad_checkpoint":
        return (
            "a checkpoint does not verify; an open takes an older one, or the log; what it would "
            f"do: {command('info', path)}"
        )
    return "files that an open does not read; move them out of the directory if nobody knows them"
