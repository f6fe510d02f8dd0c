"""Checks: what was recovered is what a manager wrote, before anybody relies on it.

A record with a right checksum may still be nobody's: of a field with another type listings would
end in a TypeError, and no checkpoint could be written of what JSON can't carry.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from functools import lru_cache

from journal import FormatVersionError
from manager.agent import (
    AGENT_ID,
    ALLOWED_TOOLS,
    CHECKPOINT,
    FIELDS,
    METADATA,
    NEEDS_INPUT,
    Agent,
    Row,
)
from manager.records import json_value

_KINDS: dict[object, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int": (int,),
    "int | None": (int, type(None)),
    "Status": (str,),
    "tuple[str, ...] | None": (list, type(None)),
    "dict[str, JSON]": (dict,),
    "JSON": (type(None), bool, int, float, str, list, dict),
}
_ALLOWED = [_KINDS[field.type] for field in fields(Agent) if field.name in FIELDS]
_NESTED = {at: FIELDS[at] for at in (CHECKPOINT, NEEDS_INPUT, ALLOWED_TOOLS, METADATA)}


def check_rows(rows: Iterable[Row]) -> None:
    """Raise FormatVersionError for a field that no manager gives such a value."""
    for row in rows:
        try:
            _check_kinds(tuple(map(type, row)))
            for at, name in _NESTED.items():
                if row[at]:
                    json_value(name, row[at])
        except (TypeError, ValueError) as error:
            raise FormatVersionError(
                f"agent {str(row[AGENT_ID])[:80]!r}: {error!s:.200}; "
                "open it with the version that wrote it"
            ) from error


@lru_cache
def _check_kinds(kinds: tuple[type, ...]) -> None:
    for name, kind, allowed in zip(FIELDS, kinds, _ALLOWED, strict=True):
        if kind not in allowed:
            raise TypeError(f"{name} is of type {kind.__name__}")
