"""Checkpoints and compaction: what is kept, what is dropped, and what happens when it fails."""

from __future__ import annotations

import errno
import itertools
import json
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    Checkpoint,
    ClosedError,
    CorruptionError,
    DurableState,
    FailedError,
    FormatVersionError,
    Journal,
    JournalReader,
)
from journal.frame import checksum
from journal.testing import SimulatedDisk, lose
from journal.testing.disk import Operation
from tests.independent_reader import decode_checkpoint
from tests.support import (
    PATH,
    TIMEOUT_S,
    Held,
    Table,
    Watched,
    crash,
    frozen,
    logged,
    names,
    open_on,
    options,
    put,
    put_lines,
    reopened,
    until,
)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


def checkpoint_lsns(disk: SimulatedDisk) -> list[int]:
    return [int(name[11:31]) for name in names(disk, ".json")]


def first_lsns(disk: SimulatedDisk) -> list[int]:
    return [int(name[:20]) for name in names(disk, ".seg")]


def setting(key: str, value: int | None, _: Table) -> list[Any]:
    return [key, value]


def compact(journal: Journal, *items: Any) -> Checkpoint:
    return journal.compact(frozen(journal, *items))


# --- one compaction ---


def test_a_checkpoint_is_what_was_frozen(disk: SimulatedDisk) -> None:
    """P6: its items, LSN, epoch, count and application; by the page, and to this engine."""
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
        assert journal.checkpoint is None  # this opening started from none
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
def test_any_json_comes_back(items: list[Any]) -> None:
    """P6: whatever JSON the items are, they are read back as they were, by anyone."""
    disk = SimulatedDisk()
    with open_on(disk) as journal:
        put(journal, 1)
        checkpoint = compact(journal, *items)
        assert repr(list(checkpoint.items())) == repr(items)
    (name,) = names(disk, ".json")
    assert repr(list(decode_checkpoint(disk.contents(PATH)[name]).items)) == repr(items)


@pytest.mark.parametrize(
    "bad", [float("nan"), float("inf"), b"bytes", {1, 2}, object(), "\ud800", {(1,): 2}], ids=repr
)
def test_what_is_no_json_aborts_that_compaction(disk: SimulatedDisk, bad: Any) -> None:
    """An item that JSON can't hold is an error of the caller's; nothing is left of it, nothing is
    dropped, and the log goes on."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        before = disk.contents(PATH)
        with pytest.raises((TypeError, ValueError)):
            compact(journal, 1, bad)
        assert disk.contents(PATH) == before
        put(journal, "on")
        compact(journal, "good")
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == ["good"]


def test_an_empty_checkpoint_of_an_empty_journal(disk: SimulatedDisk) -> None:
    """No record and no item is a state too; compacting it again and again changes nothing else."""
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
    """Without one of its own `compact` takes `start_compaction`'s; without that, a ValueError."""
    with open_on(disk) as journal:
        put(journal, 1)
        with pytest.raises(ValueError, match="freeze"):
            journal.compact()
        journal.start_compaction(frozen(journal, "started"))
        assert list(journal.compact().items()) == ["started"]
        assert list(compact(journal, "given").items()) == ["given"]


def test_compaction_is_started_once(disk: SimulatedDisk) -> None:
    """A second `start_compaction` is a RuntimeError, and the first goes on."""
    with open_on(disk) as journal:
        journal.start_compaction(frozen(journal, 1))
        with pytest.raises(RuntimeError, match="started before"):
            journal.start_compaction(frozen(journal, 2))
        put(journal, 1)
        assert list(journal.compact().items()) == [1]


def test_freeze_is_called_once_and_iterated_later(disk: SimulatedDisk) -> None:
    """`freeze` is called once a compaction; its items are read afterwards, in the same thread."""
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
def test_the_log_is_synced_up_to_the_snapshot_first(
    disk: SimulatedDisk, durability: Literal["disk", "os"]
) -> None:
    """P2, P10: what a checkpoint covers is on stable storage before the checkpoint has its name,
    in "os" mode too, and with records that nobody waited for."""
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
    """P10: written aside, synced, renamed, the directory synced; only then is anything dropped, and
    the directory synced again."""
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


