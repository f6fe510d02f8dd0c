"""Composite: several state machines in one journal, with changes across all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    Composite,
    CowTable,
    DurableState,
    FailedError,
    FormatReason,
    FormatVersionError,
    RecordError,
    pack,
)
from journal._format.items import EncodedItems
from journal._tables.keys import encode_key
from journal._tables.machine import ROWS, TablesMachine
from journal._tables.values import pack_value
from journal.testing import SimulatedDisk
from tests.engine.state_support import state_on
from tests.support import PATH, Table, names, open_on
from tests.support import put as append


def of(application: str, *accepts: str) -> Table:
    """Return a machine of `application` that accepts others."""
    machine = Table()
    machine.application = application
    machine.accepts = accepts  # type: ignore[attr-defined]
    return machine


def jobs_and_rows(**others: Any) -> Composite:
    """Return a composite of a machine that gives objects and one that gives encoded lines."""
    return Composite(jobs=Table(), rows=TablesMachine(), **others)


def row(key: Any, value: Any) -> list[Any]:
    return [ROWS, ["t", encode_key(key), None if value is ... else pack_value(value)]]


def put(state: DurableState[Composite], part: str, *records: Any) -> None:
    """Append records of one part, as a batch."""
    state.update_batch(lambda c: [c.part(part, record) for record in records])


def put_all(state: DurableState[Composite], records: list[Any]) -> None:
    """Append records that name their parts, as a batch."""
    state.update_batch(lambda _: records)


def contents(state: DurableState[Composite]) -> dict[str, Any]:
    """Return the items of each part."""
    parts: dict[str, Any] = {name: [] for name in state.machine.names}
    for name, item in decoded(state.machine):
        parts[name].append(item)
    return parts


def decoded(machine: Composite) -> list[Any]:
    """Return the items of a composite's snapshot."""
    items: list[Any] = []
    for item in machine.freeze():
        items += item.decoded() if hasattr(item, "decoded") else [item]
    return items


# --- records and items ---


def test_a_batch_changes_several_parts(disk: SimulatedDisk) -> None:
    """P3, P6: A batch changes several parts, or none, in the log and in a checkpoint."""
    with state_on(disk, jobs_and_rows()) as state:
        lsn = state.update_batch(
            lambda c: [c.part("jobs", ["a", 1]), c.part("rows", row(("k", 1), {"n": 1}))]
        )
        state.update(lambda c: c.part("jobs", pack(["b", b"\xff"])))
        expected = contents(state)
        assert lsn == 2
        assert expected == {
            "jobs": [["a", 1], ["b", b"\xff"]],
            "rows": [{"table": "t", "key": ["k", 1], "value": {"n": 1}}],
        }
    for _ in range(2):
        with state_on(disk, jobs_and_rows()) as state:
            assert contents(state) == expected
            state.compact()


def test_a_checkpoint_names_the_part_of_each_item(disk: SimulatedDisk) -> None:
    """Each item is a line with its part's name, even an item that a part has encoded itself."""
    with state_on(disk, jobs_and_rows()) as state:
        put(state, "jobs", ["a", 1])
        put(state, "rows", row(1, ",\n"), row(2, b"\xff"), row(3, {1: 2}))
        state.compact()
        application = state.machine.application
    _, name = names(disk, ".json")
    first, _, *lines, _, _ = disk.contents(PATH)[name].decode().splitlines()
    assert lines == [
        '["jobs",["a",1]],',
        '["rows",{"table":"t","key":1,"value":",\\n"}],',
        '["rows",{"table":"t","key":2,"value":{"$bytes":"/w=="}}],',
        '["rows",{"table":"t","key":3,"packed":{"$bytes":"gQEC"}}]',
    ]
    assert application == 'journal.composite/1 {"jobs":"table/1","rows":"journal.tables/1"}'
    assert '"application":"journal.composite/1 {\\"jobs\\"' in first


KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.none() | st.integers(0, 5) | st.sampled_from(["],\n", b"\xff", {"$bytes": "x"}])


@given(
    batches=st.lists(
        st.lists(
            st.tuples(st.just("jobs"), st.tuples(KEYS, VALUES).map(list))
            | st.tuples(st.just("other"), st.tuples(KEYS, VALUES).map(list))
            | st.tuples(st.just("rows"), st.builds(row, KEYS, VALUES | st.just(...))),
            max_size=5,
        ),
        max_size=5,
    ),
    compacts=st.lists(st.booleans(), min_size=5, max_size=5),
    is_packed=st.booleans(),
)
def test_each_part_is_as_if_it_were_alone(
    batches: list[list[tuple[str, Any]]], compacts: list[bool], is_packed: bool
) -> None:
    """The state of a part results from its own records alone."""
    disk = SimulatedDisk()
    alone: dict[str, Any] = {"jobs": Table(), "other": Table(), "rows": TablesMachine()}
    lsn = 0
    for batch, compact in zip(batches, compacts, strict=False):
        with state_on(disk, jobs_and_rows(other=Table())) as state:
            for name, record in batch:
                lsn += 1
                alone[name].apply(lsn, record)
            part = state.machine.part
            put_all(state, [part(name, pack(one) if is_packed else one) for name, one in batch])
            if compact:
                state.compact()
    with state_on(disk, jobs_and_rows(other=Table())) as state:
        items = decoded(state.machine)
    assert sorted(map(repr, items)) == sorted(map(repr, decoded(Composite(**alone))))


