"""A recovery preview: what an open reads and replays, and whether it is refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from journal_inspect.report.data import observe

from journal import (
    Checkpoint,
    CompactedError,
    CorruptionError,
    DamageReason,
    Journal,
    JournalReader,
    Options,
    Refusal,
    preview_recovery,
    repair,
)
from journal._format.layout import EPOCH_MAX
from journal._format.segment import SegmentHeader, encode_header
from tests.inspect.damage_support import REFUSED, add_foreign, segment
from tests.inspect.inspect_support import (
    ask,
    checkpoints,
    compact,
    flip,
    make,
    open_journal,
    put,
    segments,
)
from tests.tiers import slow_but_every


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "j"))


def refusal_of(path: Path) -> Refusal | None:
    """Return the refusal of an open, or None."""
    try:
        Journal.open(path).close()
    except CorruptionError as error:
        return error.refusal
    return None


def base_lsn(reader: JournalReader, at: int | None = None, *, oldest: bool = False) -> int:
    base = reader.base(at, oldest=oldest)
    if base is None:
        return 0
    base.close()
    return base.lsn


def closed(checkpoint_list: list[Checkpoint]) -> list[Checkpoint]:
    for checkpoint in checkpoint_list:
        checkpoint.close()
    return checkpoint_list


def lose_all_but_names(path: Path) -> None:
    """Leave only the names of damaged checkpoints as evidence of a log."""
    for file in segments(path):
        file.unlink()
    for file in checkpoints(path):
        flip(file, 5)


def add_stray_segment(path: Path) -> None:
    """Add a segment without a valid header where the log after the older checkpoint continues."""
    (path / f"{9:020d}-{1:010d}.seg").write_bytes(bytes(64))


def use_last_epoch(path: Path) -> None:
    """Use the last epoch that the format can number."""
    with JournalReader.open(path) as reader:
        journal_id, first_lsn = bytes.fromhex(reader.journal_id or ""), reader.last_lsn + 1
    header = SegmentHeader(0, EPOCH_MAX, journal_id, first_lsn, 0)
    (path / str(header.name)).write_bytes(encode_header(header))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "nothing": lambda path: None,
    **{name: damage for name, (damage, _) in REFUSED.items()},
    "no segment and no whole checkpoint": lose_all_but_names,
    "a stray before the first needed segment": add_stray_segment,
    "the last epoch": use_last_epoch,
}
# Neither segments nor whole checkpoints show these.
UNFORESEEN = (
    "a checkpoint's copy after the end",
    "no segment and no whole checkpoint",
    "a stray before the first needed segment",
)


@pytest.mark.parametrize("case", slow_but_every(3, DAMAGE))
def test_previews_and_reports_agree_with_an_open(path: Path, case: str) -> None:
    """P4: A preview has the refusal of the open, field for field; info and a report agree.

    `preview_recovery` refuses wherever segments and checkpoints show that an open does.
    """
    DAMAGE[case](path)
    with JournalReader.open(path) as reader:
        facts = reader.segments(), closed(reader.checkpoints()), reader.journal_id
        preview, reported = reader.preview_recovery(), observe(reader).recovery
    info = ask("info", path)
    refusal = refusal_of(path)
    assert (refusal is None) == (case == "nothing")
    assert preview.refusal == refusal
    assert info.code == (0 if refusal is None else 3)
    assert (reported.refused is None) == (refusal is None)
    from_facts = preview_recovery(*facts)
    assert (from_facts.refusal is None) == (refusal is None or case in UNFORESEEN)
    assert (from_facts.problem is None) == (from_facts.refusal is None)
    assert from_facts.checkpoint_lsn == max([checkpoint.lsn for checkpoint in facts[1]], default=0)


def test_a_state_begins_with_a_checkpoint_that_the_log_continues(path: Path) -> None:
    """A state begins with the newest checkpoint up to a moment, or with the oldest."""
    with JournalReader.open(path) as reader:
        assert reader.first_state_lsn == 8
        assert [base_lsn(reader, at) for at in (None, 45, 20, 19, 8, 7)] == [20, 20, 20, 8, 8, 0]
        assert [base_lsn(reader, at, oldest=True) for at in (None, 19, 7)] == [8, 8, 0]
        segment(path, 7).unlink()
        assert (reader.first_state_lsn, base_lsn(reader, oldest=True)) == (20, 20)


def test_a_state_without_a_checkpoint_begins_with_the_first_record(tmp_path: Path) -> None:
    """A log with its beginning needs no checkpoint, and its first state is that of LSN 1."""
    with JournalReader.open(make(tmp_path / "j")) as reader:
        assert (reader.first_state_lsn, base_lsn(reader, oldest=True)) == (1, 0)
        reader.check_beginning()


def test_a_log_without_its_beginning_is_refused_like_an_open(path: Path) -> None:
    """P4: A log without its beginning is refused with an open's fields, without segment reads."""
    with JournalReader.open(path) as reader:
        reader.check_beginning()
        for file in checkpoints(path):
            file.unlink()
        segments(path)[0].unlink()
        with pytest.raises(CorruptionError) as caught:
            reader.check_beginning()
        assert reader.first_state_lsn == 0
    assert caught.value.refusal == refusal_of(path)
    assert caught.value.reason is DamageReason.BEGINNING_MISSING
    assert (caught.value.path, caught.value.lsn) == (str(segment(path, 16)), 1)


