"""The comparison of a mirror with a local directory: each state of one beside each of the other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from journal import Journal, Options
from journal._disk.posix import PosixDisk
from journal._mirror.comparing import Comparison, compare, fetch
from journal._mirror.memory_store import MemoryStore
from tests.mirror.test_shipping import SMALL, TIMEOUT_S, Mirrored, segments_in

COMMITS = 60


class Case:
    """A mirror with `COMMITS` commits in several segments, and copies of its directory."""

    def __init__(self, root: Path) -> None:
        self.store = MemoryStore()
        self.path = root / "journal"
        self.early = root / "early"
        mirrored = Mirrored(self.path, self.store)
        assert mirrored.shipper.wait(mirrored.commit(20), TIMEOUT_S)
        shutil.copytree(self.path, self.early)  # as a snapshot of the machine has it
        assert mirrored.shipper.wait(mirrored.commit(COMMITS - 20), TIMEOUT_S)
        mirrored.close()

    def compare(self) -> Comparison:
        directory = PosixDisk().open_directory(self.path, write=True)
        try:
            return compare(self.store, directory)
        finally:
            directory.close(unlock=False)

    def roll_back(self) -> None:
        shutil.rmtree(self.path)
        shutil.copytree(self.early, self.path)

    def write(self, count: int = 3) -> None:
        with Journal.open(self.path, options=SMALL) as journal:
            for number in range(count):
                journal.append(number)


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


def differ(case: Case) -> None:
    path = sorted(case.path.glob("*.seg"))[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


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
    change: Callable[[Case], object], verdict: str, tmp_path: Path
) -> None:
    """The comparison reports who lacks bytes. What the directory lacks can be fetched, and then it
    is equal, byte for byte, and opens with every record."""
    case = Case(tmp_path)
    whole = segments_in(case.path)
    change(case)
    comparison = case.compare()
    assert comparison.verdict == verdict
    assert bool(comparison.missing) == (verdict == "behind")
    if verdict != "behind":
        return
    directory = PosixDisk().open_directory(case.path, write=True)
    fetch(directory, comparison.missing)
    directory.close(unlock=False)
    assert case.compare().verdict == "equal"
    assert {name: data.rstrip(b"\0") for name, data in segments_in(case.path).items()} == {
        name: data.rstrip(b"\0") for name, data in whole.items()
    }
    with Journal.open(case.path, options=SMALL) as journal:
        assert journal.last_lsn == COMMITS


@pytest.mark.parametrize("change", [lambda case: None, empty, Case.write])
def test_an_empty_mirror_is_new(change: Callable[[Case], object], tmp_path: Path) -> None:
    """A mirror without bytes lacks everything, whatever the directory has."""
    case = Case(tmp_path)
    change(case)
    case.store = MemoryStore()
    assert case.compare() == Comparison("new", case.compare().cursor, [])


def test_what_is_ahead_is_shipped_from_the_cursor(tmp_path: Path) -> None:
    """A directory that is ahead ships what the mirror lacks, from the comparison's cursor on."""
    case = Case(tmp_path)
    case.write()
    name = case.compare().cursor.segment
    assert name is not None
    again = Mirrored(case.path, case.store, Options())
    assert again.shipper.wait(COMMITS + 3, TIMEOUT_S)
    again.close()
    assert case.compare().verdict == "equal"