# --- what is kept ---


def test_two_checkpoints_are_kept_with_the_segments_after_the_older(disk: SimulatedDisk) -> None:
    """P8: nothing is dropped before two verified; then always what no kept one needs."""
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
def test_as_many_are_kept_as_chosen(disk: SimulatedDisk, kept: int) -> None:
    """P8: `checkpoints_kept` of them, with the segments after the oldest, over reopenings too."""
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


def test_distinct_lsns_count(disk: SimulatedDisk) -> None:
    """P8: a checkpoint made again at the same LSN is still one, and nothing is dropped for it."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        for n in range(3):
            compact(journal, n)
        assert (checkpoint_lsns(disk), first_lsns(disk)[0]) == ([12], 1)
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == [2]


@pytest.mark.parametrize("bad", ["older", "newer"])
def test_a_checkpoint_that_rots_drops_nothing(disk: SimulatedDisk, bad: str) -> None:
    """P4, P8: only those that verified in this process count: after one rots the next opening, and
    its next compaction, drop nothing that the other one needs."""
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
    """P6: if none verifies and the log reaches back to LSN 1, it is all there; otherwise what was
    durable is missing, and open says where."""
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
    with pytest.raises(CorruptionError, match="what follows LSN 0 is missing"):
        open_on(disk)
    assert disk.contents(PATH) == before


def test_what_an_unfinished_removal_left_is_removed(disk: SimulatedDisk) -> None:
    """P8: a crash amid the removal leaves any of the files behind; the next open removes them."""
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
def test_no_history_grows(data: st.DataObject) -> None:
    """P6, P8: whatever is appended, compacted, reopened, killed: checkpoint plus tail is the state,
    and the files stay few."""
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


# --- handles ---


def test_a_checkpoint_can_be_read_after_it_was_replaced(disk: SimulatedDisk) -> None:
    """Its file stays open: items() works until close, whatever compaction removed meanwhile."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, "old")
    with open_on(disk) as journal:
        started_from = journal.checkpoint
        assert started_from is not None
        put(journal, 2)
        first = compact(journal, "first")
        half = first.items()
        for n in range(4):
            put(journal, n)
            compact(journal, n)
        assert checkpoint_lsns(disk) == [5, 6]
        assert list(started_from.items()) == ["old"]
        assert list(half) == ["first"] == list(first.items())
    with pytest.raises((OSError, ValueError, ClosedError)):
        list(first.items())


def test_an_item_that_rots_is_corruption(disk: SimulatedDisk) -> None:
    """P4: an item that is no JSON, though the file verified: CorruptionError with its place."""
    with open_on(disk) as journal:
        put(journal, 1)
        checkpoint = compact(journal, {"id": "a"}, {"id": "b"})
        name = checkpoint.path.rpartition("/")[2]
        offset = disk.contents(PATH)[name].index(b'{"id":"b"}')
        disk.open_directory(PATH, write=True).open(name, "update").write(b"!", offset)
        items = checkpoint.items()
        assert next(items) == {"id": "a"}
        with pytest.raises(CorruptionError, match="item 1") as caught:
            next(items)
        assert (caught.value.path, caught.value.offset) == (checkpoint.path, offset)


