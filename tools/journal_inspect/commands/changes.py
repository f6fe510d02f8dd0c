"""Changes: the fields of an agent that differ between two moments, and their text."""

from __future__ import annotations

from dataclasses import fields

from journal_inspect.rendering.objects import JSON, dumps, plain
from journal_inspect.rendering.renderer import Renderer
from manager import Agent

_BOOKKEEPING = ("agent_id", "lsn", "updated_at_ms", "from_prior_session")
_FIELDS = [field.name for field in fields(Agent) if field.name not in _BOOKKEEPING]
_TIMES = "_at_ms"
_VALUE_CHARS = 60


def changed_fields(
    before: Agent | None, after: Agent | None, renderer: Renderer
) -> dict[str, JSON]:
    """Return the old and the new value of each field that differs.

    For a new agent, return only the fields that are neither empty nor 0.
    """
    changes: dict[str, JSON] = {}
    if before == after:  # most agents of a diff; to compare each field takes three times as long
        return changes
    for name in _FIELDS:
        old = None if before is None else getattr(before, name)
        new = None if after is None else getattr(after, name)
        if old != new and (before is not None or new):
            was = None if before is None else renderer.plain({name: plain(old)})[name]
            changes[name] = {"from": was, "to": renderer.plain({name: plain(new)})[name]}
    return changes


def describe_changes(changed: dict[str, JSON], renderer: Renderer) -> str:
    """Return the changes on one line. A field without an old value shows only the new one."""
    return ", ".join(
        f"{name}: {_value(name, pair['to'], renderer)}"
        if pair["from"] is None
        else f"{name}: {_value(name, pair['from'], renderer)}"
        f" -> {_value(name, pair['to'], renderer)}"
        for name, pair in changed.items()
    )


def _value(name: str, value: JSON, renderer: Renderer) -> str:
    if name.endswith(_TIMES) and isinstance(value, int):
        return str(renderer.time_ms(value))
    text = value if isinstance(value, str) and value.isidentifier() else dumps(value)
    return text if len(text) <= _VALUE_CHARS else f"{text[: _VALUE_CHARS - 3]}..."
