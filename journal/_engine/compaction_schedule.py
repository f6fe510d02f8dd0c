"""CompactionSchedule: when a compaction is due, how fast it encodes, when updates wait for it.

Pure: sizes and readings of the clock come in, decisions come out. A log size is what was written
since open, in bytes. As the log grows after the snapshot of the last checkpoint:

    snapshot                       due      hurry     hold
    |<------- growth - lead ------->|<- 1/8 ->|         |
                                    |<------ 1/4 ------>|

`growth` is what the options allow the log to grow by between two compactions. One that is due
encodes in small steps, since whatever computes stalls all other threads. Past `hurry` it takes
larger steps; past `hold`, updates wait for it, because many threads that never wait for the disk
would leave it too small a share of the interpreter. The next one is due `lead` bytes earlier, so
that it is finished about when it would have begun.
"""

from __future__ import annotations

from typing import NamedTuple

from journal.options import Options

NEVER = float("inf")

# Fractions of the growth. The lead is a quarter at most.
_LEAD_MAX, _HURRY, _HOLD = 1 / 4, 1 / 8, 1 / 4
_HOLD_S_MAX = 1.0  # updates wait no longer than this while one compaction encodes
_ITEMS_RELAXED, _ITEMS_IN_HURRY, _ITEMS_WHILE_HELD = 2, 64, 256
_BACKOFF_S_MIN, _BACKOFF_S_MAX = 1.0, 60.0


class Pace(NamedTuple):
    """The speed at which a compaction goes on after a pause."""

    items: int
    """Items to encode until the next pause."""

    gives_room: bool
    """True once updates have waited for it long enough: now they go on beside it."""


class Attempt:
    """One compaction, from the size of the log at its snapshot on."""

    def __init__(self, snapshot_bytes: int, grown_from_bytes: float, hurry_bytes: float) -> None:
        self.snapshot_bytes = snapshot_bytes
        # What the log grows by from here to the end of this compaction sets the next lead.
        self.grown_from_bytes = grown_from_bytes
        self._hurry_bytes = hurry_bytes
        self._hold_until_s = NEVER

    def pace(self, log_bytes: int, *, has_room: bool, now_s: float) -> Pace:
        """Return how to go on while the log has `log_bytes`. `has_room`: no update has to wait."""
        if log_bytes <= self._hurry_bytes:
            return Pace(_ITEMS_RELAXED, gives_room=False)
        if has_room:
            return Pace(_ITEMS_IN_HURRY, gives_room=False)
        self._hold_until_s = min(self._hold_until_s, now_s + _HOLD_S_MAX)
        return Pace(_ITEMS_WHILE_HELD, gives_room=now_s >= self._hold_until_s)


class CompactionSchedule:
    """Decides for a compactor's thread, and for compactions that other threads make by hand.

    Guarded by the compactor's lock, except that a committing thread calls `passed_due`, and that
    `failed`, `succeeded` and the fields that they set are the compactor thread's own.
    """

    def __init__(self, options: Options, *, checkpoint_bytes: int, log_bytes: int) -> None:
        """`checkpoint_bytes`: the newest checkpoint's size; `log_bytes`: the log after it."""
        self._options = options
        self._checkpoint_bytes = checkpoint_bytes
        # The log's size at the snapshot of the newest checkpoint. Negative: before this open.
        self.snapshot_bytes = -log_bytes
        self._lead_bytes = 0.0
        self._passed_due_bytes = NEVER  # the due point that a commit has passed since
        self.backoff_s = 0.0
        # Whether the thread's next attempt repeats one that failed. Any success ends that.
        self.is_retry = False

    @property
    def _growth_bytes(self) -> float:
        options = self._options
        return max(options.checkpoint_min_bytes, options.checkpoint_growth * self._checkpoint_bytes)

    @property
    def due_bytes(self) -> float:
        """The log's size at which the next compaction is due."""
        lead_bytes = min(self._lead_bytes, _LEAD_MAX * self._growth_bytes)
        return self.snapshot_bytes + self._growth_bytes - lead_bytes

    def hold_bytes(self, log_bytes: int) -> float:
        """Return the size of the log, now at `log_bytes`, from which updates wait for the next
        compaction. That leaves them room for one batch at least."""
        slack_bytes = max(_HOLD * self._growth_bytes, self._options.flush_bytes)
        return max(self.due_bytes, log_bytes) + slack_bytes

    def passed_due(self, due_bytes: float) -> None:
        """Note that a commit found the log past `due_bytes`, where a compaction was due."""
        self._passed_due_bytes = min(self._passed_due_bytes, due_bytes)

    def begin(self, log_bytes: int) -> Attempt:
        """Begin a compaction: its snapshot is taken next."""
        passed_bytes, self._passed_due_bytes = self._passed_due_bytes, NEVER
        hurry_bytes = min(log_bytes, self.due_bytes) + _HURRY * self._growth_bytes
        return Attempt(log_bytes, min(passed_bytes, log_bytes), hurry_bytes)

    def published(self, attempt: Attempt, checkpoint_bytes: int) -> None:
        """Put off the next compaction: the attempt's checkpoint counts from here on, whether or not
        the files that it covers can be removed."""
        # With no call in between, at which an interrupt could part the two.
        self._checkpoint_bytes, self.snapshot_bytes = checkpoint_bytes, attempt.snapshot_bytes

    def finished(self, attempt: Attempt, log_bytes: int) -> None:
        """Set the next lead, now that the files that the attempt covers are removed, too."""
        self._lead_bytes = 2 * (log_bytes - attempt.grown_from_bytes)
        self._passed_due_bytes = NEVER
        self.is_retry = False

    def failed(self) -> None:
        """Back off: twice as long as after the failure before, within bounds."""
        self.backoff_s = min(max(self.backoff_s * 2, _BACKOFF_S_MIN), _BACKOFF_S_MAX)
        self.is_retry = True  # last: any success from here on ends the back-off

    def succeeded(self) -> None:
        """Note that the thread's own attempt succeeded. After a compaction by hand, another failure
        of the thread still counts as the next in a row."""
        self.backoff_s = 0.0
