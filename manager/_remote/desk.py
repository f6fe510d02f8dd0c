"""Desk: answers the requests of workers, on the side of the manager.

A start is durable before its worker gets it, and a report before its worker may forget it. Leases
are in the journal; only their deadlines and what is known of workers are kept here. So a desk of a
later process goes on with the same leases, each with a full new time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from journal import RecordError
from manager import clock
from manager._remote import messages
from manager._remote.grants import grant_of, lease_of, size_of
from manager._remote.messages import Body, Lease, MessageError, VersionError
from manager._remote.reports import content_of, failure_of
from manager._remote.roster import KnownWorker, Roster
from manager._remote.supply import Supply
from manager.agent import Agent, Row, get
from manager.errors import BudgetError, CapacityError, TransitionError, UnknownAgentError
from manager.layouts import Record
from manager.leasing import Leasing, Outcome
from manager.manager import SubAgentManager
from manager.steps import advance

LEASE_S = 30.0
"""The default time, in seconds, after which the lease of a silent worker is lost."""

ATTEMPTS_MAX = 3
"""The default number of lost leases after which an agent fails."""

_WAIT_S_MAX = 60.0
_MACHINE_CHARS_MAX = 255
_CLOSE_S = 1.0
_UNCONFIRMED = 1 / 3  # the share of a lease's time within which the worker must confirm it
_TICKS = 10  # the number of checks of the deadlines within the time of a lease
_OVERHEAD_BYTES = 4096  # the size of an answer without its grants, at most
_REQUESTS_MAX = 4096  # requests being answered; more are dropped, and workers repeat them


@dataclass(slots=True)
class _Held:
    """A lease that goes on, with its worker and its deadline by the monotonic clock."""

    lease: Lease
    worker: str
    until_s: float
    is_confirmed: bool = True  # False until the worker says that it has got the agent


OnResult = Callable[[Lease, int, Record, str], tuple[Outcome, int] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """The parts of a desk that belong to one kind of manager."""

    supply: Supply
    """The agents that workers get."""

    on_result: OnResult = lambda *_: None
    """A function that receives the lease, the number and the record of a result, and the worker's
    name. It journals the result and returns the outcome and the LSN, or returns None to leave that
    to the desk."""

    grant: Body = field(default_factory=dict)
    """The options that each worker gets with each agent."""

    on_end: Callable[[], object] = lambda: None
    """A function that is called in the dispatcher's thread when that ends."""


class StaleError(Exception):
    """A worker has seen a newer manager of this journal, so this one must not answer any more."""


