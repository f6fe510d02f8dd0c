"""Fleet: all agents in memory, as the state machine that the journal replays. Pure: no I/O,
no clock, no randomness; what it needs of those is in the records.

Everything here but `load` and `freeze`'s result runs under the manager's lock, so all of it is
constant-time in the fleet: look-ups, counters, one new row a change (and one for each ancestor,
where tokens are counted). Checkpoint items are the rows, one JSON object each; the counters and
the index of names are made again from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from journal import CowTable, FormatVersionError
from manager import records
from manager.agent import (
    AGENT_ID,
    BOOT_ID,
    CHECKPOINT,
    ENDED,
    ENDED_AT_MS,
    FIELDS,
    LIVE,
    LSN,
    NAME,
    NEEDS_INPUT,
    PARENT_ID,
    REASON,
    RESULT,
    SPAWN_DEPTH,
    STARTED_AT_MS,
    STATUS,
    STATUSES,
    STEPS_TAKEN,
    TOKENS_USED,
    TRANSITIONS,
    UPDATED_AT_MS,
    VERBS,
    Limits,
    Row,
)
from manager.errors import (
    AmbiguousNameError,
    CapacityError,
    NameInUseError,
    TransitionError,
    UnknownAgentError,
)
from manager.records import Record

_NAMED_MAX = 3  # ids that a message lists


class Fleet:
    """The agents by id, in the order they were spawned in."""

    application = records.APPLICATION
    accepts: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.rows: CowTable[str, Row] = CowTable()
        self.counts: dict[str, int] = dict.fromkeys(STATUSES, 0)
        # Names other than ids: of a live agent its id, of finished ones all of their ids.
        self._live: dict[str, str] = {}
        self._ended: dict[str, dict[str, None]] = {}

    def load(self, item: Mapping[str, Any]) -> None:
        """Take one agent from a checkpoint."""
        try:
            row = tuple([item[field] for field in FIELDS])
        except (KeyError, TypeError) as error:
            raise FormatVersionError(
                f"a checkpoint item is no agent of {self.application}: {error!r}; "
                "open it with the version that wrote it"
            ) from error
        self._put(None, row)

    def freeze(self) -> Iterator[dict[str, Any]]:
        """The checkpoint's items as of now: constant time; built as they are iterated."""
        return map(_item, self.rows.freeze())

    def apply(self, lsn: int, record: Record) -> None:
        """Carry out one record, live and in replay alike."""
        try:
            step = _STEPS[record[0]]
        except (LookupError, TypeError):
            if _is_boot(record):
                return
            raise FormatVersionError(
                f"LSN {lsn}: {str(record)[:80]} is not a record of {self.application}; "
                "open it with the version that wrote it"
            ) from None
        old = self.rows.get(record[1])
        new = step(old, lsn, record)
        self._put(old, new)
        if old is not None and new[TOKENS_USED] != old[TOKENS_USED]:
            self._add_tokens(lsn, new[PARENT_ID], new[TOKENS_USED] - old[TOKENS_USED])

    def find(self, ref: str) -> Row:
        """The row of the agent whose id or unique name `ref` is; a live one's name wins.

        Raises UnknownAgentError, or AmbiguousNameError if only finished agents have that name
        and they are several.
        """
        row = self.rows.get(ref)
        if row is not None:
            return row
        agent_id = self._live.get(ref)
        if agent_id is None:
            agent_id = self._find_ended(ref)
        return self.rows[agent_id]

    def check_verb(self, row: Row, verb: str, target: str) -> None:
        """Raise TransitionError unless `verb` may be done to that agent."""
        if row[STATUS] not in VERBS[verb][0]:
            allowed = TRANSITIONS[row[STATUS]]
            raise TransitionError(row[AGENT_ID], row[NAME], row[STATUS], target, verb, allowed)

    def check_running(self, limits: Limits) -> None:
        """Raise CapacityError unless one more may run."""
        if self.counts["running"] >= limits.max_running:
            what = "wait until one ends, spawn with queued=True, or raise the limit"
            raise CapacityError("max_running", limits.max_running, self.counts, what)

    def check_spawn(self, name: str | None, parent: Row | None, limits: Limits) -> None:
        """Raise CapacityError or NameInUseError unless such an agent may be admitted."""
        depth = 0 if parent is None else parent[SPAWN_DEPTH] + 1
        if parent is not None and depth > limits.max_depth:
            what = f"a child of {parent[AGENT_ID]} would be at depth {depth}"
            raise CapacityError("max_depth", limits.max_depth, self.counts, what)
        if name is not None and (holder := self._live.get(name)) is not None:
            raise NameInUseError(name, holder, self.rows[holder][STATUS])
        counts = self.counts
        live = counts["queued"] + counts["running"] + counts["interrupted"]
        if live >= limits.max_admitted:
            what = f"{live} have not ended; wait, cancel some, or raise the limit"
            raise CapacityError("max_admitted", limits.max_admitted, counts, what)

    def _find_ended(self, name: str) -> str:
        ids = self._ended.get(name)
        if not ids:
            counts = ", ".join(f"{n} {status}" for status, n in self.counts.items() if n)
            raise UnknownAgentError(
                f"no agent has the id or name {name!r}; agents: {counts or 'none'}"
            )
        if len(ids) > 1:
            some = ", ".join(islice(ids, _NAMED_MAX)) + (", ..." if len(ids) > _NAMED_MAX else "")
            raise AmbiguousNameError(
                f"{len(ids)} agents named {name!r} have ended: {some}; use an id"
            )
        return next(iter(ids))

    def _put(self, old: Row | None, new: Row) -> None:
        """Store a row; keep the counters and the index of names true to it."""
        agent_id, status = new[AGENT_ID], new[STATUS]
        self.rows[agent_id] = new
        if old is not None:
            if old[STATUS] == status:
                return
            self.counts[old[STATUS]] -= 1
        self.counts[status] += 1
        name = new[NAME]
        if name == agent_id:
            return
        if status in LIVE:
            self._live[name] = agent_id
        else:
            if self._live.get(name) == agent_id:
                del self._live[name]
            self._ended.setdefault(name, {})[agent_id] = None

    def _add_tokens(self, lsn: int, agent_id: str | None, tokens: int) -> None:
        while agent_id is not None:
            row = self.rows[agent_id]
            new = list(row)
            new[TOKENS_USED] += tokens
            new[LSN] = lsn
            self.rows[agent_id] = tuple(new)
            agent_id = row[PARENT_ID]