def test_no_state_begins_with_another_journals_checkpoint(path: Path) -> None:
    """P4: A foreign checkpoint is refused with the error of an open."""
    add_foreign(path, lambda other: checkpoints(other)[1])
    with JournalReader.open(path) as reader, pytest.raises(CorruptionError) as caught:
        reader.base()
    assert caught.value.reason is DamageReason.FOREIGN
    assert caught.value.refusal == refusal_of(path)


@pytest.fixture
def covered(path: Path, tmp_path: Path) -> Path:
    """Add a checkpoint of another journal that is older than the two newest."""
    other = tmp_path / "older"
    with open_journal(other) as journal:
        put(journal, 1, 2, 3, 4)
        compact(journal)
    return Path(shutil.copy(checkpoints(other)[0], path))


def test_only_checkpoints_that_an_open_reads_refuse_it(path: Path, covered: Path) -> None:
    """P4: An open reads the two newest checkpoints, uses the newest, and removes older ones."""
    with JournalReader.open(path) as reader:
        facts = reader.segments(), closed(reader.checkpoints()), reader.journal_id
        assert reader.preview_recovery().refusal is None
        assert preview_recovery(*facts).refusal is None
        assert observe(reader).recovery.refused is None
        assert [base_lsn(reader), base_lsn(reader, 19)] == [20, 8]
        with pytest.raises(CorruptionError) as caught:
            reader.base(7)
    assert (caught.value.reason, caught.value.path) == (DamageReason.FOREIGN, str(covered))
    assert ask("info", path).code == 0
    assert repair(path).removed == ()
    with pytest.raises(CorruptionError) as refused:
        Journal.open(path, options=Options(checkpoints_kept=3))
    assert refused.value.refusal == caught.value.refusal
    assert refusal_of(path) is None
    assert not covered.exists()


def test_a_cut_sets_a_foreign_checkpoint_aside_that_an_open_would_read(
    path: Path, covered: Path
) -> None:
    """P4: A foreign checkpoint that would become one of the two newest is set aside by a cut."""
    report = repair(path, apply=True, cut_at=12)
    assert covered.name in report.removed
    assert refusal_of(path) is None
    with JournalReader.open(path) as reader:
        assert (reader.last_lsn, base_lsn(reader)) == (12, 8)


def test_older_foreign_checkpoints_decide_nothing(path: Path, tmp_path: Path) -> None:
    """P4: Any number of older foreign checkpoints is ignored, and an open uses the newest."""
    options = Options(checkpoints_kept=1000)
    with Journal.open(tmp_path / "older", options=options) as journal:
        for lsn in range(8):
            compact(journal)
            put(journal, lsn)
    for file in checkpoints(tmp_path / "older"):
        shutil.copy(file, path)
    assert len(checkpoints(path)) > len(segments(path)) + 4
    with JournalReader.open(path) as reader:
        preview = reader.preview_recovery()
        assert (preview.refusal, preview.checkpoint_lsn, preview.last_lsn) == (None, 20, 45)
        assert preview.aside == ()
    report = repair(path, apply=True, cut_at=20)
    assert (report.problem, report.last_lsn) == (None, 20)
    assert refusal_of(path) is None


@pytest.mark.usefixtures("covered")
def test_a_cut_ignores_foreign_checkpoints(path: Path) -> None:
    """P4: The LSN of a foreign checkpoint is no possible cut."""
    with pytest.raises(CompactedError):
        repair(path, apply=True, cut_at=4)