@pytest.mark.parametrize("harm", ["flip", "cut", "extra", "count", "crc", "name", "empty", "json"])
def test_a_checkpoint_that_does_not_verify_is_passed_over(disk: SimulatedDisk, harm: str) -> None:
    """P4: one byte off, shorter, longer, of another LSN, no JSON at all: the older one is taken."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, "one")
        put(journal, 2)
        compact(journal, "two", "items")
    old, name = names(disk, ".json")
    data = disk.contents(PATH)[name]
    lines = data.splitlines(keepends=True)
    harmed = {
        "flip": data.replace(b"two", b"twp"),
        "cut": data[:-1],
        "extra": data + b"\n",
        "count": data.replace(b'"count":2', b'"count":1'),
        "crc": data.replace(b'"crc32c":"', b'"crc32c":"0'),
        "name": disk.contents(PATH)[old],
        "empty": b"",
        "json": b"".join(lines[1:]),
    }[harm]
    assert harmed != data
    directory = disk.open_directory(PATH, write=True)
    file = directory.open(name, "update")
    file.truncate(0)
    file.write(harmed, 0)
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert (journal.checkpoint.lsn, logged(journal, None)) == (1, [2])


def test_a_newer_checkpoint_version_is_refused_by_name(disk: SimulatedDisk) -> None:
    """A checkpoint of a newer version is no damage: FormatVersionError, not an older state."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, 1)
    (name,) = names(disk, ".json")
    body, _, _ = disk.contents(PATH)[name].rpartition(b'"count"')
    body = body.replace(b'"version":1', b'"version":2')
    data = body + b'"count":1,"crc32c":"%08x"}\n' % checksum(body)
    disk.open_directory(PATH, write=True).open(name, "update").write(data, 0)
    with pytest.raises(FormatVersionError, match=rf"{name}: checkpoint version 2, newer than 1"):
        open_on(disk)


def test_another_application_is_refused(disk: SimulatedDisk) -> None:
    """A checkpoint says whose state it is: another application, or an older version of it, does not
    open it unless it accepts it."""
    with open_on(disk, application="jobs/1") as journal:
        put(journal, 1)
        compact(journal, 1)
    with pytest.raises(FormatVersionError, match="'jobs/1', not for 'jobs/2'") as caught:
        open_on(disk, application="jobs/2")
    assert "open it with the program that wrote it" in str(caught.value)
    with open_on(disk) as journal:  # who names none takes any
        assert journal.checkpoint is not None
        assert journal.checkpoint.application == "jobs/1"
    open_on(disk, application="jobs/1").close()


# --- failures ---


def exploding(*_: object) -> Iterator[Any]:
    yield 1
    raise ZeroDivisionError("the owner's own")


def freezing() -> tuple[int, Iterable[Any]]:
    raise ZeroDivisionError("the owner's own")


@pytest.mark.parametrize("durability", ["disk", "os"])
@pytest.mark.parametrize("where", ["freeze", "items"])
def test_what_the_owner_raises_ends_that_attempt(
    disk: SimulatedDisk, where: str, durability: Literal["disk", "os"]
) -> None:
    """A freeze or an iterator that raises: the caller gets it, no `*.tmp`, nothing dropped, and the
    log and the next compaction go on."""
    with open_on(disk, durability=durability) as journal:
        put_lines(journal, 12, size=700)
        compact(journal, 1)
        put_lines(journal, 12, size=700)
        before = (names(disk, ".seg"), names(disk, ".json"))
        freeze = freezing if where == "freeze" else lambda: (journal.last_lsn, exploding())
        with pytest.raises(ZeroDivisionError, match="own"):
            journal.compact(freeze)
        assert (names(disk, ".seg"), names(disk, ".json"), names(disk, ".tmp")) == (*before, [])
        put(journal, "on")
        compact(journal, "good")
        assert checkpoint_lsns(disk) == [12, 25]


