"""The A2A task stores beside A2A's own store in memory, and what only they promise."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import ConflictError, Options, Tables
from journal.testing import SimulatedDisk, lose
from tests.installed import import_package
from tests.support import Held
from tests.tiers import examples

import_package("a2a.server.tasks")

from a2a.auth.user import User  # noqa: E402
from a2a.server.cluster import ConcurrentTaskModificationError, TaskVersion  # noqa: E402
from a2a.server.context import ServerCallContext  # noqa: E402
from a2a.server.tasks import InMemoryTaskStore  # noqa: E402
from a2a.types.a2a_pb2 import ListTasksRequest, Task, TaskState, TaskStatus  # noqa: E402
from a2a.utils.errors import InvalidParamsError  # noqa: E402

from journal.adapters.a2a import JournalTaskStore, JournalVersionedTaskStore  # noqa: E402

OPTIONS = Options(segment_bytes=1 << 20)
OWNERS, IDS, CONTEXTS = ("ada", "", "a\0"), ("t", "u", "t\0"), ("", "c", "d")
STATES = (0, 1, 2, 3, 5)
TIMES = st.none() | st.sampled_from([0, 1, 10**9 - 1, 10**9, 253402300799 * 10**9, -(10**9)])
TASKS = st.tuples(st.sampled_from(IDS), st.sampled_from(CONTEXTS), st.sampled_from(STATES), TIMES)
SAVES = st.tuples(st.just("save"), st.sampled_from(OWNERS), TASKS)
DELETES = st.tuples(st.just("delete"), st.sampled_from(OWNERS), st.sampled_from(IDS))
STEPS = st.lists(SAVES | SAVES | DELETES | st.just(("crash",)), max_size=12)
REQUESTS = st.tuples(st.sampled_from(CONTEXTS), st.sampled_from(STATES), TIMES, st.integers(0, 3))


class Caller(User):
    """A user with a name."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def is_authenticated(self) -> bool:
        return True

    @property
    def user_name(self) -> str:
        return self._name


def called_by(name: str = "ada") -> Any:
    return ServerCallContext(user=Caller(name))


def task_of(task_id: str = "t", context: str = "", state: int = 2, ns: Any = None) -> Any:
    status: Any = TaskStatus(state=state) if state else None  # type: ignore[arg-type,unused-ignore]
    if ns is not None:
        status = status or TaskStatus()
        status.timestamp.FromNanoseconds(ns)
    return Task(id=task_id, context_id=context, status=status)


async def pages(store: Any, owner: str, request: Any) -> Any:
    context, state, after, size = request
    found, token = [], ""
    while True:
        params = ListTasksRequest(context_id=context, status=state, page_token=token)
        if size:
            params.page_size = size
        if after is not None:
            params.status_timestamp_after.FromNanoseconds(after)
        page = await store.list(params, called_by(owner))
        found.append(page)
        token = page.next_page_token
        if not token:
            return found


@given(STEPS, REQUESTS)
@settings(max_examples=examples(60), deadline=None)
def test_a_store_is_as_a2as_after_power_cuts(steps: list[Any], request: Any) -> None:
    """P2: a store returns and lists what A2A's own store does, also after power cuts."""

    async def main() -> None:
        disk, oracle = SimulatedDisk(), InMemoryTaskStore()
        tables = Tables.open("/journal", disk=disk, options=OPTIONS)
        for step in steps:
            match step:
                case "save", owner, task:
                    for each in (JournalTaskStore(tables), oracle):
                        await each.save(task_of(*task), called_by(owner))
                case "delete", owner, task_id:
                    for each in (JournalTaskStore(tables), oracle):
                        await each.delete(task_id, called_by(owner))
                case _:
                    disk.power_cut(lose)
                    tables.close()
                    tables = Tables.open("/journal", disk=disk, options=OPTIONS)
        store = JournalTaskStore(tables)
        for owner in OWNERS:
            for task_id in IDS:
                context = called_by(owner)
                assert await store.get(task_id, context) == await oracle.get(task_id, context)
            for chosen in (request, ("", 0, None, 2)):
                assert await pages(store, owner, chosen) == await pages(oracle, owner, chosen)
            for task_id in IDS:
                await store.delete(task_id, called_by(owner))
        assert tables.names() == []
        tables.close()

    asyncio.run(main())


def on_disk(main: Any, disk: SimulatedDisk | None = None) -> None:
    """Run a coroutine function with open tables."""
    with Tables.open("/journal", disk=disk or SimulatedDisk(), options=OPTIONS) as tables:
        asyncio.run(main(tables))


def test_a_change_of_a_task_is_durable_when_its_method_returns() -> None:
    """P2: a saved or deleted task is durable when the call returns."""

    async def main(tables: Tables) -> None:
        store, journal = JournalTaskStore(tables), tables.journal
        await store.save(task_of(), called_by())
        assert journal.durable_lsn == journal.last_lsn == 1
        await store.delete("t", called_by())
        assert journal.durable_lsn == journal.last_lsn == 2

    on_disk(main)


