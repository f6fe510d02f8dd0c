"""Helpers that the tests of waiting share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import NamedTuple

from journal import Journal, Options
from journal._commit.backpressure import Backpressure
from journal._commit.batch import CommitBatch
from journal._commit.buffer import LogBuffer
from journal._commit.commit_turn import CommitTurn, LoneWaiter
from journal._commit.gate import Gate
from journal._commit.lifecycle import Lifecycle
from journal._mutex import Alarm, HandlerSafeLock
from journal.testing import SimulatedDisk
from tests.support import (
    TIMEOUT_S,
    Held,
    put,
)


def wait_in(pool: ThreadPoolExecutor, journal: Journal, lsn: int | None = None) -> Future[None]:
    return pool.submit(journal.wait_durable, lsn, timeout_s=TIMEOUT_S)


def wait_durable(journal: Journal) -> None:
    journal.wait_durable(journal.append(1), timeout_s=1)


def wait_room(journal: Journal) -> None:
    """Wait for room while there is none."""
    journal._buffer.hold_from(0)
    try:
        journal.wait_room(timeout_s=1)
    finally:
        journal._buffer.hold_from(float("inf"))


@contextmanager
def busy(disk: SimulatedDisk, journal: Journal, pool: ThreadPoolExecutor) -> Iterator[Held]:
    """Keep a commit of one record at its sync until the end of the `with`, or until it is
    released."""
    put(journal, "first")
    with Held(disk, "sync", ".seg") as held:
        waiter = wait_in(pool, journal, journal.append("at the sync"))
        held.wait_reached()
        yield held
        held.release_all()
        waiter.result(TIMEOUT_S)


class Log(NamedTuple):
    """A new journal's log in memory, without a flusher."""

    buffer: LogBuffer
    turn: CommitTurn
    alarm: Alarm

    def append_and_wait(self, record: object) -> Gate:
        """Append, and return the gate at which a waiter waits."""
        gate = self.turn.gate(self.buffer.append(record))
        assert gate is not None
        return gate

    def is_woken(self) -> bool:
        """Sleep for 0 s, as the flusher would. Return whether something has woken it."""
        return self.alarm.sleep(0)

    def take_alone(self, record: object, waiter: LoneWaiter | None = None) -> CommitBatch | None:
        """Append, and take the turn as the record's only waiter."""
        return self.turn.take_alone(self.buffer.append(record), waiter or LoneWaiter())


def log_of(options: Options, turn_kind: type[CommitTurn] = CommitTurn) -> Log:
    """Return the log of a new journal."""
    lock, alarm, lifecycle, backpressure = (
        HandlerSafeLock(),
        Alarm(),
        Lifecycle(),
        Backpressure(options.buffer_bytes),
    )
    buffer = LogBuffer(
        0, options, lock=lock, alarm=alarm, lifecycle=lifecycle, backpressure=backpressure
    )
    turn = turn_kind(
        buffer, options, lock=lock, alarm=alarm, lifecycle=lifecycle, backpressure=backpressure
    )
    return Log(buffer, turn, alarm)