STEPS: list[tuple[Operation, str]] = [
    ("create", ".json.tmp"),
    ("write", ".json.tmp"),
    ("sync", ".json.tmp"),
    ("rename", ".json"),
    ("sync_directory", PATH),
    ("open", ".json"),
    ("read", ".json"),
    ("names", PATH),
    ("remove", ".seg"),
    ("remove", "12.json"),
]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EMFILE], ids=errno.errorcode.get)
@pytest.mark.parametrize(("operation", "path"), STEPS)
def test_a_disk_that_fails_a_compaction_leaves_the_log_going(
    disk: SimulatedDisk, operation: Operation, path: str, code: int
) -> None:
    """P2, P8: that attempt only: no `*.tmp` is left, the log goes on, the next compaction works;
    and after a power cut in between all is there."""
    with open_on(disk) as journal:
        for n in range(2):
            put_lines(journal, 12, size=700)
            compact(journal, n)
        put_lines(journal, 12, size=700)
        disk.fail(operation, code, path=path)
        with pytest.raises(OSError, match=errno.errorcode[code]):
            compact(journal, "failing")
        disk.before = None
        assert names(disk, ".tmp") == []
        assert {12, 24} & {*checkpoint_lsns(disk)}
        put(journal, "on")
        assert len(logged(journal, 24)) == 13
        compact(journal, "good")
        assert checkpoint_lsns(disk)[-2:] in ([24, 37], [36, 37])
        put(journal, "tail")
        disk.power_cut(lose)
        crash(journal, disk)
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == ["good"]
        assert logged(journal, None) == ["tail"]


def test_a_failed_journal_is_not_compacted(disk: SimulatedDisk) -> None:
    """P2: a snapshot of what the log could not keep is no checkpoint, also when the sync of the log
    is what fails."""
    with suppress(FailedError), open_on(disk, durability="os") as journal:
        put(journal, 1)
        disk.fail("sync", errno.EIO, path=".seg")
        with pytest.raises(FailedError):
            compact(journal, "lost")
        with pytest.raises(FailedError):
            compact(journal, "lost")
    disk.before = None
    assert names(disk, ".json") == names(disk, ".tmp") == []


@pytest.mark.parametrize("lsn", [2, 10**9, -1])
def test_a_freeze_that_is_wrong_about_its_lsn_is_refused(disk: SimulatedDisk, lsn: int) -> None:
    """P5: a checkpoint past the end of the log would be corruption to every later open: ValueError,
    and nothing is written."""
    with open_on(disk) as journal:
        put(journal, 1)
        with pytest.raises(ValueError, match=rf"LSN {lsn}"):
            journal.compact(lambda: (lsn, [1]))
        assert names(disk, ".json") == []
    assert reopened(disk) == [1]


# --- the thread ---


def test_the_thread_compacts_when_the_log_has_grown(disk: SimulatedDisk) -> None:
    """P8: due when the log since the last one exceeds `checkpoint_min_bytes`, and its size times
    `checkpoint_growth`: total bytes written stay proportional to what was appended."""
    with open_on(disk, checkpoint_min_bytes=3000, checkpoint_growth=2.0) as journal:
        journal.start_compaction(frozen(journal, "x" * 5000))
        put_lines(journal, 2, size=1000)
        assert journal.stats().compactions == 0
        put_lines(journal, 1, size=1000)
        until(lambda: journal.stats().compactions == 1, "the first compaction")
        put_lines(journal, 8, size=1000)  # under twice its 5,000 bytes
        assert journal.stats().compactions == 1
        put_lines(journal, 4, size=1000)
        until(lambda: journal.stats().compactions == 2, "the second compaction")
        assert journal.stats().compaction_ns > 0
    assert len(checkpoint_lsns(disk)) == 2


def test_what_grew_before_open_counts(disk: SimulatedDisk) -> None:
    """P8: a log that was due when its process died is compacted by the next one, unasked."""
    with open_on(disk) as journal:
        put_lines(journal, 20, size=700)
    with open_on(disk, checkpoint_min_bytes=10_000) as journal:
        journal.start_compaction(frozen(journal, 1))
        until(lambda: checkpoint_lsns(disk) == [20], "the compaction")


