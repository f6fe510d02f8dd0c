"""stats: count records and bytes by kind, agent and table, and show batches and growth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import msgpack
from _journal_console.exits import CORRUPT, FINE
from _journal_console.text import count_of, put_facts, put_lines, size, table

from journal import FrameInfo, Histogram, JournalReader, LargeRecord, TableWrite
from journal_inspect.commands.log import Wanted
from journal_inspect.commands.moments import lsn_at
from journal_inspect.diagnosis.damage import preview_of
from journal_inspect.diagnosis.retention import describe_beginning, describe_kept
from journal_inspect.exits import NothingFoundError
from journal_inspect.rendering.kinds import agent_of, kind_of, name_of, writes_of
from journal_inspect.rendering.messages import command, say
from journal_inspect.rendering.objects import JSON, put_one, versioned
from journal_inspect.rendering.progress import bar
from journal_inspect.rendering.renderer import Renderer

_MINUTE_NS = 60 * 10**9
_HOUR_NS = 60 * _MINUTE_NS
_DAY_NS = 24 * 60 * _MINUTE_NS
_PERIODS = 24  # the largest number of periods in which growth is shown
_PRECISE_BITS = 5  # the leading bits that a histogram keeps: at most 1/16 too high


class Values:
    """Values counted by size, in memory that does not grow with their number."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._sum = self._max = 0

    def add(self, value: int) -> None:
        shift = max(0, value.bit_length() - _PRECISE_BITS)
        self._counts[(value >> shift) << shift | (1 << shift) - 1] += 1
        self._sum += value
        self._max = max(self._max, value)

    def histogram(self) -> Histogram:
        count = self._counts.total()
        if not count:
            return Histogram()
        p50, p99, p99_9 = (self._quantile(count * share) for share in (0.5, 0.99, 0.999))
        return Histogram(count, p50, p99, p99_9, self._max, self._sum / count)

    def _quantile(self, rank: float) -> int:
        for value in sorted(self._counts):
            rank -= self._counts[value]
            if rank <= 0:
                return min(value, self._max)
        return self._max


@dataclass(slots=True)
class Share:
    records: int = 0
    bytes: int = 0

    def add(self, size_bytes: int) -> None:
        self.records += 1
        self.bytes += size_bytes


@dataclass(slots=True)
class Contents:
    """The number and packed size of records by kind and by agent, and the agents' names; and those
    of writes by table."""

    kinds: dict[str, Share] = field(default_factory=dict)
    agents: dict[str, Share] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    tables: dict[str, Share] = field(default_factory=dict)

    def add(self, record: Any) -> None:
        size_bytes = _size(record)
        self.kinds.setdefault(kind_of(record), Share()).add(size_bytes)
        agent_id = agent_of(record)
        if agent_id is not None:
            self.agents.setdefault(agent_id, Share()).add(size_bytes)
            if name := name_of(record):
                self.names[agent_id] = name
        for element, write in _writes(record):
            self.tables.setdefault(write.table, Share()).add(_size(element))


def _size(record: Any) -> int:
    return record.size_bytes if isinstance(record, LargeRecord) else len(_pack(record))


def _writes(record: Any) -> Iterator[tuple[Any, TableWrite]]:
    """Yield the elements of a record of tables that are writes, each with what it writes. The
    elements of a large record are made one at a time, and without their large parts."""
    if not isinstance(record, LargeRecord):
        yield from zip(record[1:], writes, strict=True) if (writes := writes_of(record)) else ()
        return
    kind = next(record.elements(), None)
    for element in islice(record.elements(), 1, None):
        parts = element
        if isinstance(element, LargeRecord):
            parts = [b"" if isinstance(part, LargeRecord) else part for part in element.elements()]
        writes = writes_of([kind, parts])
        if not writes:
            return  # then no element is a write
        yield element, writes[0]


