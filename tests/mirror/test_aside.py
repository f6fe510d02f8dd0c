"""Putting aside: a directory that has diverged from its mirror keeps its records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from journal import CorruptionError, Journal, JournalError, JournalReader, Record
from journal._disk.disk import Directory
from journal._disk.posix import PosixDisk
from journal._engine.reappending import reappend
from journal._mirror.aside import own_frames, put_aside, read_aside, write_aside
from journal._mirror.attaching import Attached, Attachment
from journal._mirror.memory_store import MemoryStore
from journal.testing import Outcome, SimulatedDisk, keep, lose, seeded
from tests.mirror.shipping_support import SMALL, segments_in
from tests.mirror.test_attaching import attached
from tests.mirror.test_claiming import new_nonce
from tests.mirror.test_comparing import COMMITS, Case, differ, rolled_back_and_written
from tests.mirror.world import STATEMENT
from tests.tiers import slow_unless

EPOCH = 2  # of the writer that made the fork


def test_a_fork_is_put_aside(tmp_path: Path) -> None:
    """If both have records that the other lacks, the directory gets the mirror's, and its own files
    are beside it, unchanged. They say how much of them the mirror has."""
    case = Case(tmp_path)
    rolled_back_and_written(case)
    before = segments_in(case.path)
    found = attached(case.store, case.path)
    assert found.appender.epoch > EPOCH
    folder = tmp_path / f"journal.aside-{EPOCH}"
    assert segments_in(folder) == before
    with Journal.open(case.path, options=SMALL, mirror=False) as journal:
        assert journal.last_lsn == COMMITS
    aside = read_aside(PosixDisk().open_directory(folder, write=False))
    assert (aside.path, aside.origin) == (str(folder), str(case.path))
    own = own_frames(PosixDisk().open_directory(folder, write=False), aside, None)
    assert [records for _, records in own] == [[0], [1], [2]]


def test_differing_bytes_are_put_aside(tmp_path: Path) -> None:
    """A record that differs from the mirror's in its place is evidence of a fork."""
    case = Case(tmp_path)
    differ(case)
    before = segments_in(case.path)
    attached(case.store, case.path)
    (folder,) = tmp_path.glob("journal.aside-*")
    assert segments_in(folder) == before
    assert case.verdict() == "equal"


def test_nothing_is_ever_replaced_aside(tmp_path: Path) -> None:
    """Another fork of the same epoch gets a directory of its own."""
    case = Case(tmp_path)
    for number, suffix in enumerate(("", "-2", "-3"), 1):
        case.roll_back()
        case.write(number)
        before = segments_in(case.path)
        attached(case.store, case.path, takeover=True)
        assert segments_in(tmp_path / f"journal.aside-{EPOCH}{suffix}") == before
    case.roll_back()
    case.write(3)
    (path,) = [tmp_path / f"journal.aside-{EPOCH}-3"]
    for name, data in segments_in(path).items():
        (case.path / name).write_bytes(data)
    attached(case.store, case.path, takeover=True)
    assert len(list(tmp_path.glob("journal.aside-*"))) == 3


def test_an_incomplete_directory_is_none(tmp_path: Path) -> None:
    """A directory without its last file was interrupted, or is something else."""
    directory = PosixDisk().open_directory(tmp_path, write=False)
    with pytest.raises(JournalError, match="not a directory that was put aside"):
        read_aside(directory)


class Forked:
    """A fork on a simulated disk, and its mirror."""

    def __init__(self, root: Path) -> None:
        case = Case(root, noted=True)
        self.mirrored = segments_in(case.path)
        rolled_back_and_written(case)
        case.write()  # another opening, with another epoch
        self.own = segments_in(case.path)
        files = {path.name: path.read_bytes() for path in case.path.iterdir()}
        self.disk = SimulatedDisk.holding("/j", files)
        self._entries = case.store._entries
        self._blobs = case.store._blobs

    def store(self) -> MemoryStore:
        store = MemoryStore()
        store._entries, store._blobs = dict(self._entries), dict(self._blobs)
        return store

    def crashed(self, after: int, outcome: Outcome) -> SimulatedDisk | None:
        """Return the disk after an opening that crashed, or None if it did not."""
        disk = SimulatedDisk(self.disk.snapshot())
        disk.crash_after(after)
        store = self.store()
        try:
            opened(disk, store)
        except OSError:
            assert disk.crashed
        else:
            return None
        disk.power_cut(outcome)
        return disk


