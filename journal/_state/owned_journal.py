"""OwnedJournal: the journal of a DurableState, for calls from outside that state's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from journal import _time as time
from journal._commit.gate import Gate
from journal._engine.compactor import Fill, Freeze
from journal._engine.core import Core
from journal._engine.journal import Journal
from journal._format.checkpoint import Checkpoint
from journal._format.record import Record
from journal._log import shown
from journal._state.owner_lock import OwnerLock
from journal._waits import check_timeout_s
from journal.errors import FailedError, InterruptedCallError, JournalError

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Coroutine

_POLL_S = 0.0005  # between two looks at a change that is being applied


class ApplyProgress:
    """The last LSN that a machine has applied or is applying, and the error that stopped it.

    DurableState sets the fields under the owner's lock, with plain stores and no call, so that no
    interrupt can separate them from the step that they describe. Its journal reads them without the
    lock.
    """

    __slots__ = ("broken", "lsn")

    def __init__(self, lsn: int) -> None:
        self.lsn = lsn  # above the log's last LSN until the record is appended
        # The error that left the machine half-way through a record or ahead of the log, or None.
        self.broken: BaseException | None = None

    def check(self) -> None:
        """Raise FailedError if the machine may differ from the log."""
        if self.broken is not None:
            raise FailedError(
                f"this state stopped at LSN {self.lsn}, which may be applied in part and may not "
                f"be in the journal: {shown(self.broken)}; close the state and reopen it. If apply "
                "raised the error, fix apply"
            ) from self.broken


class OwnedJournal(Journal):
    """A Journal to which only its state appends. Its waits include the change being applied.

    Nothing may wait under the owner's lock, neither for a commit nor for the compactor's thread,
    which needs that lock.
    """

    _kind = "Journal"  # users know no other

    def __init__(self, core: Core, progress: ApplyProgress) -> None:
        super().__init__(core)
        # Guards the machine and `progress`. Lock order: this one, then the log buffer's. A signal
        # handler that interrupted a holder of the log buffer's lock must not wait for this one.
        self.owner_lock = OwnerLock(core.buffer.is_locked_here)
        core.buffer.is_owner_inside = self.owner_lock.is_held
        self._progress = progress

    def append(self, record: Record, *, urgent: bool = False) -> int:
        """Raise JournalError: only the state appends to its journal."""
        raise _append_error()

    def append_and_wait(self, record: Record, *, urgent: bool = False) -> int:
        """Raise JournalError: only the state appends to its journal."""
        raise _append_error()

    def append_durable(self, record: Record, *, urgent: bool = False) -> Future[int]:
        """Raise JournalError: only the state appends to its journal."""
        raise _append_error()

    def append_batch(self, records: list[Record], *, urgent: bool = False) -> int:
        """Raise JournalError: only the state appends to its journal."""
        raise _append_error()

    def trim(self, before_lsn: int) -> int:
        """Raise JournalError: only compactions remove the records of a state."""
        raise JournalError(
            "this journal belongs to a DurableState, whose state a trim would forget; nothing was "
            "trimmed: remove what you don't need from the state, and call its compact"
        )

    def wait_durable(self, lsn: int | None = None, *, timeout_s: float | None = None) -> None:
        lsn = self._lsn_of_wait(lsn)
        if self._is_applying(lsn):
            timeout_s = self._wait_while_applying(lsn, timeout_s)
        super().wait_durable(lsn, timeout_s=timeout_s)

    def durable(self, lsn: int | None = None) -> Coroutine[Any, Any, None]:
        if type(lsn) is int and lsn <= self._buffer.filling.last_lsn:
            return super().durable(lsn)  # mostly; a coroutine around it takes 0.5 us
        return self._applied_and_durable(lsn)

    async def _applied_and_durable(self, lsn: int | None) -> None:
        from asyncio import sleep

        lsn = self._lsn_of_wait(lsn)
        while self._is_applying(lsn):
            await sleep(_POLL_S)
        await super().durable(lsn)

    def _lsn_of_wait(self, lsn: int | None) -> int:
        self.owner_lock.refuse_inside()
        if lsn is not None:
            return super()._lsn_of_wait(lsn)
        applying_lsn = self._progress.lsn  # first: it may be appended from here on
        return max(applying_lsn, self._buffer.filling.last_lsn)

    def fill_with(self, fill: Fill) -> None:
        """Let `compact` call `fill` to give space back while the log is idle."""
        self._fill = fill

    def compact(self, freeze: Freeze | None = None) -> Checkpoint:
        self.owner_lock.refuse_inside()
        return super().compact(freeze)

    def close(self, *, timeout_s: float | None = None) -> None:
        self.owner_lock.refuse_inside()
        super().close(timeout_s=timeout_s)

    def _state_word(self) -> str:
        word = super()._state_word()
        return "stopped" if self._progress.broken is not None and word != "closed" else word

    def _room_gate(self) -> Gate | None:
        self.owner_lock.refuse_inside()
        return super()._room_gate()

    def _is_applying(self, lsn: int) -> bool:
        """Return whether `lsn` is being applied, so that it is not appended yet.

        It is appended before the lock is free again, or never. In the latter case, this raises.
        """
        if lsn <= self._buffer.filling.last_lsn:
            return False
        self.check_process()
        if self._buffer.is_locked_here():  # the change needs that lock to be appended
            raise InterruptedCallError
        is_held = self.owner_lock.is_held()  # first: a holder that fails says so before it ends
        self._progress.check()
        return is_held and lsn <= self._progress.lsn

    def _wait_while_applying(self, lsn: int, timeout_s: float | None) -> float | None:
        """Return the time that is left of `timeout_s` when `lsn` is applied.

        `apply` may never return, so this does not wait for the lock.
        """
        check_timeout_s(timeout_s)
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while self._is_applying(lsn):
            if until_s is not None and time.monotonic() >= until_s:
                raise TimeoutError(f"LSN {lsn} was not applied within {timeout_s} s")
            time.sleep(_POLL_S)
        return None if until_s is None else max(0.0, until_s - time.monotonic())


def _append_error() -> JournalError:
    return JournalError(
        "this journal belongs to a DurableState, whose machine would never see the record; "
        "nothing was appended: use update or update_batch of the state"
    )
