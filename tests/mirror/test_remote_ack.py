"""ack="remote": a record counts as durable when the mirror has it, and not before."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from journal import (
    BufferFullError,
    ClosedError,
    FencedError,
    Journal,
    Options,
    Tables,
)
from journal._engine import mirroring
from journal._mirror import attaching, shipper
from journal._mirror.memory_store import MemoryStore
from journal._mirror.reading import read_entry
from journal._mirror.restoring import restore_into
from journal._mirror.store import UnreachableError
from manager import SubAgentManager
from tests.mirror.stores import TIMEOUT_S, SilentStore, crash, mirror_of, opened, write
from tests.support import IdleObserver, Interrupted, interrupt_after, until

SOON_S = 0.02


def remote(path: Path, store: MemoryStore, *, takeover: bool = False) -> Journal:
    return opened(path, store, ack="remote", takeover=takeover)


def test_an_acknowledged_record_is_in_the_mirror(tmp_path: Path) -> None:
    """When a wait returns, a restore has the record. The log is shipped byte for byte."""
    store = MemoryStore()
    with remote(tmp_path / "a", store) as journal:
        for n in range(1, 4):
            assert write(journal) == journal.durable_lsn == journal.mirrored_lsn == n
            assert restore_into(store, tmp_path / f"r{n}").lsn == n


def test_nothing_is_acknowledged_while_the_mirror_is_silent(
    tmp_path: Path, store: SilentStore
) -> None:
    """While the mirror is silent, records are synced here and count as durable nowhere, and waits
    time out. When it answers, they are durable."""
    with remote(tmp_path / "a", store) as journal:
        write(journal)
        store.fall_silent(hangs=True)
        lsn = journal.append("x")
        with pytest.raises(TimeoutError):
            journal.wait_durable(lsn, timeout_s=SOON_S)

        async def in_a_loop() -> None:
            await asyncio.wait_for(journal.durable(lsn), SOON_S)

        with pytest.raises(TimeoutError):
            asyncio.run(in_a_loop())
        assert store.asked.wait(TIMEOUT_S)
        stats = journal.stats()
        assert (stats.synced_lsn, stats.durable_lsn, journal.durable_lsn) == (2, 1, 1)
        assert [entry.lsn for entry in journal.replay()] == [1]
        store.answer()
        journal.wait_durable(lsn, timeout_s=TIMEOUT_S)
        assert journal.durable_lsn == 2


def test_many_waiters_share_an_upload(tmp_path: Path, store: SilentStore) -> None:
    """Threads and coroutines that wait together are released together, and each record is in the
    mirror."""
    with remote(tmp_path / "a", store) as journal, ThreadPoolExecutor(20) as pool:
        before = len(store.numbers(0))
        list(pool.map(lambda _: write(journal, 10), range(20)))

        async def in_a_loop() -> None:
            await asyncio.gather(*(journal.durable(journal.append("x")) for _ in range(200)))

        asyncio.run(asyncio.wait_for(in_a_loop(), TIMEOUT_S))
        assert journal.durable_lsn == journal.last_lsn == 400
        assert len(store.numbers(0)) - before < 200
        own = {"journal-mirror", "journal-mirror-upkeep"}
        assert store.threads <= {*own, threading.current_thread().name}
    assert restore_into(store, tmp_path / "r").lsn == 400


def test_recovered_records_are_durable_once_the_mirror_has_them(
    tmp_path: Path, store: SilentStore
) -> None:
    """Records that a crash left on this disk, and not in the mirror, are not durable at the open,
    and can be waited for."""
    with remote(tmp_path / "a", store) as journal:
        write(journal, 3)
    with Journal.open(tmp_path / "a", mirror=False) as journal:
        write(journal, 2)
    claim = max(store.numbers(0)) + 1

    def append(number: int, data: bytes) -> None:
        if number > claim:
            store.answers.wait(TIMEOUT_S)
        MemoryStore.append(store, number, data)

    store.append = append  # type: ignore[method-assign]
    store._request = lambda: None  # type: ignore[method-assign]
    store.answers.clear()
    with remote(tmp_path / "a", store) as journal:
        assert (journal.durable_lsn, journal.last_lsn) == (3, 5)
        with pytest.raises(TimeoutError):
            journal.wait_durable(5, timeout_s=SOON_S)
        store.answers.set()
        journal.wait_durable(5, timeout_s=TIMEOUT_S)
        assert journal.durable_lsn == 5


def is_synced(journal: Journal, lsn: int) -> bool:
    return journal.stats().synced_lsn >= lsn


def append_until_refused(journal: Journal) -> None:
    for _ in range(20):  # of twice the buffer; each is on this disk before the next one
        lsn = journal.append("x" * 1000)
        journal.request_commit(lsn)
        until(partial(is_synced, journal, lsn), "the record is on this disk")


def test_a_silent_mirror_is_like_a_full_disk(tmp_path: Path, store: SilentStore) -> None:
    """When the log buffer is full of records that the mirror lacks, appends are refused, and there
    is room again once it has them."""
    options = Options(buffer_bytes=10_000)
    mirror = mirror_of(store, ack="remote")
    with Journal.open(tmp_path / "a", options=options, mirror=mirror) as journal:
        store.fall_silent(hangs=True)
        with pytest.raises(BufferFullError):
            append_until_refused(journal)
        assert not journal.has_room
        with pytest.raises(TimeoutError):
            journal.wait_room(timeout_s=SOON_S)
        store.answer()
        journal.wait_room(timeout_s=TIMEOUT_S)
        journal.wait_durable(timeout_s=TIMEOUT_S)
        assert journal.stats().buffered_bytes == 0


def test_a_close_reports_what_the_mirror_lacks(tmp_path: Path, store: SilentStore) -> None:
    """A close of a silent mirror raises TimeoutError after its limit, and releases the waiters with
    an error. The lock is held until another close succeeds."""
    journal = remote(tmp_path / "a", store)
    write(journal)
    store.fall_silent(hangs=True)
    lsn = journal.append("x")
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(journal.wait_durable, lsn)
        try:
            with pytest.raises(TimeoutError, match="call close"):
                journal.close(timeout_s=0.1)
            with pytest.raises(ClosedError):
                waiter.result(TIMEOUT_S / 4)
            with pytest.raises(ClosedError):
                journal.wait_durable(lsn)
            assert not journal.closed
        finally:
            store.answer()
    journal.close(timeout_s=TIMEOUT_S)
    assert journal.durable_lsn == lsn
    assert restore_into(store, tmp_path / "r").lsn == lsn


def test_a_close_without_a_limit_does_not_hang(
    tmp_path: Path, store: SilentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A close without a time limit gives up once the mirror has been silent for 10 s."""
    monkeypatch.setattr(mirroring, "CLOSE_LIMIT_S", 0.05)
    journal = remote(tmp_path / "a", store)
    store.fall_silent(hangs=True)
    journal.append("x")
    with pytest.raises(TimeoutError, match="while its mirror can't be reached"):
        journal.close()
    store.answer()
    monkeypatch.undo()
    journal.close()


