"""Legacy: the file that agents were kept in before there was a journal, as records of it.

    {"schema_version": 1, "agents": [{...}, ...], "workers": [...]}

In the file, and in an Agent:

    id                                      agent_id
    session_name                            name, unless it is an id, or a live agent's name: then
                                            the id is the name, and it is kept in metadata
    agent_type, prompt, model, result,      the same; a prompt may be left out where there is an
    steps_taken, checkpoint, needs_input    objective, which is the prompt then
    assignment.role                         role
    assignment.objective, nickname          metadata
    status "Completed", "Cancelled",        the same
      "BudgetExhausted"
    status "Running"                        interrupted, with the reason "process restarted"
    status {"Failed": text},                the same; the text is the reason
      {"Interrupted": text}
    allowed_tools [], null                  None, which is all
    updated_at_ms                           updated_at_ms, and ended_at_ms of one that has ended;
                                            0 or none: the time of the import
    updated_at_ms - duration_ms             created_at_ms, started_at_ms
    session_boot_id                         boot_id
    any other field                         metadata, under its own name
    an item of workers                      metadata.workers of the agent that its agent_id,
                                            worker_id or id names; else logged, and left out

What is of a wrong type, or can't be journaled, refuses the whole file.
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
from manager.agent import ENDED, LIVE
from manager.errors import LegacyError
from manager.limits import HOLD_AGENTS_MAX, Limits
from manager.records import RESTARTED, Import
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
_LATER_BYTES = 512  # what a record may grow by when its name proves to be taken
_LEVELS_MAX = 103  # of what is taken: a value's 100, in an agent of the list in the file
_SHOWN_MAX = 8  # keys and indices of a place in a message
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


def read_legacy(
    path: str | os.PathLike[str], *, at_ms: int, limits: Limits, record_bytes_max: int
) -> list[list[Import]]:
    """The file's agents as "import" records, all checked, in slices of one batch each.

    Raises LegacyError naming the place, UnsafePathError for what is no regular file, OSError.
    """
    path = arguments.path("path", path)
    try:
        found = _agents(_parsed(_data(path)), path, at_ms, limits)
        return _sliced(found, record_bytes_max)
    except (TypeError, ValueError) as error:
        if isinstance(error, LegacyError):
            raise
        raise LegacyError(path, str(error)) from None


def call_by_id(agent: Import) -> Import:
    """Return `agent` with its id for a name, which it keeps in its metadata: that is taken."""
    metadata = {**agent.metadata}
    metadata.setdefault("session_name", agent.name)
    return agent._replace(name=agent.agent_id, metadata=metadata)


# --- the file ---


def _data(path: str) -> bytes:
    try:
        # A pipe without a writer would otherwise keep us here.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if os.path.islink(path):
            raise UnsafePathError("a symlink; give the file that it leads to", path=path) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UnsafePathError("not a regular file", path=path)
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
    except (RecursionError, ValueError) as error:  # these do not say where
        raise _parse_error(content, isinstance(error, RecursionError)) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is there twice")
    return made


def _parse_error(content: str, is_too_deep: bool) -> ValueError:
    """What keeps JSON from being read though it is JSON, with its place."""
    digits_max = sys.get_int_max_str_digits()
    at: list[Any] = []  # the key or index in each object and array that is open
    keys: list[set[str] | None] = []  # of each object all so far, None of an array
    is_key = False
    for match in _TOKEN.finditer(content):
        part = match[0]
        what = ""
        if part in "{[":
            at.append(0)
            keys.append(set() if part == "{" else None)
            if is_too_deep and len(at) > _LEVELS_MAX:
                what = f"{_path(at[:3])} nests deeper than {_LEVELS_MAX} levels"
        elif part in "}],":
            if not at:
                break  # only if the stack was short, and there is a fault of another kind
            if part != ",":
                del at[-1], keys[-1]
            elif keys[-1] is None:
                at[-1] += 1
        elif part[0] != '"':
            if part.isdigit() and len(part) > digits_max > 0:
                what = f"{_path(at)} is an integer of {len(part)} digits"
        elif is_key and (inside := keys[-1]) is not None:
            at[-1] = json.loads(part)
            if at[-1] in inside:
                what = f"{_path(at[:-1])} has the key {at[-1][:80]!r} twice"
            inside.add(at[-1])
        if what:
            return json.JSONDecodeError(what, content, match.start())
        is_key = part in "{,"
    return ValueError("nests too deep")


def _path(at: list[Any]) -> str:
    """As messages name a place: agents[1].checkpoint['key'][0]."""
    if not at:
        return "the file"
    short_repr = [
        f".{key:.80}" if depth < 3 and isinstance(key, str) else f"[{key!r:.80}]"
        for depth, key in enumerate(at[:_SHOWN_MAX])
    ]
    return "".join(short_repr).removeprefix(".") + ("..." if len(at) > _SHOWN_MAX else "")


# --- what is in it ---


def _agents(document: Any, path: str, at_ms: int, limits: Limits) -> list[Import]:
    version = _dict("the file", document).get("schema_version")
    if version is True or version != SCHEMA_VERSION:
        raise ValueError(
            f"schema_version is {arguments.short_repr(version)}; only {SCHEMA_VERSION} is known"
        )
    by_id: dict[str, Import] = {}
    for index, found in enumerate(_list("agents", document.get("agents"))):
        where = f"agents[{index}]"
        agent = _agent(where, _dict(where, found), at_ms, limits)
        if by_id.setdefault(agent.agent_id, agent) is not agent:
            raise ValueError(f"{where}.id: {agent.agent_id!r} is there twice")
    names: set[str] = set()  # of live agents
    for agent_id, agent in by_id.items():
        is_live = agent.status in LIVE
        if agent.name != agent_id and (agent.name in by_id or (is_live and agent.name in names)):
            by_id[agent_id] = call_by_id(agent)
        elif is_live:
            names.add(agent.name)
    _add_workers(by_id, document.get("workers"), path)
    return list(by_id.values())


def _agent(where: str, agent: dict[str, Any], at_ms: int, limits: Limits) -> Import:
    assignment = _dict(f"{where}.assignment", _get(agent, "assignment", {}))
    objective = optional_text(f"{where}.assignment.objective", assignment.get("objective"))
    agent_id = text(f"{where}.id", agent.get("id"))
    if not 1 <= len(agent_id.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"{where}.id must have 1 to {NAME_BYTES_MAX} bytes")
    name, unfit = _name(f"{where}.session_name", agent_id, agent.get("session_name"))
    status, reason = _status(f"{where}.status", agent.get("status"))
    updated_at_ms = whole(f"{where}.updated_at_ms", _get(agent, "updated_at_ms", 0)) or at_ms
    duration_ms = whole(f"{where}.duration_ms", _get(agent, "duration_ms", 0))
    started_at_ms = max(updated_at_ms - duration_ms, 0)
    unknown = {key: value for key, value in agent.items() if key not in _KNOWN}
    is_free = "objective" not in unknown  # of the same name, it is some other field
    apart = ("objective", "role") if is_free else ("role",)
    mapped = {
        "objective": objective if is_free else None,
        "nickname": optional_text(f"{where}.nickname", agent.get("nickname")),
        "session_name": unfit,
        "assignment": {k: v for k, v in assignment.items() if k not in apart},
    }
    return Import(
        kind="import",
        agent_id=agent_id,
        name=name,
        agent_type=text(f"{where}.agent_type", _get(agent, "agent_type", "general")),
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
    """What it is called here; and what it was called, if that can be nobody's name here."""
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
    known = [*_STATUSES, *(f'{{"{kind}": text}}' for kind in _STATUSES_WITH_TEXT)]
    raise ValueError(f"{where} must be one of {', '.join(known)}, not {str(value)[:80]!r}")


