"""Mirrored journals: what a user of `open(mirror=...)` gets, and what each fault does to him."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from journal import (
    DurableDict,
    DurableState,
    FencedError,
    Journal,
    Options,
    Tables,
)
from journal._log import settle
from journal._mirror.claiming import look
from journal._mirror.memory_store import MemoryStore
from journal._mirror.permit import Permit
from journal._mirror.restoring import restore_into
from journal._mirror.store import UnreachableError
from tests.mirror.shipping_support import segments_in
from tests.mirror.stores import (
    TIMEOUT_S,
    SilentStore,
    mirror_of,
    opened,
    records_in,
    write,
)
from tests.support import until


def test_a_journal_is_mirrored_byte_for_byte(tmp_path: Path) -> None:
    """After a close, the mirror has the journal's bytes, and a new machine opens it from there,
    with the same id and a higher epoch."""
    store = MemoryStore()
    with opened(tmp_path / "a", store) as journal:
        write(journal, 80)
        journal_id, epoch = journal.journal_id, journal.epoch
    assert look(store).is_released
    restore_into(store, tmp_path / "r")
    assert segments_in(tmp_path / "r") == segments_in(tmp_path / "a")
    with opened(tmp_path / "b", store) as journal:
        assert (journal.last_lsn, journal.journal_id) == (80, journal_id)
        assert journal.epoch > epoch
        write(journal)
    with opened(tmp_path / "a", store) as journal:
        assert journal.last_lsn == 81


def test_a_waiter_knows_that_its_record_is_past_the_machine(tmp_path: Path) -> None:
    """A wait for the mirror makes the shipper go at once. When it returns, a restore has the
    record; a wait for an older one returns at once."""
    store = MemoryStore()
    with opened(tmp_path / "a", store, interval_s=3600) as journal:
        for _ in range(3):
            lsn = journal.append("x")
            journal.wait_mirrored(lsn, timeout_s=TIMEOUT_S)
            assert journal.mirrored_lsn == lsn
            assert restore_into(store, tmp_path / f"r{lsn}").lsn == lsn
        journal.wait_mirrored(1, timeout_s=0)
        lsn = journal.append("x")
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
        assert journal.mirrored_lsn == lsn

        async def in_a_loop() -> None:
            await journal.mirrored(journal.append("x"))
            await journal.mirrored()

        asyncio.run(asyncio.wait_for(in_a_loop(), TIMEOUT_S))
        assert journal.mirrored_lsn == lsn + 1


def test_each_handle_takes_a_mirror(tmp_path: Path) -> None:
    """Tables, dicts and states are mirrored and restored like journals, and their waits include
    every change."""
    store = MemoryStore()
    with Tables.open(tmp_path / "t", mirror=mirror_of(store)) as tables:
        tables.table("jobs")[1] = "new"
        tables.wait_mirrored(timeout_s=TIMEOUT_S)
        asyncio.run(asyncio.wait_for(tables.mirrored(), TIMEOUT_S))
    with Tables.open(tmp_path / "u", mirror=mirror_of(store)) as tables:
        assert tables.table("jobs")[1] == "new"
    store = MemoryStore()
    with DurableDict.open(tmp_path / "d", mirror=mirror_of(store)) as kept:
        kept["a"] = 1
        kept.wait_mirrored(timeout_s=TIMEOUT_S)
        asyncio.run(asyncio.wait_for(kept.mirrored(), TIMEOUT_S))
    with DurableDict.open(tmp_path / "e", mirror=mirror_of(store)) as kept:
        assert dict(kept) == {"a": 1}
    store = MemoryStore()
    with DurableState.open(tmp_path / "s", Tables.machine(), mirror=mirror_of(store)) as state:
        state.wait_mirrored(timeout_s=TIMEOUT_S)
        asyncio.run(asyncio.wait_for(state.mirrored(), TIMEOUT_S))


def test_an_overtaken_writer_stops(tmp_path: Path) -> None:
    """A writer that another one has overtaken fails at its next upload, and its error says who has
    done it, and which records the mirror lacks."""
    store = MemoryStore()
    journal = opened(tmp_path / "a", store, interval_s=3600)
    journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
    with opened(tmp_path / "b", store, takeover=True) as other:
        write(other, 2)
        lsn = write(journal, 3)  # partitioned: it does not know yet
        with pytest.raises(
            FencedError, match=r"lacks this writer's records from LSN 2 to 4"
        ) as stop:
            journal.wait_mirrored(lsn, timeout_s=TIMEOUT_S)
        error = stop.value
        assert (error.mirrored_lsn, error.last_lsn, error.epoch) == (1, 4, other.epoch)
        assert error.host
        assert error.pid
        assert error.since
        with pytest.raises(FencedError):
            journal.append("x")
        with pytest.raises(FencedError):
            journal.close()
        assert journal.closed
    assert records_in(tmp_path / "a") == 4


def test_commits_go_on_while_the_mirror_is_silent(tmp_path: Path) -> None:
    """With ack="local", a silent mirror delays no commit, and a wait for it times out. When it
    answers, it catches up."""
    store = SilentStore()
    with opened(tmp_path / "a", store) as journal:
        journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
        store.fall_silent()
        lsn = write(journal, 50)
        assert store.asked.wait(TIMEOUT_S)
        with pytest.raises(TimeoutError, match="LSN 51 was not mirrored"):
            journal.wait_mirrored(lsn, timeout_s=0.01)
        assert journal.durable_lsn == lsn
        store.answer()
        journal.wait_mirrored(lsn, timeout_s=TIMEOUT_S)
    assert restore_into(store, tmp_path / "r").lsn == lsn


def test_only_threads_of_the_mirror_make_requests(tmp_path: Path) -> None:
    """Once a journal is open, no request runs in a thread that commits, waits or closes."""
    store = SilentStore()
    journal = opened(tmp_path / "a", store)
    store.threads.clear()
    journal.wait_mirrored(write(journal, 100), timeout_s=TIMEOUT_S)
    journal.close()
    assert store.threads - {"journal-mirror-upkeep"} == {"journal-mirror"}


@pytest.mark.parametrize("hangs", [False, True], ids=["fails", "hangs"])
def test_a_close_gives_up_on_a_silent_mirror(
    hangs: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A close with a time limit ships for at most that long. It reports the LSN that the mirror
    has, and the next open ships the rest without a takeover."""
    store = SilentStore()
    journal = opened(tmp_path / "a", store)
    journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
    store.fall_silent(hangs=hangs)
    write(journal, 2)
    assert store.asked.wait(TIMEOUT_S)
    assert journal._core.mirroring is not None
    shipper = journal._core.mirroring._shipper
    until(lambda: hangs or shipper.stalled_by, "the first error")
    journal.close(timeout_s=0.2)
    assert journal.closed
    assert settle(TIMEOUT_S)
    assert "what follows LSN 1" in caplog.text
    assert ("a request has taken longer than 0." in caplog.text) == hangs
    store.answer()
    with opened(tmp_path / "a", store) as journal:
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
        assert journal.mirrored_lsn == 3
    assert restore_into(store, tmp_path / "r").lsn == 3


