"""Updates: the only way to change a fleet, for one agent or for many.

Before the lock is taken, the row is prefetched and the record packed. Under the lock, the change is
decided, appended and applied. After that, watchers are notified, and the caller gets the new row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from journal import DurableState, PackedRecord, pack
from manager import ids, records
from manager.agent import ENDED, Row, Status, get
from manager.cleanup import Heartbeats
from manager.columns import AGENT_ID, LSN, STATUS, STEPS_TAKEN
from manager.elsewhere import Workers
from manager.errors import BudgetError
from manager.fleet import Fleet
from manager.layouts import Record
from manager.limits import HOLD_AGENTS_MAX, Limits
from manager.steps import advance
from manager.values import text
from manager.watch import Watch

Change = Record | PackedRecord
# The records of one batch, each with the row that it changes (None: a new agent).
RecordsByRow = list[tuple[Row | None, Record]]


def check_checkpoint(record: Record, packed: PackedRecord, limits: Limits) -> None:
    """Raise ValueError if the agent's checkpoint in a record is too large."""
    if packed.size_bytes <= limits.checkpoint_bytes_max:
        return
    at = records.CHECKPOINTS.get(record[records.KIND], len(record))
    size = sum(pack(value).size_bytes for value in record[at : at + 1])
    if size > limits.checkpoint_bytes_max:
        raise ValueError(
            f"checkpoint has {size} bytes, over checkpoint_bytes_max={limits.checkpoint_bytes_max}"
        )


def _fill_taking(
    record: Record, progress: Record | None, steps: int, taken: Row | None, taker: Row | None
) -> bool:
    """Fill the agents and the taker's steps, which are at least `steps`, into the records of a
    taking. Return False if that has changed them."""
    if taken is None or taker is None:
        return False
    before = [*record], progress and [*progress]
    record[records.AGENT_ID] = get.agent_id(taken)
    record[records.TAKEN_BY] = get.agent_id(taker)
    if progress is not None:
        progress[records.AGENT_ID] = get.agent_id(taker)
        known = get.steps_taken(taker)
        progress[records.steps_index(progress)] = steps if steps > known else known
    return (record, progress) == before


