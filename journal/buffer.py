"""Log buffer: records packed and numbered, not yet on disk.

At most two batches exist: one that fills, one that is being committed. Whoever commits holds
the end of the log, alone: the flusher, or a waiter who found nobody there and commits in its
own thread. What a holder is interrupted in, the flusher finishes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sized

from journal.batch import NEWS, Batch
from journal.errors import InterruptedCallError
from journal.filling import Filling
from journal.gate import Gate, open_gates
from journal.mutex import HandlerSafeLock
from journal.options import Options
from journal.wake_policy import WakePolicy


class LogBuffer(Filling):
    """The batch that fills, the batch being committed, and the thread that commits it."""

    def __init__(self, last_lsn: int, options: Options) -> None:
        super().__init__(last_lsn, options)
        self._idle_s, self._hasty = options.idle_s, options.flush_interval_s < options.idle_s
        # Guarded by the same lock.
        self._committing: Batch | None = None
        self.durable_lsn = last_lsn
        self._quiet: Batch | None = None  # the batch in which the log was marked idle
        # Who holds the end of the log for `_committing`, if not the flusher.
        self._holder: int | None = None
        self._orphan = False  # whether that one was interrupted
        self.wake_policy = WakePolicy()

    # --- what owners call ---

    def gate(self, lsn: int) -> Gate | None:
        """The gate that opens when `lsn` is durable; None if it is."""
        standing = self.standing
        if standing.refusal is not None and not standing.closing and lsn > self.durable_lsn:
            standing.check()
        if self._is_held_here():  # `checked`, without its frame
            raise InterruptedCallError
        with self._lock:
            filling, committing = self._filling, self._committing
            if lsn <= self.durable_lsn:
                return None
            if lsn >= filling.first_lsn + len(filling.records):
                raise ValueError(f"LSN {lsn} was never appended, the last one is {self.last_lsn}")
            if standing.failure or standing.ended:
                raise standing.error()
            if self._holder is not None:
                self._refuse_within_commit()
            if committing and lsn < filling.first_lsn:
                return self._gate_of(committing)
            self._add_waiter(filling)
            return filling.gate or self._gate_of(filling)

    def request_commit(self, lsn: int) -> None:
        """Have `lsn` committed as soon as if somebody waited for it. Does nothing if it is."""
        with self._lock.checked():
            filling = self._filling
            if filling.first_lsn <= lsn <= filling.last_lsn:
                self._add_waiter(filling)

    def _add_waiter(self, filling: Batch) -> None:
        filling.waiters += 1
        if filling.waiters == 1 or self.wake_policy.is_last_expected(filling.waiters):
            self.alarm.wake()

    def sync_gate(self) -> Gate:
        """The gate that opens once all appended so far is on stable storage, in "os" mode too."""
        self.standing.check()
        with self._lock.checked():
            self.standing.check()
            self._refuse_within_commit()
            self._filling.sync = True
            self.alarm.wake()
            return self._gate_of(self._filling)

    def room_gate(self) -> Gate | None:
        """The gate that opens when there is room; None if there is."""
        self.standing.check()
        with self._lock.checked():
            self.standing.check()
            if not self._filling.records:
                self._filling.bytes = 0  # what was interrupted left some
            if self.has_room:
                return None
            self._refuse_within_commit()
            if self._filling.records:
                self._filling.waiters += 1
                self.alarm.wake()
            return self.room.gate()

    @property
    def is_committing_here(self) -> bool:
        """Return whether this thread is inside a commit, which the caller interrupted."""
        return self._holder == threading.get_ident() and not self._orphan

    def is_locked_here(self) -> bool:
        """Return whether this thread holds the lock: then the caller interrupted it."""
        return self._is_held_here()

    def close(self) -> None:
        """Take no more records; the flusher commits what there is and ends."""
        with self._lock.checked():
            self.close_soon()

    def close_soon(self) -> None:
        """`close`, taking no lock: a collector may call it in any thread, the flusher's too."""
        self.standing.close()
        self._unheeded_bytes = 0
        self.alarm.wake()

    def abandon(self) -> None:
        """Refuse everything, in a forked child, without touching a lock that others have."""
        self._lock = HandlerSafeLock()
        self._is_held_here = self._lock._is_owned
        self.standing.abandon()
        self._unheeded_bytes = 0

    # --- what a holder of the log's end calls ---

    def take(self, events: Sized = ()) -> Batch | None:
        """Block until there is a batch to commit, for the flusher.

        Return an empty batch when the log has gone idle, NEWS when there are `events` to tell, and
        None when it is closed and everything is committed.
        """
        with self._lock.checked():
            if self._holder is None:
                self._leave()
        while True:
            with self._lock.checked():
                # First of all: what wakes us from here on, we have not seen yet.
                self.alarm.clear()
                filling = self._filling
                timeout_s = self._idle_s
                if self.standing.failure is not None:
                    return None
                if events:
                    return NEWS
                if self._orphan:
                    self._orphan, self._holder = False, None
                    return self._committing
                if self._committing is None:
                    if filling.has_work:
                        timeout_s = self._due_s(filling)
                        if timeout_s <= 0:
                            return self._enter(filling)
                    elif self.standing.closing:
                        if not self._is_admitted:
                            return None
                    elif filling is self._quiet:
                        timeout_s = -1
                self._deep = not filling.has_work and (timeout_s < 0 or self._hasty)
            if not self.alarm.sleep(timeout_s):
                with self._lock.checked():
                    still = self._committing is None and self._filling is filling
                    if still and not filling.has_work:
                        self._quiet = filling
                        self._committing = Batch(filling.first_lsn)
                        return self._committing

    def take_here(self, lsn: int) -> Batch | None:
        """For a waiter: the batch that holds `lsn`, if nobody is at the log's end and nobody
        else waits. Where several wait, gathering them is worth more than the time saved."""
        policy, refusal = self.wake_policy, self.standing.refusal
        if policy.last_waiters > 1 or self._committing is not None or refusal is not None:
            return None  # a look without the lock, and again with it
        with self._lock.checked():
            filling = self._filling
            alone = self._committing is None and policy.last_waiters <= 1 and not filling.waiters
            inside = filling.first_lsn <= lsn <= filling.last_lsn
            if not (alone and inside) or filling.sync or self.standing.refusal is not None:
                return None
            self._holder = threading.get_ident()
            filling.waiters = 1
            return self._enter(filling)

    def leave_here(self) -> None:
        """The batch of `take_here` is committed."""
        with self._lock.checked():
            self._leave()
            if self._filling.has_work or self.standing.closing:
                self.alarm.wake()

    def hand_over(self) -> None:
        """Let the flusher finish what `take_here` gave, as far as it did."""
        with self._lock.checked():
            if self._holder == threading.get_ident():
                if self._committing is self._filling:  # interrupted before it was taken
                    self._committing, self._committing_bytes = None, 0
                self._orphan = self._committing is not None
                self._holder = self._holder if self._orphan else None
            self.alarm.wake()

    def _enter(self, filling: Batch) -> Batch:
        self.wake_policy.note_begin()
        # In this order: what fills and is being committed at once has not been taken.
        self._unheeded_bytes = 0
        self._committing, self._committing_bytes = filling, filling.bytes
        self._filling = Batch(filling.last_lsn + 1)
        return filling

    def _leave(self) -> None:
        if self._committing is not None and self._committing.records:
            self.wake_policy.note_release(self._committing.waiters, self._filling.waiters)
        self._committing = self._holder = None

    def _due_s(self, filling: Batch) -> float:
        """Seconds until `filling` must be committed."""
        if filling.sync or self.standing.closing or filling.bytes >= self._flush_bytes:
            return 0
        if filling.waiters:
            return self.wake_policy.due_s(filling.waiters)
        return filling.since + self._options.flush_interval_s - time.monotonic()

    def hold_from(self, log_bytes: float) -> None:
        """The log may grow to so many bytes: let those pass who waited for that room."""
        with self._lock.checked():
            room = self.room.hold_from(log_bytes, self.used_bytes)
        open_gates(room)

    def committed(self, batch: Batch, sync_s: float, log_bytes: int) -> None:
        """`batch` is durable, the log has `log_bytes`: let those pass who wait for it, or for room.
        May be repeated."""
        with self._lock.checked():
            self.wake_policy.note_sync(sync_s)
            self.durable_lsn, self._committing_bytes = batch.last_lsn, 0
            room = self.room.grew(log_bytes, self.used_bytes)
        open_gates(batch.gate, room)

    def fail(self, error: BaseException) -> None:
        """Fail-stop: take nothing more, and release everybody who waits."""
        with self._lock.checked():
            self.standing.fail(error)
            self._unheeded_bytes = 0
            self.alarm.wake()
        self._open_all()

    def flusher_ended(self) -> None:
        """Note that the flusher has ended, for whatever reason, and release all waiters."""
        with self._lock.checked():
            self.standing.end()
            self._unheeded_bytes = 0
        self._open_all()

    # --- inside ---

    def _open_all(self) -> None:
        with self._lock.checked():
            gates = [batch.gate for batch in (self._committing, self._filling) if batch]
        open_gates(*gates, self.room.last_gate())

    def _gate_of(self, batch: Batch) -> Gate:
        if batch.gate is None:
            batch.gate = Gate(wakes_all_at_once=self.wake_policy.wakes_all_at_once)
        return batch.gate

    def _refuse_within_commit(self) -> None:
        if self.is_committing_here:
            raise InterruptedCallError
