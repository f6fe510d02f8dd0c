"""FleetTransaction: changes of agents and of rows that take effect together, or not at all.

In the body, a verb builds and packs its record, and no lock is held. At the end, under the lock,
the rows that were read are checked first. Then each verb is checked against the fleet as the verbs
before it leave it (`manager.draft`). All records are one batch, so a crash leaves all or none.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from operator import is_
from typing import Any, TypeVar

from journal import (
    PackedRecord,
    Tables,
    TableView,
    Transaction,
    TransactionTable,
    TransactionTooLargeError,
    pack,
)
from manager import clock, records
from manager._public import public
from manager.agent import JSON, Status, get
from manager.draft import Draft
from manager.errors import NameInUseError
from manager.fleet import Fleet
from manager.layouts import Record
from manager.limits import HOLD_AGENTS_MAX, Limits
from manager.updates import Updates, check_checkpoint
from manager.values import text
from manager.verbs import Verbs

T = TypeVar("T")


@public
class FleetTransaction(Verbs[None, str]):
    """Changes of agents and of rows. All of them take effect at the end of the body, or none.

    The verbs are those of SubAgentManager, for at most 64 changes of agents. They return None, and
    `spawn` the new agent's id: the agents change only at the end, and errors such as
    TransitionError are raised there. A `ref` is looked up when the verb is called. It may be the
    name of an agent that this transaction spawns. `t[table]` reads and writes a table.
    """

    def __init__(
        self, transaction: Transaction, updates: Updates, limits: Limits, boot_id: str
    ) -> None:
        self._transaction = transaction
        self._updates = updates
        self._limits = limits
        self._boot_id = boot_id
        self._count = 0
        self._spawned: dict[str, tuple[str, int]] = {}  # ids and depths, by names and by ids
        # Made at the end, under the lock.
        self._draft: Draft | None = None
        self._changed: list[tuple[Status | None, Record]] = []

    @property
    def lsn(self) -> int | None:
        """The LSN of the last change, once the transaction has ended; None if it changed nothing.

        `wait_durable(lsn)` waits until all of it survives a crash.
        """
        return self._transaction.lsn

    def __getitem__(self, table: TableView) -> TransactionTable:
        return self._transaction[table]

    def cancel(self, ref: str, *, reason: str | None = None) -> None:
        """Cancel an agent, for a `reason`. An agent that has ended stays as it is."""
        record = records.cancel("", clock.now_ms(), self._tail("reason", reason))
        self._update("cancel", ref, "cancelled", record, urgent=True)

    def take(
        self, ref: str, *, by: str, checkpoint: JSON = None, steps_taken: int | None = None
    ) -> None:
        """Record that the agent `by` has taken the result of an agent that has ended; see
        `SubAgentManager.take`. With a `checkpoint`, this counts as two changes."""
        records.check_steps(checkpoint, steps_taken)
        agent_id, _ = self._find(text("ref", ref))
        taker_id, _ = self._find(text("by", by))
        record = records.take(clock.now_ms())
        record[records.AGENT_ID], record[records.TAKEN_BY] = agent_id, taker_id

        def is_due(draft: Draft) -> bool:
            draft.check_take(draft.find(agent_id), draft.find(taker_id), None)
            return True

        self._add(None, record, is_due, urgent=False)
        if checkpoint is not None:
            self.update_checkpoint(taker_id, checkpoint, steps_taken=steps_taken or 0)

    def _spawn(
        self, record: Record, name: str | None, parent_ref: str | None, *, queued: bool
    ) -> str:
        agent_id = record[records.AGENT_ID] = self._updates.free_id(record[records.AGENT_ID])
        parent_id, depth = None, 0
        if parent_ref is not None:
            parent_id, parent_depth = self._find(parent_ref)
            depth = parent_depth + 1
            record[records.PARENT] = [parent_id, depth]
        record[records.ATTEMPT] = self._updates.attempt_fields(name)
        if queued:
            self._updates.check_spawn(record)

        def is_due(draft: Draft) -> bool:
            if agent_id in draft.rows:
                raise NameInUseError(agent_id, agent_id, get.status(draft.rows[agent_id]))
            draft.check_admission(name, parent_id, self._limits, queued=queued)
            record[records.ATTEMPT] = draft.attempt_fields(name)
            return True

        self._add("queued" if queued else "running", record, is_due, urgent=False)
        self._spawned[agent_id] = self._spawned[name or agent_id] = agent_id, depth
        return agent_id

    def _update(
        self, verb: str, ref: str, target: Status | None, record: Record, *, urgent: bool = False
    ) -> None:
        agent_id, _ = self._find(text("ref", ref))
        record[records.AGENT_ID] = agent_id

        def is_due(draft: Draft) -> bool:
            row = draft.find(agent_id)
            if target is not None and not draft.is_due(row, verb, target, self._limits, record):
                return False
            source_id = records.source_of(record)
            if source_id is not None and draft.sources.has(agent_id, source_id):
                return False
            if steps_at := records.steps_index(record):
                record[steps_at] = max(record[steps_at], get.steps_taken(row))
            return True

        self._add(target, record, is_due, urgent=urgent)
        self._updates.beat(agent_id)

    def _find(self, ref: str) -> tuple[str, int]:
        """Return the id and the depth of the agent that `ref` means."""
        return self._spawned.get(ref) or self._updates.find(ref)

    def _add(
        self,
        target: Status | None,
        record: Record,
        is_due: Callable[[Draft], bool],
        *,
        urgent: bool,
    ) -> None:
        """Add a change. `is_due` is called at the end. It raises an error, or returns False if
        nothing is to be changed."""
        self._count += 1
        if self._count > HOLD_AGENTS_MAX:
            raise TransactionTooLargeError(
                f"the transaction changes agents more than {HOLD_AGENTS_MAX} times; nothing was "
                "changed: split it"
            )
        packed, drafted = pack(record), record.copy()
        check_checkpoint(record, packed, self._limits)

        def decide(fleet: Fleet) -> PackedRecord | None:
            if self._draft is None:
                self._draft = Draft(fleet)
            if not is_due(self._draft):
                return None
            self._draft.apply(0, record)
            self._changed.append((target, record))
            # `is_due` may have changed fields, but not inside them.
            is_as_drafted = len(record) == len(drafted) and all(map(is_, record, drafted))
            return fleet.approved(packed if is_as_drafted else pack(record))

        self._transaction.also("fleet", decide, urgent=urgent)


@public
class FleetTransactionContext:
    """A context manager for the body of one transaction."""

    def __init__(
        self,
        tables: Tables,
        updates: Updates,
        limits: Limits,
        boot_id: str,
        on_commit: Callable[[], None],
    ) -> None:
        self._tables = tables
        self._on_commit = on_commit
        self._context = tables.transaction()
        self._updates = updates
        self._limits = limits
        self._boot_id = boot_id
        self._transaction: FleetTransaction | None = None

    def __enter__(self) -> FleetTransaction:
        return self._begin(self._context.__enter__())

    def __exit__(self, *raised: Any) -> None:
        with self._updates.releasing():
            self._context.__exit__(*raised)
        self._notify()

    async def __aenter__(self) -> FleetTransaction:
        return self.__enter__()

    async def __aexit__(self, *raised: Any) -> None:
        with self._updates.releasing():
            await self._context.__aexit__(*raised)
        self._notify()

    def _transact(self, function: Callable[[FleetTransaction], T], attempts: int) -> T:
        """Call `function` as the body, again after each conflict, and return its result."""

        @wraps(function)  # a function that would run later is refused by its name
        def body(inner: Transaction) -> T:
            return function(self._begin(inner))

        with self._updates.releasing():
            result = self._tables.transact(body, attempts=attempts)
        self._notify()
        return result

    def _begin(self, inner: Transaction) -> FleetTransaction:
        self._transaction = FleetTransaction(inner, self._updates, self._limits, self._boot_id)
        return self._transaction

    def _notify(self) -> None:
        if self._transaction is not None and self._transaction.lsn is not None:
            self._updates.committed(self._transaction.lsn, self._transaction._changed)
            self._on_commit()
