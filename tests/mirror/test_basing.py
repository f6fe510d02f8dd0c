"""Segments that the mirror lacks: held as long as that is bounded, and then left out with a gap."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from journal import Checkpoint, CompactedError, Directory, Tables
from journal._engine import opening
from journal._mirror import basing
from journal._mirror.blobs import checkpoint_names
from journal._mirror.checkpointing import open_checkpoint
from journal._mirror.entry import BASE
from journal._mirror.holding import Holding
from journal._mirror.memory_store import MemoryStore
from journal._mirror.reading import read_log, true_checkpoints
from journal._mirror.restoring import Target, restore_into
from journal._recovery.recovery import Recovery
from tests.mirror.shipping_support import SMALL, TIMEOUT_S, Outages, segments_in
from tests.mirror.stores import SilentStore, mirror_of
from tests.mirror.test_checkpointing import count_in, counter_at


def test_a_gap_is_refused_by_name(tmp_path: Path) -> None:
    """If more than `lag_bytes_max` is not shipped, the mirror starts again from a checkpoint.
    Moments before and after the gap can be restored; one inside is refused, with its bounds."""
    store = Outages()
    counter = counter_at(tmp_path / "a", store, lag_bytes_max=0)
    counter.rounds(3)
    store.is_down = True
    counter.add(1)
    assert store.refused.wait(TIMEOUT_S)
    lsns = []
    for _ in range(4):
        counter.add(14)
        lsns.append(counter.compact())
    store.is_down = False
    counter.add(5)
    counter.ship()
    counter.rounds(1)
    counter.close()
    end = counter.journal.last_lsn
    first = lsns[-2]
    (base,) = [name for name in checkpoint_names(store.blob_names()) if name.nonce]
    assert base.lsn == first
    for lsn in (3, 40, first, first + 2, end - 3, end):
        report = restore_into(store, tmp_path / f"b{lsn}", Target(lsn=lsn))
        assert count_in(tmp_path / f"b{lsn}") == (report.lsn, report.lsn)
    restore_into(store, tmp_path / "c")
    assert count_in(tmp_path / "c") == (end, end)
    with pytest.raises(CompactedError, match=f" to {first - 1}, which were removed") as raised:
        restore_into(store, tmp_path / "d", Target(lsn=first - 1))
    assert raised.value.first_lsn == first
    (gap,) = re.findall(r"from LSN (\d+)", str(raised.value))
    assert restore_into(store, tmp_path / "e", Target(lsn=int(gap) - 1)).lsn == int(gap) - 1
    with pytest.raises(CompactedError, match="which were removed before they were shipped"):
        restore_into(store, tmp_path / "d", Target(lsn=int(gap)))
    assert [entry.kind for entry in read_log(store, start=())].count(BASE) > 0


def test_a_journal_that_was_compacted_gets_a_mirror(tmp_path: Path) -> None:
    """The first mirror of a journal whose log begins late holds its checkpoints and its log."""
    store = MemoryStore()
    before = counter_at(tmp_path / "a", MemoryStore(), lag_bytes_max=0)
    lsns = before.rounds(4)
    before.close()
    counter = counter_at(tmp_path / "a", store)
    counter.add(3)
    counter.ship()
    counter.close()
    report = restore_into(store, tmp_path / "b")
    assert (report.lsn, report.checkpoints) == (59, 2)
    assert count_in(tmp_path / "b") == (59, 59)
    with pytest.raises(CompactedError, match=f"lacks the records from LSN 1 to {lsns[-2] - 1}, "):
        restore_into(store, tmp_path / "c", Target(lsn=lsns[-2] - 1))


def test_a_base_without_its_entry_is_not_believed(tmp_path: Path) -> None:
    """The blob of a base whose writer was overtaken before it appended the entry is no part of the
    mirror, and is removed in time."""
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    counter.rounds(2)
    appender = counter.mirrored.shipper._linked.appender
    base = appender.next_base(1000, 1000)
    appender.put_base(base, 0, [])
    assert base.number not in [name.number for name in true_checkpoints(store, store.blob_names())]
    restore_into(store, tmp_path / "b")
    assert count_in(tmp_path / "b") == (28, 28)
    counter.rounds(2)
    counter.close()
    assert [name for name in checkpoint_names(store.blob_names()) if name.nonce] == []


def test_segments_that_are_not_shipped_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the mirror can't be reached, compaction keeps the segments that it lacks, also after a
    restart, so that the mirror misses no record."""
    store = Outages()
    counter = counter_at(tmp_path / "a", store)
    counter.rounds(2)
    store.is_down = True
    for _ in range(3):
        counter.add(14)
        counter.compact()
    kept = set(segments_in(tmp_path / "a"))
    counter.mirrored.close(limit_s=0.01)
    store.is_down = False
    held = {"holding": Holding(1 << 30)}
    monkeypatch.setattr(opening, "Recovery", lambda *a, **b: Recovery(*a, **{**b, **held}))
    counter = counter_at(tmp_path / "a", store)
    assert kept <= set(segments_in(tmp_path / "a"))
    counter.rounds(3)
    counter.close()
    assert [name for name in checkpoint_names(store.blob_names()) if name.nonce] == []
    for lsn in (28, 30, 50, 70):
        restore_into(store, tmp_path / f"b{lsn}", Target(lsn=lsn))
        assert count_in(tmp_path / f"b{lsn}") == (lsn, lsn)
    assert len(segments_in(tmp_path / "a")) < len(kept)  # once shipped, they go


