"""Records: the changes as the journal stores them. They are built before any lock is taken.

Each kind of record has a class in `manager.layouts` that lists its fields in the order in which
they are journaled: as a msgpack array, with the kind first. Replay derives its checks from these
classes, and `RECORD_FIELDS` gives readers of logs the names of the fields. A kind that changes
agents also has a step in `manager.steps`.

A record itself is a list that nothing else refers to, and not an instance of its class. The reason
is that msgpack does not pack subclasses, and that making a record by field names would take 0.6 us
instead of 0.03 for each change of an agent. So the functions below and the steps must follow the
order of the fields; `test_manager_records.py` checks that they do.

Values from callers are copied into a record. They are checked to be values that msgpack and JSON
both carry unchanged, so that replay gives the live state. Facts that only the fleet knows (the id
that a `ref` means, the depth of a parent) are filled in under the lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from manager.agent import Row, get
from manager.layouts import KINDS, Import, Record, Resume, Spawn, Take, UsageOnce
from manager.values import (
    INT_MAX,
    checked_name,
    json_value,
    prompt_text,
    source_name,
    text,
    texts,
    whole,
)

APPLICATION_PREFIX = "subagents/"
"""The prefix of `Options.application` in the journals of all versions of the manager."""
APPLICATION = f"{APPLICATION_PREFIX}1"
RESTARTED = "process restarted"  # the reason of agents that were running when the process ended
STOPPED = "worker loop stopped"  # the reason of agents whose loop was cancelled
HANDED_BACK = "worker stopped"  # the reason of agents whose worker was stopped
WORKER_LOST = "worker lost"  # the reason of agents whose worker was silent for too long

# The kinds of records of the tables beside the fleet: see journal/docs/FORMAT.md, "Tables".
_KINDS_OF_TABLES = frozenset(("rows", "piece", "drop"))
_FIELDS_OF_TABLES = frozenset(("table", "piece"))  # one of them is in each item
HEADS_OF_TABLES = b'{"table":', b'{"piece":', b'{"upload":'
"""The beginnings of an item's line."""

# The key of an item that is not an agent; see manager.sources.
USAGE_SOURCES = "usage_sources"

# Indices in a record.
KIND = 0
AGENT_ID = 1  # of every kind but "boot"
AT_MS = 2  # of every kind that changes an agent
PARENT = slice(Spawn._fields.index("parent_id"), Spawn._fields.index("spawn_depth") + 1)
ATTEMPT = slice(Spawn._fields.index("attempt"), None)
# The indices of some fields, by kind of record.
CHECKPOINTS = {
    kind: fields._fields.index("checkpoint")
    for kind, fields in KINDS.items()
    if "checkpoint" in fields._fields and fields is not Import
}
STEPS_AT = {kind: KINDS[kind]._fields.index("steps_taken") for kind in ("checkpoint", "result")}
SOURCE_ID = UsageOnce._fields.index("source_id")
TAKEN_BY = Take._fields.index("taken_by")
TOKEN_BUDGET_OF_RESUME = Resume._fields.index("token_budget")


def steps_index(record: Record) -> int:
    """Return the index of the steps that a record reports; 0 if it reports none."""
    at = STEPS_AT.get(record[KIND], 0)
    return 0 if record[at] is None else at


def source_of(record: Record) -> str | None:
    """Return the source of a usage, or None if it has none or the record is of another kind."""
    return record[SOURCE_ID] if record[KIND] == "usage_once" else None


def is_of_tables(record: object) -> bool:
    """Return whether `record` is one of the tables beside the fleet."""
    kind = record[0] if type(record) is list and record else None
    return type(kind) is str and kind in _KINDS_OF_TABLES


def is_item_of_tables(item: object) -> bool:
    """Return whether a checkpoint's item is one of the tables beside the fleet."""
    return type(item) is dict and not _FIELDS_OF_TABLES.isdisjoint(item)


def is_item_of_sources(item: object) -> bool:
    """Return whether a checkpoint's item has sources of usage."""
    return type(item) is dict and USAGE_SOURCES in item


