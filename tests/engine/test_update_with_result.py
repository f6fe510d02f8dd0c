"""`update_with_result`: what `decide` chose comes back with the LSN."""

from __future__ import annotations

from typing import Any

import pytest

from journal import BufferFullError, InterruptedCallError, RecordError
from journal.testing import SimulatedDisk
from tests.engine.state_support import put, state_on
from tests.support import TIMEOUT_S, Table, reopened


class Unshowable(list[Any]):
    """A list whose repr fails, or never ends."""

    def __repr__(self) -> str:
        raise ZeroDivisionError


def take_first(machine: Table) -> tuple[list[Any] | None, str]:
    """Remove the first row. Return its key."""
    key = next(iter(machine.rows), None)
    return (None, "nothing") if key is None else ([key, None], key)


def test_the_result_comes_with_the_lsn(disk: SimulatedDisk) -> None:
    """The call returns the LSN of the applied record and the result of `decide`, and an LSN of None
    if there is no record."""
    with state_on(disk) as state:
        put(state, "a", 1)
        lsn, key = state.update_with_result(take_first)
        assert (lsn, key) == (2, "a")
        assert state.machine.content() == {}
        assert state.update_with_result(take_first) == (None, "nothing")
        state.wait_durable(lsn, timeout_s=TIMEOUT_S)
        assert state.update_with_result(lambda _: (["b", 1], None), urgent=True) == (3, None)
    assert reopened(disk) == [["a", 1], ["a", None], ["b", 1]]


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        (None, "NoneType"),
        (["a", 1], "list"),
        (("a",), "tuple of 1"),
        (("a", Unshowable(), 2), "tuple of 3"),
        ("ab", "str"),
        (Unshowable(), "Unshowable"),
    ],
)
def test_anything_but_a_pair_is_refused(disk: SimulatedDisk, wrong: Any, shown: str) -> None:
    """TypeError names the type of what `decide` returned, also of a record alone. It calls no code
    of that value, because it is raised under the lock. Nothing has changed."""
    with state_on(disk) as state:
        with pytest.raises(TypeError, match=rf"returned a {shown}, not a tuple \(record, result\)"):
            state.update_with_result(lambda _: wrong)
        assert state.journal.last_lsn == 0
        assert put(state, "a", 1) == 1


def test_the_rules_of_update_hold(disk: SimulatedDisk) -> None:
    """Errors of `decide`, of its record and of the buffer are raised, and nothing has changed."""
    with state_on(disk, buffer_bytes=64, room_timeout_s=0.0) as state:

        def fail(_: Table) -> Any:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            state.update_with_result(fail)
        with pytest.raises(RecordError):
            state.update_with_result(lambda _: ({1}, "result"))
        with pytest.raises(BufferFullError):
            state.update_with_result(lambda _: (["a", "x" * 100], "result"))
        with pytest.raises(InterruptedCallError):
            state.update_with_result(lambda _: (None, state.update(lambda _: None)))
        assert state.journal.last_lsn == 0