def opened(disk: SimulatedDisk, store: MemoryStore) -> Attached:
    directory: Directory = disk.open_directory("/j", write=True)
    attachment = Attachment(
        lambda _: store,
        disk,
        directory,
        STATEMENT,
        new_nonce,
        url="memory:",
        marker=None,
        takeover=True,
    )
    found = attachment.attach()
    directory.close(unlock=False)
    return found


def segments_on(disk: SimulatedDisk, path: str) -> dict[str, bytes]:
    return {name: data for name, data in disk.contents(path).items() if name.endswith(".seg")}


def test_a_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    """A directory that is named like one that was put aside, but was not begun by an open, keeps
    its files. The fork gets the next name."""
    case = Case(tmp_path)
    rolled_back_and_written(case)
    other = tmp_path / f"journal.aside-{EPOCH}"
    other.mkdir(0o700)
    (other / "notes.txt").write_text("mine")
    before = segments_in(case.path)
    attached(case.store, case.path)
    assert [path.name for path in other.iterdir()] == ["notes.txt"]
    assert segments_in(tmp_path / f"journal.aside-{EPOCH}-2") == before


@pytest.mark.parametrize(
    "outcome",
    slow_unless(lambda outcome: outcome not in (keep, lose), [keep, lose, seeded(1)]),
    ids=["kept", "lost", "some"],
)
def test_each_step_may_be_interrupted(outcome: Outcome, tmp_path: Path) -> None:
    """After a power cut at any step, the next opening has the mirror's records, and those that only
    the directory had are in it or aside, in one complete directory."""
    forked = Forked(tmp_path)
    after = 0
    while (disk := forked.crashed(after, outcome)) is not None:
        opened(disk, forked.store())
        found = segments_on(disk, "/j")
        assert {name: data.rstrip(b"\0") for name, data in found.items()} == {
            name: data.rstrip(b"\0") for name, data in forked.mirrored.items()
        }
        aside = disk.open_directory(f"/j.aside-{EPOCH + 1}", write=False)
        read_aside(aside)
        assert segments_on(disk, aside.path) == forked.own
        assert disk.contents(f"{aside.path}-2") == disk.contents(f"/j.aside-{EPOCH}") == {}
        after += 1
    assert after > 20


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    """If there is no room for a copy, the opening fails, and the directory is as before."""
    forked = Forked(tmp_path)
    disk = forked.disk
    disk.capacity = sum(map(len, forked.own.values())) + 5000
    with pytest.raises(OSError, match="ENOSPC"):
        opened(disk, forked.store())
    assert segments_on(disk, "/j") == forked.own


def test_unlisted_files_stay(tmp_path: Path) -> None:
    """Files that are neither segments nor checkpoints stay where they are."""
    case = Case(tmp_path)
    rolled_back_and_written(case)
    (case.path / "notes.txt").write_text("mine")
    disk = PosixDisk()
    directory = disk.open_directory(case.path, write=True)
    put_aside(disk, directory, {})
    directory.close(unlock=False)
    assert {path.name for path in case.path.iterdir()} == {"LOCK", "notes.txt"}


# --- appended again ---


def put(case: Case) -> Path:
    """Put a fork aside, and return its directory."""
    rolled_back_and_written(case)
    attached(case.store, case.path)
    (folder,) = case.path.parent.glob("journal.aside-*")
    return folder


def records_after(path: Path, lsn: int) -> list[object]:
    with JournalReader.open(path) as reader:
        return [entry.record for entry in reader.entries(lsn) if not entry.is_filler]


def test_the_fork_is_appended_again(tmp_path: Path) -> None:
    """The records that no mirror has are appended once, however often that is asked for. What the
    mirror had from the fork is not repeated."""
    case = Case(tmp_path)
    folder = put(case)
    before = reappend(folder)
    assert (before.records, before.appended_last_lsn) == (3, None)
    assert before.last_lsn - before.first_lsn == 2
    for _ in range(2):
        with Journal.open(case.path, options=SMALL, mirror=False) as journal:
            report = reappend(folder, journal)
            assert (report.appended_after_lsn, report.records) == (COMMITS, 3)
            assert report.appended_last_lsn == journal.durable_lsn
    assert records_after(case.path, COMMITS) == [0, 1, 2]
    assert reappend(folder) == report


