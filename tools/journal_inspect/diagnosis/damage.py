"""Damage: what lies behind the last good LSN. What is lost, and what of it can still be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from journal import FrameInfo, JournalReader, RecoveryPreview
from journal_inspect.rendering.kinds import agent_of, kind_of, name_of
from journal_inspect.rendering.objects import JSON
from journal_inspect.rendering.text import count_of

Range = tuple[int, int]  # of LSNs, from and to
_RANGES_SHOWN = 5


@dataclass(slots=True)
class Loss:
    """Records of one agent, or of nobody, that a cut would take."""

    records: int = 0
    first_lsn: int = 0
    last_lsn: int = 0
    name: str | None = None
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class AfterDamage:
    """`readable`: LSNs in whole frames behind `last_good_lsn`; `last_lsn`: the highest that
    anything tells of; `cut`: LSNs in whole frames behind a cut, which are no part of the log."""

    last_good_lsn: int
    last_lsn: int
    readable: list[Range]
    cut: list[Range]
    losses: dict[str | None, Loss]
    is_open_ended: bool = False  # of the last segment neither the header is whole nor a frame

    @property
    def lost(self) -> int:
        return self.last_lsn - self.last_good_lsn

    @property
    def unreadable(self) -> int:
        return self.lost - count_lsns(self.readable)


def preview_of(reader: JournalReader) -> RecoveryPreview | None:
    """None beside a live writer: the end of its log is moving."""
    return None if reader.live else reader.preview_recovery()


def last_good_lsn(
    reader: JournalReader, lost_lsn: int | None, preview: RecoveryPreview | None
) -> int:
    """Up to which an open has everything, or else a repair would keep it; `lost_lsn` is the first
    that is known to be lost."""
    if preview:
        return preview.last_lsn
    return lost_lsn - 1 if lost_lsn else reader.last_lsn


def read_after_damage(
    reader: JournalReader, last_good_lsn: int, preview: RecoveryPreview | None = None
) -> AfterDamage:
    """What follows `last_good_lsn`, whether the log still goes there or not. What is only in the
    way tells nothing."""
    aside = preview.aside if preview else ()
    segments = [
        checkpoint
        for checkpoint in reader.files()
        if checkpoint.kind == "segment" and checkpoint.name not in aside
    ]
    last = max({checkpoint.lsn for checkpoint in segments} & set(reader.first_lsns), default=0)
    evidence_lsn = max(last_good_lsn, _evidence_lsn(reader, preview), last - 1)
    found = AfterDamage(last_good_lsn, evidence_lsn, [], [], {})
    readable: list[Range] = []
    cut: list[Range] = []
    for info in reader.frames():
        if info.file.name in aside:
            continue
        if info.state == "garbage" and not info.offset and info.file.lsn == last:
            found.is_open_ended = True
        if info.state in ("log", "dead", "mark"):
            found.is_open_ended = False
            found.last_lsn = max(found.last_lsn, info.durable_lsn)
        if info.state == "cut" and info.count:
            cut.append((info.first_lsn, info.last_lsn))
        elif info.state in ("log", "dead") and info.last_lsn > last_good_lsn:
            first_lsn = max(info.first_lsn, last_good_lsn + 1)
            found.last_lsn = max(found.last_lsn, info.last_lsn)
            readable.append((first_lsn, info.last_lsn))
            _count(found.losses, info, first_lsn)
    found.readable, found.cut = merged(readable), merged(cut)
    return found


def _evidence_lsn(reader: JournalReader, preview: RecoveryPreview | None) -> int:
    """Return the LSN up to which a checkpoint says that there was a log."""
    if preview:
        return preview.evidence_lsn
    checkpoints = reader.checkpoints()
    for checkpoint in checkpoints:
        checkpoint.close()
    return max((checkpoint.lsn for checkpoint in checkpoints), default=0)


def _count(losses: dict[str | None, Loss], info: FrameInfo, first_lsn: int) -> None:
    for lsn, record in enumerate(info.records or (), info.first_lsn):
        if lsn < first_lsn:
            continue
        loss = losses.setdefault(agent_of(record), Loss(first_lsn=lsn))
        loss.records += 1
        loss.last_lsn = lsn
        loss.name = loss.name or name_of(record)
        loss.kinds[kind_of(record)] += 1


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same LSNs in as few ranges as can be, ascending."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


def count_lsns(ranges: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def describe_ranges(ranges: list[Range]) -> str:
    """For people: `LSN 4, 7 to 9 (4 records)`."""
    if not ranges:
        return "none"
    spans = [str(a) if a == b else f"{a} to {b}" for a, b in ranges[:_RANGES_SHOWN]]
    more = (
        f" and {count_of(len(ranges) - len(spans), 'more range')}" if ranges[len(spans) :] else ""
    )
    return f"LSN {', '.join(spans)}{more} ({count_of(count_lsns(ranges), 'record')})"


def describe_lost(after_damage: AfterDamage) -> str:
    """For people, as much as is known of it."""
    if not after_damage.lost:
        return (
            f"what followed LSN {after_damage.last_good_lsn}"
            if after_damage.is_open_ended
            else "none"
        )
    lost = describe_ranges([(after_damage.last_good_lsn + 1, after_damage.last_lsn)])
    return f"{lost} and what followed" if after_damage.is_open_ended else lost


def describe_unreadable(after_damage: AfterDamage) -> str:
    """For people: what is told of the lost, by agent too, is not all of it."""
    return f"{count_of(after_damage.unreadable, 'lost record')}; nothing tells whose"


def as_json(ranges: Iterable[Range]) -> JSON:
    return [{"first_lsn": first, "last_lsn": last} for first, last in ranges]
