"""One compaction: what it publishes, what it keeps, and what it removes."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    CheckpointItemError,
    CorruptionError,
    DurableState,
)
from journal.testing import SimulatedDisk, lose
from tests.engine.compaction_support import checkpoint_lsns, compact, first_lsns, setting
from tests.independent_reader import decode_checkpoint
from tests.support import (
    PATH,
    TIMEOUT_S,
    Table,
    crash,
    frozen,
    logged,
    names,
    open_on,
    options,
    put,
    put_lines,
    reopened,
)

# --- one compaction ---


def test_a_checkpoint_contains_the_frozen_items(disk: SimulatedDisk) -> None:
    """P6: A checkpoint has the frozen items, and its LSN, epoch, count and application, as read by
    this engine and by a reader that follows the format page."""
    items = [{"id": "é✓", "n": 1}, None, [1.5, "a\nb"], {}, "x" * 100_000, *range(1000)]
    with open_on(disk, application="mine/2") as journal:
        put(journal, *range(5))
        checkpoint = compact(journal, *items)
        assert (checkpoint.lsn, checkpoint.epoch, checkpoint.count) == (5, 1, len(items))
        assert checkpoint.application == "mine/2"
        assert 0 < checkpoint.created_at_ms < disk.clock_ns // 1_000_000
        assert checkpoint.path == f"{PATH}/checkpoint-{5:020d}.json"
        assert list(checkpoint.items()) == items == list(checkpoint.items())
        assert "lsn=5" in repr(checkpoint)
        assert journal.checkpoint is None  # this opening did not start from a checkpoint
        page = decode_checkpoint(disk.contents(PATH)[checkpoint.path.rpartition("/")[2]])
        assert (page.items, page.lsn, page.application) == (tuple(items), 5, "mine/2")
        assert page.journal_id.hex() == journal.journal_id
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert (journal.checkpoint.lsn, journal.checkpoint.epoch) == (5, 1)
        assert list(journal.checkpoint.items()) == items
        assert logged(journal, None) == []


@given(items=st.lists(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(), lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(), inner, max_size=3)), max_size=20))  # fmt: skip
def test_any_json_is_read_back(items: list[Any]) -> None:
    """P6: Any JSON item is read back unchanged, by the engine and by an independent reader."""
    disk = SimulatedDisk()
    with open_on(disk) as journal:
        put(journal, 1)
        checkpoint = compact(journal, *items)
        assert repr(list(checkpoint.items())) == repr(items)
    (name,) = names(disk, ".json")
    assert repr(list(decode_checkpoint(disk.contents(PATH)[name]).items)) == repr(items)


@pytest.mark.parametrize(
    "bad", [float("nan"), float("inf"), {1: 2}, (1,), {1, 2}, ..., "\ud800", {(1,): 2}], ids=repr
)
def test_an_unsupported_item_ends_the_compaction(disk: SimulatedDisk, bad: Any) -> None:
    """An item that a checkpoint can't represent raises an error in the caller. No file of the
    attempt remains, no other file is removed, and the log continues."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        before = disk.contents(PATH)
        with pytest.raises(CheckpointItemError, match="item 1 of the checkpoint"):
            compact(journal, 1, bad)
        assert disk.contents(PATH) == before
        put(journal, "on")
        compact(journal, "good")
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == ["good"]


def test_an_empty_journal_can_be_compacted(disk: SimulatedDisk) -> None:
    """A journal without records or items can be compacted, and compacting it again changes
    nothing."""
    with open_on(disk) as journal:
        for _ in range(3):
            checkpoint = compact(journal)
            assert (checkpoint.lsn, checkpoint.count, list(checkpoint.items())) == (0, 0, [])
        assert checkpoint_lsns(disk) == [0]
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert journal.checkpoint.lsn == 0
        put(journal, 1)
    assert reopened(disk) == [1]


def test_compact_needs_a_freeze(disk: SimulatedDisk) -> None:
    """`compact` without a freeze uses that of `start_compaction`, and raises ValueError if there is
    none."""
    with open_on(disk) as journal:
        put(journal, 1)
        with pytest.raises(ValueError, match="freeze"):
            journal.compact()
        journal.start_compaction(frozen(journal, "started"))
        assert list(journal.compact().items()) == ["started"]
        assert list(compact(journal, "given").items()) == ["given"]


def test_compaction_can_be_started_once(disk: SimulatedDisk) -> None:
    """A second `start_compaction` raises RuntimeError, and the first one stays in force."""
    with open_on(disk) as journal:
        journal.start_compaction(frozen(journal, 1))
        with pytest.raises(RuntimeError, match="already started"):
            journal.start_compaction(frozen(journal, 2))
        put(journal, 1)
        assert list(journal.compact().items()) == [1]


