"""Journals of a fleet that no manager wrote: any checkpoint items and records, with correct
checksums."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from manager.agent import FIELDS
from tests.crash.hostile_forge import sum_up
from tests.crash.hostile_sources import Files
from tests.independent_reader import Frame, SegmentHeader

BASE_LSN = 5  # the checkpoint's LSN, if there is a checkpoint
JOURNAL_ID = bytes(16)


def agent_id(letter: str) -> str:
    """Return the id that `letter` stands for, in the form in which a manager makes ids."""
    return f"agent_{ord(letter):012x}" if len(letter) == 1 else letter


def item(letter: str, parent: str | None = None, depth: int = 0, **changes: Any) -> dict[str, Any]:
    """Return the item of a running agent, with `changes`."""
    fields: dict[str, Any] = dict.fromkeys(FIELDS)
    fields |= {
        "agent_id": agent_id(letter),
        "name": agent_id(letter),
        "agent_type": "general",
        "prompt": "work",
        "status": "running",
        "steps_taken": 0,
        "parent_id": None if parent is None else agent_id(parent),
        "spawn_depth": depth,
        "tokens_used": 0,
        "metadata": {},
        "created_at_ms": 1,
        "started_at_ms": 1,
        "updated_at_ms": 1,
        "boot_id": "boot_1",
        "lsn": 2,
        "attempt": 1,
        "starts": 1,
    }
    return fields | changes | {"from_prior_session": False}


def spawn(letter: str, parent: str | None = None, depth: int = 0, **changes: Any) -> list[Any]:
    """Return the record that spawns a running agent, with `changes`."""
    fields = {
        "agent_id": agent_id(letter),
        "at_ms": 1,
        "boot_id": "boot_1",
        "parent_id": None if parent is None else agent_id(parent),
        "spawn_depth": depth,
        "status": "running",
        "name": None,
        "agent_type": "general",
        "role": None,
        "model": None,
        "prompt": "work",
        "allowed_tools": None,
        "token_budget": None,
        "metadata": {},
    }
    assert changes.keys() <= {*fields, "attempt"}
    return ["spawn", *(fields | changes).values()]


def imported(letter: str, parent: str | None = None, depth: int = 0, **changes: Any) -> list[Any]:
    """Return the record that imports a running agent, with `changes`."""
    fields = item(letter, parent, depth, **changes)
    return ["import", *[fields[field] for field in FIELDS[: FIELDS.index("lsn")]]]


def forged(items: Sequence[Any] | None, records: Sequence[Any]) -> Files:
    """Return a journal with a checkpoint of `items`, or without one, and `records` after it."""
    after_lsn = 0 if items is None else BASE_LSN
    header = SegmentHeader(JOURNAL_ID, 1, after_lsn + 1, 0)
    data = header.encode()
    for lsn, record in enumerate(records, after_lsn + 1):
        data += Frame(lsn, lsn - 1, 0, (record,)).encode(header.seed)
    files = {header.name: data}
    if items is not None:
        files[f"checkpoint-{BASE_LSN:020d}.json"] = _checkpoint(items)
    return files


def write(workspace: Path, files: Files) -> Path:
    """Write the journal as a workspace's state. Return the state's directory."""
    state = workspace / ".subagents"
    state.mkdir(mode=0o700)
    for name, data in files.items():
        (state / name).write_bytes(data)
        (state / name).chmod(0o600)
    return state


def _checkpoint(items: Sequence[Any]) -> bytes:
    head = {
        "format": "journal-checkpoint",
        "version": 1,
        "journal_id": JOURNAL_ID.hex(),
        "epoch": 1,
        "lsn": BASE_LSN,
        "created_at": "2026-01-01T00:00:00.000Z",
        "application": "subagents/1",
    }
    # JSON escapes can carry half a surrogate pair, and JSON reads 1e999 as infinity.
    lines = ",\n".join(json.dumps(each).replace("Infinity", "1e999") for each in items)
    top = json.dumps(head, separators=(",", ":"))[:-1]
    body = f'{top},\n"items":[\n{lines}\n],\n'.encode()
    return sum_up(body, count=len(items))
