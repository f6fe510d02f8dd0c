"""Agent: what a caller sees, the row it is built from, and the table of transitions.

Inside, an agent is a row: a tuple that is replaced, never mutated. An `Agent` is built of it
after the lock is released.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Any, Literal, get_args

from manager._public import public
from manager.arguments import short_repr

Status = Literal[
    "queued", "running", "interrupted", "completed", "failed", "cancelled", "budget_exhausted"
]
"""Of an agent: one of the first three while it lives (has not ended), else how it ended."""
STATUSES: tuple[Status, ...] = get_args(Status)
LIVE: tuple[Status, ...] = ("queued", "running", "interrupted")
ENDED: tuple[Status, ...] = tuple(status for status in STATUSES if status not in LIVE)

# What each method asks of an agent's status, and what it makes of it. This is the whole table:
# no other way leads from one status to another, so a late result never revives an agent.
VERBS: Mapping[str, tuple[tuple[Status, ...], tuple[Status, ...]]] = {
    "start": (("queued",), ("running",)),
    "resume": (("interrupted",), ("running",)),
    "update_checkpoint": (("running",), ("running",)),
    "interrupt": (("running",), ("interrupted",)),
    "update_from_result": (("running",), ("interrupted", *ENDED)),
    "update_failed": (("running",), ("failed",)),
    "cancel": (LIVE, ("cancelled",)),
}
TRANSITIONS: Mapping[Status, tuple[Status, ...]] = {
    source: tuple(
        target
        for target in STATUSES
        if target != source
        and any(source in sources and target in targets for sources, targets in VERBS.values())
    )
    for source in STATUSES
}

JSON = Any  # null, bool, int, float, str, list or dict with str keys


@public
@dataclass(slots=True)
class Agent:
    """A sub-agent as of one of its changes. It is a copy, so you may change it."""

    agent_id: str
    """The agent's identity."""

    name: str
    """The name that it was spawned with, or `agent_id` if it was given none."""

    agent_type: str
    """The type that it was spawned with, for its runner."""

    role: str | None
    """The role that it was spawned with, for its runner."""

    model: str | None
    """The model that it was spawned with, for its runner."""

    prompt: str
    """The prompt that it was spawned with, for its runner."""

    status: Status
    """The status: see `Status`."""

    reason: str | None
    """The error, or the cause of an interruption."""

    result: str | None
    """The result that its runner reported last."""

    steps_taken: int
    """The number of steps that its runner reported last."""

    checkpoint: JSON
    """The checkpoint of the agent (not of the engine): opaque JSON that its runner needs to resume
    it."""

    needs_input: JSON
    """The question that the agent waits on: opaque JSON that its runner needs to resume it."""

    allowed_tools: tuple[str, ...] | None
    """The tools that it may use. None allows all, () allows none."""

    parent_id: str | None
    """The `agent_id` of the agent that spawned it. None if none did."""

    spawn_depth: int
    """The number of its ancestors."""

    token_budget: int | None
    """The number of tokens that it and its descendants may use. None if it has no bound."""

    tokens_used: int
    """The number of tokens that it and its descendants have used, at most 2^64 - 1."""

    metadata: dict[str, JSON]
    """The JSON values that it was spawned with, by name, for its runner."""

    created_at_ms: int
    """The time at which it was spawned, in Unix milliseconds."""

    started_at_ms: int | None
    """The time at which it last began to run, in Unix milliseconds. None if it never did."""

    updated_at_ms: int
    """The time of its last change, in Unix milliseconds."""

    ended_at_ms: int | None
    """The time at which it ended, in Unix milliseconds. None while it lives."""

    boot_id: str
    """The session, which is one opening of the manager, that spawned it or last started or resumed
    it."""

    from_prior_session: bool
    """Whether that session is an earlier one than the present."""

    lsn: int
    """The LSN of the change that made it what it is here."""

    def __hash__(self) -> int:
        return hash((self.agent_id, self.lsn))


