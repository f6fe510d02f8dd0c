"""JournalTaskStore and JournalVersionedTaskStore: tasks of A2A agents in a journal."""

from __future__ import annotations

from functools import partial
from typing import Any

from a2a.server.cluster.task_store import (
    ConcurrentTaskModificationError,
    StoredTask,
    VersionedTaskStore,
)
from a2a.server.cluster.version import TaskVersion
from a2a.server.context import ServerCallContext
from a2a.server.owner_resolver import OwnerResolver, resolve_user_scope
from a2a.server.tasks.task_store import TaskStore
from a2a.types.a2a_pb2 import ListTasksRequest, ListTasksResponse, Task, TaskState
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import InvalidParamsError
from a2a.utils.task import (
    ListTasksCursor,
    decode_list_tasks_cursor,
    decode_page_token,
    encode_list_tasks_cursor,
)

from journal import JournalError, Tables, Transaction
from journal.adapters._commits import acommit, durable
from journal.adapters._strings import plain
from journal.adapters.a2a._rows import (
    Position,
    TaskRow,
    TaskTables,
    ns_of_time,
    row_of,
    time_of_ns,
)

_TERMINAL = {
    TaskState.TASK_STATE_COMPLETED,
    TaskState.TASK_STATE_CANCELED,
    TaskState.TASK_STATE_FAILED,
    TaskState.TASK_STATE_REJECTED,
}

_ATTEMPTS = 100  # of a list, each after a change by another thread in the middle of it


