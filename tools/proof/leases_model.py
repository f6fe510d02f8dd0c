"""A model of the protocol between managers and workers elsewhere, which `proof.leases` searches.

One agent, and its log. It models:

- A manager that begins leases, records reports, ends leases whose workers are silent, and cancels
  the agent. Each record is made at once, and settled some time later: then it can't be lost.
- A failover at any moment: the next manager has a prefix of the log that contains everything
  settled. So it gives LSNs again that the last one gave to records that were lost. With a "mirror",
  the last manager settles nothing any more. With a "copy", it goes on with a disk of its own, as
  the owner of a copied directory does.
- Workers that ask, confirm, begin, report a checkpoint and a result, die, and never come back.
- A network that delivers each message any number of times, at any time, or never.

A lease has a number of its own here, which no protocol could know. It shows which lease a token
really means. The model does not cover durations, several agents, or the bytes of messages.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Literal, NamedTuple

from proof.search import BrokenPromiseError

Kind = Literal["mirror", "copy"]


class Weakening(Enum):
    """The clauses of the protocol. Without any of them, a promise breaks."""

    NO_EPOCH_IN_TOKEN = "a token is only the LSN of its lease"
    NO_TOKEN_CHECK = "a report counts for whatever lease is running"
    NO_SEQUENCE = "a report that is repeated is recorded again"
    REPORT_AFTER_END = "a report counts after its lease was ended by another call"
    UNSETTLED_START = "a start is answered before it is settled"
    UNSETTLED_REPORT = "a report is answered before it is settled"
    UNSETTLED_STOP = "the end of a lease is answered before it is settled"
    BEGIN_UNCONFIRMED = "a worker begins an agent before its manager has heard that it came"
    OBEY_LOWER_EPOCH = "a worker obeys a manager of a lower epoch than one that it has heard"


class Record(NamedTuple):
    """A record of the log: of a lease, a report, a loss or a cancellation."""

    kind: str  # "lease", "report", "lost" or "cancel"
    lease: int  # the lease's own number
    worker: int = 0  # of a lease
    epoch: int = 0  # of a lease
    sequence: int = 0  # of a report; the last one is the result
    content: int = 0  # of a report: the lease in which it was made
    counts: bool = True  # of a loss: whether it is one of those that are allowed


class Message(NamedTuple):
    """A message. It may arrive at any time, any number of times."""

    kind: str  # "grant", "came", "report" of a worker; "confirmed", "recorded", "over" of a manager
    worker: int
    lease: int  # what the sender means; a receiver reads only the token
    token: tuple[int, int]  # epoch and LSN
    sequence: int = 0
    sender: int = 0  # the epoch of a manager


class Manager(NamedTuple):
    """A manager, with the log that it knows, of which a prefix is settled."""

    epoch: int
    log: tuple[Record, ...] = ()
    settled: int = 0
    confirmed: frozenset[int] = frozenset()  # LSNs of leases, in memory
    is_fenced: bool = False  # a newer one has the mirror


class Worker(NamedTuple):
    """A worker process, and the lease that it knows."""

    phase: str = "idle"  # idle, came, running, done
    lease: int = 0
    token: tuple[int, int] = (0, 0)
    recorded: int = 0  # the number of its last report that was recorded
    heard: int = 0  # the highest epoch


class State(NamedTuple):
    """A state of all managers, workers and messages."""

    managers: tuple[Manager, ...]
    workers: tuple[Worker, ...]
    messages: frozenset[Message] = frozenset()
    leases: int = 0  # that were ever made
    begun: frozenset[int] = frozenset()  # leases of which a worker has begun the agent
    acknowledged: frozenset[tuple[int, int]] = frozenset()  # reports: lease and sequence
    told: frozenset[int] = frozenset()  # leases whose workers heard that they are over


class Model(NamedTuple):
    """A search: the kind of failover, the clause that is left out, and the bounds."""

    kind: Kind = "mirror"
    weakening: Weakening | None = None
    workers: int = 2
    leases: int = 2
    managers: int = 2
    records: int = 4


Step = tuple[str, State]
REPORTS = 2  # a checkpoint, and the result


def initial(model: Model) -> State:
    """Return the state in which everything begins."""
    return State((Manager(1),), (Worker(),) * model.workers)


def steps(state: State, model: Model) -> Iterator[Step]:
    """Yield each step that may happen next.

    Messages are sent as soon as they can be, because none has to arrive.
    """
    found = (*_of_managers(state, model), *_arrivals(state, model))
    for label, after in found:
        yield label, _with_messages(after, model)


def check(state: State, model: Model) -> None:
    """Raise BrokenPromiseError if the state breaks a promise."""
    for manager in state.managers:
        _check_log(manager.log)
    newest = state.managers[-1]
    reports = {(r.lease, r.sequence) for r in newest.log if r.kind == "report"}
    leases = {r.lease for r in newest.log if r.kind == "lease"}
    if state.acknowledged - reports:
        raise BrokenPromiseError("a report is lost that its worker was told is recorded")
    if model.kind == "copy":
        return
    if state.begun - leases:
        raise BrokenPromiseError("a worker has begun an agent, and its start is lost")
    if (running := running_lease(newest)) is not None and running[1].lease in state.told:
        raise BrokenPromiseError("a worker was told that a lease is over, and it goes on")
    if any(r.kind == "lost" and not r.counts and r.lease in state.begun for r in newest.log):
        raise BrokenPromiseError("a lease does not count as lost, but its agent had begun")


def _check_log(log: tuple[Record, ...]) -> None:
    lease, sequence = 0, 0
    for record in log:
        if record.kind == "lease":
            lease, sequence = record.lease, 0
        elif record.kind != "report":
            lease = 0
        elif record.content != record.lease:
            raise BrokenPromiseError("a report of one lease is recorded for another")
        elif record.lease != lease or record.sequence <= sequence:
            raise BrokenPromiseError("a report is recorded twice, or after its lease has ended")
        else:
            lease, sequence = lease if record.sequence < REPORTS else 0, record.sequence


def running_lease(manager: Manager) -> tuple[int, Record] | None:
    """Return the LSN and the record of the lease that runs, or None."""
    found = None
    for lsn, record in enumerate(manager.log, 1):
        if record.kind == "lease":
            found = lsn, record
        elif record.kind != "report" or record.sequence == REPORTS:
            found = None
    return found


# --- managers ---


def _of_managers(state: State, model: Model) -> Iterator[Step]:
    for index, manager in enumerate(state.managers):
        name = f"manager {manager.epoch}"
        if manager.settled < len(manager.log) and not manager.is_fenced:
            settled = manager._replace(settled=manager.settled + 1)
            yield f"{name} settles LSN {settled.settled}", _with_manager(state, index, settled)
        if len(manager.log) == model.records:
            continue
        running = running_lease(manager)
        if running is not None:
            lsn, lease = running
            lost = Record("lost", lease.lease, counts=lsn in manager.confirmed)
            yield f"{name} ends a silent lease", _appended(state, index, lost)
            yield f"{name} cancels", _appended(state, index, Record("cancel", lease.lease))
        elif state.leases < model.leases and not _has_ended(manager):
            for worker in range(model.workers):
                lease = Record("lease", state.leases + 1, worker, manager.epoch)
                after = state._replace(leases=state.leases + 1)
                yield f"{name} leases to worker {worker}", _appended(after, index, lease)
    newest = state.managers[-1]
    if len(state.managers) < model.managers:
        for length in range(newest.settled, len(newest.log) + 1):
            log = newest.log[:length]
            confirmed = frozenset(range(1, length + 1))  # nobody knows, so all count
            following = Manager(newest.epoch + 1, log, length, confirmed)
            fenced = newest._replace(is_fenced=model.kind == "mirror")
            managers = (*state.managers[:-1], fenced, following)
            label = f"manager {following.epoch} takes over, with LSN {length}"
            yield label, state._replace(managers=managers)


def _has_ended(manager: Manager) -> bool:
    return any(record.kind == "cancel" or record.sequence == REPORTS for record in manager.log)


def _appended(state: State, index: int, record: Record) -> State:
    manager = state.managers[index]
    return _with_manager(state, index, manager._replace(log=(*manager.log, record)))


def _with_manager(state: State, index: int, manager: Manager) -> State:
    managers = [*state.managers]
    managers[index] = manager
    return state._replace(managers=tuple(managers))


def _with_messages(state: State, model: Model) -> State:
    """Return the state with all messages that can be sent without a request."""
    sent = set(state.messages)
    for manager in state.managers:
        running = running_lease(manager)
        if running is None:
            continue
        lsn, lease = running
        if lsn <= manager.settled or model.weakening is Weakening.UNSETTLED_START:
            token = lease.epoch, lsn
            sent.add(Message("grant", lease.worker, lease.lease, token, sender=manager.epoch))
    for index, worker in enumerate(state.workers):
        if worker.phase == "came":
            sent.add(Message("came", index, worker.lease, worker.token))
        elif worker.phase == "running":
            sequence = worker.recorded + 1
            sent.add(Message("report", index, worker.lease, worker.token, sequence))
    return state._replace(messages=frozenset(sent))


# --- messages ---


def _arrivals(state: State, model: Model) -> Iterator[Step]:
    for message in sorted(state.messages):
        if message.sender:
            yield from _at_worker(state, model, message)
        else:
            for index in range(len(state.managers)):
                yield from _at_manager(state, model, message, index)


def _at_manager(state: State, model: Model, message: Message, index: int) -> Iterator[Step]:
    manager, weakening = state.managers[index], model.weakening
    running = running_lease(manager)
    label = f"manager {manager.epoch} gets {message.kind} of worker {message.worker}"
    is_settled = manager.settled == len(manager.log)
    is_held = running is not None and _fits(message.token, *running, weakening)
    if message.kind == "came":
        if is_held and running is not None:
            confirmed = manager._replace(confirmed=manager.confirmed | {running[0]})
            after = _with_manager(state, index, confirmed)
            yield label, _answered(after, manager, message, "confirmed")
        elif is_settled or weakening is Weakening.UNSETTLED_STOP:
            yield label, _answered(state, manager, message, "over")
        return
    lease = _lease_of(manager, message.token, weakening)
    number = 0 if lease is None else lease.lease
    reports = [r.sequence for r in manager.log if r.kind == "report" and r.lease == number]
    known = max(reports, default=0)
    if lease is not None and message.sequence <= known and weakening is not Weakening.NO_SEQUENCE:
        if is_settled or weakening is Weakening.UNSETTLED_REPORT:
            yield label, _answered(state, manager, message, "recorded")
        return
    is_accepted = is_held or (weakening is Weakening.REPORT_AFTER_END and lease is not None)
    if weakening is Weakening.NO_TOKEN_CHECK and running is not None:
        is_accepted, lease = True, running[1]
    if is_accepted and lease is not None and len(manager.log) < model.records:
        record = Record("report", lease.lease, sequence=message.sequence, content=message.lease)
        after = _appended(state, index, record)
        if weakening is Weakening.UNSETTLED_REPORT:
            after = _answered(after, manager, message, "recorded")
        yield label, after
    elif not is_accepted and (is_settled or weakening is Weakening.UNSETTLED_STOP):
        yield label, _answered(state, manager, message, "over")


def _fits(token: tuple[int, int], lsn: int, lease: Record, weakening: Weakening | None) -> bool:
    is_epoch = token[0] == lease.epoch or weakening is Weakening.NO_EPOCH_IN_TOKEN
    return token[1] == lsn and is_epoch


def _lease_of(
    manager: Manager, token: tuple[int, int], weakening: Weakening | None
) -> Record | None:
    """Return the latest lease, if it has this token. The state of an agent has no older one."""
    leases = [(lsn, r) for lsn, r in enumerate(manager.log, 1) if r.kind == "lease"]
    return leases[-1][1] if leases and _fits(token, *leases[-1], weakening) else None


def _answered(state: State, manager: Manager, message: Message, kind: str) -> State:
    answer = message._replace(kind=kind, sender=manager.epoch)
    return state._replace(messages=state.messages | {answer})


def _at_worker(state: State, model: Model, message: Message) -> Iterator[Step]:
    index, worker = message.worker, state.workers[message.worker]
    if message.sender < worker.heard and model.weakening is not Weakening.OBEY_LOWER_EPOCH:
        return
    heard = worker._replace(heard=max(worker.heard, message.sender))
    label = f"worker {index} gets {message.kind} of manager {message.sender}"
    if message.kind == "grant":
        if worker.phase == "idle":
            came = heard._replace(phase="came", lease=message.lease, token=message.token)
            if model.weakening is Weakening.BEGIN_UNCONFIRMED:
                came = came._replace(phase="running")
                state = state._replace(begun=state.begun | {message.lease})
            yield label, _with_worker(state, index, came)
        return
    if worker.lease != message.lease or worker.phase not in ("came", "running"):
        return
    if message.kind == "confirmed" and worker.phase == "came":
        after = state._replace(begun=state.begun | {worker.lease})
        yield label, _with_worker(after, index, heard._replace(phase="running"))
    elif message.kind == "over":
        after = state._replace(told=state.told | {worker.lease})
        yield label, _with_worker(after, index, heard._replace(phase="done"))
    elif message.kind == "recorded" and message.sequence == worker.recorded + 1:
        # With a copy, only a worker that has heard of the newest manager is promised anything.
        if model.kind == "mirror" or heard.heard == state.managers[-1].epoch > 1:
            report = worker.lease, message.sequence
            state = state._replace(acknowledged=state.acknowledged | {report})
        phase = "done" if message.sequence == REPORTS else "running"
        reported = heard._replace(phase=phase, recorded=message.sequence)
        yield label, _with_worker(state, index, reported)


def _with_worker(state: State, index: int, worker: Worker) -> State:
    workers = [*state.workers]
    workers[index] = worker
    return state._replace(workers=tuple(workers))
