"""Items: the agents in a checkpoint. Each item is an agent, a JSON object with the fields of Agent.

An item that an older manager wrote lacks the fields that are newer than it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from manager.agent import FIELDS, Row, get

_FIRST = FIELDS[: FIELDS.index("attempt")]  # the fields of the first version
_RARE = FIELDS[FIELDS.index("answer") :]
_first: Callable[[Mapping[str, Any]], Row] = itemgetter(*_FIRST)


def row_of(item: Mapping[str, Any]) -> Row:
    """Return the row of an item. Raise KeyError or TypeError if the item is not an agent."""
    row = _first(item)
    starts = item.get("starts", _least_starts(row))
    return (*row, item.get("attempt", 1), starts, *map(item.get, _RARE))


def item_of(boot_id: str, row: Row) -> dict[str, Any]:
    """Return the item of a row. `boot_id` is the latest session.

    Newer fields that have their first value are left out, so the items of a fleet that does not use
    them keep their bytes.
    """
    item = dict(zip(_FIRST, row, strict=False))
    if (attempt := get.attempt(row)) != 1:
        item["attempt"] = attempt
    if (starts := get.starts(row)) != _least_starts(row):
        item["starts"] = starts
    for name, value in zip(_RARE, row[-len(_RARE) :], strict=True):
        if value is not None:
            item[name] = value
    # Compaction removes the record of the session's boot, and readers need to know the session.
    item["from_prior_session"] = get.boot_id(row) != boot_id
    return item


def _least_starts(row: Row) -> int:
    return int(get.started_at_ms(row) is not None)
