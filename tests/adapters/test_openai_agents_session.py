"""JournalSession beside the Agents SDK's own SQLiteSession, and what only it promises."""

from __future__ import annotations

import asyncio
import threading
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import Tables
from journal.testing import SimulatedDisk, lose
from tests.installed import import_package
from tests.support import TIMEOUT_S
from tests.tiers import examples

import_package("agents.memory")

from agents.memory import SQLiteSession  # noqa: E402

from journal.adapters.openai_agents import JournalSession  # noqa: E402
from journal.adapters.openai_agents._rows import SessionRows  # noqa: E402
from tests.adapters.openai_agents_support import (  # noqa: E402
    message,
    on_disk,
    opened,
    rows_left,
)

LIMITS = st.none() | st.integers(-1, 6)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 4) | st.just(150)),
        st.tuples(st.just("pop")),
        st.tuples(st.just("clear")),
        st.tuples(st.just("get"), LIMITS),
        st.tuples(st.just("replace"), st.integers(1, 6), st.integers(0, 3), st.integers(0, 3)),
        st.tuples(st.just("crash")),
    ),
    max_size=12,
)


async def replace(session: Any, limit: int, start: int, output: list[Any]) -> Any:
    """Replace a suffix of the newest `limit` items, as the SDK's compaction does. Messages whose
    numbers end with 0 or 1 are removed from the beginning."""

    def prune(item: Any) -> bool:
        return bool(item["content"][-1] in "01")

    snapshot = await session._get_compaction_snapshot(limit, prune_prefix=prune)
    replaced = await snapshot.replace_suffix(start, output)
    return snapshot.items, snapshot.complete, replaced


async def run(session: Any, step: Any, numbers: Any) -> Any:
    """Take a step of a conversation, and return what it returns."""
    match step:
        case "add", count:
            return await session.add_items([message(next(numbers)) for _ in range(count)])
        case ("pop",):
            return await session.pop_item()
        case ("clear",):
            return await session.clear_session()
        case "get", limit:
            return await session.get_items(limit)
        case "replace", limit, start, count:
            output = [message(next(numbers)) for _ in range(count)]
            return await replace(session, limit, start, output)
    return None


@given(STEPS)
@settings(max_examples=examples(40), deadline=None)
def test_a_session_is_as_the_sdks_after_power_cuts(steps: list[Any]) -> None:
    """P2: a session returns and contains what the SDK's own contains, also after power cuts."""

    async def main() -> None:
        disk, oracle = SimulatedDisk(), SQLiteSession("ada")
        numbers = [iter(range(10_000)), iter(range(10_000))]
        tables = opened(disk)
        session = JournalSession("ada", tables)
        for step in steps:
            if step == ("crash",):
                disk.power_cut(lose)
                tables.close()
                tables = opened(disk)
                session = JournalSession("ada", tables)
            assert await run(session, step, numbers[0]) == await run(oracle, step, numbers[1])
            assert await session.get_items() == await oracle.get_items()
        await session.clear_session()
        assert rows_left(tables) == {}
        tables.close()
        oracle.close()

    asyncio.run(main())


def test_a_change_is_durable_when_its_method_returns() -> None:
    """P2: an added, removed or replaced item is durable when the call returns."""

    async def main(tables: Tables) -> None:
        session, journal = JournalSession("ada", tables), tables.journal
        for step in (("add", 3), ("pop",), ("replace", 3, 1, 1), ("clear",)):
            await run(session, step, iter([5, 6, 7]))
            assert journal.durable_lsn == journal.last_lsn

    on_disk(main)


def test_sessions_do_not_mix() -> None:
    """Sessions share tables, and each has its own items, whatever their ids and tasks."""

    async def main(tables: Tables) -> None:
        sessions = [JournalSession(name, tables) for name in ("", "a", "a\0b", "ab", "é")]
        adds = [s.add_items([message(n)]) for n in range(20) for s in sessions]
        await asyncio.gather(*adds)
        for session in sessions:
            items = await session.get_items()
            assert sorted(item["content"] for item in items) == sorted(
                message(n)["content"] for n in range(20)
            )
        await sessions[1].clear_session()
        assert [len(await s.get_items()) for s in sessions] == [20, 0, 20, 20, 20]

    on_disk(main)


@pytest.mark.parametrize(("count", "keys_max"), [(5_000, 100), (40_000, 300)])
def test_a_list_of_any_length_is_added_at_once(count: int, keys_max: int) -> None:
    """Thousands of items are added in one transaction, which has few rows. A pop writes few of
    them again."""

    async def main(tables: Tables) -> None:
        session = JournalSession("ada", tables)
        await session.add_items([message(n) for n in range(count)])
        assert await session.get_items(limit=2) == [message(count - 2), message(count - 1)]
        assert len(await session.get_items()) == count
        assert [await session.pop_item() for _ in range(2)] == [
            message(count - 1),
            message(count - 2),
        ]
        before = tables.stats().bytes
        assert await session.pop_item() == message(count - 3)
        assert tables.stats().bytes - before < 64 * 64
        assert await session.get_items() == [message(n) for n in range(count - 3)]

    on_disk(main, transaction_keys_max=keys_max)


