"""The tables of conversations, and the rows that they have.

    records   conversation                              a RecordRow
    by_time   (*position)                               None
    by_scope  (scope, *position)                        None
    entries   entry                                     an EntryRow
    counts    entry                                     the number of references, if two or more
    unused    entry                                     None: no reference is left
    deleted   (conversation, revision)                  entries to which a deleted record refers

A record refers to the last entries of its history and its branches, and an entry to the one before
it. Most entries have one reference, and no row in `counts`. One that has none is deleted after the
next deletion of any conversation, as in Pydantic AI's own store, or after the first change by a new
store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeAlias

from journal import Tables, Transaction
from journal.adapters._strings import plain
from journal.adapters._tables import checked

Position: TypeAlias = tuple[int, int, str]
"""The time of the last save in Unix microseconds, the negative LSN before the conversation was
inserted, and the conversation. Lists begin with the greatest."""

_SLICE = 100  # references or entries that a transaction of a removal deletes
_PREFIX = "pydantic_ai."
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class RecordRow(NamedTuple):
    """A record, and what lists and references need of it."""

    revision: str
    updated_us: int
    begun: int  # the LSN before the conversation was inserted
    scope: str | None
    ends: list[str]  # the last entries of its history and its branches
    data: bytes


class EntryRow(NamedTuple):
    """An entry."""

    parent: str | None
    kind: str
    data: bytes  # JSON: a list of its message


class ConversationTables:
    """The tables of conversations in a journal."""

    def __init__(self, tables: Tables) -> None:
        self.tables = checked(tables)
        self._records = tables.table(_PREFIX + "records")
        self._by_time = tables.table(_PREFIX + "by_time")
        self._by_scope = tables.table(_PREFIX + "by_scope")
        self._entries = tables.table(_PREFIX + "entries")
        self._counts = tables.table(_PREFIX + "counts")
        self._unused = tables.table(_PREFIX + "unused")
        self._deleted = tables.table(_PREFIX + "deleted")

    def record(self, conversation: str, t: Transaction | None = None) -> RecordRow | None:
        """Return a record, in a transaction if there is one, or None."""
        rows: Any = self._records if t is None else t[self._records]
        found = rows.get(plain(conversation))
        return None if found is None else RecordRow(*found)

    def entry(self, entry: str, t: Transaction | None = None) -> EntryRow | None:
        """Return an entry, in a transaction if there is one, or None."""
        rows: Any = self._entries if t is None else t[self._entries]
        found = rows.get(entry)
        return None if found is None else EntryRow(*found)

    def positions(self, scope: str | None) -> Iterator[Position]:
        """Yield the positions of the conversations of a scope, or of all, in the order of lists."""
        rows: Iterator[tuple[Any, Any]] = (
            self._by_time.range(reverse=True)
            if scope is None
            else self._by_scope.prefix((plain(scope),), reverse=True)
        )
        for key, _ in rows:
            yield key[-3:]

    def write(
        self,
        t: Transaction,
        conversation: str,
        new: RecordRow,
        old: RecordRow | None,
        entries: dict[str, EntryRow],
    ) -> None:
        """Write new entries, and a record in the place of `old`. Its `begun` is ignored."""
        conversation = plain(conversation)
        changes: Counter[str] = Counter(new.ends)
        changes.subtract(old.ends if old else ())
        for entry, row in entries.items():
            replaced = self.entry(entry, t)
            if replaced is None:
                changes[entry] -= 1  # an entry without a row in `counts` has one
            elif replaced.parent is not None:
                changes[replaced.parent] -= 1
            if row.parent is not None:
                changes[row.parent] += 1
            t[self._entries][entry] = list(row)
        self._count(t, changes)
        new = new._replace(begun=old.begun if old else self.tables.journal.last_lsn)
        for table, key in self._places(conversation, old) if old else ():
            t[table].delete(key)
        for table, key in self._places(conversation, new):
            t[table][key] = None
        t[self._records][conversation] = list(new)

    def delete(self, t: Transaction, conversation: str, old: RecordRow) -> None:
        """Delete a record. `forget` and `release` delete its entries."""
        conversation = plain(conversation)
        t[self._records].delete(conversation)
        for table, key in self._places(conversation, old):
            t[table].delete(key)
        deleted, key = t[self._deleted], (conversation, old.revision)
        deleted[key] = [*deleted.get(key, ()), *old.ends]

    def deleted(self) -> list[Any]:
        """Return the keys of the deleted records whose references are still counted."""
        return list(self._deleted)

    def forget(self, t: Transaction, key: Any) -> bool:
        """Remove a slice of the references of a deleted record. Return whether there are more."""
        ends = t[self._deleted].get(key, [])
        self._count(t, Counter(dict.fromkeys(ends[:_SLICE], -1)))
        if len(ends) > _SLICE:
            t[self._deleted][key] = ends[_SLICE:]
        elif ends or key in t[self._deleted]:
            t[self._deleted].delete(key)
        return len(ends) > _SLICE

    def unused(self) -> list[Any]:
        """Return the entries to which nothing refers."""
        return list(self._unused)

    def release(self, t: Transaction, entry: str) -> str | None:
        """Delete an unused entry, and those before it to which nothing else refers.

        After a slice of them, return the next one, which is unused then.
        """
        if entry not in t[self._unused]:
            return None
        t[self._unused].delete(entry)
        current: str = entry
        for _ in range(_SLICE):
            row = self.entry(current, t)
            if row is None:
                return None
            t[self._entries].delete(current)
            if row.parent is None or row.parent not in t[self._entries]:
                return None
            current = row.parent
            if t[self._counts].get(current, 1) > 1:
                self._count(t, Counter({current: -1}))
                return None
        t[self._unused][current] = None
        return current

    def _count(self, t: Transaction, changes: Counter[str]) -> None:
        """Change the numbers of references to entries. Those to missing entries don't count."""
        counts, unused = t[self._counts], t[self._unused]
        for entry, change in changes.items():
            if not change or entry not in t[self._entries]:
                continue
            before = 0 if entry in unused else counts.get(entry, 1)
            after = before + change
            if before == 0:
                unused.delete(entry)
            if after == 0:
                unused[entry] = None
            if after > 1:
                counts[entry] = after
            elif before > 1:
                counts.delete(entry)

    def _places(self, conversation: str, row: RecordRow) -> Iterable[tuple[Any, Any]]:
        """Return the tables of lists that have a record, with its keys there."""
        position = (row.updated_us, -row.begun, conversation)
        yield self._by_time, position
        if row.scope is not None:
            yield self._by_scope, (row.scope, *position)


def microseconds(moment: datetime) -> int:
    """Return Unix microseconds. A time without a zone counts as a local one."""
    return (moment.astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)
