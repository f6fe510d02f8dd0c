"""Moments: a place in the log, as an LSN or as a time, and which LSN a time stands for.

Nothing in a journal is decided by times: they are the writer's clock, which may have been turned
back. So a time is looked up as if they ascended, segment by segment and then in one.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime

from journal import CorruptionError, JournalReader

_NEVER_NS = 1 << 64
_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"-(?=\d)(?:\d+(?:\.\d+)?(?:min|[smhdw]))+")
_PART = re.compile(r"([\d.]+)(min|[smhdw])")
FORMS = "ISO 8601 (2026-01-31, 2026-01-31T23:59:59), or how long ago (-90s, -1h30m, -2d), or now"


@dataclass(frozen=True, slots=True)
class Time:
    """As somebody typed it; in which zone is not known until all options are."""

    text: str
    ago_s: float | None
    clock: datetime | None

    def unix_ns(self, *, utc: bool) -> int:
        """Of a clock time without a zone: in the local one, or UTC."""
        if self.clock is None:
            return time.time_ns() - round((self.ago_s or 0) * 1e9)
        clock = self.clock.replace(tzinfo=UTC) if utc and not self.clock.tzinfo else self.clock
        return round(clock.timestamp() * 1e6) * 1000


def parse_time(text: str) -> Time:
    """Raises ValueError that says which forms there are."""
    if text == "now":
        return Time(text, 0, None)
    if _AGO.fullmatch(text):
        parts = _PART.findall(text)
        return Time(text, sum(float(number) * _UNITS_S[unit] for number, unit in parts), None)
    try:
        clock = datetime.fromisoformat(text)
        clock.timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is no time; give {FORMS}") from None
    return Time(text, None, clock)


def parse_moment(text: str) -> int | Time:
    """An LSN (0: before the first record), or a time."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        return parse_time(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither an LSN nor a time; as a time give {FORMS}") from None


def lsn_at(reader: JournalReader, unix_ns: int) -> int:
    """The last LSN that was written at that time or before; below the first if none was."""
    first_lsns = reader.first_lsns
    begun = bisect_right(first_lsns, unix_ns, key=lambda lsn: _written_at_ns(reader, lsn))
    if not begun:
        return first_lsns[0] - 1 if first_lsns else 0
    lsn = first_lsns[begun - 1] - 1
    for entry in reader.entries(lsn):
        if entry.written_at_ns > unix_ns:
            break
        lsn = entry.lsn
    return lsn


def _written_at_ns(reader: JournalReader, lsn: int) -> int:
    try:
        entry = next(reader.entries(lsn - 1), None)
    except CorruptionError:  # told by who reads up to there
        return _NEVER_NS
    return entry.written_at_ns if entry else _NEVER_NS