class Desk:
    """The requests of the workers of one manager. Use it in one event loop."""

    def __init__(
        self,
        manager: SubAgentManager,
        hooks: Hooks,
        settle: Callable[[int], Awaitable[object]],
        *,
        lease_s: float = LEASE_S,
        attempts_max: int = ATTEMPTS_MAX,
        message_bytes_max: int,
        clock_s: Callable[[], float] = clock.monotonic,
    ) -> None:
        """Prepare answers. `settle` waits until the record of an LSN can't be lost any more."""
        self._manager = manager
        self._hooks = hooks
        self._supply = hooks.supply
        self.settle = settle
        """The wait given to the constructor."""

        self._lease_s = lease_s
        self._attempts_max = attempts_max
        self._bytes_max = message_bytes_max
        self.clock_s = clock_s
        """The clock given to the constructor."""

        self._leasing = Leasing(manager)
        self._journal_id = manager._state.journal.journal_id
        self._held: dict[str, _Held] = {}  # by the agent's id
        self.roster = Roster()
        """The workers that were heard."""

        self._ready = asyncio.Event()  # replaced each time it is set
        self._answering = 0
        self._is_closing = False
        self._ticked_s = clock_s()
        for row in manager._rows():
            if (known := get.lease(row)) is not None and get.status(row) == "running":
                held = _Held(lease_of(row), known["worker"], clock_s() + lease_s)
                self._held[get.agent_id(row)] = held

    @property
    def tick_s(self) -> float:
        """The time between two checks of the deadlines, in seconds."""
        return self._lease_s / _TICKS

    def workers(self) -> list[tuple[KnownWorker, list[str]]]:
        """Return the workers, each with the ids of the agents that it runs."""
        running: dict[str, list[str]] = {}
        for held in self._held.values():
            running.setdefault(held.worker, []).append(held.lease.agent_id)
        workers = {**self.roster}
        for worker in running:
            workers.setdefault(worker, KnownWorker(worker, self.clock_s()))
        return [(known, running.get(worker, [])) for worker, known in workers.items()]

    async def answer(self, verb: str, worker: str, data: bytes) -> bytes | None:
        """Return the answer to a request of `worker`, or None if the request gets none.

        Raises StaleError, and the errors of the journal.
        """
        if self._answering >= _REQUESTS_MAX:
            return None
        self._answering += 1
        try:
            answer = await self._answer(verb, worker, data)
        except VersionError as error:
            answer = {"error": "version", "text": f"the worker {error}"}
        except MessageError as error:
            answer = {"error": "malformed", "text": str(error)}
        finally:
            self._answering -= 1
        return None if answer is None else messages.pack(self.stamped(answer))

    def stamped(self, answer: Body) -> Body:
        """Return a message with the fields that each message of this manager has."""
        stamp = {"journal": self._journal_id, "epoch": self._leasing.epoch}
        return {**messages.versions(), **stamp, "lease_s": self._lease_s, **answer}

    async def _answer(self, verb: str, worker: str, data: bytes) -> Body | None:
        body = messages.unpack(data)
        messages.common_version(body)
        if body.get("worker") != worker:
            raise MessageError("the worker's id does not fit the subject")
        is_same_journal = body.get("journal") == self._journal_id
        if is_same_journal and messages.whole(body.get("epoch")) > self._leasing.epoch:
            raise StaleError(f"worker {worker} has seen epoch {body['epoch']} of this journal")
        sender = self.roster.seen(worker, self.clock_s())
        sender.machine = messages.text(body.get("machine", ""), "machine")[:_MACHINE_CHARS_MAX]
        match verb:
            case "next":
                return await self._next(sender, body)
            case "beat":
                return await self._beat(sender, body)
            case "report":
                return await self._report(sender, body)
        raise MessageError(f"unknown request {verb!r:.40}")

    # --- the requests ---

    async def _next(self, sender: KnownWorker, body: Body) -> Body | None:
        number = messages.whole(body.get("number"), low=1)
        types = messages.texts(body.get("types"), "types")
        sender.queues = messages.texts(body.get("queues"), "queues")
        slots = sender.slots = messages.whole(body.get("slots"))
        until_s = self.clock_s() + messages.seconds(body.get("wait_s"), _WAIT_S_MAX)
        known = {Lease.of(item) for item in messages.items(body.get("held"), "held")}
        if number <= sender.number:
            return None  # a repetition that came late: the worker waits for a newer one
        sender.number = number
        self.ready_now()  # an older request of this worker ends
        if messages.whole(body.get("running", 0)) and body.get("journal") != self._journal_id:
            sender.slots = 0
            return {"grants": []}  # it obeys the manager of another journal until they have ended
        while True:
            await self._manager.room()
            if sender.number != number:
                return None
            grants, room_bytes = self._reissued(sender.worker, known)
            if not self._is_closing:
                grants += self._begun(sender, types, slots - len(grants), room_bytes)
            left_s = until_s - self.clock_s()
            if grants or left_s <= 0 or self._is_closing:
                break
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._ready.wait()
        try:
            if grants:
                await self.settle(max(get.lsn(row) for row in grants))
        finally:
            for row in grants:
                self._renew(lease_of(row))
        going_on = [row for row in grants if self._renew(lease_of(row))]
        return {"grants": [{**grant_of(row), "options": self._hooks.grant} for row in going_on]}

    async def _beat(self, sender: KnownWorker, body: Body) -> Body:
        leases = [Lease.of(item) for item in messages.items(body.get("held"), "held")]
        goes_on, lsn = self._leasing.held(leases, messages.name_of(sender.worker))
        over: list[Lease] = []
        for lease, is_held in zip(leases, goes_on, strict=True):
            if is_held:
                self._confirm(lease)
                with suppress(UnknownAgentError):  # it was removed meanwhile
                    self._manager.touch(lease.agent_id)
            else:
                over.append(lease)
        if over:
            await self.settle(lsn)
        return {"stop": [lease.message for lease in over]}

    async def _report(self, sender: KnownWorker, body: Body) -> Body:
        lease = Lease.of(body.get("lease"))
        sequence = messages.whole(body.get("sequence"), low=1)
        kind = messages.text(body.get("kind"), "kind")
        report, agent_id = self._leasing.report, lease.agent_id
        name = messages.name_of(sender.worker)
        await self._manager.room()
        try:
            content = content_of(kind, body.get("body"), self._manager.limits)
            ended = None
            if kind == "result":
                ended = self._hooks.on_result(lease, sequence, content, name)
            outcome, lsn = ended or report(agent_id, lease.token, sequence, content, name)
        except (TypeError, ValueError, RecordError) as error:
            if kind != "result":
                return {"outcome": "refused", "text": str(error)}
            # Its worker has nothing else to say, so the agent ends with that error.
            failure = failure_of(error, self._manager.limits)
            outcome, lsn = report(agent_id, lease.token, sequence, failure, name)
        if outcome == "recorded":
            self._confirm(lease)
            if kind == "result":
                self._held.pop(agent_id, None)
        await self.settle(lsn)
        return {"outcome": outcome}

    # --- leases ---

    def _reissued(self, worker: str, known: set[Lease]) -> tuple[list[Row], int]:
        """Return the agents whose start was in an answer to this worker that was lost, as many as
        one message can carry, and the bytes that it has left for more agents."""
        held = [held for held in self._held.values() if held.worker == worker]
        missing = [held.lease for held in held if held.lease not in known]
        rows = [self._manager._state.machine.rows.get(lease.agent_id) for lease in missing]
        grants: list[Row] = []
        room_bytes = self._room_bytes
        for row in rows:
            if row is None or get.status(row) != "running":
                continue
            if (size := size_of(row)) <= room_bytes:  # else a later answer has room for it
                room_bytes -= size
                grants.append(row)
        return grants, room_bytes

    def _begun(
        self, sender: KnownWorker, types: list[str], slots: int, room_bytes: int
    ) -> list[Row]:
        """Begin the leases of up to `slots` agents, with up to `room_bytes` in a message."""
        grants: list[Row] = []
        if slots <= 0:
            return grants
        for agent_id in self._supply.candidates({*types}, {*sender.queues}):
            try:
                size = size_of(self._row(agent_id))
                is_too_large = size > self._room_bytes
                if size > room_bytes and not is_too_large:
                    break  # the next answer has room for it
                row = self._leasing.begin(agent_id, sender.worker)
            except CapacityError:
                break
            except (BudgetError, TransitionError, UnknownAgentError):
                self._supply.drop(agent_id)
                continue
            self._supply.drop(agent_id)
            lease = lease_of(row)
            if is_too_large:
                self._fail(lease, f"has {size} bytes, more than the servers carry in a message")
                continue
            self._held[agent_id] = _Held(lease, sender.worker, math.inf, is_confirmed=False)
            room_bytes -= size
            grants.append(row)
            if len(grants) == slots:
                break
        return grants

    def check_spawn(self, record: Record) -> None:
        """Raise ValueError if no message can carry the agent of a spawn record. Any thread may call
        this."""
        size = size_of(advance(None, 0, record))
        if size > self._room_bytes:
            raise ValueError(
                f"the agent has {size} bytes, over the {self._room_bytes} that a message of the "
                "servers carries to its worker; shorten its prompt or metadata"
            )

    def _row(self, agent_id: str) -> Row:
        return self._manager._state.read(lambda fleet: fleet.find(agent_id))

    @property
    def _room_bytes(self) -> int:
        """The size of the grants that a message can carry."""
        return self._bytes_max - _OVERHEAD_BYTES

    def _fail(self, lease: Lease, what: str) -> None:
        failure = failure_of(ValueError(f"the agent {what}"), self._manager.limits)
        self._leasing.report(*lease, 1, failure, None)

    def _renew(self, lease: Lease) -> bool:
        """Give a lease a full new time, and return whether it goes on."""
        held = self._held.get(lease.agent_id)
        if held is None or held.lease != lease:
            return False
        share = 1 if held.is_confirmed else _UNCONFIRMED
        held.until_s = self.clock_s() + share * self._lease_s
        return True

    def _confirm(self, lease: Lease) -> None:
        if (held := self._held.get(lease.agent_id)) is not None and held.lease == lease:
            held.is_confirmed = True
        self._renew(lease)

    def note(self, agent: Agent) -> _Held | None:
        """Take note of an agent's new state. Return its lease if that ended by another call, so
        that its worker should stop."""
        self._supply.note(agent)
        held, token = self._held.get(agent.agent_id), agent.lease
        if agent.status != "running":
            self.ready_now()
        if held is None:
            return None
        is_same = token is not None and (token["epoch"], token["lsn"]) == held.lease.token
        if agent.status == "running" and is_same:
            return None
        if is_same or agent.lsn > held.lease.token.lsn:  # not a state from before the lease
            return self._held.pop(agent.agent_id)
        return None

    def silent(self) -> set[str]:
        """Return the workers that have confirmed a lease, and were silent for half of its time.

        A healthy one beats earlier, unless the leases of the manager before were longer.
        """
        until_s = self.clock_s() + self._lease_s / 2
        held = self._held.values()
        return {lease.worker for lease in held if lease.is_confirmed and lease.until_s <= until_s}

    def renew_all(self) -> None:
        """Give all leases a full new time, because no worker could reach this manager."""
        for held in self._held.values():
            held.until_s = self.clock_s() + self._lease_s

    def expire(self) -> None:
        """End the leases of silent workers. Call this every `tick_s` seconds."""
        now_s, before_s = self.clock_s(), self._ticked_s
        self._ticked_s = now_s
        if now_s - before_s > 3 * self.tick_s:  # this process was stopped, and heard nobody
            self.renew_all()
        for held in [held for held in self._held.values() if held.until_s <= now_s]:
            del self._held[held.lease.agent_id]
            self._leasing.lose(*held.lease, self._attempts_max, has_begun=held.is_confirmed)
        self.roster.shrink()

    async def close(self) -> None:
        """Begin no more leases, and wait a moment until all requests are answered, so that workers
        need not wait in vain."""
        self._is_closing = True
        self.ready_now()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                while self._answering:
                    await asyncio.sleep(_CLOSE_S / 100)

    def ready_now(self) -> None:
        """Let the requests that wait for agents look again."""
        self._ready.set()
        self._ready = asyncio.Event()
