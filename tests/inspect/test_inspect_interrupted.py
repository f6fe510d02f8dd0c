"""journal-inspect backup and restore when they are interrupted: what stays, and what to do next."""

from __future__ import annotations

import errno
from pathlib import Path
from unittest.mock import Mock

import pytest
from journal_inspect.commands import backup_output

from journal import JournalReader
from journal._disk.posix import PosixDisk
from tests.inspect.inspect_support import ask, check_refused, make


def test_an_interrupted_backup_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C and a failure during a backup remove what it has made, also the new directory."""
    path = make(tmp_path / "j")
    for error, code in ((KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, "no space"), 4)):
        monkeypatch.setattr(JournalReader, "verify", Mock(side_effect=error))
        assert ask("backup", path, tmp_path / "copy").code == code
        assert not (tmp_path / "copy").exists()
        monkeypatch.undo()
    assert ask("backup", path, tmp_path / "copy").code == 0


def test_an_interrupted_copy_of_output_says_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the output is copied leaves the journal, which is verified, and says so."""
    path, copy = make(tmp_path / "j"), tmp_path / "copy"
    (path / "output").mkdir()
    (path / "output" / "agent_0123456789ab.7.out.0").write_bytes(b"printed")
    monkeypatch.setattr(backup_output, "_copy_file", Mock(side_effect=KeyboardInterrupt))
    answer = ask("backup", path, copy, "--output")
    assert answer.code == 130
    assert f"the output of its commands is not; remove {copy}, and try again" in answer.err
    assert not (copy / "output").exists()
    assert ask("verify", copy).code == 0


def test_an_incomplete_copy_is_refused_until_it_is_repeated(tmp_path: Path) -> None:
    """A directory that a killed backup leaves is refused with that advice. A backup to it
    succeeds, unless another one is under way there."""
    path, copy = make(tmp_path / "j"), tmp_path / "copy"
    copy.mkdir(mode=0o700)
    for name in ("COPYING.tmp", "00000000000000000001-0000000001.seg.tmp"):
        (copy / name).touch()
    for verb in ("info", "verify", "log", "repair"):
        answer = ask(verb, copy)
        check_refused(answer, 4, f"{copy}: not a journal: a copy to this directory, such as a")
        assert answer.err.endswith("repeat it, which replaces the incomplete copy\n")
    check_refused(ask("backup", copy, tmp_path / "b"), 4, "not a journal")
    directory = PosixDisk().open_directory(copy, write=True)
    directory.lock()
    check_refused(ask("backup", path, copy), 5, "locked by")
    directory.close(unlock=True)
    assert ask("backup", path, copy).code == 0
    assert ask("verify", copy).code == 0
