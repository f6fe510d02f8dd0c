"""The journal's files on disk, and their replay."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    CompactedError,
    Entry,
    Journal,
    Options,
)
from journal.testing import SimulatedDisk, lose
from tests.support import (
    PATH,
    Held,
    Watched,
    crash,
    end_of,
    frozen,
    logged,
    names,
    on_disk,
    open_on,
    put,
    put_lines,
    read_all,
    reopened,
    segments,
    until,
    write_at,
)

# --- segments ---


def sizes(disk: SimulatedDisk) -> list[int]:
    return [len(disk.contents(PATH)[name]) for name in names(disk, ".seg")]


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_a_segment_gets_its_name_when_it_is_complete(
    disk: SimulatedDisk, durability: Literal["disk", "os"]
) -> None:
    """P5: A segment is written, synced and renamed, and its name is synced, before its first frame.

    Before all that, the segment before it is synced.
    """
    with open_on(disk, durability=durability) as journal:
        put_lines(journal, 4, size=900)
        first, second = "00000000000000000001-0000000001.seg", "00000000000000000005-0000000001.seg"
        assert names(disk, ".seg") == [first]
        count_before = len(disk.operations)
        put_lines(journal, 1, size=900)
        assert names(disk, ".seg") == [first, second]
    steps = [(operation, path.removeprefix(f"{PATH}/")) for operation, path in disk.operations]
    of_first = [operation for operation, path in steps[:count_before] if path.startswith(first)]
    assert of_first[:5] == ["create", "allocate", "write", "sync", "rename"]
    second_steps = [step for step in steps[count_before:] if step[0] not in ("truncate", "remove")]
    assert second_steps[:8] == [
        ("sync", f"{first}.tmp"),  # the name that the segment was made with
        ("create", f"{second}.tmp"),
        ("allocate", f"{second}.tmp"),
        ("write", f"{second}.tmp"),
        ("sync", f"{second}.tmp"),
        ("rename", second),
        ("sync_directory", PATH),
        ("write", f"{second}.tmp"),
    ]


def test_a_segment_ends_at_its_size(disk: SimulatedDisk) -> None:
    """P8: A segment has at most `segment_bytes`, and unused preallocated space is released.

    Each segment begins where the last one ends.
    """
    with open_on(disk, segment_bytes=5000) as journal:
        put_lines(journal, 60, size=300)
        assert max(sizes(disk)) <= 5000
    assert len(names(disk, ".seg")) >= 4
    assert max(sizes(disk)) <= 5000
    assert not any(segment.rest for segment in segments(disk))
    firsts = [segment.header.first_lsn for segment in segments(disk)]
    counts = [sum(len(f.records) for f in segment.frames) for segment in segments(disk)]
    assert [b - a for a, b in pairwise(firsts)] == counts[:-1]
    assert [record[0] for record in reopened(disk)] == [*range(1, 61)]


def test_a_commit_larger_than_a_segment_gets_one_of_its_own(disk: SimulatedDisk) -> None:
    """P2: A commit is never split between segments, so that one sync covers all of it."""
    with open_on(disk, frame_bytes_max=5000) as journal:
        put(journal, 1)
        for _ in range(4):
            journal.append(b"x" * 3000)
        journal.wait_durable()
        put(journal, 2)
    assert [len(segment.frames) for segment in segments(disk)] == [1, 4, 2]
    assert [len(record) for record in reopened(disk)[1:-1]] == [3000] * 4


def test_a_segment_is_preallocated(disk: SimulatedDisk) -> None:
    """A segment has its full size while it is written, so a commit changes no size."""
    with open_on(disk) as journal:
        put(journal, 1)
        assert sizes(disk) == [4096]
        put(journal, 2)
        assert sizes(disk) == [4096]


@pytest.mark.parametrize("idle", [True, False])
def test_close_marks_and_trims(disk: SimulatedDisk, idle: bool) -> None:
    """P4: A clean close writes one mark that states what is durable, and leaves no zeros after
    it."""
    with open_on(disk) as journal:
        put(journal, 1)
        if idle:
            until(lambda: len(segments(disk)[0].frames) == 2, "the idle mark")
        writes = sum(operation == "write" for operation, _ in disk.operations)
    (segment,) = segments(disk)
    assert segment.rest == b""
    assert (segment.frames[1].first_lsn, segment.frames[1].durable_lsn) == (2, 1)
    assert not segment.frames[1].records
    assert sum(operation == "write" for operation, _ in disk.operations) == writes + (not idle)


def test_the_next_frame_overwrites_the_idle_mark(disk: SimulatedDisk) -> None:
    """P4: A mark states what is durable, costs no sync, and is overwritten by the next frame."""
    with open_on(disk) as journal:
        for lsn in range(1, 4):
            put(journal, lsn)
            watched = Watched(disk)
            until(lambda n=lsn: len(segments(disk)[0].frames) == n + 1, "the mark")  # type: ignore[misc]
            assert watched.of("sync") == 0
            *frames, mark = segments(disk)[0].frames
            assert [frame.records for frame in frames] == [(n,) for n in range(1, lsn + 1)]
            assert (mark.first_lsn, mark.durable_lsn, mark.records) == (lsn + 1, lsn, ())
    assert on_disk(disk) == [1, 2, 3]


def test_marks_state_only_synced_lsns(disk: SimulatedDisk) -> None:
    """P4: With durability "os", frames and idle marks state the synced LSN, and no newer one."""
    with open_on(disk, durability="os") as journal:
        put(journal, 1)
        put(journal, 2)
        assert journal.durable_lsn == 2
        crash(journal, disk)
    assert [frame.durable_lsn for frame in segments(disk)[0].frames] == [0, 0]


@pytest.mark.parametrize("durability", ["disk", "os"])
def test_the_next_open_trims_a_tail_of_zeros(
    disk: SimulatedDisk, durability: Literal["disk", "os"]
) -> None:
    """P8: Space that a killed process had preallocated is released, and no other byte changes."""
    journal = open_on(disk, durability=durability)
    put(journal, 1, 2)
    crash(journal, disk)
    (name,) = names(disk, ".seg")
    before = disk.contents(PATH)[name]
    assert len(before) == 4096
    assert reopened(disk) == [1, 2]
    assert disk.contents(PATH)[name] == before.rstrip(b"\0")


@pytest.mark.parametrize("marked", [True, False])
def test_a_torn_tail_is_not_changed(disk: SimulatedDisk, marked: bool) -> None:
    """A torn tail and the zeros after it are neither cut nor rewritten.

    The segment of the next epoch begins at the first lost LSN, and so cuts the log there.
    """
    journal = open_on(disk)
    put(journal, 1, 2)
    if marked:
        until(lambda: len(segments(disk)[0].frames) == 3, "the mark")
    crash(journal, disk)
    (name,) = names(disk, ".seg")
    write_at(disk, name, end_of(disk, name) + 3, b"torn")
    before = disk.contents(PATH)[name]
    with open_on(disk) as journal:
        assert logged(journal) == [1, 2]
        assert names(disk, ".seg") == [name]
        put(journal, 3)
    assert disk.contents(PATH)[name] == before
    assert names(disk, ".seg") == [name, "00000000000000000003-0000000002.seg"]
    assert reopened(disk) == [1, 2, 3]


# --- durability "os" ---


def test_os_durability_syncs_no_commit(disk: SimulatedDisk) -> None:
    """With "os", commits do not sync. The end of a segment, a checkpoint and a close do."""
    with open_on(disk, durability="os") as journal:
        put(journal, 0)
        watched = Watched(disk)
        put(journal, *range(1, 20))
        assert (watched.of("sync"), watched.of("write")) == (0, 19)
        frames = segments(disk)[0].frames
        assert {frame.durable_lsn for frame in frames} == {0}
        journal.compact(frozen(journal))
        assert watched.of("sync") == 2  # the log's and the checkpoint's
        put(journal, 20)
        assert segments(disk)[0].frames[-1].durable_lsn == 20
        put_lines(journal, 1, size=4000)
        assert segments(disk)[1].frames[0].durable_lsn == 21
        del watched.calls[:]
    assert watched.of("sync") == 1
    disk.power_cut(lose)
    assert len(reopened(disk)) == 22


def test_os_durability_survives_a_kill(disk: SimulatedDisk) -> None:
    """P2: With "os", acknowledged records survive a kill, and synced ones survive a power cut."""
    journal = open_on(disk, durability="os")
    put(journal, 1, 2)
    journal.compact(frozen(journal, "as of 2"))
    put(journal, 3, 4)
    crash(journal, disk)
    journal = open_on(disk, durability="os")
    assert logged(journal, 0) == [1, 2, 3, 4]
    put(journal, 5)
    crash(journal, disk)
    disk.power_cut(lose)  # recovery had synced 3 and 4; 5 was not
    assert reopened(disk) == [1, 2, 3, 4]


# --- replay ---


def test_replay_yields_the_records_after_an_lsn(disk: SimulatedDisk) -> None:
    """A replay yields the records after LSN `after` from all segments and epochs.

    By default it begins after the newest checkpoint.
    """
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        journal.compact(frozen(journal))
    with open_on(disk) as journal:
        put_lines(journal, 6, size=700)
        assert [entry.lsn for entry in journal.replay()] == [*range(13, 19)]
        for after in range(25):
            lsns = [entry.lsn for entry in journal.replay(after)]
            assert lsns == [*range(after + 1, 19)]
        with pytest.raises(ValueError, match="after must be an LSN, at least 0, not -1"):
            journal.replay(-1)


def test_an_entry_states_its_place(disk: SimulatedDisk) -> None:
    """An entry has LSN, epoch, record and time. Offset and path are set only by a reader."""
    with open_on(disk) as journal:
        began_ns = disk.clock_ns
        put(journal, "a")
        journal.wait_durable(journal.append_batch(["b", "c"]))
        first, second, third = journal.replay()
        assert (first.lsn, first.epoch, first.record) == (1, 1, "a")
        assert (first.offset, first.path) == (None, None)
        assert began_ns <= first.written_at_ns < second.written_at_ns == third.written_at_ns
        assert third == Entry(3, 1, third.written_at_ns, "c")


def test_replay_yields_what_is_durable_at_the_call(disk: SimulatedDisk) -> None:
    """P2: A replay yields neither records that are not durable at the call nor later ones."""
    with open_on(disk) as journal:
        put(journal, 1, 2)
        journal.append(3)
        entries = journal.replay()
        put(journal, 4)
        assert [entry.record for entry in entries] == [1, 2]
        with Held(disk, "sync", ".seg") as held:
            journal.append(5)
            with pytest.raises(TimeoutError):
                journal.wait_durable(timeout_s=0.001)
            held.wait_reached()
            assert logged(journal) == [1, 2, 3, 4]


def test_replay_below_the_oldest_kept_lsn_is_refused(disk: SimulatedDisk) -> None:
    """A replay of removed records raises CompactedError with the first LSN that can be replayed."""
    with open_on(disk) as journal:
        for _ in range(3):
            put_lines(journal, 10, size=700)
            journal.compact(frozen(journal))
        with pytest.raises(CompactedError, match="LSN 1 is no longer kept") as caught:
            list(journal.replay(0))
        first_lsn = caught.value.first_lsn
        assert 1 < first_lsn <= 21
        assert [e.lsn for e in journal.replay(first_lsn - 1)] == [*range(first_lsn, 31)]
        with pytest.raises(CompactedError):
            list(journal.replay(first_lsn - 2))
        assert read_all(disk)[0][0] >= first_lsn


def test_a_replay_that_compaction_overtakes_is_refused(disk: SimulatedDisk) -> None:
    """P1: A replay whose next segment was removed raises CompactedError. It skips no record."""
    with open_on(disk) as journal:
        put_lines(journal, 30, size=700)
        entries = journal.replay(0)
        lsns = [next(entries).lsn]
        for _ in range(2):
            put(journal, "more")
            journal.compact(frozen(journal))
        with pytest.raises(CompactedError):
            lsns += [entry.lsn for entry in entries]
        assert lsns == [*range(1, len(lsns) + 1)]


@pytest.mark.parametrize("durability", ["disk", "os"])
@given(runs=st.lists(st.lists(st.booleans(), max_size=6), max_size=4))
def test_a_kill_loses_nothing_acknowledged(
    durability: Literal["disk", "os"], runs: list[list[bool]]
) -> None:
    """P1, P2: After each kill, the log is a prefix of the appended records with all acknowledged
    ones.

    A reader written from the page sees the same.
    """
    disk = SimulatedDisk()
    log: list[int] = []
    for waits in runs:
        journal = open_on(disk, durability=durability)
        assert logged(journal) == log
        for wait in waits:
            log.append(len(log))
            journal.append(log[-1])
            if wait:
                journal.wait_durable()
        durable_lsn = journal.durable_lsn
        crash(journal, disk)
        records = on_disk(disk)
        assert durable_lsn <= len(records)
        assert records == log[: len(records)]
        log = records


def test_leaving_a_with_closes_the_journal(tmp_path: Path) -> None:
    """A `with` gives the journal itself and closes it at its end. Options take effect."""
    with Journal.open(tmp_path / "j", options=Options(durability="os")) as journal:
        assert isinstance(journal, Journal)
        assert journal.append(1) == 1
        assert "epoch=1 last_lsn=1" in repr(journal)
    assert journal.closed
    assert "closed" in repr(journal)
