"""Items: the agents in a checkpoint. Each item is an agent, a JSON object with the fields of Agent.

An item that an older manager wrote lacks the fields that are newer than it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from manager.agent import FIELDS, Row, get

_FIRST = FIELDS[: FIELDS.index("attempt")]  # the fields of the first version
_first: Callable[[Mapping[str, Any]], Row] = itemgetter(*_FIRST)
_all: Callable[[Mapping[str, Any]], Row] = itemgetter(*FIELDS)


def row_of(item: Mapping[str, Any]) -> Row:
    """Return the row of an item. Raise KeyError or TypeError if the item is not an agent."""
    try:
        return _all(item)
    except KeyError:
        row = _first(item)
        has_begun = item["started_at_ms"] is not None
        return (*row, item.get("attempt", 1), item.get("starts", int(has_begun)))


def item_of(boot_id: str, row: Row) -> dict[str, Any]:
    """Return the item of a row. `boot_id` is the latest session."""
    item = dict(zip(FIELDS, row, strict=True))
    # Compaction removes the record of the session's boot, and readers need to know the session.
    item["from_prior_session"] = get.boot_id(row) != boot_id
    return item