def test_a_failing_compaction_is_tried_again_with_patience(
    disk: SimulatedDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread survives what the owner raises, says so, and tries again after a while and not at
    once, while the log goes on."""
    attempts: list[int] = []

    def freeze() -> tuple[int, list[Any]]:
        attempts.append(journal.last_lsn)
        raise ZeroDivisionError("the owner's own")

    with open_on(disk, checkpoint_min_bytes=1000) as journal:
        journal.start_compaction(freeze)
        put_lines(journal, 2, size=700)
        until(lambda: attempts, "the first attempt")
        put_lines(journal, 10, size=700)
        until(lambda: len(attempts) == 2, "the second attempt")
    assert (attempts[0], attempts[1]) == (2, 12)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["a compaction failed, it will be tried again: the owner's own"] * 2


def test_a_compaction_that_failed_is_done_in_the_end(disk: SimulatedDisk) -> None:
    """P8: after the back-off the thread compacts, and afterwards whenever it is due again."""
    attempts: list[int] = []

    def freeze() -> tuple[int, list[Any]]:
        attempts.append(journal.last_lsn)
        if len(attempts) == 1:
            raise ZeroDivisionError("the owner's own")
        return journal.last_lsn, ["good"]

    with open_on(disk, checkpoint_min_bytes=1000) as journal:
        journal.start_compaction(freeze)
        put_lines(journal, 2, size=700)
        until(lambda: journal.stats().compactions == 1, "the second attempt")
        put_lines(journal, 2, size=700)
        until(lambda: journal.stats().compactions == 2, "the next compaction")
    assert len(attempts) == 3


def test_close_gives_up_a_compaction_under_way(disk: SimulatedDisk) -> None:
    """Close does not wait for the checkpoint of a large state: it is abandoned without a trace."""
    reached = threading.Event()

    def items() -> Iterator[int]:
        for n in itertools.count():
            yield n
            reached.set()

    journal = open_on(disk, checkpoint_min_bytes=1000)
    journal.start_compaction(lambda: (journal.last_lsn, items()))
    put_lines(journal, 2, size=700)
    assert reached.wait(TIMEOUT_S)
    journal.close(timeout_s=TIMEOUT_S)
    assert (names(disk, ".json"), names(disk, ".tmp")) == ([], [])
    assert len(reopened(disk)) == 2


def test_compact_waits_for_one_under_way(disk: SimulatedDisk) -> None:
    """P10: compactions are made one at a time: no older state replaces a newer one."""
    with open_on(disk) as journal, ThreadPoolExecutor(4) as pool:
        put(journal, 1)
        with Held(disk, "rename", ".json") as held:
            first = pool.submit(compact, journal, "first")
            held.wait_reached()
            put(journal, 2)
            second = pool.submit(compact, journal, "second")
            put(journal, 3)
            assert checkpoint_lsns(disk) == []
            held.let_one()
            held.wait_reached()
            assert checkpoint_lsns(disk) == [1]
        assert first.result(TIMEOUT_S).lsn == 1
        assert second.result(TIMEOUT_S).lsn in (2, 3)
    with open_on(disk) as journal:
        assert journal.checkpoint is not None
        assert list(journal.checkpoint.items()) == ["second"]


def test_nobody_is_held_up_by_a_compaction(disk: SimulatedDisk) -> None:
    """P7: while a checkpoint is written and synced, records are appended and become durable."""
    with open_on(disk) as journal, ThreadPoolExecutor(2) as pool:
        put(journal, 1)
        with Held(disk, "sync", ".json") as held:
            compacting = pool.submit(compact, journal, *range(1000))
            held.wait_reached()
            put_lines(journal, 20, size=700)
            assert journal.durable_lsn == 21
            assert not compacting.done()
        assert compacting.result(TIMEOUT_S).lsn == 1


def test_items_are_encoded_with_pauses(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: the encoder sleeps, really, every few items; it hurries only when the log outgrows it."""
    pauses: list[float] = []
    monkeypatch.setattr("journal.compactor.time.sleep", pauses.append)
    with open_on(disk, checkpoint_min_bytes=100_000) as journal:
        put(journal, 1)
        compact(journal, *range(1000))
        relaxed, pauses[:] = len(pauses), []
        assert relaxed >= 250
        put(journal, 2)

        def items() -> Iterator[int]:
            for n in range(1000):
                if n == 100:
                    put_lines(journal, 30, size=4000)
                yield n

        journal.compact(lambda: (2, items()))
        assert 0 < len(pauses) < relaxed / 2
    assert set(pauses) <= {0.0002}


# --- consistency ---


def test_a_snapshot_is_of_one_lsn_while_writers_go_on(disk: SimulatedDisk) -> None:
    """P6, P10: every checkpoint made under load is the state as of its LSN, to the key."""
    state = DurableState.open(
        PATH, Table(), options=options(segment_bytes=1 << 20, checkpoints_kept=1000), disk=disk
    )
    stop = threading.Event()

    def write(thread: int) -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            key = f"{thread}-{n * 7 % 50}"
            lsn = state.update(partial(setting, key, None if n % 11 == 3 else n))
            if n % 16 == 0:
                state.wait_durable(lsn, timeout_s=TIMEOUT_S)

    with state, ThreadPoolExecutor(4) as pool:
        writers = [pool.submit(write, thread) for thread in range(3)]
        lsns = [state.compact().lsn for _ in range(12)]
        stop.set()
        for writer in writers:
            writer.result(TIMEOUT_S)
        state.wait_durable(timeout_s=TIMEOUT_S)
        live = state.machine.content()
    assert lsns == sorted(lsns)
    model = Table()
    checked = 0
    with JournalReader.open(PATH, disk=disk) as reader:
        found = {checkpoint.lsn: checkpoint for checkpoint in reader.checkpoints()}
        for entry in reader.entries(0):
            model.apply(entry.lsn, entry.record)
            if entry.lsn in found:
                items = dict(found[entry.lsn].items())
                assert items == model.content()
                checked += 1
        for checkpoint in found.values():
            checkpoint.close()
    assert checked == len(found) > 1
    assert model.content() == live
    with DurableState.open(PATH, Table(), options=options(), disk=disk) as again:
        assert again.machine.content() == live


def test_the_text_streams_greps_and_diffs(disk: SimulatedDisk) -> None:
    """The checkpoint is JSON as a whole, with one item a line."""
    with open_on(disk) as journal:
        put(journal, 1)
        compact(journal, {"id": "a"}, {"id": "b"})
    (name,) = names(disk, ".json")
    text = disk.contents(PATH)[name].decode()
    assert json.loads(text)["items"] == [{"id": "a"}, {"id": "b"}]
    assert '{"id":"a"},\n{"id":"b"}\n' in text


def test_stats_count_compactions(disk: SimulatedDisk) -> None:
    """Compactions, their time, the files: `stats()` tells, and observers are called."""
    told: list[tuple[int, int, int]] = []

    class Ear:
        def committed(self, records: int, size_bytes: int, sync_ns: int) -> None: ...
        def stalled(self, error: OSError) -> None: ...
        def failed(self, error: BaseException) -> None: ...
        def compacted(self, lsn: int, count: int, size_bytes: int, duration_ns: int) -> None:
            told.append((lsn, count, size_bytes))
            raise ValueError("the observer's own")

    with open_on(disk) as journal:
        journal.observe(Ear())
        put_lines(journal, 12, size=700)
        size = compact(journal, 1, 2).size_bytes
        stats = journal.stats()
        assert (stats.compactions, stats.segments) == (1, len(first_lsns(disk)))
        assert stats.disk_bytes == sum(map(len, disk.contents(PATH).values()))
    assert told == [(12, 2, size)]


def test_compacting_reads_back_what_it_wrote(disk: SimulatedDisk) -> None:
    """P4: a checkpoint that does not verify when it is read back counts for nothing."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        compact(journal, 1)
        put(journal, "on")
        directory = disk.open_directory(PATH, write=True)

        def rot(operation: Operation, path: str) -> None:
            if operation == "open" and path.endswith("13.json"):
                disk.before = None
                directory.open(path.rpartition("/")[2], "update").write(b"?", 20)

        disk.before = rot
        with pytest.raises(Exception, match="last line"):
            compact(journal, 2)
        assert first_lsns(disk)[0] == 1
        watched = Watched(disk)
        put(journal, "on")
        compact(journal, 3)
        assert watched.of("remove") > 0
        assert 12 in checkpoint_lsns(disk)
        assert first_lsns(disk)[0] <= 13
