"""Salvage of the frames after the end of the log."""

from __future__ import annotations

import itertools
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    Journal,
    JournalError,
    JournalReader,
    read_salvaged,
    repair,
)
from journal.testing import SimulatedDisk
from tests.crash.crash_support import image
from tests.crash.repair_support import damage, fixed
from tests.support import (
    FIRST,
    PATH,
    crash,
    end_of,
    frozen,
    logged,
    names,
    open_on,
    options,
    put,
    put_file,
    put_lines,
    read_all,
    reopened,
    until,
    write_at,
)


def test_frames_after_the_damage_are_salvaged(disk: SimulatedDisk) -> None:
    """`salvage` writes the valid frames after the cut to a new journal, in order, with new LSNs.

    Without `apply`, the report lists them.
    """
    with open_on(disk) as journal:
        put(journal, "a")
        journal.wait_durable(journal.append_batch(["b", "c"]))
        put(journal, "d", {"e": [1, b"2", None]})
        put_lines(journal, 6, size=900)
    damage(disk, 1)
    report = fixed(disk, salvage=True)
    assert report.salvaged_to == f"{PATH}.salvaged-1"
    assert report.salvaged[:3] == ((2, 3), (4, 4), (5, 5))
    with Journal.open(report.salvaged_to, options=options(), disk=disk) as journal:
        records = logged(journal)
        assert records[:4] == ["b", "c", "d", {"e": [1, b"2", None]}]
        assert [record[0] for record in records[4:]] == [*range(6, 12)]
    with JournalReader.open(report.salvaged_to, disk=disk) as reader:
        offsets = {entry.record: entry.offset for entry in itertools.islice(reader.entries(), 2)}
        assert len(set(offsets.values())) == 1
        assert list(reader.verify()) == []


@given(
    records=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=3), min_size=2, max_size=9)
)
def test_salvaged_records_keep_where_they_were(records: list[list[int]]) -> None:
    """P4: `read_salvaged` yields each salvaged record with the LSN, the time, the segment and the
    offset that it had in the damaged journal."""
    disk = SimulatedDisk()
    with open_on(disk, segment_bytes=4096) as journal:
        for batch in records:
            journal.wait_durable(journal.append_batch([[number, "x" * 900] for number in batch]))
    with JournalReader.open(PATH, disk=disk) as reader:
        before = [
            (entry.record, entry.lsn, entry.written_at_ns, entry.path, entry.offset)
            for entry in reader.entries()
        ]
    damage(disk, 1)
    report = fixed(disk, salvage=True)
    assert report.salvaged_to is not None
    found = list(read_salvaged(report.salvaged_to, disk=disk))
    places = [(at.record, at.lsn, at.written_at_ns, at.path, at.offset) for at in found]
    assert places == before[len(records[0]) :]
    with JournalReader.open(report.salvaged_to, disk=disk) as reader:
        assert [(entry.lsn, entry.written_at_ns) for entry in reader.entries()] == [
            (at.salvaged_lsn, at.written_at_ns) for at in found
        ]
        assert list(reader.verify()) == []
    with pytest.raises(JournalError, match="not a complete salvage"):
        next(read_salvaged(PATH, disk=disk))


def test_an_interrupted_salvage_is_incomplete(disk: SimulatedDisk) -> None:
    """P4: A salvage without its last file is refused, and the next repair makes a new one."""
    with open_on(disk) as journal:
        put(journal, 1, 2, 3)
    damage(disk, 1)
    writes = disk.contents(PATH)
    disk.open_directory(f"{PATH}.salvaged-1", write=True).open("x.tmp", "create").close()
    with pytest.raises(JournalError, match="not a complete salvage"):
        next(read_salvaged(f"{PATH}.salvaged-1", disk=disk))
    assert disk.contents(PATH) == writes
    assert fixed(disk, salvage=True).salvaged_to == f"{PATH}.salvaged-2"


