"""Items: the agents in a checkpoint. Each item is an agent, a JSON object with the fields of Agent.

An item that an older manager wrote lacks the fields that are newer than it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from manager.agent import FIELDS, Row, get

_FIRST = FIELDS[: FIELDS.index("attempt")]  # the fields of the first version
_RARE = FIELDS[FIELDS.index("answer") :]  # fields that are None for most agents, and then left out
_ALWAYS = FIELDS[: -len(_RARE)]
_first: Callable[[Mapping[str, Any]], Row] = itemgetter(*_FIRST)
_always: Callable[[Mapping[str, Any]], Row] = itemgetter(*_ALWAYS)


def row_of(item: Mapping[str, Any]) -> Row:
    """Return the row of an item. Raise KeyError or TypeError if the item is not an agent."""
    try:
        row = _always(item)
    except KeyError:
        row = _first(item)
        has_begun = item["started_at_ms"] is not None
        row = (*row, item.get("attempt", 1), item.get("starts", int(has_begun)))
    return (*row, *map(item.get, _RARE))


def item_of(boot_id: str, row: Row) -> dict[str, Any]:
    """Return the item of a row. `boot_id` is the latest session."""
    item = dict(zip(_ALWAYS, row, strict=False))
    for name, value in zip(_RARE, row[-len(_RARE) :], strict=True):
        if value is not None:
            item[name] = value
    # Compaction removes the record of the session's boot, and readers need to know the session.
    item["from_prior_session"] = get.boot_id(row) != boot_id
    return item
