"""DurableState: a state machine whose every change is journaled, under one small lock.

Under the lock: decide, append (memory only), apply. No I/O, no copy that grows with the state,
no waiting. Room is waited for before the lock is taken, durability after it was released.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from journal.buffer import LogBuffer
from journal.checkpoint import JSON, Checkpoint
from journal.compactor import Freeze
from journal.core import open_core
from journal.engine import Journal
from journal.errors import BufferFullError, ClosedError, FailedError, FormatVersionError
from journal.lock import OwnerLock
from journal.metrics import LockStats, Stats
from journal.options import Options
from journal.record import PackedRecord, Record, bare
from journal.storage import Disk, StrPath
from journal.walk import Batch


class StateMachine(Protocol):
    """State that follows from its records alone.

    `application` ("jobs/1") stands in every checkpoint; a journal with another one does not
    open. A machine may have `accepts`, a tuple of older applications that it understands.
    """

    @property
    def application(self) -> str:
        """Whose state it is, and of which shape: a name and a number."""

    def load(self, item: Any) -> None:
        """Take in one item of a checkpoint."""

    def apply(self, lsn: int, record: Any) -> None:
        """Take in one record. Pure, constant time, can't fail; the same live and in replay."""

    def freeze(self) -> Iterable[JSON]:
        """The state's items as they are now: constant time, under the lock.

        They are iterated later, outside it, while `apply` goes on: see CowTable.
        """


M = TypeVar("M", bound=StateMachine)
T = TypeVar("T")

# decide, urgent, append, apply
_Change = tuple[Callable[[M], Any], bool, Callable[[Any, bool], int], Callable[[int, Any], None]]


