"""Bulk replay: it makes the same fleet as the fleet's own `apply`, and refuses the same records."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from journal import FormatVersionError
from manager.bulk_replay import BulkReplay
from manager.fleet import Fleet
from manager.layouts import Record
from manager.values import INT_MAX

IDS = [f"agent_{number:012x}" for number in range(3)]
AGENTS = st.sampled_from([*IDS, IDS[0], IDS[0]])
NUMBERS = st.sampled_from([0, 0, 1, 7, INT_MAX])
WRONG: st.SearchStrategy[Any] = st.sampled_from([None, True, -1, 1.5, "x", []])
STEPS = st.one_of(
    st.tuples(st.just("usage"), AGENTS, NUMBERS, NUMBERS, NUMBERS),
    st.tuples(st.just("checkpoint"), AGENTS, NUMBERS, st.sampled_from([None, {"a": 1}]), NUMBERS),
    st.tuples(st.just("budget"), AGENTS, NUMBERS, st.sampled_from([None, 5])),
    st.tuples(st.just("cancel"), AGENTS, NUMBERS, st.none()),
    st.tuples(st.just("interrupt"), AGENTS, NUMBERS, st.just("why"), st.none(), st.none()),
    st.tuples(st.just("resume"), AGENTS, NUMBERS, st.just("boot")),
    st.tuples(st.just("remove"), AGENTS),
).map(list)
MISTAKES = st.one_of(
    st.tuples(STEPS, st.integers(0, 5), WRONG).map(
        lambda mistake: [*mistake[0][: mistake[1]], mistake[2], *mistake[0][mistake[1] + 1 :]]
    ),
    st.tuples(STEPS, WRONG).map(lambda mistake: [*mistake[0], mistake[1]]),
    WRONG,
)


def _spawn(number: int, parent: int | None) -> Record:
    parent_id, depth = (None, 0) if parent is None else (IDS[parent], parent + 1)
    head = ["spawn", IDS[number], 1, "boot", parent_id, depth, "running", None]
    return [*head, "general", None, None, "prompt", None, None, {}]


BEGINNING: list[Record] = [
    ["boot", Fleet.application, "boot", 1, 1],
    *(_spawn(number, number - 1 if number else None) for number in range(3)),
]


def _applied(records: list[Record]) -> tuple[Any, ...]:
    """Return the fleet that its own `apply` makes, and the error."""
    fleet, lsn = Fleet(), 0
    try:
        for lsn, record in enumerate(records, 1):
            fleet.apply(lsn, record)
    except Exception as error:
        return lsn, type(error), str(error)
    return [*fleet.rows.items()], fleet.counts, fleet.boot_id


def _replayed(records: list[Record], cuts: int) -> tuple[Any, ...]:
    """Return what `_applied` does, of a bulk replay in runs of `cuts` records."""

    def refuse(lsn: int, error: Exception) -> Exception:
        refused.append(lsn)
        return error

    fleet, refused = Fleet(), list[int]()
    replay = BulkReplay(fleet, refuse)
    try:
        for begin in range(0, len(records), cuts):
            replay.apply(begin + 1, records[begin : begin + cuts])
    except Exception as error:
        return refused[0], type(error), str(error)
    replay.finish()
    assert fleet.feed is None
    return [*fleet.rows.items()], fleet.counts, fleet.boot_id


@example([["usage", IDS[0], 1, 7, 0], *([["usage", IDS[1], 1, INT_MAX, 1]] * 2)], 40)
@given(st.lists(STEPS, max_size=30), st.integers(1, 40))
def test_a_bulk_replay_makes_the_fleet_that_apply_makes(steps: list[Record], cuts: int) -> None:
    """P9: A bulk replay makes the same rows, counts and session as the fleet's own `apply`."""
    records: list[Record] = [*BEGINNING]
    for step in steps:  # leave out those that the fleet refuses
        if isinstance(_applied([*records, step])[0], list):
            records.append(step)
    assert _replayed(records, cuts) == _applied(records)


@example([["cancel", IDS[0], 1, None]], ["checkpoint", IDS[0], 1, None, 1])
@given(st.lists(STEPS, max_size=6), MISTAKES)
def test_a_bulk_replay_refuses_what_apply_refuses(steps: list[Record], wrong: Record) -> None:
    """P9: A record that `apply` refuses is refused with the same LSN and the same words."""
    records = [*BEGINNING, *steps, wrong]
    assert _replayed(records, 3) == _applied(records)


def test_a_first_record_is_checked_with_the_items_before_it() -> None:
    """P9: An item with a higher LSN than its checkpoint is refused before a record is applied."""
    fleet = Fleet()
    fleet.load({**_item(), "lsn": 9})
    replay = BulkReplay(fleet, lambda lsn, error: error)
    with pytest.raises(FormatVersionError, match="lsn is higher than the checkpoint's"):
        replay.apply(5, [["usage", IDS[0], 1, 1, 1]])


def _item() -> dict[str, Any]:
    fleet = Fleet()
    for lsn, record in enumerate(BEGINNING[:2], 1):
        fleet.apply(lsn, record)
    [item] = fleet.freeze()
    return dict(item)