def test_compactions_do_not_wait_for_the_mirror(tmp_path: Path, store: SilentStore) -> None:
    """A compaction of a state succeeds while the mirror is silent."""
    with Tables.open(tmp_path / "a", mirror=mirror_of(store, ack="remote")) as tables:
        store.fall_silent(hangs=True)
        tables.table("t")[1] = "x"
        compaction = threading.Thread(target=tables.compact, daemon=True)
        compaction.start()
        try:
            compaction.join(TIMEOUT_S / 4)
            assert not compaction.is_alive()
            assert tables.stats().durable_lsn == 0
        finally:
            store.answer()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_an_interrupt_ends_a_wait(tmp_path: Path, store: SilentStore) -> None:
    """Ctrl-C ends a wait for a silent mirror at once, with one waiter and with several, and loses
    nothing."""
    with remote(tmp_path / "a", store) as journal:
        store.fall_silent(hangs=True)
        for timeout_s in (None, TIMEOUT_S):
            lsn = journal.append("x")
            with pytest.raises(Interrupted), interrupt_after(SOON_S):
                journal.wait_durable(lsn, timeout_s=timeout_s)
        store.answer()
        journal.wait_durable(timeout_s=TIMEOUT_S)
    assert restore_into(store, tmp_path / "r").lsn == 2


def test_an_overtaken_writer_acknowledges_nothing(tmp_path: Path, store: SilentStore) -> None:
    """A writer that was overtaken releases its waiters with FencedError, and acknowledges nothing
    that the mirror lacks."""
    journal = remote(tmp_path / "a", store)
    write(journal)
    store.fall_silent(hangs=True)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            write(journal)
        except FencedError as error:
            errors.append(error)

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    until(lambda: journal.stats().synced_lsn == 2, "the record is on this disk")
    assert store.asked.wait(TIMEOUT_S)
    with remote(tmp_path / "b", store.reached_by_others(), takeover=True) as other:
        write(other)
        store.answer()
        waiter.join(TIMEOUT_S / 4)
        assert len(errors) == 1
        assert journal.durable_lsn == 1
        with pytest.raises(FencedError):
            journal.close()


