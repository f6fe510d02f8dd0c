"""verify: every segment and checkpoint looked at, what is wrong with them, and what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from journal import Finding, JournalReader, RecoveryPreview
from journal_inspect.commands.next_steps import advice_on, told_next
from journal_inspect.diagnosis import damage
from journal_inspect.diagnosis.damage import AfterDamage, read_after_damage
from journal_inspect.exits import CORRUPT, FINE, NEGATIVE
from journal_inspect.rendering.objects import JSON, as_object, dumps, put_objects, versioned
from journal_inspect.rendering.progress import bar
from journal_inspect.rendering.renderer import Renderer
from journal_inspect.rendering.text import escaped, painted, put_lines, say, size

_EXITS = {"corruption": CORRUPT, "torn_tail": NEGATIVE, "bad_checkpoint": NEGATIVE, "stray": FINE}


def show_findings(reader: JournalReader, renderer: Renderer, *, from_lsn: int) -> int:
    """One object or line for each finding as it is found, then one for all of them."""
    by_kind: dict[str, list[Finding]] = {}

    def findings() -> Iterator[Finding]:
        for finding in _verified(reader, from_lsn):
            by_kind.setdefault(finding.kind, []).append(finding)
            yield finding

    found: list[JSON] = []
    if renderer.form == "text":
        put_lines(map(_line, findings()))
    elif renderer.form == "jsonl":
        put_objects(map(as_object, findings()), renderer.form)
    else:
        found = list(map(as_object, findings()))
    kinds = Counter({kind: len(group) for kind, group in by_kind.items()})
    corruptions = by_kind.get("corruption", [])
    preview = damage.preview_of(reader) if corruptions else None
    lost_lsn = min((finding.lsn for finding in corruptions if finding.lsn), default=None)
    last_good_lsn = damage.last_good_lsn(reader, lost_lsn, preview)
    after_damage = None
    if kinds["corruption"] or kinds["torn_tail"]:
        after_damage = read_after_damage(reader, last_good_lsn, preview)
    looked = ""
    if from_lsn > 1:
        looked = f"; looked at from LSN {_first_checked_lsn(reader, from_lsn)}"
    if renderer.form == "text":
        put_lines(_after_damage_lines(after_damage))
        if lost_lsn and lost_lsn <= last_good_lsn:
            print(f"of the past     {_describe_past(lost_lsn, preview)}")
        what = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "no findings"
        if not reader.first_lsns and kinds.keys() <= {"stray"}:
            what += "; the journal is empty: no segment, no checkpoint"
        print(f"last good LSN {last_good_lsn}; {what}{looked}")
    else:
        summary = _summary(reader, last_good_lsn, kinds, after_damage)
        print(dumps(summary | {"findings": found} if renderer.form == "json" else summary))
    is_salvageable = after_damage is not None and bool(after_damage.readable)
    for group in by_kind.values():
        advice = advice_on(reader, group, preview, is_salvageable=is_salvageable)
        say(f"{reader.path}: {told_next(reader, advice)}")
    code = max((_EXITS[kind] for kind in kinds), default=FINE)
    if from_lsn > 1 and from_lsn > reader.last_lsn:
        say(f"{reader.path}: nothing from LSN {from_lsn} on: the log ends at LSN {reader.last_lsn}")
        return max(code, NEGATIVE)
    return code


def _first_checked_lsn(reader: JournalReader, from_lsn: int) -> int:
    """Whole segments are."""
    first_lsns = reader.first_lsns
    begun = [first_lsn for first_lsn in first_lsns if first_lsn <= from_lsn]
    return max(begun, default=min(first_lsns, default=from_lsn))


def _verified(reader: JournalReader, from_lsn: int) -> Iterable[Finding]:
    with bar("verify", reader) as progress:
        if progress is None:
            yield from reader.verify(from_lsn=from_lsn)
            return
        # On one terminal a bar and lines would write over each other.
        found = list(reader.verify(from_lsn=from_lsn, progress=progress))
    yield from found


def _line(finding: Finding) -> str:
    kind = painted(finding.kind, f"{finding.kind:<14}")
    lsn = f", LSN {finding.lsn}" if finding.lsn else ""
    place = f"{finding.path}: offset {finding.offset}{lsn}, {size(finding.size_bytes)}"
    return f"{kind}  {escaped(f'{place}: {finding.message}')}"


def _after_damage_lines(after_damage: AfterDamage | None) -> Iterator[str]:
    if after_damage is None:
        return
    if after_damage.lost or after_damage.is_open_ended:
        lost = damage.describe_lost(after_damage)
        yield f"{painted('lost', 'lost          ')}  {lost}"
        yield f"of it readable  {damage.describe_ranges(after_damage.readable)}"
        if after_damage.unreadable:
            yield f"not readable    {damage.describe_unreadable(after_damage)}"
    if after_damage.cut:
        yield f"behind a cut    {damage.describe_ranges(after_damage.cut)}, no part of the log"


def _describe_past(lost_lsn: int, preview: RecoveryPreview | None) -> str:
    at = f" at LSN {preview.checkpoint_lsn}" if preview else ""
    return f"the log is not whole from LSN {lost_lsn} on; the checkpoint{at} holds what came of it"


def _summary(
    reader: JournalReader, last_good_lsn: int, kinds: Counter[str], after_damage: AfterDamage | None
) -> dict[str, JSON]:
    is_lost = after_damage is not None and after_damage.lost
    return versioned(
        kind="summary",
        path=reader.path,
        last_good_lsn=last_good_lsn,
        counts={kind: kinds[kind] for kind in _EXITS},
        first_lost_lsn=last_good_lsn + 1 if is_lost else None,
        last_lost_lsn=after_damage.last_lsn if after_damage and is_lost else None,
        readable=damage.as_json(after_damage.readable if after_damage else []),
        cut=damage.as_json(after_damage.cut if after_damage else []),
    )