def test_the_parts_of_a_snapshot_are_of_one_moment(disk: SimulatedDisk) -> None:
    """The items of all parts are those at the time of `freeze`."""
    with state_on(disk, jobs_and_rows()) as state:
        put(state, "jobs", ["a", 1])
        items = state.machine.freeze()
        put(state, "jobs", ["a", 2])
        put(state, "rows", row(1, 1))
        assert list(items) == [["jobs", ["a", 1]]]


def test_a_record_that_nests_too_deep_for_its_part(disk: SimulatedDisk) -> None:
    """A record that nests too deep for replay, with its part's level, is refused, packed or not."""
    deep: Any = 0
    while True:
        try:
            deepest = pack([deep])
        except RecordError:
            break
        deep = [deep]
    with state_on(disk, Composite(jobs=Table())) as state:
        for record in (deep, deepest):
            with pytest.raises(RecordError):
                put(state, "jobs", record)
        assert state.journal.last_lsn == 0
        state.update(lambda c: c.part("jobs", ["a", 1]))


def test_an_unknown_part_changes_nothing(disk: SimulatedDisk) -> None:
    """A record for an unknown part raises an error that names the parts; the state continues."""
    with state_on(disk, jobs_and_rows()) as state:
        with pytest.raises(ValueError, match=r"no part 'job'; the parts are jobs, rows"):
            put(state, "job", ["a", 1])
        put(state, "jobs", ["a", 1])
        assert state.machine["jobs"].content() == {"a": 1}


# --- parts that come and go ---


@pytest.mark.parametrize("is_compacted", [False, True])
def test_a_part_may_be_added(disk: SimulatedDisk, is_compacted: bool) -> None:
    """An open with one more part keeps the state of the others."""
    with state_on(disk, Composite(jobs=Table())) as state:
        put(state, "jobs", ["a", 1])
        if is_compacted:
            state.compact()
    with state_on(disk, jobs_and_rows()) as state:
        put(state, "rows", row(1, 1))
        assert state.machine["jobs"].content() == {"a": 1}


@pytest.mark.parametrize("is_compacted", [False, True])
@pytest.mark.parametrize("part", ["jobs", "rows"])
def test_a_missing_part_with_data_is_refused(
    disk: SimulatedDisk, is_compacted: bool, part: str
) -> None:
    """An open without a part that has data, in the log or in a checkpoint, is refused."""
    with state_on(disk, jobs_and_rows()) as state:
        put(state, "jobs", ["a", 1])
        put(state, "rows", row(1, 1))
        if is_compacted:
            state.compact()
    before = disk.contents(PATH)
    rest: Any = {"jobs": Table(), "rows": TablesMachine()}
    del rest[part]
    with pytest.raises(FormatVersionError, match=f"data of part '{part}'"):
        state_on(disk, Composite(**rest))
    assert disk.contents(PATH) == before
    state_on(disk, jobs_and_rows()).close()


def test_a_missing_part_without_data_is_not_missed(disk: SimulatedDisk) -> None:
    """A part that never had records may be dropped."""
    with state_on(disk, jobs_and_rows()) as state:
        put(state, "jobs", ["a", 1])
        state.compact()
    with state_on(disk, Composite(jobs=Table())) as state:
        assert state.machine["jobs"].content() == {"a": 1}


# --- applications ---

ACCEPTED: list[tuple[Callable[[], Any], str]] = [
    (lambda: Composite(jobs=of("jobs/2"), users=of("users/1")), ""),
    (lambda: Composite(users=of("users/1"), jobs=of("jobs/3", "jobs/2")), ""),
    (lambda: Composite(jobs=of("jobs/2"), users=of("users/1"), more=of("more/9")), ""),
    (
        lambda: Composite(jobs=of("jobs/3", "jobs/1"), users=of("users/1")),
        "part 'jobs': .* for application 'jobs/2', not for 'jobs/3' or 'jobs/1'",
    ),
    (
        lambda: Composite(jobs=of("users/1"), users=of("jobs/2")),
        "part 'jobs': .* for application 'jobs/2', not for 'users/1'",
    ),
    (lambda: of("jobs/2"), "was written for application 'journal.composite/1"),
]


@pytest.mark.parametrize(("new", "problem"), ACCEPTED)
def test_each_part_keeps_its_application(
    disk: SimulatedDisk, new: Callable[[], Any], problem: str
) -> None:
    """An open checks the version of each part, and refuses before it loads anything."""
    with state_on(disk, Composite(jobs=of("jobs/2"), users=of("users/1"))) as state:
        put(state, "jobs", ["a", 1])
        state.compact()
    before = disk.contents(PATH)
    machine = new()
    if not problem:
        with state_on(disk, machine) as state:
            assert state.machine["jobs"].content() == {"a": 1}
        return
    with pytest.raises(FormatVersionError, match=problem) as caught:
        state_on(disk, machine)
    assert caught.value.reason == FormatReason.OTHER_APPLICATION
    assert disk.contents(PATH) == before


