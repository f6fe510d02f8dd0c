"""Trimming: which of its oldest records a journal without a state forgets, and which files that
frees.

A trim publishes as many checkpoints without items as the journal keeps. They cover the records
before them, so the segments with only such records can be removed by the same rule as after a
compaction. Source: journal/docs/FORMAT.md, "Trims".
"""

from __future__ import annotations

from itertools import accumulate

from journal._commit.committer import Committer
from journal._disk.disk import Directory, Disk, clock_ns, file_size
from journal._format.segment import SegmentName, segment_names, segments_after
from journal._offline.cursor import locate, open_segment
from journal._offline.reader import read_batches
from journal._recovery.walk import Walk
from journal.options import Options

_NS = 1_000_000_000
_ROLL_FRACTION = 1 / 4  # of `retain_s`: the longest time for which a segment takes records
_CHECK_FRACTION = 1 / 16  # of `retain_s`: the time between two checks
_CHECK_S_MIN, _CHECK_S_MAX = 0.05, 60.0


def checkpoints_to_trim(directory: Directory, before_lsn: int, keep: int) -> list[int]:
    """Return the LSNs at which `keep` checkpoints let segments before `before_lsn` go.

    Return none if no segment could go. The newest one is at the end of a frame, so that a replay
    from it begins with a whole batch.
    """
    segments = segment_names(directory.names())
    if not segments or before_lsn - keep < segments[0].first_lsn:
        return []
    newest_lsn = _frame_start(directory, segments, before_lsn) - 1
    floor_lsn = newest_lsn - keep + 1
    if len(segments_after(segments, floor_lsn)) == len(segments):
        return []
    return [*range(floor_lsn, newest_lsn + 1)]


def _frame_start(directory: Directory, segments: list[SegmentName], lsn: int) -> int:
    """Return the first LSN of the frame with `lsn`, or `lsn` if it is the next one to append."""
    name, _ = locate(segments, lsn)
    with open_segment(directory, name, lsn) as segment:
        walk = Walk.at(segment)
        walk.enter(segment)
        walk.pass_over(segment, lsn - 1)
        return walk.next_lsn


class Retention:
    """The retention of a journal: finds the records that are past `retain_s` or `retain_bytes`.

    The compactor's thread alone uses it.
    """

    def __init__(
        self, directory: Directory, disk: Disk, committer: Committer, options: Options
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._committer = committer
        self._options = options
        # For each segment, the end of its first frames and the time at which they were written.
        self._beginnings: dict[SegmentName, tuple[int, int]] = {}

    @property
    def check_s(self) -> float:
        """The time until the next check, in seconds; -1 if only the log's growth calls for one."""
        retain_s = self._options.retain_s
        if retain_s is None:
            return -1
        return min(max(retain_s * _CHECK_FRACTION, _CHECK_S_MIN), _CHECK_S_MAX)

    @property
    def due_bytes(self) -> float:
        """The size of the log, in bytes written since open, at which the next check is due."""
        return self._committer.log_bytes + self._options.segment_bytes

    def before_lsn(self) -> int:
        """Return the LSN before which records may go, or 0 if all have to stay."""
        segments = segment_names(self._directory.names())
        lsns = [0]
        if self._options.retain_bytes is not None:
            lsns.append(self._before_bytes(segments, self._options.retain_bytes))
        if self._options.retain_s is not None:
            lsns.append(self._before_age(segments, self._options.retain_s))
        self._beginnings = {
            name: begun for name, begun in self._beginnings.items() if name in segments
        }
        return max(lsns)

    def _before_bytes(self, segments: list[SegmentName], retain_bytes: int) -> int:
        """Return the end of the first frames of the newest segment from which on the log has
        `retain_bytes`. Return 0 if it has less."""
        kept_bytes = 0
        for name in reversed(segments):
            is_last = name == segments[-1]
            written_bytes = self._committer.segment_bytes if is_last else None
            if written_bytes is None:
                written_bytes = file_size(self._directory, str(name))
            kept_bytes += written_bytes
            if kept_bytes >= retain_bytes:
                begun = self._beginning(name)
                return begun[0] if begun else 0
        return 0

    def _before_age(self, segments: list[SegmentName], retain_s: float) -> int:
        """Return the end of the first frames of the newest segment that begins with old records.

        A record is no older than one before it, whatever their times are: the clock may have been
        set back meanwhile. A time in the future says nothing about the records after it.
        """
        now_ns = clock_ns(self._disk)
        begun = [self._beginning(name) for name in segments]
        times_ns = [beginning[1] if beginning else now_ns for beginning in begun]
        past_ns = accumulate((time if time <= now_ns else 0 for time in times_ns), max)
        if begun and times_ns[-1] < now_ns - int(retain_s * _ROLL_FRACTION * _NS):
            self._committer.end_segment()
        old = [
            beginning[0]
            for beginning, time_ns, newest_ns in zip(begun, times_ns, past_ns, strict=True)
            if beginning and time_ns <= now_ns and newest_ns < now_ns - int(retain_s * _NS)
        ]
        return old[-1] if old else 0

    def _beginning(self, name: SegmentName) -> tuple[int, int] | None:
        """Return the LSN after the first frames of the segment, and the time at which the last of
        them was written. Return None if they are not durable yet.

        A trim writes its oldest checkpoint before the segment, and each other one at the LSN of one
        of these frames' records. So the frames have `checkpoints_kept` - 1 records or more.
        """
        if name not in self._beginnings:
            lsn = name.first_lsn + self._options.checkpoints_kept - 2
            if lsn > self._committer.durable_lsn:
                return None
            for batch in read_batches(self._directory, lsn - 1, lsn):
                self._beginnings[name] = batch.last_lsn + 1, batch.written_at_ns
        return self._beginnings[name]
