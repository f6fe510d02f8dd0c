"""Journals: opening, appending, frames and batches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    FormatVersionError,
    Journal,
    JournalReader,
    LockedError,
    UnsafePathError,
)
from journal._format.crc32c import checksum
from journal.testing import SimulatedDisk
from tests.support import (
    PATH,
    TIMEOUT_S,
    Held,
    Watched,
    child,
    crash,
    frozen,
    line_of,
    logged,
    names,
    on_disk,
    open_on,
    put,
    reopened,
    segments,
    until,
    write_at,
)

# --- opening ---


def test_a_new_journal_is_empty(disk: SimulatedDisk) -> None:
    """A new journal has last LSN 0, epoch 1 and no checkpoint, and nothing to replay or to wait
    for."""
    with open_on(disk) as journal:
        assert (journal.last_lsn, journal.durable_lsn, journal.epoch) == (0, 0, 1)
        assert (journal.path, journal.closed, journal.checkpoint) == (PATH, False, None)
        assert len(bytes.fromhex(journal.journal_id)) == 16
        assert logged(journal, None) == []
        journal.wait_durable()
        journal.wait_room()
    assert journal.closed


def test_opening_without_writing_leaves_only_lock(disk: SimulatedDisk) -> None:
    """An opening that writes no record uses no epoch, and leaves no file except LOCK."""
    for _ in range(3):
        with open_on(disk) as journal:
            assert journal.epoch == 1
    assert list(disk.contents(PATH)) == ["LOCK"]
    with open_on(disk) as journal:
        put(journal, 1)
    before = disk.contents(PATH)
    for _ in range(3):
        with open_on(disk) as journal:
            assert (journal.epoch, journal.last_lsn) == (2, 1)
    assert {**disk.contents(PATH), "LOCK": b""} == {**before, "LOCK": b""}


def test_the_first_commit_makes_the_segment(disk: SimulatedDisk) -> None:
    """Appending makes no file. The first commit makes the segment, named by its first LSN and
    epoch."""
    for epoch in (1, 2, 3):
        with open_on(disk) as journal:
            before = names(disk, ".seg")
            journal.append("a")
            assert names(disk, ".seg") == before
            journal.wait_durable()
            assert names(disk, ".seg") == [*before, f"{epoch:020d}-{epoch:010d}.seg"]


def test_every_epoch_is_one_more_than_the_last(disk: SimulatedDisk) -> None:
    """P10: Each opening that writes has the next epoch. Entries state their epoch, and the journal
    id stays."""
    ids = set()
    for epoch in range(1, 5):
        with open_on(disk) as journal:
            assert journal.epoch == epoch
            put(journal, epoch, epoch)
            ids.add(journal.journal_id)
            entries = [(entry.epoch, entry.record) for entry in journal.replay()]
            assert entries == [(e, e) for e in range(1, epoch + 1) for _ in range(2)]
    assert len(ids) == 1
    assert {segment.header.journal_id.hex() for segment in segments(disk)} == ids


def test_an_opening_that_wrote_a_checkpoint_has_used_its_epoch(disk: SimulatedDisk) -> None:
    """P10: An opening that wrote a checkpoint and no segment has used its epoch."""
    with open_on(disk) as journal:
        put(journal, 1)
    with open_on(disk) as journal:
        journal.compact(frozen(journal, 1))
    with open_on(disk) as journal:
        assert journal.epoch == 3


def test_lock_names_the_writer(tmp_path: Path) -> None:
    """LOCK contains the writer's pid and epoch as text, which replaces any earlier contents."""
    path = tmp_path / "j"
    with Journal.open(path) as journal:
        put(journal, 1)
        assert (path / "LOCK").read_text() == f"pid {os.getpid()}\nepoch 1\n"
    (path / "LOCK").write_text("x" * 1000)
    with Journal.open(path):
        assert (path / "LOCK").read_text() == f"pid {os.getpid()}\nepoch 2\n"
        assert (path / "LOCK").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("note", [b"", b"\xff" * 100, b"pid 1\nepoch 99\n"])
def test_no_decision_depends_on_lock(disk: SimulatedDisk, note: bytes) -> None:
    """P9: The contents of LOCK affect neither the epoch nor who may open, and a missing LOCK
    doesn't either."""
    with open_on(disk) as journal:
        put(journal, 1)
    write_at(disk, "LOCK", 0, note)
    with open_on(disk) as journal:
        assert journal.epoch == 2
    disk.open_directory(PATH, write=True).remove("LOCK")
    assert reopened(disk) == [1]


