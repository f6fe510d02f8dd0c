"""journal-inspect and the engine's logger: each message is said once, by the command."""

from __future__ import annotations

import os
from pathlib import Path

from journal import Journal
from tests.inspect.inspect_support import ask_child


def test_a_repair_says_what_is_logged(tmp_path: Path) -> None:
    """Each line on stderr is the command's own: a mode that is narrowed is told once."""
    path = tmp_path / "j"
    Journal.open(path).close()
    path.chmod(0o755)
    answer = ask_child("repair", path, "--apply")
    assert answer.code == 0
    said = [line for line in answer.err.splitlines() if "mode 0755" in line]
    assert len(said) == 1
    assert all(line.startswith("journal-inspect: ") for line in answer.err.splitlines())


def test_a_backup_says_what_is_logged(tmp_path: Path) -> None:
    """An empty directory that others may read is narrowed before a copy goes there."""
    path, dest = tmp_path / "j", tmp_path / "copy"
    Journal.open(path).close()
    dest.mkdir()
    dest.chmod(0o755)
    answer = ask_child("backup", path, dest)
    assert answer.code == 0
    assert os.stat(dest).st_mode & 0o777 == 0o700
    said = [line for line in answer.err.splitlines() if "mode 0755" in line]
    assert len(said) == 1
    assert all(line.startswith("journal-inspect: ") for line in answer.err.splitlines())
