"""Damage to a journal that has a mirror, and its repair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from journal import CorruptionError, Journal, JournalError, Tables, repair, restore
from journal._mirror.restoring import restore_into
from tests.mirror.stores import SMALL, TIMEOUT_S, SilentStore, mirror_of

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


def test_a_repair_that_keeps_no_record_hides_none_of_the_mirror(url: str, tmp_path: Path) -> None:
    """If a repair cuts the log before its first record, the next open gets all records from the
    mirror: no checkpoint covers them."""
    (segment,) = (tmp_path / "j").glob("*.seg")
    change(segment, 64 + 45)
    assert repair(tmp_path / "j", apply=True).last_lsn == 0
    assert records(tmp_path / "j", url) == list(PARTS)
    assert restore(url, tmp_path / "copy").lsn == 6


ROWS = {str(number) for number in range(12)}


def lagging(path: Path, store: SilentStore) -> list[Path]:
    """Write tables whose mirror has only the first segments, while later ones are covered by
    checkpoints, too. Return the segments: the first one, the last one that the mirror has, the
    next one, and the last one that is covered."""
    with Tables.open(path, options=SMALL, mirror=mirror_of(store)) as tables:
        for number in range(6):
            tables.table("t")[str(number)] = "x" * 900
            tables.sync()
        tables.wait_mirrored(timeout_s=TIMEOUT_S)
    mirrored = sorted(path.glob("*.seg"))
    store.fall_silent()
    with Tables.open(path, options=SMALL, mirror=mirror_of(store)) as tables:
        for number in range(6, 12):
            tables.table("t")[str(number)] = "x" * 900
            tables.sync()
        covered = sorted(path.glob("*.seg"))[-1]
        for _ in range(2):
            tables.table("t")["0"] = "y"
            tables.compact()
        tables.close(timeout_s=0.1)
    store.answer()
    following = sorted(set(path.glob("*.seg")) - set(mirrored))[0]
    assert following < covered
    return [mirrored[0], mirrored[-1], following, covered]


def change(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("which", range(4), ids=["first", "last mirrored", "next", "last covered"])
@pytest.mark.parametrize("is_noted", [False, True], ids=["no note", "noted"])
@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:500]),
        lambda path: change(path, 20),  # in the segment's header
        lambda path: change(path, 80),  # in the header of a frame
        lambda path: change(path, 300),  # in its payload
    ],
    ids=["gone", "empty", "cut", "header", "frame", "payload"],
)
def test_damage_that_checkpoints_cover_is_passed_over(
    damage: Callable[[Path], object], is_noted: bool, which: int, tmp_path: Path
) -> None:
    """If two checkpoints cover a missing or damaged segment, the open with the mirror has the whole
    state, as the open without it would, and the mirror gets what it lacks. Nothing is put aside."""
    store = SilentStore()
    damage(lagging(tmp_path / "j", store)[which])
    if not is_noted:
        (tmp_path / "j" / "MIRROR.place").unlink()
    for number in range(2):
        with Tables.open(tmp_path / "j", options=SMALL, mirror=mirror_of(store)) as tables:
            assert set(tables.table("t")) == ROWS
            tables.table("t")["0"] = f"z{number}"
            tables.wait_mirrored(timeout_s=TIMEOUT_S)
    assert list(tmp_path.iterdir()) == [tmp_path / "j"]
    restore_into(store, tmp_path / "copy")
    assert set(Tables.read(tmp_path / "copy").table("t")) == ROWS


def test_a_damaged_header_that_no_checkpoint_covers_is_refused(tmp_path: Path) -> None:
    """If the log needs the segment, the open refuses it, and does not replace it by what the mirror
    has of it."""
    store = SilentStore()
    with Tables.open(tmp_path / "j", options=SMALL, mirror=mirror_of(store)) as tables:
        tables.table("t")["mirrored"] = 1
        tables.wait_mirrored(timeout_s=TIMEOUT_S)
        store.fall_silent()
        tables.table("t")["local"] = 1
        tables.close(timeout_s=0.1)
    store.answer()
    (segment,) = (tmp_path / "j").glob("*.seg")
    change(segment, 20)
    damaged = segment.read_bytes()
    with pytest.raises(CorruptionError, match=f"{segment}: offset 0, LSN 1: .* header is damaged"):
        Tables.open(tmp_path / "j", options=SMALL, mirror=mirror_of(store))
    assert segment.read_bytes() == damaged
    assert list(tmp_path.iterdir()) == [tmp_path / "j"]
