"""Records: the changes as the journal stores them. They are built before any lock is taken.

Each kind of record has a class below that lists its fields in the order in which they are
journaled: as a msgpack array, with the kind first. `KINDS` is the table of these classes. Replay
derives its checks from it, and `RECORD_FIELDS` gives readers of logs the names of the fields. A
kind that changes agents also has a step in `manager.steps`.

A record itself is a list that nothing else refers to, and not an instance of its class: msgpack
does not pack subclasses, and to make a record by field names would take 0.6 us instead of 0.03 for
each change of an agent. So the functions below and the steps must follow the order of the fields;
`test_manager_records.py` checks that they do.

Values from callers are copied into a record. They are checked to be values that msgpack and JSON
both carry unchanged, so that replay gives the live state. Facts that only the fleet knows (the id
that a `ref` means, the depth of a parent) are filled in under the lock.
"""

# This module does not use `from __future__ import annotations`: to derive the checks from
# annotations that are strings takes 0.3 ms more, each time that a program starts.
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from manager.agent import Row, get
from manager.values import (
    checked_name,
    json_value,
    optional_text,
    prompt_text,
    source_name,
    text,
    tool_names,
    whole,
)

JSON = Any  # null, bool, int, float, str, list or dict with str keys
Record = list[Any]

APPLICATION_PREFIX = "subagents/"
"""The prefix of `Options.application` in the journals of all versions of the manager."""
APPLICATION = f"{APPLICATION_PREFIX}1"
RESTARTED = "process restarted"  # the reason of agents that were running when the process ended


class Layout:
    """The fields of one kind of record, with their types. There are no instances.

    The layouts are not NamedTuples, because creating those takes 1 ms at each program start.
    `Import` is one, because a legacy file is read into instances of it.
    """

    if TYPE_CHECKING:  # an annotation here would count as a field
        _fields: ClassVar[tuple[str, ...]]
        _optional: ClassVar[int]

    def __init_subclass__(cls, *, optional: int = 0) -> None:
        """Collect the fields. A record may lack the last `optional` ones, as those of an older
        manager do."""
        cls._fields, cls._optional = tuple(cls.__annotations__), optional


class Boot(Layout):
    """A manager opened the journal."""

    kind: Literal["boot"]
    application: str
    boot_id: str
    at_ms: int
    pid: int


class Spawn(Layout, optional=1):
    """An agent was spawned. Without a `name`, its name is its id. A first attempt is left out."""

    kind: Literal["spawn"]
    agent_id: str
    at_ms: int
    boot_id: str
    parent_id: str | None
    spawn_depth: int
    status: Literal["queued", "running"]
    name: str | None
    agent_type: str
    role: str | None
    model: str | None
    prompt: str
    allowed_tools: list[str] | None
    token_budget: int | None
    metadata: dict[str, JSON]
    attempt: int


class Start(Layout):
    """A queued agent began to run."""

    kind: Literal["start"]
    agent_id: str
    at_ms: int
    boot_id: str


class Resume(Layout, optional=2):
    """An interrupted agent began to run again. A nil checkpoint or token_budget keeps the agent's.
    Both are left out if both are nil."""

    kind: Literal["resume"]
    agent_id: str
    at_ms: int
    boot_id: str
    checkpoint: JSON
    token_budget: int | None


class Answer(Layout):
    """The question of an interrupted agent was answered."""

    kind: Literal["answer"]
    agent_id: str
    at_ms: int
    answer: JSON


class Take(Layout):
    """The result of an ended agent was taken by an agent."""

    kind: Literal["take"]
    agent_id: str
    at_ms: int
    taken_by: str


class Budget(Layout):
    """An agent got another token budget. Nil means no limit."""

    kind: Literal["budget"]
    agent_id: str
    at_ms: int
    token_budget: int | None


class Checkpoint(Layout):
    """A running agent reported its progress."""

    kind: Literal["checkpoint"]
    agent_id: str
    at_ms: int
    checkpoint: JSON
    steps_taken: int


class ProgressMade(Layout):
    """A running agent reported an event of its progress. At most `keep` events are kept."""

    kind: Literal["progress"]
    agent_id: str
    at_ms: int
    text: str
    data: JSON
    keep: int


class Usage(Layout, optional=1):
    """An agent used tokens, which count for its ancestors too. Without a source, the last field is
    left out. With one, no other record has the same source and agent."""

    kind: Literal["usage"]
    agent_id: str
    at_ms: int
    input_tokens: int
    output_tokens: int
    source_id: str