@dataclass(slots=True)
class Tally:
    """The counts of frames and records, and the contents of the records."""

    first_lsn: int = 0
    last_lsn: int = 0
    first_at_ns: int = 0
    last_at_ns: int = 0
    frames: int = 0
    total: Share = field(default_factory=Share)
    contents: Contents = field(default_factory=Contents)
    minutes: dict[int, Share] = field(default_factory=dict)
    batch_records: Values = field(default_factory=Values)
    batch_bytes: Values = field(default_factory=Values)
    intervals_ns: Values = field(default_factory=Values)

    def add(self, info: FrameInfo, records: Sequence[Any], first_lsn: int) -> None:
        if self.frames:
            self.intervals_ns.add(max(0, info.written_at_ns - self.last_at_ns))
        else:
            self.first_lsn, self.first_at_ns = first_lsn, info.written_at_ns
        self.frames += 1
        self.last_lsn, self.last_at_ns = first_lsn + len(records) - 1, info.written_at_ns
        self.batch_records.add(len(records))
        self.batch_bytes.add(info.size_bytes)
        minute = self.minutes.setdefault(info.written_at_ns // _MINUTE_NS, Share())
        for share in (minute, self.total):
            share.records += len(records)
            share.bytes += info.size_bytes
        for record in records:
            self.contents.add(record)

    def growth(self) -> Iterator[dict[str, JSON]]:
        """Yield the growth in equal periods of whole minutes."""
        first, last = min(self.minutes), max(self.minutes)
        length = -(-(last - first + 1) // _PERIODS)
        for begin in range(first, last + 1, length):
            inside = [s for m, s in self.minutes.items() if begin <= m < begin + length]
            yield {
                "from_ns": begin * _MINUTE_NS,
                "to_ns": (begin + length) * _MINUTE_NS,
                "records": sum(share.records for share in inside),
                "bytes": sum(share.bytes for share in inside),
            }

    @property
    def bytes_per_day(self) -> int | None:
        """The growth in bytes per day; None if the period is too short to tell."""
        span_ns = self.last_at_ns - self.first_at_ns
        return self.total.bytes * _DAY_NS // span_ns if span_ns >= _HOUR_NS else None


_pack = msgpack.Packer().pack


def show_stats(reader: JournalReader, renderer: Renderer, wanted: Wanted, *, top: int) -> int:
    """Print the figures of the wanted records, and return the exit code.

    Records after damage are counted too, and the damage is reported.
    """
    tally, is_suspect = Tally(), False
    with bar("stats", reader) as progress:
        for info in _frames(reader, renderer, wanted):
            if progress:
                progress(info.size_bytes)
            if info.state in ("dead", "damaged", "garbage"):
                is_suspect = True
            if info.state == "log" and info.records:
                low = max(0, (wanted.from_lsn or 0) - info.first_lsn)
                high = len(info.records)
                if wanted.to_lsn:
                    high = min(high, wanted.to_lsn + 1 - info.first_lsn)
                if low < high:
                    tally.add(info, info.records[low:high], info.first_lsn + low)
    # A torn tail has the same states, but is not damage.
    is_damaged = is_suspect and any(segment.state == "damaged" for segment in reader.segments())
    if is_damaged:
        preview_of(reader)  # raises UnsafePathError if an open needs a file that is not regular
    if not tally.frames and not is_damaged:
        raise NothingFoundError(
            f"{reader.path}: no record matches; {describe_kept(reader)}; see what is in it: "
            f"{command('info', reader.path)}"
        )
    if not tally.frames:
        pass  # the damage is reported below
    elif renderer.form == "text":
        _put(tally, renderer, top)
    else:
        put_one(_object(reader, tally, renderer, top))
    if is_damaged:
        verify_command = command("verify", reader.path)
        say(f"{reader.path}: damaged records were not counted; look closer with: {verify_command}")
    if beginning := describe_beginning(reader):
        say(beginning)
    return CORRUPT if is_damaged or beginning else FINE


def _frames(reader: JournalReader, renderer: Renderer, wanted: Wanted) -> Iterator[FrameInfo]:
    after, to_lsn = (wanted.from_lsn or 1) - 1, wanted.to_lsn
    since_ns = wanted.since.unix_ns(utc=renderer.utc) if wanted.since else None
    until_ns = wanted.until.unix_ns(utc=renderer.utc) if wanted.until else None
    if since_ns is not None:
        after = max(after, lsn_at(reader, since_ns - 1))
    for info in reader.frames(after):
        if to_lsn is not None and info.first_lsn > to_lsn:
            continue
        if info.state == "garbage" or (
            (since_ns is None or info.written_at_ns >= since_ns)
            and (until_ns is None or info.written_at_ns <= until_ns)
        ):
            yield info


def _largest(shares: dict[str, Share], top: int) -> list[tuple[str, Share]]:
    return sorted(shares.items(), key=lambda item: (-item[1].bytes, item[0]))[:top]


def _name(tally: Tally, renderer: Renderer, agent_id: str) -> JSON:
    return renderer.plain({"name": tally.contents.names.get(agent_id)})["name"]


def _table(renderer: Renderer, name: str) -> JSON:
    return renderer.plain({"table": name})["table"]


def _put(tally: Tally, renderer: Renderer, top: int) -> None:
    per_day = tally.bytes_per_day
    put_facts(
        [
            ("LSNs", f"{tally.first_lsn} to {tally.last_lsn}"),
            ("written", f"{renderer.time(tally.first_at_ns)} to {renderer.time(tally.last_at_ns)}"),
            ("records", f"{tally.total.records} in {count_of(tally.frames, 'commit')}"),
            ("size", size(tally.total.bytes)),
            ("growth", "(under an hour of log)" if per_day is None else f"{size(per_day)} a day"),
        ]
    )
    print()
    histograms = (
        ("records per commit", tally.batch_records.histogram(), str),
        ("bytes per commit", tally.batch_bytes.histogram(), size),
        ("between commits", tally.intervals_ns.histogram(), _duration),
    )
    spreads = []
    for name, spread, text_of in histograms:
        figures = spread.p50, spread.p99, spread.p99_9, spread.max, round(spread.mean)
        spreads.append((name, *map(text_of, figures)))
    put_lines(table(("", "P50", "P99", "P99.9", "MAX", "MEAN"), spreads))
    print()
    kinds = [
        (kind, share.records, size(share.bytes))
        for kind, share in _largest(tally.contents.kinds, top)
    ]
    put_lines(table(("KIND", "RECORDS", "SIZE"), kinds, flexible=("KIND",)))
    if tally.contents.agents:
        print()
        agents = [
            (agent_id, _name(tally, renderer, agent_id), share.records, size(share.bytes))
            for agent_id, share in _largest(tally.contents.agents, top)
        ]
        put_lines(table(("AGENT", "NAME", "RECORDS", "SIZE"), agents, flexible=("NAME",)))
    if tally.contents.tables:
        print()
        tables = [
            (_table(renderer, name), share.records, size(share.bytes))
            for name, share in _largest(tally.contents.tables, top)
        ]
        put_lines(table(("TABLE", "WRITES", "SIZE"), tables, flexible=("TABLE",)))
    print()
    growth = [
        (renderer.time(share["from_ns"]), share["records"], size(share["bytes"]))
        for share in tally.growth()
    ]
    put_lines(table(("FROM", "RECORDS", "SIZE"), growth))


def _duration(nanoseconds: int) -> str:
    for unit_ns, unit in ((10**9, "s"), (10**6, "ms"), (10**3, "us")):
        if nanoseconds >= unit_ns:
            return f"{nanoseconds / unit_ns:.1f} {unit}"
    return f"{nanoseconds} ns"


def _object(reader: JournalReader, tally: Tally, renderer: Renderer, top: int) -> JSON:
    return versioned(
        path=reader.path,
        first_lsn=tally.first_lsn,
        last_lsn=tally.last_lsn,
        first_at_ns=tally.first_at_ns,
        last_at_ns=tally.last_at_ns,
        records=tally.total.records,
        frames=tally.frames,
        bytes=tally.total.bytes,
        bytes_per_day=tally.bytes_per_day,
        kinds=[
            {"kind": kind, **asdict(share)} for kind, share in _largest(tally.contents.kinds, top)
        ],
        agents=[
            {"agent_id": agent_id, "name": _name(tally, renderer, agent_id), **asdict(share)}
            for agent_id, share in _largest(tally.contents.agents, top)
        ],
        tables=[
            {"table": _table(renderer, name), "writes": share.records, "bytes": share.bytes}
            for name, share in _largest(tally.contents.tables, top)
        ],
        batch_records=asdict(tally.batch_records.histogram()),
        batch_bytes=asdict(tally.batch_bytes.histogram()),
        interval_ns=asdict(tally.intervals_ns.histogram()),
        growth=list(tally.growth()),
    )
