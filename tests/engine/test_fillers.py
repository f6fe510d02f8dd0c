"""Fillers: an idle state gives space back at once, and no machine applies what that appends."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import DurableState, Journal, JournalReader, Tables, pack, repair
from journal.testing import SimulatedDisk, lose
from tests.engine.compaction_support import checkpoint_lsns, first_lsns
from tests.support import PATH, TIMEOUT_S, crash, names, options, segments, until

SEGMENT_BYTES = 4096


class Applied:
    """A machine that keeps the last value of each key, and all records that it applied."""

    application = "applied/1"

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.applied: list[tuple[int, Any]] = []

    def load(self, item: Any) -> None:
        self.values[item[0]] = item[1]

    def apply(self, lsn: int, record: Any) -> None:
        self.applied.append((lsn, record))
        if record is not None:
            self.values[record[0]] = record[1]

    def freeze(self) -> list[Any]:
        return [list(item) for item in self.values.items()]


def opened(disk: SimulatedDisk, **more: Any) -> DurableState[Applied]:
    small = options(segment_bytes=SEGMENT_BYTES, **more)
    return DurableState.open(PATH, Applied(), options=small, disk=disk)


def _returning(record: Any, _: Applied) -> Any:
    return record


def fill_segments(state: DurableState[Applied], count: int = 8) -> None:
    """Commit records that take `count` segments, and leave a small state."""
    for n in range(count):
        record = ["a", f"{n}" * (SEGMENT_BYTES - 400)]
        state.update(partial(_returning, record))
        state.wait_durable()
    state.update(lambda _: ["a", 0])
    state.wait_durable()


def disk_bytes(disk: SimulatedDisk) -> int:
    return sum(map(len, disk.contents(PATH).values()))


def test_one_compaction_of_an_idle_state_gives_space_back(disk: SimulatedDisk) -> None:
    """P8: After one `compact()` on an idle state, one segment and two checkpoints are left."""
    with opened(disk) as state:
        fill_segments(state)
        assert len(names(disk, ".seg")) == 8
        checkpoint = state.compact()
        assert checkpoint.lsn == state.journal.last_lsn == 10
        assert list(checkpoint.items()) == [["a", 0]]
        assert checkpoint_lsns(disk) == [9, 10]
        assert first_lsns(disk) == [10]
        assert disk_bytes(disk) < 2 * SEGMENT_BYTES
        assert state.stats().compactions == 1
    with opened(disk) as state:
        assert state.machine.values == {"a": 0}


@pytest.mark.parametrize(("count", "lsn"), [(8, 10), (2, 4), (1, 2)])
def test_one_compaction_gives_space_back_after_changes(
    disk: SimulatedDisk, count: int, lsn: int
) -> None:
    """P8: One `compact()` right after changes gives space back, however far the log is from the
    size that makes a compaction due, but not for less than a quarter of a segment."""
    with opened(disk, checkpoint_min_bytes=1 << 30) as state:
        fill_segments(state, count)
        assert state.compact().lsn == state.journal.last_lsn == lsn
        assert len(names(disk, ".seg")) == 1


def test_the_compactor_thread_appends_no_filler(disk: SimulatedDisk) -> None:
    """P8: A compaction that the log's growth made due appends nothing to an idle log."""
    with opened(disk, checkpoint_min_bytes=4 * SEGMENT_BYTES, checkpoint_growth=0.0) as state:
        fill_segments(state)
        until(lambda: state.stats().compactions, "a compaction that was due")
        assert state.journal.last_lsn == 9
        assert state.compact().lsn == 10


def test_a_compaction_that_frees_nothing_appends_nothing(disk: SimulatedDisk) -> None:
    """P8: However often an idle state is compacted, no more than one filler is appended."""
    with opened(disk) as state:
        fill_segments(state)
        for _ in range(5):
            state.compact().close()
        assert state.journal.last_lsn == 10
    with opened(disk) as state:
        state.update(lambda _: ["b", 1])
        state.compact().close()
        assert state.journal.last_lsn == 11


