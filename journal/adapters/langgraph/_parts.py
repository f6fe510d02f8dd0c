"""Values and writes that are too large for one row: its first part is there, and the others have
rows of their own.

A key of the table of parts is the owner of the parts, and the number of the part.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from journal import Transaction
from journal.adapters.langgraph._rows import Place, SaverTables, Typed

PART_BYTES = 1 << 26  # a row holds at most four times as many
Owner: TypeAlias = tuple[str | int, ...]


def owner_of_value(place: Place, channel: str, reference: str) -> Owner:
    return (*place, "value", channel, reference)


def owner_of_write(place: Place, checkpoint_id: str, task: str, index: int) -> Owner:
    return (*place, "write", checkpoint_id, task, index)


def write_parts(
    t: Transaction, saved: SaverTables, owner: Owner, data: bytes
) -> tuple[bytes] | tuple[bytes, int]:
    """Write all parts of `data` but the first, in the place of those that the owner has had.

    Return the first part, and after it the number of the others, if there are any.
    """
    delete_parts(t, saved, owner)
    starts = range(PART_BYTES, len(data), PART_BYTES)
    for number, start in enumerate(starts):
        t[saved.parts][(*owner, number)] = data[start : start + PART_BYTES]
    return (data[:PART_BYTES], len(starts)) if starts else (data,)


def joined(saved: SaverTables, owner: Owner, first: bytes, count: int = 0) -> bytes | None:
    """Return the data of the first part and `count` others, or None if one was removed."""
    if not count:
        return first
    parts = [saved.parts.get((*owner, number)) for number in range(count)]
    return None if None in parts else b"".join([first, *parts])


def delete_parts(t: Transaction, saved: SaverTables, owner: Owner) -> None:
    if not saved.parts:  # most savers have none; without this, a superstep takes 14 us more
        return
    number = 0
    while (*owner, number) in saved.parts:
        t[saved.parts].delete((*owner, number))
        number += 1


def value(saved: SaverTables, place: Place, channel: str, reference: str) -> Typed | None:
    """Return a stored value, or None if it or a part of it was removed."""
    row: Any = saved.values.get((*place, channel, reference))
    if row is None:
        return None
    kind, *parts = row
    data = joined(saved, owner_of_value(place, channel, reference), *parts)
    return None if data is None else (kind, data)