def test_freeze_is_called_once_and_iterated_later(disk: SimulatedDisk) -> None:
    """`freeze` is called once per compaction, and its items are read afterwards in the same
    thread."""
    calls = []

    def freeze() -> tuple[int, Iterator[int]]:
        calls.append("freeze")

        def items() -> Iterator[int]:
            calls.append(threading.current_thread().name)
            yield 1

        return journal.last_lsn, items()

    with open_on(disk) as journal:
        put(journal, 1)
        journal.compact(freeze)
    assert calls == ["freeze", "MainThread"]


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_the_log_is_synced_before_the_checkpoint_is_published(
    disk: SimulatedDisk, durability: Literal["disk", "os"]
) -> None:
    """P2, P10: Records that a checkpoint covers are on stable storage before the checkpoint has its
    name, also with durability `os`, and also if nobody waited for them."""
    with open_on(disk, durability=durability) as journal:
        journal.append("a")
        put(journal, "b")
        journal.append("c")
        compact(journal, "as of 3")
        assert journal.durable_lsn == 3
        assert journal.stats().synced_lsn == 3
        disk.power_cut(lose)
        crash(journal, disk)
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert (journal.checkpoint.lsn, logged(journal)) == (3, ["a", "b", "c"])


def test_a_checkpoint_is_published_atomically(disk: SimulatedDisk) -> None:
    """P10: A checkpoint is written under a temporary name, synced and renamed, and then the
    directory is synced. Only after that are files removed, and the directory synced again."""
    with open_on(disk) as journal:
        for _ in range(2):
            put_lines(journal, 12, size=700)
            compact(journal, *range(5))
        done = len(disk.operations)
        put(journal, 1)
        done = len(disk.operations)
        compact(journal, *range(5))
        steps = [
            (operation, path.rpartition("/")[2][:10]) for operation, path in disk.operations[done:]
        ]
    assert steps[:5] == [
        ("create", "checkpoint"),
        ("write", "checkpoint"),
        ("sync", "checkpoint"),
        ("rename", "checkpoint"),
        ("sync_directory", "journal"),
    ]
    *removals, last = steps[5:]
    assert last == ("sync_directory", "journal")
    assert removals
    assert {operation for operation, _ in removals} == {"remove"}


# --- retention ---


def test_two_checkpoints_are_kept_with_the_segments_after_the_older(disk: SimulatedDisk) -> None:
    """P8: No file is removed before two checkpoints verified. From then on, exactly the files that
    neither of them needs are removed."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        compact(journal, 1)
        assert (checkpoint_lsns(disk), first_lsns(disk)[0]) == ([12], 1)
        for _ in range(4):
            put_lines(journal, 12, size=700)
            compact(journal, 1)
            older, newer = checkpoint_lsns(disk)
            assert (older, newer) == (journal.last_lsn - 12, journal.last_lsn)
            assert first_lsns(disk)[0] <= older + 1 < first_lsns(disk)[1]
            assert [record[0] for record in logged(journal, older)] == [
                *range(older + 1, newer + 1)
            ]


@pytest.mark.parametrize("kept", [2, 3, 5])
def test_the_chosen_number_of_checkpoints_is_kept(disk: SimulatedDisk, kept: int) -> None:
    """P8: `checkpoints_kept` checkpoints are kept, with the segments after the oldest, also across
    openings."""
    for life in range(1, 8):
        with open_on(disk, checkpoints_kept=kept) as journal:
            put_lines(journal, 12, size=700)
            compact(journal, life)
            lsns = [n * 12 for n in range(1, life + 1)][-kept:]
            assert checkpoint_lsns(disk) == lsns
            if life >= kept:
                assert first_lsns(disk)[0] <= lsns[0] + 1 < first_lsns(disk)[1]
            else:
                assert first_lsns(disk)[0] == 1
    with open_on(disk) as journal:
        assert logged(journal, None) == []


def test_checkpoints_of_one_lsn_count_once(disk: SimulatedDisk) -> None:
    """P8: A checkpoint that is made again at the same LSN counts once, and causes no removal."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        for n in range(3):
            compact(journal, n)
        assert (checkpoint_lsns(disk), first_lsns(disk)[0]) == ([12], 1)
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == [2]