class _Tasks:
    """The tasks of all owners, for both stores."""

    def __init__(self, tables: Tables, owner_resolver: OwnerResolver) -> None:
        self.tables = tables
        self.rows = TaskTables(tables)
        self._owner_resolver = owner_resolver

    def owner_of(self, context: ServerCallContext) -> str:
        owner: str = self._owner_resolver(context)
        return plain(owner)

    async def save(
        self, task: Task, prev_version: TaskVersion | None, context: ServerCallContext
    ) -> TaskVersion:
        """Write a task, and wait until it survives a crash. Return its new version.

        With a `prev_version`, raise ConcurrentTaskModificationError if it is not the stored one.
        """
        owner, task_id, row = self.owner_of(context), task.id, row_of(task)
        write = partial(
            self._write, owner=owner, task_id=task_id, row=row, prev_version=prev_version
        )
        version, lsn = await acommit(self.tables, write)
        await durable(self.tables, lsn)
        return TaskVersion(version)

    def get(self, task_id: str, context: ServerCallContext) -> StoredTask | None:
        """Return a task of the caller with its version, or None."""
        row = self.rows.row(self.owner_of(context), plain(task_id))
        if row is None:
            return None
        return StoredTask(Task.FromString(row.data), TaskVersion(row.version))

    def list(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """Return a page of the caller's tasks, those with the latest status first."""
        for _ in range(_ATTEMPTS):
            page = self._page(params, self.owner_of(context))
            if page is not None:
                return page
        raise JournalError(
            "the lists of tasks don't match the tasks; check that only the stores of this package "
            "write to the tables `a2a.*`"
        )

    async def delete(self, task_id: str, context: ServerCallContext) -> None:
        """Delete a task of the caller, if it is there, and wait until that survives a crash."""
        owner, task_id = self.owner_of(context), plain(task_id)
        remove = partial(self.rows.delete, owner=owner, task_id=task_id)
        _, lsn = await acommit(self.tables, remove)
        await durable(self.tables, lsn)

    def _write(
        self,
        t: Transaction,
        owner: str,
        task_id: str,
        row: TaskRow,
        prev_version: TaskVersion | None,
    ) -> int:
        if prev_version is not None:
            old = self.rows.row(owner, task_id, t)
            if row.state == TaskState.TASK_STATE_CANCELED:
                is_allowed = old is not None and old.state not in _TERMINAL
            else:
                stored = TaskVersion.MISSING if old is None else TaskVersion(old.version)
                is_allowed = stored == prev_version
            if not is_allowed:
                raise ConcurrentTaskModificationError(task_id)
        return self.rows.write(t, owner, task_id, row)

    def _page(self, params: ListTasksRequest, owner: str) -> ListTasksResponse | None:
        """Return a page, or None if another thread has changed one of its tasks meanwhile."""
        found = [*self.rows.positions(owner, params.context_id, params.status)]
        if params.HasField("status_timestamp_after"):
            after = time_of_ns(params.status_timestamp_after.ToNanoseconds())
            found = [position for position in found if position >= after]
        start = _start(found, params.page_token) if params.page_token else 0
        end = start + (params.page_size or DEFAULT_LIST_TASKS_PAGE_SIZE)
        tasks = []
        for *time, task_id in found[start:end]:
            row = self.rows.row(owner, task_id)
            is_same = row is not None and [*row.time] == time
            if row is None or not is_same or (params.status and row.state != params.status):
                return None
            tasks.append(Task.FromString(row.data))
        return ListTasksResponse(
            next_page_token=_token(found[end - 1]) if end < len(found) else None,
            tasks=tasks,
            total_size=len(found),
            page_size=end - start,
        )


class JournalTaskStore(TaskStore):
    """A task store for A2A servers whose tasks survive a crash.

        async with Tables.aopen("tasks.d") as tables:
            handler = DefaultRequestHandler(agent_executor, JournalTaskStore(tables), agent_card)

    A save is durable when it returns. Each call returns copies. Tasks and threads may share it.
    """

    def __init__(
        self, tables: Tables, *, owner_resolver: OwnerResolver = resolve_user_scope
    ) -> None:
        """Keep tasks in open tables, in those whose names begin with `a2a.`.

        `owner_resolver` returns the owner of the tasks of a call, by default the user's name.
        """
        self._all = _Tasks(tables, owner_resolver)

    async def save(self, task: Task, context: ServerCallContext) -> None:
        """Store a task, and wait until it survives a crash."""
        await self._all.save(task, None, context)

    async def get(self, task_id: str, context: ServerCallContext) -> Task | None:
        """Return a task of the caller, or None."""
        stored = self._all.get(task_id, context)
        return None if stored is None else stored.task

    async def list(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """Return a page of the caller's tasks, those with the latest status first.

        `params` may choose a context, a state, and the earliest time of a status. Raises
        InvalidParamsError for a wrong page token.
        """
        return self._all.list(params, context)

    async def delete(self, task_id: str, context: ServerCallContext) -> None:
        """Delete a task of the caller, if it is there, and wait until that survives a crash."""
        await self._all.delete(task_id, context)


class JournalVersionedTaskStore(VersionedTaskStore):
    """A versioned task store for A2A servers: of two saves of the same version, one is refused.

    It has the same tasks as a JournalTaskStore in the same tables. It serves one process, so it
    has no stream of events for others, and does not store the events of `save`.
    """

    def __init__(
        self, tables: Tables, *, owner_resolver: OwnerResolver = resolve_user_scope
    ) -> None:
        """Keep tasks in open tables; see JournalTaskStore."""
        self._all = _Tasks(tables, owner_resolver)

    async def save(
        self,
        task: Task,
        *,
        event: Any = None,
        prev: Task | None = None,
        prev_version: TaskVersion,
        context: ServerCallContext,
    ) -> TaskVersion:
        """Store a task, and wait until it survives a crash. Return its new version.

        Raises ConcurrentTaskModificationError if `prev_version` is not the stored version:
        `TaskVersion.MISSING` if there is no task. A task that is canceled replaces one of any
        version that has not ended, and no other.
        """
        return await self._all.save(task, prev_version, context)

    async def get(self, task_id: str, context: ServerCallContext) -> StoredTask | None:
        """Return a task of the caller with its version, or None."""
        return self._all.get(task_id, context)

    async def list(self, params: ListTasksRequest, context: ServerCallContext) -> ListTasksResponse:
        """Return a page of the caller's tasks; see `JournalTaskStore.list`."""
        return self._all.list(params, context)

    async def delete(self, task_id: str, context: ServerCallContext) -> None:
        """Delete a task of the caller, if it is there, and wait until that survives a crash."""
        await self._all.delete(task_id, context)


def _start(found: list[Position], token: str) -> int:
    """Return the index of the first position of the page that a token names."""
    cursor = decode_list_tasks_cursor(token)
    if cursor is None:  # a token of an older version, which names the first task
        task_id = decode_page_token(token)
        for index, position in enumerate(found):
            if position[-1] == task_id:
                return index
        raise InvalidParamsError(f"Invalid page token: {token}")
    last = (*time_of_ns(cursor.timestamp_ns), cursor.task_id)
    return next((i for i, position in enumerate(found) if position < last), len(found))


def _token(last: Position) -> str:
    """Return the token of the page after a position."""
    return str(encode_list_tasks_cursor(ListTasksCursor(ns_of_time(last[:-1]), last[-1])))