def test_large_items_do_not_share_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items that would be too large together are added at once, and a pop rewrites few of them."""
    monkeypatch.setattr("journal._tables.values.VALUE_BYTES_MAX", 4 << 20)

    async def main(tables: Tables) -> None:
        session = JournalSession("ada", tables)
        items: Any = [{"role": "user", "content": "x" * (1 << 20)} for _ in range(6)]
        await session.add_items(items)
        assert await session.get_items() == items
        before = tables.stats().bytes
        assert await session.pop_item() == items[-1]
        assert tables.stats().bytes - before < 1 << 20
        await session.clear_session()
        assert rows_left(tables) == {}

    on_disk(main)


def test_an_interrupted_removal_is_finished_at_the_next_open() -> None:
    """Items are gone at once, and their rows at the next open if a crash kept them from being
    deleted."""

    async def interrupt(tables: Tables) -> None:
        session = JournalSession("ada", tables)
        for number in range(500):
            await session.add_items([message(number)])
        clearing = asyncio.create_task(session.clear_session())
        while await session.get_items():
            await asyncio.sleep(0)
        clearing.cancel()
        await session.add_items([message(501)])
        assert len(tables.table("openai_agents.items")) > 1

    async def check(tables: Tables) -> None:
        assert await JournalSession("ada", tables).get_items() == [message(501)]
        assert rows_left(tables) == {"openai_agents.items": 1, "openai_agents.sessions": 1}

    disk = on_disk(interrupt)
    on_disk(check, disk)


def test_a_subclass_that_changes_items_is_not_bypassed() -> None:
    """The SDK replaces items of a subclass that stores them in a way of its own through its own
    methods."""

    class Numbered(JournalSession):
        async def add_items(self, items: list[Any]) -> None:
            await super().add_items([{**item, "number": 1} for item in items])

    async def main(tables: Tables) -> None:
        assert await Numbered("ada", tables)._get_compaction_snapshot(3) is None
        assert await JournalSession("ada", tables)._get_compaction_snapshot(3) is not None

    on_disk(main)


def test_a_suffix_that_has_changed_is_not_replaced() -> None:
    """A replacement does nothing if items were added, removed or changed since they were read."""

    async def main(tables: Tables) -> None:
        session = JournalSession("ada", tables)
        for change in (("add", 1), ("pop",), ("clear",)):
            await session.clear_session()
            await session.add_items([message(1), message(2)])
            snapshot = await session._get_compaction_snapshot(1)
            assert snapshot is not None
            assert (snapshot.items, snapshot.complete) == ([message(2)], False)
            await run(session, change, iter([2]))
            before = await session.get_items()
            assert not await snapshot.replace_suffix(0, [message(9)])
            assert await session.get_items() == before

    on_disk(main)


def test_an_item_that_another_thread_takes_meanwhile_is_not_taken_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A change that reads a row which another thread has just removed is made again."""
    read, others = SessionRows.read, ["another thread"]

    def read_late(rows: SessionRows, t: Any, number: int) -> list[str]:
        if others and others.pop():
            thread = threading.Thread(target=lambda: asyncio.run(sessions[1].pop_item()))
            thread.start()
            thread.join(TIMEOUT_S)
        return read(rows, t, number)

    monkeypatch.setattr(SessionRows, "read", read_late)
    sessions: list[JournalSession] = []

    async def main(tables: Tables) -> None:
        sessions.extend(JournalSession("ada", tables) for _ in range(2))
        for number in range(3):
            await sessions[0].add_items([message(number)])
        assert await sessions[0].pop_item() == message(1)
        assert await sessions[0].get_items() == [message(0)]

    on_disk(main)


def test_an_item_that_json_cannot_hold_changes_nothing() -> None:
    """An item that can't be stored is refused, with the others of its list."""

    async def main(tables: Tables) -> None:
        session = JournalSession("ada", tables)
        bad: Any = [message(1), {"role": object()}]
        with pytest.raises(TypeError):
            await session.add_items(bad)
        assert await session.get_items() == []
        odd: Any = [{"role": "user", "content": "\ud800 é \0", "n": 1 << 80, "f": 0.1, "x": None}]
        await session.add_items(odd)
        assert await session.get_items() == odd

    on_disk(main)


def test_a_long_history_is_decoded_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread decodes a long history, and no thread a short one."""
    called: list[Any] = []

    async def to_thread(function: Any, *arguments: Any) -> Any:
        called.append(function)
        return function(*arguments)

    async def main(tables: Tables) -> None:
        monkeypatch.setattr("asyncio.to_thread", to_thread)
        session = JournalSession("ada", tables)
        await session.add_items([message(1)])
        assert await session.get_items() == [message(1)]
        assert not called
        long: Any = [{"role": "user", "content": "x" * 100_000}]
        await session.add_items(long)
        assert await session.get_items(1) == long
        assert called

    on_disk(main)


class Names(StrEnum):
    """The ids of a program's sessions."""

    ADA = "ada"


def test_an_id_may_be_of_a_subclass_of_str() -> None:
    """A member of a StrEnum is the id that a string of its text is, as for the SDK's own."""

    async def main(tables: Tables) -> None:
        await JournalSession(Names.ADA, tables).add_items([message(1)])
        assert await JournalSession("ada", tables).get_items() == [message(1)]

    on_disk(main)


def test_an_id_is_a_string() -> None:
    """7 and "7" would be two conversations, and are one for SQLiteSession. So 7 is refused."""

    async def main(tables: Tables) -> None:
        for wrong in (7, b"7", None):
            with pytest.raises(TypeError, match=f"^session_id is {wrong!r}, of type .* give a str"):
                JournalSession(wrong, tables)  # type: ignore[arg-type]

    on_disk(main)


def test_settings_are_as_the_sdks() -> None:
    """The limit of the settings applies unless a call gives one, and unknown settings are
    refused."""

    async def main(tables: Tables) -> None:
        session = JournalSession("ada", tables, session_settings={"limit": 2})
        await session.add_items([message(n) for n in range(5)])
        assert len(await session.get_items()) == 2
        assert len(await session.get_items(4)) == 4
        with pytest.raises(TypeError):
            JournalSession("ada", tables, session_settings={"limits": 2})

    on_disk(main)
