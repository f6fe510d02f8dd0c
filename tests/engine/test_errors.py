"""Errors as programs get them: what their fields say."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import CorruptionError, DamageReason, Finding, Journal, JournalReader
from journal._format.checkpoint import checkpoint_name
from journal._format.segment import SegmentName
from tests.inspect.damage_support import REFUSED, history
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


def test_an_overtaken_reader_is_told_to_retry() -> None:
    """Nothing is damaged, so `verify` would find nothing."""
    error = CorruptionError("/j", 0, 0, "overtaken", reason=DamageReason.OVERTAKEN)
    assert str(error) == "/j: overtaken; nothing is damaged; try again"


# Each with the LSN that was durable and is missing, and the journal that a file is of.
FACTS = {
    "all segments are gone": (20, None),
    "a bit of the last commit": (45, None),
    "a checkpoint's copy behind the end": (99, None),
    "another journal's checkpoint": (None, "other"),
    "another journal's segment": (None, "other"),
    "another journal's, in a range": (None, "begun"),
    "a segment in the middle is gone": (None, None),
}


@pytest.mark.parametrize("what", FACTS)
def test_errors_carry_the_durable_lsn_and_the_journal_id(tmp_path: Path, what: str) -> None:
    """P4: an open's error, the preview's refusal and the finding agree on them."""
    durable_lsn, other = FACTS[what]
    path, journal_id = history(tmp_path / "j"), None
    REFUSED[what][0](path)
    if other:
        with JournalReader.open(tmp_path / other) as reader:
            journal_id = reader.journal_id
    with JournalReader.open(path) as reader:
        found, refusal = next(reader.verify()), reader.preview_recovery().refusal
    with pytest.raises(CorruptionError) as caught:
        Journal.open(path)
    assert refusal == caught.value.refusal
    for it in (found, found.as_error(), refusal, caught.value):
        assert (it.durable_lsn, it.journal_id) == (durable_lsn, journal_id)
