"""The tables of A2A tasks, and the rows that they have.

    tasks       (owner, task)                  a TaskRow
    by_time     (owner, *time, task)           [context, state]
    by_context  (owner, context, *time, task)  [context, state]

`time` is the time of a task's status, in the order of lists: whether it has one, seconds, and
nanoseconds. One transaction writes a task and its places in the two lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

from a2a.types.a2a_pb2 import Task

from journal import Tables, Transaction
from journal.adapters._tables import checked

Time: TypeAlias = tuple[int, int, int]
Position: TypeAlias = tuple[int, int, int, str]
"""The place of a task in a list: its time and its id. Lists begin with the greatest."""

_PREFIX = "a2a."
_NS_A_SECOND = 1_000_000_000


class TaskRow(NamedTuple):
    """A task, and what lists show of it."""

    version: int
    time: Time
    context: str
    state: int
    data: bytes


class TaskTables:
    """The tables of tasks in a journal."""

    def __init__(self, tables: Tables) -> None:
        self._tables = checked(tables)
        self._tasks = tables.table(_PREFIX + "tasks")
        self._by_time = tables.table(_PREFIX + "by_time")
        self._by_context = tables.table(_PREFIX + "by_context")

    def row(self, owner: str, task_id: str, t: Transaction | None = None) -> TaskRow | None:
        """Return a task of an owner, in a transaction if there is one, or None."""
        rows: Any = self._tasks if t is None else t[self._tasks]
        found = rows.get((owner, task_id))
        return None if found is None else TaskRow(*found)

    def write(self, t: Transaction, owner: str, task_id: str, row: TaskRow) -> int:
        """Write a task. Return its version, which no task of its id had."""
        old = self.row(owner, task_id, t)
        version = max(self._tables.journal.last_lsn, old.version if old else 0) + 1
        t[self._tasks][owner, task_id] = [version, list(row.time), *row[2:]]
        keys = _keys(owner, task_id, row)
        for table, key, old_key in zip(
            self._lists, keys, _keys(owner, task_id, old) if old else keys, strict=True
        ):
            if old and old_key != key:
                t[table].delete(old_key)
            t[table][key] = [row.context, row.state]
        return version

    def delete(self, t: Transaction, owner: str, task_id: str) -> bool:
        """Delete a task. Return whether it was there."""
        row = self.row(owner, task_id, t)
        if row is None:
            return False
        t[self._tasks].delete((owner, task_id))
        for table, key in zip(self._lists, _keys(owner, task_id, row), strict=True):
            t[table].delete(key)
        return True

    def positions(self, owner: str, context: str, state: int) -> Iterator[Position]:
        """Yield the positions of an owner's tasks, in the order of lists.

        An empty context and a state of 0 match all tasks.
        """
        prefix = (owner, context) if context else (owner,)
        table = self._by_context if context else self._by_time
        rows: Iterator[tuple[Any, Any]] = table.prefix(prefix, reverse=True)
        for key, (_, other_state) in rows:
            if not state or state == other_state:
                yield key[len(prefix) :]

    @property
    def _lists(self) -> tuple[Any, Any]:
        """The tables of the two lists."""
        return self._by_time, self._by_context


def time_of_ns(nanoseconds: int | None) -> Time:
    """Return a time in Unix nanoseconds, or None, in the order of lists."""
    return (0, 0, 0) if nanoseconds is None else (1, *divmod(nanoseconds, _NS_A_SECOND))


def ns_of_time(time: tuple[int, ...]) -> int | None:
    """Return a time in Unix nanoseconds, or None if there is none."""
    return time[1] * _NS_A_SECOND + time[2] if time[0] else None


def row_of(task: Task) -> TaskRow:
    """Return the row of a task that has no version yet. The caller may change the task later."""
    has_time = task.HasField("status") and task.status.HasField("timestamp")
    time = time_of_ns(task.status.timestamp.ToNanoseconds() if has_time else None)
    return TaskRow(0, time, task.context_id, task.status.state, task.SerializeToString())


def _keys(owner: str, task_id: str, row: TaskRow) -> tuple[Any, Any]:
    """Return the keys of a task in the two lists."""
    return (owner, *row.time, task_id), (owner, row.context, *row.time, task_id)