class FlakyStore(MemoryStore):
    """A store that loses every fourth request or its answer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)

    def append(self, number: int, data: bytes) -> None:
        fate = self._random.randrange(8)
        if fate == 0:
            raise UnreachableError("the request is lost")
        super().append(number, data)
        if fate == 1:
            raise UnreachableError("the answer is lost")


@pytest.mark.parametrize("seed", range(3))
def test_no_lost_answer_loses_a_record(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While requests and answers are lost, each record is in the mirror when it is acknowledged,
    once."""
    monkeypatch.setattr(shipper, "_RETRY_S_MIN", 0.001)
    monkeypatch.setattr(attaching, "_RETRY_S", 0.001)
    store, acknowledged = FlakyStore(seed), list[int]()

    def work(_: int) -> None:
        for _ in range(10):
            lsn = write(journal)
            newest = read_entry(store, max(store.numbers(0)))
            assert newest.last_lsn >= lsn
            acknowledged.append(lsn)

    journal = remote(tmp_path / "a", store)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    lsn = journal.durable_lsn
    crash(journal)
    assert sorted(acknowledged) == [*range(1, 81)]
    assert restore_into(store, tmp_path / "r").lsn == lsn == 80


class Seen(IdleObserver):
    """An observer that counts the records of its commits."""

    def __init__(self, durable_lsn: Callable[[], int]) -> None:
        self.records = 0
        self._durable_lsn = durable_lsn
        self.is_early = False
        self.seen = threading.Event()

    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
        self.records += records
        self.is_early |= self.records > self._durable_lsn()
        self.seen.set()


def test_watchers_follow_the_mirror(tmp_path: Path, store: SilentStore) -> None:
    """Observers, changes of tables and ends of agents are reported when the mirror has them."""
    with Tables.open(tmp_path / "a", mirror=mirror_of(store, ack="remote")) as tables:
        observer = Seen(lambda: tables.journal.durable_lsn)
        tables.journal.observe(observer)
        changes = tables.changes(0)
        store.fall_silent(hangs=True)
        tables.table("t")[1] = "x"
        with pytest.raises(TimeoutError):
            tables.sync(timeout_s=SOON_S)
        assert not observer.seen.is_set()
        with ThreadPoolExecutor(1) as pool:
            change = pool.submit(next, changes)
            assert store.asked.wait(TIMEOUT_S)
            assert not change.done()
            store.answer()
            assert change.result(TIMEOUT_S).key == 1
        assert observer.seen.wait(TIMEOUT_S)
        tables.table("t")[2] = "x"
    assert (observer.records, observer.is_early) == (2, False)


def test_a_manager_waits_for_the_mirror(tmp_path: Path, store: SilentStore) -> None:
    """The end of an agent is reported when the mirror has it."""
    kind: Any = mirror_of(store, ack="remote")
    with SubAgentManager.open(tmp_path, mirror=kind) as manager:
        agent = manager.spawn("task")
        manager.wait_durable(timeout_s=TIMEOUT_S)
        store.fall_silent(hangs=True)
        manager.cancel(agent.agent_id)
        with pytest.raises(TimeoutError):
            manager.wait_ended(agent.agent_id, timeout_s=SOON_S)
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(manager.wait_ended, agent.agent_id)
            store.answer()
            assert ended.result(TIMEOUT_S).status == "cancelled"
        manager.wait_mirrored(timeout_s=TIMEOUT_S)
        asyncio.run(asyncio.wait_for(manager.mirrored(), TIMEOUT_S))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks with threads")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_does_not_wait_for_the_mirror(tmp_path: Path, store: SilentStore) -> None:
    """A child that is forked while the mirror is silent gets ClosedError from every wait."""
    with remote(tmp_path / "a", store) as journal:
        store.fall_silent(hangs=True)
        lsn = journal.append("x")
        with pytest.raises(TimeoutError):
            journal.wait_durable(lsn, timeout_s=SOON_S)
        if (pid := os.fork()) == 0:
            signal.alarm(5)
            try:
                journal.wait_durable(lsn)
            except ClosedError:
                os._exit(0)
            os._exit(1)
        assert os.waitpid(pid, 0)[1] == 0
        store.answer()
        journal.wait_durable(lsn, timeout_s=TIMEOUT_S)
