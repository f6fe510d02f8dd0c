"""Putting back: salvaged records are appended again, once, and only those that the state takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    Composite,
    CorruptionError,
    DurableState,
    Journal,
    JournalError,
    PutBackReport,
    Tables,
    is_restored_mark,
    put_back,
    repair,
)
from journal.testing import SimulatedDisk, keep, lose, seeded
from tests.crash.repair_support import damage, fixed
from tests.support import PATH, TIMEOUT_S, crash, logged, names, open_on, options, put, write_at

SALVAGED = f"{PATH}.salvaged-1"


class Numbers:
    """A state that takes each number only after the one before it."""

    application = ""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def load(self, item: Any) -> None:
        self.taken.append(item)

    def apply(self, lsn: int, record: Any) -> None:
        if is_restored_mark(record):
            return
        if record[0] == "after" and record[1] - 1 not in self.taken:
            raise ValueError(record)
        self.taken.append(record[1])

    def freeze(self) -> list[int]:
        return self.taken


def cut(disk: SimulatedDisk, records: list[Any], damaged: int) -> None:
    """Make a journal of these records, damage one, repair it, and salvage the rest."""
    with open_on(disk) as journal:
        put(journal, *records)
    damage(disk, damaged)
    assert fixed(disk, salvage=True).salvaged_to == SALVAGED


def always(record: Any) -> Callable[[Any], Any]:
    """Return a function for `update` that decides for this record."""
    return lambda _: record


def put_back_into(disk: SimulatedDisk, machine: Any = Numbers) -> PutBackReport:
    with open_on(disk) as journal:
        return put_back(SALVAGED, journal, machine=machine, disk=disk)


def log_of(disk: SimulatedDisk) -> list[Any]:
    with open_on(disk) as journal:
        return logged(journal, None)


def test_records_are_put_back_once(disk: SimulatedDisk) -> None:
    """P1: The first call appends the salvaged records after a mark with their old LSNs, and the
    second one appends nothing, also if the salvage no longer says that they were appended."""
    cut(disk, [["any", n] for n in range(1, 6)], 2)
    statement = disk.contents(SALVAGED)["SALVAGED"]
    before = put_back(SALVAGED, disk=disk)
    assert (before.records, before.first_lsn, before.last_lsn) == (3, 3, 5)
    assert (before.appended, before.appended_last_lsn) == (0, None)
    report = put_back_into(disk)
    assert (report.appended, report.refused) == (3, ())
    first, *others = log_of(disk)
    assert first == ["any", 1]
    marks = [record for record in others if is_restored_mark(record)]
    assert [mark[2:] for mark in marks] == [[1, n, n] for n in (3, 4, 5)]
    assert [record for record in others if record not in marks] == [["any", n] for n in (3, 4, 5)]
    log = log_of(disk)
    for stated in (disk.contents(SALVAGED)["SALVAGED"], statement):
        write_statement(disk, stated)
        again = put_back_into(disk)
        assert (again.appended, again.appended_last_lsn) == (0, report.appended_last_lsn)
        assert log_of(disk) == log


def write_statement(disk: SimulatedDisk, data: bytes) -> None:
    directory = disk.open_directory(SALVAGED, write=True)
    directory.remove("SALVAGED")
    file = directory.open("SALVAGED", "create")
    file.write(data, 0)
    file.close()
    directory.close(unlock=False)


def test_an_interrupted_call_whose_marks_were_compacted_away_is_not_repeated(
    disk: SimulatedDisk,
) -> None:
    """P1: If a call was interrupted, and a checkpoint has replaced the marks since, nothing says
    which records it appended. So nothing is appended again."""
    cut(disk, [["any", n] for n in range(1, 6)], 2)
    put_back_into(disk)
    stated = json.loads(disk.contents(SALVAGED)["SALVAGED"])
    write_statement(disk, json.dumps(stated | {"appended_last": None}).encode())
    with DurableState.open(PATH, Numbers(), options=options(), disk=disk) as state:
        for number in range(10, 16):
            state.update(always(["any", number]))
            state.compact()
    before = disk.contents(PATH)
    with pytest.raises(JournalError, match="compacted since"):
        put_back_into(disk)
    with Journal.open(PATH, options=options(), disk=disk) as journal:
        assert journal.first_lsn > stated["appended_after"] + 1
    assert [name for name in before if name.startswith("checkpoint-")]


def test_what_the_state_can_t_apply_is_left_out(disk: SimulatedDisk) -> None:
    """P1: A record that builds on one that is lost for good is not appended, so that the state
    opens. The report names it."""
    cut(disk, [["any", 1], ["any", 2], ["after", 3], ["any", 7], ["after", 8], ["after", 4]], 2)
    report = put_back_into(disk)
    assert (report.appended, report.refused) == (2, ((3, 3), (6, 6)))
    records = [record for record in log_of(disk) if not is_restored_mark(record)]
    assert records == [["any", 1], ["any", 7], ["after", 8]]


def test_a_state_without_marks_takes_nothing(disk: SimulatedDisk) -> None:
    """P1: If the state does not know marks, nothing is appended."""

    class Strict(Numbers):
        def apply(self, lsn: int, record: Any) -> None:
            self.taken.append(record[1] + 0)

    cut(disk, [["any", 1], ["any", 2], ["any", 3]], 2)
    with pytest.raises(JournalError, match="does not take the salvaged records"):
        put_back_into(disk, Strict)
    assert log_of(disk) == [["any", 1]]


def test_records_are_put_back_as_they_are(disk: SimulatedDisk) -> None:
    """P1: Without a machine, the records alone are appended, and only once."""
    cut(disk, ["a", "b", "c", "d"], 2)
    for appended in (2, 0):
        assert put_back_into(disk, None).appended == appended
        assert log_of(disk) == ["a", "c", "d"]


@pytest.mark.parametrize("where", ["header", "frame", "frame at the cut"])
def test_covered_damage_keeps_no_record_away(disk: SimulatedDisk, where: str) -> None:
    """P1: Records are put back, and only once, although frames before the cut can't be read,
    because a checkpoint covers them."""
    for numbers in ([1, 2, 3, 4], [5, 6, 7]):
        with open_on(disk) as journal:
            for number in numbers[::2]:
                batch = [["any", n] for n in numbers if n - number in (0, 1)]
                journal.wait_durable(journal.append_batch(batch))
                if number == 3:
                    journal.compact(lambda: (3, [1, 2, 3])).close()
    first, _ = names(disk, ".seg")
    damage(disk, 5)
    damage(disk, 1 if where == "frame" else 3)
    if where == "header":
        write_at(disk, first, 0, bytes(64 + 44))
    report = fixed(disk, salvage=True)
    assert report.salvaged == ((7, 7),)
    statement = disk.contents(SALVAGED)["SALVAGED"]
    for appended in (1, 0):
        write_statement(disk, statement)
        assert put_back_into(disk).appended == appended
        assert log_of(disk)[-1] == ["any", 7]


def test_damage_that_may_hide_a_mark_is_refused(disk: SimulatedDisk) -> None:
    """P1: If a call was interrupted, and what it appended can't be read now, nothing says whether a
    record is there again. So nothing is appended."""
    cut(disk, [["any", n] for n in range(1, 6)], 2)
    put_back_into(disk)
    stated = json.loads(disk.contents(SALVAGED)["SALVAGED"])
    write_statement(disk, json.dumps(stated | {"appended_last": None}).encode())
    with open_on(disk) as journal:
        put(journal, ["any", 6])
        journal.compact(lambda: (journal.last_lsn, [1, 3, 4, 5, 6])).close()
        last_lsn = journal.last_lsn
    damage(disk, last_lsn - 3)
    with pytest.raises(CorruptionError):
        put_back_into(disk)
    with open_on(disk) as journal:
        assert journal.last_lsn == last_lsn


def test_only_the_same_journal_takes_them(disk: SimulatedDisk) -> None:
    """P4: The records of one journal are not appended to another."""
    cut(disk, ["a", "b", "c"], 2)
    with Journal.open("/other", options=options(), disk=disk) as journal:
        with pytest.raises(JournalError, match="nothing was appended"):
            put_back(SALVAGED, journal, disk=disk)
        with pytest.raises(JournalError, match="not a complete salvage"):
            put_back(PATH, journal, disk=disk)
        assert journal.last_lsn == 0


def test_records_that_are_lost_again_keep_their_first_lsn(disk: SimulatedDisk) -> None:
    """P1: If records that were put back are lost again, the next call appends them once, with the
    mark that they had."""
    cut(disk, [["any", n] for n in range(1, 6)], 2)
    put_back_into(disk)
    [first, *_] = log_of(disk)
    damage(disk, 1)
    assert fixed(disk, salvage=True).salvaged_to == f"{PATH}.salvaged-2"
    for _ in range(2):
        with open_on(disk) as journal:
            put_back(f"{PATH}.salvaged-2", journal, machine=Numbers, disk=disk)
        mark, *records = log_of(disk)
        assert mark[2:] == [1, 3, 5]
        assert records == [["any", n] for n in (3, 4, 5)]
        assert first not in records


def test_a_torn_tail_is_not_put_back(disk: SimulatedDisk) -> None:
    """P1: A whole frame that an open after a crash has cut off was never acknowledged, and its
    program may have written it again. It is salvaged, but not put back."""
    journal = open_on(disk)
    put(journal, ["any", 1])
    (name,) = names(disk, ".seg")
    end = len(disk.contents(PATH)[name].rstrip(b"\0"))
    put(journal, ["any", 2])
    torn = disk.contents(PATH)[name]
    crash(journal, disk)
    write_at(disk, name, end, bytes(len(torn) - end))
    with open_on(disk) as journal:
        put(journal, ["any", 2])
    write_at(disk, name, 0, torn)
    report = fixed(disk, salvage=True)
    assert (report.problem, report.salvaged) == (None, ((2, 2),))
    assert put_back(SALVAGED, disk=disk).records == 0
    assert put_back_into(disk).appended == 0
    assert log_of(disk) == [["any", 1], ["any", 2]]


@given(
    batches=st.lists(st.integers(1, 3), min_size=2, max_size=6),
    damaged=st.integers(0, 4),
    data=st.data(),
)
def test_a_crash_neither_loses_nor_repeats_a_record(
    batches: list[int], damaged: int, data: st.DataObject
) -> None:
    """P1, P3: Whenever a power cut ends the call, the next one completes it."""
    disk, number, lost = SimulatedDisk(), 0, 1 + damaged % len(batches)
    with open_on(disk) as journal:
        for size in batches:
            journal.wait_durable(journal.append_batch([["any", number + n] for n in range(size)]))
            number += size
    first_lsn = 1 + sum(batches[: lost - 1])
    damage(disk, first_lsn)
    if fixed(disk, salvage=True).salvaged_to is None:
        return
    disk.crash_after(data.draw(st.integers(0, 40)))
    try:
        put_back_into(disk)
    except (OSError, JournalError):
        assert disk.crashed
    disk.power_cut(data.draw(st.sampled_from((keep, lose, seeded(1), seeded(2)))))
    report = put_back_into(disk)
    assert report.appended_last_lsn is not None
    records = [record[1] for record in log_of(disk) if not is_restored_mark(record)]
    gone = range(first_lsn - 1, first_lsn - 1 + batches[lost - 1])
    assert records == [n for n in range(number) if n not in gone]


def test_a_composite_takes_marks(disk: SimulatedDisk) -> None:
    """P1: A Composite, its readers, and the changes of its tables pass over marks, also if a part
    has the name that a mark begins with."""

    def machine() -> Composite:
        return Composite(restored=Tables.machine(), numbers=Numbers())

    with DurableState.open(PATH, made := machine(), options=options(), disk=disk) as state:
        rows = Tables.in_state(state, "restored").table("rows")
        for number in range(1, 5):
            rows[number] = number
            state.update(always(made.part("numbers", ["any", number])))
            state.wait_durable(timeout_s=TIMEOUT_S)
        application = made.application
    damage(disk, 3)
    assert fixed(disk, salvage=True).salvaged_to == SALVAGED
    with open_on(disk, application=application) as journal:
        assert put_back(SALVAGED, journal, machine=machine, disk=disk).refused == ()
    with DurableState.open(PATH, made := machine(), options=options(), disk=disk) as state:
        app = Tables.in_state(state, "restored")
        assert dict(app.table("rows").items()) == {1: 1, 3: 3, 4: 4}
        with app.changes(after=0) as changes:
            assert [next(changes).value for _ in range(3)] == [1, 3, 4]
    assert Tables.read(PATH, part="restored", disk=disk).table("rows")[4] == 4


def test_tables_are_put_back(disk: SimulatedDisk) -> None:
    """P1: Tables take their records with the marks, and their readers and changes ignore these."""
    with Tables.open(PATH, options=options(), disk=disk) as app:
        rows = app.table("rows")
        for number in range(5):
            rows[number] = number
            app.sync(timeout_s=TIMEOUT_S)
    damage(disk, 2)
    report = repair(PATH, apply=True, salvage=True, disk=disk)
    assert report.salvaged_to == SALVAGED
    with open_on(disk, application="journal.tables/1") as journal:
        assert put_back(SALVAGED, journal, machine=Tables.machine, disk=disk).appended == 3
    with Tables.open(PATH, options=options(), disk=disk) as app:
        assert dict(app.table("rows").items()) == {0: 0, 2: 2, 3: 3, 4: 4}
        with app.changes(after=0) as changes:
            assert [next(changes).value for _ in range(4)] == [0, 2, 3, 4]
    assert Tables.read(PATH, disk=disk).table("rows")[4] == 4
