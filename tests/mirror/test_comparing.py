"""The comparison of a mirror with a local directory: each state of one beside each of the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from journal import Journal, Options
from journal._disk.posix import PosixDisk
from journal._format import frame
from journal._format.checkpoint import checkpoint_name
from journal._format.layout import FRAME_HEADER_BYTES, RECORDS
from journal._format.segment import Segment
from journal._mirror.comparing import Comparison, compare
from journal._mirror.entry import segment_name
from journal._mirror.memory_store import MemoryStore
from journal._mirror.place_note import read_note, write_note
from journal._mirror.reading import read_log
from journal._mirror.restoring import restore_into
from tests.mirror.shipping_support import SMALL, TIMEOUT_S, Mirrored, segments_in
from tests.mirror.stores import opened

COMMITS = 60


class Counted(MemoryStore):
    """A store that counts the entries and blobs that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    def entry(self, number: int) -> bytes:
        self.reads += 1
        return super().entry(number)

    def blob(self, name: str) -> Iterator[bytes]:
        self.reads += 1
        return super().blob(name)


class Case:
    """A mirror with `COMMITS` commits in several segments, and copies of its directory. `noted`:
    each copy has a note of the last place."""

    def __init__(self, root: Path, *, noted: bool = False) -> None:
        self.store = Counted()
        self.path = root / "journal"
        self.early = root / "early"
        mirrored = Mirrored(self.path, self.store)
        assert mirrored.shipper.wait(mirrored.commit(20), TIMEOUT_S)
        shutil.copytree(self.path, self.early)  # as a snapshot of the machine has it
        if noted:
            self.note(self.early)
        assert mirrored.shipper.wait(mirrored.commit(COMMITS - 20), TIMEOUT_S)
        mirrored.close()
        if noted:
            self.note(self.path)

    def note(self, path: Path) -> None:
        """Write the note of a directory that has what the mirror has."""
        directory = PosixDisk().open_directory(path, write=True)
        comparison = compare(self.store, directory)
        assert comparison.verdict == "equal"
        write_note(directory, comparison.known)
        directory.close(unlock=False)

    @contextmanager
    def comparison(self) -> Iterator[Comparison]:
        directory = PosixDisk().open_directory(self.path, write=True)
        try:
            yield compare(self.store, directory)
        finally:
            directory.close(unlock=False)

    def verdict(self) -> str:
        with self.comparison() as comparison:
            comparison.staging.drop()
            return comparison.verdict

    def roll_back(self) -> None:
        shutil.rmtree(self.path)
        shutil.copytree(self.early, self.path)

    def write(self, count: int = 3) -> None:
        with Journal.open(self.path, options=SMALL) as journal:
            for number in range(count):
                journal.wait_durable(journal.append(number))


def empty(case: Case) -> None:
    shutil.rmtree(case.path)
    case.path.mkdir()


def cut_mark(case: Case) -> None:
    """Take the last mark back to zeros, as a power cut after the close may do."""
    path = sorted(case.path.glob("*.seg"))[-1]
    data = path.read_bytes()
    path.write_bytes(data[:-48] + bytes(48))


def rolled_back_and_written(case: Case) -> None:
    case.roll_back()
    case.write()


def differ(case: Case, *, is_whole: bool = True) -> None:
    """Write another frame, or damage, in the place of the first one."""
    path = min(case.path.glob("*.seg"))
    with Segment(PosixDisk().open_directory(case.path, write=False), segment_name(path.name)) as s:
        changed, *_ = s.scan()
        payload, head = bytearray(changed.data[FRAME_HEADER_BYTES:]), changed.header
        payload[-1] ^= 1
        places = {"lsn": head.first_lsn, "durable_lsn": head.durable_lsn, "now_ns": 1}
        data = frame.encode(
            RECORDS, bytes(payload), head.record_count, seed=s.header.seed, **places
        )
    with path.open("r+b") as file:
        file.seek(changed.offset)
        file.write(data if is_whole else b"?" * len(data))


@pytest.mark.parametrize("noted", [False, True], ids=["no note", "noted"])
@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        (lambda case: None, "equal"),
        (empty, "behind"),
        (Case.roll_back, "behind"),
        (cut_mark, "behind"),
        (lambda case: sorted(case.path.glob("*.seg"))[-1].unlink(), "behind"),
        (Case.write, "ahead"),
        (rolled_back_and_written, "forked"),
        (differ, "forked"),
    ],
    ids=[
        "equal",
        "empty",
        "rolled back",
        "mark lost",
        "segment lost",
        "ahead",
        "forked",
        "differs",
    ],
)
def test_each_state_is_told_apart(
    change: Callable[[Case], object], verdict: str, noted: bool, tmp_path: Path
) -> None:
    """The comparison reports who lacks bytes, whatever the note of the last place says. What the
    directory lacks can be fetched, and then it is equal, byte for byte, and opens with every
    record."""
    case = Case(tmp_path, noted=noted)
    whole = segments_in(case.path)
    change(case)
    with case.comparison() as comparison:
        assert comparison.verdict == verdict
        assert bool(comparison.staging.names) == (verdict == "behind")
        comparison.fetch()
    if verdict != "behind":
        return
    assert case.verdict() == "equal"
    assert {name: data.rstrip(b"\0") for name, data in segments_in(case.path).items()} == {
        name: data.rstrip(b"\0") for name, data in whole.items()
    }
    with Journal.open(case.path, options=SMALL) as journal:
        assert journal.last_lsn == COMMITS


