"""States of the disk that once broke a draft of the recovery rule, each in every outcome.

`crashes` runs a step again and again: with a crash after each number of its operations, and for
each of those with every outcome of the power cut that follows. So nothing here is left to chance.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest

from journal import FailedError
from journal._format.segment import SegmentName, segment_names
from journal.testing import ManualOptions
from journal.testing.disk import Operation
from journal.testing.owner import open_checked
from tests.crash.crash_owner import Owner, Step, crashes, nothing, rolling, survives
from tests.crash.crash_support import (
    Durability,
    every_choice,
    files,
    outcome_of,
)
from tests.independent_reader import decode_segment

# --- the end of the log ---


def test_the_first_commit_of_all() -> None:
    """P5: however little of a journal's first segment is there, it opens: it is not taken for
    somebody else's directory."""
    assert survives(Owner, nothing, Owner.commit) > 20


def test_a_mark_in_front_of_a_commit() -> None:
    """P2: a mark that is in memory only may be lost, torn or kept below the commit that is written
    over it, and takes nothing acknowledged with it."""

    def prepare(owner: Owner) -> None:
        owner.commit()
        owner.idle()

    assert survives(Owner, prepare, lambda owner: owner.commit(2)) > 20


def test_the_next_frame_is_written_over_a_mark() -> None:
    """P2: no byte in front of an acknowledged frame is unsynced, so no mark stays there."""
    owner = Owner()
    for _ in range(2):
        owner.commit()
        owner.idle()
    owner.end()
    [data] = [data for name, data in files(owner.disk).items() if name.endswith(".seg")]
    assert [len(frame.records) for frame in decode_segment(data).frames] == [1, 1, 0]


def test_a_commit_of_several_frames() -> None:
    """P3: a batch is in one frame, so a commit that is torn between frames parts no batch."""

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
    """P2: the durable LSN is that of the batch that was synced, whatever has gathered since."""
    owner = Owner()

    def append_beside(operation: str, path: str) -> None:
        if operation == "sync":
            owner.disk.before = None
            owner.append()

    for _ in range(2):  # the flusher makes the segment; then the waiter may commit by itself
        owner.append()
        lsn = owner.last_lsn
        owner.disk.before = append_beside
        owner.state.wait_durable(lsn)
        assert owner.state.journal.durable_lsn == lsn
        owner.wait()
    owner.end()


# --- trust ---


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_frames_of_a_killed_process_are_synced_before_they_are_shown(
    durability: Durability,
) -> None:
    """P2: a frame that a kill left in memory only validates, is shown, and then stays: whatever
    crash follows, and in recovery too."""

    def prepare(owner: Owner) -> None:
        owner.commit()
        owner.append()
        owner.disk.before = in_front_of(owner, "sync")
        kill(owner, Owner.close)

    owner = Owner(durability)
    prepare(owner)
    owner.reopen()
    assert owner.last_lsn == 2, "it was shown"
    owner.end()
    assert survives(lambda: Owner(durability), prepare, Owner.reopen) > 5


def kill(owner: Owner, step: Step) -> None:
    """The process dies where `before` says so."""
    with suppress(OSError, FailedError):
        step(owner)
    assert owner.disk.crashed
    owner.disk.before = None
    owner.crash(None)


def in_front_of(owner: Owner, operation: Operation) -> Callable[[Operation, str], None]:
    return lambda called, _: owner.disk.crash_after(0) if called == operation else None


def test_names_are_synced_before_they_are_trusted() -> None:
    """P2, P5: two checkpoints whose names a kill left in memory only make segments useless. Those
    are not removed before the names are durable."""

    def prepare(owner: Owner) -> None:
        def commit_beside(operation: str, path: str) -> None:
            if operation == "rename" and path.endswith(".json"):
                owner.disk.before = None
                owner.commit()
                owner.disk.crash_after(1)  # the rename, and no sync of the directory

        owner.commit(2)
        owner.disk.before = commit_beside
        kill(owner, Owner.compact)
        owner.reopen()  # at an LSN that the first checkpoint doesn't cover
        owner.disk.before = in_front_of(owner, "sync_directory")
        kill(owner, Owner.compact)

    assert survives(rolling, prepare, Owner.reopen, whole=True) > 5


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_a_failed_sync_and_a_reopen_in_the_same_boot(durability: Durability) -> None:
    """P2: after a failed sync pages are clean that may not be on the disk. What the reopened
    journal shows is on it."""
    shown = set()
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
        shown.add(owner.last_lsn)
        owner.crash(lambda width: 1)
        owner.reopen()
        owner.end()
    assert shown == {1, 2}


def test_a_failed_sync_of_the_directory() -> None:
    """P2: nothing is acknowledged in a segment whose name may be lost."""
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