def parent_and_depth(parent: Row) -> list[Any]:
    """Return the fields at `PARENT` of an agent that is spawned below `parent`."""
    return [get.agent_id(parent), get.spawn_depth(parent) + 1]


def imported(agent: Import) -> Record:
    """Return the record of an imported agent. A first attempt is left out, as in `Spawn`."""
    return [*agent] if agent.attempt > 1 else [*agent[:-1]]


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
    """Return a spawn record. Raises TypeError or ValueError, which names the value at fault."""
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
        # Most of these are absent. The tests for that take a sixth of the time of the calls.
        None if role is None else text("role", role),
        None if model is None else text("model", model),
        prompt_text("prompt", prompt, prompt_bytes_max),
        None if allowed_tools is None else texts("allowed_tools", allowed_tools),
        None if token_budget is None else whole("token_budget", token_budget, low=1),
        json_value("metadata", metadata) if metadata else {},
    ]


def start(at_ms: int, boot_id: str) -> Record:
    return ["start", "", at_ms, boot_id]


def resume(
    at_ms: int, boot_id: str, checkpoint: object = None, token_budget: int | None = None
) -> Record:
    record = ["resume", "", at_ms, boot_id]
    if checkpoint is None and token_budget is None:
        return record
    return [*record, json_value("checkpoint", checkpoint), _token_budget(token_budget)]


def lease(at_ms: int, boot_id: str, worker: str, epoch: int) -> Record:
    return ["lease", "", at_ms, boot_id, text("worker", worker), epoch]


def report(agent_id: str, at_ms: int, sequence: int) -> Record:
    return ["report", agent_id, at_ms, whole("sequence", sequence, low=1)]


def lost(agent_id: str, at_ms: int, status: str, reason: str) -> Record:
    return ["lost", agent_id, at_ms, status, reason]


def answer(at_ms: int, value: object) -> Record:
    if value is None:
        raise ValueError("answer must not be None, which means that there is no answer")
    return ["answer", "", at_ms, json_value("answer", value)]


def budget(at_ms: int, token_budget: int | None) -> Record:
    return ["budget", "", at_ms, _token_budget(token_budget)]


def take(at_ms: int) -> Record:
    return ["take", "", at_ms, ""]


def _token_budget(value: int | None) -> int | None:
    return None if value is None else whole("token_budget", value, low=1)


def check_steps(checkpoint: object, steps_taken: int | None) -> None:
    """Raise ValueError for steps without a checkpoint, which would be replaced with null."""
    if checkpoint is None and steps_taken is not None:
        raise ValueError("steps_taken counts the steps of a checkpoint; pass both, or neither")


def checkpoint(at_ms: int, value: object, steps_taken: int) -> Record:
    return [
        "checkpoint",
        "",
        at_ms,
        json_value("checkpoint", value),
        steps_taken
        if type(steps_taken) is int and 0 <= steps_taken <= INT_MAX
        else whole("steps_taken", steps_taken),
    ]


def progress(at_ms: int, text: str, data: object, keep: int) -> Record:
    return ["progress", "", at_ms, text, json_value("data", data), keep]


def usage(
    at_ms: int, input_tokens: int, output_tokens: int, source_id: str | None = None
) -> Record:
    record = [
        "usage",
        "",
        at_ms,
        whole("input_tokens", input_tokens),
        whole("output_tokens", output_tokens),
    ]
    if source_id is not None:
        record[KIND] = "usage_once"
        record.append(source_name("source_id", source_id))
    return record


def interrupt(agent_id: str, at_ms: int, reason: str, value: object, needs_input: object) -> Record:
    return [
        "interrupt",
        agent_id,
        at_ms,
        reason,
        json_value("checkpoint", value),
        json_value("needs_input", needs_input),
    ]


def interrupt_by_restart(agent_id: str, at_ms: int) -> Record:
    """Return the record that interrupts an agent because its process has ended."""
    return interrupt(agent_id, at_ms, RESTARTED, None, None)


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
