"""All adapters wait for room in the log buffer, in an event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from journal import ConflictError, Options, Tables, Transaction
from journal.adapters import _commits
from journal.adapters._commits import acommit, durable
from journal.testing import SimulatedDisk
from tests.installed import import_package

CALLS = 100
OPTIONS = Options(buffer_bytes=1 << 20, segment_bytes=1 << 22)


def slow_disk() -> SimulatedDisk:
    """Return a disk on which the log buffer fills up."""
    disk = SimulatedDisk()
    disk.before = lambda operation, path: time.sleep(0.01) if operation == "sync" else None
    return disk


@pytest.mark.parametrize("has_conflicts", [False, True])
def test_a_full_buffer_refuses_no_call(
    monkeypatch: pytest.MonkeyPatch, has_conflicts: bool
) -> None:
    """Many tasks that write at once wait until a slow disk has made room, also after conflicts."""

    async def refuse(*_: object) -> object:
        await asyncio.sleep(0)  # others use the room
        raise ConflictError("t", None, "is made up")

    async def main() -> None:
        async with Tables.aopen("/tables.d", disk=slow_disk(), options=OPTIONS) as tables:
            table = tables.table("t")
            if has_conflicts:
                monkeypatch.setattr(tables, "_transact_once_in_loop", refuse)

            async def call(number: int) -> None:
                def write(t: Transaction) -> None:
                    t[table][number] = bytes(50_000)

                _, lsn = await acommit(tables, write)
                await durable(tables, lsn)

            await asyncio.gather(*map(call, range(CALLS)))
            assert len(table) == CALLS

    monkeypatch.setattr(_commits, "_ATTEMPTS", 1)
    asyncio.run(main())


@pytest.mark.parametrize("name", ["store", "indexed store", "cache"])
def test_a_full_buffer_refuses_no_item(name: str) -> None:
    """LangGraph's store and cache wait for room, too, also after an embedding that takes time."""
    import_package("langgraph.checkpoint.base")
    from langgraph.store.base import PutOp

    from journal.adapters.langgraph import JournalCache, JournalStore

    async def embed(texts: list[str]) -> list[list[float]]:
        await asyncio.sleep(0.001)  # others use the room
        return [[1.0] for _ in texts]

    async def main() -> None:
        async with Tables.aopen("/tables.d", disk=slow_disk(), options=OPTIONS) as tables:
            if name == "cache":
                pairs: Any = {(("a",), str(key)): ("x" * 50_000, None) for key in range(CALLS)}
                cache = JournalCache(tables)
                await cache.aset(pairs)
                assert len(cache.get(list(pairs))) == CALLS
                return
            index: Any = {"dims": 1, "embed": embed, "fields": ["text"]}
            store = JournalStore(tables, index=index if name == "indexed store" else None)
            puts = [PutOp(("a",), str(key), {"text": "x" * 50_000}) for key in range(CALLS)]
            await asyncio.gather(*(store.abatch([put]) for put in puts))
            assert len(store.search(("a",), limit=CALLS)) == CALLS

    asyncio.run(main())
