"""Steps: the effect of each kind of record on an agent's row. A step is a pure function of both.

A step unpacks a record by position, in the order of the fields of its class in `manager.records`.
To make an instance of that class first would take 0.1 us of an update's 0.8.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

from manager.agent import ENDED, NEVER_STARTED, STARTED_ONCE, STATUSES, VERBS, Row, extras
from manager.columns import (
    ANSWER,
    BOOT_ID,
    CHECKPOINT,
    ENDED_AT_MS,
    EXTRAS,
    LEASE,
    LSN,
    NEEDS_INPUT,
    PROGRESS,
    REASON,
    RESULT,
    STARTED_AT_MS,
    STATUS,
    STEPS_TAKEN,
    TAKEN_AT_MS,
    TAKEN_BY,
    TOKEN_BUDGET,
    TOKENS_USED,
    UPDATED_AT_MS,
)
from manager.layouts import Record
from manager.records import AT_MS, KIND
from manager.values import INT_MAX

Step = Callable[[Row | None, int, Record], Row | None]


def advance(row: Row | None, lsn: int, record: Record) -> Row:
    """Return the row that `record` makes of `row`, which is None for a new agent.

    The record must not be one that removes the agent.
    """
    new = STEPS[record[KIND]](row, lsn, record)
    assert new is not None
    return new


def count_tokens(row: Row, lsn: int, tokens: int) -> Row:
    """Return `row` with `tokens` added, which a descendant of the agent has used."""
    new = list(row)
    new[LSN] = lsn
    used = new[TOKENS_USED] + tokens
    new[TOKENS_USED] = used if used < INT_MAX else INT_MAX
    return tuple(new)


def _spawn(row: Row | None, lsn: int, record: Record) -> Row:
    (
        _, agent_id, at_ms, boot_id, parent_id, spawn_depth, status, name,
        agent_type, role, model, prompt, allowed_tools, token_budget, metadata, *attempts,
    ) = record  # fmt: skip
    starts = 1 if status == "running" else 0
    return (
        agent_id,
        agent_id if name is None else name,
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
        at_ms if starts else None,  # started
        at_ms,  # updated
        None,  # ended
        boot_id,
        lsn,
        None,  # taken_by
        None,  # taken_at_ms
        extras(attempts[0], starts) if attempts else STARTED_ONCE if starts else NEVER_STARTED,
    )


def _run(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    new[STATUS] = "running"
    new[REASON] = new[NEEDS_INPUT] = None
    _, _, new[STARTED_AT_MS], new[BOOT_ID], *more = record
    if new[EXTRAS] is NEVER_STARTED:
        new[EXTRAS] = STARTED_ONCE
    else:
        attempt, starts, answer, progress, _ = new[EXTRAS]
        if answer is None is progress:
            new[EXTRAS] = extras(attempt, starts + 1)
        else:
            new[EXTRAS] = attempt, starts + 1, answer, progress, None
    if more:  # of a resumption
        checkpoint, token_budget = more
        if checkpoint is not None:
            new[CHECKPOINT] = checkpoint
        if token_budget is not None:
            new[TOKEN_BUDGET] = token_budget
    return tuple(new)


def _lease(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    attempt, starts, answer, progress, before = new[EXTRAS]
    new[REASON], new[NEEDS_INPUT], new[STATUS] = None, None, "running"
    _, _, new[STARTED_AT_MS], new[BOOT_ID], worker, epoch = record
    lost = 0 if before is None else before["lost"]
    lease = {"worker": worker, "epoch": epoch, "lsn": lsn, "sequence": 0, "lost": lost}
    new[EXTRAS] = attempt, starts + 1, answer, progress, lease
    return tuple(new)


def _report(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    lease = _lease_of(new)
    if record[3] <= lease["sequence"]:
        raise ValueError("sequence is not higher than the one before")
    _set_extra(new, LEASE, {**lease, "sequence": record[3]})
    return tuple(new)


def _lost(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    lease = _lease_of(new)
    _, _, at_ms, new[STATUS], new[REASON] = record
    _set_extra(new, LEASE, {**lease, "lost": lease["lost"] + 1})
    if new[STATUS] in ENDED:
        new[ENDED_AT_MS] = at_ms
    return tuple(new)


def _lease_of(row: list[Any]) -> dict[str, Any]:
    lease: dict[str, Any] | None = row[EXTRAS][LEASE]
    if lease is None:
        raise ValueError("the agent has no lease")
    return lease


def _answer(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    _set_extra(new, ANSWER, record[3])
    return tuple(new)


def _budget(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    new[TOKEN_BUDGET] = record[3]
    return tuple(new)


def _checkpoint(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    _, _, _, new[CHECKPOINT], new[STEPS_TAKEN] = record
    return tuple(new)


def _progress(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    _, _, at_ms, text, data, keep = record
    before = new[EXTRAS][PROGRESS] or []
    number = before[-1][0] + 1 if before else 1
    events = [*before[len(before) + 1 - keep if len(before) >= keep else 0 :]]
    events.append([number, at_ms, text, data])
    _set_extra(new, PROGRESS, events)
    return tuple(new)


def _usage(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    used = new[TOKENS_USED] + record[3] + record[4]
    new[TOKENS_USED] = used if used < INT_MAX else INT_MAX
    return tuple(new)


def _take(row: Row | None, lsn: int, record: Record) -> Row:
    new = _changed(row, lsn, record)
    _, _, new[TAKEN_AT_MS], new[TAKEN_BY] = record
    return tuple(new)


def _interrupt(row: Row | None, lsn: int, record: Record) -> Row:
    _, _, _, reason, checkpoint, needs_input = record
    new = _changed(row, lsn, record)
    new[STATUS] = "interrupted"
    new[REASON] = reason
    new[NEEDS_INPUT] = needs_input
    if needs_input is not None:
        _set_extra(new, ANSWER, None)
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
    if needs_input is not None:
        _set_extra(new, ANSWER, None)
    used = new[TOKENS_USED] + tokens_in + tokens_out
    new[TOKENS_USED] = used if used < INT_MAX else INT_MAX
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
    new[NEEDS_INPUT] = None
    _, _, new[ENDED_AT_MS], new[REASON] = record
    return tuple(new)


def _remove(row: Row | None, lsn: int, record: Record) -> None:
    return None


def _import(row: Row | None, lsn: int, record: Record) -> Row:
    fields, (attempt,) = record[1 : LSN + 1], record[LSN + 1 :] or (1,)
    starts = int(fields[STARTED_AT_MS] is not None)
    return (*fields, lsn, None, None, extras(attempt, starts))


def _changed(row: Row | None, lsn: int, record: Record) -> list[Any]:
    assert row is not None, record
    new = list(row)
    new[UPDATED_AT_MS] = record[AT_MS]
    new[LSN] = lsn
    return new


def _set_extra(row: list[Any], at: int, value: Any) -> None:
    """Replace one extra field of a new row. The tuple of the others may be shared."""
    values = [*row[EXTRAS]]
    values[at] = value
    row[EXTRAS] = tuple(values)


# The step of each kind, and the agent's statuses that allow it. A kind that allows no status adds
# an agent.
_TABLE: Mapping[str, tuple[Step, Container[str]]] = {
    "spawn": (_spawn, ()),
    "start": (_run, VERBS["start"][0]),
    "resume": (_run, VERBS["resume"][0]),
    "lease": (_lease, VERBS["lease"][0]),
    "report": (_report, VERBS["report"][0]),
    "lost": (_lost, VERBS["lose"][0]),
    "answer": (_answer, VERBS["answer"][0]),
    "take": (_take, VERBS["take"][0]),
    "budget": (_budget, frozenset(STATUSES)),
    "checkpoint": (_checkpoint, VERBS["update_checkpoint"][0]),
    "progress": (_progress, VERBS["progress"][0]),
    "usage": (_usage, frozenset(STATUSES)),
    "usage_once": (_usage, frozenset(STATUSES)),
    "interrupt": (_interrupt, VERBS["interrupt"][0]),
    "result": (_result, VERBS["update_from_result"][0]),
    "cancel": (_cancel, VERBS["cancel"][0]),
    "remove": (_remove, ENDED),
    "import": (_import, ()),
}
STEPS: Mapping[str, Step] = {kind: step for kind, (step, _) in _TABLE.items()}
SOURCES: Mapping[str, Container[str]] = {kind: allowed for kind, (_, allowed) in _TABLE.items()}
