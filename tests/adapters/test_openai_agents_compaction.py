"""Replacements of many items of a JournalSession, beside those of the Agents SDK's own session."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from journal import Tables
from journal.testing import SimulatedDisk, lose
from tests.installed import import_package
from tests.support import TIMEOUT_S

import_package("agents.memory")

from agents.memory import SQLiteSession  # noqa: E402

from journal.adapters.openai_agents import JournalSession  # noqa: E402
from journal.adapters.openai_agents._rows import SessionRows  # noqa: E402
from tests.adapters.openai_agents_support import message, on_disk, rows_left  # noqa: E402

ROWS = 520
# the newest items that a compaction reads, the first of them that it replaces, and the number
# from which on its `prune_prefix` keeps a message
REPLACEMENTS = {
    "all": (ROWS + 80, 0, 0),
    "all, of which the first are read by nobody": (ROWS - 10, 0, ROWS),
    "many, after a few that stay": (ROWS + 80, 90, 0),
    "many, after some that are removed and some that stay": (ROWS + 80, 90, 40),
    "few, after many that are removed": (5, 1, ROWS),
    "few, after many of which some stay": (5, 1, ROWS - 50),
}


async def fill(session: Any) -> None:
    """Add 80 messages that share rows, and then one after the other."""
    await session.add_items([message(n) for n in range(80)])
    for number in range(80, ROWS + 80):
        await session.add_items([message(number)])


async def replace_many(session: Any, limit: int, start: int, kept_from: int) -> Any:
    """Replace items as a compaction does. Return whether they were replaced."""

    def prune(item: Any) -> bool:
        return int(item["content"].split()[1]) < kept_from

    snapshot = await session._get_compaction_snapshot(limit, prune_prefix=prune)
    return await snapshot.replace_suffix(start, [message(1000)])


@pytest.mark.parametrize("arguments", REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_any_number_of_items_is_replaced(
    arguments: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: a replacement of items in more rows than a transaction has keys has the result of the
    SDK's own, also after a power cut before the old rows were deleted. Then the next open deletes
    them."""
    expected: list[Any] = []

    async def main(tables: Tables) -> None:
        session, oracle = JournalSession("ada", tables), SQLiteSession("ada")
        await fill(session)
        await oracle.add_items(await session.get_items())
        with monkeypatch.context() as patch:
            patch.setattr(SessionRows, "is_being_removed", lambda _: False)
            assert await replace_many(session, *arguments)
        assert await replace_many(oracle, *arguments)
        expected.extend(await oracle.get_items())
        oracle.close()
        assert await session.get_items() == expected
        disk.power_cut(lose)

    async def check(tables: Tables) -> None:
        session = JournalSession("ada", tables)
        assert await session.get_items() == expected
        extent = tables.table("openai_agents.sessions")["ada"]
        assert rows_left(tables) == {
            "openai_agents.items": extent[3] - extent[2],
            "openai_agents.sessions": 1,
        }
        await session.clear_session()
        assert rows_left(tables) == {}

    disk = SimulatedDisk()
    on_disk(main, disk, transaction_keys_max=450)
    on_disk(check, disk)


def test_a_read_during_a_replacement_sees_no_half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read returns what was there before a replacement of many rows, or what is there after."""
    read, others = SessionRows._newest_first, list[Any]()

    def read_late(rows: SessionRows) -> Any:
        if others:
            thread = threading.Thread(target=asyncio.run, args=(others.pop(),))
            thread.start()
            thread.join(TIMEOUT_S)
        return read(rows)

    monkeypatch.setattr(SessionRows, "_newest_first", read_late)
    monkeypatch.setattr(SessionRows, "is_being_removed", lambda _: False)  # the old rows stay

    async def main(tables: Tables) -> None:
        session = JournalSession("ada", tables)
        await fill(session)
        others.append(replace_many(JournalSession("ada", tables), ROWS, 0, 0))
        items = await session.get_items()
        assert not others
        assert items == [*(message(n) for n in range(80)), message(1000)]

    on_disk(main)


def test_items_that_are_added_during_a_replacement_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replacement does nothing if another thread adds an item after it has read the extent."""
    peek, others = SessionRows.peek, ["another thread"]

    def peek_late(rows: SessionRows, number: int) -> list[str]:
        if others and others.pop():
            add = sessions[1].add_items([message(9)])
            thread = threading.Thread(target=asyncio.run, args=(add,))
            thread.start()
            thread.join(TIMEOUT_S)
        return peek(rows, number)

    monkeypatch.setattr(SessionRows, "peek", peek_late)
    sessions: list[JournalSession] = []

    async def main(tables: Tables) -> None:
        sessions.extend(JournalSession("ada", tables) for _ in range(2))
        await sessions[0].add_items([message(1)])
        snapshot = await sessions[0]._get_compaction_snapshot(5)
        assert snapshot is not None
        assert not await snapshot.replace_suffix(0, [message(2)])
        assert await sessions[0].get_items() == [message(1), message(9)]

    on_disk(main)
