"""Legacy: reads the JSON file in which an older tool kept its agents, and makes records of it.

    {"schema_version": 1, "agents": [{...}, ...], "workers": [...]}

The fields in the file, and the fields of an Agent that they become:

    id                                      agent_id
    session_name                            name, unless it is too long, an id, or a live agent's
                                            name; then the name is the id, and metadata keep the
                                            session_name
    agent_type                              the same, but "general" for the type of the tasks of
                                            `subagents run`, which runs only commands from its files
    prompt, model, result,                  the same; without a prompt, the objective becomes the
    steps_taken, checkpoint, needs_input    prompt
    assignment.role                         role
    assignment.objective, nickname          metadata
    status "Completed", "Cancelled",        the same
      "BudgetExhausted"
    status "Running"                        interrupted, with the reason "process restarted"
    status {"Failed": text},                the same; the text is the reason
      {"Interrupted": text}
    allowed_tools [], null                  None, which allows all tools
    updated_at_ms                           updated_at_ms, and ended_at_ms of an ended agent; if it
                                            is 0 or missing, the time of the import
    updated_at_ms - duration_ms             created_at_ms, started_at_ms
    session_boot_id                         boot_id
    any other field                         metadata, under its own name
    an item of workers                      the parent, the tokens and the budget of its agent; see
                                            manager.legacy_workers

The whole file is refused if one value has a wrong type or can't be journaled. With `skip_unknown`,
agents of an unknown status are left out and logged.
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import sys
from typing import Any

import msgpack

from journal import UnsafePathError
from manager import arguments
from manager.again import TASK_TYPE
from manager.agent import ENDED, LIVE
from manager.errors import LegacyError
from manager.layouts import Import
from manager.legacy_workers import with_workers
from manager.limits import HOLD_AGENTS_MAX, Limits
from manager.records import RESTARTED
from manager.values import (
    NAME_BYTES_MAX,
    checked_name,
    json_value,
    optional_text,
    prompt_text,
    tail,
    text,
    whole,
)

log = logging.getLogger("manager")
log.addHandler(logging.NullHandler())

SCHEMA_VERSION = 1
_SLICE_BYTES = 1 << 20
_FILE_BYTES_MAX = 256 << 20
_GROWTH_BYTES_MAX = 512  # by which a record may grow when its name proves to be taken
_LEVELS_MAX = 103  # nesting of a valid file: 100 of a value, in an agent, in a list, in the file
_SHOWN_KEYS_MAX = 8  # keys and indices of a place that a message shows
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],]|[\d.eE+]+')

_STATUSES = {
    "Completed": "completed",
    "Cancelled": "cancelled",
    "BudgetExhausted": "budget_exhausted",
    "Running": "interrupted",
}
_STATUSES_WITH_TEXT = {"Failed": "failed", "Interrupted": "interrupted"}
_KNOWN = {
    *("id", "session_name", "agent_type", "prompt", "assignment", "model", "nickname", "status"),
    *("result", "steps_taken", "checkpoint", "needs_input", "duration_ms", "allowed_tools"),
    *("updated_at_ms", "session_boot_id"),
}


class _UnknownStatusError(ValueError):
    """An agent has a status that this version does not know."""


def read_legacy(
    path: str | os.PathLike[str],
    *,
    at_ms: int,
    limits: Limits,
    record_bytes_max: int,
    skip_unknown: bool = False,
) -> list[list[Import]]:
    """Return the file's agents as checked "import" records, in slices that fit in a batch each.

    Raises LegacyError, which names the place, UnsafePathError if the path is not a regular file, or
    OSError.
    """
    path = arguments.path("path", path)
    try:
        agents = _agents(_parsed(_data(path)), path, at_ms, limits, skip_unknown=skip_unknown)
        return _sliced(agents, record_bytes_max)
    except (TypeError, ValueError) as error:
        if isinstance(error, LegacyError):
            raise
        raise LegacyError(path, str(error)) from None


def named_by_id(agent: Import) -> Import:
    """Return `agent` with its id as its name, because its name is taken. Its metadata keep the
    name.
    """
    metadata = {**agent.metadata}
    metadata.setdefault("session_name", agent.name)
    return agent._replace(name=agent.agent_id, metadata=metadata)


# --- the file ---


def _data(path: str) -> bytes:
    try:
        # Without O_NONBLOCK, opening a pipe that has no writer would block.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if os.path.islink(path):
            raise UnsafePathError("is a symlink; give its target instead", path=path) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UnsafePathError("is not a regular file", path=path)
    with open(handle, "rb") as file:
        data = file.read(_FILE_BYTES_MAX + 1)
    if len(data) > _FILE_BYTES_MAX:
        raise ValueError(f"has more than {_FILE_BYTES_MAX} bytes")
    return data


def _parsed(data: bytes) -> Any:
    try:
        content = data.decode("utf-8-sig")
        return json.loads(content, object_pairs_hook=_object)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    except (RecursionError, ValueError) as error:  # these errors have no place in the file
        raise _parse_error(content, isinstance(error, RecursionError)) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key appears twice")
    return values


def _parse_error(content: str, is_too_deep: bool) -> ValueError:
    """Return an error that names the place of a fault which the JSON parser does not locate.

    The fault is a value that nests too deep, an integer of too many digits, or a key that appears
    twice in an object.
    """
    digits_max = sys.get_int_max_str_digits()
    at: list[Any] = []  # the current key or index of each open object and array
    keys: list[set[str] | None] = []  # for each open object its keys so far, None for an array
    is_key = False
    for match in _TOKEN.finditer(content):
        symbol = match[0]
        fault = ""
        if symbol in "{[":
            at.append(0)
            keys.append(set() if symbol == "{" else None)
            if is_too_deep and len(at) > _LEVELS_MAX:
                fault = f"{_path(at[:3])} nests deeper than {_LEVELS_MAX} levels"
        elif symbol in "}],":
            if not at:
                break  # not valid JSON: the parser ran out of stack before it reached this fault
            if symbol != ",":
                del at[-1], keys[-1]
            elif keys[-1] is None:
                at[-1] += 1
        elif symbol[0] != '"':
            if symbol.isdigit() and len(symbol) > digits_max > 0:
                fault = f"{_path(at)} is an integer of {len(symbol)} digits"
        elif is_key and (object_keys := keys[-1]) is not None:
            at[-1] = json.loads(symbol)
            if at[-1] in object_keys:
                fault = f"{_path(at[:-1])} has the key {at[-1][:80]!r} twice"
            object_keys.add(at[-1])
        if fault:
            return json.JSONDecodeError(fault, content, match.start())
        is_key = symbol in "{,"
    return ValueError("nests too deep")


def _path(at: list[Any]) -> str:
    """Return a place as messages name it, like `agents[1].checkpoint['key'][0]`."""
    if not at:
        return "the file"
    parts = [
        f".{key:.80}" if depth < 3 and isinstance(key, str) else f"[{key!r:.80}]"
        for depth, key in enumerate(at[:_SHOWN_KEYS_MAX])
    ]
    return "".join(parts).removeprefix(".") + ("..." if len(at) > _SHOWN_KEYS_MAX else "")


# --- the agents in it ---


def _agents(
    document: Any, path: str, at_ms: int, limits: Limits, *, skip_unknown: bool
) -> list[Import]:
    version = _dict("the file", document).get("schema_version")
    if version is True or version != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version is {arguments.short_repr(version)}; only {SCHEMA_VERSION} is known"
        )
    by_id: dict[str, Import] = {}
    for index, item in enumerate(_list("agents", document.get("agents"))):
        where = f"agents[{index}]"
        try:
            agent = _agent(where, _dict(where, item), at_ms, limits)
        except _UnknownStatusError as error:
            if not skip_unknown:
                raise
            log.warning("%s: %s; the agent is left out", path, error)
            continue
        if by_id.setdefault(agent.agent_id, agent) is not agent:
            raise ValueError(f"{where}.id: an earlier agent has the id {agent.agent_id!r} too")
    names: set[str] = set()  # of live agents
    for agent_id, agent in by_id.items():
        is_live = agent.status in LIVE
        if agent.name != agent_id and (agent.name in by_id or (is_live and agent.name in names)):
            by_id[agent_id] = named_by_id(agent)
        elif is_live:
            names.add(agent.name)
    agents, ownerless = with_workers(by_id, document)
    if ownerless:
        kept = "kept in the metadata of the first agent" if agents else "left out"
        log.warning("%s: workers of no agent in the file, %s: %d", path, kept, ownerless)
    return agents


def _agent(where: str, agent: dict[str, Any], at_ms: int, limits: Limits) -> Import:
    agent_type = text(f"{where}.agent_type", _get(agent, "agent_type", "general"))
    assignment = _dict(f"{where}.assignment", _get(agent, "assignment", {}))
    objective = optional_text(f"{where}.assignment.objective", assignment.get("objective"))
    agent_id = text(f"{where}.id", agent.get("id"))
    if not 1 <= len(agent_id.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"{where}.id must have 1 to {NAME_BYTES_MAX} bytes")
    name, rejected_name = _name(f"{where}.session_name", agent_id, agent.get("session_name"))
    status, reason = _status(f"{where}.status", agent.get("status"))
    updated_at_ms = whole(f"{where}.updated_at_ms", _get(agent, "updated_at_ms", 0)) or at_ms
    duration_ms = whole(f"{where}.duration_ms", _get(agent, "duration_ms", 0))
    started_at_ms = max(updated_at_ms - duration_ms, 0)
    unknown = {key: value for key, value in agent.items() if key not in _KNOWN}
    # An unknown field that happens to be called "objective" keeps that place in the metadata.
    is_free = "objective" not in unknown
    moved = ("objective", "role") if is_free else ("role",)
    mapped = {
        "objective": objective if is_free else None,
        "nickname": optional_text(f"{where}.nickname", agent.get("nickname")),
        "session_name": rejected_name,
        "assignment": {k: v for k, v in assignment.items() if k not in moved},
    }
    return Import(
        kind="import",
        agent_id=agent_id,
        name=name,
        agent_type="general" if agent_type == TASK_TYPE else agent_type,
        role=optional_text(f"{where}.assignment.role", assignment.get("role")),
        model=optional_text(f"{where}.model", agent.get("model")) or None,
        prompt=prompt_text(
            f"{where}.prompt", _get(agent, "prompt", objective), limits.prompt_bytes_max
        ),
        status=status,
        reason=_tail(f"{where}.status", reason, limits),
        result=_tail(f"{where}.result", agent.get("result"), limits),
        steps_taken=whole(f"{where}.steps_taken", _get(agent, "steps_taken", 0)),
        checkpoint=json_value(f"{where}.checkpoint", agent.get("checkpoint")),
        needs_input=json_value(f"{where}.needs_input", agent.get("needs_input")),
        allowed_tools=_tools(f"{where}.allowed_tools", agent.get("allowed_tools")),
        parent_id=None,
        spawn_depth=0,
        token_budget=None,
        tokens_used=0,
        metadata=json_value(where, unknown | {k: v for k, v in mapped.items() if v}),
        created_at_ms=started_at_ms,
        started_at_ms=started_at_ms,
        updated_at_ms=updated_at_ms,
        ended_at_ms=updated_at_ms if status in ENDED else None,
        boot_id=text(f"{where}.session_boot_id", _get(agent, "session_boot_id", "")),
    )


def _name(where: str, agent_id: str, name: object) -> tuple[str, str | None]:
    """Return the agent's name, and the session_name if no agent may have that as a name."""
    name = optional_text(where, name)
    if not name or name == agent_id:
        return agent_id, None
    try:
        return checked_name(name), None
    except ValueError:
        return agent_id, name


