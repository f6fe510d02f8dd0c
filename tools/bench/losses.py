"""The changes that a crash would have lost, from when they were acknowledged and kept."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from journal import Journal

Event = tuple[int, int]  # an LSN, and a time in ns


class CommitTimes:
    """An observer of a journal. `kept` has the durable LSN after each commit, and the time."""

    def __init__(self, journal: Journal) -> None:
        self.kept: list[Event] = []
        self._journal = journal
        journal.observe(self)

    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
        self.kept.append((self._journal.durable_lsn, time.perf_counter_ns()))

    def stalled(self, error: OSError) -> None: ...

    def compacted(self, lsn: int, count: int, size_bytes: int, duration_ns: int) -> None: ...

    def compaction_failed(self, error: BaseException) -> None: ...

    def failed(self, error: BaseException) -> None: ...


def rising(events: Sequence[Event]) -> list[Event]:
    """Return the highest LSN at the time of each event."""
    ordered = sorted(events, key=lambda event: event[1])
    lsns = accumulate((lsn for lsn, _ in ordered), max)
    return [(lsn, now_ns) for lsn, (_, now_ns) in zip(lsns, ordered, strict=True)]


def longest_ns(acknowledged: Sequence[Event], kept: Sequence[Event]) -> int:
    """Return the age in ns of the oldest acknowledged change that a crash could have lost.

    `acknowledged`: each change, when its call returned. `kept`: the newest change on disk from that
    time on, which may be older than the one before.
    """
    changes = sorted(acknowledged)
    lsns = [lsn for lsn, _ in changes]
    earliest_ns = [now_ns for _, now_ns in changes]  # of this change and all later ones
    for place in range(len(changes) - 2, -1, -1):
        earliest_ns[place] = min(earliest_ns[place], earliest_ns[place + 1])
    end_ns = max((now_ns for _, now_ns in changes), default=0)
    longest, on_disk = 0, 0
    for lsn, now_ns in [*sorted(kept, key=lambda event: event[1]), (0, end_ns)]:
        place = bisect_right(lsns, on_disk)
        if place < len(lsns):
            longest = max(longest, min(now_ns, end_ns) - earliest_ns[place])
        on_disk = lsn
    return longest
