"""Reprs: the kind, the path, the state and the LSNs, at any time, without a lock."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from journal import (
    Composite,
    DurableDict,
    FailedError,
    Histogram,
    JournalReader,
    LockStats,
    Tables,
)
from journal.testing import SimulatedDisk
from manager import SubAgentManager, read_fleet
from tests.engine.state_support import put, state_on
from tests.support import PATH, TIMEOUT_S, Table, open_on, run

FORK = """
import os, sys
from journal import Journal

with Journal.open(sys.argv[1]) as journal:
    if pid := os.fork():
        os.waitpid(pid, 0)
    else:
        print(repr(journal), flush=True)
        os._exit(0)
"""


def test_a_journal_shows_its_state(disk: SimulatedDisk) -> None:
    """The repr shows path, epoch, last and durable LSN, and whether it failed or is closed."""
    journal = open_on(disk)
    journal.wait_durable(journal.append("a"), timeout_s=TIMEOUT_S)
    journal.append("b")
    assert repr(journal) == f"<Journal {PATH} epoch=1 last_lsn=2 durable_lsn=1>"
    disk.fail("sync", errno.EIO)
    with pytest.raises(FailedError):
        journal.wait_durable(timeout_s=TIMEOUT_S)
    assert repr(journal) == f"<Journal {PATH} failed last_lsn=2 durable_lsn=1>"
    with suppress(FailedError):
        journal.close()
    assert repr(journal) == f"<Journal {PATH} closed last_lsn=2 durable_lsn=1>"


def test_a_state_shows_its_machine(disk: SimulatedDisk) -> None:
    """The repr also shows the machine's type, and whether `apply` stopped the state."""
    with state_on(disk) as state:
        put(state, "a", 1)
        text = f"{PATH} epoch=1 last_lsn=1 durable_lsn=1"
        assert repr(state) == f"<DurableState {text} machine=Table>"
        assert repr(state.journal) == f"<Journal {text}>"
        with pytest.raises(ValueError, match="unpack"):
            state.update(lambda _: ["no pair"])
        assert (
            repr(state) == f"<DurableState {PATH} stopped last_lsn=1 durable_lsn=1 machine=Table>"
        )
    assert repr(state) == f"<DurableState {PATH} closed last_lsn=1 durable_lsn=1 machine=Table>"


def test_tables_and_dicts_show_their_state(disk: SimulatedDisk) -> None:
    """The reprs of tables, a table, a dict and a view show what they are of."""
    with Tables.open(PATH, disk=disk) as app:
        app.table("users")[1] = "Ada"
        app.sync(timeout_s=TIMEOUT_S)
        assert repr(app) == f"<Tables {PATH} epoch=1 last_lsn=1 durable_lsn=1>"
        assert repr(app.table("users")) == "<Table 'users', 1 rows>"
    assert repr(app) == f"<Tables {PATH} closed last_lsn=1 durable_lsn=1>"
    assert repr(app.table("users")) == "<Table 'users', 1 rows>"
    assert repr(Tables.read(PATH, disk=disk)) == "<TablesView lsn=1 tables=1>"
    with DurableDict.open(PATH, disk=disk) as whole:
        assert repr(whole) == f"<DurableDict of 0 keys, {PATH} epoch=2 last_lsn=1 durable_lsn=1>"
    assert " closed " in repr(whole)
    assert repr(Composite(a=Table(), b=Table())) == "<Composite of a, b>"


def test_a_manager_and_readers_show_their_state(tmp_path: Path) -> None:
    """The reprs of a manager, a view of it and a reader show what they are of."""
    with SubAgentManager.open(tmp_path) as manager:
        agent = manager.spawn("work")
        manager.wait_durable(timeout_s=TIMEOUT_S)
        where = f"{tmp_path}/.subagents epoch=1 last_lsn={agent.lsn} durable_lsn={agent.lsn}"
        assert repr(manager) == f"<SubAgentManager {where} machine=Fleet boot_id={manager.boot_id}>"
    assert " closed " in repr(manager)
    lsn = agent.lsn
    assert repr(read_fleet(manager.path)) == f"<FleetView lsn={lsn} agents=1>"
    with JournalReader.open(manager.path) as reader:
        assert repr(reader) == f"<JournalReader {manager.path} open>"
    assert repr(reader) == f"<JournalReader {manager.path} closed>"


def test_a_repr_waits_for_no_lock(disk: SimulatedDisk, pool: ThreadPoolExecutor) -> None:
    """While `decide` runs under the lock, it and another thread get the repr."""
    with state_on(disk) as state, DurableDict.open("/other", disk=disk) as whole:
        seen: list[Any] = []

        def decide(_: Table) -> None:
            seen.extend((repr(state), pool.submit(repr, state).result(TIMEOUT_S)))

        state.update(decide)
        whole.update(1, lambda _: pool.submit(repr, whole).result(TIMEOUT_S))
    assert len(set(seen)) == 1


def test_a_fork_shows_that_it_is_one(tmp_path: Path) -> None:
    """The repr of the parent's journal shows the state "forked" in a forked child."""
    ended = run(FORK, tmp_path / "j")
    assert ended.stdout.splitlines() == [f"<Journal {tmp_path}/j forked last_lsn=0 durable_lsn=0>"]


def test_lock_stats_show_units() -> None:
    """The repr of LockStats shows durations with units."""
    hold = Histogram(2, 950, 27_380, 1_500_000, 2_000_000_000, 5.0)
    assert repr(LockStats(hold, Histogram())) == (
        "LockStats(hold: 2 times, p50 950 ns, p99 27.4 us, p99.9 1.5 ms, max 2.0 s; "
        "wait: 0 times, p50 0 ns, p99 0 ns, p99.9 0 ns, max 0 ns)"
    )
