"""Moments: positions in the log, given as an LSN or as a time.

The times in a journal come from the writer's clock, which may have been set back, so recovery does
not depend on them. A lookup assumes that they ascend: it searches the segments for the right
one, and then reads that one.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite

from journal import CorruptionError, JournalReader
from journal_inspect.commands.reading import open_reader
from journal_inspect.exits import NothingFoundError
from journal_inspect.rendering.renderer import Renderer

_NEVER_NS = 1 << 64
_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"-(?=\d)(?:\d+(?:\.\d+)?(?:min|[smhdw]))+")
_PART = re.compile(r"([\d.]+)(min|[smhdw])")
FORMS = "ISO 8601 (2026-01-31, 2026-01-31T23:59:59), or how long ago (-90s, -1h30m, -2d), or now"


@dataclass(frozen=True, slots=True)
class Time:
    """A time as the user typed it. Its zone is known only after all options are parsed."""

    text: str
    ago_s: float | None
    clock: datetime | None

    def unix_ns(self, *, utc: bool) -> int:
        """Return the Unix time. A clock time without a zone is local, or UTC if `utc`."""
        if self.clock is None:
            return time.time_ns() - round((self.ago_s or 0) * 1e9)
        clock = self.clock.replace(tzinfo=UTC) if utc and not self.clock.tzinfo else self.clock
        return round(clock.timestamp() * 1e6) * 1000


def parse_time(text: str) -> Time:
    """Parse a time. Raises ValueError, with the possible forms, if `text` is not one."""
    if text == "now":
        return Time(text, 0, None)
    if _AGO.fullmatch(text):
        parts = _PART.findall(text)
        ago_s = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
        if isfinite(ago_s):
            return Time(text, ago_s, None)
    try:
        clock = datetime.fromisoformat(text)
        clock.timestamp()
    except (ValueError, OverflowError, OSError):
        raise ValueError(f"{text!r} is not a time; give {FORMS}") from None
    return Time(text, None, clock)


def parse_moment(text: str) -> int | Time:
    """Parse an LSN (0: before the first record) or a time."""
    text = text.strip()
    if text.isascii() and text.isdecimal():
        return int(text)
    try:
        return parse_time(text)
    except ValueError:
        raise ValueError(
            f"{text!r} is neither an LSN nor a time; give an LSN, or {FORMS}"
        ) from None


def find_lsn(
    path: str, renderer: Renderer, at: int | Time, describe_states: Callable[[str], str]
) -> int:
    """Return the LSN of the last record that was written by the moment `at`.

    `describe_states` describes, for the error, as of which LSNs the state at `path` is kept.
    """
    if isinstance(at, int):
        return at
    with open_reader(path) as reader:
        lsn, first_lsn = (
            lsn_at(reader, at.unix_ns(utc=renderer.utc)),
            min(reader.first_lsns, default=1),
        )
        if lsn >= first_lsn:
            return lsn
        first = next(reader.entries(), None)
    begin = "the journal holds no record"
    if first:
        begin = f"the first, LSN {first.lsn}, was written at {renderer.time(first.written_at_ns)}"
        begin += f"; {describe_states(path)}"
    raise NothingFoundError(f"{path}: the log does not reach back to {at.text}; {begin}")


def lsn_at(reader: JournalReader, unix_ns: int) -> int:
    """Return the last LSN written at this time or before, or the LSN before the first one."""
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
    except CorruptionError:  # the caller reports it when it reads up to there
        return _NEVER_NS
    return entry.written_at_ns if entry else _NEVER_NS