@pytest.mark.parametrize(("is_whole", "verdict"), [(False, "equal"), (True, "forked")])
def test_only_damage_is_passed_over_if_checkpoints_cover_it(
    is_whole: bool, verdict: str, tmp_path: Path
) -> None:
    """Other records in the place of the mirror's make a fork, although two checkpoints cover them.
    A damaged frame does not."""
    case = Case(tmp_path)
    _, second, *_ = sorted(case.path.glob("*.seg"))
    floor_lsn = segment_name(second.name).first_lsn - 1
    for lsn in (floor_lsn, floor_lsn + 1):
        (case.path / checkpoint_name(lsn)).touch()
    differ(case, is_whole=is_whole)
    assert case.verdict() == verdict


def test_a_note_saves_reading_the_mirror_again(tmp_path: Path) -> None:
    """With a note, only what the mirror got since then is read."""
    case = Case(tmp_path, noted=True)
    case.store.reads = 0
    assert case.verdict() == "equal"
    assert case.store.reads == 1
    (case.path / "MIRROR.place").unlink()
    assert case.verdict() == "equal"
    assert case.store.reads > 2


def damage_note(case: Case) -> None:
    path = case.path / "MIRROR.place"
    path.write_bytes(path.read_bytes()[:-1])


def mirror_anew(case: Case) -> None:
    """Mirror the directory to an empty store: the same bytes in other entries."""
    case.store = Counted()
    again = Mirrored(case.path, case.store)
    assert again.shipper.wait(COMMITS, TIMEOUT_S)
    again.close()


def replace_entry(case: Case) -> None:
    """Note another entry with the number of the last one, as of a mirror that was made anew."""
    directory = PosixDisk().open_directory(case.path, write=True)
    known = read_note(directory)
    assert known is not None
    known.place = known.place._replace(nonce=b"another.")
    write_note(directory, known)
    directory.close(unlock=False)


def cut_log(case: Case) -> None:
    """Take the release and the mark from the store, as a restore of the bucket may do."""
    case.store.trim(case.store.numbers(0)[-2:])


@pytest.mark.parametrize("change", [damage_note, mirror_anew, replace_entry, cut_log])
def test_a_note_that_does_not_fit_is_ignored(
    change: Callable[[Case], object], tmp_path: Path
) -> None:
    """If the note is damaged, or of entries that the mirror no longer has, everything is
    compared."""
    case = Case(tmp_path, noted=True)
    change(case)
    *_, last = read_log(case.store)
    with case.comparison() as comparison:
        assert comparison.verdict == "equal"  # what is cut off is the mark of a close
        assert comparison.known.place[:2] == (last.number, last.nonce)


@pytest.mark.parametrize(("unshipped", "verdict"), [(0, "behind"), (1, "forked")])
def test_a_torn_tail_is_no_fork(unshipped: int, verdict: str, tmp_path: Path) -> None:
    """Bytes that hold no record, at the end of a segment after which another writer has gone on, do
    not make a fork. A record that was not shipped does."""
    store, path = MemoryStore(), tmp_path / "a"
    crashed = Mirrored(path, store, Options(), interval_s=3600)
    assert crashed.shipper.wait(crashed.commit(5), TIMEOUT_S)
    if unshipped:
        crashed.commit(unshipped)
    crashed.crash()
    (segment,) = path.glob("*.seg")
    with segment.open("r+b") as file:
        file.seek(len(file.read().rstrip(b"\0")))
        file.write(b"\1" * 30)
    restore_into(store, tmp_path / "b")
    other = Mirrored(tmp_path / "b", store)
    other.commit()
    other.close()
    directory = PosixDisk().open_directory(path, write=True)
    comparison = compare(store, directory)
    assert comparison.verdict == verdict
    comparison.fetch()
    directory.close(unlock=False)
    with Journal.open(path) as journal:
        assert journal.last_lsn == 6


@pytest.mark.parametrize("change", [lambda case: None, empty, Case.write])
def test_an_empty_mirror_is_new(change: Callable[[Case], object], tmp_path: Path) -> None:
    """A mirror without bytes lacks everything, whatever the directory has."""
    case = Case(tmp_path)
    change(case)
    case.store = Counted()
    assert case.verdict() == "new"


def test_what_is_ahead_is_shipped_from_the_cursor(tmp_path: Path) -> None:
    """A directory that is ahead ships what the mirror lacks, from the comparison's cursor on."""
    case = Case(tmp_path)
    case.write()
    with case.comparison() as comparison:
        assert comparison.known.cursor.segment is not None
    again = Mirrored(case.path, case.store, Options())
    assert again.shipper.wait(COMMITS + 3, TIMEOUT_S)
    again.close()
    assert case.verdict() == "equal"


def test_a_writer_leaves_a_note(tmp_path: Path) -> None:
    """After a close, the next opening in the same directory reads only the end of the mirror. After
    a crash, it reads what came after the last note."""
    store = Counted()
    with opened(tmp_path / "a", store) as journal:
        for _ in range(300):
            journal.wait_mirrored(journal.append("x" * 100), timeout_s=TIMEOUT_S)
    assert len(store.numbers(0)) > 10
    store.reads = 0
    with opened(tmp_path / "a", store) as journal:
        assert journal.last_lsn == 300
        assert store.reads <= 5
