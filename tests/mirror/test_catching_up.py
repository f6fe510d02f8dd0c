"""Catching up: readers meet no damage while a follower that was away goes on."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from journal import CompactedError, JournalReader, Options
from journal._disk.disk import TMP, Directory, Disk, File
from journal._format.checkpoint import checkpoint_lsns
from journal._mirror import blobs, rolling_up
from journal._mirror.blobs import checkpoint_names
from journal._mirror.entry import MirrorEntry
from journal._mirror.live_copy import LiveCopy
from journal._mirror.place_note import Known
from journal._mirror.reading import read_log
from journal._mirror.store import UnreachableError
from journal.testing import SimulatedDisk
from tests.mirror.shipping_support import TIMEOUT_S, Mirrored, segments_in
from tests.mirror.test_checkpointing import counter_at
from tests.mirror.test_comparing import Counted
from tests.mirror.test_following import Clock, followed


def read_state(path: Path | str, disk: Disk | None = None) -> tuple[int, int]:
    """Return the LSN and the state of a journal, as a reader finds it."""
    with JournalReader.open(path, disk=disk) as reader:
        base, lsn, count = reader.base(), 0, 0
        if base is not None:
            with closing(base):
                items: Any = list(base.items())
                lsn, count = base.lsn, items[0]["count"]
        for entry in reader.entries(lsn):
            lsn, count = entry.lsn, count + 1
    return lsn, count


def test_readers_meet_no_damage_while_a_follower_catches_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that was away while the mirror removed the log goes on from a checkpoint. Until
    then, readers find the state before, and then the new one. A reader in the middle of the log is
    told that what it reads next is no longer kept, as if the writer had compacted."""
    store, clock, found = Counted(), Clock(), list[int]()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    counter.rounds(1)
    with followed(store, tmp_path / "b", clock) as following:
        before = following.lsn
        with JournalReader.open(tmp_path / "b") as reader:
            entries = reader.entries(follow=True)
            assert any(entry.lsn == before for entry in entries)
            counter.rounds(6)
            apply = following._copy.apply

            def applied(entry: MirrorEntry) -> None:
                apply(entry)
                lsn, count = read_state(tmp_path / "b")
                assert lsn == count == following.lsn
                found.append(lsn)

            monkeypatch.setattr(following._copy, "apply", applied)
            clock.now_s += 61
            following.poll()
            assert (found[0], found[-1]) == (before, counter.journal.last_lsn)
            with pytest.raises(CompactedError):
                next(entries)
    counter.close()


class Watched:
    """A directory for readers, or a segment in it, that calls a function after each look at a
    segment's size."""

    def __init__(self, handle: Any, then: Callable[[], object]) -> None:
        self._handle = handle
        self._then = then

    def open(self, name: str, mode: str) -> Any:
        file = self._handle.open(name, mode)
        return Watched(file, self._then) if name.endswith(".seg") else file

    def size(self) -> int:
        size: int = self._handle.size()
        self._then()
        return size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)


def test_a_mark_may_go_while_a_reader_looks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that goes on from a checkpoint removes the mark of the segment before it, in which
    a reader is. Wherever the reader is just then, what follows is no longer kept."""
    store, clock, ended = Counted(), Clock(), list[File]()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    counter.rounds(1)
    with (
        followed(store, tmp_path / "b", clock) as following,
        JournalReader.open(tmp_path / "b") as reader,
    ):
        end_segment = following._copy._end_segment
        watched = Watched(reader._opened, lambda: [end_segment(file) for file in ended])
        reader._opened = cast(Directory, watched)
        entries = reader.entries(follow=True)
        assert any(entry.lsn == following.lsn for entry in entries)
        counter.rounds(6)

        def read_and_end(file: File) -> None:
            ended.append(file)
            with pytest.raises(CompactedError):
                next(entries)

        monkeypatch.setattr(following._copy, "_end_segment", read_and_end)
        clock.now_s += 61
        following.poll()
        assert ended
    counter.close()


@pytest.mark.parametrize(
    ("is_away", "whole", "is_compacted"),
    [(False, 0, False), (True, 0, True), (True, 1, False)],
    ids=["what is there", "the first", "the second"],
)
def test_a_part_of_a_checkpoint_gets_no_name(
    is_away: bool,
    whole: int,
    is_compacted: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If the mirror falls silent while a follower gets a checkpoint, no reader finds a part of it.
    That is one of what is there already, or, if the follower was away, one of two to go on from."""
    for module in (blobs, rolling_up):
        monkeypatch.setattr(module, "PART_BYTES", 64)
    store, clock, cut = Counted(), Clock(), list[str]()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    counter.rounds(1)
    with followed(store, tmp_path / "b", clock) as following:
        counter.rounds(5 if is_away else 1)
        if not is_away:
            following.poll()
        blob = store.blob

        def broken(name: str) -> Iterator[bytes]:
            data = b"".join(blob(name))
            cut.extend([name] if name.endswith(".ckpt") else [])
            if len(cut) <= whole:
                yield data
                return
            yield data[:-9]
            raise UnreachableError("the store is down")

        store.blob = broken  # type: ignore[method-assign]
        clock.now_s += 61
        with pytest.raises(UnreachableError):
            following.poll()
        assert len(cut) == whole + 1
        store.blob = blob  # type: ignore[method-assign]
        counter.add(2)
        counter.ship()
        counter.rounds(2 if is_compacted else 0)
        following.poll()
        with JournalReader.open(tmp_path / "b") as reader:
            assert list(reader.verify()) == []
        assert read_state(tmp_path / "b") == (following.lsn, following.lsn)
    counter.close()


