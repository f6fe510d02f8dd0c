"""MirroredTurn: a CommitTurn whose commits are durable only when a mirror has them.

A commit writes and syncs as without a mirror, and the next one may begin at once. Its waiters are
released, and its bytes leave the log buffer's account, when the mirror acknowledges them. So a
mirror that is silent does what a full disk does: waiters wait, and when the buffer is full, appends
are refused.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from operator import attrgetter
from typing import Any

from journal._commit.batch import CommitBatch
from journal._commit.commit_turn import CommitTurn
from journal._commit.gate import Gate, open_gates
from journal._format.record import Record
from journal.errors import InterruptedCallError

# An upload waits at least for this part of the time that the last one took.
_GATHER, _GATHER_S_MAX = 0.25, 0.05


@dataclass(slots=True)
class Held:
    """A commit that the mirror has not acknowledged. `end_bytes`: the size of all records since the
    open, up to its last one."""

    last_lsn: int
    end_bytes: int = 0
    waiters: int = 0
    gate: Gate | None = None


class MirroredTurn(CommitTurn):
    """A CommitTurn whose `durable_lsn` follows the mirror. The log buffer's lock guards these
    fields, too."""

    lanes_max = 1  # an upload takes the commits of several syncs anyway

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._committed_lsn = self.durable_lsn  # on this disk
        self._log_bytes = 0
        self._bytes = self._released_bytes = 0  # of records committed and acknowledged since open
        self._held: list[Held] = []  # in the order of the log
        self._has_given_up = False
        self._is_mirror_here: Callable[[], bool] = bool
        self._upload_s = 0.0  # how long the last upload took
        self._expected_waiters = 0  # for the next one
        # A batch's gate opens when it is durable. A sync must not wait for the mirror.
        self._sync_gates: list[tuple[CommitBatch, Gate]] = []

    def begin(self, mirrored_lsn: int, is_mirror_here: Callable[[], bool] = bool) -> None:
        """Set the LSN up to which the mirror has every record at the open. Later records that were
        recovered are not durable yet. `is_mirror_here`: whether this is the mirror's thread."""
        self._is_mirror_here = is_mirror_here
        self.durable_lsn = min(mirrored_lsn, self._committed_lsn)
        if self.durable_lsn < self._committed_lsn:
            self._held.append(Held(self._committed_lsn))

    def gate(self, lsn: int) -> Gate | None:
        lifecycle = self._lifecycle
        if lifecycle.refusal is not None and not lifecycle.closing and lsn > self.durable_lsn:
            lifecycle.check()  # first: in a forked child, it raises without a lock
        if lsn > self.durable_lsn and self._is_mirror_here():
            raise InterruptedCallError
        if held := self._held_gate(lsn):
            return held
        gate = super().gate(lsn)
        if lsn > self._committed_lsn:
            return gate
        # It was committed between the two, so nothing may open that gate. If it is not held either,
        # it is durable, or the journal has failed or is closed: the last call raises that.
        return self._held_gate(lsn) or super().gate(lsn)

    def append(self, record: Record, urgent: bool) -> tuple[int, Gate | None]:
        self.refuse_within_commit()
        if self._is_mirror_here():
            raise InterruptedCallError
        lsn = self._buffer.append(record, urgent)
        return lsn, self.gate(lsn)

    def _held_gate(self, lsn: int) -> Gate | None:
        """Return the gate for an LSN that is on this disk, and not in the mirror."""
        with self._lock.checked():
            if not self.durable_lsn < lsn <= self._committed_lsn:
                return None
            if self._lifecycle.failure is not None or self._has_given_up:
                return None
            held = self._held[bisect_left(self._held, lsn, key=attrgetter("last_lsn"))]
            held.waiters += 1
            held.gate = held.gate or Gate(wakes_all_at_once=self.wake_policy.wakes_all_at_once)
            return held.gate

    def sync_gate(self) -> Gate:
        self._lifecycle.check()
        with self._lock.checked():
            self._lifecycle.check()
            self.refuse_within_commit()
            filling, gate = self._buffer.filling, Gate()
            filling.require_sync()
            self._sync_gates.append((filling, gate))
            self._alarm.wake()
            return gate

    def committed(
        self, batch: CommitBatch, sync_s: float, log_bytes: int
    ) -> tuple[Gate | None, ...]:
        """Note that `batch` is on this disk, and hold its waiters until the mirror has it.

        An interrupt may end this anywhere, and another call then finishes it. So no waiter is
        released here: the mirror's thread does that, in which no signal handler runs.
        """
        with self._lock.checked():
            self.wake_policy.note_sync(self._upload_s)
            if batch.last_lsn > self._committed_lsn:
                if not self._held or self._held[-1].last_lsn < batch.last_lsn:
                    self._held.append(Held(batch.last_lsn, self._bytes + batch.bytes))
                held = self._held[-1]
                # A lone waiter comes for the gate later, and is counted then.
                held.waiters = batch.waiters - (self._waiter is not None)
                held.gate = batch.gate
                self._bytes = held.end_bytes
                self._committed_lsn = batch.last_lsn
            self._log_bytes = log_bytes
            self._backpressure.hold(self._bytes - self._released_bytes)
            room_gate = self._backpressure.end_commit(log_bytes, self._buffer.filling_bytes)
            synced = [gate for of, gate in self._sync_gates if of is batch]
        open_gates(*synced)
        with self._lock.checked():
            self._sync_gates = [each for each in self._sync_gates if not each[1].opened]
        return (room_gate,)

    def acknowledge(self, lsn: int, upload_s: float) -> None:
        """Note that the mirror has every record up to `lsn`, and release their waiters. `upload_s`:
        the time that the last upload took. Only the mirror's thread calls this."""
        with self._lock:
            self._upload_s = upload_s
            done = list(takewhile(lambda held: held.last_lsn <= lsn, self._held))
            if not done:
                return
            self.durable_lsn, self._released_bytes = done[-1].last_lsn, done[-1].end_bytes
            del self._held[: len(done)]
            room_gate = self._backpressure.release(
                self._bytes - self._released_bytes, self._log_bytes, self._buffer.filling_bytes
            )
            # Each of them comes back with another record. A commit gathers these, and the next
            # upload also takes the commits that it finds here.
            waiters = sum(held.waiters for held in done)
            self.wake_policy.note_release(waiters, self._buffer.filling.waiters)
            self._alarm.wake()  # the flusher may wait for more waiters than are expected now
            self._expected_waiters = self.wake_policy.expected_waiters + self.waiting
        open_gates(*(held.gate for held in done), room_gate)

    def gather_s(self) -> float:
        """Return the seconds for which to wait for the waiters that the mirror released last.

        Each of them comes back with another record. One that comes too late waits for a whole
        upload more, so waiting is worth the part of an upload that the missing ones are of all.
        """
        expected, waiting = self._expected_waiters, self.waiting
        if waiting >= expected:
            return 0
        part = max(_GATHER, 1 - waiting / expected)
        return min(self._upload_s * part, _GATHER_S_MAX) - self.wake_policy.since_release_s()

    @property
    def waiting(self) -> int:
        """The number of waiters for commits that are on this disk."""
        return sum(held.waiters for held in tuple(self._held))

    def give_up(self) -> None:
        """Release all waiters, with an error, because a close could not wait for the mirror."""
        self._has_given_up = True
        self._open_held()

    def _open_all(self) -> None:
        super()._open_all()
        with self._lock.checked():
            gates = [gate for _, gate in self._sync_gates]
        open_gates(*gates)
        if self._lifecycle.failure is not None:  # after a close, the mirror still gets the rest
            self._open_held()

    def _open_held(self) -> None:
        with self._lock.checked():
            gates = [held.gate for held in self._held]
        open_gates(*gates)
