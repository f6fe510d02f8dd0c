"""Dispatcher: gives the agents of a manager to workers in other processes, through NATS."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from journal import AsyncHandle, ClosedError
from manager._public import public
from manager._remote import messages, subjects
from manager._remote.address import Address
from manager._remote.desk import ATTEMPTS_MAX, LEASE_S, Desk, Hooks, StaleError
from manager._remote.inquiries import Inquiries
from manager._remote.link import Answer, Link, NatsLink, UnansweredError
from manager._remote.messages import Lease
from manager._remote.rivals import Rivals
from manager._remote.supply import FleetSupply
from manager.agent import Agent
from manager.arguments import instance, optional_seconds, seconds
from manager.errors import DispatchError
from manager.manager import SubAgentManager
from manager.values import whole
from manager.waking import call_in_loop

_log = logging.getLogger("manager")
_STOP_TIMEOUT_S = 2.0
_LOOK_S = 0.1  # between two checks whether the dispatcher has ended
Connect = Callable[[], Awaitable[Link]]


class Serving:
    """The answers to all requests of workers, in one event loop."""

    def __init__(self, desk: Desk, link: Link, fleet: str, manager: SubAgentManager) -> None:
        self._desk = desk
        self._link = link
        self._fleet = fleet
        self._manager = manager
        self._group: asyncio.TaskGroup
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_ended = False

    async def run(self, on_open: Callable[[], None]) -> None:
        """Answer until the task is cancelled or the manager is closed.

        `on_open` is called once workers can reach this manager. Raises DispatchError if a newer
        manager of this journal has taken over, or if one of another journal serves the fleet, and
        the errors of the journal.
        """
        updates = self._manager._updates
        inquiries = Inquiries(self._link, self._fleet, self._desk)
        rivals = Rivals(self._link, self._fleet, self._desk)
        try:
            await rivals.check()
            async with asyncio.TaskGroup() as self._group:
                self._begin(self._tick())
                # The reader begins before the agents are looked at, so that no change is missed.
                changes = self._manager.changes()
                for agent in self._manager.agents(status="interrupted"):
                    self._note(agent)
                served = subjects.of_manager(self._fleet)
                await self._link.serve("subagents-manager", served, self._receive)
                await rivals.listen()
                self._begin(rivals.watch())
                updates.workers = inquiries
                on_open()
                async for agent in changes:
                    self._note(agent)
                self._has_ended = True
                for task in self._tasks:  # the manager was closed
                    task.cancel()
        except BaseExceptionGroup as errors:
            first = errors.exceptions[0]  # it cancelled the other tasks
            raise first from first.__cause__
        finally:
            self._has_ended = True
            if updates.workers is inquiries:
                updates.workers = None
            inquiries.end()

    def _note(self, agent: Agent) -> None:
        if (held := self._desk.note(agent)) is not None:
            self._begin(self._stop_on_worker(held.worker, held.lease, agent.lsn))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            task = self._group.create_task(work)
        except RuntimeError:  # the group has just ended
            work.close()
            return
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _receive(self, subject: str, data: bytes, answer: Answer) -> None:
        """Answer a request in a task of its own, because it may have to wait."""
        if not self._has_ended:
            self._begin(self._answer(subject, data, answer))

    async def _answer(self, subject: str, data: bytes, answer: Answer) -> None:
        try:
            verb, worker = subjects.parsed(subject)
            answered = await self._desk.answer(verb, worker, data)
        except ClosedError:
            return
        except StaleError as error:
            raise DispatchError(
                f"{error}, so a newer manager has taken over; this one must be closed"
            ) from error
        if answered is not None:
            await answer(answered)

    async def _stop_on_worker(self, worker: str, lease: Lease, lsn: int) -> None:
        """Let a worker stop an agent soon. The answer to its next heartbeat does it otherwise."""
        await self._desk.settle(lsn)
        await self._tell(worker, [lease])

    async def _tell(self, worker: str, over: list[Lease]) -> None:
        """Name the leases that are over to a worker, and the time of all others."""
        subject = subjects.to_worker(self._fleet, worker, "stop")
        body = messages.pack(self._desk.stamped({"stop": [lease.message for lease in over]}))
        with suppress(UnansweredError):
            await self._link.ask(subject, body, _STOP_TIMEOUT_S)

    async def _tick(self) -> None:
        while True:
            # The client notices only after 15 s that a server has gone without a word.
            is_reached = await self._link.reaches_server()
            await asyncio.sleep(self._desk.tick_s)  # requests that came before are answered first
            if not is_reached:
                self._desk.renew_all()
            self._desk.expire()
            for worker in self._desk.silent():  # it may not know how short its leases are
                self._begin(self._tell(worker, []))


@public
@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker, as its manager knows it since the dispatcher was opened."""

    worker: str
    """The id of the worker: the name of its credential or machine, a dot, and a part of its own."""

    queues: tuple[str, ...]
    """The queues that it serves."""

    slots: int
    """The number of agents that it could still take, as it said last."""

    silent_s: float
    """The time since its last sign of life, in seconds."""

    running: tuple[str, ...]
    """The ids of the agents that it runs."""

    machine: str = ""
    """The name of its machine, or "" before it has told it."""


