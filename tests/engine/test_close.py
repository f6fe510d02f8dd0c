"""Closing a journal, and abandoning one that was never closed."""

from __future__ import annotations

import errno
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from journal import (
    ClosedError,
    DurableState,
    FailedError,
    InterruptedCallError,
    Journal,
    LockedError,
)
from journal.testing import SimulatedDisk
from tests.support import (
    PATH,
    TIMEOUT_S,
    Held,
    Interrupted,
    Table,
    frozen,
    interrupt_after,
    names,
    on_disk,
    open_on,
    options,
    put,
    put_lines,
    reopened,
    until,
)

SOON_S = 0.05

# --- close ---


def journal_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith("journal-")}


def test_close_commits_everything_and_frees_everything(disk: SimulatedDisk) -> None:
    """After close, every appended record is durable, both threads have ended, and the lock is
    free."""
    before = journal_threads()
    journal = open_on(disk)
    journal.start_compaction(frozen(journal))
    for n in range(100):
        journal.append(n)
    assert len(journal_threads() - before) == 2
    journal.close()
    assert journal_threads() == before
    assert (journal.closed, journal.durable_lsn) == (True, 100)
    assert on_disk(disk) == [*range(100)] == reopened(disk)


def test_closing_again_does_nothing(disk: SimulatedDisk) -> None:
    """A second close returns, and leaves a journal alone that was opened meanwhile."""
    journal = open_on(disk)
    put(journal, 1)
    journal.close()
    with open_on(disk) as other:
        operations = list(disk.operations)
        journal.close()
        journal.close(timeout_s=0)
        with journal:
            pass
        assert disk.operations == operations
        put(other, 2)
    assert reopened(disk) == [1, 2]


