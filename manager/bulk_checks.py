"""Bulk checks: checks the agents of a checkpoint together, in half the time of `check_row`."""

from __future__ import annotations

from functools import reduce
from itertools import chain
from operator import or_
from typing import Any

from manager.agent import ENDED, NEVER_STARTED, ROW_FIELDS, STARTED_ONCE, STATUSES, Row
from manager.checks import (
    ALLOWED,
    NUMBERS,
    TEXTS,
    check_extras,
    check_given,
    check_names,
    check_progress,
    is_plain,
)
from manager.columns import (
    AGENT_ID,
    ALLOWED_TOOLS,
    CHECKPOINT,
    ENDED_AT_MS,
    EXTRAS,
    METADATA,
    NAME,
    NEEDS_INPUT,
    STATUS,
    TAKEN_AT_MS,
    TAKEN_BY,
    TOKEN_BUDGET,
)
from manager.values import NAME_BYTES_MAX, json_value

_ALLOWED_SETS = [*map(frozenset, ALLOWED)]
_ALWAYS_TEXTS = [at for at in TEXTS if type(None) not in ALLOWED[at]]
_SOMETIMES_TEXTS = [at for at in TEXTS if type(None) in ALLOWED[at]]
_STATUSES = frozenset(STATUSES)
_COMMON_EXTRAS = frozenset((id(STARTED_ONCE), id(NEVER_STARTED)))


def are_valid(
    rows: list[Row], columns: list[tuple[Any, ...]], *, have_valid_types: bool = False
) -> bool:
    """Return whether `check_row`, `check_texts` and `check_progress` accept each of these rows.

    False may also mean that only they can tell. Many rows together take half of their time.
    `columns` are the values of the rows, by field. `have_valid_types`: the types of all values but
    the extras are valid, and so are the ranges of the numbers, and the texts can be encoded.
    """
    try:
        are_typed = have_valid_types or (_are_typed(columns) and _are_in_range(columns))
        return are_typed and _are_consistent(columns, rows)
    except (TypeError, ValueError):
        return False


def _are_typed(columns: list[tuple[Any, ...]]) -> bool:
    """Return whether the fields have allowed types. Those that are always texts are not checked
    here: joining texts of other types raises TypeError."""
    for at, column in enumerate(columns):
        if column[0] is None and column.count(None) == len(column):
            if type(None) not in ALLOWED[at]:
                return False
        elif at not in _ALWAYS_TEXTS and not _ALLOWED_SETS[at].issuperset(map(type, column)):
            return False
    return True


def _are_in_range(columns: list[tuple[Any, ...]]) -> bool:
    """Return whether numbers and texts of valid types are valid. May raise TypeError or ValueError
    instead of returning False."""
    texts = "".join(filter(None, chain(*map(columns.__getitem__, _SOMETIMES_TEXTS))))
    texts += "".join(chain(*map(columns.__getitem__, _ALWAYS_TEXTS)))
    texts.encode()  # raises ValueError for half a surrogate pair
    numbers = reduce(or_, filter(None, chain(*map(columns.__getitem__, NUMBERS))), 0)
    return not numbers >> 64


def _are_consistent(columns: list[tuple[Any, ...]], rows: list[Row]) -> bool:
    """Return what `are_valid` does for fields of valid types and ranges. May raise TypeError or
    ValueError instead of returning False."""
    if 0 in columns[TOKEN_BUDGET]:  # see `check_row`
        return False
    if columns[NAME] != columns[AGENT_ID]:
        for agent_id, name in zip(columns[AGENT_ID], columns[NAME], strict=True):
            check_names(agent_id, name)
    if not _COMMON_EXTRAS.issuperset(map(id, columns[EXTRAS])):
        for row in rows:
            check_extras(row[EXTRAS])
            check_progress(row)
    for tools in filter(None, columns[ALLOWED_TOOLS]):
        check_given(tools, {})
    lengths = [*map(len, columns[AGENT_ID])]
    statuses, ended, taken = columns[STATUS], columns[ENDED_AT_MS], columns[TAKEN_AT_MS]
    for at in (CHECKPOINT, NEEDS_INPUT, METADATA):
        for value in filter(None, columns[at]):
            if not is_plain(value):
                json_value(ROW_FIELDS[at], value)  # raises if it is not JSON
    return (
        min(lengths) > 0
        and max(lengths) <= NAME_BYTES_MAX // 4
        and _STATUSES.issuperset(statuses)
        and [status in ENDED for status in statuses] == [at is not None for at in ended]
        and [by is None for by in columns[TAKEN_BY]] == [at is None for at in taken]
        and all(end is not None or at is None for end, at in zip(ended, taken, strict=True))
    )