class Updates:
    """The changes of one manager's fleet. Any thread may make one."""

    workers: Workers | None = None
    """The workers in other processes, while a dispatcher serves them."""

    def __init__(
        self, state: DurableState[Fleet], limits: Limits, watch: Watch, beats: Heartbeats
    ) -> None:
        self._state = state
        self._fleet = state.machine
        self._limits = limits
        self._watch = watch
        self._beats = beats

    def spawn(self, record: Record, decide: Callable[[PackedRecord, Fleet], Change | None]) -> Row:
        """Spawn an agent and return its row.

        `decide` runs under the lock. It returns the packed record, or the record itself if it had
        to change it, or None if the id in it is taken; then another id is tried.
        """
        try:
            while (lsn := self._state.update(partial(decide, pack(record)))) is None:
                record[records.AGENT_ID] = ids.new_agent_id()
        except BaseException:
            self._watch.release_if_stopped()
            raise
        row = self._notify_watch(lsn, None, record)
        if get.status(row) == "running":
            self._beats.beat(get.agent_id(row))
        return row

    def check_spawn(self, record: Record) -> None:
        """Raise ValueError if the new agent is too large for the workers in other processes."""
        if (workers := self.workers) is not None:
            workers.check_spawn(record)

    def update(
        self, verb: str, ref: str, target: Status | None, record: Record, *, urgent: bool = False
    ) -> Row:
        """Apply `verb` to the agent `ref`, whose id is filled into `record`. Return its new row.

        `target` is the agent's new status; None leaves the status as it is.
        """
        if type(ref) is not str or not ref.isascii():  # the call takes 60 ns of 7,000
            ref = text("ref", ref)
        row: Row = ()
        packed = packed_id = None
        kind = record[records.KIND]
        steps_at = records.STEPS_AT.get(kind, 0)
        if steps_at and (steps := record[steps_at]) is None:
            steps_at = 0
        source_id = record[records.SOURCE_ID] if kind == "usage_once" else None
        prefetched = self._fleet.prefetch(ref)
        if prefetched is not None:
            packed_id = prefetched[AGENT_ID]
            record[records.AGENT_ID] = packed_id
            if steps_at and steps < prefetched[STEPS_TAKEN]:
                record[steps_at] = prefetched[STEPS_TAKEN]
            packed = pack(record)
            if packed.size_bytes > self._limits.checkpoint_bytes_max:
                check_checkpoint(record, packed, self._limits)
            # The beat comes first, so that a cleanup right after the change finds it.
            if target == "running" or prefetched[STATUS] == "running":
                self._beats.beat(packed_id)

        def decide(fleet: Fleet) -> Change | None:
            nonlocal row
            row = fleet.rows.get(ref) or fleet.find(ref)
            if target is not None and not fleet.is_due(row, verb, target, self._limits, record):
                return None
            if source_id is not None and fleet.sources.has(get.agent_id(row), source_id):
                return None
            if row is prefetched:
                return packed
            known = row[STEPS_TAKEN]
            if steps_at and record[steps_at] != (most := steps if steps > known else known):
                record[steps_at] = most  # it never falls
            elif get.agent_id(row) == packed_id:
                return packed
            record[records.AGENT_ID] = get.agent_id(row)
            return record

        try:
            lsn = self._state.update(decide, urgent=urgent)
        except BaseException:
            self._watch.release_if_stopped()
            raise
        if lsn is None:
            return row
        if target in ENDED:
            self._beats.forget(row[AGENT_ID])
            return self._notify_watch(lsn, row, record, (row[AGENT_ID],))
        fleet = self._fleet
        if fleet.feed is None:  # most changes; the call takes 60 ns
            new = fleet.rows.get(row[AGENT_ID])
            if new is not None and new[LSN] == lsn:
                return new
        return self._notify_watch(lsn, row, record)

    def start_next(self, record: Record, types: list[str] | None) -> tuple[Row | None, bool]:
        """Start the oldest queued agent of these types, and return its new row.

        Return None if no place is free or no such agent can start, and whether only the first of
        many were tried.
        """
        before: Row = ()
        is_blocked = False

        def decide(fleet: Fleet) -> Record | None:
            nonlocal before, is_blocked
            if fleet.counts["running"] >= self._limits.max_running:
                return None
            first = fleet.queue.first(types, HOLD_AGENTS_MAX)
            for agent_id in first:
                before = fleet.rows[agent_id]
                with suppress(BudgetError):
                    fleet.check_budget(before)
                    record[records.AGENT_ID] = agent_id
                    return record
            is_blocked = len(first) == HOLD_AGENTS_MAX
            return None

        with self.releasing():
            lsn = self._state.update(decide)
        if lsn is None:
            return None, is_blocked
        self._beats.beat(record[records.AGENT_ID])
        return self._notify_watch(lsn, before, record), False

    def take(self, ref: str, by: str, record: Record, progress: Record | None) -> Row:
        """Record that the agent `by` has taken the result of the agent `ref`, together with the
        taker's `progress`, in one batch. Return the new row of the agent that was taken."""
        taken: Row = ()
        rows = self._fleet.prefetch(ref), self._fleet.prefetch(by)
        steps = 0 if progress is None else progress[records.steps_index(progress)]
        _fill_taking(record, progress, steps, *rows)
        packed = pack(record), None if progress is None else pack(progress)
        if progress is not None and packed[1] is not None:
            check_checkpoint(progress, packed[1], self._limits)

        def decide(fleet: Fleet) -> list[Change]:
            nonlocal taken
            taken, taker = fleet.find(ref), fleet.find(by)
            fleet.check_take(taken, taker, progress)
            is_as_packed = _fill_taking(record, progress, steps, taken, taker)
            changes = zip((record, progress), packed, strict=True)
            both = [fit if is_as_packed else change for change, fit in changes]
            return [change for change in both if change is not None]

        with self.releasing():
            last_lsn = self._state.update_batch(decide)
        assert last_lsn is not None
        if self._fleet.feed is not None:
            self._watch.changed(last_lsn, ())
        if progress is not None:
            self._beats.beat(progress[records.AGENT_ID])
        return advance(taken, last_lsn - (progress is not None), record)

    def report(
        self, reported: Record, content: Record, decide: Callable[[Fleet], Row | None]
    ) -> int | None:
        """Record a report of a worker elsewhere, and its content, in one batch. Return the last
        LSN.

        `decide` runs under the lock, and returns the row of the agent. If it returns None, nothing
        is recorded, and None is returned. Raises ValueError for a checkpoint that is too large.
        """
        steps_at, agent_id = records.steps_index(content), content[records.AGENT_ID]
        if steps_at and (prefetched := self._fleet.rows.get(agent_id)) is not None:
            content[steps_at] = max(content[steps_at], get.steps_taken(prefetched))
        packed: list[Change] = [pack(reported), of_content := pack(content)]
        check_checkpoint(content, of_content, self._limits)

        def batch(fleet: Fleet) -> list[Change]:
            if (row := decide(fleet)) is None:
                return []
            if steps_at and content[steps_at] < get.steps_taken(row):  # it never falls
                content[steps_at] = get.steps_taken(row)
                return [packed[0], content]
            return packed

        with self.releasing():
            last_lsn = self._state.update_batch(batch, urgent=True)
        if last_lsn is not None and self._fleet.feed is not None:
            self._watch.changed(last_lsn, [agent_id])
        return last_lsn

    def update_many(
        self, decide: Callable[[Fleet], RecordsByRow], *, urgent: bool = False
    ) -> list[Row]:
        """Apply the records that `decide` returns in one batch.

        Return the new row of each agent, or the last row of one that was removed.
        """
        changes: RecordsByRow = []

        def batch(fleet: Fleet) -> list[Record]:
            changes[:] = decide(fleet)
            return [record for _, record in changes]

        try:
            last_lsn = self._state.update_batch(batch, urgent=urgent)
        except BaseException:
            self._watch.release_if_stopped()
            raise
        if last_lsn is None:
            return []
        if self._fleet.feed is not None:
            self._watch.changed(last_lsn, [record[records.AGENT_ID] for _, record in changes])
        first_lsn = last_lsn + 1 - len(changes)
        return [
            row if row and record[records.KIND] == "remove" else advance(row, lsn, record)
            for lsn, (row, record) in enumerate(changes, first_lsn)
        ]

    def forget(self, rows: Iterable[Row]) -> None:
        """Let workers remove what the commands of removed agents have printed there."""
        if (workers := self.workers) is not None:  # a dispatcher may end meanwhile
            ran = {get.agent_id(row): lease["worker"] for row in rows if (lease := get.lease(row))}
            if gone := {ref: worker for ref, worker in ran.items() if ref not in self._fleet.rows}:
                workers.forget(gone, self._state.journal.last_lsn)

    def find(self, ref: str) -> tuple[str, int]:
        """Return the id and the depth of an agent, for a transaction."""
        row = self._state.read(lambda fleet: fleet.find(ref))
        return get.agent_id(row), get.spawn_depth(row)

    def attempt_fields(self, name: str | None) -> list[int]:
        """Return the probable result of `Fleet.attempt_fields`."""
        return self._fleet.attempt_fields(name)

    def free_id(self, agent_id: str) -> str:
        """Return `agent_id`, or another id if an agent has it."""
        while agent_id in self._fleet.rows:
            agent_id = ids.new_agent_id()
        return agent_id

    def beat(self, agent_id: str) -> None:
        """Note a sign of life of an agent."""
        self._beats.beat(agent_id)

    def committed(self, lsn: int, changed: list[tuple[Status | None, Record]]) -> None:
        """Notify the watch of a transaction. `lsn` is that of its last record. Each record that
        changed an agent has the agent's new status, or None if it left the status as it was."""
        agent_ids = [record[records.AGENT_ID] for _, record in changed]
        for (target, _), agent_id in zip(changed, agent_ids, strict=True):
            if target == "running":
                self._beats.beat(agent_id)
            elif target in ENDED:
                self._beats.forget(agent_id)
        if self._fleet.feed is not None:
            self._watch.changed(lsn, agent_ids)

    @contextmanager
    def releasing(self) -> Iterator[None]:
        """Release all waiters if the body raises because the journal has stopped."""
        try:
            yield
        except BaseException:
            self._watch.release_if_stopped()
            raise

    def _notify_watch(
        self, lsn: int, before: Row | None, record: Record, ended: tuple[str, ...] = ()
    ) -> Row:
        """Notify the watch. Return the row as the change of `lsn` left it."""
        if self._fleet.feed is not None:
            self._watch.changed(lsn, ended)
        row = self._fleet.rows.get(record[records.AGENT_ID])
        # If another change has been made since, compute the row of this change again.
        return row if row is not None and row[LSN] == lsn else advance(before, lsn, record)
