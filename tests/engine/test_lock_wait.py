"""The lock on a journal's directory: the wait for it, and an error that names its holder."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from journal import DurableDict, DurableState, Journal, LockedError, Tables
from journal.testing import SimulatedDisk
from manager import SubAgentManager
from tests.support import (
    PATH,
    TIMEOUT_S,
    Interrupted,
    Table,
    child,
    interrupt_after,
    line_of,
    open_on,
)

OPENERS: dict[str, Callable[..., Any]] = {
    "journal": Journal.open,
    "state": lambda path, **more: DurableState.open(path, Table(), **more),
    "tables": Tables.open,
    "dict": DurableDict.open,
    "manager": lambda path, **more: SubAgentManager.open("/", state_dir=path, **more),
}
OPEN_UNTIL_EOF = """
import sys
from journal import Journal

with Journal.open(sys.argv[1]):
    print("open", flush=True)
    sys.stdin.read()
"""


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("opener", OPENERS)
def test_an_open_waits_until_the_lock_is_free(disk: SimulatedDisk, opener: str) -> None:
    """An open with `lock_timeout_s` waits for the other writer. It raises LockedError at the end
    of that time, and without it at once."""
    other = open_on(disk)
    opened = OPENERS[opener]
    for limit in ({}, {"lock_timeout_s": 0}, {"lock_timeout_s": 0.03}):
        began_s = time.monotonic()
        with pytest.raises(LockedError):
            opened(PATH, disk=disk, **limit)
        assert time.monotonic() - began_s >= limit.get("lock_timeout_s", 0)
    for patient in (TIMEOUT_S, math.inf, None):
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(opened, PATH, disk=disk, lock_timeout_s=patient)
            time.sleep(0.02)
            assert not waiting.done()
            other.close()
            with waiting.result(TIMEOUT_S):
                pass
        other = open_on(disk)
    other.close()


@pytest.mark.parametrize("wrong", [-1, math.nan, True, "1"])
def test_wrong_limits_are_refused(disk: SimulatedDisk, wrong: Any) -> None:
    """A `lock_timeout_s` that is no number of seconds raises an error, and nothing is opened."""
    for opened in OPENERS.values():
        with pytest.raises((TypeError, ValueError), match="lock_timeout_s must be a number"):
            opened(PATH, disk=disk, lock_timeout_s=wrong)
    assert disk.operations == []


# An interrupt right after `open` leaves the file to the interpreter, which closes it.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_an_interrupt_ends_the_wait(tmp_path: Path) -> None:
    """A signal handler's exception ends the wait, and neither a lock nor a descriptor stays."""
    with Journal.open(tmp_path / "j") as journal:
        before = descriptors()
        with pytest.raises(Interrupted), interrupt_after(0.05):
            Journal.open(tmp_path / "j", lock_timeout_s=None)
        assert descriptors() == before
        journal.wait_durable(journal.append("a"), timeout_s=TIMEOUT_S)
    Journal.open(tmp_path / "j").close()


def test_many_waiters_get_the_lock_one_after_the_other(tmp_path: Path) -> None:
    """Threads that wait for the lock at once all get it, and no two have it at the same time."""
    inside = threading.Lock()

    def append(number: int) -> None:
        with Journal.open(tmp_path / "j", lock_timeout_s=TIMEOUT_S) as journal:
            assert inside.acquire(blocking=False)
            journal.append(number)
            inside.release()

    with ThreadPoolExecutor(5) as pool:
        list(pool.map(append, range(5)))
    with Journal.open(tmp_path / "j") as journal:
        assert sorted(entry.record for entry in journal.replay(0)) == [*range(5)]


def test_the_error_knows_its_own_process(tmp_path: Path) -> None:
    """If this process has the journal open, LockedError says so in its message and a field."""
    with Journal.open(tmp_path / "j"), pytest.raises(LockedError) as caught:
        Tables.open(tmp_path / "j")
    assert caught.value.is_this_process
    assert caught.value.pid == os.getpid()
    assert f"{tmp_path}/j: this process has it open already; use the object" in str(caught.value)


def test_the_error_knows_another_process(tmp_path: Path) -> None:
    """If another process has the journal open, LockedError names it, and an open can wait for its
    end."""
    with child(OPEN_UNTIL_EOF, tmp_path / "j") as process:
        assert line_of(process) == "open"
        with pytest.raises(LockedError, match=f"locked by process {process.pid}; stop") as caught:
            Journal.open(tmp_path / "j", lock_timeout_s=0.01)
        assert not caught.value.is_this_process
        assert process.stdin is not None
        process.stdin.close()
        Journal.open(tmp_path / "j", lock_timeout_s=TIMEOUT_S).close()
