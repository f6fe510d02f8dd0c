"""States of the disk that once broke a draft of the recovery rule, each with every outcome.

`crashes` repeats a step: with a crash after each number of its operations, and after each crash
with every outcome of the power cut. Nothing here is left to chance.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from itertools import count, product
from typing import Any

import pytest

from journal import FailedError
from journal._format.segment import SegmentName, segment_names
from journal.testing import ManualOptions
from journal.testing.disk import Operation
from journal.testing.owner import open_checked
from tests.crash.crash_owner import Owner, Step, crashes, do_nothing, rolling, survives
from tests.crash.crash_support import (
    Durability,
    every_choice,
    files,
    outcome_of,
)
from tests.independent_reader import decode_segment
from tests.tiers import slow_unless

# --- the end of the log ---


def test_a_crash_in_the_first_commit_leaves_a_journal() -> None:
    """P5: A journal opens with any part of its first segment, and is recognized as a journal."""
    assert survives(Owner, do_nothing, Owner.commit) > 20


def test_a_lost_mark_loses_nothing_acknowledged() -> None:
    """P2: An unsynced mark may be lost, torn or kept under the commit that overwrites it."""

    def prepare(owner: Owner) -> None:
        owner.commit()
        owner.idle()

    assert survives(Owner, prepare, lambda owner: owner.commit(2)) > 20


def test_the_next_frame_is_written_over_a_mark() -> None:
    """P2: The next frame overwrites a mark, so no unsynced byte precedes an acknowledged frame."""
    owner = Owner()
    for _ in range(2):
        owner.commit()
        owner.idle()
    owner.end()
    [data] = [data for name, data in files(owner.disk).items() if name.endswith(".seg")]
    assert [len(frame.records) for frame in decode_segment(data).frames] == [1, 1, 0]


def test_a_commit_of_several_frames_splits_no_batch() -> None:
    """P3: Each batch is in one frame, so a commit that is torn between frames splits no batch."""

    def step(owner: Owner) -> None:
        owner.append()
        owner.append(3)
        owner.append()
        owner.append(2)
        owner.wait()

    def make() -> Owner:
        owner = Owner(options=ManualOptions(frame_bytes_max=16))
        owner.disk.write_bytes_max = 50
        return owner

    assert survives(make, Owner.commit, step, whole=True) > 20


def test_records_appended_during_a_commit_are_not_acknowledged_with_it() -> None:
    """P2: The durable LSN is that of the synced batch, whatever was appended during the sync."""
    owner = Owner()

    def append_beside(operation: str, path: str) -> None:
        if operation == "sync":
            owner.disk.before = None
            owner.append()

    for _ in range(2):  # first the flusher commits, then the waiter itself
        owner.append()
        lsn = owner.last_lsn
        owner.disk.before = append_beside
        owner.state.wait_durable(lsn)
        assert owner.state.journal.durable_lsn == lsn
        owner.wait()
    owner.end()


# --- trust in what recovery reads ---


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_frames_of_a_killed_process_are_synced_before_they_are_trusted(
    durability: Durability,
) -> None:
    """P2: A frame that was only in memory at a kill survives later crashes once recovery yields it.

    That includes crashes during recovery.
    """

    def prepare(owner: Owner) -> None:
        owner.commit()
        owner.append()
        owner.disk.before = crash_before(owner, "sync")
        kill(owner, Owner.close)

    owner = Owner(durability)
    prepare(owner)
    owner.reopen()
    assert owner.last_lsn == 2, "recovery yields the record"
    owner.end()
    assert survives(lambda: Owner(durability), prepare, Owner.reopen) > 5


def kill(owner: Owner, step: Step) -> None:
    """Run `step` until the process dies where `before` says so."""
    with suppress(OSError, FailedError):
        step(owner)
    assert owner.disk.crashed
    owner.disk.before = None
    owner.crash(None)


def crash_before(owner: Owner, operation: Operation) -> Callable[[Operation, str], None]:
    """Return a hook that crashes the disk before `operation`."""
    return lambda called, _: owner.disk.crash_after(0) if called == operation else None


def test_names_are_synced_before_they_are_trusted() -> None:
    """P2, P5: Useless segments are removed only after the checkpoints' names are durable.

    A kill may leave the names of both checkpoints only in memory.
    """

    def prepare(owner: Owner) -> None:
        def commit_beside(operation: str, path: str) -> None:
            if operation == "rename" and path.endswith(".json"):
                owner.disk.before = None
                owner.commit()
                owner.disk.crash_after(1)  # after the rename, before the sync of the directory

        owner.commit(2)
        owner.disk.before = commit_beside
        kill(owner, Owner.compact)
        owner.reopen()  # at an LSN after the first checkpoint
        owner.disk.before = crash_before(owner, "sync_directory")
        kill(owner, Owner.compact)

    assert survives(rolling, prepare, Owner.reopen, whole=True) > 5


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_records_that_a_reopen_yields_after_a_failed_sync_are_durable(
    durability: Durability,
) -> None:
    """P2: After a failed sync, clean pages may not be on disk. A reopen yields only durable
    records."""
    last_lsns = set()
    for choose in every_choice():
        owner = Owner(durability)
        owner.commit()
        owner.compact()
        owner.append()
        owner.disk.fail("sync", errno.EIO)
        owner.disk.failed_sync = outcome_of(choose)
        with pytest.raises(FailedError):
            owner.wait() if durability == "disk" else owner.compact()
        with pytest.raises(FailedError):
            owner.append()
        owner.give_up()
        owner.disk.before = None
        owner.reopen()
        last_lsns.add(owner.last_lsn)
        owner.crash(lambda width: 1)
        owner.reopen()
        owner.end()
    assert last_lsns == {1, 2}


def test_a_failed_sync_of_the_directory_acknowledges_nothing() -> None:
    """P2: Nothing is acknowledged in a segment whose name may be lost."""
    owner = Owner()
    owner.append()
    owner.disk.fail("sync_directory", errno.EIO)
    with pytest.raises(FailedError):
        owner.wait()
    owner.give_up()
    owner.reopen()
    owner.commit()
    owner.crash(lambda width: 1)
    owner.reopen()
    owner.end()


def test_close_reports_a_failed_sync() -> None:
    """P2: With durability "os", `close` raises FailedError if the final sync fails.

    All written records counted as durable until then, and they may now be lost.
    """
    owner = Owner("os")
    owner.commit()
    owner.disk.fail("sync", errno.EIO)
    with pytest.raises(FailedError):
        owner.close()


# --- os durability ---


def test_a_checkpoint_is_never_ahead_of_its_log() -> None:
    """P5: With durability "os", the log is synced before a checkpoint states that it was."""

    def prepare(owner: Owner) -> None:
        owner.commit(2)

    assert survives(lambda: Owner("os"), prepare, Owner.compact) > 20


def test_a_segment_is_synced_before_the_next_one_begins() -> None:
    """P5: Also with durability "os", a segment is synced before the next one is made."""

    def step(owner: Owner) -> None:
        owner.commit()
        assert len(segments(owner)) == 2

    assert survives(lambda: rolling("os"), Owner.commit, step) > 20


# --- compaction ---


def test_a_checkpoint_in_the_middle_of_a_frame_replays_the_rest() -> None:
    """P6: If a checkpoint covers a part of a frame, exactly the rest of the frame is replayed."""
    owner = Owner()
    owner.append()

    def freeze() -> tuple[int, list[Any]]:
        items = list(owner.state.machine.freeze())
        owner.append()
        return 1, items

    owner.state.journal.compact(freeze).close()
    owner.wait()
    owner.crash(None)
    owner.reopen()
    assert owner.state.journal.checkpoint is not None
    assert (owner.state.journal.checkpoint.lsn, owner.last_lsn) == (1, 2)
    [data] = [data for name, data in files(owner.disk).items() if name.endswith(".seg")]
    assert len(decode_segment(data).frames[0].records) == 2
    owner.end()


def segments(owner: Owner) -> list[SegmentName]:
    return segment_names(list(files(owner.disk)))


def checkpoint_lsns(owner: Owner) -> list[int]:
    return [int(name[11:31]) for name in files(owner.disk) if name.endswith(".json")]


def compact_twice(owner: Owner) -> None:
    """Make ten segments, of which the sixth has only a torn tail, and remove three of them."""
    owner.commit(3)
    owner.compact()
    owner.commit(2)
    owner.append()

    def tear(operation: str, path: str) -> None:
        if operation == "sync_directory":  # the segment now exists
            owner.disk.before = crash_before(owner, "sync")

    owner.disk.before = tear
    with suppress(FailedError):
        owner.wait()
    owner.disk.before = None
    owner.crash(lambda width: 2)
    owner.reopen()
    owner.commit()
    owner.compact()
    owner.commit(3)
    assert [name.first_lsn for name in segments(owner)] == [4, 5, 6, 6, 7, 8, 9]


def test_files_that_a_compaction_removes_never_return() -> None:
    """P8: After a compaction has returned, no power cut restores the files that it removed."""
    owner = rolling()
    compact_twice(owner)
    owner.compact()
    remaining = files(owner.disk)
    owner.crash(lambda width: 1)
    assert files(owner.disk) == remaining


def test_files_of_an_undone_removal_are_ignored_and_removed_again() -> None:
    """P5, P8: Any of the removed segments and checkpoints may be back after a crash.

    Segments that end at or below the checkpoint are ignored, even with gaps, and removed again.
    """

    first_lsns = set()
    for owner in crashes(rolling, compact_twice, Owner.compact, whole=True):
        assert not owner.alarms(), "P4: a crash is no damage"
        first_lsns.add(tuple(name.first_lsn for name in segments(owner)))
        owner.reopen()
        assert not [name for name in files(owner.disk) if name.endswith(".tmp")]
        older_lsn, _ = checkpoint_lsns(owner)
        first, *later = segments(owner)
        assert first.first_lsn <= older_lsn + 1
        assert all(name.first_lsn > older_lsn + 1 for name in later)
        owner.end()
    assert (4, 6, 7, 8, 9) in first_lsns


def test_files_of_an_undone_removal_are_ignored_by_the_older_checkpoint() -> None:
    """P2, P5: If the newest checkpoint is damaged, the older one also ignores the removed segments.

    The last of them ends at the older checkpoint.
    """

    for owner in crashes(rolling, compact_twice, Owner.compact, whole=True):
        rot(owner, -1)
        owner.reopen()
        owner.end()


def rot(owner: Owner, index: int) -> None:
    """Flip a bit of a checkpoint. Index 0 is the oldest."""
    names = sorted(name for name in files(owner.disk) if name.endswith(".json"))
    owner.rot(names[index], 40)


@pytest.mark.parametrize("compactions", [1, 2, 3])
def test_a_damaged_newest_checkpoint_after_a_compaction_loses_nothing(compactions: int) -> None:
    """P2, P5: Files are removed only if two checkpoints make them useless.

    The first compaction removes nothing.
    """
    owner = rolling()
    for _ in range(compactions):
        owner.commit(4)
        owner.compact()
    rot(owner, -1)
    owner.crash(lambda width: 1)
    owner.reopen()
    owner.end()


@pytest.mark.parametrize("index", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_compaction_beside_a_damaged_checkpoint_loses_nothing(index: int) -> None:
    """P2, P5: A new checkpoint is durable before files are removed, so a damaged one is not missed.

    It does not matter where a crash interrupts the compaction.
    """

    def prepare(owner: Owner) -> None:
        compact_twice(owner)
        rot(owner, index)

    assert survives(rolling, prepare, Owner.compact, whole=True) > 20


def test_a_process_counts_only_the_checkpoints_that_it_saw_verify() -> None:
    """P2, P5: A process that found one good checkpoint at open keeps what that checkpoint needs.

    The next compaction removes no segment after it, so the newer checkpoint may be damaged in turn.
    """
    owner = rolling()
    for _ in range(2):
        owner.commit(3)
        owner.compact()
    rot(owner, -1)
    owner.end()
    owner.reopen()
    owner.commit(3)
    owner.compact()
    rot(owner, -1)
    owner.end()
    owner.reopen()
    owner.end()


@pytest.mark.parametrize(
    ("compactions", "commits"),
    slow_unless(lambda *counts: counts == (1, 1), product(range(3), range(2))),
)
def test_a_backup_beside_a_compaction_is_complete(compactions: int, commits: int) -> None:
    """P1, P2: A backup opens with all that was durable at its beginning.

    It does so wherever in the backup a compaction publishes a checkpoint and removes segments.
    """
    strikes_at = 0
    while back_up(compactions, commits, strikes_at):
        strikes_at += 1
    assert strikes_at > 5


def back_up(compactions: int, commits: int, strikes_at: int) -> bool:
    """Back up, and compact at operation `strikes_at`. Return False if there are fewer
    operations."""
    owner = rolling()
    for _ in range(compactions):
        owner.commit(2)
        owner.compact()
    owner.commit(commits)
    durable_lsn, calls, struck = owner.last_lsn, count(), False

    def compact_beside(operation: str, path: str) -> None:
        nonlocal struck
        if not struck and next(calls) == strikes_at:
            struck = True
            owner.commit(2)
            owner.compact()

    owner.disk.before = compact_beside
    report = owner.state.journal.backup("/backup")
    owner.disk.before = None
    with open_checked(owner.history, "/backup", owner.options, owner.disk) as copy:
        assert copy.journal.last_lsn == report.lsn >= durable_lsn
    owner.end()
    return struck
