"""journal-inspect and the engine's log messages: the command prints each one once."""

from __future__ import annotations

import os
from pathlib import Path

from journal import Journal
from tests.inspect.inspect_support import ask_child


def test_a_repair_prints_log_messages_once(tmp_path: Path) -> None:
    """Each line on stderr has the command's format; a narrowed mode is reported once."""
    path = tmp_path / "j"
    Journal.open(path).close()
    path.chmod(0o755)
    answer = ask_child("repair", path, "--apply")
    assert answer.code == 0
    lines = [line for line in answer.err.splitlines() if "mode 0755" in line]
    assert len(lines) == 1
    assert all(line.startswith("journal-inspect: ") for line in answer.err.splitlines())


def test_a_backup_prints_log_messages_once(tmp_path: Path) -> None:
    """An empty destination that others may read is narrowed before the copy, and reported once."""
    path, dest = tmp_path / "j", tmp_path / "copy"
    Journal.open(path).close()
    dest.mkdir()
    dest.chmod(0o755)
    answer = ask_child("backup", path, dest)
    assert answer.code == 0
    assert os.stat(dest).st_mode & 0o777 == 0o700
    lines = [line for line in answer.err.splitlines() if "mode 0755" in line]
    assert len(lines) == 1
    assert all(line.startswith("journal-inspect: ") for line in answer.err.splitlines())
