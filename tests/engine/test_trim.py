"""Trims: what a journal without a state forgets, what it keeps, and what it refuses."""

from __future__ import annotations

import errno
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    ClosedError,
    CompactedError,
    DurableState,
    InterruptedCallError,
    Journal,
    JournalError,
    JournalReader,
)
from journal.testing import SimulatedDisk, lose
from tests.engine.compaction_support import RecordingObserver, checkpoint_lsns, compact, first_lsns
from tests.independent_reader import decode_checkpoint
from tests.support import (
    PATH,
    Table,
    crash,
    findings,
    logged,
    names,
    open_on,
    options,
    put,
    put_lines,
    read_all,
)

LARGE = "x" * 3000  # one record of this size takes a segment


def filled(disk: SimulatedDisk, **more: Any) -> Journal:
    """Open a journal, and write eight segments of one record each."""
    journal = open_on(disk, **more)
    put(journal, *([n, LARGE] for n in range(1, 9)))
    return journal


def lsns(journal: Journal, after: int | None = None) -> list[int]:
    return [entry.lsn for entry in journal.replay(after)]


def test_a_trim_keeps_every_record_from_its_lsn_on(disk: SimulatedDisk) -> None:
    """P8: The segments before `before_lsn` are removed, and all records from there on are kept, in
    this opening and in the next."""
    with filled(disk) as journal:
        assert journal.first_lsn == 1
        assert journal.trim(6) == journal.first_lsn == 5
        assert first_lsns(disk) == [5, 6, 7, 8]
        assert checkpoint_lsns(disk) == [4, 5]
        assert lsns(journal, 4) == [5, 6, 7, 8]
        with pytest.raises(CompactedError, match="LSN 4 is no longer kept") as caught:
            logged(journal, 3)
        assert (caught.value.first_lsn, caught.value.lsn) == (5, 4)
    with open_on(disk) as journal:
        assert journal.first_lsn == 5
        assert lsns(journal) == [6, 7, 8]
        assert journal.append("next") == 9
    assert [record[0] for record in read_all(disk)[:-1]] == [5, 6, 7, 8]
    assert not findings(disk)


def test_a_trim_publishes_two_empty_checkpoints(disk: SimulatedDisk) -> None:
    """The checkpoints of a trim have no items, and the application of the options."""
    with filled(disk, application="log/1") as journal:
        journal.trim(6)
    for name in names(disk, ".json"):
        page = decode_checkpoint(disk.contents(PATH)[name])
        assert (page.items, page.application) == ((), "log/1")


def test_as_many_checkpoints_are_published_as_are_kept(disk: SimulatedDisk) -> None:
    """P10: With `checkpoints_kept`, a trim relies on that many verified checkpoints."""
    with filled(disk, checkpoints_kept=4) as journal:
        journal.trim(6)
        assert checkpoint_lsns(disk) == [2, 3, 4, 5]
        assert first_lsns(disk) == [3, 4, 5, 6, 7, 8]


def test_the_next_trim_continues_from_the_last(disk: SimulatedDisk) -> None:
    """P8: Each trim removes what the last one left, and one that removes nothing writes nothing."""
    with filled(disk) as journal:
        for before_lsn, kept in ((4, 3), (4, 3), (2, 3), (5, 4), (8, 7), (9, 8), (9, 8)):
            before = disk.contents(PATH)
            assert journal.trim(before_lsn) == kept, before_lsn
            if kept == journal.first_lsn == min(int(name[:20]) for name in before if "seg" in name):
                assert disk.contents(PATH) == before
        assert lsns(journal, 7) == [8]


def test_a_trim_of_everything_keeps_the_last_segment(disk: SimulatedDisk) -> None:
    """P8: After a trim up to the next LSN, the segment with the last record stays until a record
    has been appended, which begins a segment."""
    with open_on(disk, segment_bytes=1 << 20) as journal:
        put_lines(journal, 20)
        assert journal.trim(21) == 1
        assert first_lsns(disk) == [1]
        put_lines(journal, 2)
        assert first_lsns(disk) == [1, 21]
        assert journal.trim(23) == 21
        assert first_lsns(disk) == [21]
        put_lines(journal, 1)
        assert first_lsns(disk) == [21, 23]


