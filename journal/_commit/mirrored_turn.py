"""MirroredTurn: a CommitTurn whose commits are durable only when a mirror has them.

A commit writes and syncs as ever, and the next one may begin at once. Its waiters are released, and
its bytes leave the log buffer's account, when the mirror acknowledges them. So a mirror that is
silent does what a full disk does: waiters wait, and when the buffer is full, appends are refused.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from journal._commit.batch import CommitBatch
from journal._commit.commit_turn import CommitTurn
from journal._commit.gate import Gate, open_gates


@dataclass(slots=True)
class Held:
    """A commit that the mirror has not acknowledged. `bytes`: the size of its records."""

    last_lsn: int
    bytes: int = 0
    waiters: int = 0
    gate: Gate | None = None


class MirroredTurn(CommitTurn):
    """`durable_lsn` follows the mirror. The log buffer's lock guards the fields here, too."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._committed_lsn = self.durable_lsn  # on this disk
        self._mirrored_lsn = self.durable_lsn
        self._log_bytes = 0
        self._held: list[Held] = []  # in the order of the log
        self._has_given_up = False
        # A batch's gate opens when it is durable. A sync must not wait for the mirror.
        self._sync_gates: list[tuple[CommitBatch, Gate]] = []

    def begin(self, mirrored_lsn: int) -> None:
        """Set the LSN that the mirror has at the open. What was recovered after it is not durable
        yet."""
        self._mirrored_lsn = self.durable_lsn = min(mirrored_lsn, self._committed_lsn)
        if self.durable_lsn < self._committed_lsn:
            self._held.append(Held(self._committed_lsn))

    def gate(self, lsn: int) -> Gate | None:
        lifecycle = self._lifecycle
        if lifecycle.refusal is not None and not lifecycle.closing and lsn > self.durable_lsn:
            lifecycle.check()  # first: in a forked child, it raises without a lock
        if held := self._held_gate(lsn):
            return held
        gate = super().gate(lsn)
        # If it was committed between the two, the gate is that of a later batch.
        return self._held_gate(lsn) or (gate if lsn > self.durable_lsn else None)

    def _held_gate(self, lsn: int) -> Gate | None:
        """Return the gate for an LSN that is on this disk, and not in the mirror."""
        with self._lock.checked():
            if not self.durable_lsn < lsn <= self._committed_lsn:
                return None
            if self._lifecycle.failure is not None or self._has_given_up:
                return None
            held = self._held[bisect_left(self._held, lsn, key=_last_lsn)]
            held.waiters += 1
            held.gate = held.gate or Gate(wakes_all_at_once=self.wake_policy.wakes_all_at_once)
            return held.gate

    def sync_gate(self) -> Gate:
        self._lifecycle.check()
        with self._lock.checked():
            self._lifecycle.check()
            self._refuse_within_commit()
            filling, gate = self._buffer.filling, Gate()
            filling.require_sync()
            self._sync_gates.append((filling, gate))
            self._alarm.wake()
            return gate

    def committed(self, batch: CommitBatch, sync_s: float, log_bytes: int) -> None:
        """Note that `batch` is on this disk, and hold its waiters until the mirror has it."""
        with self._lock.checked():
            if batch.last_lsn > self._committed_lsn:
                self._held.append(Held(batch.last_lsn, batch.bytes, batch.waiters, batch.gate))
                self._committed_lsn = batch.last_lsn
                self._backpressure.hold(batch.bytes)
            self._log_bytes = log_bytes
            synced = [gate for of, gate in self._sync_gates if of is batch]
            self._sync_gates = [each for each in self._sync_gates if each[0] is not batch]
            room_gate = self._backpressure.end_commit(log_bytes, self._buffer.filling_bytes)
            released, room = self._release()
        open_gates(*synced, *released, room_gate, room)

    def acknowledge(self, lsn: int) -> None:
        """Note that the mirror has every record up to `lsn`, and release their waiters."""
        with self._lock:
            self._mirrored_lsn = max(self._mirrored_lsn, lsn)
            released, room_gate = self._release()
        open_gates(*released, room_gate)

    def gather_s(self, limit_s: float) -> float:
        """Return for how long to wait for the waiters that the mirror released last, at most
        `limit_s` seconds after that. They come back with a next record each."""
        policy = self.wake_policy
        if self.waiting >= policy.expected_waiters:
            return 0
        return limit_s - policy.since_release_s()

    @property
    def waiting(self) -> int:
        """The number of waiters for commits that are on this disk."""
        return sum(held.waiters for held in tuple(self._held))

    def give_up(self) -> None:
        """Release all waiters, with an error, because a close waits for the mirror in vain."""
        self._has_given_up = True
        self._open_held()

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        self._open_held()

    def _open_held(self) -> None:
        with self._lock.checked():
            gates = [held.gate for held in self._held]
        open_gates(*gates)

    def flusher_ended(self) -> None:
        super().flusher_ended()
        with self._lock.checked():
            gates = [gate for _, gate in self._sync_gates]
        open_gates(*gates)

    def _release(self) -> tuple[list[Gate], Gate | None]:
        """Take what the mirror has from what is held. Return the gates to open."""
        done = list(takewhile(lambda held: held.last_lsn <= self._mirrored_lsn, self._held))
        gates = [held.gate for held in done if held.gate]
        if self._lifecycle.failure is not None:  # it came during the commit
            gates += [held.gate for held in self._held if held.gate]
        if not done:
            return gates, None
        self.durable_lsn = done[-1].last_lsn
        del self._held[: len(done)]
        freed_bytes = sum(held.bytes for held in done)
        room_gate = self._backpressure.release(
            freed_bytes, self._log_bytes, self._buffer.filling_bytes
        )
        waiters = sum(held.waiters for held in done)
        self.wake_policy.note_release(waiters, self.waiting + self._buffer.filling.waiters)
        return gates, room_gate

    def _end(self) -> None:
        self._committing = self._waiter = None  # nobody is released here


def _last_lsn(held: Held) -> int:
    return held.last_lsn
