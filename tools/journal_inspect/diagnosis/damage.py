"""Damage: the records after the last good LSN, and which of them can still be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from _journal_console.text import count_of

from journal import FrameInfo, JournalReader, RecoveryPreview
from journal_inspect.rendering.entries import is_managers
from journal_inspect.rendering.kinds import agent_of, is_agent_id, kind_of, name_of
from journal_inspect.rendering.objects import JSON

Range = tuple[int, int]  # the first and the last LSN
_RANGES_SHOWN = 5
CHECKPOINTS_KEPT = 2  # at least, by every writer


@dataclass(slots=True)
class Loss:
    """The records of one agent, or of none, that a cut would remove."""

    records: int = 0
    first_lsn: int = 0
    last_lsn: int = 0
    name: str | None = None
    kinds: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class AfterDamage:
    """The state of the records after the last good LSN."""

    last_good_lsn: int

    last_lsn: int
    """The highest LSN that anything on disk proves to have existed."""

    readable: list[Range]
    """The LSNs in whole frames after `last_good_lsn`."""

    cut: list[Range]
    """The LSNs in whole frames after a cut, which are not part of the log."""

    losses: dict[str | None, Loss]

    is_open_ended: bool = False
    """True if the last segment has neither a whole header nor a whole frame, or was replaced by a
    file that does not belong there. Then nothing says how far the log went."""

    @property
    def lost(self) -> int:
        return self.last_lsn - self.last_good_lsn

    @property
    def first_lost_lsn(self) -> int | None:
        """The first lost LSN. None if nothing is lost."""
        return self.last_good_lsn + 1 if self.lost or self.is_open_ended else None

    @property
    def last_lost_lsn(self) -> int | None:
        """The last lost LSN. None if nothing is lost, or nothing says how far the log went."""
        return self.last_lsn if self.lost and not self.is_open_ended else None

    @property
    def unreadable(self) -> int:
        return self.lost - count_lsns(self.readable)


def preview_of(reader: JournalReader) -> RecoveryPreview | None:
    """Return the forecast of the next open, or None if a writer is running: its log still grows."""
    return None if reader.live else reader.preview_recovery()


def last_good_lsn(
    reader: JournalReader, lost_lsn: int | None, preview: RecoveryPreview | None
) -> int:
    """Return the LSN up to which an open recovers everything, or a repair would keep it.

    `lost_lsn`: the first LSN that is known to be lost.
    """
    if preview:
        return preview.last_lsn
    return lost_lsn - 1 if lost_lsn else reader.last_lsn


def read_after_damage(
    reader: JournalReader, last_good_lsn: int, preview: RecoveryPreview | None
) -> AfterDamage:
    """Return what is known of the records after `last_good_lsn`, in the log or after a cut.

    Files that an open would set aside prove nothing, so they are ignored.
    """
    if preview and preview.fixes and not preview.is_cut:
        return AfterDamage(last_good_lsn, last_good_lsn, [], [], {})
    aside = preview.aside if preview else ()
    segments = [
        file for file in reader.files() if file.kind == "segment" and file.name not in aside
    ]
    newest = max({segment.lsn for segment in segments} & set(reader.first_lsns), default=0)
    is_replaced = newest <= last_good_lsn and any(
        file.kind == "segment" and file.name in aside and file.lsn == last_good_lsn + 1
        for file in reader.files()
    )
    evidence_lsn = max(last_good_lsn, _evidence_lsn(reader, preview), newest - 1)
    after_damage = AfterDamage(last_good_lsn, evidence_lsn, [], [], {}, is_replaced)
    readable: list[Range] = []
    cut: list[Range] = []
    of_agents = is_managers(reader)
    for info in reader.frames():
        if info.file.name in aside:
            continue
        if info.state == "garbage" and not info.offset and info.file.lsn == newest:
            after_damage.is_open_ended = True
        if info.state in ("log", "dead", "mark"):
            after_damage.is_open_ended = is_replaced
            after_damage.last_lsn = max(after_damage.last_lsn, info.durable_lsn)
        if info.state == "cut" and info.count:
            cut.append((info.first_lsn, info.last_lsn))
        elif info.state in ("log", "dead") and info.last_lsn > last_good_lsn:
            first_lsn = max(info.first_lsn, last_good_lsn + 1)
            after_damage.last_lsn = max(after_damage.last_lsn, info.last_lsn)
            readable.append((first_lsn, info.last_lsn))
            _count(after_damage.losses, info, first_lsn, of_agents=of_agents)
    after_damage.readable, after_damage.cut = merged(readable), merged(cut)
    return after_damage


def _evidence_lsn(reader: JournalReader, preview: RecoveryPreview | None) -> int:
    """Return the highest LSN that a checkpoint proves the log once reached."""
    if preview:
        return preview.evidence_lsn
    return max(verified_lsns(reader), default=0)


def verified_lsns(reader: JournalReader) -> list[int]:
    """Return the LSNs of the checkpoints that verify, newest first."""
    checkpoints = reader.checkpoints()
    for checkpoint in checkpoints:
        checkpoint.close()
    return [checkpoint.lsn for checkpoint in checkpoints]


def _count(
    losses: dict[str | None, Loss], info: FrameInfo, first_lsn: int, *, of_agents: bool
) -> None:
    """Count the records of a frame from `first_lsn` on. `of_agents`: the journal is known to be a
    manager's. Damage may hide that, but then ids of agents show it."""
    for lsn, record in enumerate(info.records or (), info.first_lsn):
        if lsn < first_lsn:
            continue
        agent_id = agent_of(record)
        if agent_id and not of_agents and not is_agent_id(agent_id):
            agent_id = None
        loss = losses.setdefault(agent_id, Loss(first_lsn=lsn))
        loss.records += 1
        loss.last_lsn = lsn
        loss.name = loss.name or (name_of(record) if agent_id else None)
        loss.kinds[kind_of(record)] += 1