def test_a_late_contact_finds_that_its_place_is_gone(tmp_path: Path) -> None:
    """If the mirror is silent at an open, and compactions remove the segment up to which it has the
    log, the journal goes on at the first contact: the mirror starts again from a checkpoint."""
    store = SilentStore()
    mirror = mirror_of(store, lag_bytes_max=1)
    with Tables.open(tmp_path / "a", options=SMALL, mirror=mirror) as tables:
        tables.table("t")["before"] = 1
        tables.wait_mirrored(timeout_s=TIMEOUT_S)
    store.fall_silent()
    with Tables.open(tmp_path / "a", options=SMALL, mirror=mirror) as tables:
        for number in range(3):
            tables.table("t")["silent"] = f"{number}{'x' * 4096}"
            tables.compact()
        store.answer()
        tables.table("t")["after"] = 1
        tables.wait_mirrored(timeout_s=TIMEOUT_S)
    restore_into(store, tmp_path / "b")
    assert set(Tables.read(tmp_path / "b").table("t")) == {"before", "silent", "after"}


def test_a_base_is_looked_for_again_if_files_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a compaction removes the checkpoints while a base is put together, that is no failure: it
    is tried again with the next ones."""
    before = counter_at(tmp_path / "a", MemoryStore(), lag_bytes_max=0)
    before.rounds(4)
    before.close()
    raced: list[int] = []

    def removed(directory: Directory, lsn: int) -> Checkpoint | None:
        if len(raced) < 4:
            raced.append(lsn)
            (tmp_path / "a" / f"{len(raced)}.seg").touch()  # the directory has changed
            return None
        return open_checkpoint(directory, lsn)

    monkeypatch.setattr(basing, "open_checkpoint", removed)
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store)
    counter.add(3)
    counter.ship()
    counter.close()
    assert len(raced) == 4
    restore_into(store, tmp_path / "b")
    assert count_in(tmp_path / "b") == (59, 59)


def test_an_upload_goes_on_after_an_outage_in_its_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the store is down between two entries of an upload, compactions may remove the rest of it,
    and leave only checkpoints that are newer. The mirror starts again from these."""
    store = Outages()
    monkeypatch.setattr(MemoryStore, "entry_bytes_max", 5000)
    counter = counter_at(tmp_path / "a", store, lag_bytes_max=0)
    counter.rounds(1)
    store.is_down = True
    counter.journal.wait_durable(counter.journal.append(b"x" * 12000))
    assert store.refused.wait(TIMEOUT_S)
    for _ in range(2):
        counter.add(14)
        counter.compact()
    store.is_down = False
    counter.add(5)
    counter.ship()
    counter.close()
    restore_into(store, tmp_path / "b")
    assert count_in(tmp_path / "b") == (counter.journal.last_lsn, counter.journal.last_lsn)
