"""What all adapters do in an event loop: they wait for room in the log buffer."""

from __future__ import annotations

import asyncio
import time

import pytest

from journal import ConflictError, Options, Tables, Transaction
from journal.adapters import _commits
from journal.adapters._commits import acommit, durable
from journal.testing import SimulatedDisk

CALLS = 100


@pytest.mark.parametrize("has_conflicts", [False, True])
def test_a_full_buffer_refuses_no_call(
    monkeypatch: pytest.MonkeyPatch, has_conflicts: bool
) -> None:
    """Many tasks that write at once wait until a slow disk has made room, also after conflicts."""
    disk = SimulatedDisk()
    disk.before = lambda operation, path: time.sleep(0.01) if operation == "sync" else None

    async def refuse(*_: object) -> object:
        await asyncio.sleep(0)  # others use the room
        raise ConflictError("t", None, "is made up")

    async def main() -> None:
        options = Options(buffer_bytes=1 << 20, segment_bytes=1 << 22)
        async with Tables.aopen("/tables.d", disk=disk, options=options) as tables:
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