class Interrupt(Layout):
    """A running agent was interrupted. A nil checkpoint keeps the agent's."""

    kind: Literal["interrupt"]
    agent_id: str
    at_ms: int
    reason: str
    checkpoint: JSON
    needs_input: JSON


class Result(Layout):
    """A run ended. A nil result, steps_taken or checkpoint keeps the agent's."""

    kind: Literal["result"]
    agent_id: str
    at_ms: int
    status: Literal["interrupted", "completed", "failed", "cancelled", "budget_exhausted"]
    result: str | None
    reason: str | None
    steps_taken: int | None
    checkpoint: JSON
    needs_input: JSON
    input_tokens: int
    output_tokens: int


class Cancel(Layout):
    """A live agent was cancelled."""

    kind: Literal["cancel"]
    agent_id: str
    at_ms: int
    reason: str | None


class Remove(Layout):
    """An ended agent without children was removed."""

    kind: Literal["remove"]
    agent_id: str


class Import(NamedTuple):
    """An agent was imported from a legacy file. The record has the fields of a row up to the LSN,
    and the attempt if it is not the first."""

    kind: Literal["import"]
    agent_id: str
    name: str
    agent_type: str
    role: str | None
    model: str | None
    prompt: str
    status: str
    reason: str | None
    result: str | None
    steps_taken: int
    checkpoint: JSON
    needs_input: JSON
    allowed_tools: list[str] | None
    parent_id: str | None
    spawn_depth: int
    token_budget: int | None
    tokens_used: int
    metadata: dict[str, JSON]
    created_at_ms: int
    started_at_ms: int | None
    updated_at_ms: int
    ended_at_ms: int | None
    boot_id: str
    attempt: int = 1


def optional_fields(layout: type[Layout | Import]) -> int:
    """Return the number of fields that a record of this layout may lack at its end."""
    if issubclass(layout, Layout):
        return layout._optional
    return len(Import._field_defaults)


KINDS: Mapping[str, type[Layout | Import]] = {
    "boot": Boot,
    "spawn": Spawn,
    "start": Start,
    "resume": Resume,
    "answer": Answer,
    "budget": Budget,
    "take": Take,
    "checkpoint": Checkpoint,
    "progress": ProgressMade,
    "usage": Usage,
    "interrupt": Interrupt,
    "result": Result,
    "cancel": Cancel,
    "remove": Remove,
    "import": Import,
}
RECORD_FIELDS: Mapping[str, tuple[str, ...]] = {
    kind: fields._fields[1:] for kind, fields in KINDS.items()
}
"""The field names of each kind of record that a manager journals, by kind. A record is a list of
its kind and a value for each field. It may lack the last ones; see `OPTIONAL_RECORD_FIELDS`."""
OPTIONAL_RECORD_FIELDS: Mapping[str, int] = {
    kind: optional_fields(fields) for kind, fields in KINDS.items()
}
"""The number of fields, by kind of record, that a record may lack at its end."""

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
_STEPS = {kind: KINDS[kind]._fields.index("steps_taken") for kind in ("checkpoint", "result")}
SOURCE_ID = Usage._fields.index("source_id")
TAKEN_BY = Take._fields.index("taken_by")
TOKEN_BUDGET_OF_RESUME = Resume._fields.index("token_budget")


def steps_index(record: Record) -> int:
    """Return the index of the steps that a record reports; 0 if it reports none."""
    at = _STEPS.get(record[KIND], 0)
    return 0 if record[at] is None else at


def source_of(record: Record) -> str | None:
    """Return the source of a usage, or None if it has none or the record is of another kind."""
    if record[KIND] != "usage" or len(record) <= SOURCE_ID:
        return None
    source_id: str = record[SOURCE_ID]
    return source_id


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
    """Return a spawn record. Raise TypeError or ValueError, which names the value at fault."""
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
        _token_budget(token_budget),
        json_value("metadata", metadata or {}),
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


def checkpoint(at_ms: int, value: object, steps_taken: int) -> Record:
    return [
        "checkpoint",
        "",
        at_ms,
        json_value("checkpoint", value),
        whole("steps_taken", steps_taken),
    ]


def progress(at_ms: int, text: str, data: object, keep: int) -> Record:
    return ["progress", "", at_ms, text, json_value("data", data), keep]


def usage(
    at_ms: int, input_tokens: int, output_tokens: int, source_id: str | None = None
) -> Record:
    return [
        "usage",
        "",
        at_ms,
        whole("input_tokens", input_tokens),
        whole("output_tokens", output_tokens),
        *([] if source_id is None else [source_name("source_id", source_id)]),
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
