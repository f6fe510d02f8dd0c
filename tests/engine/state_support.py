"""Helpers that the tests of state share."""

from __future__ import annotations

from functools import partial
from typing import Any

from journal import (
    DurableState,
)
from journal.testing import SimulatedDisk
from tests.support import (
    PATH,
    TIMEOUT_S,
    Table,
    options,
)


def state_on(
    disk: SimulatedDisk, machine: Any = None, *, room_timeout_s: float = TIMEOUT_S, **others: Any
) -> DurableState[Any]:
    return DurableState.open(
        PATH,
        machine or Table(),
        options=options(**others),
        room_timeout_s=room_timeout_s,
        disk=disk,
    )


def setting(key: str, value: Any, _: Table) -> list[Any]:
    return [key, value]


def put(state: DurableState[Any], key: str, value: Any) -> int:
    lsn = state.update(partial(setting, key, value))
    assert lsn is not None
    state.wait_durable(lsn, timeout_s=TIMEOUT_S)
    return lsn


def len_of_rows(machine: Table) -> int:
    return len(machine.rows)
