"""Leasing: the changes of agents that workers of other processes run.

A lease begins with a record, and its token is that record's epoch and LSN. A report of the worker
is one batch: a record of the report's number, and the record of its content. So a report that is
repeated, or that comes after the end of its lease, changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, Protocol

from journal import DurableState
from manager import clock, records
from manager.agent import Lease, Row, get
from manager.draft import Draft
from manager.errors import UnknownAgentError
from manager.fleet import Fleet
from manager.layouts import Record, Result
from manager.transaction import FleetTransactionContext
from manager.updates import RecordsByRow, Updates

Outcome = Literal["recorded", "over"]
STATUS = Result._fields.index("status")


class Token(NamedTuple):
    """The identity of a lease. No two leases of a journal have the same token."""

    epoch: int
    """The epoch of the journal in which the lease began."""

    lsn: int
    """The LSN of the record with which it began."""


def token_of(row: Row) -> Token | None:
    """Return the token of the agent's latest lease, or None if it has none."""
    lease = get.lease(row)
    return None if lease is None else Token(lease["epoch"], lease["lsn"])


class _NotDueError(Exception):
    """The report is not recorded: it was before, or its lease is over."""


class Owner(Protocol):
    """The manager of the fleet."""

    _state: DurableState[Fleet]
    _updates: Updates
    _boot_id: str


