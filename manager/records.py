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

import math
import re
from collections.abc import Iterable
from typing import Any

from manager.arguments import shown

Record = list[Any]

APPLICATION = "subagents/1"

# Places that are filled in under the lock.
AGENT_ID = 1
PARENT = slice(4, 6)  # parent_id, spawn_depth

_INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1  # what msgpack carries
_LEVELS_MAX = 100  # well below the recursion limits of msgpack, json and this module
NAME_BYTES_MAX = 256
_AGENT_ID = re.compile(r"agent_[0-9a-f]{12}")


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
        _tools(allowed_tools),
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


def text(where: str, value: object) -> str:
    """`value` as an exact str. Raises TypeError, or ValueError for what UTF-8 can't carry."""
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise TypeError(f"{where} must be a string, not {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{where} holds half a surrogate pair: {error}") from None
    return str.__str__(value)  # of a subclass, such as a StrEnum, msgpack packs none


def optional_text(where: str, value: object) -> str | None:
    return None if value is None else text(where, value)


def prompt_text(where: str, value: object, bytes_max: int) -> str:
    prompt = text(where, value)
    if (size := _utf8_bytes(prompt)) > bytes_max:
        raise ValueError(f"{where} has {size} bytes, over prompt_bytes_max={bytes_max}")
    return prompt


def tail(where: str, value: object, bytes_max: int) -> str:
    """`value`, cut to about `bytes_max` bytes of UTF-8: its end, after a line that says so.

    Of a long text the end tells how it came out. No less than half the bound is kept of it,
    however small the bound.
    """
    full = text(where, value)
    if _utf8_bytes(full) <= bytes_max:
        return full
    kept = full.encode()
    notice = f"[{len(kept)} bytes, cut to the last ones]\n"
    kept = kept[-max(bytes_max - len(notice), bytes_max // 2, 1) :]
    return notice + kept.decode(errors="ignore")


def _utf8_bytes(value: str) -> int:
    return len(value) if value.isascii() else len(value.encode())


def whole(where: str, value: object, *, low: int = 0) -> int:
    """`value` as an exact int from `low` to what 64 bits hold. Raises TypeError or ValueError."""
    if type(value) is int and low <= value <= INT_MAX:
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where} must be a whole number, not {shown(value)}")
    if not low <= value <= INT_MAX:
        raise ValueError(f"{where} must be from {low} to {INT_MAX}, not {shown(value)}")
    return int(value)


def json_value(where: str, value: object) -> Any:
    """A deep copy of `value` in exact types; tuples become lists, as in JSON.

    Raises TypeError or ValueError that names the key: str keys, finite floats, ints of 64 bits,
    no bytes, nested no deeper than 100 levels.
    """
    return None if value is None else _json_value([where], value)


def _json_value(path: list[object], value: object) -> Any:
    if isinstance(value, dict) and len(path) <= _LEVELS_MAX:  # first: most often it is one
        return {
            key if type(key) is str and key.isascii() else _key(path, key): item
            if type(item) is int and 0 <= item <= INT_MAX
            else _item(path, key, item)
            for key, item in value.items()
        }
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):  # its place is spelled out only if it could be wrong
        return value if type(value) is str and value.isascii() else text(_named(path), value)
    if isinstance(value, int):
        if not _INT_MIN <= value <= INT_MAX:
            raise ValueError(f"{_named(path)} is an integer that 64 bits can't hold")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{_named(path)} is {value}, which JSON can't carry")
        return float(value)
    if len(path) > _LEVELS_MAX:
        raise ValueError(f"{path[0]} nests deeper than {_LEVELS_MAX} levels, or holds itself")
    if isinstance(value, (list, tuple)):
        return [_item(path, index, item) for index, item in enumerate(value)]
    raise TypeError(f"{_named(path)} is of type {type(value).__name__}, which JSON can't carry")


def _item(path: list[object], key: object, value: object) -> Any:
    path.append(key)
    copy = _json_value(path, value)
    path.pop()
    return copy


def _key(path: list[object], key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{_named(path)} has the key {key!r}; in JSON keys are strings")
    return str.__str__(key) if key.isascii() else text(f"{_named(path)}, key {key!r}", key)


def _named(path: list[object]) -> str:
    return f"{path[0]}{''.join(f'[{key!r}]' for key in path[1:])}"


def checked_name(name: str) -> str:
    """Raises TypeError or ValueError that says why it is no name."""
    name = text("name", name)
    if not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"name must have 1 to {NAME_BYTES_MAX} bytes, not {len(name.encode())}")
    if _AGENT_ID.fullmatch(name):
        raise ValueError(f"name {name!r} looks like an agent's id; it would be ambiguous")
    return name


def _tools(tools: Iterable[str] | None) -> list[str] | None:
    if tools is None:
        return None
    if isinstance(tools, str) or not isinstance(tools, Iterable):
        raise TypeError(f"allowed_tools must be a sequence of strings, not {shown(tools)}")
    return [text(f"allowed_tools[{index}]", tool) for index, tool in enumerate(tools)]
