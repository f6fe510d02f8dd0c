"""Directories that are older than the checkpoints of their mirror: opened, followed, put aside."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from journal import Journal, JournalReader
from journal._disk.posix import PosixDisk
from journal._mirror.comparing import compare
from journal._mirror.following import Following
from journal._mirror.memory_store import MemoryStore
from tests.mirror.stores import SMALL, TIMEOUT_S, crash, mirror_of, opened


def compacted(path: Path, store: MemoryStore, rounds: int = 6, *, keep_s: float = 0) -> int:
    """Add records to a mirrored journal and trim it, again and again. Return the last LSN."""
    with opened(path, store, keep_s=keep_s, takeover=True) as journal:
        for _ in range(rounds):
            for _ in range(14):
                lsn = journal.append(b"x" * 400)
            journal.wait_mirrored(lsn, timeout_s=TIMEOUT_S)
            journal.trim(lsn - 5)
        journal.append("last")
        journal.wait_mirrored(timeout_s=TIMEOUT_S)
        return journal.last_lsn


def lsns_in(path: Path) -> list[int]:
    with JournalReader.open(path) as reader:
        assert [each for each in reader.verify() if each.kind != "torn_tail"] == []
        return [entry.lsn for entry in reader.entries()]


def test_an_empty_directory_gets_the_checkpoints(tmp_path: Path) -> None:
    """An open in an empty directory fetches the two newest checkpoints and the log after them."""
    store = MemoryStore()
    last = compacted(tmp_path / "a", store)
    with opened(tmp_path / "b", store, takeover=True) as journal:
        assert journal.last_lsn == last
        journal.append("more")
    lsns = lsns_in(tmp_path / "b")
    assert lsns == [*range(lsns[0], last + 2)]
    assert lsns[0] > 1
    assert len(list((tmp_path / "b").glob("checkpoint-*.json"))) == 2


@pytest.mark.parametrize(
    ("keep_s", "is_noted", "asides"), [(86_400, False, 0), (0, True, 0), (0, False, 1)]
)
def test_a_directory_older_than_the_mirror_opens(
    keep_s: int, is_noted: bool, asides: int, tmp_path: Path
) -> None:
    """A directory that was rolled back to before the mirror's newest checkpoints gets the rest if
    the mirror still has the log in between, or if its note shows that the mirror had its records.
    Otherwise its files are put aside."""
    store, path = MemoryStore(), tmp_path / "a"
    with opened(path, store) as journal:
        for _ in range(20):
            journal.append(b"x" * 400)
    shutil.copytree(path, tmp_path / "old")
    last = compacted(path, store, keep_s=keep_s)
    shutil.rmtree(path)
    shutil.copytree(tmp_path / "old", path)
    if not is_noted:
        (path / "MIRROR.place").unlink()
    with opened(path, store, takeover=True) as journal:
        assert journal.last_lsn == last
    assert lsns_in(path)[-1] == last
    assert len(list(tmp_path.glob("a.aside-*"))) == asides


def test_a_crash_while_checkpoints_are_fetched_is_repaired(tmp_path: Path) -> None:
    """If a crash comes after some of the files got their names, the next open fetches the rest."""
    store = MemoryStore()
    last = compacted(tmp_path / "a", store)
    directory = PosixDisk().open_directory(tmp_path / "b", write=True)
    compare(store, directory).fetch()
    directory.close(unlock=False)
    names = sorted(path.name for path in (tmp_path / "b").iterdir() if path.suffix != ".place")
    put = sorted(names, key=lambda name: (name.endswith(".seg"), name))
    for count in range(len(put) + 1):
        path = tmp_path / f"c{count}"
        path.mkdir(mode=0o700)
        for name in put[:count]:
            shutil.copy(tmp_path / "b" / name, path / name)
        with opened(path, store, takeover=True) as journal:
            assert journal.last_lsn == last
        assert lsns_in(path)[-1] == last


def test_a_follower_that_fell_behind_goes_on_from_checkpoints(tmp_path: Path) -> None:
    """A follower whose next entry is gone gets the newest checkpoints and the log after them, and
    then follows as before."""
    store = MemoryStore()
    compacted(tmp_path / "a", store, rounds=1)
    directory = PosixDisk().open_directory(tmp_path / "b", write=True)
    comparison = compare(store, directory)
    comparison.fetch()
    clock_s = iter(range(0, 10_000, 100)).__next__  # so that each poll lists
    following = Following(store, directory, comparison.known, poll_s=1, clock_s=clock_s)
    last = compacted(tmp_path / "a", store)
    following.poll()
    assert following.lsn == last
    last = compacted(tmp_path / "a", store, rounds=1)
    following.poll()
    assert following.lsn == last
    following._copy.close()
    directory.close(unlock=False)
    with Journal.open(tmp_path / "b", options=SMALL) as journal:
        assert journal.last_lsn == last


def test_records_of_a_writer_that_crashed_before_a_base_stay(tmp_path: Path) -> None:
    """A writer that crashes with a bound of 0 loses no local record: the next open continues the
    mirror from a checkpoint."""
    store, path = MemoryStore(), tmp_path / "a"
    last = compacted(path, store, rounds=2)
    journal = Journal.open(path, options=SMALL, mirror=False)
    for _ in range(30):
        lsn = journal.append(b"x" * 400)
    journal.wait_durable(lsn)
    journal.trim(lsn - 5)
    journal.close()
    with Journal.open(path, options=SMALL, mirror=mirror_of(store, lag_bytes_max=0)) as journal:
        journal.wait_mirrored(lsn, timeout_s=TIMEOUT_S)
        journal.append("more")
        crash(journal)
    with opened(tmp_path / "b", store, takeover=True) as journal:
        assert journal.last_lsn > last + 30
