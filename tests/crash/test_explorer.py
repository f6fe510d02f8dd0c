"""The crash explorer: a part of what `python tools/proof crashsim` explores, and proof that it
catches broken promises."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count, product
from typing import Any

import pytest
from proof.ledger import Ledger

from journal import DurableState, FailedError, RecordError
from journal._commit.committer import Committer
from journal._commit.writer import Writer
from journal._format import frame
from journal._format.layout import FRAME_HEADER_BYTES
from journal._recovery import recovery
from journal._recovery.walk import Walk
from journal.testing import (
    Bounds,
    BrokenPromiseError,
    ExplorationReport,
    ManualOptions,
    Owner,
    SimulatedDirectory,
    SimulatedFile,
    explore,
    seeded,
)
from tests.support import Table
from tests.tiers import is_thorough, sample, slow_unless

LONG = "f" * 700  # more than a sector
Work = Callable[[Owner[Ledger]], None]


def record(lsn: int, filler: str = "") -> list[Any]:
    return ["abc"[lsn % 3], None if lsn % 5 == 4 else lsn, filler]


def append(owner: Owner[Ledger], filler: str = "") -> int:
    return owner.append(record(owner.last_lsn + 1, filler))


def append_batch(owner: Owner[Ledger], size: int) -> int:
    begin = owner.last_lsn + 1
    return owner.append_batch([record(lsn) for lsn in range(begin, begin + size)])


def commits(owner: Owner[Ledger]) -> None:
    """Commit one record and several, with and without a mark before the frame."""
    for filler in ("", LONG):
        append(owner, filler)
        owner.wait()
        owner.idle()
        append(owner)
        append_batch(owner, 3)
        append(owner)
        owner.wait()
        append(owner)
        owner.wait(owner.last_lsn)
    append(owner)
    owner.close()


def frames(owner: Owner[Ledger]) -> None:
    """Commit several frames with a few small records each."""
    for size in (2, 3):
        for _ in range(size):
            append(owner)
        append_batch(owner, 3)
        append_batch(owner, 2)
        owner.wait()
    owner.reopen()


def compactions(owner: Owner[Ledger]) -> None:
    """Make checkpoints: an empty one, one beside a commit, and ones that remove segments."""
    owner.compact()
    for size in (1, 3, 2):
        for _ in range(2):
            append_batch(owner, size)
            owner.wait()
        owner.compact()
    owner.reopen()
    append(owner)
    compact_beside(owner)
    owner.idle()
    append(owner)
    owner.wait()
    owner.reopen()
    owner.compact()


def compact_beside(owner: Owner[Ledger]) -> None:
    """Compact, and commit before its fourth operation."""
    thread, calls = threading.get_ident(), count()

    def before(operation: str, path: str) -> None:
        if threading.get_ident() == thread and next(calls) == 3:
            owner.disk.before = None
            append(owner)
            owner.wait()

    owner.disk.before = before
    owner.compact()


def restarts(owner: Owner[Ledger]) -> None:
    """Kill the process and cut the power several times, and reopen the journal each time."""
    append(owner)
    owner.wait()
    append_batch(owner, 2)
    owner.kill()
    owner.reopen()
    for seed in range(4):
        append(owner)
        owner.wait()
        owner.idle()
        append_batch(owner, 2)
        owner.wait(owner.last_lsn)
        append(owner, LONG)
        crash_during(owner, owner.wait, after=1)
        owner.power_cut(seeded(seed, damage=True))
        owner.reopen()
    owner.compact()
    append(owner)
    owner.wait()
    owner.kill()
    owner.reopen()


def crash_during(owner: Owner[Ledger], step: Callable[[], None], *, after: int) -> None:
    """Run `step`, and crash the disk after the number of operations in `after`."""
    owner.disk.crash_after(after)
    with suppress(OSError, FailedError):
        step()


def options_of(work: Work, durability: Any, segment_bytes: int) -> ManualOptions:
    return ManualOptions(
        durability=durability,
        segment_bytes=segment_bytes,
        frame_bytes_max=20 if work is frames else 1000,
    )


# --- a part of the exploration ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("work", "durability", "segment_bytes"),
    sample(2, product([commits, frames, compactions, restarts], ["disk", "os"], [1, 400, 4096])),
)
def test_every_crash_is_recovered(work: Work, durability: str, segment_bytes: int) -> None:
    """P1 to P6: Every crash at every moment is recovered, with every outcome, in recoveries too."""
    options = options_of(work, durability, segment_bytes)
    # A second run of a journal with this many segments has too many crashes to explore here.
    sequels = 0 if segment_bytes == 1 else 150
    bounds = Bounds(outcomes_max=64 if is_thorough() else 24, sequels=sequels, rot=10)
    report = explore(Ledger, work, options=options, bounds=bounds)
    assert report.moments > 15
    assert report.states > 500
    assert report.images > 30


@pytest.mark.parametrize("work", [commits, compactions])
@pytest.mark.slow
def test_exploring_the_same_workload_twice_gives_the_same_report(work: Work) -> None:
    """A failure can be reproduced: a workload always has the same moments, states and images."""
    options = options_of(work, "disk", 400)
    first, second = (explore(Ledger, work, options=options) for _ in range(2))
    assert first == second


def test_reports_add_up() -> None:
    """The reports of several explorations add up to one report."""
    assert ExplorationReport(1, 2, 3) + ExplorationReport(10, 20, 30) == ExplorationReport(
        11, 22, 33
    )


# --- weakened engines ---


def committed_without_a_sync(patch: pytest.MonkeyPatch) -> None:
    def sync(writer: Writer) -> None:
        writer._synced_lsn = writer._written_lsn

    patch.setattr(Writer, "sync", sync)


def names_never_synced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimulatedDirectory, "sync", lambda directory: None)


def recovery_trusts_without_a_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(recovery, "sync_before_trust", lambda directory, segments: None)


def recovery_trusts_the_cache(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(SimulatedFile, "drop_cache", lambda file: None)


def checkpoints_never_synced(patch: pytest.MonkeyPatch) -> None:
    real = SimulatedFile.sync

    def sync(file: SimulatedFile) -> None:
        if "checkpoint" not in file.path:
            real(file)

    patch.setattr(SimulatedFile, "sync", sync)


def segment_ended_without_a_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writer, "_seal", lambda writer, segment: writer.release())


def mark_not_overwritten(patch: pytest.MonkeyPatch) -> None:
    real = Writer.mark

    def mark(writer: Writer) -> None:
        real(writer)
        segment = writer._segment
        if segment and segment._is_marked:
            segment.offset, segment._is_marked = segment.offset + FRAME_HEADER_BYTES, False

    patch.setattr(Writer, "mark", mark)


def batch_split_across_frames(patch: pytest.MonkeyPatch) -> None:
    real = frame.split_frames
    patch.setattr(frame, "split_frames", lambda records, groups, most: real(records, [], most))


def every_bad_frame_refused(patch: pytest.MonkeyPatch) -> None:
    real = Walk.finish

    def finish(walk: Walk) -> None:
        if walk.damage:
            walk.evidence = walk.next_lsn
        real(walk)

    patch.setattr(Walk, "finish", finish)


def payload_crc_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(frame, "checksum", lambda data, start=0: 0)


def one_checkpoint_counts_as_two(patch: pytest.MonkeyPatch) -> None:
    real = recovery.drop_covered
    drop: Any = lambda directory, lsns, kept: real(directory, lsns, 1)  # noqa: E731
    patch.setattr(recovery, "drop_covered", drop)
    patch.setattr("journal._engine.checkpoint_store.drop_covered", drop)


def acknowledged_too_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Committer, "synced_lsn", property(lambda self: self._writer._written_lsn))


WEAKENINGS: list[tuple[Callable[[pytest.MonkeyPatch], None], Work, str, int, str]] = [
    (committed_without_a_sync, commits, "disk", 200, "P2"),
    (names_never_synced, commits, "disk", 200, "P2"),
    (recovery_trusts_without_a_sync, restarts, "disk", 200, "P[125]"),
    (recovery_trusts_the_cache, commits, "disk", 200, "P[125]"),
    (checkpoints_never_synced, compactions, "disk", 200, "P[45]"),
    (segment_ended_without_a_sync, commits, "os", 200, "P[245]"),
    (mark_not_overwritten, commits, "disk", 4096, "P[245]"),
    (batch_split_across_frames, frames, "disk", 200, "P3"),
    (every_bad_frame_refused, commits, "disk", 200, "P[45]"),
    (payload_crc_ignored, commits, "disk", 200, "P[1-5]"),
    (one_checkpoint_counts_as_two, compactions, "disk", 200, "P[45]"),
    (acknowledged_too_early, commits, "os", 200, "P2"),
]


@pytest.mark.parametrize(
    ("weaken", "work", "durability", "segment_bytes", "promise"),
    slow_unless(
        lambda weaken, *_: weaken in (names_never_synced, batch_split_across_frames), WEAKENINGS
    ),
    ids=[weakening[0].__name__ for weakening in WEAKENINGS],
)
def test_a_weakened_engine_is_caught(
    weaken: Callable[[pytest.MonkeyPatch], None],
    work: Work,
    durability: str,
    segment_bytes: int,
    promise: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P1 to P5: Without a sync or a check, some crash breaks a promise."""
    weaken(monkeypatch)
    options = options_of(work, durability, segment_bytes)
    with pytest.raises(BrokenPromiseError, match=f"^{promise}"):
        explore(Ledger, work, options=options)