def _tools(where: str, value: object) -> list[str] | None:
    tools = _list(where, [] if value is None else value)
    return [text(f"{where}[{index}]", tool) for index, tool in enumerate(tools)] or None


def _tail(where: str, value: object, limits: Limits) -> str | None:
    return None if value is None else tail(where, value, limits.result_bytes_max)


def _add_workers(by_id: dict[str, Import], workers: object, path: str) -> None:
    strangers = 0
    for index, worker in enumerate(_list("workers", [] if workers is None else workers)):
        where = f"workers[{index}]"
        found = _dict(where, worker)
        owners = (found.get(key) for key in ("agent_id", "worker_id", "id"))
        owner = next((by_id[o] for o in owners if isinstance(o, str) and o in by_id), None)
        if owner is None:
            strangers += 1
        else:
            kept = owner.metadata.setdefault("workers", [])
            _list(f"the field workers of the owner of {where}", kept).append(
                json_value(where, [[found]])[0][0]  # as deep as it will stand
            )
    if strangers:
        log.warning("%s: %d of its workers belong to none of its agents: left out", path, strangers)


def _sliced(found: list[Import], record_bytes_max: int) -> list[list[Import]]:
    """Raises ValueError for a record over the journal's bound: later it would be half-way."""
    slices: list[list[Import]] = []
    room = 0
    for index, agent in enumerate(found):
        size = len(msgpack.packb([*agent], strict_types=True)) + _LATER_BYTES
        if size > record_bytes_max:
            raise ValueError(
                f"agents[{index}]: {size} bytes, over record_bytes_max={record_bytes_max}; "
                "raise that option"
            )
        if not slices or len(slices[-1]) == HOLD_AGENTS_MAX or size > room:
            slices.append([])
            room = min(_SLICE_BYTES, record_bytes_max)
        slices[-1].append(agent)
        room -= size
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