class Leasing:
    """The leases of one manager's fleet. Any thread may call any method."""

    def __init__(self, owner: Owner) -> None:
        self._state = owner._state
        self._updates = owner._updates
        self._boot_id = owner._boot_id
        self.epoch = self._state.journal.epoch
        """The epoch of the leases that begin now."""

    def begin(self, agent_id: str, worker: str) -> Row:
        """Let a worker run a queued or interrupted agent, and return its row.

        Raises CapacityError, BudgetError, TransitionError and UnknownAgentError.
        """
        record = records.lease(clock.now_ms(), self._boot_id, worker, self.epoch)
        return self._updates.update("lease", agent_id, "running", record)

    def report(
        self,
        agent_id: str,
        token: Token,
        sequence: int,
        content: Record,
        worker_name: str | None = None,
    ) -> tuple[Outcome, int]:
        """Record a worker's report of a lease, and return the outcome and the LSN to wait for.

        The outcome is "recorded" also for a report that was recorded before. It is "over" if the
        lease has ended, so that the worker should stop, or if it is not a lease of a worker with
        this name (None: any name). Raises ValueError for a checkpoint over `checkpoint_bytes_max`,
        and RecordError.
        """
        content[records.AGENT_ID] = agent_id
        reported = records.report(agent_id, clock.now_ms(), sequence)
        # The report is judged before the lock is taken, and again only if the row has changed.
        known = self._state.machine.rows.get(agent_id)
        outcome, is_due = _judged(known, token, sequence, worker_name)
        lsn = 0

        def decide(fleet: Fleet) -> Row | None:
            nonlocal outcome, is_due, lsn
            if (row := fleet.rows.get(agent_id)) is not known:
                outcome, is_due = _judged(row, token, sequence, worker_name)
            if not is_due:
                has_lease = row is not None and get.lease(row) is not None
                lsn = get.lsn(row) if row and has_lease else self._state.journal.last_lsn
            return row if is_due else None

        recorded_at = self._updates.report(reported, content, decide)
        return outcome, recorded_at or lsn

    def end_in_transaction(
        self,
        context: FleetTransactionContext,
        agent_id: str,
        token: Token,
        sequence: int,
        content: Record,
        worker_name: str | None,
        again: dict[str, Any],
    ) -> tuple[Outcome, int, str | None]:
        """Record a worker's result as `report` does, and spawn an agent with it in one batch.

        `again` has the arguments of `spawn`. Return the outcome, the LSN to wait for, and the id of
        the new agent, or None if nothing was recorded now.
        """
        reported = records.report(agent_id, clock.now_ms(), sequence)

        def is_due(draft: Draft) -> bool:
            row = draft.find(agent_id)
            lease = get.lease(row)
            is_ours = lease is not None and _is_of(lease, worker_name) and _is_held(row, token)
            if not is_ours or lease is None or sequence <= lease["sequence"]:
                raise _NotDueError
            return True

        try:
            with context as transaction:
                transaction._add(None, reported, is_due, urgent=True)
                status = content[STATUS]
                transaction._update("update_from_result", agent_id, status, content, urgent=True)
                next_id = transaction.spawn(**again)
        except (_NotDueError, UnknownAgentError):
            return (*self.report(agent_id, token, sequence, content, worker_name), None)
        assert transaction.lsn is not None
        return "recorded", transaction.lsn, next_id

    def lose(
        self, agent_id: str, token: Token, attempts_max: int, *, has_begun: bool = True
    ) -> Row | None:
        """End a lease whose worker is silent. Return the agent's row, or None if the lease is over.

        The agent becomes interrupted, or failed after `attempts_max` lost leases. A lease of which
        the worker has never heard (`has_begun` false) does not count.
        """

        def decide(fleet: Fleet) -> RecordsByRow:
            row = fleet.rows.get(agent_id)
            lease = None if row is None else get.lease(row)
            if row is None or lease is None or not _is_held(row, token):
                return []
            at_ms = clock.now_ms()
            if not has_begun:
                why = records.WORKER_LOST
                return [(row, records.interrupt(agent_id, at_ms, why, None, None))]
            lost = lease["lost"] + 1
            is_over = lost >= attempts_max
            status = "failed" if is_over else "interrupted"
            times = "once" if lost == 1 else f"{lost} times"
            reason = f"its worker was lost {times}" if is_over else records.WORKER_LOST
            return [(row, records.lost(agent_id, at_ms, status, reason))]

        rows = self._updates.update_many(decide, urgent=True)
        return rows[0] if rows else None

    def held(
        self, tokens: Iterable[tuple[str, Token]], worker_name: str | None = None
    ) -> tuple[list[bool], int]:
        """Return whether each of these leases of a worker with this name (None: any name) goes on,
        and the LSN to wait for before that may be reported. Each is given with its agent's id."""

        self._state.check()
        goes_on, newest, rows = list[bool](), 0, self._state.machine.rows
        for agent_id, token in tokens:
            # A look-up needs no lock, so a request of many leases holds it for none of them.
            row = rows.get(agent_id)
            lease = None if row is None else get.lease(row)
            is_ours = lease is not None and _is_of(lease, worker_name)
            goes_on.append(is_ours and row is not None and _is_held(row, token))
            if not goes_on[-1]:
                newest = max(newest, self._changed_at(agent_id))
        return goes_on, newest

    def _changed_at(self, agent_id: str) -> int:
        """Return the LSN of an agent's last change, or the last one if there is no such agent."""

        def lsn(fleet: Fleet) -> int:
            row = fleet.rows.get(agent_id)
            return self._state.journal.last_lsn if row is None else get.lsn(row)

        return self._state.read(lsn)


def _judged(
    row: Row | None, token: Token, sequence: int, worker_name: str | None
) -> tuple[Outcome, bool]:
    """Return the outcome of a report, and whether it is to be recorded now."""
    lease = None if row is None else get.lease(row)
    if row is None or lease is None or token_of(row) != token or not _is_of(lease, worker_name):
        return "over", False
    if sequence <= lease["sequence"]:
        return "recorded", False
    is_due = get.status(row) == "running"
    return ("recorded" if is_due else "over"), is_due


def _is_of(lease: Lease, worker_name: str | None) -> bool:
    return worker_name is None or lease["worker"].rpartition(".")[0] == worker_name


def _is_held(row: Row, token: Token) -> bool:
    return get.status(row) == "running" and token_of(row) == token