def test_a_filler_is_never_applied(disk: SimulatedDisk) -> None:
    """P6: Replay passes over a filler, and over nothing else: a nil of the owner is applied."""
    with opened(disk) as state:
        fill_segments(state)
        state.compact().close()
        state.update(lambda _: pack(None))
        state.update_batch(lambda _: [None, ["b", 1]])
        state.wait_durable()
        lived = state.machine.applied[-3:]
    for name in names(disk, ".json"):  # without checkpoints, the filler is replayed
        if name.endswith(f"{10:020d}.json"):
            disk.open_directory(PATH, write=True).remove(name)
    with opened(disk) as state:
        assert state.machine.applied == lived == [(11, None), (12, None), (13, ["b", 1])]
        assert state.machine.values == {"a": 0, "b": 1}
        assert [entry.lsn for entry in state.journal.replay() if entry.is_filler] == [10]


def test_a_reader_tells_a_filler_from_a_nil(disk: SimulatedDisk) -> None:
    """P1: A reader yields a filler as nil with `is_filler`, and an owner's nil without it, even as
    the first record of a segment."""
    with opened(disk) as state:
        fill_segments(state)
        state.compact().close()
    with opened(disk) as state:
        state.update(lambda _: pack(None))
    with JournalReader.open(PATH, disk=disk) as reader:
        entries = [(entry.lsn, entry.record, entry.is_filler) for entry in reader.entries()]
        assert entries == [(10, None, True), (11, None, False)]
        assert not list(reader.verify())
        assert _numbered(reader, None) == _numbered(reader, 10) == [(11, None)]
        assert [first + len(found) for first, found in reader.records(11)] == []


def _numbered(reader: JournalReader, after: int | None) -> list[tuple[int, Any]]:
    """Return the records that `JournalReader.records` yields, with their LSNs."""
    runs = reader.records(after)
    return [numbered for first_lsn, found in runs for numbered in enumerate(found, first_lsn)]


def test_a_filler_has_the_bytes_that_the_page_describes(disk: SimulatedDisk) -> None:
    """A reader that follows the format page finds a filler as the only record of the first frame of
    a segment, with durable LSN 0."""
    with opened(disk) as state:
        fill_segments(state)
        state.compact().close()
        state.update(lambda _: ["b", 1])
    [segment] = segments(disk)
    first, second, _ = segment.frames
    assert (first.first_lsn, first.durable_lsn, first.records) == (10, 0, (None,))
    assert (second.first_lsn, second.durable_lsn) == (11, 10)


def test_the_first_nil_of_a_journal_is_no_filler(disk: SimulatedDisk) -> None:
    """P1: A journal whose first record is nil holds that record."""
    with Journal.open(PATH, options=options(), disk=disk) as journal:
        journal.append(None)
    with JournalReader.open(PATH, disk=disk) as reader:
        assert [entry.is_filler for entry in reader.entries()] == [False]


def test_records_that_share_the_commit_of_a_filler_are_kept(disk: SimulatedDisk) -> None:
    """P3: Records and batches that are appended right after a filler are in other frames of its
    commit."""
    with opened(disk) as state:
        fill_segments(state)
        assert state._append_filler(9) == 10
        state.update(lambda _: ["b", 1])
        state.update_batch(lambda _: [["c", 2], None])
        state.wait_durable()
        assert first_lsns(disk)[-1] == 10
        crash(state.journal, disk)
        disk.power_cut(lose)
    with opened(disk) as state:
        assert state.machine.values == {"a": 0, "b": 1, "c": 2}
        assert [lsn for lsn, _ in state.machine.applied] == [*range(1, 10), 11, 12, 13]


