"""Errors and their fields, as programs get them."""

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
def test_an_error_names_its_journal_whatever_the_directory_is_called(
    tmp_path: Path, name: str
) -> None:
    """P4: `directory` is the journal's, for damage to a file and to the log as a whole, and the
    message advises a command with it."""
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
def test_the_directory_of_an_error_is_that_of_its_file(name: str) -> None:
    """P4: The directory of an error is that of the damaged file, for every kind of a journal's
    file."""
    error = CorruptionError(f"/a/x.seg/{name}", 0, 0, "", reason=DamageReason.FRAME_DAMAGED)
    assert error.directory == "/a/x.seg"


def test_the_directory_of_a_stray_file_is_the_journals(tmp_path: Path) -> None:
    """P4: The directory of a finding is the journal's, even if the file's name is not a
    journal's."""
    path = make(tmp_path / "j")
    (path / "notes.txt").write_text("")
    with JournalReader.open(path) as reader:
        (finding,) = reader.verify()
    assert isinstance(finding, Finding)
    assert finding.as_error().directory == str(path)


def test_an_overtaken_reader_should_retry() -> None:
    """An overtaken reader finds nothing damaged, so the message does not advise `verify`."""
    error = CorruptionError("/j", 0, 0, "overtaken", reason=DamageReason.OVERTAKEN)
    assert str(error) == "/j: overtaken; nothing is damaged; try again"


# Each kind of damage, with the durable LSN that is missing, and the journal that a file belongs to.
FACTS = {
    "no segments": (20, None),
    "a byte of the last commit": (45, None),
    "a checkpoint's copy after the end": (None, None),
    "another journal's checkpoint": (None, "other"),
    "another journal's segment": (None, "other"),
    "another journal's segment in a range": (None, "begun"),
    "a missing segment in the middle": (None, None),
}


@pytest.mark.parametrize("damage", FACTS)
def test_errors_carry_the_durable_lsn_and_the_journal_id(tmp_path: Path, damage: str) -> None:
    """P4: The error of an open, the preview's refusal and the finding state the same durable LSN
    and journal id."""
    durable_lsn, other = FACTS[damage]
    path, journal_id = history(tmp_path / "j"), None
    REFUSED[damage][0](path)
    if other:
        with JournalReader.open(tmp_path / other) as reader:
            journal_id = reader.journal_id
    with JournalReader.open(path) as reader:
        finding, refusal = next(reader.verify()), reader.preview_recovery().refusal
    with pytest.raises(CorruptionError) as caught:
        Journal.open(path)
    assert refusal == caught.value.refusal
    for source in (finding, finding.as_error(), refusal, caught.value):
        assert (source.durable_lsn, source.journal_id) == (durable_lsn, journal_id)