def test_a_failure_explains_how_to_reproduce_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message of a broken promise names the moment, the outcome, and a way to reproduce it."""

    def work(owner: Owner[Ledger]) -> None:
        append(owner)
        owner.wait()
        append_batch(owner, 3)
        owner.wait()

    every_bad_frame_refused(monkeypatch)
    with pytest.raises(BrokenPromiseError) as caught:
        explore(Ledger, work)
    message = str(caught.value)
    assert message.startswith(("P4", "P5"))
    assert "a power cut before sync /journal/" in message
    assert "00000000000000000001-0000000001.seg: write 49 at 64: torn after 1\n" in message
    assert "1 records had been appended. No power cut may lose the first 0" in message
    [only] = re.findall(r"only=(\d+)", message)
    assert f"{int(only) - 1:5} write /journal/" in message.splitlines()[-1]
    with pytest.raises(BrokenPromiseError) as repeated:
        explore(Ledger, work, only=int(only))
    assert str(repeated.value) == message
    assert explore(Ledger, work, only=0).moments == 1


def test_a_broken_promise_in_the_workload_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recovery in the workload is checked like any other."""

    def work(owner: Owner[Ledger]) -> None:
        append(owner)
        owner.wait()
        owner.power_cut()
        owner.reopen()

    committed_without_a_sync(monkeypatch)
    with pytest.raises(BrokenPromiseError, match=r"^P2: .*\nThe workload itself failed"):
        explore(Ledger, work)