@pytest.mark.parametrize("after_lsn", [8, 10])
def test_a_filler_is_appended_only_after_the_last_record(
    disk: SimulatedDisk, after_lsn: int
) -> None:
    """P6: If the log has moved on since the snapshot, no filler is appended."""
    with opened(disk) as state:
        fill_segments(state)
        assert state._append_filler(after_lsn) is None
        state.update(lambda _: ["b", 1])  # not committed yet
        assert state._append_filler(10) is None
        assert state.journal.last_lsn == 10


def test_a_busy_state_is_not_filled(disk: SimulatedDisk) -> None:
    """P8: A compaction that runs beside updates appends no filler."""
    with opened(disk) as state:
        fill_segments(state)
        freeze = state.machine.freeze

        def update(operation: str, path: str) -> None:
            if operation == "rename":
                disk.before = None
                state.update(lambda _: ["b", 1])

        def busy() -> list[Any]:
            disk.before = update
            return freeze()

        state.machine.freeze = busy  # type: ignore[method-assign]
        assert state.compact().lsn == 9
        assert state.journal.last_lsn == 10


def test_a_plain_journal_gets_no_filler(disk: SimulatedDisk) -> None:
    """P1: A compaction of a Journal appends nothing to its owner's records."""
    with Journal.open(PATH, options=options(segment_bytes=SEGMENT_BYTES), disk=disk) as journal:
        for _ in range(8):
            journal.append("x" * (SEGMENT_BYTES - 200))
            journal.wait_durable()
        journal.compact(lambda: (8, [])).close()
        assert journal.last_lsn == 8


def test_a_filler_is_not_salvaged(disk: SimulatedDisk) -> None:
    """P1: A repair that salvages the records after a cut leaves out a filler, which would be the
    owner's nil under another LSN."""
    with opened(disk) as state:
        fill_segments(state)
        state.compact().close()
        state.update(lambda _: ["b", 1])
    report = repair(PATH, apply=True, cut_at=9, salvage=True, disk=disk)
    assert report.salvaged == ((11, 11),)
    with Journal.open(str(report.salvaged_to), options=options(), disk=disk) as journal:
        assert [entry.record for entry in journal.replay()] == [["b", 1]]


def test_changes_pass_over_a_filler(disk: SimulatedDisk) -> None:
    """The filler of a compaction is no change, neither to a consumer that has read everything
    before it nor to one that begins there."""
    small = options(segment_bytes=4096, record_bytes_max=256)
    with Tables.open(PATH, options=small, disk=disk) as app:
        rows, changes = app.table("rows"), app.changes()
        for _ in range(80):
            rows["a"] = "x" * 200
        app.sync(timeout_s=TIMEOUT_S)
        seen = [next(changes) for _ in range(80)]
        lsn = app.compact().lsn
        assert lsn == app.journal.last_lsn == 81
        assert changes._must_wait()
        rows["large"] = "y" * 999
        app.sync(timeout_s=TIMEOUT_S)
        late = app.changes(seen[-1].lsn)
        for consumer in (changes, late):
            change = next(consumer)
            assert (change.key, change.value) == ("large", "y" * 999)
            assert change.lsn > lsn


@given(st.lists(st.binary(max_size=9000), min_size=1, max_size=80))
def test_the_copy_of_a_checkpoint_has_its_items(values: list[bytes]) -> None:
    """P6: The checkpoint at a filler has the items of the one before it, in lines of any size."""
    disk = SimulatedDisk()
    with opened(disk) as state:
        state.update_batch(lambda _: [[str(n), value] for n, value in enumerate(values)])
        for _ in range(2):
            state.update(lambda _: ["big", b"x" * (3 << 20)])
            state.wait_durable()
        state.update(lambda _: ["big", b""])
        checkpoint = state.compact()
        assert checkpoint.lsn == state.journal.last_lsn == len(values) + 4
        assert list(checkpoint.items()) == [
            *([str(n), value] for n, value in enumerate(values)),
            ["big", b""],
        ]
