"""Watch: who waits for agents to end, and who reads the changes of all of them.

While somebody does, the fleet puts each new row on the feed, under its lock: one append, however
many watch. All else happens here, without that lock, and no writer waits for it: who reads, or
makes a commit durable, moves what is on the feed to where it is waited for.

A waiter is woken once, when its agent has ended *and* that is durable. So the thread that made
it durable wakes it, and calls into an event loop once a commit, however many wait there. A reader
keeps each agent's newest row only. Its loop is called when there is something to read and it has
none; a change that was not called out, because an interrupt struck, is at the next commit.

Who leaves waits for no lock: a coroutine may be collected in any thread, between any two
bytecodes, also in a thread that holds the lock below. It leaves word, and whoever holds the lock,
or takes it next, forgets it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from journal import DurableState, HandlerSafeLock, JournalError
from manager.agent import ENDED, Row, get
from manager.arguments import remaining_s, short_repr
from manager.changes import Changes, Idle
from manager.errors import UnknownAgentError
from manager.fleet import Fleet
from manager.waking import Group, Waiter, call_in_loop, resolve, wake

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class Watch:
    """Of one manager. It observes the journal's commits from when it is first asked to."""

    def __init__(self, state: DurableState[Fleet]) -> None:
        self._state = state
        self._fleet = state.machine
        # Filled under the state's lock, emptied under the one below.
        self.feed: deque[Row] = deque()
        # Guards the fields up to the next remark. Writers of the fleet never take it, and who
        # has it takes no other.
        self._lock = HandlerSafeLock()
        self._observer: _Observer | None = None
        self._is_over = False
        self._is_ending = False  # the journal failed, or is closed
        self._is_late = False  # a thread waits for the lock, to catch up
        self._waiters: dict[str, Group] = {}
        self._ended: deque[tuple[Row, Group]] = deque()  # not durable yet, in order of LSNs
        self._readers: dict[weakref.ref[Changes], None] = {}
        # Touched without the lock, by single operations that are atomic in themselves. A loop's
        # idle readers are put in and taken out in its own thread.
        self._idle: dict[AbstractEventLoop, Idle] = {}
        self._leavers: deque[Waiter | weakref.ref[Changes]] = deque()

    def changed(self, lsn: int, ended: Iterable[str]) -> None:
        """For writers, after a change, with no lock held. Waits for nothing."""
        if self._idle:
            self._call_readers()
        waiters = self._waiters
        if self._ended or (waiters and any(agent_id in waiters for agent_id in ended)):
            # Someone waits for it, so it is to be committed now.
            self._state.journal.request_commit(lsn)

    def release_if_stopped(self) -> None:
        """For writers, after a change that raised: release those who wait if none can follow."""
        try:
            self._state.check()
        except JournalError:
            self._is_ending = True
            self._catch_up_soon()

    # --- waiting for an end ---

    def wait_ended(self, ref: str, timeout_s: float | None) -> Row:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        waiter = Waiter()
        try:
            row = self._enlist(ref, waiter)
            if get.status(row) in ENDED:
                self._state.wait_durable(get.lsn(row), timeout_s=remaining_s(until))
                return row
            left_s = remaining_s(until)
            if not waiter.lock.acquire(timeout=-1 if left_s is None else left_s):
                raise TimeoutError(
                    f"agent {get.agent_id(row)} (name {get.name(row)!r}) has not ended, or its "
                    f"end is not durable, within {timeout_s} s"
                )
            return self._outcome(waiter)
        finally:
            self._leave(waiter)

    async def ended(self, ref: str) -> Row:
        import asyncio

        future = asyncio.get_running_loop().create_future()
        waiter = Waiter(future)
        try:
            row = self._enlist(ref, waiter)
            if get.status(row) in ENDED:
                await self._state.durable(get.lsn(row))
                return row
            await future
            return self._outcome(waiter)
        finally:
            self._leave(waiter)

    def _enlist(self, ref: str, waiter: Waiter) -> Row:
        """The agent's row; if it has not ended, the waiter will be woken when it has."""
        row = self._state.read(lambda fleet: fleet.find(ref))
        if get.status(row) in ENDED:
            return row
        waiter.agent_id = get.agent_id(row)
        with _Sweeping(self), self._lock.checked():
            self._begin()
            waiter.group = self._waiters.setdefault(waiter.agent_id, {})
            waiter.group[waiter] = None
        # It may have ended before the feed began.
        now = self._state.read(lambda fleet: fleet.rows.get(waiter.agent_id))
        if now is None:
            raise UnknownAgentError(f"agent {waiter.agent_id} has ended and was removed meanwhile")
        return now

    def _outcome(self, waiter: Waiter) -> Row:
        if waiter.row is None:
            self._state.check()
        assert waiter.row is not None, "woken without a reason"
        return waiter.row

    def _leave(self, waiter: Waiter) -> None:
        if waiter.agent_id:
            self._leavers.append(waiter)
            self._sweep()

    # --- reading changes ---

    def changes(self, boot_id: str, after: int | None) -> Changes:
        """A new reader; see SubAgentManager.changes."""
        last_lsn = self._state.journal.last_lsn
        if after is not None and after > last_lsn:  # maybe it is being applied
            self._state.read(lambda _: None)
            last_lsn = self._state.journal.last_lsn
        if after is not None and not 0 <= after <= last_lsn:
            what = f"after must be an LSN up to the last one, {last_lsn}, not {short_repr(after)}"
            raise ValueError(what)
        with _Sweeping(self), self._lock.checked():
            self._begin()
            self._drain()  # what is on the feed was changed before
            reader = Changes(self, boot_id)
            ref = weakref.ref(reader, self._leavers.append)
            reader._enlist(ref)
            self._readers[ref] = None
        if after is not None:
            snapshot = self._state.read(lambda fleet: fleet.rows.freeze())
            rows = [row for row in snapshot if get.lsn(row) >= after]
            at_after = [row for row in rows if get.lsn(row) == after]
            if len(at_after) == 1:  # of several, who asks may have seen but some
                rows.remove(at_after[0])
            with _Sweeping(self), self._lock.checked():
                self._drain()
                reader._begin_with(row for row in rows if get.agent_id(row) in self._fleet.rows)
        return reader

    def next_row(self, reader: Changes) -> Row | None:
        """None if there is none yet. Raises StopAsyncIteration after the last one."""
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
            # For what came before the loop was known to be idle, nobody calls it.
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

    # --- what the journal tells ---

    def committed(self) -> None:
        """Wake those whose agent's end is durable now. For the journal's threads, which wait for
        nobody: a signal handler on top of whoever holds the lock may wait for them.
        """
        if self._fleet.feed is None and not self._is_ending:
            return
        if self._lock.acquire(blocking=False):
            try:
                self._catch_up()
            finally:
                self._lock.release()
            self._call_readers()
        elif not self._is_late:
            self._is_late = True
            try:
                self._catch_up_soon()
            except RuntimeError:  # no thread is left
                self._is_late = False

    def _catch_up_soon(self) -> None:
        """Catch up in a thread that no signal handler's exception strikes, as it may a user's."""
        threading.Thread(target=self._catch_up_late, name="subagents-watch", daemon=True).start()

    def _catch_up_late(self) -> None:
        with self._lock.checked():
            self._is_late = False
            self._catch_up()
        self._call_readers()

    def failed(self) -> None:
        """Wake everybody, for the journal's threads: no agent will change any more."""
        self._is_ending = True
        self.committed()

    def close(self) -> None:
        """Wake everybody, who then find out why."""
        self._is_ending = True
        with self._lock.checked():
            self._catch_up()
        self._call_readers()

    def check_free(self) -> None:
        """Raise InterruptedCallError on top of a call that holds the lock."""
        self._lock.checked()

    # --- inside ---

    def _begin(self) -> None:
        if self._is_over:
            self._state.check()
        if self._observer is None:
            self._observer = _Observer(self)
            self._state.journal.observe(self._observer)
            self._state.check()  # a failure before that is told to nobody
        self._fleet.feed_to(self.feed)

    def _catch_up(self) -> None:
        """Forget those that left; wake those whose agent's end is durable, and at the end all."""
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
            left = [*self._waiters.values(), *(group for _, group in self._ended)]
            wake((None, group) for group in left)
            self._waiters.clear()
            self._ended.clear()
        self._stop_feed_if_unused()

    def _drain(self) -> None:
        """Move what is on the feed now to those who wait for it.

        It goes off the feed last, so what an interrupt struck in is done once more.
        """
        readers = [reader for ref in self._readers if (reader := ref()) is not None]
        for _ in range(len(self.feed)):
            row = self.feed[0]
            for reader in readers:
                reader._put(row)
            if len(row) > 1 and get.status(row) in ENDED and get.agent_id(row) in self._waiters:
                self._ended.append((row, self._waiters[get.agent_id(row)]))
                del self._waiters[get.agent_id(row)]
            self.feed.popleft()

    def _call_readers(self) -> None:
        for loop in [*self._idle]:
            idle = self._idle.get(loop)
            if idle is not None and not idle.is_called:
                call_in_loop(loop, self._wake_readers, loop)
                idle.is_called = True  # last: a call that an interrupt strikes in is made again

    def _wake_readers(self, loop: AbstractEventLoop) -> None:
        """Wake a loop's readers, in its own thread, where alone they fall idle."""
        idle = self._idle.pop(loop, None)
        if idle is not None:
            resolve(loop, idle.futures)

    def _sweep(self) -> None:
        """Forget those that left, unless this thread holds the lock: then it sweeps afterwards."""
        while self._leavers and not self._lock.is_held_here():
            with self._lock.checked():
                while self._leavers:
                    self._forget(self._leavers[0])
                    self._leavers.popleft()
                self._stop_feed_if_unused()

    def _stop_feed_if_unused(self) -> None:
        """If nobody watches, the fleet need not feed anybody."""
        if not (self._waiters or self._ended or self._readers):
            self._fleet.stop_feeding()
            self.feed.clear()

    def _forget(self, leaver: Waiter | weakref.ref[Changes]) -> None:
        if isinstance(leaver, Waiter):
            leaver.group.pop(leaver, None)
            if not leaver.group and self._waiters.get(leaver.agent_id) is leaver.group:
                del self._waiters[leaver.agent_id]
        else:
            self._readers.pop(leaver, None)


class _Sweeping:
    """Sweeps when it is left. It goes around a plain lock, and does not take it itself: an
    interrupt between the end of its code and the block would leave the lock taken."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None:
        self._watch._sweep()


class _Observer:
    """The journal's threads know a watch by this only, or a dropped manager would never go."""

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
