"""CommitTurn: which thread commits, and when.

One batch fills, in the log buffer. Another one may be written, and some may be syncing (see
SyncLanes): they are here. One thread at a time has the turn, and only that thread writes to the end
of the log. It is the flusher, or a lone waiter that found the turn free and commits in its own
thread. If that waiter is interrupted, the flusher finishes its commit.
"""

from __future__ import annotations

from collections.abc import Sized
from threading import get_ident

from journal import _time as time
from journal._commit.backpressure import Backpressure
from journal._commit.batch import EVENTS_ONLY, CommitBatch
from journal._commit.buffer import LogBuffer
from journal._commit.gate import Gate, open_gates
from journal._commit.lifecycle import Lifecycle
from journal._commit.wake_policy import WakePolicy
from journal._format.record import Record
from journal._mutex import Alarm, HandlerSafeLock, section_of
from journal.errors import InterruptedCallError, JournalError
from journal.options import Options


class LoneWaiter:
    """A thread that commits the record that it waits for.

    If an interrupt ends the commit, the thread sets `has_left`. That takes no call, so no further
    interrupt can prevent it.
    """

    __slots__ = ("has_left", "thread_id")

    def __init__(self) -> None:
        self.thread_id = get_ident()
        self.has_left = False


class CommitTurn:
    """The batch being committed, the thread that commits it, and the waiters of both batches.

    `lock` is the log buffer's and guards all fields; `durable_lsn` may be read without it.
    `lanes_max`: the number of syncs that may be in flight.
    """

    lanes_max = 3

    def __init__(
        self,
        buffer: LogBuffer,
        options: Options,
        *,
        lock: HandlerSafeLock,
        alarm: Alarm,
        lifecycle: Lifecycle,
        backpressure: Backpressure,
    ) -> None:
        self._buffer = buffer
        self._options = options
        self._idle_s = options.idle_s
        self._lock, self._section, self._is_locked_here = lock, section_of(lock), lock._is_owned
        self._append_locked = buffer.append_locked
        self._alarm = alarm  # wakes the flusher
        self._lifecycle = lifecycle
        self._backpressure = backpressure
        self.wake_policy = WakePolicy()
        self._committing: CommitBatch | None = None
        self._syncing: list[CommitBatch] = []  # written, and handed over to a sync, oldest first
        self.lanes = 1  # the number of syncs that may be in flight
        # The lone waiter that has the turn, or that has left its commit to the flusher. None if the
        # flusher has the turn, or nobody.
        self._waiter: LoneWaiter | None = None
        # The filling batch at the moment when the log last went idle.
        self._idle_batch: CommitBatch | None = None
        self._wakes_at = 1  # the number of waiters of the filling batch that wakes the flusher
        self.durable_lsn = buffer.last_lsn
        self.own_ids: set[int] = set()  # of the threads that commit and sync, while they run

    # --- called by waiters ---

    def gate(self, lsn: int) -> Gate | None:
        """Return the gate that opens when `lsn` is durable, or None if it is durable already."""
        lifecycle = self._lifecycle
        if lifecycle.refusal is not None and not lifecycle.closing and lsn > self.durable_lsn:
            lifecycle.check()  # first: in a forked child, it raises without a lock
        if self._lock._is_owned():  # `checked`, inlined: every waiter runs this
            raise InterruptedCallError
        with self._lock:
            filling = self._buffer.filling
            if lsn <= self.durable_lsn:
                return None
            if lsn >= filling.first_lsn + len(filling.records):
                raise ValueError(
                    f"LSN {lsn} was never appended; the last one is {filling.last_lsn}"
                )
            if lifecycle.failure or lifecycle.ended:
                raise lifecycle.error()
            if self._waiter is not None or get_ident() in self.own_ids:
                self._begin_wait()
            if lsn < filling.first_lsn:
                syncing = (each for each in self._syncing if lsn <= each.last_lsn)
                if batch := next(syncing, self._committing):
                    return self._gate_of(batch)
            self._add_waiter(filling)
            return filling.gate or self._gate_of(filling)

    def append(self, record: Record, urgent: bool) -> tuple[int, Gate | None]:
        """Append a record. Return its LSN, and what `gate` returns for it."""
        if self._is_locked_here():
            raise InterruptedCallError
        with self._section:
            if self._waiter is not None or get_ident() in self.own_ids:
                self._begin_wait()
            lsn = self._append_locked(record, urgent)
            filling = self._buffer.filling
            waiters = filling.waiters + 1  # `_add_waiter`, inlined
            if waiters == self._wakes_at:
                self._alarm.wake()
            filling.waiters = waiters
            return lsn, filling.gate or self._gate_of(filling)

    def outcome(self, lsn: int) -> JournalError | None:
        """Return the error for a waiter whose gate is open, or None if `lsn` is durable."""
        return None if lsn <= self.durable_lsn else self._lifecycle.error()

    def request_commit(self, lsn: int) -> None:
        """Commit `lsn` as soon as if a thread waited for it. Do nothing if it is committed."""
        with self._lock.checked():
            filling = self._buffer.filling
            if filling.first_lsn <= lsn <= filling.last_lsn:
                self._add_waiter(filling)
            if self._waiter is not None:  # see `gate`
                self._alarm.wake()

    def sync_gate(self) -> Gate:
        """Return the gate that opens once every record so far is on stable storage, even with
        durability "os"."""
        self._lifecycle.check()
        with self._lock.checked():
            self._lifecycle.check()
            self.refuse_within_commit()
            filling = self._buffer.filling
            filling.require_sync()
            self._alarm.wake()
            return self._gate_of(filling)

    def room_gate(self) -> Gate | None:
        """Return the gate that opens when there is room, or None if there is room now."""
        self._lifecycle.check()
        with self._lock.checked():
            self._lifecycle.check()
            if self._buffer.has_room:
                return None
            self.refuse_within_commit()
            if self._buffer.filling.records:
                self._buffer.filling.add_waiter()
            self._alarm.wake()
            return self._backpressure.gate()

    def got_room(self) -> bool:
        """Return whether a caller whose gate has just opened may go on.

        Other callers may already have used the room that a compaction gave. Each one that waited
        for it goes on, or else one of them could wait forever.
        """
        self._lifecycle.check()
        return not self._buffer.is_half_full

    @property
    def is_committing_here(self) -> bool:
        """True if this thread is inside a commit, which the caller has interrupted. Also true for
        everything that observers and finalizers call in the engine's threads."""
        waiter, thread_id = self._waiter, get_ident()
        is_alone = waiter is not None and waiter.thread_id == thread_id and not waiter.has_left
        return is_alone or thread_id in self.own_ids

    def abandon(self, lock: HandlerSafeLock) -> None:
        """Replace the lock, in a forked child: a thread of the parent may hold the old one."""
        self._lock, self._section, self._is_locked_here = lock, section_of(lock), lock._is_owned
        self._waiter, self.own_ids = None, set()  # threads of the child may get the same ids

    # --- the turn ---

    def take(self, events: Sized = ()) -> CommitBatch | None:
        """Block until there is a batch to commit, and take the turn. Only the flusher calls this,
        after it has committed the last batch.

        Return an empty batch when the log has gone idle, and EVENTS_ONLY when there are `events` to
        report. Return None when the log has failed, or is closed and everything is committed.
        """
        while True:
            with self._section:
                # First: a wake-up after this may be for something that is not seen below.
                self._alarm.clear()
                if self._committing is not None and self._waiter is None:
                    self._end()
                filling, timeout_s = self._buffer.filling, self._idle_s
                if self._lifecycle.failure is not None:
                    return None
                if events:
                    return EVENTS_ONLY
                if self._waiter is not None and self._waiter.has_left and self._take_over():
                    return self._committing
                if self._committing is None:
                    if len(self._syncing) >= self.lanes:
                        timeout_s = -1  # the end of a sync wakes it
                    elif filling.records or filling.sync:
                        timeout_s = self._due_s(filling)
                        if timeout_s <= 0:
                            return self._begin(filling)
                    elif self._lifecycle.closing:
                        if not self._buffer.awaits_append():
                            return None
                    elif filling is self._idle_batch:
                        timeout_s = -1
                # Until then, the next commit would not begin with the first waiter.
                gather_s = 0.0 if filling.waiters else self.wake_policy.due_s(0)
                is_first_enough = gather_s <= 0 and not filling.waiters
                self._wakes_at = 1 if is_first_enough else self.wake_policy.enough_waiters
                if gather_s > 0 and not 0 < timeout_s < gather_s:
                    timeout_s = gather_s
                # The flusher may sleep longer than an unawaited record may stay in memory.
                oversleeps = timeout_s < 0 or self._options.flush_interval_s < self._idle_s
                self._buffer.wake_at_first_record(not filling.has_work and oversleeps)
            is_woken = self._alarm.sleep(timeout_s)
            if not is_woken and gather_s <= 0 and (idle := self._take_idle(filling)):
                return idle

    def _take_idle(self, filling: CommitBatch) -> CommitBatch | None:
        """Take the turn to mark the log idle, if nothing has happened since `filling` was empty.
        Return an empty batch then, or else None."""
        with self._lock.checked():
            is_busy = self._committing is not None or self._syncing or filling.has_work
            if is_busy or self._buffer.filling is not filling:
                return None
            self._idle_batch, self._committing = filling, CommitBatch(filling.first_lsn)
            return self._committing

    def take_alone(self, lsn: int, waiter: LoneWaiter) -> CommitBatch | None:
        """Take the turn for `waiter`, and return the batch with `lsn`. Return None if another
        thread waits or commits: a commit that several waiters share saves more than one in the
        waiter's own thread."""
        with self._lock.checked():
            filling = self._buffer.filling
            is_filling = 0 <= lsn - filling.first_lsn < len(filling.records)
            is_free = self._committing is None and not self._syncing
            is_alone = (
                self.wake_policy.last_waiters <= 1 and not filling.waiters and not filling.sync
            )
            if not (is_filling and is_free and is_alone) or self._lifecycle.refusal is not None:
                return None
            self._waiter = waiter
            filling.add_waiter()
            return self._begin(filling)

    def leave(self, waiter: LoneWaiter, *, is_done: bool) -> None:
        """Give up the turn if `waiter` has it. The flusher finishes a commit that is not done.

        If an interrupt strikes in here, the caller must set `waiter.has_left`. The flusher checks
        that when it wakes, and the next waiter wakes it.
        """
        if self._waiter is not waiter:
            return
        with self._lock.checked():
            if not is_done or self._buffer.filling.has_work or self._lifecycle.closing:
                # First, because an interrupt may strike below. The flusher waits for the lock.
                self._alarm.wake()
            if is_done:
                self._end()
            else:
                waiter.has_left = True

    def committed(
        self, batch: CommitBatch, sync_s: float, log_bytes: int
    ) -> tuple[Gate | None, ...]:
        """Note that `batch` is durable and that the log has `log_bytes`. Return the gates to open:
        of the batch's waiters, and of the waiters for room if there is room now. May be repeated.
        """
        with self._lock.checked():
            self.wake_policy.note_sync(sync_s)
            self.durable_lsn = batch.last_lsn
            room_gate = self._backpressure.end_commit(log_bytes, self._buffer.filling_bytes)
            if batch.records:
                self.wake_policy.note_release(batch.waiters, self._buffer.filling.waiters)
            return batch.gate, room_gate

    def hand_over(self, batch: CommitBatch) -> None:
        """Give up the turn: `batch` is written, and its sync is in flight. Only the flusher calls
        this."""
        with self._lock.checked():
            self._syncing.append(batch)
            self._committing = None
            self._backpressure.hold(sum(each.bytes for each in self._syncing))
            self._backpressure.begin_commit(0)

    def committed_beside(self, batch: CommitBatch, sync_s: float, log_bytes: int) -> None:
        """Do what `committed` does, for the oldest batch that was handed over."""
        with self._lock.checked():
            self._syncing.remove(batch)
            self.wake_policy.note_sync(sync_s)
            self.durable_lsn = batch.last_lsn
            syncing, buffer = self._syncing, self._buffer
            held_bytes = sum(each.bytes for each in syncing)
            room_gate = self._backpressure.release(held_bytes, log_bytes, buffer.filling_bytes)
            others = sum(each.waiters for each in (buffer.filling, *syncing))
            self.wake_policy.note_release(batch.waiters, others, lanes=self.lanes)
            self._alarm.wake()
        open_gates(batch.gate, room_gate)

    def fail(self, error: BaseException) -> None:
        """Stop the journal (fail-stop): take nothing more, and release all waiters."""
        with self._lock.checked():
            self._lifecycle.fail(error)
            self._buffer.end_fast_path()
            self._alarm.wake()
        self._open_all()

    def flusher_ended(self) -> None:
        """Note that the flusher has ended, for whatever reason, and release all waiters."""
        with self._lock.checked():
            self._lifecycle.end()
            self._buffer.end_fast_path()
        self._open_all()

    # --- internal ---

    def _take_over(self) -> bool:
        """Take the turn from a lone waiter that has left. Return whether it left a batch to commit:
        an interrupt may have struck before it took the batch out of the log buffer."""
        self._waiter = None
        if self._committing is not None and self._committing is not self._buffer.filling:
            return True
        self._backpressure.begin_commit(0)
        self._committing = None
        return False

    def _begin(self, filling: CommitBatch) -> CommitBatch:
        self.wake_policy.note_begin()
        # The order matters: a batch that is both filling and being committed was not taken yet.
        self._committing = filling
        self._backpressure.begin_commit(filling.bytes)
        self._buffer.begin_batch()
        return filling

    def _end(self) -> None:
        self._committing = self._waiter = None

    def _due_s(self, filling: CommitBatch) -> float:
        """Return the seconds until `filling` must be committed."""
        options = self._options
        if filling.sync or self._lifecycle.closing or filling.bytes >= options.flush_bytes:
            return 0
        if filling.waiters:
            return self.wake_policy.due_s(filling.waiters)
        return filling.since + options.flush_interval_s - time.monotonic()

    def _begin_wait(self) -> None:
        """Refuse to wait within a commit, and wake the flusher beside a lone waiter.

        Interrupts may keep the lone waiter from waking it when it leaves. While a batch is being
        committed, a flusher that was woken once looks again by itself.
        """
        self.refuse_within_commit()
        self._alarm.wake()

    def _add_waiter(self, filling: CommitBatch) -> None:
        waiters = filling.waiters + 1
        if waiters == self._wakes_at:
            self._alarm.wake()  # first, because an interrupt may strike
        filling.waiters = waiters

    def _gate_of(self, batch: CommitBatch) -> Gate:
        """Return the gate of the batch's waiters. The first waiter decides how it wakes them."""
        if batch.gate is None:
            batch.gate = Gate(wakes_all_at_once=self.wake_policy.wakes_all_at_once)
        return batch.gate

    def _open_all(self) -> None:
        with self._lock.checked():
            batches = *self._syncing, self._committing, self._buffer.filling
            gates = [batch.gate for batch in batches if batch]
        open_gates(*gates, self._backpressure.last_gate())

    def refuse_within_commit(self) -> None:
        """Raise InterruptedCallError where a wait would wait for its own thread."""
        if self.is_committing_here:
            raise InterruptedCallError
