"""Agent: the public view of an agent, the row that it is built from, and the transition table.

Internally, an agent is a row: a tuple that is replaced, never mutated. An `Agent` is built from the
row after the lock is released.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from operator import itemgetter
from typing import Any, Literal, TypeAlias, TypedDict, get_args

from manager._public import public
from manager.arguments import short_repr

Status = Literal[
    "queued", "running", "interrupted", "completed", "failed", "cancelled", "budget_exhausted"
]
"""An agent's status. A live agent has one of the first three, and an ended agent one of the others.
"""
STATUSES: tuple[Status, ...] = get_args(Status)
LIVE: tuple[Status, ...] = ("queued", "running", "interrupted")
ENDED: tuple[Status, ...] = tuple(status for status in STATUSES if status not in LIVE)

# The statuses from which each method may be called, and those to which it may lead. No other
# transition exists, so a late result never revives an agent.
VERBS: Mapping[str, tuple[tuple[Status, ...], tuple[Status, ...]]] = {
    "start": (("queued",), ("running",)),
    "resume": (("interrupted",), ("running",)),
    "update_checkpoint": (("running",), ("running",)),
    "progress": (("running",), ("running",)),
    "interrupt": (("running",), ("interrupted",)),
    # An interrupted agent may end with its partial result. It can't be interrupted again.
    "update_from_result": (("running", "interrupted"), ("interrupted", *ENDED)),
    "update_failed": (("running", "interrupted"), ("failed",)),
    "answer": (("interrupted",), ("interrupted",)),
    "take": (ENDED, ()),
    "prune": (ENDED, ()),
    # A worker of another process runs the agent under a lease; see `manager.leasing`.
    "lease": (("queued", "interrupted"), ("running",)),
    "report": (("running",), ("running",)),
    "lose": (("running",), ("interrupted", "failed")),
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

JSON: TypeAlias = Any
"""A JSON value: None, a bool, int, float or str, or a list or a dict of these. The keys of a dict
are strings."""


@public
class Progress(TypedDict):
    """An event of an agent's progress, as its runner reported it."""

    number: int
    """The number of the event: 1 for the agent's first one, and one more for each that follows."""

    at_ms: int
    """The time of the event, in Unix milliseconds."""

    text: str
    """The text of the event."""

    data: JSON
    """The JSON value given with the text, or None."""


@public
class Lease(TypedDict):
    """The latest run of an agent on a worker, which is a process on this or another machine.

    The worker may run the agent while it gives signs of life. `epoch` and `lsn` together are the
    lease's token, which no other lease of the journal has.
    """

    worker: str
    """The id of the worker: its name (by default, its machine's), a dot, and a random suffix."""

    epoch: int
    """The epoch of the journal in which the lease began."""

    lsn: int
    """The LSN of the record with which the lease began."""

    sequence: int
    """The number of the worker's last report that was recorded, or 0."""

    lost: int
    """The number of leases of the agent that were lost because their workers were silent."""


