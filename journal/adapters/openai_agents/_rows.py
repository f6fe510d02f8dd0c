"""The tables of all sessions, and the rows that they have.

    sessions  session            an Extent
    items     (session, number)  JSON texts of consecutive items, the oldest first
    removals  session            None: a removal has rows left

The rows from `first` to before `end` have the session's items. Those from `oldest` to before
`first` were removed with one write, and are being deleted. A session without items has no row in
`sessions`, once that is done. Every change writes that row, so one of two changes at the same time
conflicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, cast

from journal import Tables, Transaction
from journal.adapters._strings import plain
from journal.adapters._tables import checked

# A long list that is added at once takes few rows. A pop writes the rest of its row again, so
# several items share a row only if they have at most this number of characters.
_ITEMS_A_ROW, _ROW_CHARS = 64, 1 << 20
# A longer list has more items a row, so that a transaction can write all rows. The first pop of
# such a row splits it.
_ROWS_A_LIST = 256
ROWS_A_SLICE = 200  # of a removal that takes several transactions
_PREFIX = "openai_agents."


class Extent(NamedTuple):
    """The numbers of the rows of a session."""

    begun: int  # the LSN before its row in `sessions` was inserted; it differs after a deletion
    oldest: int
    first: int
    end: int


class SessionRows:
    """The rows of one session."""

    def __init__(self, tables: Tables, session: str) -> None:
        self.session = plain(session)
        self._tables = checked(tables)
        self._sessions = tables.table(_PREFIX + "sessions")
        self._items = tables.table(_PREFIX + "items")
        self._removals = tables.table(_PREFIX + "removals")

    def extent(self, t: Transaction) -> Extent:
        """Return the extent of the session."""
        found = t[self._sessions].get(self.session)
        return Extent(*found) if found else Extent(self._tables.journal.last_lsn, 0, 0, 0)

    def set_extent(self, t: Transaction, extent: Extent) -> None:
        """Write the extent of the session, and delete rows that are before it now."""
        t[self._sessions][self.session] = list(extent)
        if extent.oldest < extent.first or extent.first == extent.end:
            self.delete_some(t)

    def delete_some(self, t: Transaction) -> bool:
        """Delete a slice of the rows that were removed. Return whether there are more.

        The last slice deletes the session's own row, too, if it has no items.
        """
        extent = self.extent(t)
        reached = min(extent.first, extent.oldest + ROWS_A_SLICE)
        for number in range(extent.oldest, reached):
            self.delete(t, number)
        if reached < extent.end:
            t[self._sessions][self.session] = list(extent._replace(oldest=reached))
        if reached < extent.first:
            t[self._removals][self.session] = None
            return True
        if self.session in t[self._removals]:
            t[self._removals].delete(self.session)
        if reached == extent.end and self.session in t[self._sessions]:
            t[self._sessions].delete(self.session)
        return False

    def is_being_removed(self) -> bool:
        """Return whether a removal has rows left."""
        return self.session in self._removals

    def read(self, t: Transaction, number: int) -> list[str]:
        """Return the texts of a row."""
        return list(t[self._items][self.session, number])

    def peek(self, number: int) -> list[str]:
        """Return the texts of a row without the transaction, of whose keys it takes none.

        Only for a transaction that has read the extent, and has not written the row. Every change
        of a row writes the extent, so the transaction conflicts if the row has changed since.
        """
        return list(self._items[self.session, number])

    def write(self, t: Transaction, number: int, texts: list[str]) -> int:
        """Write rows of items from `number` on. Return the number after the last one."""
        for some in _rows_of(texts):
            t[self._items][self.session, number] = some
            number += 1
        return number

    def delete(self, t: Transaction, number: int) -> None:
        """Delete a row of items."""
        t[self._items].delete((self.session, number))

    def newest(self, limit: int | None) -> tuple[list[str], int]:
        """Return the texts of the newest items, all without a limit, and the end of the rows.

        The oldest item comes first.
        """
        while (row := self._sessions.get(self.session)) is not None:
            extent, found, end = Extent(*row), list[str](), 0
            for number, texts in self._newest_first():
                if number < extent.first or (limit is not None and len(found) >= limit):
                    break
                end = end or number + 1
                found += reversed(texts)
            # The rows are of one moment. `first` was the same then if it is the same afterwards.
            after = Extent(*self._sessions.get(self.session, (-1, 0, 0, 0)))
            if (after.begun, after.first) == (extent.begun, extent.first):
                return found[:limit][::-1], end
        return [], 0

    def _newest_first(self) -> Iterator[tuple[int, list[str]]]:
        rows = self._items.prefix((self.session,), reverse=True)
        for (_, number), texts in cast("Iterator[tuple[tuple[str, int], list[str]]]", rows):
            yield number, texts


def _rows_of(texts: list[str]) -> Iterator[list[str]]:
    """Yield the texts of each row."""
    items = max(_ITEMS_A_ROW, -(-len(texts) // _ROWS_A_LIST))
    some: list[str] = []
    chars = 0
    for text in texts:
        if some and (len(some) == items or chars + len(text) > _ROW_CHARS):
            yield some
            some, chars = [], 0
        some.append(text)
        chars += len(text)
    if some:
        yield some


def interrupted(tables: Tables) -> list[SessionRows]:
    """Return the sessions with a removal that has rows left."""
    found = cast("Iterator[str]", iter(tables.table(_PREFIX + "removals")))
    return [SessionRows(tables, session) for session in found]