CALLS: dict[str, Callable[[Journal], object]] = {
    "append": lambda journal: journal.append(1),
    "append urgent": lambda journal: journal.append(1, urgent=True),
    "append_batch": lambda journal: journal.append_batch([1, 2]),
    "wait_room": lambda journal: journal.wait_room(),
    "replay": lambda journal: journal.replay(),
    "compact": lambda journal: journal.compact(lambda: (0, [])),
    "start_compaction": lambda journal: journal.start_compaction(lambda: (0, [])),
    "backup": lambda journal: journal.backup("/copy"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_a_closed_journal_refuses(disk: SimulatedDisk, call: Callable[[Journal], object]) -> None:
    """Every use after close raises ClosedError, which says what to do, and changes nothing."""
    with open_on(disk) as journal:
        put(journal, 1)
    operations = list(disk.operations)
    with pytest.raises(ClosedError, match="closed; open it again"):
        call(journal)
    assert (disk.operations, journal.last_lsn, journal.durable_lsn) == (operations, 1, 1)


def test_a_closed_journal_still_has_its_statistics(disk: SimulatedDisk) -> None:
    """Properties and statistics, which need no disk, can be read after close."""
    with open_on(disk) as journal:
        put(journal, 1, 2)
    assert (journal.last_lsn, journal.durable_lsn, journal.epoch) == (2, 2, 1)
    assert (journal.path, journal.closed) == (PATH, True)
    stats = journal.stats()
    assert (stats.records, stats.last_lsn, stats.buffered_bytes) == (2, 2, 0)


def test_a_replay_during_close_raises_closed_error(disk: SimulatedDisk) -> None:
    """A replay that is still running at close raises ClosedError at the next unread segment."""
    journal = open_on(disk)
    put_lines(journal, 20, size=700)
    entries = journal.replay()
    next(entries)
    journal.close()
    with pytest.raises(ClosedError):
        list(entries)


def test_close_on_a_slow_disk_can_time_out(disk: SimulatedDisk) -> None:
    """At the limit, close raises TimeoutError, keeps the lock and refuses appends. A second call
    closes."""
    journal = open_on(disk)
    put(journal, 0)
    with Held(disk, "sync", ".seg") as held:
        journal.append(1)
        for timeout_s in (0, 0.01):
            with pytest.raises(TimeoutError, match=rf"within {timeout_s} s, \d+ bytes are still"):
                journal.close(timeout_s=timeout_s)
            assert not journal.closed
            with pytest.raises(LockedError):
                open_on(disk)
            with pytest.raises(ClosedError):
                journal.append(2)
        held.release_all()
        journal.close(timeout_s=TIMEOUT_S)
    assert journal.closed
    assert reopened(disk) == [0, 1]


def test_close_on_a_full_disk_can_time_out(disk: SimulatedDisk) -> None:
    """P2: A full disk loses no appended record: close waits for room, or times out and can be
    called again."""
    journal = open_on(disk)
    put(journal, 0)
    disk.fail("write", errno.ENOSPC, times=None)
    journal.append(1)
    for _ in range(2):
        with pytest.raises(TimeoutError, match=r"call close\(\) again"):
            journal.close(timeout_s=0.05)
        with pytest.raises(LockedError):
            open_on(disk)
    disk.before = None
    journal.close(timeout_s=TIMEOUT_S)
    assert reopened(disk) == [0, 1]


def fail_stop(disk: SimulatedDisk, journal: Journal) -> None:
    disk.fail("sync", errno.EIO)
    journal.append("lost")
    with pytest.raises(FailedError):
        journal.wait_durable()
    disk.before = None


def test_close_after_a_failure_frees_everything_and_writes_nothing(disk: SimulatedDisk) -> None:
    """P2: After a failure, close writes nothing, frees the lock, and raises FailedError once if an
    appended record isn't durable."""
    journal = open_on(disk)
    journal.start_compaction(frozen(journal))
    put(journal, 0)
    fail_stop(disk, journal)
    before = disk.contents(PATH)
    with pytest.raises(FailedError, match="EIO"):
        journal.close()
    journal.close()
    assert journal.closed
    # LOCK is emptied: there is no writer to name any more.
    assert disk.contents(PATH) == {**before, "LOCK": b""}
    assert reopened(disk)[:1] == [0]


def test_close_after_a_failure_without_loss_is_silent(disk: SimulatedDisk) -> None:
    """P2: If every appended record is durable, close does not raise because a mark failed."""
    journal = open_on(disk)
    put(journal, 0)
    disk.fail("write", errno.EIO, times=None)
    journal.close()
    disk.before = None
    assert reopened(disk) == [0]


@pytest.mark.parametrize("failed", [True, False])
def test_a_with_block_never_hides_its_exception(
    disk: SimulatedDisk, failed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The exception that leaves the `with` is raised, and the failed close is logged."""
    journal = open_on(disk)
    put(journal, 0)
    if failed:
        fail_stop(disk, journal)
    with pytest.raises(KeyError, match="mine"), journal:
        raise KeyError("mine")
    assert journal.closed
    not_closed_well = [r for r in caplog.records if "not closed cleanly" in r.getMessage()]
    assert len(not_closed_well) == failed
    assert reopened(disk)[:1] == [0]


def test_leaving_a_with_block_raises_a_failure(disk: SimulatedDisk) -> None:
    """P2: A `with` that ends without an exception promises that all records are durable."""
    journal = open_on(disk)
    put(journal, 0)
    fail_stop(disk, journal)
    with pytest.raises(FailedError):
        journal.__exit__(None, None, None)


def test_several_threads_may_close_at_once(disk: SimulatedDisk) -> None:
    """Several threads may call close at once: the journal is closed once, by the time all calls
    return."""
    journal = open_on(disk)
    journal.start_compaction(frozen(journal))
    for n in range(10):
        journal.append(n)
    threads = [threading.Thread(target=journal.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert journal.closed
    assert reopened(disk) == [*range(10)]


def test_a_close_that_was_cut_off_goes_on(disk: SimulatedDisk) -> None:
    """A close that a signal handler's exception cuts off leaves the lock held. The next close waits
    for the same threads, which may still write."""
    journal = open_on(disk)
    put(journal, 1)
    with Held(disk, "sync", ".seg") as held:
        journal.append(2)
        with pytest.raises(Interrupted), interrupt_after(SOON_S):
            journal.close()
        held.wait_reached()
        with pytest.raises(TimeoutError):
            journal.close(timeout_s=SOON_S)
        with pytest.raises(LockedError):
            open_on(disk)
    journal.close()
    assert reopened(disk) == [1, 2]


def test_a_close_inside_a_close_is_refused(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A close inside a close, as from a signal handler, is refused: it would wait for a thread for
    which its own thread already waits, with that wait's internal lock taken. This holds also if
    another thread closes meanwhile."""
    journal = open_on(disk)
    put(journal, 1)
    committer = journal._core.committer
    join = committer.join
    refused = []

    def interrupted(left_s: float | None) -> bool:
        monkeypatch.setattr(committer, "join", join)
        with ThreadPoolExecutor() as pool:
            pool.submit(journal.close).result(TIMEOUT_S)
        with pytest.raises(InterruptedCallError) as caught:
            journal._core.begin_close()
        refused.append(caught.value)
        return join(left_s)

    monkeypatch.setattr(committer, "join", interrupted)
    journal.close()
    assert refused
    assert reopened(disk) == [1]


def test_close_waits_for_a_compaction_of_another_thread(disk: SimulatedDisk) -> None:
    """P5: A compaction in any thread is abandoned before the lock is free, and leaves no
    `*.tmp`."""
    journal = open_on(disk)
    put(journal, 1)
    reached = threading.Event()
    errors: list[BaseException] = []

    def items() -> Any:
        while True:
            yield 1
            reached.set()

    def compact() -> None:
        try:
            journal.compact(lambda: (1, items()))
        except ClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=compact)
    thread.start()
    assert reached.wait(TIMEOUT_S)
    journal.close(timeout_s=TIMEOUT_S)
    tmp_names = names(disk, ".tmp")
    thread.join(TIMEOUT_S)
    assert len(errors) == 1
    assert tmp_names == names(disk, ".tmp") == []
    assert reopened(disk) == [1]


# --- abandoned without a close ---


def drop(make: Callable[[], object]) -> None:
    """Drop the only reference to what `make` returns. A ResourceWarning is expected."""
    kept = [make()]

    def drop_reference() -> None:
        kept.clear()
        gc.collect()

    with pytest.warns(ResourceWarning, match=r"journal \S+ was never closed"):
        drop_reference()


@pytest.mark.usefixtures("few_to_collect")
@pytest.mark.parametrize("kind", ["journal", "compacted", "state"])
def test_a_dropped_journal_warns_commits_and_releases_the_directory(
    disk: SimulatedDisk, kind: str
) -> None:
    """An abandoned journal raises a ResourceWarning. Its records are committed, both threads end,
    and the lock is freed, without anybody waiting for it."""
    before = journal_threads()

    def make() -> object:
        if kind == "state":
            state = DurableState.open(PATH, Table(), options=options(), disk=disk)
            state.update(lambda _: ["a", 1])
            return state
        journal = open_on(disk)
        if kind == "compacted":
            journal.start_compaction(lambda: (0, []))
        journal.append(["a", 1])
        return journal

    drop(make)
    until(lambda: disk.open_directory(PATH, write=False).lock_holder() is None, "the unlock")
    until(lambda: journal_threads() == before, "the threads' end")
    assert on_disk(disk) == [["a", 1]]
    assert reopened(disk) == [["a", 1]]


@pytest.mark.usefixtures("few_to_collect")
def test_a_dropped_failed_journal_releases_the_directory(tmp_path: Path) -> None:
    """P5: A failed state that nobody closed does not keep the next opening out."""
    before = journal_threads()

    def make() -> DurableState[Table]:
        state = DurableState.open(tmp_path / "j", Table(), options=options())
        state.wait_durable(state.update(lambda _: ["a", 1]))
        (segment,) = (tmp_path / "j").glob("*.seg")
        segment.unlink()
        state.update(lambda _: ["a", 2])
        with pytest.raises(FailedError):
            state.wait_durable()
        until(lambda: journal_threads() == before, "the threads' end")
        return state

    drop(make)
    gc.collect()
    Journal.open(tmp_path / "j").close()


@pytest.mark.usefixtures("few_to_collect")
def test_a_closed_journal_is_dropped_silently(disk: SimulatedDisk) -> None:
    """Neither a closed journal nor a failed one that was closed warns."""
    journal: Journal | None = open_on(disk)
    assert journal is not None
    journal.close()
    failed: Journal | None = open_on(disk)
    assert failed is not None
    fail_stop(disk, failed)
    with pytest.raises(FailedError):
        failed.close()
    journal = failed = None
    gc.collect()  # a warning would fail this test
