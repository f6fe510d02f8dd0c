"""DurableState: fail-stop and interrupts."""

from __future__ import annotations

import asyncio
import errno
import itertools
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from journal import (
    ClosedError,
    FailedError,
    FormatVersionError,
    pack,
)
from journal._format.checkpoint import checkpoint_name
from journal._format.record import bare
from journal.testing import SimulatedDisk
from tests.engine.state_support import len_of_rows, put, setting, state_on
from tests.support import (
    TIMEOUT_S,
    Interrupted,
    Table,
    interrupt_after,
    names,
)

# --- fail-stop ---


class Fragile(Table):
    def apply(self, lsn: int, record: Any) -> None:
        if record[1] == "poison":
            raise ValueError("apply's own")
        super().apply(lsn, record)


class UnprintableError(Exception):
    def __repr__(self) -> str:
        raise ZeroDivisionError

    __str__ = __repr__


@pytest.mark.parametrize("failing", ["apply", "load"])
def test_the_error_of_a_machine_need_not_be_printable(disk: SimulatedDisk, failing: str) -> None:
    """P6: A state stops, and an open is refused, as always, if the error of `apply` or `load` can't
    be printed."""

    def fail(*_: object) -> None:
        raise UnprintableError

    with state_on(disk) as state:
        put(state, "a", 1)
        if failing == "load":
            state.compact().close()
        state.machine.apply = fail
        with pytest.raises(UnprintableError):
            put(state, "b", 1)
        with pytest.raises(FailedError, match="stopped at LSN 2"):
            state.read(len_of_rows)
    machine = Table()
    setattr(machine, failing, fail)
    with pytest.raises(FormatVersionError, match=f"{failing} raised UnprintableError"):
        state_on(disk, machine)


@pytest.mark.parametrize("batch", [True, False])
def test_an_error_in_apply_is_fail_stop(disk: SimulatedDisk, batch: bool) -> None:
    """P6: The caller gets the error of `apply`. From then on, the state, which has applied a part
    of a record, is neither changed nor read nor compacted. Nothing of that record or batch is in
    the journal, so the next open works."""
    with state_on(disk, Fragile()) as state:
        put(state, "a", 1)
        poisoned = [["b", 2], ["c", "poison"], ["d", 3]]
        with pytest.raises(ValueError, match="apply's own"):
            state.update_batch(lambda m: poisoned) if batch else state.update(lambda m: poisoned[1])
        calls: list[Any] = [
            lambda: state.update(partial(setting, "d", 1)),
            lambda: state.update_batch(lambda m: [["d", 1]]),
            state.compact,
            lambda: state.read(len_of_rows),
            # A visible change of the record will never be durable.
            lambda: state.wait_durable(timeout_s=TIMEOUT_S),
            lambda: state.wait_durable(2),
            lambda: asyncio.run(state.durable(2)),
        ]
        for call in calls:
            with pytest.raises(
                FailedError, match=r"stopped at LSN .*apply's own.*reopen it.*fix apply"
            ) as failed:
                call()
            assert isinstance(failed.value.__cause__, ValueError)
        state.wait_durable(1, timeout_s=TIMEOUT_S)
        assert state.journal.last_lsn == 1
    assert names(disk, ".json") == [checkpoint_name(0)]
    with state_on(disk, Fragile()) as reopened_state:
        assert reopened_state.machine.content() == {"a": 1}
        assert put(reopened_state, "b", 2) == 2


def test_a_failed_journal_changes_no_state(disk: SimulatedDisk) -> None:
    """P2: After a failed sync, an update raises FailedError, and changes nothing, even if `decide`
    was called."""
    with suppress(FailedError), state_on(disk) as state:
        put(state, "a", 1)
        disk.fail("sync", errno.EIO)
        state.update(partial(setting, "a", 2))
        with pytest.raises(FailedError):
            state.wait_durable()
        for _ in range(3):
            with pytest.raises(FailedError):
                state.update(partial(setting, "a", 3))
            with pytest.raises(FailedError):
                state.update_batch(lambda m: [["a", 3]], urgent=True)
        assert state.machine.content() == {"a": 2}
        with pytest.raises(FailedError):
            state.compact()