@pytest.mark.parametrize("bad", ["older", "newer"])
def test_a_rotten_checkpoint_causes_no_removal(disk: SimulatedDisk, bad: str) -> None:
    """P4, P8: Only checkpoints that verified in this process count. After one rots, the next
    opening and its first compaction remove nothing that the other one needs."""
    with open_on(disk) as journal:
        for n in range(2):
            put_lines(journal, 12, size=700)
            compact(journal, n)
    older, newer = names(disk, ".json")
    rotten = {"older": older, "newer": newer}[bad]
    disk.open_directory(PATH, write=True).open(rotten, "update").write(b"?", 30)
    first_lsn = first_lsns(disk)[0]
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        good_lsn = journal.checkpoint.lsn
        assert good_lsn == {"older": 24, "newer": 12}[bad]
        assert [record[0] for record in logged(journal, None)] == [*range(good_lsn + 1, 25)]
        assert first_lsns(disk)[0] == first_lsn
        put(journal, "on")
        compact(journal, "third")
        assert 25 in checkpoint_lsns(disk)
        assert good_lsn in checkpoint_lsns(disk)
        assert first_lsns(disk)[0] <= good_lsn + 1
        put(journal, "on")
        compact(journal, "fourth")
        assert checkpoint_lsns(disk) == [25, 26]


def test_without_a_good_checkpoint_the_whole_log_is_replayed(disk: SimulatedDisk) -> None:
    """P6: If no checkpoint verifies, a log that begins at LSN 1 is replayed as a whole. A log that
    begins later lacks durable records, and open raises CorruptionError with their LSN."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        compact(journal, 1)
        put_lines(journal, 3, size=700)
    (name,) = names(disk, ".json")
    disk.open_directory(PATH, write=True).open(name, "update").write(b"?", 30)
    with open_on(disk) as journal:
        assert journal.checkpoint is None
        assert len(logged(journal)) == 15
        for _ in range(2):
            put_lines(journal, 12, size=700)
            compact(journal, 1)
    for name in names(disk, ".json"):
        disk.open_directory(PATH, write=True).open(name, "update").write(b"?", 30)
    before = disk.contents(PATH)
    with pytest.raises(CorruptionError, match="begins here, so LSN 1 "):
        open_on(disk)
    assert disk.contents(PATH) == before


def test_leftovers_of_an_unfinished_removal_are_removed(disk: SimulatedDisk) -> None:
    """P8: A crash during the removal may leave any of the files, and the next open removes them."""
    with open_on(disk) as journal:
        for n in range(2):
            put_lines(journal, 12, size=700)
            compact(journal, n)
        put_lines(journal, 12, size=700)
        disk.fail("remove", errno.EIO, after=1, times=None)
        with pytest.raises(OSError, match="EIO"):
            compact(journal, 3)
        disk.before = None
        assert checkpoint_lsns(disk) == [12, 24, 36]
        crash(journal, disk)
    with open_on(disk) as journal:
        assert checkpoint_lsns(disk) == [24, 36]
        assert first_lsns(disk)[0] <= 25 < first_lsns(disk)[1]
        assert logged(journal, None) == []
        assert len(logged(journal, 24)) == 12


@given(data=st.data())
def test_disk_space_does_not_grow_with_history(data: st.DataObject) -> None:
    """P6, P8: After any mix of updates, compactions, reopenings and kills, the newest checkpoint
    and the records after it give the state, and the files stay few."""
    disk = SimulatedDisk()
    state: dict[str, int] = {}
    steps = data.draw(
        st.lists(st.sampled_from(["put", "put", "compact", "reopen", "kill"]), max_size=25)
    )
    durable = DurableState.open(PATH, Table(), options=options(), disk=disk)
    for number, step in enumerate(steps):
        if step == "put":
            for key in ("a", "b", "c"):
                state[key] = number
                durable.update(partial(setting, key, number))
            durable.wait_durable(timeout_s=TIMEOUT_S)
        elif step == "compact":
            durable.compact()
            assert len(names(disk, ".json")) <= 2
        else:
            if step == "kill":
                crash(durable.journal, disk)
            else:
                durable.close()
            durable = DurableState.open(PATH, Table(), options=options(), disk=disk)
        assert durable.machine.content() == state
    durable.close()


def test_a_stray_name_removes_no_segment(disk: SimulatedDisk) -> None:
    """P4: A copy whose name lies inside a segment's range is refused before anything is removed."""
    with open_on(disk, segment_bytes=1 << 20) as journal:
        put_lines(journal, 2)
        compact(journal)
        put_lines(journal, 8)
        compact(journal)
    with open_on(disk) as journal:
        put_lines(journal, 1)
    original = disk.contents(PATH)["00000000000000000001-0000000001.seg"]
    directory = disk.open_directory(PATH, write=True)
    stray = directory.open("00000000000000000003-0000000001.seg", "create")
    stray.write(original, 0)
    with pytest.raises(CorruptionError, match="00000000000000000003-0000000001"):
        open_on(disk)
    assert first_lsns(disk) == [1, 3, 11]