@public
class Dispatcher(AsyncHandle):
    """The connection of a manager to its workers in other processes. Use `open` to make one.

    Workers ask for agents of their types and queues, and get those that are queued, in order, and
    those that were interrupted because a worker or a manager was lost. A start is journaled and
    durable (with a mirror: in the mirror) before its worker gets it, and a report before its worker
    may forget it. So each result is in the state once, however often workers, managers, servers and
    the network fail. But a run that was cut off and its successor may both have done the same thing
    outside.

    The agents run on while there is no dispatcher and no manager. One manager of a fleet may have
    a dispatcher at a time; a second one is refused, or ends with an `error`. Its own thread does
    the work; any thread may call its methods. Close it before the manager.
    """

    def __init__(
        self,
        desk: Callable[[Link], Desk],
        address: Address,
        manager: SubAgentManager,
        on_end: Callable[[], object],
    ) -> None:
        self._make_desk = desk
        self._on_end = on_end
        self._address = address
        self._manager = manager
        self._desk: Desk | None = None
        self._error: Exception | None = None
        # Of asyncio's own class: one of the program's policy may run in the main thread only.
        self._loop = asyncio.SelectorEventLoop()
        self._stop = asyncio.Event()
        self._has_begun = False
        self._beginning = threading.Lock()  # held until `_has_begun`, or the end
        self._beginning.acquire()
        self._thread = threading.Thread(target=self._run, name="manager-dispatcher", daemon=True)

    @classmethod
    def open(
        cls,
        url: str,
        manager: SubAgentManager,
        *,
        lease_s: float = LEASE_S,
        attempts_max: int = ATTEMPTS_MAX,
        credentials: str | None = None,
    ) -> Dispatcher:
        """Connect to the servers at `url`, such as `nats://host,host`, and serve workers.

        A worker that gives no sign of life for `lease_s` seconds, from 0.1 to 86,400, loses its
        agents, and an agent that has lost `attempts_max` workers fails. `credentials` is the path
        of a file with NATS credentials; a user and a password may be in the URL. A path in the URL
        names the fleet, so that several fleets may share servers.

        Raises ValueError or TypeError for a bad argument, DispatchError if no server can be
        reached, if its login may not serve workers, or if a manager of another journal already
        serves the fleet, and ImportError without nats-py.
        """
        instance("manager", manager, SubAgentManager)
        hooks = Hooks(supply=FleetSupply(manager._state))
        return open_dispatcher(
            url,
            manager,
            hooks,
            lease_s=seconds("lease_s", lease_s, low=0.1, high=messages.LEASE_S_MAX),
            attempts_max=whole("attempts_max", attempts_max, low=1),
            credentials=credentials,
        )

    @property
    def error(self) -> Exception | None:
        """The error that has ended this dispatcher, or None. A newer manager of the same journal,
        one of another journal that has served the fleet for longer, or an error of the journal,
        ends it. Workers then get no answers from it."""
        return self._error

    def workers(self) -> list[WorkerInfo]:
        """Return the workers that this dispatcher knows, in the order of their ids."""
        desk = self._desk
        if desk is None or self.closed:
            return []
        infos: list[WorkerInfo] = []
        looking = threading.Lock()  # held until `look` has run
        looking.acquire()

        def look() -> None:
            now_s = desk.clock_s()
            infos.extend(
                WorkerInfo(
                    known.worker,
                    tuple(known.queues),
                    known.slots,
                    now_s - known.seen_s,
                    tuple(running),
                    known.machine,
                )
                for known, running in desk.workers()
            )
            looking.release()

        call_in_loop(self._loop, look)
        while not looking.acquire(timeout=_LOOK_S) and not self.closed:  # it may just have ended
            pass
        return sorted(infos, key=lambda info: info.worker)

    def close(self, *, timeout_s: float | None = None) -> None:
        """Stop serving workers. A second call does nothing.

        Agents that workers run go on, and are reported to the next dispatcher of this fleet. Raise
        TimeoutError after `timeout_s` seconds (None: no limit).
        """
        timeout_s = optional_seconds("timeout_s", timeout_s)
        if self._thread.is_alive():
            call_in_loop(self._loop, self._stop.set)
            self._thread.join(timeout_s)
            if self._thread.is_alive():
                raise TimeoutError(f"the dispatcher did not end within {timeout_s} s")

    def wake(self) -> None:
        """Let workers that wait for agents look again, because an agent that has not changed may
        start now. A change of an agent does this by itself."""
        call_in_loop(self._loop, self._wake)

    def _wake(self) -> None:
        if self._desk is not None:
            self._desk.ready_now()

    @property
    def closed(self) -> bool:
        """True if workers get no answers any more, because of `close` or of an `error`."""
        return not self._thread.is_alive()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.close()

    def _condition(self) -> str:
        state = "closed" if self.closed else "open"
        return f"{','.join(self._address.servers)}/{self._address.fleet} {state}"

    # --- in the dispatcher's thread ---

    def _begin(self, connect: Connect) -> None:
        """Start the thread, and wait until it serves. Raise what prevents that."""
        self._connect = connect
        try:
            self._thread.start()
            with self._beginning:
                pass
        except BaseException:  # of a signal handler, or because no thread can be started
            call_in_loop(self._loop, self._stop.set)
            raise
        if self._error is not None:
            self._thread.join()
            raise self._error

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except Exception as error:
            self._error = error
            if self._has_begun:
                _log.error("the dispatcher has ended: %s", error)
        finally:
            self._let_begin()
            with suppress(RuntimeError):  # the event loop of the caller has ended
                self._on_end()

    def _let_begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._beginning.release()

    async def _main(self) -> None:
        link = await self._connect()
        try:
            self._desk = self._make_desk(link)
            serving = Serving(self._desk, link, self._address.fleet, self._manager)
            work = asyncio.create_task(serving.run(self._let_begin))
            stop = asyncio.create_task(self._stop.wait())
            await asyncio.wait((work, stop), return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not work.done():
                await link.stop_serving()
                await self._desk.close()
                work.cancel()
            with suppress(asyncio.CancelledError):
                await work
        finally:
            await link.close()


def open_dispatcher(
    url: str,
    manager: SubAgentManager,
    hooks: Hooks,
    *,
    lease_s: float = LEASE_S,
    attempts_max: int = ATTEMPTS_MAX,
    credentials: str | None = None,
) -> Dispatcher:
    """Open a Dispatcher, as its `open` does, with hooks."""
    address = Address.of(url)

    def desk(link: Link) -> Desk:
        return Desk(
            manager,
            hooks,
            _settler(manager),
            lease_s=lease_s,
            attempts_max=attempts_max,
            message_bytes_max=link.message_bytes_max,
        )

    made = Dispatcher(desk, address, manager, hooks.on_end)
    made._begin(lambda: NatsLink.connect(address, inbox="manager", credentials=credentials))
    return made


def _settler(manager: SubAgentManager) -> Callable[[int], Any]:
    """Return a function that waits until the record of an LSN can't be lost any more."""
    try:
        _ = manager._state.journal.mirrored_lsn
    except ValueError:  # without a mirror
        return manager.durable
    return manager.mirrored