def test_records_are_salvaged_although_a_name_is_wrong(disk: SimulatedDisk) -> None:
    """P4: If a repair gives a segment its name back, and cuts the log, too, it salvages the records
    after the cut under the journal's id. The next repair knows that they were salvaged."""
    for records in (["a", "b", "c"], ["d"]):
        with open_on(disk) as journal:
            put(journal, *records)
            journal_id = journal.journal_id
    damage(disk, 2)
    contents = disk.contents(PATH)
    contents[FIRST.replace("1-", "2-")] = contents.pop(FIRST)
    damaged = image(contents)
    report = fixed(damaged, salvage=True)
    assert (report.salvaged, report.last_lsn) == (((3, 3), (4, 4)), 1)
    assert report.salvaged_to is not None
    salvaged = damaged.contents(report.salvaged_to)
    assert json.loads(salvaged["SALVAGED"])["journal_id"] == journal_id
    assert reopened(damaged) == ["a"]
    again = image(contents)
    directory = again.open_directory(report.salvaged_to, write=True)
    for name, data in salvaged.items():
        put_file(directory, name, data)
    directory.close(unlock=False)
    assert fixed(again, salvage=True).salvaged == ()


def test_a_torn_tail_is_salvaged(disk: SimulatedDisk) -> None:
    """Whole frames in a torn tail stay on disk and can be salvaged. The journal needs no repair."""
    journal = open_on(disk)
    put(journal, "kept")
    until(lambda: read_all(disk) == ["kept"], "the mark")
    (name,) = names(disk, ".seg")
    whole = disk.contents(PATH)[name]
    journal.append("torn")
    journal.append_batch(["whole", "too"])
    journal.wait_durable()
    put(journal, "more")
    crash(journal, disk)
    later = disk.contents(PATH)[name]
    # Of the frames after the first one, the power cut left all but a part of the first.
    mark = end_of_first = len(whole.rstrip(b"\0"))
    assert end_of_first == mark
    broken = bytearray(later)
    frame_2 = 64 + 44 + 5
    broken[frame_2 + 44] ^= 0xFF
    write_at(disk, name, 0, bytes(broken))
    # No evidence says that it was durable: the next frame states an older durable LSN.
    report = repair(PATH, salvage=True, disk=disk)
    if report.problem is None:
        before = disk.contents(PATH)
        report = fixed(disk, salvage=True)
        assert disk.contents(PATH) == before
        assert report.last_lsn == 1
    assert report.salvaged[-1] == (5, 5)


def test_a_torn_tail_before_the_next_epoch_is_salvaged(disk: SimulatedDisk) -> None:
    """P1: Frames that a later epoch cut off can be salvaged, and stay out of the log.

    The report names them by their old LSNs. The journal's own records with the same LSNs are not
    salvaged.
    """
    journal = open_on(disk)
    put(journal, "one")
    (name,) = names(disk, ".seg")
    end = end_of(disk, name)
    put(journal, "lost")
    dead = disk.contents(PATH)[name]
    crash(journal, disk)
    write_at(disk, name, end, bytes(len(dead) - end))
    with open_on(disk) as journal:
        put(journal, "two", "three")
    write_at(disk, name, 0, dead)
    report = fixed(disk, salvage=True)
    assert (report.problem, report.last_lsn, report.salvaged) == (None, 3, ((2, 2),))
    assert report.salvaged_to is not None
    with Journal.open(report.salvaged_to, disk=disk) as journal:
        assert logged(journal) == ["lost"]
    assert reopened(disk) == ["one", "two", "three"]


def test_each_repair_makes_its_own_directories(disk: SimulatedDisk) -> None:
    """Files that an earlier repair set aside are never overwritten."""
    with open_on(disk) as journal:
        put_lines(journal, 30, size=900)
    for number, cut_at in enumerate((24, 16, 8), 1):
        report = fixed(disk, cut_at=cut_at, salvage=True)
        assert report.saved_to == f"{PATH}.cut-{number}"
        assert report.salvaged_to == f"{PATH}.salvaged-{number}"
    assert reopened(disk) == [[n, "x" * 900] for n in range(1, 9)]


