"""Repair of a journal that has a mirror."""

from __future__ import annotations

from pathlib import Path

import pytest

from journal import Journal, JournalError, repair, restore

PARTS = ("one", "two", "three", "four", "five", "six")


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Write a mirrored journal of six commits to `j`, and return the address of its mirror."""
    address = (tmp_path / "mirror").as_uri()
    with Journal.open(tmp_path / "j", mirror=address) as journal:
        for part in PARTS:
            journal.wait_durable(journal.append(part))
        journal.wait_mirrored()
    return address


def records(path: Path, mirror: str) -> list[str]:
    with Journal.open(path, mirror=mirror) as journal:
        return [entry.record for entry in journal.replay(0)]


@pytest.mark.parametrize("apply", [False, True])
@pytest.mark.parametrize("cut_at", [0, 3, 6, 99])
def test_a_mirrored_journal_is_not_cut(url: str, cut_at: int, apply: bool, tmp_path: Path) -> None:
    """A chosen cut of a journal with a mirror is refused, also as a plan: the next open would ship
    the cut, and the mirror would lose the records after it."""
    path = tmp_path / "j"
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    with pytest.raises(JournalError, match=f"{path}: the journal has a mirror") as refused:
        repair(path, cut_at=cut_at, apply=apply)
    assert "nothing was changed" in str(refused.value)
    assert f"journal-inspect restore URL DIR --lsn {cut_at}, " in str(refused.value)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert records(path, url) == list(PARTS)
    assert restore(url, tmp_path / "copy", lsn=5).lsn == 5


@pytest.mark.parametrize("lsn", [0, 3])
def test_the_way_that_the_refusal_names_leads_there(url: str, lsn: int, tmp_path: Path) -> None:
    """A restore up to the LSN of the cut has exactly the records that the cut would have kept."""
    assert restore(url, tmp_path / "copy", lsn=lsn).lsn == lsn
    assert records(tmp_path / "copy", (tmp_path / "new").as_uri()) == list(PARTS[:lsn])


@pytest.mark.parametrize("part", PARTS)
def test_a_repair_of_damage_gets_the_records_from_the_mirror(
    url: str, part: str, tmp_path: Path
) -> None:
    """A damaged journal with a mirror is repaired without a chosen cut. The next open gets all
    records from the mirror, which keeps them, also if the repair has replaced a whole segment."""
    path = tmp_path / "j"
    with Journal.open(path, mirror=url) as journal:  # the next segment
        for more in PARTS:
            journal.wait_durable(journal.append(more.upper()))
    damaged = 0
    for segment in path.glob("*.seg"):
        data = segment.read_bytes()
        damaged += part.upper().encode() in data
        segment.write_bytes(data.replace(part.upper().encode(), b"?" * len(part)))
    assert damaged == 1
    report = repair(path, apply=True)
    assert (report.problem is None, report.last_lsn) == (False, 6 + PARTS.index(part))
    expected = [*PARTS, *map(str.upper, PARTS)]
    assert records(path, url) == expected
    with Journal.open(path, mirror=url) as journal:
        journal.append("new")
    assert restore(url, tmp_path / "copy", lsn=11).lsn == 11
    assert records(tmp_path / "copy", (tmp_path / "new").as_uri()) == expected[:11]