def test_an_empty_journal_can_be_trimmed(disk: SimulatedDisk) -> None:
    """A trim of a journal without records does nothing."""
    with open_on(disk) as journal:
        assert journal.trim(1) == journal.first_lsn == 1
        assert names(disk, ".json") == []


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_a_trim_syncs_before_it_removes(
    disk: SimulatedDisk, durability: Literal["disk", "os"]
) -> None:
    """P2: With either durability, the records before `before_lsn` are synced before a checkpoint
    states that, so the journal opens after a power cut."""
    journal = filled(disk, durability=durability)
    journal.append("unawaited")
    journal.trim(10)
    crash(journal, disk)
    disk.power_cut(lose)
    with open_on(disk, durability=durability) as journal:
        assert (journal.first_lsn, journal.last_lsn) == (8, 9)


def test_records_in_memory_are_kept(disk: SimulatedDisk) -> None:
    """`first_lsn` of a journal whose first records are not committed yet is the LSN of these."""
    with open_on(disk, flush_interval_s=3600.0) as journal:
        assert journal.first_lsn == 1
        journal.append_batch([1, 2, 3])
        assert (journal.durable_lsn, journal.first_lsn) == (0, 1)
        journal.wait_durable()
        assert journal.first_lsn == 1


@pytest.mark.parametrize("before_lsn", [0, -1, 10, 1 << 64])
def test_an_lsn_out_of_range_is_refused(disk: SimulatedDisk, before_lsn: int) -> None:
    """An LSN below 1, or after the next one to append, raises ValueError, and nothing changes."""
    with filled(disk) as journal:
        before = disk.contents(PATH)
        with pytest.raises(ValueError, match="before_lsn must be from 1 to 9, the next LSN"):
            journal.trim(before_lsn)
        assert disk.contents(PATH) == before


@pytest.mark.parametrize("before_lsn", [None, "6", 6.0, True])
def test_an_lsn_of_another_type_is_refused(disk: SimulatedDisk, before_lsn: Any) -> None:
    """Anything but an integer raises TypeError, and nothing changes."""
    with filled(disk) as journal:
        with pytest.raises(TypeError, match="before_lsn must be an LSN, a whole number, not "):
            journal.trim(before_lsn)
        assert journal.first_lsn == 1


def test_a_state_is_never_trimmed(disk: SimulatedDisk) -> None:
    """P6: A journal whose newest checkpoint holds items, or that compacts a state by itself,
    refuses a trim."""
    with filled(disk) as journal:
        compact(journal, "state").close()
        with pytest.raises(JournalError, match="its newest checkpoint holds a state of 1 items"):
            journal.trim(6)
    with open_on(disk) as journal:
        with pytest.raises(JournalError, match="its newest checkpoint holds a state of 1 items"):
            journal.trim(6)
        compact(journal).close()
        put_lines(journal, 1)
        assert journal.trim(10) > 1
        journal.start_compaction(lambda: (journal.last_lsn, []))
        with pytest.raises(JournalError, match="the state that start_compaction was given"):
            journal.trim(9)


def test_the_journal_of_a_state_is_never_trimmed(disk: SimulatedDisk) -> None:
    """P6: The journal of a DurableState refuses a trim, also when it is opened as a Journal without
    its application."""
    with DurableState.open(PATH, Table(), options=options(), disk=disk) as state:
        state.compact().close()
        with pytest.raises(JournalError, match="belongs to a DurableState"):
            state.journal.trim(1)
    with (
        open_on(disk) as journal,
        pytest.raises(JournalError, match="can't be trimmed, because it belongs to application"),
    ):
        journal.trim(1)


def test_a_closed_journal_is_not_trimmed(disk: SimulatedDisk) -> None:
    """After a close, `trim` and `first_lsn` raise ClosedError."""
    with filled(disk) as journal:
        pass
    with pytest.raises(ClosedError):
        journal.trim(6)
    with pytest.raises(ClosedError):
        _ = journal.first_lsn


def test_a_trim_inside_another_is_refused(disk: SimulatedDisk) -> None:
    """A trim from within a compaction raises InterruptedCallError, because it would wait for it."""
    with filled(disk) as journal:

        def freeze() -> Any:
            with pytest.raises(InterruptedCallError):
                journal.trim(6)
            return journal.last_lsn, []

        journal.compact(freeze).close()


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "remove"])
def test_a_trim_that_fails_leaves_a_journal_that_continues(
    disk: SimulatedDisk, operation: str
) -> None:
    """P5: A full disk or a fault ends only this trim. Nothing from `before_lsn` on is lost, and the
    next trim succeeds."""
    with filled(disk) as journal:
        observer = RecordingObserver()
        journal.observe(observer)

        def fail(called: str, path: str) -> None:
            if called == operation:
                raise OSError(errno.ENOSPC, "full", path)

        disk.before = fail
        with pytest.raises(OSError, match="full"):
            journal.trim(6)
        disk.before = None
        assert journal.stats().compaction_failures == 1
        assert lsns(journal, 5) == [6, 7, 8]
        put(journal, "next")
        assert journal.trim(6) == 5
        assert not [name for name in names(disk, "") if name.endswith(".tmp")]
    assert (len(observer.failures), observer.compactions) == (1, operation != "remove")