class DurableState(Generic[M]):
    """A state machine and its journal, recovered, open for writing. A context manager.

    Thread-safe: `update`, `update_batch` and `read` run their callbacks under one lock, which
    `lock_stats` measures. Callbacks must be of constant time and must not call back in.
    """

    def __init__(
        self, journal: Journal, buffer: LogBuffer, machine: M, room_timeout_s: float
    ) -> None:
        self._journal = journal
        self._buffer = buffer  # the journal's own: what every update asks of it, it asks directly
        self._machine = machine
        self._room_timeout_s = room_timeout_s
        # The owner's lock: guards the machine and the two fields below. Taken before the log
        # buffer's, and never while anything is waited for.
        self._lock = OwnerLock()
        self._applied_lsn = journal.last_lsn
        self._broken: BaseException | None = None

    @classmethod
    def open(
        cls,
        path: StrPath,
        machine: M,
        *,
        options: Options = Options(),
        room_timeout_s: float = 30.0,
        disk: Disk | None = None,
    ) -> Self:
        """Bring `machine`, which is new, to the state at `path`, and go on from there.

        `options.application` is the machine's. Raises what `Journal.open` raises, and
        FormatVersionError for an item or a record that the machine can't take in.
        """

        def load(checkpoint: Checkpoint | None) -> None:
            for item in checkpoint.items() if checkpoint else ():
                try:
                    machine.load(item)
                except Exception as error:
                    assert checkpoint is not None
                    what = f"{checkpoint.path}: load raised {error!r:.200} for an item"
                    raise _refusal(machine, what) from error

        def apply(batch: Batch) -> None:
            for lsn, record in enumerate(batch.records, batch.first_lsn):
                try:
                    machine.apply(lsn, record)
                except Exception as error:
                    where = f"{batch.path}: offset {batch.offset_of(lsn)}, LSN {lsn}"
                    what = f"{where}: apply raised {error!r:.200} for a record"
                    raise _refusal(machine, what) from error

        options = replace(options, application=machine.application)
        accepts = (machine.application, *getattr(machine, "accepts", ()))
        journal, buffer = open_core(
            path,
            options,
            disk,
            accepts,
            load,
            apply,
            own=lambda core: (Journal(options, core), core.buffer),
        )
        state = cls(journal, buffer, machine, room_timeout_s)
        # Weakly, so that the compactor's thread keeps no state alive that nobody else does.
        freeze = weakref.WeakMethod(state._freeze)
        journal.start_compaction(lambda: _call(freeze))
        return state

    @property
    def machine(self) -> M:
        """For reads that need no lock."""
        return self._machine

    @property
    def journal(self) -> Journal:
        """For what this class has no name for. What is appended there, the machine never sees."""
        return self._journal

    @property
    def closed(self) -> bool:
        """See Journal.closed."""
        return self._journal.closed

    def update(self, decide: Callable[[M], Record | None], *, urgent: bool = False) -> int | None:
        """Under the lock: `record = decide(machine)`, append it, apply it; its LSN.

        None if `decide` returns None. What `decide` raises, and RecordError, BufferFullError,
        FailedError and ClosedError, leave everything as it was. Where there is no room (see
        Journal.wait_room) it waits first, at most `room_timeout_s`, then raises BufferFullError
        if half of the log buffer is used; not if `urgent`, and never in a thread that runs an
        event loop: `await room()` there. A large record is best packed before: `journal.pack`.

        `apply` may raise nothing. What it raises comes through, with its record in the journal:
        this state is half-way through it, so from now on all changes are FailedError.
        """
        if not self._buffer.is_ready:
            self._wait_for_room(urgent)
        how = decide, urgent, self._buffer.append, self._machine.apply
        return self._lock.run(self._change, how)

    def update_batch(
        self, decide: Callable[[M], list[Record]], *, urgent: bool = False
    ) -> int | None:
        """`update` with a list of records, all of which a crash leaves or none; the last LSN.

        None if the list is empty.
        """
        if not self._buffer.is_ready:
            self._wait_for_room(urgent)

        def some(machine: M) -> list[Record] | None:
            return list(decide(machine) or ()) or None

        how = some, urgent, self._buffer.append_batch, self._apply_all
        return self._lock.run(self._change, how)

    def read(self, look: Callable[[M], T]) -> T:
        """`look(machine)` under the lock; for looks of constant time."""
        self._journal.check_process()
        return self._lock.run(look, self._machine)

    def wait_durable(self, lsn: int | None = None, *, timeout_s: float | None = None) -> None:
        """See Journal.wait_durable."""
        self._journal.wait_durable(lsn, timeout_s=timeout_s)

    async def durable(self, lsn: int | None = None) -> None:
        """See Journal.durable."""
        await self._journal.durable(lsn)

    def wait_room(self, *, timeout_s: float | None = None) -> None:
        """See Journal.wait_room."""
        self._journal.wait_room(timeout_s=timeout_s)

    async def room(self) -> None:
        """See Journal.room."""
        await self._journal.room()

    def compact(self) -> Checkpoint:
        """See Journal.compact."""
        return self._journal.compact()

    def stats(self) -> Stats:
        """See Journal.stats."""
        return self._journal.stats()

    def lock_stats(self) -> LockStats:
        """How long the lock was held and waited for, in ns, since open; every hold counts."""
        self._journal.check_process()
        return self._lock.stats()

    def close(self, *, timeout_s: float | None = None) -> None:
        """See Journal.close."""
        self._journal.close(timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._journal.__exit__(kind, error, traceback)

    def _check(self) -> None:
        if self._broken is not None:
            raise FailedError(
                f"apply stopped half-way through a record after LSN {self._applied_lsn}: "
                f"{self._broken!r:.200}; the record is in the journal, and no change is taken any "
                "more: close it, mend apply unless it was interrupted, and open it again"
            ) from self._broken

    def _change(self, how: _Change[M]) -> int | None:
        decide, urgent, append, apply = how
        if self._broken is not None:
            self._check()
        change = None
        applying = False
        try:
            change = decide(self._machine)
            if change is None:
                return None
            lsn = append(change, urgent)
            applying = True
            apply(lsn, change[0] if type(change) is PackedRecord else change)
            self._applied_lsn = lsn
            return lsn
        except BaseException as error:
            # Leave nothing that is logged and not applied; another interrupt may strike here.
            self._broken = error
            lsn = self._buffer.last_lsn
            if change is None or lsn == self._applied_lsn:
                self._broken = None
            elif not applying:  # an interrupt came between
                apply(lsn, bare(change))
                self._applied_lsn, self._broken = lsn, None
            raise

    def _apply_all(self, last_lsn: int, records: list[Record]) -> None:
        for lsn, record in enumerate(records, last_lsn + 1 - len(records)):
            self._machine.apply(lsn, bare(record))

    def _freeze(self) -> tuple[int, Iterable[JSON]]:
        def look(machine: M) -> tuple[int, Iterable[JSON]]:
            self._check()
            return self._applied_lsn, machine.freeze()

        return self.read(look)

    def _wait_for_room(self, urgent: bool) -> None:
        self._buffer.check()  # first: in a forked child no lock may be taken
        if urgent or self._buffer.has_room or _in_event_loop():
            return
        try:
            self._journal.wait_room(timeout_s=self._room_timeout_s)
        except TimeoutError as error:
            # A compaction that takes so long is no reason to refuse.
            if self._buffer.used_bytes * 2 >= self._buffer.bound:
                raise BufferFullError(f"{error}; nothing was changed") from None


def _call(freeze: weakref.WeakMethod[Freeze]) -> tuple[int, Iterable[JSON]]:
    method = freeze()
    if method is None:
        raise ClosedError("the state was dropped without being closed")
    return method()


def _refusal(machine: StateMachine, what: str) -> FormatVersionError:
    return FormatVersionError(
        f"{what} of application {machine.application!r}; nothing was changed: open it with the "
        "version that wrote it, or, if that was this one, mend what raised"
    )


def _in_event_loop() -> bool:
    # Who runs a loop has imported asyncio; importing it here would cost those who don't.
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None
