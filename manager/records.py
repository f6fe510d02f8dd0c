"""Records: what the journal is told of a change, built and checked before any lock is taken.

    ["boot", application, boot_id, at_ms, pid]
    ["spawn", agent_id, at_ms, boot_id, parent_id, spawn_depth, status, name (nil: the id),
        agent_type, role, model, prompt, allowed_tools, token_budget, metadata]
    ["start" | "resume", agent_id, at_ms, boot_id]
    ["checkpoint", agent_id, at_ms, checkpoint, steps_taken]
    ["usage", agent_id, at_ms, input_tokens, output_tokens]
    ["interrupt", agent_id, at_ms, reason, checkpoint, needs_input]
    ["result", agent_id, at_ms, status, result, reason, steps_taken, checkpoint, needs_input,
        input_tokens, output_tokens]
    ["cancel", agent_id, at_ms, reason]
    ["remove", agent_id]
    ["import", all fields of an Agent in their order, but for from_prior_session and lsn]

In "interrupt" and "result", a nil result, steps_taken or checkpoint keeps what the agent has.
A record is a list that nobody else holds: values from outside are copied into it, and checked to
be what msgpack and JSON both carry unchanged, so that replay gives what was live. What only the
fleet knows (who `ref` is, how deep its parent) is filled in under the lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from manager.values import (
    checked_name,
    json_value,
    optional_text,
    prompt_text,
    text,
    tool_names,
    whole,
)

Record = list[Any]

APPLICATION = "subagents/1"

# Places that are filled in under the lock.
AGENT_ID = 1
PARENT = slice(4, 6)  # parent_id, spawn_depth


def boot(boot_id: str, at_ms: int, pid: int) -> Record:
    return ["boot", APPLICATION, boot_id, at_ms, pid]


def spawn(
    agent_id: str,
    at_ms: int,
    boot_id: str,
    *,
    status: str,
    name: str | None,
    agent_type: str,
    role: str | None,
    model: str | None,
    prompt: str,
    prompt_bytes_max: int,
    allowed_tools: Iterable[str] | None,
    token_budget: int | None,
    metadata: dict[str, Any] | None,
) -> Record:
    """Raises TypeError or ValueError that name the value which can't be taken."""
    if metadata is not None and not isinstance(metadata, dict):
        raise TypeError(f"metadata must be a dict, not {type(metadata).__name__}")
    return [
        "spawn",
        agent_id,
        at_ms,
        boot_id,
        None,
        0,
        status,
        None if name is None else checked_name(name),
        text("agent_type", agent_type),
        optional_text("role", role),
        optional_text("model", model),
        prompt_text("prompt", prompt, prompt_bytes_max),
        tool_names(allowed_tools),
        None if token_budget is None else whole("token_budget", token_budget, low=1),
        json_value("metadata", metadata or {}),
    ]


def start(at_ms: int, boot_id: str) -> Record:
    return ["start", "", at_ms, boot_id]


def resume(at_ms: int, boot_id: str) -> Record:
    return ["resume", "", at_ms, boot_id]


def checkpoint(at_ms: int, value: object, steps_taken: int) -> Record:
    return [
        "checkpoint",
        "",
        at_ms,
        json_value("checkpoint", value),
        whole("steps_taken", steps_taken),
    ]


def usage(at_ms: int, input_tokens: int, output_tokens: int) -> Record:
    return [
        "usage",
        "",
        at_ms,
        whole("input_tokens", input_tokens),
        whole("output_tokens", output_tokens),
    ]


def interrupt(agent_id: str, at_ms: int, reason: str, value: object, needs_input: object) -> Record:
    return [
        "interrupt",
        agent_id,
        at_ms,
        reason,
        json_value("checkpoint", value),
        json_value("needs_input", needs_input),
    ]


def result(
    at_ms: int,
    status: str,
    *,
    result: str | None = None,
    reason: str | None = None,
    steps_taken: int | None = None,
    checkpoint: object = None,
    needs_input: object = None,
    input_tokens: int = 0,
    output_tokens: int = 0,
) -> Record:
    return [
        "result",
        "",
        at_ms,
        status,
        result,
        reason,
        None if steps_taken is None else whole("steps_taken", steps_taken),
        json_value("checkpoint", checkpoint),
        json_value("needs_input", needs_input),
        whole("input_tokens", input_tokens),
        whole("output_tokens", output_tokens),
    ]


def cancel(agent_id: str, at_ms: int, reason: str | None = None) -> Record:
    return ["cancel", agent_id, at_ms, reason]


def remove(agent_id: str) -> Record:
    return ["remove", agent_id]
