"""journal-inspect and directories, locks and markers that an open refuses, whatever the log is."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journal_inspect.exits import explain

from journal import Journal, JournalReader, UnsafePathError
from manager._cli.messages import message_of
from tests.inspect.damage_support import damage_frame, history, segment
from tests.inspect.inspect_support import ask, check_refused, contents, fleet, make, segments


def replaced(path: Path) -> Path:
    path.unlink(missing_ok=True)
    return path


UNSAFE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a directory as LOCK": (lambda p: replaced(p / "LOCK").mkdir(), "LOCK: is not a regular"),
    "a symlink as LOCK": (
        lambda p: replaced(p / "LOCK").symlink_to("nowhere"),
        "LOCK: is not a regular",
    ),
    "a dangling symlink as MIRROR": (
        lambda p: replaced(p / "MIRROR").symlink_to("nowhere"),
        "MIRROR: is not a regular",
    ),
    "a directory for everybody": (lambda p: p.chmod(0o777), "mode 0777 lets others write"),
}


@pytest.mark.parametrize("case", UNSAFE)
@pytest.mark.parametrize("is_damaged", [False, True])
def test_what_an_open_refuses_is_reported(case: str, is_damaged: bool, tmp_path: Path) -> None:
    """P9: verify, info and repair say what an open says, with exit code 4, and a repair changes
    nothing. verify and info still show what is in the journal, and its damage."""
    path = history(tmp_path / "j")
    if is_damaged:
        damage_frame(path, 34)
    make_unsafe, words = UNSAFE[case]
    make_unsafe(path)
    if not is_damaged:
        with pytest.raises(UnsafePathError, match=words):
            Journal.open(path)
    before = [*path.iterdir()]
    for args in ((), ("--apply",)):
        check_refused(ask("repair", path, *args), 4, words)
    shown = (("verify", "good", "corruption"), ("info", "refuses: ", "unreadable"))
    for verb, fact, damage in shown:
        answer = ask(verb, path)
        assert (answer.code, answer.out.count("Traceback")) == (4, 0)
        assert re.search(f"{words}.*\n$", answer.err)
        assert fact in answer.out
        assert (damage in answer.out) == is_damaged
    assert [*path.iterdir()] == before
    with JournalReader.open(path) as reader:
        with pytest.raises(UnsafePathError, match=words):
            reader.preview_recovery()
        assert next(reader.entries(20)).lsn == 21  # it can be read


@pytest.mark.parametrize("kind", ["FIFO", "symlink"])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_special_file_that_no_open_reads_hides_nothing(
    kind: str, is_damaged: bool, tmp_path: Path
) -> None:
    """P4, P9: Something else than a file in the place of a segment that the checkpoint covers is a
    finding. It keeps no journal from opening, and hides no damage elsewhere."""
    path = history(tmp_path / "j")
    covered = segment(path, 7)
    covered.unlink()
    os.mkfifo(covered) if kind == "FIFO" else covered.symlink_to(segment(path, 22))
    if is_damaged:
        damage_frame(path, 34)
    verify = ask("verify", path, "-o", "json")
    finding = next(each for each in verify.json["findings"] if each["path"] == str(covered))
    assert (finding["kind"], finding["lsn"]) == ("corruption", 7)
    assert verify.json["first_lost_lsn"] == (34 if is_damaged else None)
    repair = ask("repair", path, "--apply")
    assert repair.code == 0
    assert ("lost         LSN 34" in repair.out) is is_damaged
    assert (verify.code, ask("info", path).code) == (3 if is_damaged else 1, 1)
    with Journal.open(path) as journal:
        assert journal.last_lsn == (33 if is_damaged else 45)


def test_a_special_file_that_an_open_needs_is_refused(tmp_path: Path) -> None:
    """P9: verify, info, repair and an open say the same."""
    path = history(tmp_path / "j")
    segment(path, 22).unlink()
    os.mkfifo(path / f"{22:020d}-{2:010d}.seg")
    with pytest.raises(UnsafePathError, match="is not a regular file"):
        Journal.open(path)
    for verb in ("verify", "info", "repair"):
        check_refused(ask(verb, path), 4, f"{22:020d}-{2:010d}.seg: is not a regular file")


def test_a_directory_that_others_can_read_is_whole(tmp_path: Path) -> None:
    """An open narrows the mode of a directory that others can only read, so it is not reported."""
    path = history(tmp_path / "j")
    path.chmod(0o755)
    before = contents(path)
    assert [ask(verb, path).code for verb in ("verify", "info", "repair")] == [0, 0, 0]
    assert contents(path) == before


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o500])
def test_a_missing_permission_is_explained(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner is told to change the mode of the file, or of the nearest directory above it that
    exists, and anybody else who the owner is. Both command lines say the same."""
    path = make(tmp_path / "j")
    (last,) = segments(path)
    for name, place in ((last, last), (path, path), (path / "missing", path)):
        place.chmod(mode)
        error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(name))
        step = f"make it readable and writable: chmod u+rwX {place}"
        assert explain(error) == (4, f"{name}: Permission denied; {step}")
        assert message_of(error) == f"{name}: Permission denied; {step}"
        place.chmod(0o700)
    step = "run the command as the owner"
    assert explain(error)[1].endswith(f"Permission denied; {step}")
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    assert explain(error)[1].endswith(f"{step} of {path}, uid {path.stat().st_uid}")
    assert explain(PermissionError(errno.EPERM, os.strerror(errno.EPERM)))[1].endswith(f"; {step}")


def test_history_does_not_advise_itself(tmp_path: Path) -> None:
    """`show` of an unknown agent advises `history` for removed ones, which does not repeat that."""
    with fleet(tmp_path) as manager:
        path = Path(manager.path)
    assert "for a removed agent: journal-inspect history" in ask("show", path, "zz").err
    told = ask("history", path, "zz")
    assert (told.code, "for a removed agent" in told.err) == (1, False)
    assert f"see all of them: journal-inspect agents {path}" in told.err