class Forgetful(Table):
    """A table that loads less than it froze."""

    def load(self, item: Any) -> None:
        if item[1] != "b":
            super().load(item)


class Absolute(Table):
    """A table whose state depends on which records it applied itself."""

    def freeze(self) -> Any:
        return [*super().freeze(), len(self.applied)]

    def load(self, item: Any) -> None:
        if isinstance(item, list):
            super().load(item)


class Selective(Table):
    """A table that freezes less than it holds, so that each compaction loses a row."""

    def freeze(self) -> Any:
        return (row for row in super().freeze() if row[0] != 2)


class Private(Table):
    """A table that also compares its list of applied records, which no checkpoint contains."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Private) and self.applied == other.applied

    __hash__ = None  # type: ignore[assignment]


def fill_a_table(owner: Owner[Table]) -> None:
    owner.append([1, "a"])
    owner.append([2, "b"])
    owner.compact()
    owner.append([3, "c"])
    owner.wait()


def test_a_state_machine_that_forgets_nothing_is_accepted() -> None:
    """P6: A correct machine has the state of its records after every crash."""
    assert explore(Table, fill_a_table).states > 100


@pytest.mark.parametrize(
    "machine",
    slow_unless(lambda machine: machine is Forgetful, [Forgetful, Absolute, Selective, Private]),
)
def test_a_state_machine_that_forgets_is_caught(machine: type[Table]) -> None:
    """P6: A checkpoint and the records after it give the same state as all records."""
    messages = {Selective: r"Selective\.rows", Private: r"Private itself"}
    with pytest.raises(
        BrokenPromiseError, match="^P6: .*" + messages.get(machine, "recovered state")
    ):
        explore(machine, fill_a_table)


def put_once(state: DurableState[Table], key: str) -> None:
    state.update(lambda table: None if key in table.rows else [key, 1])


def test_calls_on_the_state_itself_are_recorded() -> None:
    """Updates and batches on `owner.state` are recorded, and refused ones change nothing."""

    def work(owner: Owner[Table]) -> None:
        state = owner.state
        for key in ("a", "a", "b"):
            put_once(state, key)
        state.update_batch(lambda table: [[key, None] for key in table.rows])
        state.update_batch(lambda table: [])
        with pytest.raises(RecordError):
            state.update(lambda table: ["c", {1}])
        with pytest.raises(ZeroDivisionError):
            state.update(lambda table: 1 // 0)
        state.wait_durable()
        assert owner.last_lsn == state.journal.last_lsn == 4
        assert owner.history.records() == [["a", 1], ["b", 1], ["a", None], ["b", None]]
        assert owner.history.ends == [0, 1, 2, 4]
        state.close()

    assert explore(Table, work).states > 100
