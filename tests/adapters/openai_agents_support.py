"""Sessions of the OpenAI Agents SDK on a simulated disk."""

from __future__ import annotations

import asyncio
from typing import Any

from journal import Options, Tables
from journal.testing import SimulatedDisk

OPTIONS = Options(segment_bytes=1 << 20)


def opened(disk: SimulatedDisk) -> Tables:
    return Tables.open("/journal", disk=disk, options=OPTIONS)


def message(number: int) -> Any:
    """Return an item of a conversation."""
    return {"role": "user", "content": f"message {number}"}


def rows_left(tables: Tables) -> dict[str, int]:
    return {name: len(tables.table(name)) for name in tables.names()}


def on_disk(main: Any, disk: SimulatedDisk | None = None, **options: Any) -> SimulatedDisk:
    """Run a coroutine function with open tables."""
    disk = disk or SimulatedDisk()
    with Tables.open("/journal", disk=disk, options=OPTIONS, **options) as tables:
        asyncio.run(main(tables))
    return disk