# A row holds an Agent's fields in their order, but for the computed one; `allowed_tools` is a
# list in it, as in records and checkpoints.
Row = tuple[Any, ...]
FIELDS = tuple(field.name for field in fields(Agent) if field.name != "from_prior_session")


def _field(name: str) -> Any:
    return itemgetter(FIELDS.index(name))


class get:  # noqa: N801 - it reads like a verb
    """The fields of a row, each by a function of its name: `get.status(row)`.

    That takes 14 ns; a subscript takes 5, and `row.status` would take 12, but the garbage collector
    goes through the instances of a subclass of tuple again and again.
    """

    agent_id: Callable[[Row], str] = _field("agent_id")
    name: Callable[[Row], str] = _field("name")
    status: Callable[[Row], Status] = _field("status")
    steps_taken: Callable[[Row], int] = _field("steps_taken")
    checkpoint: Callable[[Row], JSON] = _field("checkpoint")
    needs_input: Callable[[Row], JSON] = _field("needs_input")
    allowed_tools: Callable[[Row], list[str] | None] = _field("allowed_tools")
    parent_id: Callable[[Row], str | None] = _field("parent_id")
    spawn_depth: Callable[[Row], int] = _field("spawn_depth")
    token_budget: Callable[[Row], int | None] = _field("token_budget")
    tokens_used: Callable[[Row], int] = _field("tokens_used")
    metadata: Callable[[Row], dict[str, JSON]] = _field("metadata")
    created_at_ms: Callable[[Row], int] = _field("created_at_ms")
    started_at_ms: Callable[[Row], int | None] = _field("started_at_ms")
    updated_at_ms: Callable[[Row], int] = _field("updated_at_ms")
    ended_at_ms: Callable[[Row], int | None] = _field("ended_at_ms")
    boot_id: Callable[[Row], str] = _field("boot_id")
    lsn: Callable[[Row], int] = _field("lsn")


_ATOMS = frozenset((str, int, float, bool, type(None)))


def agent_from_row(row: Row, boot_id: str) -> Agent:
    """Return the Agent that `row` is, seen from the session `boot_id`. It shares nothing that can
    change."""
    agent = Agent.__new__(Agent)
    (
        agent.agent_id,
        agent.name,
        agent.agent_type,
        agent.role,
        agent.model,
        agent.prompt,
        agent.status,
        agent.reason,
        agent.result,
        agent.steps_taken,
        checkpoint,
        needs_input,
        allowed_tools,
        agent.parent_id,
        agent.spawn_depth,
        agent.token_budget,
        agent.tokens_used,
        metadata,
        agent.created_at_ms,
        agent.started_at_ms,
        agent.updated_at_ms,
        agent.ended_at_ms,
        agent.boot_id,
        agent.lsn,
    ) = row
    agent.checkpoint = None if checkpoint is None else _copied(checkpoint)
    agent.needs_input = None if needs_input is None else _copied(needs_input)
    agent.allowed_tools = None if allowed_tools is None else tuple(allowed_tools)
    agent.metadata = _copied(metadata) if metadata else {}
    agent.from_prior_session = agent.boot_id != boot_id
    return agent


def agents_from_rows(
    rows: Iterable[Row], boot_id: str, *, status: Status | None, include_archived: bool
) -> list[Agent]:
    """The Agents among `rows` with that status (None: any), oldest first.

    Archived ones, which have ended in a session other than `boot_id`, only if asked for.
    """
    if status is not None and status not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, not {short_repr(status)}")
    chosen = [
        row
        for row in rows
        if (status is None or get.status(row) == status)
        and (include_archived or get.status(row) in LIVE or get.boot_id(row) == boot_id)
    ]
    chosen.sort(key=get.created_at_ms)  # stable: of one millisecond as they stand
    return [agent_from_row(row, boot_id) for row in chosen]


def _copied(value: JSON) -> JSON:
    kind = type(value)
    if kind is dict:
        return {key: item if type(item) in _ATOMS else _copied(item) for key, item in value.items()}
    if kind is list:
        return [item if type(item) in _ATOMS else _copied(item) for item in value]
    return value
