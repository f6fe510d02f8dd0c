"""journal-inspect repair: where the copies go, what is salvaged, and where the log can be cut."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from journal import Journal, JournalReader, Options, SavePlaceError, repair
from journal.testing import SimulatedDisk
from tests.inspect.damage_support import LAST_LSN, copy_as, damage_frame, history, segment
from tests.inspect.inspect_support import ask, fleet, make
from tests.support import PATH, open_on, put


def damaged(tmp_path: Path) -> Path:
    path = history(tmp_path / "j")
    damage_frame(path, 34)
    return path


def test_copies_go_where_the_user_says(tmp_path: Path) -> None:
    """P4: --save-to names the directory for the copies and the salvaged records."""
    path, place = damaged(tmp_path), tmp_path / "elsewhere"
    for wrong in (place, path):
        assert ask("repair", path, "--apply", "--save-to", wrong).code == 2
    place.mkdir()
    before = set(os.listdir(tmp_path))
    answer = ask("repair", path, "--apply", "--salvage", "--save-to", place, "-o", "json")
    assert answer.code == 0
    assert answer.json["saved_to"] == f"{place}/j.cut-1"
    assert answer.json["salvaged_to"] == f"{place}/j.salvaged-1"
    assert set(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("kind", ["file", "symlink", "directory", "foreign"])
def test_a_name_that_is_taken_is_passed_over(tmp_path: Path, kind: str) -> None:
    """P9: Whatever has the name of the copies, a repair takes the next number."""
    path, taken = damaged(tmp_path), tmp_path / "j.cut-1"
    if kind == "file":
        taken.touch()
    elif kind == "symlink":
        taken.symlink_to(tmp_path)
    else:
        taken.mkdir(mode=0o700)
        if kind == "directory":
            (taken / "notes").touch()
        elif os.geteuid() == 0:
            os.chown(taken, 12345, -1)
        else:
            taken.chmod(0o777)
    answer = ask("repair", path, "--apply", "-o", "json")
    assert (answer.code, answer.json["saved_to"]) == (0, f"{path}.cut-2")


def test_a_parent_that_can_t_be_written_is_named(disk: SimulatedDisk) -> None:
    """P4: If no directory for the copies can be made, nothing is changed, and the error names the
    parent and the option."""
    with open_on(disk) as journal:
        put(journal, *([number, "x" * 900] for number in range(9)))
    directory = disk.open_directory(PATH, write=True)
    [_, second, *_] = [name for name in directory.names() if name.endswith(".seg")]
    directory.remove(second)
    directory.close(unlock=False)
    before, opened = disk.contents(PATH), disk.open_directory

    def refuse(path: object, *, write: bool) -> object:
        if "cut" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, write=write)  # type: ignore[arg-type]

    disk.open_directory = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(SavePlaceError, match="--save-to DIR") as error:
        repair(PATH, apply=True, disk=disk)
    assert (error.value.path, error.value.parent) == (PATH, "/")
    assert disk.contents(PATH) == before


def test_only_lost_records_are_salvaged(tmp_path: Path) -> None:
    """P4: Records that the log or the checkpoint has are not salvaged, neither from a copy of a
    segment nor from before the damage. The message says which old LSNs the new ones were."""
    path = damaged(tmp_path)
    copy_as(segment(path, 22), 24, 2)
    dry = ask("repair", path, "--salvage")
    assert f"salvageable  LSN 35 to {LAST_LSN} ({LAST_LSN - 34} records)" in dry.lines
    done = ask("repair", path, "--salvage", "--apply")
    assert f"the salvaged records, LSN 1 to {LAST_LSN - 34} = 35 to {LAST_LSN}: " in done.err
    with JournalReader.open(f"{path}.salvaged-1") as reader:
        assert [entry.record[0] for entry in reader.entries()] == [*range(35, LAST_LSN + 1)]
    whole = history(tmp_path / "whole")
    shutil.copy(segment(whole, 7), whole / f"{8:020d}-{1:010d}.seg")
    assert "salvageable  none" in ask("repair", whole).lines


def test_both_nearest_cuts_are_offered(tmp_path: Path) -> None:
    """--cut-at in a batch is refused, and names the ends before and after it."""
    path = history(tmp_path / "j")
    answer = ask("repair", path, "--cut-at", 44)
    assert answer.code == 2
    assert "the nearest are LSN 42 and 45" in answer.err
    assert ask("repair", path, "--cut-at", 99).err.count("the nearest is LSN 45") == 1


def test_a_cut_at_0_leaves_an_empty_journal(tmp_path: Path) -> None:
    """--cut-at 0 keeps no record. The journal verifies, and the next open goes on with LSN 1 in a
    new epoch."""
    path = make(tmp_path / "j")
    with fleet(tmp_path) as manager:
        pass
    for each in (path, Path(manager.path)):
        with JournalReader.open(each) as reader:
            journal_id, application = reader.journal_id, reader.application
            epoch = max(segment.epoch for segment in reader.segments())
        answer = ask("repair", each, "--cut-at", 0, "--apply")
        assert (answer.code, "up to LSN 0" in answer.out) == (0, True)
        assert ask("verify", each).code == 0
        with Journal.open(each, options=Options(application=application or "")) as journal:
            assert (journal.journal_id, journal.last_lsn) == (journal_id, 0)
            assert journal.epoch > epoch
            put(journal, ["a"])
            assert journal.last_lsn == 1
        answer = ask("verify", each)
        assert answer.code == 0
        with JournalReader.open(each) as reader:
            assert (reader.application, reader.last_lsn) == (application, 1)
