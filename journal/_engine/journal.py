"""Journal: an open journal, into which records are appended."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from journal import _time as time
from journal._callbacks import check_freeze
from journal._commit.gate import Gate, running_loop
from journal._disk.disk import Disk, StrPath
from journal._engine.async_handle import AsyncHandle
from journal._engine.compactor import Fill, Freeze
from journal._engine.core import Core
from journal._engine.opening import Opening
from journal._format.checkpoint import Checkpoint
from journal._format.record import Entry, Record, check_spans
from journal._log import report
from journal._public import public
from journal._time import perf_counter_ns
from journal._waits import check_lsn, check_timeout_s, warn_in_event_loop
from journal.errors import InterruptedCallError, JournalError
from journal.options import Options, check_options

if TYPE_CHECKING:  # imported at first use, so that an open does not wait for it
    from asyncio import Future

    from journal._engine.mirroring import Mirroring
    from journal._mirror.mirror import Mirror
    from journal._offline.backup import BackupReport
    from journal.metrics import Observer, Stats


@public
class Journal(AsyncHandle):
    """An append-only log of msgpack records, open for writing. One writer at a time.

    Thread-safe. A context manager: leaving it closes the journal.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._committer = core.committer
        self._buffer = core.buffer
        self._turn = core.turn
        self._note_passed = core.turn.wake_policy.note_passed
        self._add_wait_ns = core.committer.figures.wait_ns.add
        self._lifecycle = core.lifecycle
        self._is_closed = False
        self._fill: Fill | None = None

    @classmethod
    def open(
        cls,
        path: StrPath,
        *,
        options: Options = Options(),
        lock_timeout_s: float | None = 0.0,
        mirror: str | Mirror | Literal[False] | None = None,
        takeover: bool = False,
        disk: Disk | None = None,
    ) -> Journal:
        """Open and recover the journal at `path`, or create one there. Hold its lock until `close`.

        If another writer holds the lock, wait at most `lock_timeout_s` seconds (None: no limit).

        `mirror`: an address or Mirror(...), to copy the journal to another machine's store, and to
        get from there what the directory lacks. False goes on without the mirror that the directory
        has. If another writer holds the mirror, LockedError is raised, unless `takeover` is true;
        then that writer stops at its next upload, with FencedError. Raises MirrorError if the
        mirror can't be used, and ValueError for a bad address. Source:
        journal/docs/RELIABILITY.md, "Mirrors".

        Raises LockedError, CorruptionError, FormatVersionError, UnsafePathError, NotAJournalError
        (an incomplete copy), FailedError (a read or a sync failed), JournalError (in an isolated
        subinterpreter) and OSError (`path` can't be opened). Source: journal/docs/FORMAT.md,
        "Recovery".
        """
        check_options(options)
        accepts = (options.application,) if options.application else ()
        with Opening(path, options, disk, lock_timeout_s, mirror, takeover) as opening:
            recovery = opening.recover(accepts)
            for _ in recovery.batches(check_spans):
                pass  # the records are not used here, but each has to be intact
            core = opening.start_journal()
            if options.has_retention:
                core.start_compaction(None)
            return cls(core)

    @property
    def path(self) -> str:
        """The absolute path of the directory at the time of the open."""
        return self._core.directory.path

    @property
    def journal_id(self) -> str:
        """The journal's identity: 32 hex digits, the same in every file of the journal."""
        return self._core.journal_id

    @property
    def epoch(self) -> int:
        """The number of this opening for writing: 1 + the highest epoch that any file states."""
        return self._core.epoch

    @property
    def last_lsn(self) -> int:
        """The LSN of the last record that was appended; 0 if there never was one."""
        return self._buffer.last_lsn

    @property
    def durable_lsn(self) -> int:
        """The LSN up to which every record survives what `Options.durability` promises."""
        return self._turn.durable_lsn

    @property
    def closed(self) -> bool:
        """True once `close` has finished. `close` also closes a journal that has failed."""
        return self._is_closed

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoint from which recovery started. None if it found none.

        A journal that states its application has an empty one at LSN 0 from the first opening on.
        """
        return self._core.checkpoint

    @property
    def has_room(self) -> bool:
        """True while less than half of `buffer_bytes` is used and no compaction is far overdue."""
        return self._buffer.has_room

    def check(self) -> None:
        """Raise what an append would raise for the journal's state: FailedError, ClosedError."""
        self._lifecycle.check()

    def check_process(self) -> None:
        """Raise ClosedError in a forked child. Takes no lock: it may be held there forever."""
        if self._lifecycle.abandoned:
            self._lifecycle.check()

    def append(self, record: Record, *, urgent: bool = False) -> int:
        """Append a record to the log buffer, and return its LSN. Never waits, never does I/O.

        An `urgent` record may use a quarter more than `buffer_bytes`. Raises RecordError,
        BufferFullError, FailedError, ClosedError, and JournalError if the journal states an
        application and was opened without one; nothing was appended then.
        """
        return self._buffer.append(record, urgent)

    def append_and_wait(self, record: Record, *, urgent: bool = False) -> int:
        """Append a record, and block until it is durable. Return its LSN.

        Many threads that call this commit a seventh more records than with `append` and
        `wait_durable`, which also takes a time limit. Raises what both raise. After FailedError,
        the record may or may not survive. In an event loop, use `append_durable`.
        """
        turn = self._turn
        if turn.wake_policy.last_waiters <= 1:  # nobody to share a commit with
            turn.refuse_within_commit()
            lsn = self._buffer.append(record, urgent)
            self.wait_durable(lsn)
            return lsn
        began_ns = perf_counter_ns()
        lsn, gate = turn.append(record, urgent)
        if gate is not None:
            gate.wait()
            passed_ns = perf_counter_ns()
            self._note_passed(passed_ns)
            self._add_wait_ns(passed_ns - began_ns)
        if lsn > turn.durable_lsn:
            raise self._lifecycle.error()
        return lsn

    def append_durable(self, record: Record, *, urgent: bool = False) -> Future[int]:
        """Append a record now. Return a future of the running event loop, to be awaited.

        Its result is the LSN, once that is durable. Many tasks commit a fifth more records than
        with `append` and `durable`. Cancelling the wait does not affect the commit. Raises what
        `append` raises; the future raises what `durable` raises.
        """
        turn, loop = self._turn, running_loop()
        lsn, gate = turn.append(record, urgent)
        if gate is None:
            future: Future[int] = loop.create_future()
            future.set_result(lsn)
            return future
        return gate.future_of(lsn, turn.outcome, loop)

    def append_batch(self, records: list[Record], *, urgent: bool = False) -> int:
        """Append `records` as one batch, and return the last LSN. A crash leaves all or none.

        Raises what `append` raises, RecordError also for a batch over `frame_bytes_max`, and
        ValueError for an empty one. Source: journal/docs/RELIABILITY.md, P3.
        """
        return self._buffer.append_batch(records, urgent)

    def wait_durable(self, lsn: int | None = None, *, timeout_s: float | None = None) -> None:
        """Block until `lsn` is durable. None stands for everything appended so far.

        Returns at once if it is durable already, even on a closed or failed journal. Raises
        TimeoutError after `timeout_s` seconds (None: no limit), ValueError for an LSN that was
        never appended, FailedError, and ClosedError. In an event loop, use `durable`. Source:
        journal/docs/RELIABILITY.md, P2.
        """
        turn = self._turn
        if lsn is None:
            lsn = self._buffer.last_lsn
        elif type(lsn) is not int or lsn < 0:
            check_lsn(lsn)
        if timeout_s is not None:
            check_timeout_s(timeout_s)
        if lsn <= turn.durable_lsn:
            return
        warn_in_event_loop("wait_durable", "durable(...)", timeout_s)
        committer = self._committer
        began_ns = time.perf_counter_ns()
        is_alone = timeout_s is None and turn.wake_policy.last_waiters <= 1
        if is_alone and committer.commit_alone(lsn) and lsn <= turn.durable_lsn:
            passed_ns = time.perf_counter_ns()
        else:
            gate = turn.gate(lsn)
            if gate is None:
                return
            if not gate.wait(timeout_s):
                raise TimeoutError(f"LSN {lsn} was not durable within {timeout_s} s")
            passed_ns = time.perf_counter_ns()
            self._note_passed(passed_ns)
        committer.figures.wait_ns.add(passed_ns - began_ns)
        if lsn > turn.durable_lsn:
            raise self._lifecycle.error()

    async def durable(self, lsn: int | None = None) -> None:
        """Wait in the running event loop until `lsn` is durable, as `wait_durable` does.

        Cancelling the wait does not affect the commit. For a time limit, use `asyncio.timeout`.
        Raises what `wait_durable` raises.
        """
        turn = self._turn
        lsn = self._lsn_of_wait(lsn)
        gate = turn.gate(lsn)
        if gate is None:
            return
        future = gate.future()  # Gate.passed, inlined: 0.3 us of 4.8 less
        try:
            await future
        except BaseException:
            gate.forget(future)
            raise
        if lsn > turn.durable_lsn:
            raise self._lifecycle.error()

    @property
    def mirrored_lsn(self) -> int:
        """The LSN up to which the mirror has every record. Raises ValueError without a mirror."""
        return self._mirroring().mirrored_lsn

    def wait_mirrored(self, lsn: int | None = None, *, timeout_s: float | None = None) -> None:
        """Block until the mirror has every record up to `lsn`, and upload them at once.

        None stands for everything appended so far. Then the record survives the loss of this
        machine. Raises what `wait_durable` raises, and ValueError without a mirror. In an event
        loop, use `mirrored`.
        """
        mirroring = self._mirroring()
        lsn = self._lsn_of_wait(lsn)
        check_timeout_s(timeout_s)
        if lsn > mirroring.mirrored_lsn:
            warn_in_event_loop("wait_mirrored", "mirrored(...)", timeout_s)
            until_s = None if timeout_s is None else time.monotonic() + timeout_s
            self.wait_durable(lsn, timeout_s=timeout_s)
            left_s = None if until_s is None else max(0.0, until_s - time.monotonic())
            if not mirroring.wait(lsn, left_s) and mirroring.gate(lsn):
                raise TimeoutError(f"LSN {lsn} was not mirrored within {timeout_s} s")
            if lsn > mirroring.mirrored_lsn:
                raise self._lifecycle.error()

    async def mirrored(self, lsn: int | None = None) -> None:
        """Wait in the running event loop until the mirror has `lsn`, as `wait_mirrored` does.

        Cancelling the wait does not affect the upload. Raises what `wait_mirrored` raises.
        """
        mirroring = self._mirroring()
        lsn = self._lsn_of_wait(lsn)
        if lsn > mirroring.mirrored_lsn:
            await self.durable(lsn)
            while gate := mirroring.gate(lsn):
                await gate.passed()
            if lsn > mirroring.mirrored_lsn:
                raise self._lifecycle.error()

    def _mirroring(self) -> Mirroring:
        self.check_process()
        mirroring = self._core.mirroring
        if mirroring is None:
            raise ValueError("this journal has no mirror; open it with mirror=...")
        return mirroring

    def _lsn_of_wait(self, lsn: int | None) -> int:
        if lsn is None:
            return self.last_lsn
        check_lsn(lsn)
        return lsn

    def request_commit(self, lsn: int) -> None:
        """Request that `lsn` is committed as soon as if a thread waited for it. Returns at once.

        Without this, a record that nobody waits for may stay in memory for `flush_interval_s`. Does
        nothing if `lsn` is committed already or was never appended, or if the journal has failed.
        """
        self._turn.request_commit(lsn)

    def wait_room(self, *, timeout_s: float | None = None) -> None:
        """Block until there is room for updates. Call it with no lock held.

        There is no room while half of `buffer_bytes` is used, nor while a compaction is so overdue
        that the log has grown by a quarter more than what made it due. In the latter case, callers
        get room again every 15 ms or so, in proportion to what the compaction has encoded. Raises
        TimeoutError after `timeout_s` seconds, FailedError, ClosedError. In an event loop, use
        `room`.
        """
        check_timeout_s(timeout_s)
        if not self._await_room(timeout_s):
            raise TimeoutError(f"no room in the log buffer within {timeout_s} s")

    def _await_room(self, timeout_s: float | None) -> bool:
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while gate := self._room_gate():
            warn_in_event_loop("wait_room", "room()", timeout_s)
            remaining_s = None if until_s is None else until_s - time.monotonic()
            if not gate.wait(remaining_s) or self._turn.got_room():
                return gate.opened
        return True

    async def room(self) -> None:
        """Wait in the running event loop until there is room, as `wait_room` does.

        Raises FailedError and ClosedError.
        """
        while gate := self._room_gate():
            await gate.passed()
            if self._turn.got_room():
                break

    def _room_gate(self) -> Gate | None:
        gate = self._turn.room_gate()
        if gate is not None and self._core.is_making_room_here:
            raise InterruptedCallError
        return gate

    def replay(self, after: int | None = None) -> Iterator[Entry]:
        """Return an iterator over the entries after LSN `after` that are durable now, in order.

        None stands for the LSN of `checkpoint`. Raises CompactedError if the entries are no longer
        retained, CorruptionError, FormatVersionError, FailedError, ClosedError. Holds no lock, so
        other threads may append meanwhile.
        """
        from journal._engine.replaying import entries_of

        self._lifecycle.check()
        if after is None:
            after = self.checkpoint.lsn if self.checkpoint else 0
        else:
            check_lsn(after, "after")
        return entries_of(self._core.directory, self._lifecycle, after, self.durable_lsn)

    def start_compaction(self, freeze: Freeze) -> None:
        """Start a thread that compacts whenever the log has outgrown the last checkpoint.

        `freeze()` takes the owner's lock, and returns the LSN of the state and an iterable of its
        items, which is read later, with no lock held. Raises RuntimeError at a second call, and
        TypeError unless `freeze` is a plain function.
        """
        self._lifecycle.check()
        check_freeze(freeze)
        self._core.start_compaction(freeze)

    def compact(self, freeze: Freeze | None = None) -> Checkpoint:
        """Write a checkpoint now, in this thread, and remove what no retained one needs. Return it.

        None stands for the `freeze` of `start_compaction`; if there is none, raises ValueError.
        Waits for a compaction that is under way. Raises what `freeze` or its items raise, and
        OSError: these end only this attempt, and count in `stats().compaction_failures`. Raises
        FailedError and ClosedError, too, and TypeError unless `freeze` is a plain function.
        """
        self._lifecycle.check()
        if freeze is not None:
            check_freeze(freeze)
        return self._core.compact(freeze, self._fill)

    @property
    def first_lsn(self) -> int:
        """The first LSN that is kept; if no record is, the next one to append. Reads the directory.

        Raises FailedError, ClosedError and OSError.
        """
        self._lifecycle.check()
        return self._core.first_lsn

    def trim(self, before_lsn: int) -> int:
        """Forget records before `before_lsn`, and return the first LSN that is kept.

        Everything from `before_lsn` on stays. Whole segments are removed, so older records may
        stay, too: those in the segment of `before_lsn`, in the segment with the last record, and in
        one that ends less than `checkpoints_kept` records before. The next record begins a segment,
        if that lets a later trim remove more. Waits until the records before `before_lsn` are
        durable, and for a compaction that is under way. Others may append meanwhile.

        For a journal whose records are all that it keeps. Raises JournalError if the newest
        checkpoint holds a state or is of another application, and for the journal of a
        DurableState; ValueError unless `before_lsn` is from 1 to `last_lsn` + 1. Otherwise raises
        what `compact` raises. Source: journal/docs/FORMAT.md, "Trims".
        """
        self._lifecycle.check()
        if type(before_lsn) is not int:
            check_lsn(before_lsn, "before_lsn")
        self._core.trim(before_lsn)
        return self.first_lsn

    def backup(self, dest: StrPath) -> BackupReport:
        """Copy everything that is durable into a new directory `dest`. Others may append meanwhile.

        Raises FileExistsError if `dest` exists and is neither empty nor an incomplete copy,
        LockedError if another copy begins there, CorruptionError if the files to copy are damaged,
        CompactedError if compaction removed them first, OSError, FailedError, ClosedError. If it
        raises anything, it removes what it has made in `dest`.
        """
        from journal._offline.backup import backup_directory

        self._lifecycle.check()
        return backup_directory(self._core.directory, self._core.disk, dest, self.durable_lsn)

    def observe(self, observer: Observer) -> None:
        """Report each commit, compaction, stall and failure to `observer` from now on.

        Raises TypeError for a class, and for an object that has no method of Observer.
        """
        self._committer.observe(observer)

    def stats(self) -> Stats:
        """Return the figures since open, including those of a failed or closed journal.

        Reads the directory, and holds no lock that a writer needs. Raises OSError if that fails,
        and ClosedError in a forked child.
        """
        from journal._engine.stats import stats_of

        self.check_process()
        return stats_of(self._core, is_closed=self._is_closed)

    def close(self, *, timeout_s: float | None = None) -> None:
        """Commit everything that was appended, and release the directory.

        Does nothing if the journal is closed. Raises TimeoutError after `timeout_s` seconds; the
        lock is still held then, so call it again. Raises FailedError if the journal has failed and
        a record that was appended is not synced, or is not in the mirror. While a mirror with
        ack="local" can't be reached, the close ships for at most 10 s, and then logs which records
        the next open has to ship.
        """
        check_timeout_s(timeout_s)
        if self._is_closed or self._lifecycle.abandoned:
            self._is_closed = True
            return
        self._core.begin_close()
        if not self._core.finish_close(timeout_s):
            within = f"within {timeout_s} s"
            if timeout_s is None:  # then only the mirror ends the wait
                within = "while its mirror can't be reached"
            raise TimeoutError(
                f"{self.path}: not closed {within}, {self._buffer.used_bytes} bytes "
                "are still to be written; call close() again"
            )
        self._is_closed = True
        if self.last_lsn > self._core.safe_lsn:
            raise self._lifecycle.error()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except JournalError as failure:
            if not self._is_closed:  # for example a signal handler's: close must be called again
                raise
            report(logging.ERROR, "%s: the journal was not closed cleanly: %s", self.path, failure)

    # `warn` is kept, because the modules may be cleared already when an embedded interpreter exits.
    def __del__(self, warn: Callable[..., object] = warnings.warn) -> None:
        core = getattr(self, "_core", None)
        if core is None or self._is_closed or core.lifecycle.abandoned:
            return
        # This must not wait, because it may run in any thread, under any lock.
        core.drop()
        message = f"journal {self.path} was never closed; use `with`, or call close()"
        warn(message, ResourceWarning, stacklevel=2, source=self)

    def _condition(self) -> str:
        # In this order: the durable LSN is never higher than the last one.
        durable_lsn, last_lsn = self.durable_lsn, self.last_lsn
        return f"{self.path} {self._state_word()} last_lsn={last_lsn} durable_lsn={durable_lsn}"

    def _state_word(self) -> str:
        if self._is_closed:
            return "closed"
        if self._lifecycle.abandoned:
            return "forked"
        return "failed" if self._lifecycle.failure else f"epoch={self.epoch}"