@public
@dataclass(slots=True)
class Agent:
    """A sub-agent as one of its changes left it. It is a copy, so you may modify it."""

    agent_id: str
    """The agent's id."""

    name: str
    """The name given to `spawn`, or `agent_id` if none was given."""

    agent_type: str
    """The type given to `spawn`, for the agent's runner."""

    role: str | None
    """The role given to `spawn`, for the agent's runner."""

    model: str | None
    """The model given to `spawn`, for the agent's runner."""

    prompt: str
    """The prompt given to `spawn`, for the agent's runner."""

    status: Status
    """The status; see `Status`."""

    reason: str | None
    """The error of a failed agent, or the cause of an interruption or a cancellation."""

    result: str | None
    """The result that the runner reported last."""

    steps_taken: int
    """The highest number of steps that the runner reported. It never falls."""

    checkpoint: JSON
    """The agent's checkpoint (not the engine's): opaque JSON that the runner needs to resume the
    agent."""

    needs_input: JSON
    """The question that the agent waits for an answer to: opaque JSON for the runner."""

    allowed_tools: tuple[str, ...] | None
    """The tools that the agent may use. None allows all, () allows none."""

    parent_id: str | None
    """The `agent_id` of the agent's parent, or None."""

    spawn_depth: int
    """The number of the agent's ancestors."""

    token_budget: int | None
    """The number of tokens that the agent and its descendants may use. None means no limit."""

    tokens_used: int
    """The number of tokens that the agent and its descendants have used, at most 2^64 - 1."""

    metadata: dict[str, JSON]
    """The JSON values given to `spawn`, by name, for the agent's runner."""

    created_at_ms: int
    """The time at which the agent was spawned, in Unix milliseconds."""

    started_at_ms: int | None
    """The time at which the agent last began to run, in Unix milliseconds, or None."""

    updated_at_ms: int
    """The time of the agent's last change, in Unix milliseconds."""

    ended_at_ms: int | None
    """The time at which the agent ended, in Unix milliseconds. None while it lives."""

    boot_id: str
    """The session that spawned, or last started or resumed, the agent. A session is one opening of
    the manager."""

    from_prior_session: bool
    """True if `boot_id` is an earlier session than the current one."""

    lsn: int
    """The LSN of the change that left the agent in this state."""

    attempt: int = 1
    """The number of this agent among those spawned under its name: 1, then one more than the newest
    agent of that name in the fleet. It is 1 for an agent without a name."""

    starts: int = 0
    """The number of times that this agent began to run, resumptions included."""

    answer: JSON = None
    """The answer to the last question (`needs_input`), as JSON, until the next question. `resume`
    returns it to the runner."""

    taken_by: str | None = None
    """The id of the agent that has taken the result, or None; see `SubAgentManager.take`."""

    taken_at_ms: int | None = None
    """The time at which the result was taken, in Unix milliseconds, or None."""

    progress: Progress | None = None
    """The last event of progress, or None. `SubAgentManager.events` returns earlier ones, too."""

    lease: Lease | None = None
    """The latest run on a worker, or None if the agent last ran in the manager's own process."""

    def __hash__(self) -> int:
        return hash((self.agent_id, self.lsn))


# A row holds an Agent's fields, except the computed `from_prior_session`. Its `allowed_tools` is a
# list, as in records and checkpoints. Each change makes a new row, so a row is short: the fields
# that few agents use are in a tuple of their own, the last value of the row. Almost all agents
# share that tuple with others. See `extras`.
Row = tuple[Any, ...]
Extras = tuple[Any, ...]
FIELDS = tuple(field.name for field in fields(Agent) if field.name != "from_prior_session")
"""All fields of an agent but `from_prior_session`, in the order in which an Agent has them. Fields
after `lsn` are newer than the first version of the manager, so items of checkpoints may lack
them."""
EXTRA_FIELDS = ("attempt", "starts", "answer", "progress", "lease")
ROW_FIELDS = (*(name for name in FIELDS if name not in EXTRA_FIELDS), "extras")
_SHARED: dict[Extras, Extras] = {}
_SHARED_MAX = 16


def extras(attempt: int, starts: int) -> Extras:
    """Return the extra fields of an agent that has no answer, no progress and no lease. Agents
    with the same small numbers share them."""
    made = attempt, starts, None, None, None
    # Replay may pass values of any type, of which some are equal to ints, such as True.
    if type(attempt) is type(starts) is int and 0 <= attempt < _SHARED_MAX > starts >= 0:
        return _SHARED.setdefault(made, made)
    return made


NEVER_STARTED, STARTED_ONCE = extras(1, 0), extras(1, 1)


def _field(name: str) -> Any:
    return itemgetter(ROW_FIELDS.index(name))


def _extra(name: str) -> Any:
    at = EXTRA_FIELDS.index(name)
    return staticmethod(lambda row: row[-1][at])


