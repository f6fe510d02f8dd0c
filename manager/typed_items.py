"""Typed items: decodes agents of a checkpoint with msgspec, without a dict for each.

msgspec checks the types, too. With dicts, an open of 100,000 agents takes a third longer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Annotated, Any, NamedTuple, get_type_hints

from manager.agent import ENDED, EXTRA_FIELDS, ROW_FIELDS, STARTED_ONCE, Row, Status
from manager.bulk_checks import are_valid
from manager.columns import AGENT_ID, EXTRAS, NAME, STARTED_AT_MS, STATUS
from manager.items import FIRST, SESSION, with_newer
from manager.layouts import Import

_ENDED = frozenset(ENDED)
_COLUMNS = (*ROW_FIELDS, SESSION, *EXTRA_FIELDS)
_HINTS: dict[str, Any] = {
    **dict.fromkeys(_COLUMNS, Any),
    **get_type_hints(Import),  # a record with most fields of a row
    "status": Status,
    "lsn": int,
    "taken_by": str | None,
    "taken_at_ms": int | None,
    "attempt": Any,
}


class Agents(NamedTuple):
    """Agents of a checkpoint."""

    rows: list[Row]
    """Their rows."""

    columns: list[tuple[Any, ...]]
    """The values of the rows, by field."""

    are_prior: Sequence[Any]
    """The values of `from_prior_session` in their items."""

    @property
    def are_ended(self) -> bool:
        """True if all of them have ended, and none has a name."""
        are_unnamed = self.columns[NAME] == self.columns[AGENT_ID]
        return are_unnamed and _ENDED.issuperset(self.columns[STATUS])


def decoded(text: str, count: int) -> Agents | None:
    """Return the agents in a JSON array of `count` items, whose fields are valid.

    Return None if an item is not an agent, or may not be valid. msgspec must be installed.
    """
    agents = _decoder()(text)
    if agents is None or len(agents.rows) != count:
        return None
    return agents if are_valid(agents.rows, agents.columns, have_valid_types=True) else None


@cache
def _decoder() -> Callable[[str], Agents | None]:
    from msgspec import UNSET, Meta, MsgspecError, defstruct
    from msgspec.json import Decoder
    from msgspec.structs import astuple

    whole = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]  # msgspec takes no larger limit
    types = {int: whole, int | None: whole | None}
    defaults: dict[str, Any] = dict.fromkeys(_COLUMNS, UNSET)
    defaults |= dict.fromkeys(("taken_by", "taken_at_ms", SESSION))
    defaults["extras"] = STARTED_ONCE  # no value in JSON is equal to this tuple
    fields: list[Any] = [(name, types.get(_HINTS[name], _HINTS[name])) for name in _COLUMNS]
    fields[len(FIRST) :] = [(*field, defaults[field[0]]) for field in fields[len(FIRST) :]]
    decode = Decoder(list[defstruct("Item", fields, gc=False)]).decode  # type: ignore[misc]
    size = len(ROW_FIELDS)

    def row_of(values: tuple[Any, ...]) -> Row:
        newer = zip(_COLUMNS[len(FIRST) :], values[len(FIRST) :], strict=True)
        return with_newer(values[: len(FIRST)], {k: v for k, v in newer if v is not UNSET})

    def agents_of(text: str) -> Agents | None:
        try:
            items = [*map(astuple, decode(text))]
        except (MsgspecError, RecursionError):
            return None
        if not items:
            return None
        columns = [*zip(*items, strict=True)]
        are_prior, *extras = columns[size:]
        if (
            None in columns[STARTED_AT_MS]
            or columns[EXTRAS].count(STARTED_ONCE) < len(items)
            or any(column.count(UNSET) < len(items) for column in extras)
        ):
            rows = [*map(row_of, items)]
            columns = [*zip(*rows, strict=True)]
        else:
            rows = [item[:size] for item in items]
        return Agents(rows, columns[:size], are_prior)

    return agents_of
