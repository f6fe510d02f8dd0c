"""Items: the agents in a checkpoint. Each item is an agent, a JSON object with the fields of Agent.

An item that an older manager wrote lacks the fields that are newer than it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any

from manager.agent import FIELDS, NEVER_STARTED, STARTED_ONCE, Row, extras, get
from manager.columns import BOOT_ID, EXTRAS, STARTED_AT_MS, TAKEN_BY

FIRST = FIELDS[: FIELDS.index("attempt")]  # the fields of the first version
SESSION = "from_prior_session"
_first: Callable[[Mapping[str, Any]], Row] = itemgetter(*FIRST)


def row_of(item: Mapping[str, Any]) -> Row:
    """Return the row of an item. Raises KeyError or TypeError if the item is not an agent."""
    has_newer = len(item) != len(FIRST) + 1 or SESSION not in item
    return with_newer(_first(item), item if has_newer else {})


def with_newer(first: Row, newer: Mapping[str, Any]) -> Row:
    """Return the row of an agent with the values `first` of the fields FIRST. `newer` may have
    values of the other ones."""
    least = NEVER_STARTED if first[STARTED_AT_MS] is None else STARTED_ONCE
    if not newer:
        return (*first, None, None, least)
    attempt, starts = newer.get("attempt", 1), newer.get("starts", int(least is STARTED_ONCE))
    others = newer.get("answer"), newer.get("progress"), newer.get("lease")
    more = extras(attempt, starts) if others == (None, None, None) else (attempt, starts, *others)
    return (*first, newer.get("taken_by"), newer.get("taken_at_ms"), more)


def item_of(boot_id: str, row: Row) -> dict[str, Any]:
    """Return the item of a row. `boot_id` is the latest session.

    Newer fields that have their first value are left out, so the items of a fleet that does not use
    them keep their bytes.
    """
    item = dict(zip(FIRST, row, strict=False))
    least = NEVER_STARTED if row[STARTED_AT_MS] is None else STARTED_ONCE
    if row[EXTRAS] is not least or row[TAKEN_BY] is not None:
        _add_newer(item, row, int(least is STARTED_ONCE))
    # Compaction removes the record of the session's boot, and readers need to know the session.
    item[SESSION] = row[BOOT_ID] != boot_id
    return item


def _add_newer(item: dict[str, Any], row: Row, least_starts: int) -> None:
    """Add the newer fields of a row that do not have their first value, in the order of an Agent's
    fields."""
    attempt, starts, answer, progress, lease = row[EXTRAS]
    if attempt != 1:
        item["attempt"] = attempt
    if starts != least_starts:
        item["starts"] = starts
    newer = {
        "answer": answer,
        "taken_by": get.taken_by(row),
        "taken_at_ms": get.taken_at_ms(row),
        "progress": progress,
        "lease": lease,
    }
    item |= {name: value for name, value in newer.items() if value is not None}
