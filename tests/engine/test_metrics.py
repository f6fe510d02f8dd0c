"""Figures: what `stats()` says, how exact the histograms are, and who is told of what."""

from __future__ import annotations

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import Histogram, Journal, Observer
from journal._commit import commit_figures
from journal._log import settle
from journal._recorder import Recorder
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import raising
from tests.support import PATH, TIMEOUT_S, frozen, names, open_on, put, put_lines, until


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


def recorded(values: list[int]) -> Histogram:
    recorder = Recorder()
    for value in values:
        recorder.add(value)
    return recorder.histogram()


def test_no_commit_waits_for_a_reader_of_figures(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: a signal handler on top of `stats()` may wait for a commit of another thread."""
    monkeypatch.setattr(commit_figures, "_FOLD_EVERY", 1)
    with open_on(disk) as journal:
        with journal._core.committer.figures.sync_ns._lock, ThreadPoolExecutor() as pool:
            pool.submit(put, journal, 1, 2).result(TIMEOUT_S)
        assert journal.stats().sync_ns.count == 2


# --- histograms ---


def test_an_empty_histogram_is_all_zeros() -> None:
    """Nothing recorded: no division by zero, no percentile of nothing."""
    assert recorded([]) == Histogram(0, 0, 0, 0, 0, 0.0)


@given(values=st.lists(st.integers(0, 10**13), min_size=1, max_size=300))
def test_percentiles_are_at_most_a_twentieth_over(values: list[int]) -> None:
    """`count`, `max` and `mean` are exact; a percentile is the exact one or up to 5 % more, and
    never over the maximum."""
    histogram = recorded(values)
    assert (histogram.count, histogram.max) == (len(values), max(values))
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    ordered = sorted(values)
    for per_mille, found in ((500, histogram.p50), (990, histogram.p99), (999, histogram.p99_9)):
        exact = ordered[-(-len(values) * per_mille // 1000) - 1]
        assert exact <= found <= max(exact * 1.05, exact + 1)
        assert found <= histogram.max


@pytest.mark.parametrize("value", [0, 1, 2, 19, 20, 21, 2**31, 2**62])
def test_a_single_value_is_every_percentile(value: int) -> None:
    """All figures of a single value are that value."""
    assert recorded([value]) == Histogram(1, value, value, value, value, float(value))


def test_values_from_many_threads_all_count() -> None:
    """No value is lost between those who add, fold and look at once."""
    recorder = Recorder()
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            recorder.histogram()
            recorder.fold()

    with ThreadPoolExecutor(6) as pool:
        looking = pool.submit(look)
        adding = [
            pool.submit(lambda: [recorder.add(value) for value in range(5000)]) for _ in range(4)
        ]
        for each in adding:
            each.result(TIMEOUT_S)
        stop.set()
        looking.result(TIMEOUT_S)
    histogram = recorder.histogram()
    assert (histogram.count, histogram.max) == (20_000, 4999)
    assert histogram.mean == pytest.approx(2499.5)


def test_a_value_that_comes_amid_a_fold_counts_in_the_next() -> None:
    """What is added between taking the values and forgetting them is not among the forgotten."""

    class Busy(list[int]):
        def __getitem__(self, index: Any) -> Any:
            found = super().__getitem__(index)
            self.append(7)
            return found

    recorder = Recorder()
    recorder.pending = Busy([1, 2, 3])
    recorder.fold()
    assert recorder.pending == [7]
    recorder.pending = [*recorder.pending]
    assert recorder.histogram().count == 4


def test_folded_values_take_no_memory() -> None:
    """P8: a recorder holds buckets, not values, once they are folded."""
    recorder = Recorder()
    tracemalloc.start()
    for value in range(20_000):
        recorder.add(value * 1000)
        recorder.fold()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 600_000
    assert recorder.histogram().count == 20_000


# --- stats ---


def test_a_fresh_journal_has_done_nothing(disk: SimulatedDisk) -> None:
    """All counts begin at 0 with each opening."""
    with open_on(disk) as journal:
        put(journal, 1, 2, 3)
    with open_on(disk) as journal:
        stats = journal.stats()
    assert (stats.commits, stats.records, stats.bytes, stats.syncs) == (0, 0, 0, 0)
    assert (stats.buffered_bytes, stats.backlog_records, stats.stalls) == (0, 0, 0)
    assert (stats.compactions, stats.compaction_ns) == (0, 0)
    assert (stats.compaction_failures, stats.last_compaction_error) == (0, "")
    assert (stats.durable_lsn, stats.last_lsn, stats.segments) == (3, 3, 1)
    assert stats.commit_records == stats.wait_ns == Histogram()


def test_commits_are_counted(disk: SimulatedDisk) -> None:
    """Commits, their records and bytes, their syncs and how long they took; and the waits."""
    journal = open_on(disk)
    for size in (1, 2, 3):
        for _ in range(size):
            journal.append("x")
        journal.wait_durable()
    assert journal.stats().segments == 1
    assert journal.stats().disk_bytes == sum(map(len, disk.contents(PATH).values()))
    journal.close()
    stats = journal.stats()
    assert (stats.commits, stats.records) == (3, 6)
    assert stats.syncs >= 3
    assert (stats.commit_records.count, stats.commit_records.max) == (3, 3)
    assert stats.commit_records.mean == 2
    assert stats.commit_bytes.count == stats.sync_ns.count == stats.wait_ns.count == 3
    assert stats.commit_bytes.max == 44 + 3 * 2
    assert stats.bytes >= 64 + 3 * 44 + 6 * 2
    assert 0 < stats.sync_ns.p50 <= stats.sync_ns.max
    assert 0 < stats.wait_ns.p50 <= stats.wait_ns.max


def test_stats_count_buffered_and_backlog_records(disk: SimulatedDisk) -> None:
    """`buffered_bytes` until they are committed, `backlog_records` until they are durable."""
    with open_on(disk) as journal:
        journal.append("x" * 9)
        journal.append_batch(["x" * 9] * 2)
        stats = journal.stats()
        assert (stats.buffered_bytes, stats.backlog_records) == (30, 3)
        assert (stats.durable_lsn, stats.last_lsn) == (0, 3)
        journal.wait_durable()
        until(lambda: journal.stats().buffered_bytes == 0, "the end of the commit")
        stats = journal.stats()
        assert (stats.backlog_records, stats.durable_lsn, stats.synced_lsn) == (0, 3, 3)


def test_os_durability_tells_what_is_synced(disk: SimulatedDisk) -> None:
    """P2: with durability "os" `durable_lsn` is of the process, `synced_lsn` of the power."""
    with open_on(disk, durability="os") as journal:
        put(journal, 1, 2)
        stats = journal.stats()
        assert (stats.durable_lsn, stats.synced_lsn, stats.syncs) == (2, 0, 0)
        journal.compact(frozen(journal))
        stats = journal.stats()
        assert (stats.durable_lsn, stats.synced_lsn, stats.syncs) == (2, 2, 1)


def test_stats_beside_writers(disk: SimulatedDisk) -> None:
    """`stats()` may be called by any thread at any time, and never goes backwards."""
    stop = threading.Event()

    def look(journal: Journal) -> None:
        before = journal.stats()
        while not stop.is_set():
            stats = journal.stats()
            assert stats.durable_lsn >= before.durable_lsn
            assert stats.records >= before.records
            before = stats

    with open_on(disk, flush_interval_s=0.001) as journal, ThreadPoolExecutor(3) as pool:
        looking = [pool.submit(look, journal) for _ in range(2)]
        put_lines(journal, 100, size=500)
        stop.set()
        for each in looking:
            each.result(TIMEOUT_S)
    assert journal.stats().records == 100


def test_the_backlog_is_never_negative(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that ends between two looks does not turn the backlog into less than nothing."""
    durable_lsn = Journal.durable_lsn.fget  # type: ignore[attr-defined]

    def meanwhile(journal: Journal) -> int:
        monkeypatch.undo()
        put(journal, "meanwhile")
        return int(durable_lsn(journal))

    with open_on(disk) as journal:
        put(journal, 1)
        monkeypatch.setattr(Journal, "durable_lsn", property(meanwhile))
        assert journal.stats().backlog_records >= 0


# --- observers ---


class RecordingObserver:
    """An Observer that notes what it hears."""

    def __init__(self, *, raises: bool = False) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self._raises = raises

    def _hear(self, *description: Any) -> None:
        self.heard.append(description)
        if self._raises:
            raise ValueError("the observer's own")

    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
        self._hear("committed", records, size_bytes, sync_ns > 0)

    def stalled(self, error: OSError) -> None:
        self._hear("stalled", error)

    def compacted(self, lsn: int, count: int, size_bytes: int, duration_ns: int) -> None:
        self._hear("compacted", lsn, count, size_bytes, duration_ns > 0)

    def compaction_failed(self, error: BaseException) -> None:
        self._hear("compaction_failed", error)

    def failed(self, error: BaseException) -> None:
        self._hear("failed", error)


@pytest.fixture
def ears() -> list[RecordingObserver]:
    return [RecordingObserver(raises=True), RecordingObserver()]


def test_observers_hear_of_each_commit(
    disk: SimulatedDisk, ears: list[RecordingObserver], caplog: pytest.LogCaptureFixture
) -> None:
    """Each is told, also behind one that raises, which is logged and harms nobody."""
    with open_on(disk) as journal:
        put(journal, "before")
        until(lambda: journal.stats().commits == 1, "the count")
        for ear in ears:
            journal.observe(ear)
        put(journal, "a")
        journal.wait_durable(journal.append_batch(["b", "c"]))
    expected = [("committed", 1, 44 + 2, True), ("committed", 2, 44 + 4, True)]
    assert [ear.heard for ear in ears] == [expected, expected]
    assert settle(TIMEOUT_S)
    told = "an observer raised, so it missed an event: fix RecordingObserver"
    assert [record.message for record in caplog.records] == [told] * 2


def test_observers_hear_of_each_compaction(
    disk: SimulatedDisk, ears: list[RecordingObserver]
) -> None:
    """With its LSN, items, bytes and time."""
    with open_on(disk) as journal:
        put(journal, 1)
        for ear in ears:
            journal.observe(ear)
        journal.compact(frozen(journal, 1, 2, 3))
    (name,) = names(disk, ".json")
    size = len(disk.contents(PATH)[name])
    for ear in ears:
        assert ear.heard[-1] == ("compacted", 1, 3, size, True)


def test_observers_hear_of_each_compaction_that_fails(
    disk: SimulatedDisk, ears: list[RecordingObserver]
) -> None:
    """Each observer is called once per failed attempt, with what the caller of `compact` catches.
    An observer that raises hides nothing from the next one."""
    with open_on(disk) as journal:
        put(journal, 1)
        for ear in ears:
            journal.observe(ear)
        with pytest.raises(ZeroDivisionError) as caught:
            journal.compact(raising(ZeroDivisionError()))
    for ear in ears:
        assert ear.heard[-1] == ("compaction_failed", caught.value)


def test_an_observer_without_the_newest_method_is_not_told(
    disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """An observer written before `compaction_failed` existed works as before, and nothing is
    logged about it. One that extends the protocol inherits an empty method."""

    class Old:
        def __init__(self) -> None:
            self.heard: list[int] = []

        def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
            self.heard.append(records)

        def stalled(self, error: OSError) -> None: ...
        def compacted(self, *_: Any) -> None: ...
        def failed(self, error: BaseException) -> None: ...

    class Extending(Observer):
        def committed(self, records: int, size_bytes: int, sync_ns: int) -> None: ...
        def stalled(self, error: OSError) -> None: ...
        def compacted(self, *_: Any) -> None: ...
        def failed(self, error: BaseException) -> None: ...

    old: Any = Old()
    with open_on(disk) as journal:
        journal.observe(old)
        journal.observe(Extending())
        with pytest.raises(ZeroDivisionError):
            journal.compact(raising(ZeroDivisionError()))
        put(journal, 1)
        until(lambda: old.heard == [1], "the commit is observed")
    assert settle(TIMEOUT_S)
    assert caplog.records == []


def test_an_observer_may_look_at_the_journal(disk: SimulatedDisk) -> None:
    """It is called with no lock held: it may append, and ask for figures."""

    class Curious(RecordingObserver):
        def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
            self.heard.append((journal.stats().last_lsn, journal.durable_lsn))
            if len(self.heard) == 1:
                journal.append("from the observer")

    ear = Curious()
    with open_on(disk) as journal:
        journal.observe(ear)
        put(journal, 1)
    assert ear.heard[0] == (1, 1)
    assert journal.last_lsn == 2