def test_a_second_writer_in_this_process_is_refused(tmp_path: Path) -> None:
    """P10: LockedError is a BlockingIOError, and states the path, the pid and what to do. The first
    writer continues."""
    path = tmp_path / "j"
    with Journal.open(path) as journal:
        with pytest.raises(LockedError, match=r"close .* or read with JournalReader") as caught:
            Journal.open(path)
        assert isinstance(caught.value, BlockingIOError)
        assert (caught.value.path, caught.value.pid) == (str(path.resolve()), os.getpid())
        assert f"{path.resolve()}: this process has it open already; use" in str(caught.value)
        put(journal, 1)
    with Journal.open(path) as journal:
        assert logged(journal) == [1]


HOLD = """
import sys
from journal import Journal
with Journal.open(sys.argv[1]) as journal:
    journal.wait_durable(journal.append("theirs"))
    print("open", flush=True)
    sys.stdin.readline()
"""


def test_a_second_writer_in_another_process_is_refused(tmp_path: Path) -> None:
    """P10: A second process is refused while the first one writes. A process that dies without
    closing leaves no lock."""
    with child(HOLD, tmp_path / "j") as other:
        assert line_of(other) == "open"
        with pytest.raises(LockedError) as caught:
            Journal.open(tmp_path / "j")
        assert caught.value.pid == other.pid
        other.kill()
        other.wait(TIMEOUT_S)
        with Journal.open(tmp_path / "j") as journal:
            assert (logged(journal), journal.epoch) == (["theirs"], 2)


def test_a_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    """P9: A directory with files, but without a segment or LOCK, is refused. It is left unchanged
    and unlocked."""
    (tmp_path / "holiday.jpg").touch()
    tmp_path.chmod(0o755)
    for _ in range(2):
        with pytest.raises(
            UnsafePathError, match=r"'holiday.jpg', but no journal; give an empty or"
        ):
            Journal.open(tmp_path)
    assert os.listdir(tmp_path) == ["holiday.jpg"]
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_open_makes_the_last_component_only(tmp_path: Path) -> None:
    """Open makes the journal's directory, with mode 0700, but not the parent."""
    with pytest.raises(FileNotFoundError):
        Journal.open(tmp_path / "a" / "b")
    assert os.listdir(tmp_path) == []
    with Journal.open(tmp_path / "a") as journal:
        put(journal, 1)
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
        (segment,) = (tmp_path / "a").glob("*.seg")
        assert segment.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["segment", "LOCK", "checkpoint"])
def test_a_symlink_in_place_of_a_file_is_refused(tmp_path: Path, name: str) -> None:
    """P9: A symlink in place of a file is refused, and its target is not touched."""
    path = tmp_path / "j"
    with Journal.open(path) as journal:
        put(journal, 1)
        journal.compact(frozen(journal, 1))
    (file,) = path.glob({"segment": "*.seg", "checkpoint": "*.json"}.get(name, name))
    file.rename(tmp_path / "outside")
    before = (tmp_path / "outside").read_bytes()
    file.symlink_to(tmp_path / "outside")
    with pytest.raises(UnsafePathError, match=file.name):
        Journal.open(path)
    assert (tmp_path / "outside").read_bytes() == before
    file.unlink()
    (tmp_path / "outside").rename(file)
    with Journal.open(path) as journal:  # the refusal left no lock
        assert logged(journal) == [1]


def test_a_newer_format_version_is_refused(disk: SimulatedDisk) -> None:
    """A newer format version is not corruption: FormatVersionError names it."""
    with open_on(disk) as journal:
        put(journal, 1)
    (name,) = names(disk, ".seg")
    header = disk.contents(PATH)[name][:60]
    header = header[:8] + b"\x02\x00" + header[10:]
    write_at(disk, name, 0, header + checksum(header).to_bytes(4, "little"))
    before = disk.contents(PATH)
    with pytest.raises(FormatVersionError, match=rf"{name}: format version 2 is newer than 1; op"):
        open_on(disk)
    assert disk.contents(PATH) == before


# --- appending ---


def test_lsns_are_dense_from_one(disk: SimulatedDisk) -> None:
    """`append` returns the record's LSN, and `append_batch` the last record's: 1, 2, 3, …"""
    with open_on(disk) as journal:
        assert [journal.append(n) for n in (1, 2)] == [1, 2]
        assert journal.append_batch([3, 4, 5]) == 5
        assert (journal.append(6), journal.last_lsn, journal.durable_lsn) == (6, 6, 0)
        journal.wait_durable()
        assert journal.durable_lsn == 6
        assert logged(journal) == [1, 2, 3, 4, 5, 6]
    with open_on(disk) as journal:
        assert (journal.last_lsn, journal.durable_lsn, journal.append(7)) == (6, 6, 7)
    assert reopened(disk) == [1, 2, 3, 4, 5, 6, 7]


def test_append_does_no_io(disk: SimulatedDisk) -> None:
    """P7: Appending makes no call to the disk."""
    with open_on(disk) as journal:
        put(journal, 1)
        journal.stats()
        watched = Watched(disk)
        for n in range(100):
            journal.append(n)
            journal.append_batch([n, n])
        assert "MainThread" not in watched.threads