def test_salvage_skips_frames_that_no_seed_verifies(disk: SimulatedDisk) -> None:
    """P4: A segment without a seed, or with another file's frames or header, yields no salvage.

    Neither the log nor a successful open depends on such a file.
    """
    for _ in range(2):
        with open_on(disk) as journal:
            put(journal, 1, 2)
    first, last = names(disk, ".seg")
    ours = disk.contents(PATH)
    for data in (
        b"\xff" * 70 + ours[last][70:],  # the seed is lost, and so is what it could be found from
        ours[last][:30]
        + b"\xff"
        + ours[last][31:64]
        + ours[first][64:],  # the frames are another file's
        b"\xff" * 60 + ours[first][60:],  # the frames begin at LSN 1
        ours[first],
        ours[last][:63],
    ):
        disk.open_directory(PATH, write=True).remove(last)
        disk.open_directory(PATH, write=True).open(last, "create").write(data, 0)
        report = repair(PATH, disk=disk)
        assert (report.problem is None, report.last_lsn, report.salvaged) == (False, 2, ())
        with JournalReader.open(PATH, disk=disk) as reader:
            assert {scanned.state for scanned in reader.frames(2)} == {"garbage"}
            assert [entry.record for entry in itertools.islice(reader.entries(), 2)] == [1, 2]


@pytest.mark.parametrize("lsns", [(7,), (6,), (6, 7), (8, 11), (2,), (2, 3), (2, 7, 12)])
def test_a_copy_in_the_middle_of_a_segment_is_set_aside(
    disk: SimulatedDisk, lsns: tuple[int, ...]
) -> None:
    """P4: A copied segment under a name in the range of another segment costs no record.

    The copy is removed, and the journal opens with all its records.
    """
    for _ in range(3):
        with open_on(disk) as journal:
            put(journal, 1)
            journal.wait_durable(journal.append_batch([2, 3, 4]))
    data = disk.contents(PATH)[names(disk, ".seg")[0]]
    copies = [f"{lsn:020d}-{1 + (lsn - 1) // 4:010d}.seg" for lsn in lsns]
    for name in copies:
        disk.open_directory(PATH, write=True).open(name, "create").write(data, 0)
    report = fixed(disk)
    assert report.problem
    assert (report.last_lsn, set(report.removed)) == (12, set(copies))
    assert repair(PATH, disk=disk).problem is None
    assert reopened(disk) == [1, 2, 3, 4] * 3


@given(data=st.data())
def test_any_damage_can_be_repaired(data: st.DataObject) -> None:
    """P1, P4: Whatever bytes are changed, repair leaves a prefix of the log that can be continued.

    Otherwise it raises JournalError, because there is nothing to start from.
    """
    disk = SimulatedDisk()
    for _ in range(2):
        with open_on(disk) as journal:
            put_lines(journal, 4, size=300)
            journal.compact(frozen(journal, journal.last_lsn))
            put_lines(journal, 8, size=700)
    log = [[n, "x" * (300 if (n - 1) % 12 < 4 else 700)] for n in range(1, 25)]
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(names(disk, ".seg") + names(disk, ".json")))
        size = len(disk.contents(PATH)[name])
        offset = data.draw(st.integers(0, size - 1))
        write_at(disk, name, offset, data.draw(st.binary(min_size=1, max_size=60)))
    try:
        report = fixed(disk, salvage=True)
    except JournalError:
        assert len(names(disk, ".json")) > 0
        return
    with open_on(disk) as journal:
        base_lsn = journal.checkpoint.lsn if journal.checkpoint else 0
        assert journal.last_lsn == report.last_lsn
        assert logged(journal, None) == log[base_lsn : report.last_lsn]
        put(journal, "on")
    with open_on(disk) as journal:
        assert logged(journal, None)[-1] == "on"


def test_a_repair_is_done_only_if_the_journal_opens(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P4: A repair checks the journal after the cut, and raises JournalError if it does not
    open."""
    with open_on(disk) as journal:
        put(journal, 1, 2, 3)
    damage(disk, 2)
    monkeypatch.setattr(sys.modules["journal._offline.repair"]._Repair, "_cut", lambda *_: None)
    with pytest.raises(JournalError, match=r"the journal still does not open: .*LSN 2"):
        repair(PATH, apply=True, disk=disk)