def advance(row: Row | None, lsn: int, record: Record) -> Row:
    """What `record` makes of an agent's row (None: there is none yet)."""
    return _STEPS[record[0]](row, lsn, record)


def _item(row: Row) -> dict[str, Any]:
    return dict(zip(FIELDS, row, strict=True))


def _is_boot(record: Record) -> bool:
    return isinstance(record, list) and record[:2] == ["boot", records.APPLICATION]


def _spawn(row: Row | None, lsn: int, record: Record) -> Row:
    _, agent_id, at_ms, boot_id, parent_id, spawn_depth, status, name = record[:8]
    agent_type, role, model, prompt, allowed_tools, token_budget, metadata = record[8:]
    return (
        agent_id,
        name or agent_id,
        agent_type,
        role,
        model,
        prompt,
        status,
        None,  # reason
        None,  # result
        0,  # steps_taken
        None,  # checkpoint
        None,  # needs_input
        allowed_tools,
        parent_id,
        spawn_depth,
        token_budget,
        0,  # tokens_used
        metadata,
        at_ms,  # created
        at_ms if status == "running" else None,  # started
        at_ms,  # updated
        None,  # ended
        boot_id,
        lsn,
    )


def _run(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    new[STATUS] = "running"
    new[REASON] = new[NEEDS_INPUT] = None
    new[STARTED_AT_MS], new[BOOT_ID] = record[2:]
    return tuple(new)


def _checkpoint(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    new[CHECKPOINT], new[STEPS_TAKEN] = record[3:]
    return tuple(new)


def _interrupt(row: Row | None, lsn: int, record: Record) -> Row:
    _, _, _, reason, checkpoint, needs_input = record
    new = _changed(row, lsn, record)
    new[STATUS] = "interrupted"
    new[REASON] = reason
    new[NEEDS_INPUT] = needs_input
    if checkpoint is not None:
        new[CHECKPOINT] = checkpoint
    return tuple(new)


def _result(row: Row | None, lsn: int, record: Record) -> Row:
    _, _, at_ms, status, result, reason, steps, checkpoint, needs_input, tokens_in, tokens_out = (
        record
    )
    new = _changed(row, lsn, record)
    new[STATUS] = status
    new[REASON] = reason
    new[NEEDS_INPUT] = needs_input
    new[TOKENS_USED] += tokens_in + tokens_out
    if result is not None:
        new[RESULT] = result
    if steps is not None:
        new[STEPS_TAKEN] = steps
    if checkpoint is not None:
        new[CHECKPOINT] = checkpoint
    if status in ENDED:
        new[ENDED_AT_MS] = at_ms
    return tuple(new)


def _cancel(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    new[STATUS] = "cancelled"
    new[REASON] = new[NEEDS_INPUT] = None
    new[ENDED_AT_MS] = record[2]
    return tuple(new)


def _changed(row: Row | None, lsn: int, record: Record) -> list[Any]:
    assert row is not None, record
    new = list(row)
    new[UPDATED_AT_MS] = record[2]
    new[LSN] = lsn
    return new


_STEPS: Mapping[str, Callable[[Row | None, int, Record], Row]] = {
    "spawn": _spawn,
    "start": _run,
    "resume": _run,
    "checkpoint": _checkpoint,
    "interrupt": _interrupt,
    "result": _result,
    "cancel": _cancel,
}