@pytest.mark.parametrize(
    "application",
    ["jobs/1", "", "journal.composite/1 ", "journal.composite/1 [1]", '{"jobs":"table/1"}',
     'journal.composite/1 {"jobs":1}', "journal.composite/1 " + "[" * 100_000],
)  # fmt: skip
def test_another_applications_journal_is_refused(disk: SimulatedDisk, application: str) -> None:
    """A checkpoint of any other application is refused, even one that begins like a composite's."""
    with state_on(disk, of(application)) as state:
        state.update(lambda _: ["a", 1])
        state.compact()
    with pytest.raises(FormatVersionError, match="not for a Composite") as caught:
        state_on(disk, Composite(jobs=Table()))
    assert caught.value.reason == FormatReason.OTHER_APPLICATION


def test_a_composite_may_be_a_part(disk: SimulatedDisk) -> None:
    """A composite that is a part keeps the applications of its own parts, and may get more."""
    with state_on(disk, Composite(inner=jobs_and_rows())) as state:
        inner = Composite(jobs=Table(), rows=TablesMachine())
        put(state, "inner", inner.part("jobs", ["a", 1]), inner.part("rows", row(1, 1)))
        state.compact()
        expected = decoded(state.machine)
    with state_on(disk, Composite(inner=jobs_and_rows(more=Table()))) as state:
        assert decoded(state.machine) == expected
    with pytest.raises(FormatVersionError, match="part 'inner': part 'jobs': the journal was"):
        state_on(disk, Composite(inner=Composite(jobs=of("jobs/9"), rows=TablesMachine())))


# --- wrong parts ---


def test_wrong_parts_are_refused() -> None:
    """Wrong parts are refused before an open, with an error that names the part."""
    table = Table()
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({}, TypeError, "has no parts"),
        ({"a,b": table}, ValueError, "'a,b' is not an identifier"),
        ({"a": table, "b": table}, ValueError, "the same machine"),
        ({"a": Table}, TypeError, "part 'a': Table is a class"),
        ({"a": object()}, TypeError, "part 'a': object has no `application`"),
    ]
    for parts, kind, message in wrong:
        with pytest.raises(kind, match=message):
            Composite(**parts)


class Changing(Table):
    """A machine whose `freeze` returns a table that changes meanwhile."""

    def freeze(self) -> CowTable[str, Any]:
        return self.rows


def test_a_part_without_a_snapshot_is_refused(disk: SimulatedDisk) -> None:
    """No checkpoint is written if the items of a part would change meanwhile."""
    with state_on(disk, Composite(jobs=Table(), changing=Changing())) as state:
        put(state, "changing", ["a", 1])
        with pytest.raises(TypeError, match=r"Changing\.freeze returned"):
            state.compact()
        put(state, "jobs", ["a", 1])


class Failing(Table):
    """A machine whose `apply` refuses every record."""

    def apply(self, lsn: int, record: Any) -> None:
        raise ZeroDivisionError


def test_a_part_that_fails_leaves_no_record(disk: SimulatedDisk) -> None:
    """P3: If a part fails, no record of the batch is in the journal, not even those before it."""
    with state_on(disk, Composite(jobs=Table(), failing=Failing())) as state:
        with pytest.raises(ZeroDivisionError):
            state.update_batch(lambda c: [c.part("jobs", ["a", 1]), c.part("failing", 1)])
        with pytest.raises(FailedError):
            put(state, "jobs", ["b", 1])
    with state_on(disk, Composite(jobs=Table(), failing=Failing())) as state:
        assert decoded(state.machine) == []


@pytest.mark.parametrize("record", ["ab", ["jobs"], ["jobs", 1, 2], [["jobs"], 1], 5, {"jobs": 1}])
def test_a_record_of_no_part_is_refused(disk: SimulatedDisk, record: Any) -> None:
    """An open refuses a record that is not [part, record], which another program wrote."""
    with DurableState.open(PATH, Sink(), disk=disk) as state:
        state.update(lambda _: record)
    with pytest.raises(FormatVersionError):
        state_on(disk, Composite(jobs=Table()))


class Sink(Table):
    """A machine that takes any record."""

    def apply(self, lsn: int, record: Any) -> None:
        pass


@pytest.mark.parametrize(
    "line", ['["jobs"]', '["jobs",["a",1],["b",1]]', '["jobs",["a",1]}', '[["jobs"],1]', "5", "{}"]
)
def test_an_item_of_no_part_is_refused(disk: SimulatedDisk, line: str) -> None:
    """P9: another program wrote it, so an open does not guess."""
    application = Composite(jobs=Table()).application
    with open_on(disk, application=application) as journal:
        append(journal, ["jobs", ["a", 1]])
        items = [EncodedItems(line.encode(), 1)]
        journal.compact(lambda: (journal.last_lsn, items))
    with pytest.raises(FormatVersionError, match="load raised"):
        state_on(disk, Composite(jobs=Table()))
