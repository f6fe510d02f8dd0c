"""Statistics: the values of `stats()`, the accuracy of the histograms, and the calls of
observers."""

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
from journal._commit.gate import Gate
from journal._log import settle
from journal._recorder import Recorder
from journal.testing import SimulatedDisk
from tests.engine.compaction_support import raising
from tests.support import PATH, TIMEOUT_S, frozen, names, open_on, put, put_lines, until


def recorded(values: list[int]) -> Histogram:
    recorder = Recorder()
    for value in values:
        recorder.add(value)
    return recorder.histogram()


def test_no_commit_waits_for_a_reader_of_statistics(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: A signal handler that interrupts `stats()` may wait for another thread's commit."""
    monkeypatch.setattr(commit_figures, "_FOLD_EVERY", 1)
    with open_on(disk) as journal:
        with journal._core.committer.figures.sync_ns._lock, ThreadPoolExecutor() as pool:
            pool.submit(put, journal, 1, 2).result(TIMEOUT_S)
        assert journal.stats().sync_ns.count == 2


# --- histograms ---


def test_an_empty_histogram_is_all_zeros() -> None:
    """An empty histogram has no percentiles, and does not divide by zero."""
    assert recorded([]) == Histogram(0, 0, 0, 0, 0, 0.0)


@given(values=st.lists(st.integers(0, 10**13), min_size=1, max_size=300))
def test_percentiles_are_at_most_a_twentieth_over(values: list[int]) -> None:
    """`count`, `max` and `mean` are exact. A percentile is at most 5 % above the exact one, and
    never above the maximum."""
    histogram = recorded(values)
    assert (histogram.count, histogram.max) == (len(values), max(values))
    assert histogram.mean == pytest.approx(sum(values) / len(values))
    ordered = sorted(values)
    for per_mille, percentile in (
        (500, histogram.p50),
        (990, histogram.p99),
        (999, histogram.p99_9),
    ):
        exact = ordered[-(-len(values) * per_mille // 1000) - 1]
        assert exact <= percentile <= max(exact * 1.05, exact + 1)
        assert percentile <= histogram.max


@pytest.mark.parametrize("value", [0, 1, 2, 19, 20, 21, 2**31, 2**62])
def test_a_single_value_is_every_percentile(value: int) -> None:
    """Every statistic of a single value is that value."""
    assert recorded([value]) == Histogram(1, value, value, value, value, float(value))


def test_values_from_many_threads_all_count() -> None:
    """No value is lost between threads that add, fold and read at the same time."""
    recorder = Recorder()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            recorder.histogram()
            recorder.fold()

    with ThreadPoolExecutor(6) as pool:
        reading = pool.submit(read)
        adding = [
            pool.submit(lambda: [recorder.add(value) for value in range(5000)]) for _ in range(4)
        ]
        for each in adding:
            each.result(TIMEOUT_S)
        stop.set()
        reading.result(TIMEOUT_S)
    histogram = recorder.histogram()
    assert (histogram.count, histogram.max) == (20_000, 4999)
    assert histogram.mean == pytest.approx(2499.5)


def test_a_value_added_during_a_fold_counts_in_the_next() -> None:
    """A value that is added while a fold takes the values is kept for the next fold."""

    class Busy(list[int]):
        def __getitem__(self, index: Any) -> Any:
            values = super().__getitem__(index)
            self.append(7)
            return values

    recorder = Recorder()
    recorder.pending = Busy([1, 2, 3])
    recorder.fold()
    assert recorder.pending == [7]
    recorder.pending = [*recorder.pending]
    assert recorder.histogram().count == 4


def test_folded_values_take_no_memory() -> None:
    """P8: Once they are folded, a recorder holds buckets, and not values."""
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


def test_the_statistics_of_a_new_opening_begin_at_zero(disk: SimulatedDisk) -> None:
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
    """Commits, records, bytes, syncs, sync times and wait times are counted."""
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
    """A record counts as buffered until it is committed, and as backlog until it is durable."""
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


def test_stats_distinguish_durable_and_synced(disk: SimulatedDisk) -> None:
    """P2: With durability `os`, `durable_lsn` is what survives the process, and `synced_lsn` is
    what survives a power cut."""
    with open_on(disk, durability="os") as journal:
        put(journal, 1, 2)
        stats = journal.stats()
        assert (stats.durable_lsn, stats.synced_lsn, stats.syncs) == (2, 0, 0)
        journal.compact(frozen(journal))
        stats = journal.stats()
        assert (stats.durable_lsn, stats.synced_lsn, stats.syncs) == (2, 2, 1)


def test_stats_can_be_read_during_writes(disk: SimulatedDisk) -> None:
    """`stats()` may be called in any thread at any time, and its counts never decrease."""
    stop = threading.Event()

    def read(journal: Journal) -> None:
        before = journal.stats()
        while not stop.is_set():
            stats = journal.stats()
            assert stats.durable_lsn >= before.durable_lsn
            assert stats.records >= before.records
            before = stats

    with open_on(disk, flush_interval_s=0.001) as journal, ThreadPoolExecutor(3) as pool:
        reading = [pool.submit(read, journal) for _ in range(2)]
        put_lines(journal, 100, size=500)
        stop.set()
        for each in reading:
            each.result(TIMEOUT_S)
    assert journal.stats().records == 100


def test_the_backlog_is_never_negative(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that ends while `stats()` reads does not make the backlog negative."""
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
    """An observer that records each call."""

    def __init__(self, *, raises: bool = False) -> None:
        self.events: list[tuple[Any, ...]] = []
        self._raises = raises

    def _record(self, *description: Any) -> None:
        self.events.append(description)
        if self._raises:
            raise ValueError("the observer's own")

    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
        self._record("committed", records, size_bytes, sync_ns > 0)

    def stalled(self, error: OSError) -> None:
        self._record("stalled", error)

    def compacted(self, lsn: int, count: int, size_bytes: int, duration_ns: int) -> None:
        self._record("compacted", lsn, count, size_bytes, duration_ns > 0)

    def compaction_failed(self, error: BaseException) -> None:
        self._record("compaction_failed", error)

    def failed(self, error: BaseException) -> None:
        self._record("failed", error)


@pytest.fixture
def observers() -> list[RecordingObserver]:
    return [RecordingObserver(raises=True), RecordingObserver()]


def test_the_figures_of_a_commit_are_there_when_its_waiters_are_released(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A caller that has waited for its record may ask for the figures at once."""
    counted: list[int] = []

    class RecordedGate(Gate):
        def open(self) -> None:
            counted.append(journal.stats().commits)
            super().open()

    monkeypatch.setattr("journal._commit.commit_turn.Gate", RecordedGate)
    with open_on(disk) as journal:
        for _ in range(2):
            put(journal, "waited for")
    assert counted[:2] == [1, 2]


def test_observers_are_called_for_each_commit(
    disk: SimulatedDisk, observers: list[RecordingObserver], caplog: pytest.LogCaptureFixture
) -> None:
    """Each observer is called, even after one that raises. The error is logged, and affects nothing
    else."""
    with open_on(disk) as journal:
        put(journal, "before")
        until(lambda: journal.stats().commits == 1, "the count")
        for observer in observers:
            journal.observe(observer)
        put(journal, "a")
        journal.wait_durable(journal.append_batch(["b", "c"]))
    expected = [("committed", 1, 44 + 2, True), ("committed", 2, 44 + 4, True)]
    assert [observer.events for observer in observers] == [expected, expected]
    assert settle(TIMEOUT_S)
    message = "an observer raised an exception and missed an event; fix RecordingObserver"
    assert [record.message for record in caplog.records] == [message] * 2


def test_observers_are_called_for_each_compaction(
    disk: SimulatedDisk, observers: list[RecordingObserver]
) -> None:
    """Observers get a compaction's LSN, item count, bytes and duration."""
    with open_on(disk) as journal:
        put(journal, 1)
        for observer in observers:
            journal.observe(observer)
        journal.compact(frozen(journal, 1, 2, 3))
    (name,) = names(disk, ".json")
    size = len(disk.contents(PATH)[name])
    for observer in observers:
        assert observer.events[-1] == ("compacted", 1, 3, size, True)


def test_observers_are_called_for_each_failed_compaction(
    disk: SimulatedDisk, observers: list[RecordingObserver]
) -> None:
    """Each observer is called once per failed attempt, with the error that the caller of `compact`
    catches, even after an observer that raises."""
    with open_on(disk) as journal:
        put(journal, 1)
        for observer in observers:
            journal.observe(observer)
        with pytest.raises(ZeroDivisionError) as caught:
            journal.compact(raising(ZeroDivisionError()))
    for observer in observers:
        assert observer.events[-1] == ("compaction_failed", caught.value)


def test_an_observer_may_lack_the_newest_method(
    disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """An observer that was written before `compaction_failed` existed works as before, and nothing
    is logged about it. An observer that extends the protocol inherits an empty method."""

    class Old:
        def __init__(self) -> None:
            self.events: list[int] = []

        def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
            self.events.append(records)

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
        until(lambda: old.events == [1], "the commit is observed")
    assert settle(TIMEOUT_S)
    assert caplog.records == []


def test_an_observer_may_use_the_journal(disk: SimulatedDisk) -> None:
    """An observer is called without any lock held, so it may append and read statistics."""

    class Curious(RecordingObserver):
        def committed(self, records: int, size_bytes: int, sync_ns: int) -> None:
            self.events.append((journal.stats().last_lsn, journal.durable_lsn))
            if len(self.events) == 1:
                journal.append("from the observer")

    observer = Curious()
    with open_on(disk) as journal:
        journal.observe(observer)
        put(journal, 1)
    assert observer.events[0] == (1, 1)
    assert journal.last_lsn == 2