def test_a_closed_state_refuses_calls(disk: SimulatedDisk) -> None:
    """Every update, compaction and wait for room of a closed state raises ClosedError."""
    with state_on(disk) as state:
        put(state, "a", 1)
    calls: list[Any] = [
        lambda: state.update(partial(setting, "a", 2)),
        lambda: state.update(lambda m: None),
        lambda: state.update_batch(lambda m: [["a", 2]], urgent=True),
        state.compact,
        state.wait_room,
        lambda: asyncio.run(state.room()),
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    assert state.machine.content() == {"a": 1}
    state.close()


# --- interrupts ---


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("given", [bare, pack])
@pytest.mark.parametrize("when", ["before", "during the append"])
def test_an_interrupt_between_apply_and_append_loses_no_record(
    disk: SimulatedDisk,
    batch: bool,
    given: Callable[[Any], Any],
    when: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P6: An interrupt after the record was applied reaches the caller once the record is in the
    log. It is appended once, and the state continues."""
    with state_on(disk) as state:
        put(state, "a", 1)
        name = "append_batch_admitted" if batch else "append_admitted"
        append, calls = getattr(state._buffer, name), itertools.count()

        def interrupted(packed: Any) -> None:
            is_first = next(calls) == 0
            if when == "during the append" or not is_first:
                append(packed)
            if is_first:
                raise KeyboardInterrupt

        monkeypatch.setattr(state._buffer, name, interrupted)
        records = [given(["b", 2]), given(["c", 3])]
        with pytest.raises(KeyboardInterrupt):
            state.update_batch(lambda m: records) if batch else state.update(lambda m: records[0])
        monkeypatch.undo()
        expected = {"a": 1, "b": 2, "c": 3} if batch else {"a": 1, "b": 2}
        assert state.machine.content() == expected
        assert state.machine.applied == [*range(1, state.journal.last_lsn + 1)]
        put(state, "d", 4)
        state.compact()
    with state_on(disk) as state:
        assert state.machine.content() == {**expected, "d": 4}


def test_an_interrupt_before_the_append_changes_nothing(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt in `decide` or in the check for room leaves log and memory unchanged."""

    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with state_on(disk) as state:
        put(state, "a", 1)
        with pytest.raises(KeyboardInterrupt):
            state.update(interrupted)
        monkeypatch.setattr(state._buffer, "admit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            state.update(partial(setting, "b", 2))
        monkeypatch.undo()
        assert (state.machine.content(), state.journal.last_lsn) == ({"a": 1}, 1)
        put(state, "b", 2)


def test_an_interrupt_in_apply_is_fail_stop(disk: SimulatedDisk) -> None:
    """P6: An interrupt in `apply` may leave a half-applied record, so the state stops and makes no
    checkpoint. A reopening restores it."""

    class InterruptedTable(Table):
        def apply(self, lsn: int, record: Any) -> None:
            super().apply(lsn, record)
            if lsn == 2 and armed:
                raise KeyboardInterrupt

    armed = True
    with state_on(disk, InterruptedTable()) as state:
        put(state, "a", 1)
        with pytest.raises(KeyboardInterrupt):
            state.update(partial(setting, "b", 2))
        with pytest.raises(FailedError, match="KeyboardInterrupt"):
            state.update(partial(setting, "c", 3))
        with pytest.raises(FailedError):
            state.compact()
    armed = False
    with state_on(disk) as reopened_state:
        assert reopened_state.machine.content() == {"a": 1}


def test_no_interrupt_separates_log_and_memory(disk: SimulatedDisk) -> None:
    """P6: After interrupts at any point of update, update_batch and read, the state agrees with the
    log or has stopped. A reopened state always agrees."""
    state = state_on(disk, segment_bytes=1 << 20)
    numbers = itertools.count()
    for _ in range(150):
        with suppress(Interrupted), interrupt_after(0.0007):
            while True:
                n = next(numbers)
                state.update(partial(setting, f"key {n % 10}", n))
                state.update_batch(lambda m, n=n: [["last", n], ["last", -n]])  # type: ignore[misc]
                state.read(len_of_rows)
        live = state.machine
        try:
            state.update(partial(setting, "after", next(numbers)))
        except FailedError:
            state.close()
            state = state_on(disk, segment_bytes=1 << 20)
        else:
            assert live.applied[-1] == state.journal.last_lsn
            assert live.applied == [*range(live.applied[0], state.journal.last_lsn + 1)]
    content = state.machine.content()
    state.close()
    with state_on(disk) as reopened_state:
        assert reopened_state.machine.content() == content
