"""Serving: runs the agents of a manager elsewhere with coroutines of this process."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence

from manager import clock
from manager._public import public
from manager._remote import messages, subjects
from manager._remote.address import Address
from manager._remote.courier import Courier
from manager._remote.link import Answer, Link, NatsLink
from manager._remote.messages import Body, MessageError
from manager._remote.shelf import READS_MAX, VERBS, Shelf
from manager._remote.station import ORPHAN_S, Station
from manager.arguments import seconds
from manager.errors import DispatchError
from manager.queue import DEFAULT
from manager.values import texts, whole
from manager.worker import Worker
from manager.worker_checks import checked_workers


@public
async def serve(
    url: str,
    workers: Mapping[str, Worker],
    *,
    slots: int = 4,
    queues: Sequence[str] = (DEFAULT,),
    name: str | None = None,
    orphan_s: float = ORPHAN_S,
    insecure: bool = False,
    credentials: str | None = None,
) -> None:
    """Run agents of the manager whose Dispatcher is at `url`, each with the worker of its type.

    Up to `slots` agents of the given types and queues run at a time. The workers are those of
    `run_workers`, but their context has no `manager`. Run this until the task is cancelled; then
    the workers are cancelled, and their agents are handed back, so that others go on with them.

    If the manager does not answer, the agents run on, and their reports wait; after `orphan_s`
    seconds they are stopped. The agents of a worker that the manager has given up have their
    `cancelled` event set. `name` is the name of this machine's credential, by default that of the
    machine. A server that is not on this machine is refused if it does not encrypt or asks for no
    login, unless `insecure` is true. `credentials` is the path of a file with NATS credentials.

    Raises ValueError or TypeError for a bad argument, DispatchError if the servers or the manager
    can't be used, and ImportError without nats-py. If a worker is a plain function that returns
    nothing to await, its agent fails, the others are handed back, and TypeError is raised.
    """
    address = Address.of(url)
    slots = whole("slots", slots, low=1)
    station = Station(
        checked_workers(workers),
        texts("queues", queues),
        slots,
        orphan_s=seconds("orphan_s", orphan_s, low=0),
    )
    worker = messages.worker_id(machine_name() if name is None else name, os.urandom(6).hex())
    link = await NatsLink.connect(
        address,
        inbox=messages.name_of(worker),
        credentials=credentials,
        insecure=insecure,
    )
    try:
        await run_station(station, link, address.fleet, worker)
    finally:
        await link.close()


async def run_station(
    station: Station,
    link: Link,
    fleet: str,
    worker: str,
    clock_s: Callable[[], float] = clock.monotonic,
    shelf: Shelf | None = None,
) -> None:
    """Run a station until the task is cancelled. The manager may read and empty the `shelf`."""
    courier = Courier(link, fleet, worker, lambda: station.is_free, clock_s)
    receiver = _Receiver(station, courier, shelf)
    verbs = ("stop",) if shelf is None else ("stop", *VERBS)
    served = {verb: subjects.to_worker(fleet, worker, verb) for verb in verbs}
    await link.serve("subagents-worker", served, receiver.receive)
    try:
        await station.run(courier)
    finally:
        receiver.end()


def machine_name() -> str:
    """Return the name of this machine, as far as a worker may have it."""
    name = "".join(char if char.isalnum() else "-" for char in socket.gethostname().split(".")[0])
    return name.encode("ascii", "ignore").decode()[:64] or "worker"


class _Receiver:
    """The requests of a manager to one worker."""

    def __init__(self, station: Station, courier: Courier, shelf: Shelf | None) -> None:
        self._station = station
        self._courier = courier
        self._shelf = shelf
        self._tasks: set[asyncio.Task[None]] = set()

    def receive(self, subject: str, data: bytes, answer: Answer) -> None:
        """Do what a message asks for, if it is one of a manager that this worker may obey."""
        try:
            message, verb = messages.unpack(data), subject.rpartition(".")[2]
            if not self._courier.heeds(message):
                return
            if verb == "stop":
                self._station.stop(message)
            elif self._shelf is not None and len(self._tasks) < READS_MAX:
                task = asyncio.create_task(self._answer(self._shelf, verb, message, answer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (MessageError, DispatchError):
            return  # A manager of another version: the worker's next request ends the worker.

    def end(self) -> None:
        """Answer nothing more."""
        for task in self._tasks:
            task.cancel()

    async def _answer(self, shelf: Shelf, verb: str, message: Body, answer: Answer) -> None:
        body = await shelf.answer(verb, message, self._courier.message_bytes_max)
        await answer(messages.pack({**messages.versions(), **body}))