def test_a_close_without_contact_states_no_lsn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A journal that has never reached its mirror does not know which LSN the mirror has. Its close
    says why, even if it gives up during a later request."""
    store = SilentStore()
    with opened(tmp_path / "a", store) as journal:
        write(journal, 3)
    store.fall_silent()
    journal = opened(tmp_path / "a", store)
    assert store.asked.wait(TIMEOUT_S)
    shipper = journal._core.mirroring and journal._core.mirroring._shipper
    assert shipper
    until(lambda: shipper.stalled_by, "the first error")
    store.fall_silent(hangs=True)
    assert store.asked.wait(TIMEOUT_S)
    journal.close(timeout_s=0.05)
    assert settle(TIMEOUT_S)
    (line,) = [line for line in caplog.messages if "not everything" in line]
    assert line.endswith(": the store is silent; the next open ships what the mirror lacks")


def test_a_dropped_journal_ships_the_rest(tmp_path: Path) -> None:
    """A journal that is garbage-collected without a close releases its mirror, and then its
    lock."""
    store = MemoryStore()
    journal = opened(tmp_path / "a", store, interval_s=3600)
    lsn = journal.append("x")
    core = journal._core
    kept = [journal]
    del journal
    with pytest.warns(ResourceWarning, match="was never closed"):
        kept.clear()
    assert core.mirroring is not None
    assert core.mirroring._shipper.join(TIMEOUT_S)
    assert look(store).is_released
    assert restore_into(store, tmp_path / "r").lsn == lsn


def test_a_closed_journals_shipper_ends(tmp_path: Path) -> None:
    """A shipper that was inside a request when its journal was closed ships nothing after it."""
    store = SilentStore()
    store.entry_bytes_max = 3000
    journal = opened(tmp_path / "a", store)
    journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
    store.fall_silent(hangs=True)
    write(journal, 100)
    assert store.asked.wait(TIMEOUT_S)
    journal.close(timeout_s=0.05)
    shipper = journal._core.mirroring and journal._core.mirroring._shipper
    assert shipper
    store.answer()
    assert shipper.join(TIMEOUT_S)
    assert journal.mirrored_lsn < 50
    assert not look(store).is_released


def test_a_closed_journals_shipper_changes_no_file(tmp_path: Path) -> None:
    """A shipper that was attaching its mirror when its journal was closed leaves the directory,
    which may have another writer by then, and the mirror as they are."""
    store = SilentStore()
    with opened(tmp_path / "a", store) as journal:
        journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
    store.fall_silent()
    journal = opened(tmp_path / "a", store)
    store.fall_silent(hangs=True)
    assert store.asked.wait(TIMEOUT_S)
    journal.close(timeout_s=0.05)
    shipper = journal._core.mirroring and journal._core.mirroring._shipper
    assert shipper
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    entries = store.reached_by_others().numbers(0)
    store.answer()
    assert shipper.join(TIMEOUT_S)
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    assert store.numbers(0) == entries


def test_a_revoked_permit_is_used_no_more() -> None:
    """A revocation waits for the use under way, and each later one is refused."""
    permit, used, ended = Permit(), threading.Event(), threading.Event()

    def use() -> None:
        with permit.used():
            used.set()
            assert ended.wait(TIMEOUT_S)

    thread = threading.Thread(target=use)
    thread.start()
    assert used.wait(TIMEOUT_S)
    permit.revoke(0.01)  # it does not wait for longer
    revoking = threading.Thread(target=permit.revoke, args=(TIMEOUT_S,))
    revoking.start()
    revoking.join(0.05)
    assert revoking.is_alive()
    ended.set()
    revoking.join(TIMEOUT_S)
    assert not revoking.is_alive()
    with pytest.raises(UnreachableError, match="closed"), permit.used():
        raise AssertionError
    thread.join()


def test_unsynced_bytes_are_synced_for_the_mirror(tmp_path: Path) -> None:
    """With durability="os", the shipper syncs what it ships. ack="remote" is refused."""
    store = MemoryStore()
    options = Options(durability="os")
    with Journal.open(tmp_path / "a", options=options, mirror=mirror_of(store)) as journal:
        lsn = write(journal)
        journal.wait_mirrored(lsn, timeout_s=TIMEOUT_S)
        assert journal.stats().synced_lsn == lsn
    with pytest.raises(ValueError, match='durability="os"'):
        Journal.open(tmp_path / "b", options=options, mirror=mirror_of(store, ack="remote"))
    assert not (tmp_path / "b").exists()
