"""CompactionSchedule: when a compaction is due, how fast it encodes, when updates wait for it.

It is pure: log sizes and clock readings go in, decisions come out. A log size is the number of
bytes written since open. It grows from the snapshot of the last checkpoint on:

    snapshot                       due      hurry     hold
    |<------- growth - lead ------->|<- 1/8 ->|         |
                                    |<------ 1/4 ------>|

`growth` is the growth that the options allow between two compactions. A compaction that is due
encodes in small steps, because a thread that computes stalls all others. While the log does not
grow, there are fewer to stall, and the steps are larger. Past `hurry`, they are larger, too. Past
`hold`, updates wait for it, because many threads that never wait for the disk would leave it too
small a share of the interpreter. They continue after some milliseconds, and the log may grow in
proportion to what the compaction has done by then, until they wait again. A compaction is due
`lead` bytes early, so that it ends about where it would have begun otherwise.
"""

from __future__ import annotations

from typing import NamedTuple

from journal.options import Options

NEVER = float("inf")

# Fractions of the growth. The lead is at most a quarter.
_LEAD_MAX, _HURRY, _HOLD = 1 / 4, 1 / 8, 1 / 4
# The time after which waiting updates get room for what was done meanwhile. Then they wait for
# their turn of the interpreter: 50 ms in all at most. With 10 ms, dozens of threads that are woken
# and stopped again take a twentieth of the updates.
_HOLD_S = 0.015
# The part of the growth that a whole compaction gives as room. With the part up to `hold`, the log
# stays within twice the growth.
_ROOM = 1 / 5
_READ_PER_ENCODED = 8  # a byte is read back in an eighth of the time of encoding it
_ROOM_BYTES_MIN = 3 << 13  # so that slow encoding slows updates to 1.6 MB/s at most
_ITEMS_IN_HURRY, _ITEMS_WHILE_HELD_MAX = 64, 256
_HELD_STEP_S = 5e-3
# The processor time of a step that is in no hurry, and the pause after it. A step of 20 us holds up
# a thousand updates a second by a fifth at p99 (130 to 160 us from due).
_STEP_S, _PAUSE_S = 20e-6, 200e-6
_IDLE_STEP_S, _IDLE_PAUSE_S = 200e-6, 100e-6
# The items after small ones may be huge, and a step can't be cut short.
_STEP_ITEMS_MAX, _IDLE_STEP_ITEMS_MAX = 16, 64
_IDLE_AFTER_S = 0.05  # without growth of the log, to which updates get within `flush_interval_s`
_BACKOFF_S_MIN, _BACKOFF_S_MAX = 1.0, 60.0


class Pace(NamedTuple):
    """The speed of a compaction after a pause."""

    items: int
    """The number of items to encode until the next pause."""

    pause_s: float = _PAUSE_S
    """The length of the pause before them, in seconds."""


class Attempt:
    """One compaction, with the sizes of the log that decide its pace and the next lead."""

    def __init__(
        self,
        snapshot_bytes: int,
        grown_from_bytes: float,
        hurry_bytes: float,
        room_per_byte: float,
    ) -> None:
        self.snapshot_bytes = snapshot_bytes
        # The growth of the log from here to the end of this compaction sets the next lead.
        self.grown_from_bytes = grown_from_bytes
        self._hurry_bytes = hurry_bytes
        self._room_per_byte = room_per_byte  # of the checkpoint
        self._held_from_s = NEVER
        self._encoded_bytes, self._paid_bytes = 0, 0.0
        self._items = 1  # of the last step
        self._log_bytes, self._idle_from_s = -1, 0.0

    def pace(self, log_bytes: int, *, step_s: float, has_room: bool, now_s: float) -> Pace:
        """Return the pace for a log of `log_bytes`.

        `step_s`: the processor time of the last step; `has_room`: no update has to wait.
        """
        pace = self._pace(log_bytes, step_s / self._items, has_room=has_room, now_s=now_s)
        self._items = pace.items
        return pace

    def _pace(self, log_bytes: int, item_s: float, *, has_room: bool, now_s: float) -> Pace:
        if log_bytes != self._log_bytes:
            self._log_bytes, self._idle_from_s = log_bytes, now_s + _IDLE_AFTER_S
        if log_bytes <= self._hurry_bytes:
            if now_s < self._idle_from_s:
                return Pace(_items_within(_STEP_S, item_s, _STEP_ITEMS_MAX))
            items = _items_within(_IDLE_STEP_S, item_s, _IDLE_STEP_ITEMS_MAX)
            return Pace(items, _IDLE_PAUSE_S)
        if has_room:
            return Pace(_ITEMS_IN_HURRY)
        return Pace(_items_within(_HELD_STEP_S, item_s, _ITEMS_WHILE_HELD_MAX))

    def room_bytes(
        self, encoded_bytes: int, read_bytes: int, *, has_room: bool, now_s: float
    ) -> float:
        """Return by how many bytes the log may grow now, while updates wait. 0: they still wait.

        `encoded_bytes`, `read_bytes`: how much of the checkpoint is encoded and read back so far.
        """
        self._encoded_bytes = max(self._encoded_bytes, encoded_bytes)
        if has_room:
            self._held_from_s = NEVER
            return 0
        self._held_from_s = min(self._held_from_s, now_s)
        if now_s < self._held_from_s + _HOLD_S:
            return 0
        self._held_from_s = now_s
        done_bytes = self._encoded_bytes + read_bytes / _READ_PER_ENCODED
        paid_bytes, self._paid_bytes = self._paid_bytes, done_bytes
        return max((done_bytes - paid_bytes) * self._room_per_byte, _ROOM_BYTES_MIN)