def test_an_interrupted_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that was interrupted between two batches goes on after the last one that the journal
    has."""
    case = Case(tmp_path)
    folder = put(case)
    with Journal.open(case.path, options=SMALL, mirror=False) as journal:
        append = journal.append_batch
        batches: list[list[Record]] = []

        def fail(batch: list[Record]) -> int:
            batches.append(batch)
            if len(batches) == 2:
                raise RuntimeError
            return append(batch)

        monkeypatch.setattr(journal, "append_batch", fail)
        with pytest.raises(RuntimeError):
            reappend(folder, journal)
    with Journal.open(case.path, options=SMALL, mirror=False) as journal:
        reappend(folder, journal)
    assert records_after(case.path, COMMITS) == [0, 1, 2]


def test_other_records_stop_an_interrupted_call(tmp_path: Path) -> None:
    """If an earlier call was interrupted and the journal went on in another way since then, nothing
    is appended."""
    case = Case(tmp_path)
    folder = put(case)
    directory = PosixDisk().open_directory(folder, write=True)
    write_aside(directory, read_aside(directory)._replace(appended_after=COMMITS))
    directory.close(unlock=False)
    with Journal.open(case.path, options=SMALL, mirror=False) as journal:
        journal.append("other")
        with pytest.raises(JournalError, match="has other records after LSN 60"):
            reappend(folder, journal)
    assert records_after(case.path, COMMITS) == ["other"]


def test_only_the_same_journal_takes_them(tmp_path: Path) -> None:
    """Records are not appended to another journal, and a directory that was not put aside has
    none."""
    case = Case(tmp_path)
    folder = put(case)
    with Journal.open(tmp_path / "other") as journal:
        with pytest.raises(JournalError, match="nothing was appended"):
            reappend(folder, journal)
        with pytest.raises(JournalError, match="not a directory that was put aside"):
            reappend(case.path, journal)
        assert journal.last_lsn == 0


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 9, "x": 1}', '{"version": 1}'])
def test_a_damaged_statement_is_reported(text: str, tmp_path: Path) -> None:
    """A file ASIDE that no version fits is an error that names it."""
    (tmp_path / "ASIDE").write_text(text)
    directory = PosixDisk().open_directory(tmp_path, write=False)
    with pytest.raises(JournalError, match="ASIDE: "):
        read_aside(directory)


@pytest.mark.parametrize("damaged", [{2}, {4}, {2, 4}])
def test_damage_to_what_the_mirror_has_is_passed_over(damaged: set[int], tmp_path: Path) -> None:
    """If a directory that was put aside has damaged records that the mirror has, the others are
    appended again all the same, and nothing else."""
    aside = forked_with(tmp_path, damaged)
    assert reappend(aside).records == 3
    with Journal.open(tmp_path / "j", mirror=False) as journal:
        assert reappend(aside, journal).appended_last_lsn == 8
    assert records_after(tmp_path / "j", 5) == ["own 5", "own 6", "own 7"]


@pytest.mark.parametrize("damaged", [{5}, {6}, {7}, {2, 6}, {4, 5}])
def test_damage_to_other_records_is_reported(damaged: set[int], tmp_path: Path) -> None:
    """If a record is damaged that no mirror has, nothing is appended."""
    aside = forked_with(tmp_path, damaged)
    lost = max(damaged)
    with pytest.raises(CorruptionError) as refused:
        reappend(aside)
    assert refused.value.lsn == lost - ({4, 5} == damaged)
    with Journal.open(tmp_path / "j", mirror=False) as journal:
        with pytest.raises(CorruptionError):
            reappend(aside, journal)
        assert journal.last_lsn == 5


def forked_with(root: Path, damaged: set[int]) -> Path:
    """Put a directory aside that has four records of the mirror and three others, of which the
    LSNs `damaged` are damaged. Return its path."""
    mirror = (root / "mirror").as_uri()
    with Journal.open(root / "j", mirror=mirror) as journal:
        for lsn in range(1, 5):
            journal.append_and_wait(f"common {lsn}")
    with Journal.open(root / "j", mirror=False) as journal:
        for lsn in range(5, 8):
            journal.append_and_wait(f"own {lsn}")
    with Journal.open(root / "other", mirror=mirror) as journal:
        journal.append_and_wait("other")
    for segment in (root / "j").glob("*.seg"):
        data = segment.read_bytes()
        for lsn in damaged:
            data = re.sub(rb"(common|own) %d" % lsn, rb"\1?%d" % lsn, data)
        segment.write_bytes(data)
    Journal.open(root / "j", mirror=mirror).close()
    (aside,) = root.glob("j.aside-*")
    return aside
