"""Committer: group commit, and the flusher thread.

A commit takes the filling batch, frames it, writes it, syncs it, raises the durable LSN and opens
the batch's gate. During the sync, the next batch fills. No lock is held across a write or a sync.

The flusher commits, or a lone waiter in its own thread, which saves two thread switches a commit. A
waiter takes on only what is idempotent (the same bytes at the same offset, then a sync), so the
flusher can repeat it after an interrupt.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from journal import _time as time
from journal._commit.batch import EVENTS_ONLY, CommitBatch
from journal._commit.buffer import LogBuffer
from journal._commit.commit_figures import CommitFigures
from journal._commit.commit_turn import CommitTurn, LoneWaiter
from journal._commit.gate import Gate, open_gates
from journal._commit.lane_policy import SLOW_SYNC_NS, LanePolicy
from journal._commit.lifecycle import Lifecycle, in_words
from journal._commit.observers import Event, Observers
from journal._commit.sync_lanes import PendingSync, SyncLanes
from journal._commit.writer import NO_SPACE, SyncedEnd, Writer
from journal._disk.disk import is_disk_error
from journal._log import post
from journal._mutex import Alarm
from journal._waits import join
from journal.errors import FailedError, JournalError
from journal.options import Options

if TYPE_CHECKING:
    from journal.metrics import Observer

_RETRY_S_MIN, _RETRY_S_MAX = 0.02, 1.0


class Committer:
    """Commits batches, in the flusher's thread or in a waiter's.

    The flusher ends when the journal is closed and everything committed, or at the first failure.
    """

    def __init__(
        self,
        buffer: LogBuffer,
        turn: CommitTurn,
        writer: Writer,
        options: Options,
        *,
        alarm: Alarm,
        lifecycle: Lifecycle,
    ) -> None:
        self._buffer = buffer
        self._turn = turn
        self._writer = writer
        self._lifecycle = lifecycle
        self._sync_each = options.durability == "disk"
        self._thread = threading.Thread(target=self._run, name="journal-flusher", daemon=True)
        self._policy = LanePolicy(turn.lanes_max if self._sync_each else 1)
        self._lanes = SyncLanes(turn.own_ids, self._acknowledge, self._fail)
        self._ended: Callable[[], None] = _do_nothing
        self._failure_trace: TracebackType | None = None  # of an unexpected failure, to be logged
        self.figures = CommitFigures()
        self._alarm = alarm  # wakes the flusher
        self._observers = Observers(alarm)
        self.due_bytes = float("inf")
        self._notify_due: Callable[[], None] = _do_nothing
        # Wakes the thread of a mirror that acknowledges commits. That thread then reports them.
        self._wake_mirror: Callable[[], None] | None = None
        self._deferred: deque[tuple[int, Event]] = deque()
        self._is_ending = False

    def start(self, ended: Callable[[], None]) -> None:
        """Start the flusher, whose last act is to call `ended`."""
        self._ended = ended
        self._thread.start()

    @property
    def has_begun(self) -> bool:
        return self._thread.ident is not None

    def join(self, timeout_s: float | None) -> bool:
        """Wait at most `timeout_s` seconds for the flusher to end. Return whether it has ended."""
        return join(self._thread, timeout_s)

    @property
    def log_bytes(self) -> int:
        """The number of bytes written to the log since open."""
        return self._writer.log_bytes

    @property
    def last_lsn(self) -> int:
        """The LSN of the last record that was appended."""
        return self._buffer.last_lsn

    @property
    def synced_end(self) -> SyncedEnd | None:
        """The end of what is synced since open, or None."""
        return self._writer.synced_end

    @property
    def synced_lsn(self) -> int:
        """The LSN up to which every record survives a power cut. With durability "disk", these are
        all acknowledged records."""
        return self._writer.synced_lsn

    @property
    def durable_lsn(self) -> int:
        """See Journal.durable_lsn."""
        return self._turn.durable_lsn

    @property
    def has_room(self) -> bool:
        return self._buffer.has_room

    @property
    def segment_bytes(self) -> int | None:
        """The number of bytes written to the open segment, or None if this opening has none."""
        return self._writer.segment_bytes

    def end_segment(self) -> None:
        """Let the next commit begin a segment, unless the open one has no record."""
        self._writer.end_segment()

    def hold_from(self, log_bytes: float) -> None:
        """Let the log grow to `log_bytes` before updates wait."""
        self._buffer.hold_from(log_bytes)

    def give_room(self, room_bytes: float) -> None:
        """Let the log grow by `room_bytes` more before updates wait again."""
        self._buffer.give_room(room_bytes)

    def notify_when_due(self, due_bytes: float, notify: Callable[[], None]) -> None:
        """Call `notify` after each commit that leaves the log at `due_bytes` or more."""
        self._notify_due, self.due_bytes = notify, due_bytes

    def defer_to(self, wake_mirror: Callable[[], None]) -> None:
        """Call `wake_mirror` after each commit, and report commits only when they are durable."""
        self._wake_mirror = wake_mirror

    def report_deferred(self) -> None:
        """Report the commits that have become durable. Only the mirror's thread calls this."""
        while self._deferred and self._deferred[0][0] <= self._turn.durable_lsn:
            self.queue(self._deferred.popleft()[1])
        if self._is_ending:  # checked last: the flusher may not see what is queued after it was set
            self._observers.notify_queued()

    def sync_log(self) -> None:
        """Wait until every record so far is on stable storage, whatever the durability."""
        last_lsn = self._buffer.last_lsn
        if self.synced_lsn < last_lsn:
            self._turn.sync_gate().wait()
            if self.synced_lsn < last_lsn:
                raise self._lifecycle.error()

    def stop(self, error: BaseException) -> None:
        """Stop the journal with an error that the disk has not raised. Another thread of the engine
        calls this."""
        if self._lifecycle.failure is None:
            self._fail(error)

    def abandon(self) -> None:
        """Close the segment's file in a forked child, where the flusher does not exist."""
        self._writer.release()

    def mark(self) -> None:
        """Write a mark, which states that every record so far is durable. The flusher calls this
        when the log goes idle; so may a test in which no other thread commits."""
        self._writer.mark()

    def observe(self, observer: Observer) -> None:
        """Report all events to `observer` from now on."""
        self._observers.add(observer)

    def notify(self, event: Event) -> None:
        """Call the observers now. Only the engine's threads may do so."""
        self._observers.notify(event)

    def queue(self, event: Event) -> None:
        """Let the flusher call the observers, for an event in a caller's thread."""
        self._observers.queue(event)

    def commit_alone(self, lsn: int) -> bool:
        """Commit `lsn` in the calling thread, if no other thread waits or commits.

        Return whether it is committed. If not, the flusher commits it, or the journal has failed.

        Interrupts (a signal handler's exceptions) may strike after any call, even while an earlier
        interrupt is handled. So the handling relies only on setting `has_left`, which takes no
        call: the flusher then repeats whatever was not done.
        """
        is_done, waiter = False, LoneWaiter()
        try:
            try:
                batch = self._turn.take_alone(lsn, waiter)
                if batch is not None and self._writer.has_segment_for(batch):
                    self._commit(batch)
                    is_done = True
            except Exception as error:
                if not self._is_log_failure(error):
                    raise  # a signal handler's: it propagates, and the journal continues
                if getattr(error, "errno", None) not in NO_SPACE:
                    self._fail(error)
            self._turn.leave(waiter, is_done=is_done)
        except BaseException:
            waiter.has_left = True
            self._turn.leave(waiter, is_done=False)
            raise
        return is_done

    def _is_log_failure(self, error: Exception) -> bool:
        if isinstance(error, JournalError):  # a handler may raise the error of another journal
            return isinstance(error, FailedError) and self._writer.failed
        return is_disk_error(error)

    def _run(self) -> None:
        self._turn.own_ids.add(threading.get_ident())
        try:
            while (batch := self._turn.take(self._observers.queued)) is not None:
                self._observers.notify_queued()
                if batch.has_work:
                    self._commit_with_retries(batch)
                    self._turn.lanes = self._policy.lanes
                elif batch is not EVENTS_ONLY:
                    self.mark()
            self._lanes.drain()
            if self._lifecycle.failure is None:
                self._writer.close()
        except BaseException as error:
            self._fail(error)
        finally:
            self._turn.flusher_ended()
            self._end()
            self._turn.own_ids.clear()  # another thread may get the same id

    def _fail(self, error: BaseException) -> None:
        """Record the failure and release the waiters. Foreign code is called later, and in the
        flusher's thread."""
        self._failure_trace = (
            None if isinstance(error, (OSError, JournalError)) else error.__traceback__
        )
        self._turn.fail(error)
        # Drop tracebacks: their frames would keep the caller, and so the journal, alive.
        links: list[BaseException] = [error]
        for link in links:
            link.__traceback__ = None
            cause = link.__cause__ or link.__context__
            if cause is not None and cause not in links:
                links.append(cause)

    def _end(self) -> None:
        self._is_ending = True
        self._observers.notify_queued()
        error, trace, self._failure_trace = self._lifecycle.failure, self._failure_trace, None
        if error is not None:
            unexpected = (type(error), error, trace) if trace else None
            path = self._writer.directory_path
            post(
                logging.ERROR,
                "%s: the journal stopped: %s; close it, fix the cause, and reopen it",
                path,
                in_words(error),
                error=unexpected,
            )
            self.notify(lambda observer: observer.failed(error))
        self._lanes.stop()
        with suppress(OSError):  # a failed close loses nothing that was acknowledged
            self._writer.release()
        self._ended()

    def _hand_over(self, batch: CommitBatch) -> bool:
        """Write the batch, and let a lane sync it. Return False, and do nothing, if none can.

        `_commit` repeats a commit that was begun, even one that has found no space here.
        """
        if self._turn.lanes == 1 or batch.commit is not None or not batch.records or batch.sync:
            return False
        lane = self._lanes.free() if self._writer.has_segment_for(batch) else None
        file = None if lane is None else self._writer.handle(lane)
        if lane is None or file is None:
            return False
        self._writer.prepare(batch)
        self._writer.write(batch)
        self._turn.hand_over(batch)
        self._lanes.begin(lane, PendingSync(batch, file, self._writer.written_end))
        return True

    def _acknowledge(self, pending: PendingSync) -> None:
        """Release the waiters of a commit that a lane has synced."""
        self._writer.synced_to(pending.end, pending.error)
        batch, sync_ns = pending.batch, pending.sync_ns
        crowd = self._turn.wake_policy.expected_waiters
        self._policy.note_beside(sync_ns, crowd, has_company=pending.has_company)
        self._turn.lanes = self._policy.lanes
        batch.sync_ns = sync_ns
        self._report(batch)  # first: after the release, a lone waiter may commit
        self._turn.committed_beside(batch, sync_ns / 1e9, pending.end[3])

    def _commit_with_retries(self, batch: CommitBatch) -> None:
        """Commit, and retry until there is space: the same bytes at the same offset, and a sync.

        This returns early if a lane syncs the batch, or if the journal has failed.
        """
        delay_s = 0.0
        while True:
            try:
                if self._hand_over(batch):
                    return
                self._lanes.drain()
                if self._lifecycle.failure is not None:
                    return
                self._commit(batch)
            except OSError as error:
                if error.errno not in NO_SPACE or isinstance(error, JournalError):
                    raise
                if not delay_s:
                    self._stall(error)
                delay_s = min(max(delay_s * 2, _RETRY_S_MIN), _RETRY_S_MAX)
                time.sleep(delay_s)
            else:
                if delay_s:
                    path = self._writer.directory_path
                    post(logging.WARNING, "%s: there is space again; the journal continues", path)
                return

    def _commit(self, batch: CommitBatch) -> None:
        """Write the batch, sync it, and release its waiters. May be repeated in the same turn."""
        writer = self._writer
        if batch.last_lsn > self._turn.durable_lsn or batch.sync:
            if batch.records:
                if batch.commit is None:
                    writer.prepare(batch)
                writer.write(batch)
            if self._sync_each or batch.sync:
                began_ns = time.perf_counter_ns()
                writer.sync()
                sync_ns = batch.sync_ns = time.perf_counter_ns() - began_ns
                if sync_ns >= SLOW_SYNC_NS:
                    wakes = self._turn.wake_policy
                    return_ns = began_ns - wakes.released_ns
                    self._policy.note_alone(sync_ns, return_ns, wakes.expected_waiters)
        gates = self._turn.committed(batch, batch.sync_ns / 1e9, writer.log_bytes)
        self._report(batch, *gates)

    def _report(self, batch: CommitBatch, *gates: Gate | None) -> None:
        """Count a commit, open `gates`, and tell everybody who is to know. May be repeated."""
        self.figures.add(batch)  # a released caller may ask for it
        if self._observers.all and batch.records and not batch.is_reported:
            self._queue_committed(batch)
        open_gates(*gates)
        if self._observers.queued:
            if threading.current_thread() is self._thread:
                self._observers.notify_queued()
            else:
                self._alarm.wake()
        if self._writer.log_bytes >= self.due_bytes:
            self._notify_due()
        if self._wake_mirror is not None:
            self._wake_mirror()

    def _stall(self, error: OSError) -> None:
        self.figures.add_stall()
        post(
            logging.WARNING,
            "%s: a commit lacks disk space or a file handle: %s; the journal retries it. "
            "Free some space or handles",
            self._writer.directory_path,
            error,
        )
        self.notify(lambda observer: observer.stalled(error))

    def _queue_committed(self, batch: CommitBatch) -> None:
        """Queue the event that `batch` is committed, once."""
        records, size, last_lsn = len(batch.records), batch.size_bytes, batch.last_lsn
        sync_ns = batch.sync_ns

        def event(observer: Observer) -> None:
            observer.committed(records, size, sync_ns)

        # No interrupt can strike between these lines, because they call nothing.
        if self._wake_mirror is not None:
            self._deferred += ((last_lsn, event),)
        else:
            self._observers.queued += ((event, self._observers.all),)
        batch.is_reported = True


def _do_nothing() -> None:
    pass
