"""SubAgentManager: sub-agents whose every change is journaled, with a lock that is barely held.

A method checks and copies its values, builds and packs the record, and only then takes the lock: to
look the agent up, check the table and the limits, apply and append. (One that changes many agents
finds out under the lock which, and packs there.) The Agent it returns is built when the lock is
free again, and who watches is told then. Nothing waits for the disk, but for what says so in its
name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from functools import partial
from itertools import chain
from typing import Any

from journal import Checkpoint, DurableState, LockStats, Options, PackedRecord, Stats
from manager import ids, records
from manager._public import public
from manager.agent import (
    ENDED,
    JSON,
    Agent,
    Row,
    Status,
    agent_from_row,
    agents_from_rows,
    get,
)
from manager.arguments import instance, optional_lsn, optional_seconds, seconds
from manager.changes import Changes
from manager.cleanup import Heartbeats, candidates, slices, still_due
from manager.fleet import Fleet
from manager.importing import imports, new_here
from manager.legacy import read_legacy
from manager.limits import Limits
from manager.records import Record
from manager.recovery import recovered
from manager.result import AgentResult
from manager.updates import Change, RecordsByRow, Updates
from manager.values import tail, text
from manager.watch import Watch
from manager.workspace import StrPath, state_path

_INTERRUPT_SLICE = 256  # agents interrupted by one batch when a fleet is opened again


@public
class SubAgentManager:
    """The sub-agents of one workspace; made by `open`.

    Any thread may call any method, and so may code in an event loop: no method but `open`,
    `wait_durable`, `wait_ended`, `wait_room`, `import_legacy`, `compact`, `stats` and `close`
    waits or does I/O there. A method that changes an agent returns it as that change left it, in
    memory: `wait_durable(agent.lsn)` waits until it is on stable storage. `ref` is an agent's id,
    or its name if that is unique: a live agent's (queued, running, interrupted) name always is; a
    name that only several finished agents had is an AmbiguousNameError, one that none had
    UnknownAgentError.

    Values are copied, and checked to be JSON: otherwise TypeError or ValueError names the key.
    Errors of the journal come through: BufferFullError when the disk can't keep up or is full,
    FailedError, ClosedError, RecordError for what is too large. After any error nothing has
    changed. Source: `manager.agent.VERBS` for the transitions, `Limits` for what is admitted.
    """

    def __init__(
        self, state: DurableState[Fleet], limits: Limits, options: Options = Options()
    ) -> None:
        state.machine.end_replay()  # from now on it changes only as the methods below allow
        self._state = state
        self._limits = limits
        self._options = options
        self._boot_id = f"boot_{os.urandom(6).hex()}"
        self._watch = Watch(state)
        self._beats = Heartbeats(limits.heartbeat_timeout_s)
        self._updates = Updates(state, limits, self._watch, self._beats)

    @classmethod
    def open(
        cls,
        workspace: StrPath,
        *,
        state_dir: StrPath = ".subagents",
        limits: Limits = Limits(),
        options: Options = Options(),
        disk: Any = None,
    ) -> SubAgentManager:
        """Recover the fleet kept in `state_dir` below `workspace`, or begin one.

        Agents that were running are interrupted now, with the reason "process restarted". Those
        records need not be waited for: whatever is durable later makes them durable too, and
        without it the next open interrupts the same agents again. So a full disk opens.

        Raises what opening a journal raises: LockedError, CorruptionError, FormatVersionError,
        UnsafePathError also for a symlink below the workspace. `disk` is for tests: then
        `workspace` is a path on that disk.
        """
        instance("limits", limits, Limits)
        instance("options", options, Options)
        place = (
            state_path(workspace, state_dir)
            if disk is None
            else nullcontext(os.path.join(workspace, state_dir))
        )
        with ExitStack() as undo:
            with place as path:
                state = recovered(path, options=options, disk=disk)
                undo.push(state)
            manager = cls(state, limits, options)
            manager._boot()
            undo.pop_all()
        return manager

    __reduce__ = DurableState.__reduce__  # refuses to be copied or pickled

    def _boot(self) -> None:
        self._state.update(partial(_decide, records.boot(self._boot_id, _now_ms(), os.getpid())))
        running = [get.agent_id(row) for row in self._rows() if get.status(row) == "running"]
        while running:
            batch = [
                records.interrupt_by_restart(agent_id, _now_ms())
                for agent_id in running[:_INTERRUPT_SLICE]
            ]
            self._state.update_batch(partial(_decide, batch))
            del running[:_INTERRUPT_SLICE]

    def spawn(
        self,
        prompt: str,
        *,
        agent_type: str = "general",
        name: str | None = None,
        parent_id: str | None = None,
        model: str | None = None,
        role: str | None = None,
        allowed_tools: Iterable[str] | None = None,
        token_budget: int | None = None,
        queued: bool = False,
        metadata: dict[str, JSON] | None = None,
    ) -> Agent:
        """Admit a new agent: running, or queued if asked.

        `parent_id` is a ref; the parent may have ended. `allowed_tools`: None is all, () none.
        `token_budget`: tokens, at least 1. Raises NameInUseError if a live agent has that
        name, BudgetError if the budget of the parent or one above it is spent, CapacityError past
        `max_depth`, `max_admitted` (agents that have not ended) or, unless queued,
        `max_running`. Source: `Limits`.
        """
        record = records.spawn(
            ids.new_agent_id(),
            _now_ms(),
            self._boot_id,
            status="queued" if queued else "running",
            name=name,
            agent_type=agent_type,
            role=role,
            model=model,
            prompt=prompt,
            prompt_bytes_max=self._limits.prompt_bytes_max,
            allowed_tools=allowed_tools,
            token_budget=token_budget,
            metadata=metadata,
        )
        parent_ref = None if parent_id is None else text("parent_id", parent_id)
        prefetched = None if parent_ref is None else self._state.machine.prefetch(parent_ref)
        if prefetched is not None:
            record[records.PARENT] = _below(prefetched)

        def decide(packed: PackedRecord, fleet: Fleet) -> Change | None:
            if record[records.AGENT_ID] in fleet.rows:
                return None
            parent = None if parent_ref is None else fleet.find(parent_ref)
            fleet.check_budget(parent)
            fleet.check_spawn(name, parent, self._limits)
            if not queued:
                fleet.check_running(self._limits)
            if parent is None or record[records.PARENT] == _below(parent):
                return packed
            record[records.PARENT] = _below(parent)
            return record

        return self._agent(self._updates.spawn(record, decide))

    def start(self, ref: str) -> Agent:
        """Let a queued agent run.

        Raises CapacityError at `max_running`, BudgetError if its budget or one above it is spent,
        TransitionError.
        """
        return self._update("start", ref, "running", records.start(_now_ms(), self._boot_id))

    def resume(self, ref: str) -> Agent:
        """Let an interrupted agent run again, from its `checkpoint`.

        Clears `reason` and `needs_input`. Raises what `start` raises.
        """
        return self._update("resume", ref, "running", records.resume(_now_ms(), self._boot_id))

    def update_checkpoint(self, ref: str, checkpoint: JSON, *, steps_taken: int) -> Agent:
        """Note how far a running agent has come, and what it needs to go on from there.

        Raises TransitionError unless it runs.
        """
        record = records.checkpoint(_now_ms(), checkpoint, steps_taken)
        return self._update("update_checkpoint", ref, "running", record)

    def record_usage(self, ref: str, *, input_tokens: int, output_tokens: int) -> Agent:
        """Add to the `tokens_used` of an agent and all its ancestors, whatever their status.

        Ends nobody, even past a budget: `spawn`, `start` and `resume` ask for that. End it with
        `update_from_result` and status "budget_exhausted", so that what it has is not lost.
        """
        record = records.usage(_now_ms(), input_tokens, output_tokens)
        return self._update("record_usage", ref, None, record)

    def update_from_result(self, ref: str, result: AgentResult) -> Agent:
        """Note how a running agent's run came out; see `AgentResult`.

        A result or reason over `result_bytes_max` keeps its tail and says so. Raises
        TransitionError unless it runs: a late result changes nothing.
        """
        instance("result", result, AgentResult)
        record = records.result(
            _now_ms(),
            result.status,
            result=self._tail("result", result.result),
            reason=self._tail("reason", result.reason),
            steps_taken=result.steps_taken,
            checkpoint=result.checkpoint,
            needs_input=result.needs_input,
            input_tokens=result.input_tokens,
            output_tokens=result.output_tokens,
        )
        return self._update("update_from_result", ref, result.status, record, urgent=True)

    def update_failed(self, ref: str, error: str) -> Agent:
        """End a running agent as failed, with `error` as its `reason`, cut like a result.

        Raises TransitionError unless it runs.
        """
        reason = tail("error", error, self._limits.result_bytes_max)
        record = records.result(_now_ms(), "failed", reason=reason)
        return self._update("update_failed", ref, "failed", record, urgent=True)

    def interrupt(
        self, ref: str, reason: str, *, checkpoint: JSON = None, needs_input: JSON = None
    ) -> Agent:
        """Stop a running agent that may be resumed; `checkpoint` None keeps the one it has.

        `needs_input`: what it waits for. Raises TransitionError unless it runs.
        """
        reason = tail("reason", reason, self._limits.result_bytes_max)
        record = records.interrupt("", _now_ms(), reason, checkpoint, needs_input)
        return self._update("interrupt", ref, "interrupted", record, urgent=True)

    def cancel(self, ref: str, *, descendants: bool = False) -> Agent:
        """End an agent that has not ended; one that has is left as it is.

        With `descendants` also all below it that have not ended, in one batch: a crash leaves
        all of it or nothing. That hold of the lock takes a time for each of them.
        """
        at_ms = _now_ms()
        if not descendants:
            return self._update("cancel", ref, "cancelled", records.cancel("", at_ms), urgent=True)
        ref = text("ref", ref)
        row: Row = ()

        def decide(fleet: Fleet) -> RecordsByRow:
            nonlocal row
            row = fleet.find(ref)
            line = [] if get.status(row) in ENDED else [row]
            line += [fleet.rows[agent_id] for agent_id in fleet.family.living(get.agent_id(row))]
            return [(each, records.cancel(get.agent_id(each), at_ms)) for each in line]

        cancelled = self._updates.many(decide, urgent=True)
        return self._agent(row if get.status(row) in ENDED else cancelled[0])

    def touch(self, ref: str) -> None:
        """Say that a running agent is alive, if nothing else changed: any update says so too.

        Of one that does not run it says nothing. Not journaled. Source: `cleanup`.
        """
        ref = text("ref", ref)
        row = self._state.read(lambda fleet: fleet.find(ref))
        if get.status(row) == "running":
            self._beats.beat(get.agent_id(row))

    def cleanup(self, max_age_s: float) -> tuple[Agent, ...]:
        """Drop agents that ended at least `max_age_s` seconds ago, and cancel dead ones.

        For dead is taken a running one without an update or a touch for `heartbeat_timeout_s`.
        A parent stays while a child does. Returns the dropped as they were, the cancelled as they
        are. It goes through the fleet outside the lock; a hold of it, and a batch, deals with 64
        agents at most. Source: `Limits`.
        """
        max_age_s = seconds("max_age_s", max_age_s, low=0)
        at_ms = _now_ms()
        self._beats.forget_removed(self._state.machine.rows)
        is_silent = self._beats.silence()
        found = candidates(self._rows(), at_ms - max_age_s * 1000, is_silent)
        reason = f"no sign of life for {self._limits.heartbeat_timeout_s:g} s"
        cleaned: list[Row] = []
        for chunk in slices(found):
            decide = partial(still_due, rows=chunk, is_silent=is_silent, at_ms=at_ms, reason=reason)
            cleaned += self._updates.many(decide, urgent=True)
        return tuple(map(self._agent, cleaned))

    def get(self, ref: str) -> Agent:
        """The agent as it is now, an archived one too."""
        ref = text("ref", ref)
        return self._agent(self._state.read(lambda fleet: fleet.find(ref)))

    def agents(
        self, *, status: Status | None = None, include_archived: bool = False
    ) -> list[Agent]:
        """The agents as they are at one moment, oldest first; with that status, if given.

        Archived ones are left out unless asked for: those that have ended in a prior session, so
        that a new session begins with what is still of concern to it.
        """
        return agents_from_rows(
            self._rows(), self._boot_id, status=status, include_archived=include_archived
        )

    def counts(self) -> dict[str, int]:
        """How many agents have each status, archived ones too; kept by every change."""
        return self._state.read(lambda fleet: fleet.counts.copy())

    def wait_ended(self, ref: str, *, timeout_s: float | None = None) -> Agent:
        """Block until an agent has ended and that is durable; the agent as it ended.

        Raises TimeoutError after `timeout_s` seconds (None: no limit), FailedError, and
        ClosedError if the manager is closed before it ends.
        """
        timeout_s = optional_seconds("timeout_s", timeout_s)
        return self._agent(self._watch.wait_ended(text("ref", ref), timeout_s))

    async def ended(self, ref: str) -> Agent:
        """The same for asyncio, in any event loop; use `asyncio.timeout` to bound it."""
        return self._agent(await self._watch.ended(text("ref", ref)))

    def changes(self, after: int | None = None) -> Changes:
        """An async iterator of agents as they change, from this call on, until close.

        With `after` it begins with all that have changed since that LSN (0: with all there are).
        It shows each agent's newest state, ordered by `lsn`. An agent and its ancestors may share
        one, and if several share `after` all of them are shown again. A slow reader misses states,
        never an agent that is still there, and holds no writer back. What it shows is in memory:
        `await durable(agent.lsn)` before that counts.

        Raises ClosedError, ValueError for an LSN never appended; reading it, FailedError.
        """
        return self._watch.changes(self._boot_id, optional_lsn("after", after))

    def wait_durable(self, lsn: int | None = None, *, timeout_s: float | None = None) -> None:
        """Block until all changes up to `lsn`, an Agent's or None for all, survive a crash.

        Raises TimeoutError after `timeout_s` seconds (None: no limit), FailedError. Source:
        journal/docs/RELIABILITY.md, P2.
        """
        timeout_s = optional_seconds("timeout_s", timeout_s)
        self._state.wait_durable(optional_lsn("lsn", lsn), timeout_s=timeout_s)

    async def durable(self, lsn: int | None = None) -> None:
        """The same for asyncio, in any event loop; use `asyncio.timeout` to bound it."""
        await self._state.durable(optional_lsn("lsn", lsn))

    def wait_room(self, *, timeout_s: float | None = None) -> None:
        """Block until there is room; see Journal.wait_room. Raises TimeoutError, FailedError."""
        self._state.wait_room(timeout_s=optional_seconds("timeout_s", timeout_s))

    async def room(self) -> None:
        """The same for asyncio: await it before many changes, which never wait in a loop."""
        await self._state.room()

    def stats(self) -> Stats:
        """The journal's figures since it was opened."""
        return self._state.stats()

    def lock_stats(self) -> LockStats:
        """How long the manager's lock was held and waited for, in ns."""
        return self._state.lock_stats()

    def compact(self) -> Checkpoint:
        """Write a checkpoint now and drop what it covers; done in the background anyway.

        Raises OSError where it fails, and that attempt only; FailedError, ClosedError.
        """
        return self._state.compact()

    def import_legacy(self, path: StrPath) -> tuple[Agent, ...]:
        """Take over the agents of a file that was kept before there was a journal.

        Returns those that were not here yet: an id that is here is skipped, so importing again
        changes nothing. One that ran is interrupted. They may be more than `Limits` admits. All
        is checked before anything is journaled, and durable on return; a crash in between may
        leave a part, which importing again completes. It blocks, so in an event loop use
        `asyncio.to_thread`.

        Raises LegacyError, which says where the file is wrong, UnsafePathError, OSError, and
        NameInUseError if an id in it is a live agent's name here. Source: `manager.legacy`.
        """
        batches = read_legacy(
            path,
            at_ms=_now_ms(),
            limits=self._limits,
            record_bytes_max=self._options.record_bytes_max,
        )
        for agent in chain.from_iterable(batches):
            new_here(self._state.machine, agent)  # refuses an id that is a name here
        imported: list[Row] = []
        for chunk in batches:
            imported += self._updates.many(partial(imports, agents=chunk))
        self.wait_durable()
        return tuple(map(self._agent, imported))

    def close(self) -> None:
        """Make all changes durable and close the journal; again: nothing.

        Agents that run stay `running`, and are interrupted at the next open. Who waits for one
        to end gets ClosedError; `changes` come to their end. Waits as long as the disk takes;
        raises FailedError if the journal had failed and a change was not synced.
        """
        self._watch.check_free()
        try:
            self._state.close()
        finally:
            self._end_watch()

    @property
    def boot_id(self) -> str:
        """This opening of the manager; `from_prior_session` compares with it."""
        return self._boot_id

    @property
    def limits(self) -> Limits:
        """What this manager admits."""
        return self._limits

    @property
    def path(self) -> str:
        """The journal's directory."""
        return self._state.journal.path

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._state.closed

    def __enter__(self) -> SubAgentManager:
        return self

    def __exit__(self, *raised: Any) -> None:
        try:
            self._state.__exit__(*raised)
        finally:
            self._end_watch()

    def _end_watch(self) -> None:
        if self.closed:
            self._watch.close()

    def _update(
        self, verb: str, ref: str, target: Status | None, record: Record, *, urgent: bool = False
    ) -> Agent:
        return self._agent(self._updates.one(verb, ref, target, record, urgent=urgent))

    def _rows(self) -> Iterable[Row]:
        """All rows of this moment. As long as it is held, each change costs a little more."""
        return self._state.read(lambda fleet: fleet.rows.freeze())

    def _agent(self, row: Row) -> Agent:
        return agent_from_row(row, self._boot_id)

    def _tail(self, where: str, value: str | None) -> str | None:
        return None if value is None else tail(where, value, self._limits.result_bytes_max)


def _decide(records: list[Any], fleet: Fleet) -> list[Any]:
    """Nobody else uses the fleet yet: there is nothing to look up under the lock."""
    return records


def _below(parent: Row) -> list[Any]:
    return [get.agent_id(parent), get.spawn_depth(parent) + 1]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