def test_a_deletion_of_a_deleted_task_waits_for_the_disk() -> None:
    """P2: a task is gone for good when a deletion returns, even one that another has preceded."""
    disk = SimulatedDisk()

    async def main(tables: Tables) -> None:
        store = JournalTaskStore(tables)
        await store.save(task_of(), called_by())
        with Held(disk, "sync", ".seg") as held:
            deletions = [asyncio.create_task(store.delete("t", called_by())) for _ in range(2)]
            await asyncio.to_thread(held.wait_reached)
            assert await store.get("t", called_by()) is None
            done, _ = await asyncio.wait(deletions, timeout=0.01)
            assert not done
        await asyncio.gather(*deletions)

    on_disk(main, disk)


def test_a_change_during_a_save_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that is repeated after a conflict stores and lists the task as it was at the call."""

    async def main(tables: Tables) -> None:
        store, task = JournalTaskStore(tables), task_of(state=2)
        transact = tables._transact_once_in_loop

        async def change_and_refuse(*_: Any) -> Any:
            task.status.state, task.context_id = 3, "d"
            monkeypatch.setattr(tables, "_transact_once_in_loop", transact)
            raise ConflictError("t", None, "is made up")

        monkeypatch.setattr(tables, "_transact_once_in_loop", change_and_refuse)
        await store.save(task, called_by())
        for request, count in (
            (ListTasksRequest(status=TaskState.TASK_STATE_WORKING), 1),
            (ListTasksRequest(status=TaskState.TASK_STATE_COMPLETED), 0),
            (ListTasksRequest(context_id="d"), 0),
        ):
            assert len((await store.list(request, called_by())).tasks) == count

    on_disk(main)


def test_a_page_token_stays_valid() -> None:
    """A page begins after the last task of the page before, even if that one was deleted, and an
    older token names its first task."""

    async def main(tables: Tables) -> None:
        store = JournalTaskStore(tables)
        for number in range(4):
            await store.save(task_of(f"{number}", ns=number), called_by())
        first = await store.list(ListTasksRequest(page_size=2), called_by())
        await store.delete("2", called_by())
        token = first.next_page_token
        for page_token in (token, "MQ=="):
            params = ListTasksRequest(page_size=2, page_token=page_token)
            page = await store.list(params, called_by())
            assert [task.id for task in page.tasks] == ["1", "0"]
        with pytest.raises(InvalidParamsError, match="Invalid page token"):
            await store.list(ListTasksRequest(page_token="OQ=="), called_by())

    on_disk(main)


def test_of_two_saves_of_a_version_one_is_refused() -> None:
    """A save needs the stored version, or none for a new task. Versions grow, and a task that is
    stored again after its deletion has another one."""

    async def main(tables: Tables) -> None:
        store: Any = JournalVersionedTaskStore(tables)

        async def save(version: Any) -> Any:
            return await store.save(
                task_of(state=2), event=None, prev=None, prev_version=version,
                context=called_by(),
            )  # fmt: skip

        first = await save(TaskVersion.MISSING)
        assert (await store.get("t", called_by())).version == first
        results = await asyncio.gather(*(save(first) for _ in range(5)), return_exceptions=True)
        [second] = [result for result in results if isinstance(result, TaskVersion)]
        assert second.is_after(first)
        await store.delete("t", called_by())
        for stale in (first, second):
            with pytest.raises(ConcurrentTaskModificationError):
                await save(stale)
        third = await save(TaskVersion.MISSING)
        assert third.is_after(second)
        with pytest.raises(ConcurrentTaskModificationError):
            await save(TaskVersion.MISSING)

    on_disk(main)


def test_a_canceled_task_replaces_one_that_has_not_ended() -> None:
    """A cancellation needs no version, but a stored task that has not ended."""

    async def main(tables: Tables) -> None:
        store: Any = JournalVersionedTaskStore(tables)
        canceled = task_of(state=TaskState.TASK_STATE_CANCELED)

        async def cancel() -> None:
            await store.save(
                canceled, event=None, prev=None, prev_version=TaskVersion.MISSING,
                context=called_by(),
            )  # fmt: skip

        with pytest.raises(ConcurrentTaskModificationError):
            await cancel()
        await JournalTaskStore(tables).save(task_of(), called_by())
        await cancel()
        assert (await store.get("t", called_by())).task == canceled
        with pytest.raises(ConcurrentTaskModificationError):
            await cancel()

    on_disk(main)


class Names(StrEnum):
    """The owners and tasks of a program."""

    ADA = "ada"


def test_owners_and_ids_may_be_of_a_subclass_of_str() -> None:
    """A member of a StrEnum is the owner and the id that a string of its text is."""

    async def main() -> None:
        with Tables.open("/journal", disk=SimulatedDisk(), options=OPTIONS) as tables:
            store = JournalTaskStore(tables)
            await store.save(task_of("ada"), called_by(Names.ADA))
            for name in (Names.ADA, "ada"):
                assert await store.get(name, called_by(name)) == task_of("ada")
                found = await store.list(ListTasksRequest(), called_by(name))
                assert found.total_size == 1
            await store.delete(Names.ADA, called_by(Names.ADA))
            assert tables.names() == []

    asyncio.run(main())
