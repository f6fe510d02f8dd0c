"""DurableState: a state machine whose changes are all journaled, under one small lock.

Under the lock, a change decides on its record, packs and decodes it, checks for room, applies it,
and appends it to memory. It does no I/O there, makes no copy that grows with the state, and never
waits: it waits for room before it takes the lock, and a caller waits for durability afterwards.

A record is applied before it is appended, so a record that `apply` refuses is never in the journal.
Until the append, a reader without the lock sees a change that is not in the log. The waits of
OwnedJournal include such a change.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, cast

from msgpack import unpackb

from journal._callbacks import RUN_LATER, close_coroutine, late_fault
from journal._commit.buffer import LogBuffer, record_packer
from journal._disk.disk import Disk, StrPath
from journal._engine.async_handle import AsyncHandle
from journal._engine.journal import Journal
from journal._format.checkpoint import JSON, Checkpoint
from journal._format.record import (
    CANT_PACK,
    PackedRecord,
    Record,
    check_batch,
    raise_unreadable,
    refuse,
)
from journal._public import public
from journal._state.contract import check_items, check_machine
from journal._state.owned_journal import ApplyProgress, OwnedJournal
from journal._state.replay import recover_state
from journal._state.state_machine import StateMachine
from journal._waits import check_callable, check_timeout_s, in_event_loop
from journal.errors import (
    BufferFullError,
    ClosedError,
)
from journal.options import Options, check_options

if TYPE_CHECKING:
    from journal._mirror.mirror import Mirror
    from journal.metrics import LockStats, Stats


M = TypeVar("M", bound=StateMachine)
N = TypeVar("N", bound=StateMachine)
T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])
Apply = Callable[[int, Any], object]  # of an LSN and a change


@public
class DurableState(AsyncHandle, Generic[M]):
    """A state machine and its recovered journal, open for writing. A context manager.

    Thread-safe: `update`, `update_batch` and `read` run their callbacks under one lock, which
    `lock_stats` measures. Callbacks must take constant time, and must not call this object.
    """

    def __init__(
        self,
        journal: OwnedJournal,
        buffer: LogBuffer,
        progress: ApplyProgress,
        machine: M,
        options: Options,
        room_timeout_s: float,
    ) -> None:
        self._journal = journal
        self._buffer = buffer  # the journal's own, for direct calls by each update
        self._progress = progress
        self._machine = machine
        self._room_timeout_s = room_timeout_s
        self._lock = journal.owner_lock
        self._packer = record_packer(options)
        self._pack, self._bytes_max = self._packer.pack_unchecked, self._packer.bytes_max
        self._preparations: dict[str, Callable[[DurableState[M]], None]] = {}

    @classmethod
    def open(
        cls,
        path: StrPath,
        machine: N,
        *,
        options: Options = Options(),
        room_timeout_s: float = 30.0,
        lock_timeout_s: float | None = 0.0,
        mirror: str | Mirror | Literal[False] | None = None,
        takeover: bool = False,
        disk: Disk | None = None,
    ) -> DurableState[N]:
        """Open the journal at `path`, and bring the new `machine` to its state.

        The machine's `application` replaces `options.application`. `mirror`, `takeover`: see
        Journal.open. Raises what `Journal.open` raises, FormatVersionError for an item or a record
        that the machine refuses, and TypeError for a `machine` that lacks a member of StateMachine
        or has one of the wrong kind.
        """
        check_options(options)
        check_machine(machine)
        check_timeout_s(room_timeout_s, "room_timeout_s")
        if options.has_retention:
            raise ValueError(
                "retain_s and retain_bytes are for a Journal without a state: a DurableState keeps "
                "what its machine keeps"
            )
        options = replace(options, application=machine.application)
        journal, buffer, progress = recover_state(
            path, machine, options, disk, lock_timeout_s, mirror, takeover
        )
        try:
            # N, not M: pyright can't infer a class's own type variable from a class method.
            of_machine = cast("type[DurableState[N]]", cls)
            state = of_machine(journal, buffer, progress, machine, options, room_timeout_s)
            # A weak reference: the compactor's thread must not keep a dropped state alive.
            freeze = weakref.WeakMethod(state._freeze)
            fill = weakref.WeakMethod(state._append_filler)
            journal.fill_with(lambda after_lsn: _method(fill)(after_lsn))
            journal.start_compaction(lambda: _method(freeze)())
        except BaseException:  # the compactor's thread can't be started, or an interrupt
            journal.close()
            raise
        return state

    @property
    def machine(self) -> M:
        """The state machine, for reads that need no lock."""
        return self._machine

    @property
    def journal(self) -> Journal:
        """The journal, for calls that this class lacks. It refuses to append: use `update`."""
        return self._journal

    @property
    def closed(self) -> bool:
        """True once `close` has finished. See Journal.closed."""
        return self._journal.closed

    def check(self) -> None:
        """Raise the error that every update would raise now: FailedError or ClosedError."""
        self._progress.check()
        self._journal.check()

    def update(self, decide: Callable[[M], Record | None], *, urgent: bool = False) -> int | None:
        """Call `record = decide(machine)`, apply the record, append it, and return its LSN.

        All of that happens under the lock. Returns None if `decide` returns None;
        `wait_durable(None)` then waits for everything that `decide` may have read. If `decide`
        raises, or the update raises RecordError, BufferFullError, FailedError or ClosedError before
        it calls `apply`, nothing has changed.

        If there is no room (see Journal.wait_room), the update first waits for at most
        `room_timeout_s`, and then raises BufferFullError if half of the log buffer is used. It does
        not wait if it is `urgent`, nor in a thread that runs an event loop: call `await room()`
        there. Pack a large record before the call, with `journal.pack`.

        `apply` gets the decoded form of the packed record, never the caller's own object, and must
        not raise. If it does, its exception propagates, and its record is not in the journal. The
        state may be half-way through that record, so every later change or read raises FailedError.
        Reopening works. The same is true if the journal fails between `apply` and the append.
        """
        if not callable(decide):  # check_callable, inlined: 26 ns less
            check_callable(decide, "decide")  # type: ignore[unreachable]
        if not self._buffer.is_ready():
            self._wait_for_room(urgent)
        return self._lock.run(self._change, (decide, urgent))

    def update_batch(
        self, decide: Callable[[M], list[Record]], *, urgent: bool = False
    ) -> int | None:
        """Do what `update` does for a list of records, as one batch. Return the last LSN.

        A crash leaves all of the records or none. Returns None if the list is empty.
        """
        check_callable(decide, "decide")
        if not self._buffer.is_ready():
            self._wait_for_room(urgent)
        return self._lock.run(self._change_batch, (decide, urgent))

    def update_with_result(
        self, decide: Callable[[M], tuple[Record | None, T]], *, urgent: bool = False
    ) -> tuple[int | None, T]:
        """Do what `update` does with `record, result = decide(machine)`. Return the LSN and
        `result`.

        So `decide` can report what it chose, such as the job that it took from a queue, and also if
        it returns `(None, result)`: the LSN is None then. Copy what the machine may still change.
        Raises TypeError, with nothing changed, if `decide` returns anything but a tuple of two.
        """
        check_callable(decide, "decide")
        results: list[T] = []

        def choose(machine: M) -> Record | None:
            chosen: Any = decide(machine)
            if not isinstance(chosen, tuple) or len(chosen) != 2:
                close_coroutine(chosen)
                kind = f"tuple of {len(chosen)}" if type(chosen) is tuple else type(chosen).__name__
                raise TypeError(f"decide returned a {kind}, not a tuple (record, result)")
            results.append(chosen[1])
            return chosen[0]

        return self.update(choose, urgent=urgent), results[0]

    def read(self, query: Callable[[M], T]) -> T:
        """Return `query(machine)`, called under the lock. It must take constant time.

        Raises TypeError if `query` is a coroutine or generator function, which would run later.
        """
        check_callable(query, "query")
        self._journal.check_process()
        if self._progress.broken is not None:
            self._progress.check()
        result = self._lock.run(query, self._machine)
        if self._progress.broken is not None:  # the state stopped while this call waited
            self._progress.check()
        if type(result) in RUN_LATER and (fault := late_fault(query, result)):
            raise TypeError(f"{fault}, so it would run without the lock: pass an ordinary function")
        return result

    def wait_durable(self, lsn: int | None = None, *, timeout_s: float | None = None) -> None:
        """Wait as Journal.wait_durable does, and also for a change that is being applied."""
        self._journal.wait_durable(lsn, timeout_s=timeout_s)

    async def durable(self, lsn: int | None = None) -> None:
        """Wait as Journal.durable does, and also for a change that is being applied."""
        await self._journal.durable(lsn)

    def wait_mirrored(self, lsn: int | None = None, *, timeout_s: float | None = None) -> None:
        """Wait as Journal.wait_mirrored does, and also for a change that is being applied."""
        self._journal.wait_mirrored(lsn, timeout_s=timeout_s)

    async def mirrored(self, lsn: int | None = None) -> None:
        """Wait as Journal.mirrored does, and also for a change that is being applied."""
        await self._journal.mirrored(lsn)

    def wait_room(self, *, timeout_s: float | None = None) -> None:
        """Block until there is room for updates; see Journal.wait_room."""
        self._journal.wait_room(timeout_s=timeout_s)

    async def room(self) -> None:
        """Wait in the running event loop until there is room; see Journal.room."""
        await self._journal.room()

    def compact(self) -> Checkpoint:
        """Write a checkpoint now, as Journal.compact does, and give space back at once.

        If the log is idle meanwhile, and a second checkpoint would free at least a quarter of
        `segment_bytes`, append a filler, which is a record that is never applied, and publish a
        checkpoint at its LSN, too. On a full disk, the filler waits for space, as any record does.
        """
        return self._journal.compact()

    def stats(self) -> Stats:
        """Return the figures since open; see Journal.stats."""
        return self._journal.stats()

    def lock_stats(self) -> LockStats:
        """Return how long the lock was held and waited for since open, in ns. Every hold counts."""
        self._journal.check_process()
        return self._lock.stats()

    def close(self, *, timeout_s: float | None = None) -> None:
        """Commit everything that was appended, and release the directory; see Journal.close."""
        self._journal.close(timeout_s=timeout_s)

    def _condition(self) -> str:
        return f"{self._journal._condition()} machine={type(self._machine).__name__}"

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._journal.__exit__(kind, error, traceback)

    def _change(self, change: tuple[Callable[[M], Record | None], bool]) -> int | None:
        decide, urgent = change
        if self._progress.broken is not None:
            self._progress.check()
        record = decide(self._machine)
        if record is None:
            return None
        if type(record) is PackedRecord:
            value, packed = record._take()
        else:  # RecordPacker.pack_and_unpack, inlined: its call takes 150 ns
            try:
                packed = self._pack(record)
            except CANT_PACK as error:
                refuse(record, error)
            try:
                value = unpackb(packed, strict_map_key=False)
            except Exception as error:
                raise_unreadable(error, record)
        if len(packed) > self._bytes_max:
            self._packer.check(record, packed)
        return self._apply_and_append((self._machine.apply, value, packed, urgent))

    def _apply_and_append(self, change: tuple[Apply, Any, bytes, bool]) -> int:
        """Call `apply(lsn, value)`, and append the packed record. Return its LSN.

        Called under the lock. The record must fit, and replay must decode and apply it to the same
        effect.
        """
        if self._progress.broken is not None:
            self._progress.check()
        apply, value, packed, urgent = change
        lsn, is_applied = 0, False
        try:
            lsn = self._buffer.admit(len(packed), urgent)
            self._progress.lsn = lsn
            apply(lsn, value)
            is_applied = True
            self._buffer.append_admitted(packed)
        except BaseException as error:
            if lsn:  # first, and without a call: another interrupt may strike here
                self._progress.broken = error
            self._finish_change(lsn, is_applied, partial(self._buffer.append_admitted, packed))
            raise
        return lsn

    def _change_batch(self, change: tuple[Callable[[M], list[Record]], bool]) -> int | None:
        decide, urgent = change
        if self._progress.broken is not None:
            self._progress.check()
        chosen = decide(self._machine) or ()
        check_batch(chosen)
        records = [self._packer.pack_and_unpack(record) for record in chosen]
        if not records:
            return None
        packed = [packed_record for _, packed_record in records]
        lsn, is_applied = 0, False
        try:
            lsn = self._buffer.admit_batch(sum(map(len, packed)), urgent)
            self._progress.lsn = last_lsn = lsn + len(records) - 1
            for record_lsn, (value, _) in enumerate(records, lsn):
                self._machine.apply(record_lsn, value)
            is_applied = True
            self._buffer.append_batch_admitted(packed)
        except BaseException as error:
            if lsn:
                self._progress.broken = error
            self._finish_change(
                lsn, is_applied, partial(self._buffer.append_batch_admitted, packed)
            )
            raise
        return last_lsn

    def _finish_change(self, lsn: int, is_applied: bool, append: Callable[[], None]) -> None:
        """End a change that raised: append what was applied, unless it is appended already."""
        try:
            if is_applied:
                if self._buffer.last_lsn < lsn:
                    append()
                self._progress.broken = None
        finally:
            self._buffer.withdraw()

    def _before_freeze(self, prepare: Callable[[DurableState[M]], None], name: str = "") -> None:
        """Call `prepare` with this state, without the lock, before each snapshot for a checkpoint.

        It replaces an earlier one of the same name. It must not refer to this state, which ends
        when the last reference to it is dropped.
        """
        self._preparations[name] = prepare

    def _freeze(self) -> tuple[int, Iterable[JSON]]:
        for prepare in list(self._preparations.values()):
            prepare(self)

        def snapshot(machine: M) -> tuple[int, Iterable[JSON]]:
            self._progress.check()
            return self._buffer.last_lsn, machine.freeze()

        lsn, items = self.read(snapshot)
        check_items(self._machine, items)
        return lsn, items

    def _append_filler(self, after_lsn: int) -> int | None:
        """Append a filler if `after_lsn` is the last LSN, and return its LSN; otherwise None."""

        def append(_: M) -> int | None:
            self._progress.check()
            return self._buffer.append_filler(after_lsn)

        return self.read(append)

    def _wait_for_room(self, urgent: bool) -> None:
        self._journal.check()  # first: a forked child must not take a lock
        if urgent or self._buffer.has_room or in_event_loop():
            return
        has_room = self._journal._await_room(self._room_timeout_s)
        # A compaction that takes long is no reason to refuse the change.
        if not has_room and self._buffer.is_half_full:
            raise BufferFullError(
                f"{self._journal.path}: no room in the log buffer within {self._room_timeout_s} s; "
                "nothing was changed. If the disk is full, free some space; then try again"
            )


def _method(reference: weakref.WeakMethod[C]) -> C:
    """Return the method. Raises ClosedError if its state is gone."""
    method = reference()
    if method is None:
        raise ClosedError("the state was dropped without being closed")
    return method
