"""Compactor: takes a snapshot, writes it as a checkpoint, and removes the files that it covers.

Encoding holds no lock, but a thread that computes holds the interpreter: one `json.dumps` of ten
thousand items stalls every other thread until it ends. So items are encoded a few at a time, with a
real pause in between. CompactionSchedule decides how many, when a compaction is due, and when
updates wait for it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from journal import _time as time
from journal._commit.committer import Committer
from journal._engine.checkpoint_store import CheckpointStore
from journal._engine.compaction_schedule import NEVER, Attempt, CompactionSchedule
from journal._engine.compaction_stats import CompactionStats
from journal._format.checkpoint import JSON, Checkpoint
from journal._log import post
from journal._mutex import Alarm, HandlerSafeLock
from journal._recovery.recovery import Holding
from journal._waits import join
from journal.errors import ClosedError, CorruptionError, FailedError, JournalError

if TYPE_CHECKING:
    from journal._engine.trimming import Retention
    from journal.metrics import Observer

Freeze = Callable[[], tuple[int, Iterable[JSON]]]
"""A function that returns the LSN of a state and an iterable of its items, which is read later."""
# Appends a filler if the given LSN is the last one, and returns its LSN; otherwise returns None.
Fill = Callable[[int], int | None]
# Publishes checkpoints, and returns them, oldest first.
Job = Callable[[], list[Checkpoint]]

_POLL_S = 0.001


class Done(NamedTuple):
    """The newest checkpoint of a job, and the time that the job took."""

    checkpoint: Checkpoint
    duration_ns: int


class Compactor:
    """Runs all compactions: in its own thread when one is due, in the caller's for `compact`."""

    def __init__(
        self, committer: Committer, checkpoints: CheckpointStore, schedule: CompactionSchedule
    ) -> None:
        self._committer = committer
        self._checkpoints = checkpoints
        self._schedule = schedule
        schedule.is_urgent = checkpoints.is_exposed
        self.stats = CompactionStats()
        # Held for a whole compaction, so that only one runs at a time.
        self._lock = HandlerSafeLock()
        self._is_compacting = False
        self._freeze: Freeze | None = None
        self._retention: Retention | None = None
        self._thread: threading.Thread | None = None
        self._ended: Callable[[], None] = _ignore
        self._alarm = Alarm()  # wakes the thread
        self._is_due = False  # whether the thread has found that a compaction is due
        self._is_stopping = False
        self._step_began_ns = 0  # the processor time of the compacting thread when it last paused

    @property
    def freeze(self) -> Freeze | None:
        return self._freeze

    def hold_back(self, holding: Holding) -> None:
        """Keep files that `holding` does not release, although a checkpoint covers them. To be
        called before `start`."""
        self._checkpoints.holding = holding

    def start(
        self,
        freeze: Freeze | None,
        ended: Callable[[], None],
        *,
        retention: Retention | None = None,
    ) -> None:
        """Start the thread, which compacts whenever it is due, until `stop`. Its last act is to
        call `ended`. With `retention`, it trims the log instead."""
        if self._thread is not None:
            raise RuntimeError("compaction or retention is already started")
        self._freeze = freeze
        self._retention = retention
        self._ended = ended
        thread = threading.Thread(target=self._run, name="journal-compactor", daemon=True)
        self._thread = thread
        try:
            thread.start()
        except RuntimeError:
            if thread.ident is None:  # too many threads; otherwise, a signal handler raised it
                self._thread = self._freeze = self._retention = None
            raise

    def stop(self) -> None:
        """Give up a compaction that is under way, and begin no other."""
        self._is_stopping = True
        self._alarm.wake()

    def join(self, timeout_s: float | None) -> bool:
        """Wait at most `timeout_s` seconds for the thread and all compactions to end. Return
        whether they have ended."""
        until_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        has_ended = self._thread is None or join(self._thread, timeout_s)
        while self._is_compacting and time.monotonic() < until_s:
            time.sleep(_POLL_S)
        return has_ended and not self._is_compacting

    @property
    def is_compacting_here(self) -> bool:
        """True if this thread is inside a compaction, which the caller has interrupted. Also true
        for everything that observers and finalizers call in the compactor's thread."""
        return self._lock.is_held_here() or threading.current_thread() is self._thread

    def close(self) -> None:
        """Close the files of the checkpoints that were returned."""
        self._checkpoints.close()

    def compact(self, freeze: Freeze, fill: Fill | None = None) -> Checkpoint:
        """Run a compaction now, after one that is under way.

        With `fill`, publish a second checkpoint if that gives space back and the log is idle: two
        checkpoints at two LSNs cover everything up to the first one.
        """
        checkpoint = self._run_now(partial(self._compact, freeze, fill))
        assert checkpoint is not None
        return checkpoint

    def check_stateless(self) -> None:
        """Raise JournalError if the journal keeps a state, which a trim would forget."""
        if self._freeze is not None:
            raise JournalError(
                f"{self._checkpoints.path}: can't be trimmed, because its checkpoints hold the "
                "state that start_compaction was given; compact it instead"
            )
        self._checkpoints.check_stateless()

    def trim(self, before_lsn: int) -> None:
        """Forget records before `before_lsn`, and remove the segments that hold no others."""
        self.check_stateless()  # here, too: a refusal is not a failure of a compaction
        self._run_now(partial(self._trim, before_lsn))

    def _run_now(self, job: Job) -> Checkpoint | None:
        """Run a job in the caller's thread, after one that is under way."""
        self._lock.checked()  # a call that is refused here is no failed compaction
        try:
            done = self._run_job(job)
        except BaseException as error:
            if self.stats.failed(error, is_stopping=self._is_stopping):
                self._notify_failure(error)
            raise
        finally:
            self._alarm.wake()
        return self._notify_done(done)

    def _run_job(self, job: Job) -> Done | None:
        with self._lock.checked():
            began_ns = time.perf_counter_ns()
            self._is_compacting = True
            try:  # no call before it: a signal handler that raises there would leave the flag set
                self._check()
                published = job()
                if not published:
                    return None
                duration_ns = time.perf_counter_ns() - began_ns
                size_bytes = sum(checkpoint.size_bytes for checkpoint in published)
                self.stats.succeeded(size_bytes, duration_ns)
                return Done(published[-1], duration_ns)
            finally:
                self._is_compacting = False

    def _compact(self, freeze: Freeze, fill: Fill | None = None) -> list[Checkpoint]:
        """Publish a checkpoint, and one after a filler if that gives space back."""
        first = self._publish(freeze)
        if fill is None or not self._checkpoints.needs_filler(first):
            return [first]
        lsn = fill(first.lsn)
        if lsn is None:  # the log is not idle: the next compaction will free the space
            return [first]
        # The filler changes nothing, so the state as of its LSN has the same items.
        return [first, self._publish(lambda: (lsn, first._encoded_items()))]

    def _trim(self, before_lsn: int) -> list[Checkpoint]:
        """Publish the checkpoints of a trim, and remove what they cover. Do nothing for 0."""
        self.check_stateless()
        if not before_lsn:
            return []
        if self._committer.synced_lsn < before_lsn - 1:
            self._committer.sync_log()  # a checkpoint states that the log before it is durable
        published = []
        for lsn in self._checkpoints.lsns_to_trim(before_lsn):
            self._check()
            self._checkpoints.write(lsn, (), lambda _: 1)
            published.append(self._checkpoints.verify(lsn))
        self._checkpoints.drop_covered()  # even without a new one: the last removal may have failed
        if self._checkpoints.last_segment_lsn < before_lsn:
            # No later trim could remove the records before `before_lsn` while the log continues in
            # their segment.
            self._committer.end_segment()
        return published

    def _notify_done(self, done: Done | None) -> Checkpoint | None:
        if done is None:
            return None
        checkpoint, duration_ns = done
        lsn, count, size = checkpoint.lsn, checkpoint.count, checkpoint.size_bytes
        self._notify_all(lambda observer: observer.compacted(lsn, count, size, duration_ns))
        return checkpoint

    def _notify_failure(self, error: BaseException) -> None:
        # An observer may have been written before the protocol had this method.
        self._notify_all(lambda observer: getattr(observer, "compaction_failed", _ignore)(error))

    def _notify_all(self, event: Callable[[Observer], None]) -> None:
        is_own_thread = threading.current_thread() is self._thread
        (self._committer.notify if is_own_thread else self._committer.queue)(event)

    def _publish(self, freeze: Freeze) -> Checkpoint:
        attempt = self._schedule.begin(self._committer.log_bytes)
        lsn, items = freeze()
        try:
            self._check()
            self._committer.sync_log()
            end_lsn = self._committer.synced_lsn
            if not 0 <= lsn <= end_lsn:  # no later open would trust it
                raise ValueError(f"freeze returned LSN {lsn}, but the log ends at {end_lsn}")
            self._step_began_ns = time.thread_time_ns()
            self._checkpoints.write(lsn, items, partial(self._pace, attempt))
        finally:
            # The items are freed here, outside the owner's lock, because they may be as large as
            # the state.
            del items
        checkpoint = self._checkpoints.verify(lsn, partial(self._give_room, attempt))
        self._schedule.published(attempt, checkpoint.size_bytes)
        self._schedule.is_urgent = self._checkpoints.is_exposed
        self._checkpoints.drop_covered()
        self._schedule.finished(attempt, self._committer.log_bytes)
        return checkpoint

    def _check(self) -> None:
        if self._is_stopping:
            raise ClosedError("the journal is being closed; this compaction was given up")

    def _pace(self, attempt: Attempt, encoded_bytes: int) -> int:
        """Pause the encoding. Return how many items to encode until the next pause."""
        self._check()
        self._give_room(attempt, 0, encoded_bytes)
        pace = attempt.pace(
            self._committer.log_bytes,
            step_s=(time.thread_time_ns() - self._step_began_ns) / 1e9,
            has_room=self._committer.has_room,
            now_s=time.monotonic(),
        )
        time.sleep(pace.pause_s)
        self._step_began_ns = time.thread_time_ns()
        return pace.items

    def _give_room(self, attempt: Attempt, read_bytes: int, encoded_bytes: int = 0) -> None:
        """Let the log grow while updates wait, in return for bytes encoded or read back."""
        room_bytes = attempt.room_bytes(
            encoded_bytes,
            read_bytes,
            has_room=self._committer.has_room,
            now_s=time.monotonic(),
        )
        if room_bytes:
            self._committer.give_room(room_bytes)

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                try:
                    if self._retention is None:
                        self._compact_when_due()
                    else:
                        self._trim_when_due()
                except BaseException as error:  # the owner's SystemExit must not end this thread
                    with suppress(BaseException):
                        self._back_off_after(error)
        finally:
            try:
                self._committer.hold_from(NEVER)
            finally:
                self._ended()

    def _compact_when_due(self) -> None:
        is_retry = self._schedule.is_retry and self._wait_backoff(self._schedule.backoff_s)
        if not (is_retry and self._is_due):
            self._is_due = False
            self._wait_until_due(may_hold=not is_retry)
            self._is_due = True
        if self._is_stopping:
            return
        assert self._freeze is not None
        self._run_due(partial(self._compact, self._freeze))

    def _trim_when_due(self) -> None:
        """Remove what is past the retention, and wait until the next check is due."""
        retention = self._retention
        assert retention is not None
        if self._schedule.is_retry:
            self._wait_backoff(self._schedule.backoff_s)
        if self._is_stopping:
            return
        self._run_due(lambda: self._trim(retention.before_lsn()))
        self._schedule.is_retry = False
        self._committer.notify_when_due(retention.due_bytes, self._alarm.wake)
        self._alarm.sleep(retention.check_s)

    def _run_due(self, job: Job) -> None:
        """Run a job of this thread, whose next failure then counts as the first."""
        done = self._run_job(job)
        self._schedule.succeeded()
        self._is_due = False
        if done:
            with suppress(OSError):  # its file was only read
                done.checkpoint.close()
        self._notify_done(done)

    def _back_off_after(self, error: BaseException) -> None:
        """Back off after a failed compaction, or after a defect in waiting for the next one.

        The steps that the log needs to continue come first, because the others call foreign code.
        """
        self._schedule.failed()
        self._committer.hold_from(NEVER)
        text = self.stats.failed(error, is_stopping=self._is_stopping)
        if not text:
            return
        is_expected = isinstance(error, (OSError, JournalError))
        post(
            logging.WARNING,
            "%s: a compaction failed: %s. %s",
            self._checkpoints.path,
            text,
            _advice(error, self._schedule.backoff_s),
            error=None if is_expected else error,
        )
        self._notify_failure(error)

    def _wait_until_due(self, *, may_hold: bool) -> None:
        """Wait until the log has grown enough. `may_hold`: updates may have to wait for the next
        compaction. After a failure they must not: a state that can't be compacted must not stop
        the log."""
        schedule, committer = self._schedule, self._committer
        held_due_bytes = NEVER if may_hold else schedule.due_bytes
        while not self._is_stopping:
            with self._lock.checked():  # another thread's compaction makes the next one due later
                due_bytes = schedule.due_bytes
                # Not the snapshot's size: two snapshots have the same one if no commit is between
                # them, and updates would wait for a compaction that is due only later.
                if held_due_bytes != due_bytes:
                    held_due_bytes = due_bytes
                    # Only here: no other thread is sure to run the compaction that ends the wait.
                    committer.hold_from(schedule.hold_bytes(committer.log_bytes))
            committer.notify_when_due(due_bytes, self._note_due)
            if committer.log_bytes >= due_bytes:
                break
            # An interrupted `compact()` may fail to wake this thread. The next commit past the
            # old due point wakes it, before updates have to wait.
            self._alarm.sleep()
        committer.notify_when_due(NEVER, self._note_due)

    def _wait_backoff(self, delay_s: float) -> bool:
        """Wait `delay_s` before a retry. Return False early if the journal stops, or if another
        compaction succeeded meanwhile; the normal schedule then applies."""
        until_s = time.monotonic() + delay_s
        while not self._is_stopping and self._schedule.is_retry:
            if (remaining_s := until_s - time.monotonic()) <= 0:
                return True
            self._alarm.sleep(remaining_s)
        return False

    def _note_due(self) -> None:
        """Note that a commit has reached the due point, and wake the thread."""
        self._schedule.passed_due(self._committer.due_bytes)
        self._alarm.wake()


def _advice(error: BaseException, delay_s: float) -> str:
    if isinstance(error, FailedError):  # the log or the state stopped: no later attempt succeeds
        return "Close the journal, fix the cause, and reopen it"
    is_disk = isinstance(error, (OSError, CorruptionError))
    remedy = "Check the disk" if is_disk else "Fix `freeze`, or the items that it returns"
    return (
        "The log continues, and grows until a compaction succeeds; "
        f"the next attempt is in {delay_s:g} s. {remedy}"
    )


def _ignore(*_: object) -> None:
    pass
