"""Layouts: the fields of each kind of record, in the order in which they are journaled.

Each kind has a class that lists its fields, with the kind first. `KINDS` is the table of these
classes; see `manager.records`, which builds the records.
"""

# This module does not use `from __future__ import annotations`: to derive the checks from
# annotations that are strings takes 0.3 ms more, each time that a program starts.
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

JSON = Any  # null, bool, int, float, str, list or dict with str keys
Record = list[Any]


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


class Leased(Layout):
    """A queued or interrupted agent began to run on a worker. Its lease's token is the epoch and
    the LSN of this record."""

    kind: Literal["lease"]
    agent_id: str
    at_ms: int
    boot_id: str
    worker: str
    epoch: int


class Reported(Layout):
    """The worker of a leased agent made its report of this number. The next record of the batch
    has its content."""

    kind: Literal["report"]
    agent_id: str
    at_ms: int
    sequence: int


class Lost(Layout):
    """A leased agent lost its worker."""

    kind: Literal["lost"]
    agent_id: str
    at_ms: int
    status: Literal["interrupted", "failed"]
    reason: str


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


class Usage(Layout):
    """An agent used tokens, which count for its ancestors too."""

    kind: Literal["usage"]
    agent_id: str
    at_ms: int
    input_tokens: int
    output_tokens: int


class UsageOnce(Layout):
    """An agent used tokens for a source. No other record has the same source and agent."""

    kind: Literal["usage_once"]
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
    "lease": Leased,
    "report": Reported,
    "lost": Lost,
    "answer": Answer,
    "budget": Budget,
    "take": Take,
    "checkpoint": Checkpoint,
    "progress": ProgressMade,
    "usage": Usage,
    "usage_once": UsageOnce,
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