class get:  # noqa: N801 - a call reads like a sentence
    """Accessors of a row's fields, as in `get.status(row)`.

    A call takes 14 ns, or 50 for an extra field, and a subscript 5. With rows of a NamedTuple,
    `row.status` would take 12, but the garbage collector never stops tracking instances of a
    subclass of tuple.
    """

    agent_id: Callable[[Row], str] = _field("agent_id")
    name: Callable[[Row], str] = _field("name")
    agent_type: Callable[[Row], str] = _field("agent_type")
    status: Callable[[Row], Status] = _field("status")
    steps_taken: Callable[[Row], int] = _field("steps_taken")
    checkpoint: Callable[[Row], JSON] = _field("checkpoint")
    needs_input: Callable[[Row], JSON] = _field("needs_input")
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
    attempt: Callable[[Row], int] = _extra("attempt")
    starts: Callable[[Row], int] = _extra("starts")
    answer: Callable[[Row], JSON] = _extra("answer")
    taken_by: Callable[[Row], str | None] = _field("taken_by")
    taken_at_ms: Callable[[Row], int | None] = _field("taken_at_ms")
    progress: Callable[[Row], list[list[JSON]] | None] = _extra("progress")
    lease: Callable[[Row], Lease | None] = _extra("lease")


def is_cut_off(row: Row) -> bool:
    """Return whether the end of the manager's process has cut off the agent, which it ran itself.

    An agent that a worker runs goes on without the manager, until its lease is lost.
    """
    return get.status(row) == "running" and get.lease(row) is None


_new = object.__new__
_ATOMS = frozenset((str, int, float, bool, type(None)))


def agent_from_row(row: Row, boot_id: str) -> Agent:
    """Return an Agent made from `row`, as seen from the session `boot_id`. It shares no mutable
    value with the row."""
    agent = _new(Agent)
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
        agent.taken_by,
        agent.taken_at_ms,
        (agent.attempt, agent.starts, answer, progress, lease),
    ) = row
    agent.progress = None if progress is None else _event(progress[-1])
    agent.lease = None if lease is None else lease.copy()
    agent.checkpoint = None if checkpoint is None else _copied(checkpoint)
    agent.needs_input = None if needs_input is None else _copied(needs_input)
    agent.answer = None if answer is None else _copied(answer)
    agent.allowed_tools = None if allowed_tools is None else tuple(allowed_tools)
    agent.metadata = _copied(metadata) if metadata else {}
    agent.from_prior_session = agent.boot_id != boot_id
    return agent


def events_from_row(row: Row, after: int) -> list[Progress]:
    """Return the kept events of an agent with numbers above `after`, oldest first."""
    return [_event(event) for event in get.progress(row) or () if event[0] > after]


def _event(event: list[JSON]) -> Progress:
    number, at_ms, text, data = event
    return {"number": number, "at_ms": at_ms, "text": text, "data": _copied(data)}


def agents_from_rows(
    rows: Iterable[Row], boot_id: str, *, status: Status | None, include_archived: bool
) -> list[Agent]:
    """Return the agents of `rows` that have `status` (None: any status), oldest first.

    Archived agents, which ended in a session other than `boot_id`, are left out unless
    `include_archived` is true. Raises ValueError for an unknown status.
    """
    if status is not None and status not in STATUSES:
        raise ValueError(f"status must be one of {', '.join(STATUSES)}, not {short_repr(status)}")
    selected = [
        row
        for row in rows
        if (status is None or get.status(row) == status)
        and (include_archived or get.status(row) in LIVE or get.boot_id(row) == boot_id)
    ]
    # The sort is stable, so agents of the same millisecond stay in their order.
    selected.sort(key=get.created_at_ms)
    return [agent_from_row(row, boot_id) for row in selected]


def _copied(value: JSON) -> JSON:
    kind = type(value)
    if kind is dict:
        copy: dict[str, JSON] = value.copy()  # a comprehension takes twice as long
        for key, item in value.items():
            if type(item) not in _ATOMS:
                copy[key] = _copied(item)
        return copy
    if kind is list:
        return [item if type(item) in _ATOMS else _copied(item) for item in value]
    return value
