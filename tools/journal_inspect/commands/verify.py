"""verify: check every segment and checkpoint, and show the damage and what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from _journal_console.exits import CORRUPT, FINE, NEGATIVE
from _journal_console.text import count_of, escaped, painted, put_lines, wrapped

from journal import (
    DamageReason,
    Finding,
    JournalReader,
    RecoveryPreview,
    SegmentInfo,
    UnsafePathError,
    preview_recovery,
)
from journal_inspect.commands.next_steps import advice_on, next_steps
from journal_inspect.diagnosis import damage
from journal_inspect.diagnosis.damage import AfterDamage, read_after_damage
from journal_inspect.diagnosis.mirrored import mirror_of
from journal_inspect.diagnosis.retention import list_files
from journal_inspect.rendering.entries import is_managers
from journal_inspect.rendering.messages import say, say_commands
from journal_inspect.rendering.objects import JSON, as_object, dumps, put_objects, versioned
from journal_inspect.rendering.progress import bar
from journal_inspect.rendering.renderer import Renderer

# A corruption is one of these only if an open would refuse.
_EXITS = {"corruption": CORRUPT, "torn_tail": NEGATIVE, "bad_checkpoint": NEGATIVE, "stray": FINE}


_GAPS = (DamageReason.GAP, DamageReason.BEGINNING_MISSING)
_NAME_WIDTH = 14


def show_findings(reader: JournalReader, renderer: Renderer, *, from_lsn: int) -> int:
    """Print a verdict, the findings and what they mean, or each finding as a line of JSON as soon
    as it is found. Return the exit code."""
    by_kind: dict[str, list[Finding]] = {}
    segments: list[SegmentInfo] = []
    unsafe: list[UnsafePathError] = []  # at most one, for which an open refuses whatever is found

    def findings() -> Iterator[Finding]:
        for finding in _verified(reader, from_lsn, segments, unsafe):
            by_kind.setdefault(finding.kind, []).append(finding)
            yield finding

    objects: list[JSON] = []
    if renderer.form == "jsonl":
        put_objects(map(as_object, findings()), renderer.form)
    else:
        objects = list(map(as_object, findings()))
    kinds = Counter({kind: len(group) for kind, group in by_kind.items()})
    corruptions = by_kind.get("corruption", [])
    preview = damage.preview_of(reader) if corruptions and not unsafe else None
    lost_lsn = min((finding.lsn for finding in corruptions if finding.lsn), default=None)
    last_good_lsn = damage.last_good_lsn(reader, lost_lsn, preview)
    after_damage = None
    if kinds["corruption"] or kinds["torn_tail"]:
        after_damage = read_after_damage(reader, last_good_lsn, preview)
    code = max((_EXITS[kind] for kind in kinds), default=FINE)
    is_unmarked = any(each.reason is DamageReason.MIRROR_DAMAGED for each in corruptions)
    if code == CORRUPT and not (is_unmarked or is_refused(reader, preview)):
        code = NEGATIVE
    if renderer.form == "text":
        checked = ""
        if from_lsn > 1:
            checked = f", checked from LSN {_first_checked_lsn(reader, from_lsn)}"
        has_way = mirror_of(reader.path) is not None and not unsafe
        verdict = f"{reader.path}: {_verdict(reader, kinds, code, has_mirror=has_way)}"
        if unsafe and code != CORRUPT:
            verdict += " But an open refuses the directory."
        put_lines(wrapped(escaped(verdict), indent=0))
        put_lines(_lines(by_kind))
        put_lines(_row("good", f"up to LSN {last_good_lsn}{checked}"))
        put_lines(_after_damage_lines(reader, after_damage))
        if preview and preview.fixes:
            fixable = f"{count_of(preview.fixes, 'file')} by a repair, without any loss"
            put_lines(_row("fixable", fixable))
        checkpoint_lsn = preview.checkpoint_lsn if preview else last_good_lsn
        if covered := _covered(corruptions, segments, checkpoint_lsn):
            put_lines(_row("history", _describe_covered(covered, preview)))
        put_lines(_fallback_lines(reader, covered))
    else:
        summary = _summary(reader, last_good_lsn, kinds, after_damage)
        print(dumps(summary | {"findings": objects} if renderer.form == "json" else summary))
    for group in by_kind.values():
        advice = advice_on(reader, group, preview, after_damage)
        meaning, steps = next_steps(reader, advice, len(group))
        say(f"{reader.path}: {meaning}" + ":" * bool(steps))
        say_commands(steps)
    if unsafe:
        raise unsafe[0]
    if from_lsn > 1 and from_lsn > reader.last_lsn:
        end = f"the log ends at LSN {reader.last_lsn}"
        say(f"{reader.path}: no record from LSN {from_lsn} on; {end}")
        return max(code, NEGATIVE)
    return code


def is_refused(reader: JournalReader, preview: RecoveryPreview | None) -> bool:
    """Return whether the next open would refuse. `preview` is None beside a live writer; then judge
    by what the files hold now, as `info` does."""
    if preview is None:
        preview = preview_recovery(*list_files(reader), reader.journal_id)
    return preview.problem is not None


def _first_checked_lsn(reader: JournalReader, from_lsn: int) -> int:
    """Return the first LSN of the segment with `from_lsn`: whole segments are checked."""
    first_lsns = reader.first_lsns
    begun = [first_lsn for first_lsn in first_lsns if first_lsn <= from_lsn]
    return max(begun, default=min(first_lsns, default=from_lsn))


def _verified(
    reader: JournalReader,
    from_lsn: int,
    segments: list[SegmentInfo],
    unsafe: list[UnsafePathError],
) -> Iterable[Finding]:
    """Yield the findings. Append the report on each segment to `segments`, and the error for which
    an open refuses the directory to `unsafe`."""
    findings: list[Finding] = []
    with bar("verify", reader) as progress:
        try:
            if progress is None:
                yield from reader.verify(from_lsn=from_lsn, segments=segments)
                return
            # A progress bar and lines would overwrite each other on a terminal, so the lines wait.
            found = reader.verify(from_lsn=from_lsn, progress=progress, segments=segments)
            findings.extend(found)
        except UnsafePathError as error:
            unsafe.append(error)
    yield from findings


def _verdict(reader: JournalReader, kinds: Counter[str], code: int, *, has_mirror: bool) -> str:
    """Return the condition of the journal in a sentence, and the result of the next open.

    `has_mirror`: an open with the mirror would not refuse.
    """
    if code == CORRUPT:
        without = "An open without its mirror" if has_mirror else "The next open"
        return f"damaged. {without} will refuse; nothing was changed."
    if kinds["corruption"]:
        return "damaged, but no open needs what is damaged."
    if kinds["bad_checkpoint"]:
        return "it opens, but a checkpoint does not verify."
    if not reader.first_lsns:
        return "whole. The journal is empty: it has no segment."
    return "whole." if not kinds["torn_tail"] else "whole, up to a torn tail."


def _row(name: str, value: str) -> Iterator[str]:
    """Yield a name and a value in two columns. On a terminal, a long value is wrapped."""
    first, *more = wrapped(escaped(value), indent=_NAME_WIDTH + 4)
    yield f"  {painted(name, f'{name:<{_NAME_WIDTH}}')}  {first}"
    yield from (f"{'':{_NAME_WIDTH + 4}}{line}" for line in more)


def _lines(by_kind: dict[str, list[Finding]]) -> Iterator[str]:
    findings = [finding for group in by_kind.values() for finding in group]
    foreign = {
        each.file.lsn: each
        for each in findings
        if each.reason is DamageReason.FOREIGN and each.file.kind == "segment"
    }
    # A segment of another journal leaves a gap, which is not damage to the segment beside it. But a
    # gap in a segment that begins at the same LSN is.
    gaps = {
        each.lsn: each
        for each in findings
        if each.reason in _GAPS and each.lsn in foreign and each.file.lsn != each.lsn
    }
    for finding in findings:
        if finding in gaps.values():
            continue
        name = finding.path.rpartition("/")[2]
        at = f" at {finding.offset}" if finding.kind != "stray" else ""
        gap = gaps.get(finding.file.lsn) if finding in foreign.values() else None
        lost = "" if gap is None else damage.describe_ranges([(gap.lsn, gap.last_lsn or gap.lsn)])
        beside = lost and f"; {lost} can't be read"
        yield from _row(finding.kind, f"{name}{at}: {finding.message}{beside}")


def _fallback_lines(reader: JournalReader, covered: list[damage.Range]) -> Iterator[str]:
    for lsn in damage.exposed_lsns(reader, covered):
        yield from _row(
            "fallback",
            f"the checkpoint at LSN {lsn} can't replace a newer one that is damaged: records after "
            "it can't be read",
        )


def _after_damage_lines(reader: JournalReader, after_damage: AfterDamage | None) -> Iterator[str]:
    if after_damage is None:
        return
    if after_damage.lost or after_damage.is_open_ended:
        lost = damage.describe_lost(after_damage)
        is_whole = after_damage.lost and not after_damage.unreadable
        lost += ", all of it readable" * bool(is_whole and not after_damage.is_open_ended)
        yield from _row("lost", lost)
        if not is_whole:
            yield from _row("readable", damage.describe_ranges(after_damage.readable))
        if after_damage.unreadable:
            of_agents = is_managers(reader)
            unreadable = damage.describe_unreadable(after_damage, of_agents=of_agents)
            yield from _row("unreadable", unreadable)
    if after_damage.cut:
        cut = damage.describe_ranges(after_damage.cut)
        yield from _row("after a cut", f"{cut}, not part of the log")


def _covered(
    corruptions: list[Finding], segments: list[SegmentInfo], checkpoint_lsn: int
) -> list[damage.Range]:
    """Return the ranges of LSNs that can't be read, but that the checkpoint covers."""
    # The ends of ranges that a finding lacks, because it has no frame after the damage.
    ends = {(s.path, first_lsn): last_lsn for s in segments for first_lsn, last_lsn in s.unreadable}
    ranges = []
    for finding in corruptions:
        if 0 < finding.lsn <= checkpoint_lsn:
            last_lsn = finding.last_lsn or ends.get((finding.path, finding.lsn))
            last_lsn = last_lsn or finding.durable_lsn or finding.lsn
            ranges.append((finding.lsn, min(last_lsn, checkpoint_lsn)))
    return damage.merged(ranges)


def _describe_covered(covered: list[damage.Range], preview: RecoveryPreview | None) -> str:
    at = f" at LSN {preview.checkpoint_lsn}" if preview else ""
    lsns = damage.describe_ranges(covered)
    return f"{lsns} can't be read. No state is lost: the checkpoint{at} has it"


def _summary(
    reader: JournalReader, last_good_lsn: int, kinds: Counter[str], after_damage: AfterDamage | None
) -> dict[str, JSON]:
    return versioned(
        kind="summary",
        path=reader.path,
        last_good_lsn=last_good_lsn,
        counts={kind: kinds[kind] for kind in _EXITS},
        first_lost_lsn=after_damage.first_lost_lsn if after_damage else None,
        last_lost_lsn=after_damage.last_lost_lsn if after_damage else None,
        readable=damage.as_json(after_damage.readable if after_damage else []),
        cut=damage.as_json(after_damage.cut if after_damage else []),
    )
