"""SubAgentManager: sub-agents whose every change is journaled, with a lock that is held briefly.

A method checks and copies its arguments, and builds and packs the record, before it takes the lock.
Under the lock it looks up the agent, checks the transition and the limits, and applies and appends
the record. (A method that changes many agents selects them and packs their records under the lock.)
After it has released the lock, it notifies watchers and builds the Agent that it returns. Only
methods whose names or docstrings say so wait for the disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from functools import partial
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from journal import AsyncHandle, Checkpoint, DurableState, LockStats, Options, PackedRecord, Stats
from manager import clock, records
from manager._public import public
from manager.agent import (
    ENDED,
    Agent,
    Progress,
    Row,
    Status,
    agent_from_row,
    agents_from_rows,
    events_from_row,
    get,
    is_cut_off,
)
from manager.arguments import instance, optional_lsn, optional_seconds
from manager.changes import Changes
from manager.cleanup import Heartbeats
from manager.delivery import Delivery
from manager.elsewhere import Workers
from manager.fleet import Fleet
from manager.fleet_outputs import FleetOutputs
from manager.layouts import Record
from manager.limits import Limits
from manager.recovery import open_fleet
from manager.removal import Removal
from manager.retention import Retention
from manager.scheduling import NameFoundError, Scheduling
from manager.updates import Change, RecordsByRow, Updates
from manager.values import text, whole
from manager.watch import Watch
from manager.workspace import StrPath, state_path

if TYPE_CHECKING:
    from journal import Mirror, Tables
    from manager._control.runners import Runners
    from manager._control.server import ControlServer
    from manager.transaction import FleetTransaction, FleetTransactionContext

T = TypeVar("T")
_INTERRUPT_SLICE = 256  # agents that one batch interrupts when a fleet is opened


@public
class SubAgentManager(AsyncHandle, Delivery, Removal, Scheduling):
    """The sub-agents of one workspace. Use `open` to make one.

    Any thread may call any method. Code in an event loop may too, because only `open`, `close`,
    `compact`, `import_legacy`, `stats` and the methods named `wait_*` wait or do I/O there.
    `async with SubAgentManager.aopen(...)` opens and closes in a thread. A method that changes an
    agent returns the agent as that change left it in memory; `wait_durable(agent.lsn)` waits until
    the change is on stable storage.

    A `ref` is an agent's id or its name. A name means the newest agent that has or had it: the live
    one (queued, running or interrupted), or else the last one that ended. UnknownAgentError is
    raised if there is none.

    Values are copied and must be JSON; otherwise TypeError or ValueError names the key. Errors of
    the journal are passed on: BufferFullError if the disk can't keep up or is full, FailedError,
    ClosedError, and RecordError if a record is too large. After an error, nothing has changed.
    Source: `manager.agent.VERBS` for the transitions, `Limits` for the limits.
    """

    def __init__(
        self, state: DurableState[Fleet], limits: Limits, options: Options = Options()
    ) -> None:
        state.machine.end_replay()  # from now on, only the methods below change the fleet
        self._state = state
        self._limits = limits
        self._options = options
        self._boot_id = f"boot_{os.urandom(6).hex()}"
        self._watch = Watch(state)
        self._beats = Heartbeats(limits.heartbeat_timeout_s)
        self._updates = Updates(state, limits, self._watch, self._beats)
        self._retention = Retention(state, self._updates, limits)
        self._tables: Tables | None = None
        self._outputs: FleetOutputs | None = None
        self._control: ControlServer | None = None

    @classmethod
    def open(
        cls,
        workspace: StrPath,
        *,
        state_dir: StrPath = ".subagents",
        limits: Limits = Limits(),
        options: Options = Options(),
        lock_timeout_s: float | None = 0.0,
        mirror: str | Mirror | Literal[False] | None = None,
        takeover: bool = False,
        control: bool = False,
        disk: Any = None,
    ) -> SubAgentManager:
        """Recover the fleet in `state_dir` below `workspace`, or create a new one.

        Agents that were running are interrupted, with the reason "process restarted", except those
        with a `lease`, whose workers go on. These records are not waited for: any later commit
        makes them durable too, and without one the next open interrupts the same agents again. So
        `open` succeeds on a full disk.

        Raises FileNotFoundError if `workspace` does not exist, LockedError, CorruptionError,
        FormatVersionError, UnsafePathError (also for a symlink below the workspace, and for a
        workspace that is itself a journal), and the other errors of opening a journal. `mirror`,
        `takeover`: see `Journal.open`. With `control`, `subagents cancel` and the like work in
        other processes of the same user while this manager is open; see manager/docs/HOWTO.md,
        "Change a fleet from another process". `disk` is for tests; with it, `workspace` is a path
        on that disk.
        """
        instance("limits", limits, Limits)
        instance("options", options, Options)
        state_directory = (
            state_path(workspace, state_dir)
            if disk is None
            else nullcontext(os.path.join(workspace, state_dir))
        )
        with ExitStack() as undo:
            with state_directory as path:
                state = open_fleet(
                    path,
                    options=options,
                    lock_timeout_s=lock_timeout_s,
                    mirror=mirror,
                    takeover=takeover,
                    disk=disk,
                )
                undo.push(state)
            manager = cls(state, limits, options)
            manager._boot()
            if disk is None:
                manager._outputs = manager._retention.outputs = FleetOutputs(state)
                manager._outputs.sweep()
                if control:
                    undo.callback(manager._end_control)
                    manager._serve_control()
            undo.pop_all()
        return manager

    def _serve_control(self, runners: Runners | None = None) -> None:
        """Take requests of other processes. Raises OSError and UnsafePathError."""
        from manager._control.server import ControlServer  # not loaded by every manager

        self._control = ControlServer.of(self, self.path, runners)

    def _boot(self) -> None:
        boot = records.boot(self._boot_id, clock.now_ms(), os.getpid())
        self._state.update(partial(_decide, boot))
        rows = self._rows() if self.counts()["running"] else ()
        running = [get.agent_id(row) for row in rows if is_cut_off(row)]
        while running:
            batch = [
                records.interrupt_by_restart(agent_id, clock.now_ms())
                for agent_id in running[:_INTERRUPT_SLICE]
            ]
            self._state.update_batch(partial(_decide, batch))
            del running[:_INTERRUPT_SLICE]
        if self._state.machine.tables is not None:
            _ = self.tables  # drops the pieces of values that a crash left

    def _spawn(
        self,
        record: Record,
        name: str | None,
        parent_ref: str | None,
        *,
        queued: bool,
        only_if_new: bool = False,
    ) -> Agent:
        prefetched = None if parent_ref is None else self._state.machine.prefetch(parent_ref)
        if prefetched is not None:
            record[records.PARENT] = records.parent_and_depth(prefetched)
        if name is not None:
            record[records.ATTEMPT] = self._state.machine.attempt_fields(name)
        if queued:
            self._updates.check_spawn(record)

        def decide(packed: PackedRecord, fleet: Fleet) -> Change | None:
            if only_if_new and name is not None and (found := fleet.found(name)) is not None:
                raise NameFoundError(found)
            if record[records.AGENT_ID] in fleet.rows:
                return None
            parent = fleet.check_admission(name, parent_ref, self._limits, queued=queued)
            if parent is None and name is None:
                return packed
            above = record[records.PARENT] if parent is None else records.parent_and_depth(parent)
            attempt = fleet.attempt_fields(name)
            if record[records.PARENT] == above and record[records.ATTEMPT] == attempt:
                return packed
            record[records.PARENT], record[records.ATTEMPT] = above, attempt
            return record

        row = self._updates.spawn(record, decide)
        self._retention.check()
        return self._agent(row)

    def cancel(self, ref: str, *, reason: str | None = None, descendants: bool = False) -> Agent:
        """Cancel an agent, for a `reason`. An agent that has ended stays as it is.

        With `descendants`, cancel its live descendants too, in one batch, so that a crash leaves
        all of these changes or none. The lock is then held for a time that grows with their number.
        """
        at_ms, reason = clock.now_ms(), self._tail("reason", reason)
        if not descendants:
            record = records.cancel("", at_ms, reason)
            return self._update("cancel", ref, "cancelled", record, urgent=True)
        ref = text("ref", ref)
        row: Row = ()

        def decide(fleet: Fleet) -> RecordsByRow:
            nonlocal row
            row = fleet.find(ref)
            live = [] if get.status(row) in ENDED else [row]
            live += [fleet.rows[agent_id] for agent_id in fleet.family.living(get.agent_id(row))]
            return [(each, records.cancel(get.agent_id(each), at_ms, reason)) for each in live]

        cancelled = self._updates.update_many(decide, urgent=True)
        return self._agent(row if get.status(row) in ENDED else cancelled[0])

    @property
    def tables(self) -> Tables:
        """The tables in the journal of this fleet. Closing them closes the manager.

        They are always there; a table exists once it has a row. `journal.Tables` describes them.
        """
        if self._tables is None:
            from manager.tables import FleetTables  # takes 10 ms, and most fleets have no tables

            made = FleetTables.of(self, self._state)
            self._state.read(partial(self._set_tables, made))  # one thread may make them at a time
        assert self._tables is not None
        return self._tables

    def _set_tables(self, made: Tables, _: Fleet) -> None:
        if self._tables is None:
            self._tables = made

    def transaction(self) -> FleetTransactionContext:
        """Begin a transaction on agents and tables, in a `with` or `async with` statement.

        At the end of its body, all of its changes take effect, or none; see FleetTransaction. If
        the body raises, nothing is changed. Raise at the end ConflictError if another thread or
        task has changed rows that it read, and the errors of its verbs. A crash leaves all of the
        changes or none.
        """
        from manager.transaction import FleetTransactionContext

        check = self._retention.check
        return FleetTransactionContext(
            self.tables, self._updates, self._limits, self._boot_id, check
        )

    def transact(self, function: Callable[[FleetTransaction], T], *, attempts: int = 10) -> T:
        """Call `function` with a transaction, as the body of `transaction`, and return its result.

        After a conflict, `function` is called again with a new transaction, up to `attempts` times
        in all; see `Tables.transact`. The errors of its verbs are not conflicts.
        """
        return self.transaction()._transact(function, attempts)

    def get(self, ref: str) -> Agent:
        """Return the agent as it is now, even if it is archived."""
        ref = text("ref", ref)
        return self._agent(self._state.read(lambda fleet: fleet.find(ref)))

    def agents(
        self, *, status: Status | None = None, include_archived: bool = False
    ) -> list[Agent]:
        """Return all agents, or those with `status`, as they are at one moment, oldest first.

        Archived agents, which ended in a prior session, are left out unless `include_archived` is
        true, so that a new session begins without old results.
        """
        select = methodcaller("rows_with", status, include_archived=include_archived)
        rows: Iterable[Row] = self._state.read(select)
        if type(rows) is list:
            position = self._state.machine.rows.position
            rows.sort(key=lambda row: position(get.agent_id(row)) or 0)
        return agents_from_rows(
            rows, self._boot_id, status=status, include_archived=include_archived
        )

    def events(self, ref: str, *, after: int = 0) -> list[Progress]:
        """Return the kept events of an agent's progress with numbers above `after`, oldest first.

        A gap in the numbers means that events between were not kept; see `Limits.progress_max`.
        """
        ref, after = text("ref", ref), whole("after", after)
        return events_from_row(self._state.read(lambda fleet: fleet.find(ref)), after)

    def counts(self) -> dict[str, int]:
        """Return the number of agents with each status, archived ones too. This takes constant
        time.
        """
        return self._state.read(lambda fleet: fleet.counts.copy())

    def wait_ended(self, ref: str, *, timeout_s: float | None = None) -> Agent:
        """Block until an agent has ended and its end is durable, and return the agent.

        Raises TimeoutError after `timeout_s` seconds (None: no limit), FailedError, and ClosedError
        if the manager is closed before the agent ends.
        """
        timeout_s = optional_seconds("timeout_s", timeout_s)
        self._warn_in_event_loop("wait_ended", "ended(...)", timeout_s)
        return self._agent(self._watch.wait_ended(text("ref", ref), timeout_s))

    async def ended(self, ref: str) -> Agent:
        """Await an agent's durable end, like `wait_ended`, in any asyncio event loop.

        Use `asyncio.timeout` for a time limit.
        """
        return self._agent(await self._watch.ended(text("ref", ref)))

    def changes(self, after: int | None = None, *, cursor: str | None = None) -> Changes:
        """Return an async iterator that yields each agent when it changes, until `close`.

        With `after`, it begins with the agents that changed since that LSN; 0 means all agents.
        It yields each agent's newest state, ordered by `lsn`. An agent and its ancestors share an
        LSN when tokens are counted for all of them, so agents that have used tokens and have the
        LSN `after` are yielded again. A slow reader skips states, but never an agent that still
        exists, and never delays a writer. A yielded state is in memory: `await durable(agent.lsn)`
        before you rely on it.

        A `cursor` is a name. With one, the iterator begins after the changes that an iterator of
        this name has dealt with before, even in an earlier process; the first one begins with all
        agents. A change is dealt with when the next one is asked for. After a crash, a few of the
        last changes may be yielded again. Read one iterator of a name at a time. The positions are
        in the table "changes.cursors".

        Raises ClosedError, and ValueError if `after` was never appended. Reading the iterator may
        raise FailedError.
        """
        after = optional_lsn("after", after)
        if cursor is None:
            return self._watch.changes(self._boot_id, after)
        if after is not None:
            raise ValueError("after and cursor exclude each other; give one of them")
        name, table = text("cursor", cursor), self.tables.table("changes.cursors")
        after = table.get(name, 0)
        reader = self._watch.changes(self._boot_id, after)
        reader._store_in(partial(table.set, name), after)
        return reader

    def wait_durable(self, lsn: int | None = None, *, timeout_s: float | None = None) -> None:
        """Block until all changes up to `lsn` (None: all changes so far) are durable.

        Raises TimeoutError after `timeout_s` seconds (None: no limit), and FailedError. Source:
        journal/docs/RELIABILITY.md, P2.
        """
        self._state.wait_durable(lsn, timeout_s=timeout_s)

    async def durable(self, lsn: int | None = None) -> None:
        """Await the durability of changes, like `wait_durable`, in any asyncio event loop.

        Use `asyncio.timeout` for a time limit.
        """
        await self._state.durable(lsn)

    def wait_mirrored(self, lsn: int | None = None, *, timeout_s: float | None = None) -> None:
        """Block until the mirror has all changes up to `lsn`; see `Journal.wait_mirrored`.

        Raises TimeoutError after `timeout_s` seconds (None: no limit), FailedError, and ValueError
        without a mirror.
        """
        self._state.wait_mirrored(lsn, timeout_s=timeout_s)

    async def mirrored(self, lsn: int | None = None) -> None:
        """Await the arrival of changes in the mirror, like `wait_mirrored`, in any event loop."""
        await self._state.mirrored(lsn)

    def wait_room(self, *, timeout_s: float | None = None) -> None:
        """Block until the log buffer has room; see `Journal.wait_room`.

        Raises TimeoutError after `timeout_s` seconds (None: no limit), and FailedError.
        """
        self._state.wait_room(timeout_s=timeout_s)

    async def room(self) -> None:
        """Await room in the log buffer, like `wait_room`, in any asyncio event loop.

        Await it before many changes, because in an event loop a change never waits for room.
        """
        await self._state.room()

    def stats(self) -> Stats:
        """Return the journal's statistics since it was opened."""
        return self._state.stats()

    def lock_stats(self) -> LockStats:
        """Return how long the manager's lock was held and waited for, in nanoseconds."""
        return self._state.lock_stats()

    def compact(self) -> Checkpoint:
        """Write a checkpoint now, and remove the files that it covers.

        This also happens in the background, so there is no need to call it. Raises FailedError,
        ClosedError, and OSError if this attempt fails, which has no other consequence.
        """
        return self._state.compact()

    def import_legacy(self, path: StrPath, *, skip_unknown: bool = False) -> tuple[Agent, ...]:
        """Import the agents of a JSON file in which an older tool kept them.

        Return the imported agents. Agents whose id exists here are skipped, so importing a file
        again changes nothing. Agents that were running become interrupted. `Limits` do not apply to
        their number. The whole file is checked before anything is journaled, and the agents are
        durable when the method returns. A crash during the import may leave a part of them, which
        a second import completes. The method blocks, so use `asyncio.to_thread` in an event loop.

        With `skip_unknown`, agents of a status that this version does not know are left out and
        logged; otherwise they are a bad value.

        Raises LegacyError, which names the place of a bad value, UnsafePathError, OSError, and
        NameInUseError if an id in the file is the name of a live agent here. Source:
        `manager.legacy`.
        """
        from manager.importing import import_file  # not loaded by every manager

        imported = import_file(
            path, self._state.machine, self._updates, self._limits, self._options, skip_unknown
        )
        self.wait_durable()
        return tuple(map(self._agent, imported))

    def close(self, *, timeout_s: float | None = None) -> None:
        """Make all changes durable and close the journal. A second call does nothing.

        Agents that are running stay `running` until the next open interrupts them. Waiters for an
        agent's end get ClosedError, and `changes` iterators end. Raises TimeoutError after
        `timeout_s` seconds (None: no limit); the lock is still held then, so call it again. Raise
        FailedError if the journal has failed and a change was not synced.
        """
        self._watch.check_free()
        self._end_control()
        try:
            self._state.close(timeout_s=timeout_s)
        finally:
            self._end_watch()

    @property
    def boot_id(self) -> str:
        """The id of this session, which is this opening of the manager. An agent is
        `from_prior_session` if its `boot_id` is another one."""
        return self._boot_id

    @property
    def limits(self) -> Limits:
        """The limits that this manager was opened with."""
        return self._limits

    @property
    def path(self) -> str:
        """The path of the journal's directory."""
        return self._state.journal.path

    @property
    def closed(self) -> bool:
        """True if the manager is closed."""
        return self._state.closed

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._end_control()
        try:
            self._state.__exit__(kind, error, traceback)
        finally:
            self._end_watch()

    def _condition(self) -> str:
        return f"{self._state._condition()} boot_id={self._boot_id}"

    def _end_control(self) -> None:
        # While the lock is held: the name of the socket may be the next writer's afterwards.
        if self._control is not None:
            self._control.stop()

    def _end_watch(self) -> None:
        if self.closed:
            self._watch.close()
            if self._outputs is not None:
                self._outputs.remove()

    @property
    def _workers(self) -> Workers | None:
        return self._updates.workers

    def _update(
        self, verb: str, ref: str, target: Status | None, record: Record, *, urgent: bool = False
    ) -> Agent:
        row = self._updates.update(verb, ref, target, record, urgent=urgent)
        return agent_from_row(row, self._boot_id)

    def _rows(self) -> Iterable[Row]:
        """Return a snapshot of all rows. As long as it exists, each change costs a little more."""
        return self._state.read(lambda fleet: fleet.rows.freeze())

    def _agent(self, row: Row) -> Agent:
        return agent_from_row(row, self._boot_id)


def _decide(records: list[Any], fleet: Fleet) -> list[Any]:
    """Return `records` as they are. The fleet has no other user yet, so nothing is looked up."""
    return records
