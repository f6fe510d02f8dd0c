"""SyncLanes: threads that sync commits side by side.

While one sync is in flight, the flusher may write the next commit after it, and a second sync may
begin. Each lane syncs on an open file description of its own, because the system reports a failed
write to each of them once. A commit is acknowledged when its own sync and all earlier ones have
succeeded, and none after a failure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import Lock, Thread, get_ident

from journal import _time as time
from journal._commit.batch import CommitBatch
from journal._commit.writer import SyncedEnd
from journal._disk.disk import File
from journal._mutex import Alarm
from journal._waits import join


class PendingSync:
    """A commit that is written, and whose sync is in flight."""

    __slots__ = ("batch", "end", "error", "file", "has_company", "has_ended", "sync_ns")

    def __init__(self, batch: CommitBatch, file: File, end: SyncedEnd) -> None:
        self.batch = batch
        self.file = file
        self.end = end  # of the log, once it is synced
        self.has_company = False  # whether another sync was in flight meanwhile
        self.has_ended = False
        self.error: BaseException | None = None
        self.sync_ns = 0

    def run(self) -> None:
        began_ns = time.perf_counter_ns()
        try:
            self.file.sync()
        except BaseException as error:
            self.error = error
        self.sync_ns = time.perf_counter_ns() - began_ns


class _Lane:
    def __init__(self, index: int, run: Callable[[_Lane], None]) -> None:
        self.index = index
        self.alarm = Alarm()
        self.pending: PendingSync | None = None
        self.is_stopped = False
        self.thread = Thread(target=run, args=(self,), name=f"journal-sync-{index}", daemon=True)


class SyncLanes:
    """The lanes of a journal. Only the flusher calls the methods."""

    def __init__(
        self,
        own_ids: set[int],
        acknowledge: Callable[[PendingSync], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        """Call `acknowledge` for each commit in the order of the log, in one thread at a time. It
        raises the error of a failed sync, which `fail` then gets. `own_ids`: where the ids of the
        threads are kept."""
        self._own_ids = own_ids
        self._acknowledge = acknowledge
        self._fail = fail
        self._has_failed = False
        self._lanes: list[_Lane] = []
        self._pending: deque[PendingSync] = deque()
        self._lock = Lock()  # held by the thread that acknowledges
        self._drained = Alarm()

    def free(self) -> int | None:
        """Return the index of a lane that syncs nothing, or None if no thread can be started."""
        for lane in self._lanes:
            if lane.pending is None:
                return lane.index
        lane = _Lane(len(self._lanes), self._run)
        try:
            lane.thread.start()
        except RuntimeError:  # the process has too many threads
            return None
        self._lanes.append(lane)
        return lane.index

    def begin(self, index: int, pending: PendingSync) -> None:
        """Sync a written commit in the lane `index`, which is free."""
        for other in tuple(self._pending):
            other.has_company = pending.has_company = True
        self._pending.append(pending)
        lane = self._lanes[index]
        lane.pending = pending
        lane.alarm.wake()

    def drain(self) -> None:
        """Wait until no sync is in flight."""
        while self._pending:
            self._drained.sleep()

    def stop(self) -> None:
        """Wait until no sync is in flight, and end the threads."""
        self.drain()
        for lane in self._lanes:
            lane.is_stopped = True
            lane.alarm.wake()
            join(lane.thread, None)

    def _run(self, lane: _Lane) -> None:
        self._own_ids.add(get_ident())
        try:
            while lane.alarm.sleep() and not lane.is_stopped:
                if (pending := lane.pending) is not None:
                    pending.run()
                    lane.pending = None
                    self._end(pending)
        finally:
            self._own_ids.discard(get_ident())

    def _end(self, pending: PendingSync) -> None:
        """Acknowledge the oldest commits, as far as their syncs have succeeded."""
        with self._lock:
            pending.has_ended = True
            if pending.error is not None:  # nothing more is acknowledged, not even older commits
                self._settle(pending)
            while self._pending and self._pending[0].has_ended:
                self._settle(self._pending[0])
                self._pending.popleft()
        self._drained.wake()

    def _settle(self, pending: PendingSync) -> None:
        if self._has_failed:
            return
        try:
            self._acknowledge(pending)
        except BaseException as error:
            self._has_failed = True
            self._fail(error)