def test_append_never_waits(disk: SimulatedDisk) -> None:
    """P7: While a sync runs, records are numbered and buffered as before."""
    with open_on(disk) as journal, Held(disk, "sync", ".seg") as held:
        journal.append(0)
        with pytest.raises(TimeoutError):
            journal.wait_durable(timeout_s=0.001)
        held.wait_reached()
        assert [journal.append(n) for n in range(1, 1001)] == [*range(2, 1002)]
        assert journal.durable_lsn == 0
    assert on_disk(disk) == [*range(1001)]


def test_records_without_a_waiter_join_the_next_commit(disk: SimulatedDisk) -> None:
    """One wait commits everything that was appended before it, in one frame with one sync."""
    with open_on(disk) as journal:
        put(journal, 0)
        watched = Watched(disk)
        for n in range(1, 10):
            journal.append(n)
        journal.wait_durable(5)
        assert (journal.durable_lsn, watched.of("sync"), watched.of("write")) == (10, 1, 1)
        assert [len(frame.records) for frame in segments(disk)[0].frames] == [1, 9]


def test_the_flush_interval_commits_records_without_a_waiter(disk: SimulatedDisk) -> None:
    """A record becomes durable without a waiter once it is `flush_interval_s` old."""
    with open_on(disk, flush_interval_s=0.01) as journal:
        for n in range(1, 4):
            journal.append(n)
            until(lambda n=n: journal.durable_lsn == n, "the flush")  # type: ignore[misc]


def test_flush_bytes_start_a_commit(disk: SimulatedDisk) -> None:
    """A commit starts at `flush_bytes` buffered bytes, even without a waiter, and however recent
    the records are."""
    with open_on(disk, flush_bytes=100) as journal:
        journal.append(b"x" * 90)
        journal.append(b"x" * 5)
        assert journal.durable_lsn == 0
        journal.append(b"x" * 5)
        until(lambda: journal.durable_lsn == 3, "the flush")


# --- frames and batches ---


STEPS = st.lists(
    st.integers(0, 90) | st.lists(st.integers(0, 20), min_size=1, max_size=4), max_size=30
)


@given(steps=STEPS, frame_bytes_max=st.integers(92, 200))
def test_a_batch_is_in_one_frame(steps: list[Any], frame_bytes_max: int) -> None:
    """P3: A commit larger than a frame is split into frames of at most `frame_bytes_max`, and a
    batch is never split."""
    disk = SimulatedDisk()
    with open_on(disk, frame_bytes_max=frame_bytes_max) as journal:
        batches = []
        for step in steps:
            if isinstance(step, int):
                batches.append((journal.append(b"x" * step), 1))
            else:
                batches.append((journal.append_batch([b"x" * size for size in step]), len(step)))
        journal.wait_durable()
    with JournalReader.open(PATH, disk=disk) as reader:
        offsets = {entry.lsn: (entry.path, entry.offset) for entry in reader.entries()}
    assert [*offsets] == [*range(1, journal.last_lsn + 1)]
    for last_lsn, count in batches:
        assert len({offsets[lsn] for lsn in range(last_lsn + 1 - count, last_lsn + 1)}) == 1
    frames = [frame for segment in segments(disk) for frame in segment.frames]
    for frame in frames:
        assert sum(len(record) + 2 for record in frame.records) <= frame_bytes_max


def test_several_frames_share_one_sync(disk: SimulatedDisk) -> None:
    """P2: A commit of several frames does one sync."""
    with open_on(disk, frame_bytes_max=100) as journal:
        put(journal, 0)
        watched = Watched(disk)
        journal.append_batch([b"x" * 20] * 4)
        for _ in range(10):
            journal.append(b"x" * 90)
        journal.wait_durable()
        assert watched.of("sync") == 1
        assert len(segments(disk)[0].frames) == 12
        assert logged(journal) == [0] + [b"x" * 20] * 4 + [b"x" * 90] * 10


def test_a_batch_is_atomic_when_a_crash_tears_its_frame(disk: SimulatedDisk) -> None:
    """P3: Whatever part of a batch's frame reached the disk, recovery yields all of the batch or
    none of it."""
    with open_on(disk) as journal:
        put(journal, "before")
        ((start, size),) = [(len(s.header.encode()) + 44 + 7, 0) for s in segments(disk)]
        journal.wait_durable(journal.append_batch(["a", "b", "c"]))
        crash(journal, disk)
    (name,) = names(disk, ".seg")
    whole = disk.contents(PATH)[name].rstrip(b"\0")
    for size in range(start, len(whole)):
        copy = SimulatedDisk()
        directory = copy.open_directory(PATH, write=True)
        directory.open(name, "create").write(whole[:size], 0)
        assert reopened(copy) == ["before"], size
    assert reopened(disk) == ["before", "a", "b", "c"]
