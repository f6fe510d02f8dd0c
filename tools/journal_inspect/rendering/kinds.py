"""Kinds: what a record calls itself, whom it is about, and the names of a manager's fields.

The table mirrors what the manager writes. A record that does not fit it to the field is shown as
any other: whoever wrote it means something else, or is newer than this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MANAGERS = "subagents/"  # begins the application of their journals, whatever the version
AGENT_ID = r"agent_[0-9a-f]{12}"
_AGENTS = ("agent_id", "at_ms")
FIELDS: Mapping[str, tuple[str, ...]] = {
    "boot": ("application", "boot_id", "at_ms", "pid"),
    "spawn": (
        *(*_AGENTS, "boot_id", "parent_id", "spawn_depth", "status", "name", "agent_type"),
        *("role", "model", "prompt", "allowed_tools", "token_budget", "metadata"),
    ),
    "start": (*_AGENTS, "boot_id"),
    "resume": (*_AGENTS, "boot_id"),
    "checkpoint": (*_AGENTS, "checkpoint", "steps_taken"),
    "usage": (*_AGENTS, "input_tokens", "output_tokens"),
    "interrupt": (*_AGENTS, "reason", "checkpoint", "needs_input"),
    "result": (
        *(*_AGENTS, "status", "result", "reason", "steps_taken", "checkpoint", "needs_input"),
        *("input_tokens", "output_tokens"),
    ),
    "cancel": (*_AGENTS, "reason"),
    "remove": ("agent_id",),
    "import": (
        *("agent_id", "name", "agent_type", "role", "model", "prompt", "status", "reason"),
        *("result", "steps_taken", "checkpoint", "needs_input", "allowed_tools", "parent_id"),
        *("spawn_depth", "token_budget", "tokens_used", "metadata", "created_at_ms"),
        *("started_at_ms", "updated_at_ms", "ended_at_ms", "boot_id"),
    ),
}
_TYPES = {"NoneType": "nil", "dict": "map", "list": "array", "bytes": "bin", "ExtType": "ext"}


def kind_of(record: Any) -> str:
    """A list's first string, a map's `kind` or `type`; else in brackets what it is made of."""
    kind = record
    if isinstance(record, list):
        kind = record[0] if record else None
    elif isinstance(record, dict):
        kind = record.get("kind", record.get("type"))
    if isinstance(kind, str) and kind and not isinstance(record, str):
        return kind
    name = type(record).__name__
    return f"({_TYPES.get(name, name)})"


def fields_of(record: Any) -> dict[str, Any] | None:
    """The fields of a manager's record by their names; None if it is none that is known."""
    if not isinstance(record, list) or not record or not isinstance(record[0], str):
        return None
    names = FIELDS.get(record[0])
    if names is None or len(record) != len(names) + 1 or not isinstance(record[1], str):
        return None
    return dict(zip(names, record[1:], strict=True))


def agent_of(record: Any) -> str | None:
    """The id of the agent that a manager's record is about; None if it is about none."""
    if not isinstance(record, list) or len(record) < 2 or not isinstance(record[0], str):
        return None
    names = FIELDS.get(record[0], ())
    is_about_one = names[:1] == ("agent_id",) and isinstance(record[1], str)
    return record[1] if is_about_one else None


def name_of(record: Any) -> str | None:
    """The name that a record gives to its agent."""
    fields = fields_of(record) if isinstance(record, list) else None
    name = fields.get("name") if fields else None
    return name if isinstance(name, str) else None