def _items_within(step_s: float, item_s: float, items_max: int) -> int:
    """Return how many items of `item_s` seconds each a step of `step_s` has: at least one."""
    return min(max(int(step_s / max(item_s, 1e-9)), 1), items_max)


class CompactionSchedule:
    """Schedules the compactions of the compactor's thread, given those that are run by hand.

    The compactor's lock guards it, with two exceptions: a committing thread calls `passed_due`, and
    the compactor's thread alone calls `failed` and `succeeded`, both without the lock.
    """

    def __init__(self, options: Options, *, checkpoint_bytes: int, log_bytes: int) -> None:
        """Make a schedule. `checkpoint_bytes`: the size of the newest checkpoint; `log_bytes`: the
        size of the log after it."""
        self._options = options
        self._checkpoint_bytes = checkpoint_bytes
        # The log's size at the newest checkpoint's snapshot. Negative if that precedes this open.
        self.snapshot_bytes = -log_bytes
        self._lead_bytes = 0.0
        self._passed_due_bytes = NEVER  # the lowest due point that a commit has passed since
        self.backoff_s = 0.0
        # Whether any new record makes a compaction due, because an open could not fall back on one
        # of the kept checkpoints.
        self.is_urgent = False
        # Whether the thread's next attempt repeats one that failed. Any success ends that.
        self.is_retry = False

    @property
    def _growth_bytes(self) -> float:
        options = self._options
        return max(options.checkpoint_min_bytes, options.checkpoint_growth * self._checkpoint_bytes)

    @property
    def due_bytes(self) -> float:
        """The log's size at which the next compaction is due."""
        if self.is_urgent:
            return self.snapshot_bytes + 1
        lead_bytes = min(self._lead_bytes, _LEAD_MAX * self._growth_bytes)
        return self.snapshot_bytes + self._growth_bytes - lead_bytes

    def hold_bytes(self, log_bytes: int) -> float:
        """Return the log size from which updates wait for the next compaction. It is at least one
        batch above `log_bytes`, the current size."""
        slack_bytes = max(_HOLD * self._growth_bytes, self._options.flush_bytes)
        return max(self.due_bytes, log_bytes) + slack_bytes

    def passed_due(self, due_bytes: float) -> None:
        """Note that a commit found the log past `due_bytes`, where a compaction was due."""
        self._passed_due_bytes = min(self._passed_due_bytes, due_bytes)

    def begin(self, log_bytes: int) -> Attempt:
        """Begin a compaction, whose snapshot the caller takes next."""
        passed_bytes, self._passed_due_bytes = self._passed_due_bytes, NEVER
        hurry_bytes = min(log_bytes, self.due_bytes) + _HURRY * self._growth_bytes
        # The state has at most the items of the checkpoint, and those in the log after it.
        size_bytes = self._checkpoint_bytes + max(log_bytes - self.snapshot_bytes, 0)
        room_per_byte = _ROOM * self._growth_bytes / max(size_bytes, 1)
        return Attempt(log_bytes, min(passed_bytes, log_bytes), hurry_bytes, room_per_byte)

    def published(self, attempt: Attempt, checkpoint_bytes: int) -> None:
        """Postpone the next compaction, because the attempt's checkpoint is published, even if the
        files that it covers can't be removed."""
        # No call separates the two assignments, so no interrupt can.
        self._checkpoint_bytes, self.snapshot_bytes = checkpoint_bytes, attempt.snapshot_bytes

    def finished(self, attempt: Attempt, log_bytes: int) -> None:
        """Set the next lead, now that the files that the checkpoint covers are removed."""
        self._lead_bytes = 2 * (log_bytes - attempt.grown_from_bytes)
        self._passed_due_bytes = NEVER
        self.is_retry = False

    def failed(self) -> None:
        """Double the back-off, within its bounds."""
        self.backoff_s = min(max(self.backoff_s * 2, _BACKOFF_S_MIN), _BACKOFF_S_MAX)
        self.is_retry = True  # last: any success from here on ends the back-off

    def succeeded(self) -> None:
        """Reset the back-off, because the thread's own attempt succeeded. A compaction by hand does
        not reset it: the thread's next failure doubles it again."""
        self.backoff_s = 0.0
