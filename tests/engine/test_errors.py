"""Errors as programs get them: what their fields say."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import CorruptionError, DamageReason, Finding, Journal, JournalReader
from journal._format.checkpoint import checkpoint_name
from journal._format.segment import SegmentName
from tests.inspect.inspect_support import make, segments

DIRECTORIES = ["j", "x.seg", "x.json", "checkpoint-1.json", "00000001.seg"]
FILES = [str(SegmentName(1, 1)), str(SegmentName(2**64 - 2, 2**32 - 1)), checkpoint_name(2**64 - 2)]


@pytest.mark.parametrize("name", DIRECTORIES)
def test_an_error_knows_its_journal_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    """P4: `directory` is the journal's, for damage to a file and to the log as a whole, and the
    message names it in the command that it advises."""
    path = make(tmp_path / name)
    for file in segments(path):
        file.write_bytes(b"")
    with pytest.raises(CorruptionError) as caught:
        Journal.open(path)
    assert caught.value.directory == str(path)
    whole = CorruptionError(str(path), 0, 0, "no start", reason=DamageReason.NO_START)
    assert whole.directory == str(path)
    for error in (caught.value, whole):
        assert str(error).endswith(f"journal-inspect verify {path}")


@pytest.mark.parametrize("name", FILES)
def test_the_directory_of_a_journals_file_is_the_one_it_is_in(name: str) -> None:
    """P4: whatever file of a journal is damaged."""
    error = CorruptionError(f"/a/x.seg/{name}", 0, 0, "", reason=DamageReason.FRAME_DAMAGED)
    assert error.directory == "/a/x.seg"


def test_the_directory_of_a_stray_file_is_the_one_it_is_in(tmp_path: Path) -> None:
    """P4: though the file's name is none of a journal's."""
    path = make(tmp_path / "j")
    (path / "notes.txt").write_text("")
    with JournalReader.open(path) as reader:
        (finding,) = reader.verify()
    assert isinstance(finding, Finding)
    assert finding.as_error().directory == str(path)