def test_a_reader_behind_a_trim_gets_a_compacted_error(disk: SimulatedDisk) -> None:
    """A reader whose next records were trimmed raises CompactedError with the first LSN kept, and
    one that needs none of them continues."""
    with filled(disk) as journal, JournalReader.open(PATH, disk=disk) as reader:
        behind, ahead = reader.entries(0), reader.entries(5)
        assert (next(behind).lsn, next(ahead).lsn) == (1, 6)
        journal.trim(6)
        assert reader.first_lsns == [5, 6, 7, 8]
        with pytest.raises(CompactedError) as caught:
            list(behind)
        assert caught.value.first_lsn == 5
        assert next(ahead).lsn == 7


def test_a_backup_beside_a_trim_starts_again(disk: SimulatedDisk) -> None:
    """A trim during a backup leaves a whole copy of what it keeps."""
    with filled(disk) as journal:

        def trim_at_first_copy(called: str, path: str) -> None:
            if called == "create" and path.startswith("/copy"):
                disk.before = None
                journal.trim(6)

        disk.before = trim_at_first_copy
        assert journal.backup("/copy").lsn == 8
    with Journal.open("/copy", options=options(), disk=disk) as copy:
        assert lsns(copy, copy.first_lsn - 1) == [5, 6, 7, 8]


def test_records_appended_beside_a_trim_are_kept(disk: SimulatedDisk) -> None:
    """P1: A commit between any two disk operations of a trim stays in the log."""
    count = 0
    with filled(disk) as journal:
        is_busy = False

        def commit(called: str, path: str) -> None:
            nonlocal is_busy, count
            if not is_busy and "checkpoint" in path:
                is_busy, count = True, count + 1
                put(journal, ["beside", count])
                is_busy = False

        disk.before = commit
        journal.trim(6)
        disk.before = None
        assert count > 5
    with open_on(disk) as journal:
        assert logged(journal, 8) == [["beside", n] for n in range(1, count + 1)]


@given(st.data())
def test_a_replay_after_a_trim_begins_with_a_whole_batch(data: st.DataObject) -> None:
    """P3: Whatever LSN is trimmed to, a replay from the checkpoint begins at it or at the batch
    that holds it."""
    disk = SimulatedDisk()
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=4, max_size=12))
    with open_on(disk) as journal:
        begins = []
        for size in sizes:
            begins.append(journal.last_lsn + 1)
            journal.append_batch([[n, LARGE[: 4000 // size]] for n in range(size)])
            journal.wait_durable()
        last_lsn = journal.last_lsn
        before_lsn = data.draw(st.integers(1, last_lsn + 1))
        kept = journal.trim(before_lsn)
        assert kept in begins
        assert kept <= max(before_lsn - 1, 1)
    with open_on(disk) as journal:
        first = next(iter(lsns(journal)), last_lsn + 1)
        assert first <= before_lsn
        assert first in [*begins, last_lsn + 1]
        if kept > 1:
            assert first == max(lsn for lsn in [*begins, last_lsn + 1] if lsn <= before_lsn)


def test_a_crash_during_a_trim_loses_nothing_that_stays(disk: SimulatedDisk) -> None:
    """P2: A kill during the removal leaves a journal that opens with all records from `before_lsn`
    on, and the open finishes the removal."""
    journal = filled(disk)
    removed: list[str] = []

    def kill(called: str, path: str) -> None:
        if called == "remove" and path.endswith(".seg"):
            removed.append(path)
            if len(removed) == 2:
                disk.kill()

    disk.before = kill
    with pytest.raises((OSError, JournalError)):
        journal.trim(6)
    crash(journal, disk)
    with open_on(disk) as journal:
        assert lsns(journal) == [6, 7, 8]
        assert first_lsns(disk) == [5, 6, 7, 8]