def test_a_follower_that_stops_while_it_catches_up_shows_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers find the state before, and nothing unfinished is left."""
    store, clock = Counted(), Clock()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    counter.rounds(1)
    with followed(store, tmp_path / "b", clock) as following:
        before = following.lsn
        counter.rounds(5)
        for _ in range(7):  # so that it lacks more than three entries up to the last checkpoint
            counter.add(2)
            counter.ship()
        counter.compact()
        counter.mirrored.settle()
        apply, applied = following._copy.apply, list[int]()

        def apply_some(entry: MirrorEntry) -> None:
            apply(entry)
            applied.append(entry.number)
            if len(applied) == 3:
                following.stop()

        monkeypatch.setattr(following._copy, "apply", apply_some)
        clock.now_s += 61
        following.poll()
        assert len(applied) == 3
        assert read_state(tmp_path / "b") == (following.lsn, following.lsn) == (before, before)
    assert not [path for path in (tmp_path / "b").iterdir() if path.name.endswith(TMP)]
    counter.close()


@pytest.fixture
def catching_up(tmp_path: Path) -> Iterator[tuple[SimulatedDisk, LiveCopy, Iterator[MirrorEntry]]]:
    """Yield a copy that has begun with the newest checkpoint, its disk, and the log after it."""
    store, disk = Counted(), SimulatedDisk()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    counter.rounds(2)
    newest = checkpoint_names(store.blob_names())[-1:]
    directory = disk.open_directory("/b", write=True)
    copy = LiveCopy(directory, Known())
    with closing(read_log(store, start=newest)) as log:
        copy.apply(next(log))
        yield disk, copy, log
    copy.close()
    directory.close(unlock=False)
    counter.close()


CatchingUp = tuple[SimulatedDisk, LiveCopy, Iterator[MirrorEntry]]


def test_a_checkpoint_is_shown_with_the_log_after_it(catching_up: CatchingUp) -> None:
    """As long as nothing after a checkpoint has come, readers do not see it. Then all files get
    their names, with no sync in between, which could take long."""
    disk, copy, log = catching_up
    assert checkpoint_lsns(copy._directory.names()) == []
    before = len(disk.operations)
    for entry in log:
        copy.apply(entry)
    assert read_state("/b", disk)[0] == copy.last_lsn > 0
    operations = [operation for operation, _ in disk.operations[before:]]
    names = [at for at, operation in enumerate(operations) if operation.startswith("rename")]
    assert len(names) > 1
    assert {*operations[names[0] : names[-1]]} == {operations[names[0]]}


def test_a_copy_is_closed_on_a_disk_that_fails(catching_up: CatchingUp) -> None:
    """A close raises nothing if an unfinished file can't be removed, which does no harm."""
    disk, copy, _ = catching_up
    disk.fail("remove", errno.EIO)
    copy.close()
    assert disk.faults == 1


def test_a_roll_up_may_be_removed_as_soon_as_it_is_listed(tmp_path: Path) -> None:
    """A follower that finds that the next entry was rolled up, and then that the roll-up is removed
    as well, goes on from a checkpoint. That is no damage."""
    store, clock = Counted(), Clock()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    counter.rounds(1)
    with followed(store, tmp_path / "b", clock) as following:
        names, lists = store.blob_names, [store.blob_names()]
        counter.rounds(1)

        def listed() -> list[str]:
            if lists:
                return lists.pop()  # from before the entry was rolled up
            found = names()
            if rounds:
                counter.rounds(rounds.pop())
            return found

        rounds = [4]
        store.blob_names = listed  # type: ignore[method-assign]
        clock.now_s += 61
        following.poll()
        assert (lists, rounds) == ([], [])
        assert following.lsn == counter.journal.last_lsn
    counter.close()


def last_read(reader: JournalReader) -> int:
    return max(entry.lsn for entry in reader.entries())


def last_stated(reader: JournalReader) -> int:
    return reader.last_lsn


class Polled:
    """A directory for readers, whose follower polls after each listing."""

    def __init__(self, directory: Directory, poll: Callable[[], None]) -> None:
        self._directory = directory
        self._poll = poll

    def names(self) -> list[str]:
        names = self._directory.names()
        self._poll()
        return names

    def __getattr__(self, name: str) -> Any:
        return getattr(self._directory, name)


@pytest.mark.parametrize("read", [last_read, last_stated])
def test_a_reader_never_goes_back(read: Callable[[JournalReader], int], tmp_path: Path) -> None:
    """If the follower begins a segment just when a reader has listed the files, the reader still
    finds every record that it has found before."""
    store = Counted()
    mirrored = Mirrored(tmp_path / "a", store, Options(segment_bytes=4096), interval_s=3600)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    with followed(store, tmp_path / "b") as following:
        for _ in range(60):
            before = following.lsn
            assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
            with JournalReader.open(tmp_path / "b") as reader:
                reader._opened = cast(Directory, Polled(reader._opened, following.poll))
                assert read(reader) >= before
        assert len(segments_in(tmp_path / "b")) > 2
    mirrored.close()
