"""Figures and events of a mirror: stats, metrics and observers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from journal import Journal, MirrorError
from journal._mirror.blobs import checkpoint_names
from journal._mirror.store import UnreachableError
from tests.installed import import_package
from tests.mirror.stores import TIMEOUT_S, SilentStore, opened, write
from tests.support import IdleObserver, until

prometheus = import_package("prometheus_client")


def figures(journal: Journal) -> tuple[int | None, float | None, int | None]:
    stats = journal.stats()
    return stats.mirrored_lsn, stats.mirror_lag_s, stats.mirror_lag_bytes


def test_the_lag_is_what_the_mirror_lacks(tmp_path: Path) -> None:
    """The lag grows while the mirror is silent, in seconds and bytes, and is 0 once it has
    everything."""
    store = SilentStore()
    with opened(tmp_path / "a", store) as journal:
        journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
        assert figures(journal) == (1, 0, 0)
        store.fall_silent()
        write(journal, 10)
        assert store.asked.wait(TIMEOUT_S)
        lsn, lag_s, lag_bytes = figures(journal)
        assert lsn == 1
        assert lag_s is not None
        assert 0 < lag_s < TIMEOUT_S
        assert lag_bytes is not None
        assert 1000 < lag_bytes < 2000
        until(lambda: (journal.stats().mirror_retries or 0) > 1, "it is reported")
        stats = journal.stats()
        assert stats.mirror_stalls == 1
        assert (stats.mirror_requests or 0) > 5
        journal.close(timeout_s=0.05)
    store.answer()
    with opened(tmp_path / "a", store) as journal:
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
        assert figures(journal) == (11, 0, 0)


def test_the_backlog_of_an_earlier_open_counts(tmp_path: Path) -> None:
    """Bytes that an earlier open has left count until they are shipped."""
    store = SilentStore()
    opened(tmp_path / "a", store).close()
    with Journal.open(tmp_path / "a", mirror=False) as journal:
        write(journal, 10)
    claim = max(store.numbers(0)) + 1
    held = threading.Event()

    def append(number: int, data: bytes) -> None:
        if number > claim:
            held.wait(TIMEOUT_S)
        SilentStore.append(store, number, data)

    store.append = append  # type: ignore[method-assign]
    with opened(tmp_path / "a", store) as journal:
        until(lambda: (figures(journal)[2] or 0) > 1000, "it is reported")
        held.set()
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
        until(lambda: figures(journal) == (10, 0, 0), "it is reported")


def test_a_base_makes_up_for_the_lag(tmp_path: Path) -> None:
    """What was removed before it was shipped does not count any more once the mirror has started
    again from a checkpoint."""
    store = SilentStore()
    with opened(tmp_path / "a", store, lag_bytes_max=0) as journal:
        journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
        store.fall_silent()
        write(journal)
        assert store.asked.wait(TIMEOUT_S)  # for this record alone
        journal.trim(write(journal, 99))
        store.answer()
        journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
        assert [name for name in checkpoint_names(store.blob_names()) if name.nonce]
        store.fall_silent()
        write(journal)
        assert store.asked.wait(TIMEOUT_S)
        lsn, _, lag_bytes = figures(journal)
        assert lsn == 102
        assert lag_bytes is not None
        assert 100 < lag_bytes < 300
        store.answer()


def test_a_journal_without_a_mirror_has_no_figures_of_one(tmp_path: Path) -> None:
    """Without a mirror, these fields are None."""
    with Journal.open(tmp_path / "a") as journal:
        stats = journal.stats()
        assert figures(journal) == (None, None, None)
        assert (stats.mirror_requests, stats.mirror_retries, stats.mirror_stalls) == (None,) * 3


def test_the_figures_are_exported(tmp_path: Path) -> None:
    """Prometheus gets the figures of a mirror, and none for a journal that has none."""
    from journal.prometheus import JournalCollector

    registry = prometheus.CollectorRegistry()
    collector = JournalCollector(registry)
    with opened(tmp_path / "a", SilentStore()) as journal, Journal.open(tmp_path / "b") as other:
        collector.watch("a", journal)
        collector.watch("b", other)
        journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
        text = prometheus.generate_latest(registry).decode()
    lines = [line for line in text.splitlines() if "mirror" in line and line[0] != "#"]
    assert 'journal_mirrored_lsn{journal="a"} 1.0' in lines
    assert 'journal_mirror_lag_seconds{journal="a"} 0.0' in lines
    assert 'journal_mirror_stalls_total{journal="a"} 0.0' in lines
    assert not [line for line in lines if 'journal="b"' in line]


class Seen:
    """An observer of a mirror."""

    def __init__(self) -> None:
        self.uploads: list[tuple[int, int]] = []
        self.errors: list[BaseException] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def mirrored(self, lsn: int, size_bytes: int, duration_ns: int) -> None:
        self.uploads.append((lsn, size_bytes))
        assert duration_ns > 0

    def mirror_stalled(self, error: BaseException) -> None:
        self.errors.append(error)
        raise RuntimeError("it is ignored")


def test_observers_get_uploads_and_stalls(tmp_path: Path) -> None:
    """An observer gets each upload with its LSN and size, and the error of the first that fails.
    One without these methods gets the other events."""
    store, seen = SilentStore(), Seen()
    with opened(tmp_path / "a", store) as journal:
        journal.observe(IdleObserver())
        journal.observe(seen)
        journal.wait_mirrored(write(journal), timeout_s=TIMEOUT_S)
        until(lambda: bool(seen.uploads), "it is reported")
        lsn, size = seen.uploads[0]
        assert lsn == 1
        assert size > 100
        store.fall_silent()
        write(journal)
        until(lambda: bool(seen.errors), "it is reported")
        assert isinstance(seen.errors[0], MirrorError)
        store.answer()
    assert str(UnreachableError("the store is silent")) in str(seen.errors[0])