def _status(where: str, value: object) -> tuple[str, str | None]:
    if isinstance(value, str) and value in _STATUSES:
        return _STATUSES[value], RESTARTED if value == "Running" else None
    if isinstance(value, dict) and len(value) == 1:
        ((kind, reason),) = value.items()
        if kind in _STATUSES_WITH_TEXT:
            return _STATUSES_WITH_TEXT[kind], text(f"{where}.{kind}", reason)
    allowed = [*_STATUSES, *(f'{{"{kind}": text}}' for kind in _STATUSES_WITH_TEXT)]
    raise _UnknownStatusError(
        f"{where} must be one of {', '.join(allowed)}, not {str(value)[:80]!r}"
    )


def _tools(where: str, value: object) -> list[str] | None:
    tools = _list(where, [] if value is None else value)
    return [text(f"{where}[{index}]", tool) for index, tool in enumerate(tools)] or None


def _tail(where: str, value: object, limits: Limits) -> str | None:
    return None if value is None else tail(where, value, limits.result_bytes_max)


def _sliced(agents: list[Import], record_bytes_max: int) -> list[list[Import]]:
    """Return `agents` in slices of one batch each.

    Raises ValueError for a record that exceeds the journal's limit. The journal would refuse it
    only after the agents before it were imported.
    """
    slices: list[list[Import]] = []
    free_bytes = 0
    for index, agent in enumerate(agents):
        size = len(msgpack.packb([*agent], strict_types=True)) + _GROWTH_BYTES_MAX
        if size > record_bytes_max:
            raise ValueError(
                f"agents[{index}]: {size} bytes, over record_bytes_max={record_bytes_max}; "
                "raise that option"
            )
        if not slices or len(slices[-1]) == HOLD_AGENTS_MAX or size > free_bytes:
            slices.append([])
            free_bytes = min(_SLICE_BYTES, record_bytes_max)
        slices[-1].append(agent)
        free_bytes -= size
    return slices


def _get(values: dict[str, Any], key: str, default: Any) -> Any:
    value = values.get(key)
    return default if value is None else value


def _dict(where: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{where} must be an object, not {type(value).__name__}")
    return value


def _list(where: str, value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{where} must be an array, not {type(value).__name__}")
    return value