def exposed_lsns(reader: JournalReader, unreadable: list[Range]) -> list[int]:
    """Return the LSNs of the kept checkpoints after which records can't be read, so that an open
    could not fall back on them."""
    kept = verified_lsns(reader)[:CHECKPOINTS_KEPT]
    return [lsn for lsn in kept if any(lsn < last for _, last in unreadable)]


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return the same LSNs in as few ranges as possible, ascending."""
    merged_ranges: list[Range] = []
    for first, last in sorted(ranges):
        if merged_ranges and first <= merged_ranges[-1][1] + 1:
            merged_ranges[-1] = (merged_ranges[-1][0], max(merged_ranges[-1][1], last))
        else:
            merged_ranges.append((first, last))
    return merged_ranges


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return the ranges in their order, with each one that continues the one before joined to
    it."""
    runs: list[Range] = []
    for first, last in ranges:
        if runs and first == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], last)
        else:
            runs.append((first, last))
    return runs


def count_lsns(ranges: Iterable[Range]) -> int:
    return sum(last - first + 1 for first, last in ranges)


def describe_ranges(ranges: list[Range]) -> str:
    """Describe ranges: `LSN 4, 7 to 9 (4 records)`."""
    if not ranges:
        return "none"
    spans = [str(a) if a == b else f"{a} to {b}" for a, b in ranges[:_RANGES_SHOWN]]
    more = (
        f" and {count_of(len(ranges) - len(spans), 'more range')}" if ranges[len(spans) :] else ""
    )
    return f"LSN {', '.join(spans)}{more} ({count_of(count_lsns(ranges), 'record')})"


def describe_lost(after_damage: AfterDamage) -> str:
    """Describe which records are lost, as far as that is known."""
    lost = "none"
    if after_damage.lost:
        lost = describe_ranges([(after_damage.last_good_lsn + 1, after_damage.last_lsn)])
    if not after_damage.is_open_ended:
        return lost
    unknown = f"any records after LSN {after_damage.last_lsn}"
    return f"{lost} and {unknown}" if after_damage.lost else unknown


def describe_unreadable(after_damage: AfterDamage, *, of_agents: bool) -> str:
    """Describe the number of lost records that can't be read. `of_agents`: each was of an agent."""
    unknown = "; it is unknown which agents they were of" if of_agents else ""
    return f"{after_damage.unreadable} of the lost records{unknown}"


def as_json(ranges: Iterable[Range]) -> JSON:
    return [{"first_lsn": first, "last_lsn": last} for first, last in ranges]
