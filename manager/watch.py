"""Watch: the waiters for agents' ends, and the readers of all changes.

While there are any, the fleet appends each new row to the feed under its own lock: one append for
all of them. Everything else happens here, without that lock, and no writer waits for it. Rows are
moved from the feed to waiters and readers by the thread that reads, or that made a commit durable.

A waiter is woken once, when its agent has ended *and* that is durable. The thread that made it
durable wakes it, with one call for each event loop and commit, however many waiters the loop has. A
reader keeps only each agent's newest row. When there is a row to read, the event loops of the
readers that wait for one are called. If an interrupt prevents that call, the next commit makes it.

A waiter or reader that leaves first adds itself to the list of leavers. Its coroutine may be
collected in any thread, between any two bytecodes, even in a thread that holds the lock. Such a
thread forgets the leavers after it has released the lock; any other thread does so at once.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from journal import ClosedError, DurableState, HandlerSafeLock, JournalError
from manager.agent import ENDED, Row, get
from manager.arguments import short_repr
from manager.changes import Changes, Idle
from manager.fleet import Fleet
from manager.waiting import Waiting
from manager.waking import PLACE, Group, Key, Waiter, call_in_loop, resolve, wake

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class Watch(Waiting):
    """The waiters and readers of one manager. It observes the journal from the first one on."""

    def __init__(self, state: DurableState[Fleet]) -> None:
        self._state = state
        self._fleet = state.machine
        # Filled under the state's lock, emptied under the lock below.
        self.feed: deque[Row] = deque()
        # Guards the fields from here to `_readers`. Writers of the fleet never take it. No other
        # lock is taken while it is held.
        self._lock = HandlerSafeLock()
        self._observer: _Observer | None = None
        self._is_over = False
        self._is_ending = False  # the journal has failed or is closed
        self._is_catch_up_due = False  # a thread waits for the lock to catch up
        self._waiters: dict[Key, Group] = {}
        # Ends that are not durable yet, in order of LSNs.
        self._ended: deque[tuple[Row, Group]] = deque()
        self._readers: dict[weakref.ref[Changes], None] = {}
        # Changed without the lock, by single operations, which are atomic. The idle readers of a
        # loop are added and removed in the loop's own thread.
        self._idle: dict[AbstractEventLoop, Idle] = {}
        self._leavers: deque[Waiter | weakref.ref[Changes]] = deque()

    def changed(self, lsn: int, ended: Iterable[str]) -> None:
        """Notify waiters and readers of a change. Writers call this with no lock held, and it waits
        for nothing.
        """
        if self._idle:
            self._call_readers()
        waiters = self._waiters
        if self._ended or (waiters and self._is_awaited(ended)):
            # There are waiters, so the change should be committed now.
            self._state.journal.request_commit(lsn)

    def _is_awaited(self, ended: Iterable[str]) -> bool:
        waiters, rows = self._waiters, self._fleet.rows
        for agent_id in ended:
            if PLACE in waiters:
                return True
            row = rows.get(agent_id)
            if agent_id in waiters or (row is not None and (get.parent_id(row),) in waiters):
                return True
        return False

    def release_if_stopped(self) -> None:
        """Release all waiters if the journal has stopped. Writers call this after a change that
        raised.
        """
        try:
            self._state.check()
        except JournalError:
            if not self._is_forked():
                self._is_ending = True
                self._catch_up_in_thread()

    # --- waiters ---

    def _add_waiter(self, key: Key, waiter: Waiter) -> None:
        self._state.journal.check_process()
        waiter.key = key
        with _Sweeping(self), self._lock.checked():
            self._begin()
            waiter.group = self._waiters.setdefault(key, {})
            waiter.group[waiter] = None

    def _outcome(self, waiter: Waiter) -> Row:
        if waiter.row is None:
            self._state.check()
        assert waiter.row is not None, "woken without a reason"
        return waiter.row

    def _leave(self, waiter: Waiter) -> None:
        if waiter.key is not None:
            self._leavers.append(waiter)
            self._sweep()

    # --- reading changes ---

    def changes(self, boot_id: str, after: int | None) -> Changes:
        """Return a new reader; see `SubAgentManager.changes`."""
        self._state.journal.check_process()
        last_lsn = self._state.journal.last_lsn
        if after is not None and after > last_lsn:  # wait for the change that may be under way
            self._state.read(lambda _: None)
            last_lsn = self._state.journal.last_lsn
        if after is not None and not 0 <= after <= last_lsn:
            raise ValueError(
                f"after must be an LSN up to the last one, which is {last_lsn}, "
                f"not {short_repr(after)}"
            )
        with _Sweeping(self), self._lock.checked():
            self._begin()
            self._drain()  # the new reader must not get rows of changes before its creation
            reader = Changes(self, boot_id)
            ref = weakref.ref(reader, self._leavers.append)
            reader._enlist(ref)
            self._readers[ref] = None
        if after is not None:
            snapshot = self._state.read(lambda fleet: fleet.rows.freeze())
            rows = [row for row in snapshot if get.lsn(row) >= after]
            # Tokens count for an agent and its ancestors at one LSN. The caller may have seen only
            # some of these agents.
            rows = [row for row in rows if get.lsn(row) > after or get.tokens_used(row)]
            with _Sweeping(self), self._lock.checked():
                self._drain()
                reader._begin_with(row for row in rows if get.agent_id(row) in self._fleet.rows)
        return reader

    def next_row(self, reader: Changes) -> Row | None:
        """Return the next row to read, or None if there is none yet. Raises StopAsyncIteration
        after the last one.
        """
        self._state.journal.check_process()
        with _Sweeping(self), self._lock.checked():
            self._drain()
            if reader._dirty:
                return reader._dirty.popitem(last=False)[1]
            is_over = self._is_over
        if is_over:
            if not self._state.journal.closed:
                self._state.check()
            raise StopAsyncIteration
        return None

    async def wait_readable(self, reader: Changes) -> None:
        import asyncio

        loop = asyncio.get_running_loop()
        future = loop.create_future()
        idle = self._idle.setdefault(loop, Idle())
        idle.futures[future] = None
        try:
            # Nobody calls the loop for a row that came before the loop was entered in `_idle`.
            if not (self.feed or reader._dirty or reader._is_closed or self._is_over):
                await future
        finally:
            idle.futures.pop(future, None)
            if not idle.futures and self._idle.get(loop) is idle:
                self._idle.pop(loop, None)

    def close_reader(self, reader: Changes) -> None:
        if (ref := reader._retire()) is not None:
            self._leavers.append(ref)
            self._sweep()
            self._call_readers()

    # --- calls from the journal ---

    def committed(self) -> None:
        """Wake the waiters whose agent's end is durable now.

        The journal's threads call this. They must not wait for the lock, because a signal handler
        may have interrupted its holder and may wait for these threads.
        """
        if self._fleet.feed is None and not self._is_ending:
            return
        if self._lock.acquire(blocking=False):
            try:
                self._catch_up()
            finally:
                self._lock.release()
            self._call_readers()
        elif not self._is_catch_up_due:
            self._is_catch_up_due = True
            try:
                self._catch_up_in_thread()
            except RuntimeError:  # no thread can be started
                self._is_catch_up_due = False

    def _catch_up_in_thread(self) -> None:
        """Catch up in a new thread, which a signal handler's exception can't interrupt."""
        threading.Thread(target=self._run_catch_up, name="subagents-watch", daemon=True).start()

    def _run_catch_up(self) -> None:
        with self._lock.checked():
            self._is_catch_up_due = False
            self._catch_up()
        self._call_readers()

    def failed(self) -> None:
        """Wake all waiters and readers, because no agent will change any more.

        The journal's threads call this.
        """
        self._is_ending = True
        self.committed()

    def close(self) -> None:
        """Wake all waiters and readers. Waiters then raise an error, and readers end."""
        if self._is_forked():
            return
        self._is_ending = True
        with self._lock.checked():
            self._catch_up()
        self._call_readers()

    def check_free(self) -> None:
        """Raise InterruptedCallError if this call interrupted one that holds the lock."""
        self._lock.checked()

    # --- internals ---

    def _is_forked(self) -> bool:
        """Return whether this is a forked child, where the lock may be held forever."""
        try:
            self._state.journal.check_process()
        except ClosedError:
            return True
        return False

    def _begin(self) -> None:
        if self._is_over:
            self._state.check()
        if self._observer is None:
            self._observer = _Observer(self)
            self._state.journal.observe(self._observer)
            self._state.check()  # an earlier failure was not reported to the observer
        self._fleet.feed_to(self.feed)

    def _catch_up(self) -> None:
        """Forget the leavers, and wake the waiters whose agent's end is durable.

        Wake all waiters if the journal has stopped.
        """
        while self._leavers:
            self._forget(self._leavers[0])
            self._leavers.popleft()
        self._drain()
        durable_lsn = self._state.journal.durable_lsn
        due = [entry for entry in self._ended if get.lsn(entry[0]) <= durable_lsn]
        wake(due)
        for _ in due:
            self._ended.popleft()
        if self._is_ending:
            self._is_over = True
            groups = [*self._waiters.values(), *(group for _, group in self._ended)]
            wake((None, group) for group in groups)
            self._waiters.clear()
            self._ended.clear()
        self._stop_feed_if_unused()

    def _drain(self) -> None:
        """Move the rows that are on the feed now to the readers and waiters.

        A row is removed from the feed last, so that an interrupted move is repeated.
        """
        readers = [reader for ref in self._readers if (reader := ref()) is not None]
        for _ in range(len(self.feed)):
            row = self.feed[0]
            for reader in readers:
                reader._put(row)
            for key in _keys(row) if self._waiters and len(row) > 1 else ():
                if key in self._waiters:
                    self._ended.append((row, self._waiters[key]))
                    del self._waiters[key]
            self.feed.popleft()

    def _call_readers(self) -> None:
        for loop in [*self._idle]:
            idle = self._idle.get(loop)
            if idle is not None and not idle.is_called:
                call_in_loop(loop, self._wake_readers, loop)
                idle.is_called = True  # set last, so that an interrupted call is made again

    def _wake_readers(self, loop: AbstractEventLoop) -> None:
        """Wake the idle readers of `loop`. Runs in the loop's thread, where readers become idle."""
        idle = self._idle.pop(loop, None)
        if idle is not None:
            resolve(loop, idle.futures)

    def _sweep(self) -> None:
        """Forget the leavers. If this thread holds the lock, it does so once it has released it."""
        while self._leavers and not self._lock.is_held_here() and not self._is_forked():
            with self._lock.checked():
                while self._leavers:
                    self._forget(self._leavers[0])
                    self._leavers.popleft()
                self._stop_feed_if_unused()

    def _stop_feed_if_unused(self) -> None:
        """Stop the feed if there are no waiters and no readers."""
        if not (self._waiters or self._ended or self._readers):
            self._fleet.stop_feeding()
            self.feed.clear()

    def _forget(self, leaver: Waiter | weakref.ref[Changes]) -> None:
        if isinstance(leaver, Waiter):
            leaver.group.pop(leaver, None)
            key = leaver.key
            if key is not None and not leaver.group and self._waiters.get(key) is leaver.group:
                del self._waiters[key]
        else:
            self._readers.pop(leaver, None)


def _keys(row: Row) -> tuple[Key, ...]:
    """Return the keys of the waiters that a change wakes. `row` is the row after it."""
    status = get.status(row)
    if status in ENDED:
        return get.agent_id(row), (get.parent_id(row),), PLACE
    return (PLACE,) if status == "interrupted" else ()


class _Sweeping:
    """A context manager that sweeps at its exit. It does not take the lock itself, because an
    interrupt after its `__enter__` and before the block would leave the lock taken. So it is used
    around a plain lock's `with`."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._watch._sweep()


class _Observer:
    """The journal's observer. It refers to the watch weakly, so that the journal's threads do not
    keep a dropped manager alive."""

    def __init__(self, watch: Watch) -> None:
        self._watch = weakref.ref(watch)

    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
        if watch := self._watch():
            watch.committed()

    def failed(self, error: BaseException) -> None:
        if watch := self._watch():
            watch.failed()

    def stalled(self, error: OSError) -> None: ...
    def compacted(self, lsn: int, count: int, size_bytes: int, duration_ns: int) -> None: ...
    def compaction_failed(self, error: BaseException) -> None: ...
