"""The names of a journal's files, and what they state."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import FrameInfo, JournalFile, JournalReader
from journal._names import file_at, is_journal

SEGMENT, CHECKPOINT = f"{7:020d}-{2:010d}.seg", f"checkpoint-{8:020d}.json"
FILES = {
    SEGMENT: ("segment", 7),
    CHECKPOINT: ("checkpoint", 8),
    "LOCK": ("lock", 0),
    f"{SEGMENT}.tmp": ("unfinished", 0),
    "notes.tmp": ("unfinished", 0),
    "7-2.seg": ("stray", 0),
    "checkpoint-8.json": ("stray", 0),
    f"{SEGMENT}.bak": ("stray", 0),
    f"{SEGMENT}\n": ("stray", 0),
    "lock": ("stray", 0),
    "output": ("companion", 0),
    "control": ("companion", 0),
    "outputs": ("stray", 0),
}


@pytest.mark.parametrize("name", FILES)
def test_a_files_name_states_its_kind(name: str) -> None:
    """A file belongs to the journal only if its name has the complete form that FORMAT.md
    states."""
    file = file_at(f"/a/{name}")
    assert (file.kind, file.lsn) == FILES[name]
    assert (file.path, file.name) == (f"/a/{name}", name)


@pytest.mark.parametrize("name", FILES)
def test_one_of_its_files_makes_a_directory_a_journal(name: str) -> None:
    """One of its files makes a directory a journal, since a crash may leave just an unfinished
    one. But an incomplete copy is no journal."""
    is_one = FILES[name][0] in ("segment", "checkpoint", "lock") or name == f"{SEGMENT}.tmp"
    assert is_journal(["stray", name]) == is_one
    assert not is_journal(["COPYING.tmp", name])
    assert is_journal(["COPYING.tmp", "ASIDE", name]) == is_one


def test_a_reader_lists_files_by_name(tmp_path: Path) -> None:
    """A reader lists files by their names, without reading them."""
    for name in (SEGMENT, CHECKPOINT, "stray"):
        (tmp_path / name).write_bytes(b"")
    with JournalReader.open(tmp_path) as reader:
        assert reader.files() == [
            JournalFile(str(tmp_path / SEGMENT), "segment", 7),
            JournalFile(str(tmp_path / CHECKPOINT), "checkpoint", 8),
            JournalFile(str(tmp_path / "stray"), "stray"),
        ]
    piece = FrameInfo(str(tmp_path / SEGMENT), 2, 64, 10, "garbage")
    assert piece.file == JournalFile(piece.path, "segment", 7)