def test_close_tells_of_a_failed_sync() -> None:
    """P2: with durability "os" all that was written counts as durable, until a sync of it fails:
    then it may be gone, and `close` says so."""
    owner = Owner("os")
    owner.commit()
    owner.disk.fail("sync", errno.EIO)
    with pytest.raises(FailedError):
        owner.close()


# --- os durability ---


def test_a_checkpoint_is_never_ahead_of_its_log() -> None:
    """P5: with durability "os" the log itself is synced before a checkpoint says that it was."""

    def prepare(owner: Owner) -> None:
        owner.commit(2)

    assert survives(lambda: Owner("os"), prepare, Owner.compact) > 20


def test_a_segment_is_never_ahead_of_the_one_in_front() -> None:
    """P5: with durability "os" too a segment is synced before the next one is born."""

    def step(owner: Owner) -> None:
        owner.commit()
        assert len(segments(owner)) == 2

    assert survives(lambda: rolling("os"), Owner.commit, step) > 20


# --- compaction ---


def test_a_checkpoint_in_the_middle_of_a_frame() -> None:
    """P6: of a frame that a checkpoint covers in part, the rest is replayed, and no more."""
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
    """Ten segments in all, the sixth with a torn tail and nothing else; three are dropped."""
    owner.commit(3)
    owner.compact()
    owner.commit(2)
    owner.append()

    def tear(operation: str, path: str) -> None:
        if operation == "sync_directory":  # the segment is there
            owner.disk.before = in_front_of(owner, "sync")

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


def test_files_that_a_compaction_drops_never_return() -> None:
    """P8: when it returns, no power cut brings back what it dropped."""
    owner = rolling()
    compact_twice(owner)
    owner.compact()
    left = files(owner.disk)
    owner.crash(lambda width: 1)
    assert files(owner.disk) == left


def test_a_removal_undone_in_the_middle() -> None:
    """P5, P8: any of the removed segments and checkpoints may be back after a crash. What ends at
    the checkpoint or below is ignored, gaps and all, and removed again."""

    gaps = set()
    for owner in crashes(rolling, compact_twice, Owner.compact, whole=True):
        assert not owner.alarms(), "P4: a crash is no damage"
        gaps.add(tuple(name.first_lsn for name in segments(owner)))
        owner.reopen()
        assert not [name for name in files(owner.disk) if name.endswith(".tmp")]
        older_lsn, _ = checkpoint_lsns(owner)
        first, *behind = segments(owner)
        assert first.first_lsn <= older_lsn + 1
        assert all(name.first_lsn > older_lsn + 1 for name in behind)
        owner.end()
    assert (4, 6, 7, 8, 9) in gaps


def test_a_removal_undone_in_the_middle_and_the_newest_checkpoint_damaged() -> None:
    """P2, P5: what is left of the removed segments is ignored by the older checkpoint too, at
    which the last of them ends."""

    for owner in crashes(rolling, compact_twice, Owner.compact, whole=True):
        rot(owner, -1)
        owner.reopen()
        owner.end()


def rot(owner: Owner, index: int) -> None:
    """A bit of a checkpoint, the oldest is 0."""
    names = sorted(name for name in files(owner.disk) if name.endswith(".json"))
    owner.rot(names[index], 40)


@pytest.mark.parametrize("compactions", [1, 2, 3])
def test_the_newest_checkpoint_damaged_just_after_a_compaction(compactions: int) -> None:
    """P2, P5: nothing is dropped that only one checkpoint makes useless, after the first
    compaction nothing at all."""
    owner = rolling()
    for _ in range(compactions):
        owner.commit(4)
        owner.compact()
    rot(owner, -1)
    owner.crash(lambda width: 1)
    owner.reopen()
    owner.end()


@pytest.mark.parametrize("index", [0, 1])
def test_a_compaction_while_one_checkpoint_is_damaged(index: int) -> None:
    """P2, P5: a checkpoint is durable before anything is dropped, so one that rots is not missed,
    wherever the next compaction is cut."""

    def prepare(owner: Owner) -> None:
        compact_twice(owner)
        rot(owner, index)

    assert survives(rolling, prepare, Owner.compact, whole=True) > 20


def test_a_process_counts_only_the_checkpoints_that_it_saw_verify() -> None:
    """P2, P5: with one good checkpoint found at open, the next compaction keeps what that one
    needs; so the newer may rot in its turn."""
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


@pytest.mark.parametrize("compactions", [0, 1, 2])
@pytest.mark.parametrize("commits", [0, 1])
def test_a_backup_beside_a_compaction(compactions: int, commits: int) -> None:
    """P1, P2: wherever in a backup a checkpoint is published and segments are dropped, the copy
    opens, and has all that was durable when the backup began."""
    strikes_at = 0
    while back_up(compactions, commits, strikes_at):
        strikes_at += 1
    assert strikes_at > 5


def back_up(compactions: int, commits: int, strikes_at: int) -> bool:
    """Whether the backup had so many operations that a compaction struck between them."""
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
