"""Helpers for tests of the LangGraph adapter. Imported after `import_package("langgraph")`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langgraph.checkpoint.base.id import uuid6

from journal import Options, Tables
from journal.adapters.langgraph import JournalSaver
from journal.adapters.langgraph._opening import TRANSACTION_KEYS_MAX
from journal.testing import SimulatedDisk


@contextmanager
def saver_on(disk: SimulatedDisk, **arguments: Any) -> Iterator[JournalSaver]:
    with Tables.open(
        "/journal", disk=disk, transaction_keys_max=TRANSACTION_KEYS_MAX,
        options=Options(segment_bytes=1 << 20),
    ) as tables:  # fmt: skip
        yield JournalSaver(tables, **arguments)


def place(thread: str = "t", namespace: str = "", checkpoint_id: str | None = None) -> Any:
    chosen = {"thread_id": thread, "checkpoint_ns": namespace}
    return {"configurable": chosen | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})}


def checkpoint(values: dict[str, Any], versions: dict[str, Any]) -> Any:
    """Return a checkpoint with a new id, larger than those before."""
    return {
        "v": 1,
        "id": str(uuid6(clock_seq=-1)),
        "ts": "",
        "channel_values": values,
        "channel_versions": versions,
        "versions_seen": {},
        "updated_channels": None,
    }


def put_steps(saver: Any, count: int, config: Any = None, **metadata: Any) -> list[Any]:
    """Put `count` checkpoints, each the child of the one before, with a channel that changes, one
    that does not, and a write. Return their configs."""
    config, configs = config or place(), []
    for step in range(count):
        versions = {"n": f"{step + 1}", "same": "1"}
        new = versions if step == 0 else {"n": versions["n"]}
        state = checkpoint({"n": step, "same": "s" * 100}, versions)
        config = saver.put(config, state, {"source": "loop", "step": step, **metadata}, new)
        saver.put_writes(config, [("n", step + 1)], f"task-{step}")
        configs.append(config)
    return configs


def steps(saver: Any, config: Any = None) -> list[Any]:
    """Return the values of channel "n" of all checkpoints, the newest first."""
    return [found.checkpoint["channel_values"]["n"] for found in saver.list(config or place())]


def rows_left(saver: JournalSaver) -> dict[str, int]:
    """Return the number of rows of each table of a saver that has any."""
    return {name: len(saver.tables.table(name)) for name in saver.tables.names()}
