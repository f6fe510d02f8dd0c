"""A job queue in one process, with workers, retries and dead letters.

    seq 100 | python jobs.py jobs.d

Each line of standard input is a job. The program prints `queued`, `done` or `dead` with the job's
number once that can't be lost any more, and ends when no job is left to run. Kill it at any moment
and start it again: it continues with the jobs that are not done. A job that has failed, or has
killed the process, three times is dead. It stays in the queue for somebody to look at.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from heapq import heappop, heappush
from queue import Empty, Queue
from typing import Any

from journal import CowTable, DurableState, JournalError

WORKERS = 4
WAIT_S = 5.0  # the longest time that a stop waits for a full disk
ERROR_CHARS = 1000  # what is kept of a job's error
Job = dict[str, Any]  # id, payload, attempts, state (waiting, running or dead), due_ms, error


class Jobs:
    """The state: every job that is not done. It changes only in `apply`."""

    application = "example-jobs/1"

    def __init__(self) -> None:
        self.table: CowTable[int, Job] = CowTable()
        self.due: list[tuple[int, int]] = []  # the waiting jobs: a heap of (due_ms, id)
        self.running: set[int] = set()

    def apply(self, lsn: int, record: Any) -> None:
        match record:
            case ["put", payload, now_ms]:  # an LSN is never used twice, so it can be the job's id
                job = {"id": lsn, "payload": payload, "attempts": 0, "error": ""}
                self._set({**job, "state": "waiting", "due_ms": now_ms})
            case ["take", number]:
                heappop(self.due)  # `decide` chose the first one
                job = self.table[number]
                self._set({**job, "state": "running", "attempts": job["attempts"] + 1})
            case ["done", number]:
                self.running.remove(number)
                del self.table[number]
            case ["failed", number, state, due_ms, error]:
                self.running.remove(number)
                self._set({**self.table[number], "state": state, "due_ms": due_ms, "error": error})
            case _:
                raise ValueError(f"no record of a job queue: {record!r:.200}")

    def freeze(self) -> Iterable[Job]:
        return self.table.freeze()

    def load(self, item: Job) -> None:
        self._set(item)

    def _set(self, job: Job) -> None:
        self.table[job["id"]] = job
        if job["state"] == "waiting":
            heappush(self.due, (job["due_ms"], job["id"]))
        elif job["state"] == "running":
            self.running.add(job["id"])


class JobQueue:
    """A durable queue for the threads of one process."""

    def __init__(
        self, path: str, *, attempts: int = 3, retry_s: float = 1.0, disk: Any = None
    ) -> None:
        self.state = DurableState.open(path, Jobs(), disk=disk)
        self._attempts, self._retry_ms = attempts, int(retry_s * 1000)
        self._wake: Queue[None] = Queue()
        self.stopping = False
        self.failure: BaseException | None = None
        table, running = self.state.machine.table, [*self.state.machine.running]
        # Of the jobs that were running when the last process died, the ones that are dead now.
        self.died = [number for number in running if self.failed(table[number], "the process died")]

    def put(self, payload: Any) -> int:
        """Add a job, and return its number. From then on, no crash loses the job."""
        record = ["put", payload, now_ms()]
        number = self.state.update(lambda jobs: record)
        self._wait(number)
        if self._wake.empty():  # one token is enough: the other workers look again soon
            self._wake.put(None)
        assert number is not None
        return number

    def take(self) -> Job | None:
        """Return the next job as soon as one is due, or None once the queue stops."""
        while not self.stopping:
            if job := self._take_due():
                return job
            with suppress(Empty):
                self._wake.get(timeout=0.1)
        return None

    def _take_due(self) -> Job | None:
        now = now_ms()

        def decide(jobs: Jobs) -> tuple[Any, int]:
            if not jobs.due or jobs.due[0][0] > now:
                return None, 0
            _, number = jobs.due[0]
            return ["take", number], number

        lsn, number = self.state.update_with_result(decide)
        if lsn is None:
            return None
        self._wait(lsn)  # the attempt must count even if the job kills the process
        return self.state.machine.table[number]

    def done(self, job: Job) -> None:
        """Remove a job that `take` returned. From then on, it never runs again."""
        self._wait(self.state.update(lambda jobs: ["done", job["id"]]))

    def failed(self, job: Job, error: str) -> bool:
        """Run a job that `take` returned again later. Return True if it is dead instead."""
        is_dead: bool = job["attempts"] >= self._attempts
        due_ms = now_ms() + self._retry_ms * job["attempts"]
        record = ["failed", job["id"], "dead" if is_dead else "waiting", due_ms, error]
        self._wait(self.state.update(lambda jobs: record))
        return is_dead

    def _wait(self, lsn: int | None) -> None:
        """Wait until the record is durable: on a full disk, until there is space or `stop`."""
        while True:
            try:
                return self.state.wait_durable(lsn, timeout_s=WAIT_S)
            except TimeoutError:
                if self.stopping:
                    raise

    def dead(self) -> list[Job]:
        """Return the jobs that failed too often."""
        return [job for job in self.state.machine.table.values() if job["state"] == "dead"]

    def is_idle(self) -> bool:
        """Return whether no job is waiting or running."""
        return self.state.read(lambda jobs: not jobs.due and not jobs.running)

    def stop(self) -> None:
        """Let every `take` return None soon."""
        self.stopping = True

    def close(self) -> None:
        self.state.close(timeout_s=WAIT_S)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def work(queue: JobQueue, handle: Callable[[Any], object]) -> None:
    """Run jobs until the queue stops. This is the body of a worker's thread."""
    try:
        while job := queue.take():
            try:
                handle(job["payload"])
            except (Exception, SystemExit) as error:
                is_dead = queue.failed(job, repr(error)[:ERROR_CHARS])
                say("dead" if is_dead else "failed", job["id"])
            else:
                queue.done(job)
                say("done", job["id"])
    except BaseException as error:
        # Mostly, the disk failed. Nothing more can be acknowledged, so end the process, whatever
        # its main thread waits for. The next start recovers what was durable.
        queue.failure = error
        os.kill(os.getpid(), signal.SIGTERM)


def say(what: str, about: object) -> None:
    print(f"{what} {about}\n", end="", flush=True)


def handle(payload: str) -> None:
    """Do the work of one job. Replace this by your own."""
    time.sleep(0.001)
    if payload.startswith("bad"):
        raise ValueError(payload)


def main(path: str) -> None:
    queue = JobQueue(path, retry_s=0.1)
    is_reading = False

    def terminate(*_: object) -> None:
        nonlocal is_reading
        queue.stop()
        if is_reading:  # anywhere else, the exception might strike in `apply`, and stop the state
            is_reading = False
            raise EOFError

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, terminate)
    workers = [threading.Thread(target=work, args=(queue, handle)) for _ in range(WORKERS)]
    try:
        for worker in workers:
            worker.start()
        for dead in queue.died:
            say("dead", dead)
        with suppress(EOFError):
            while True:
                is_reading = True
                line = "" if queue.stopping or not sys.stdin else sys.stdin.readline()
                is_reading = False
                if not line:
                    break
                say("queued", queue.put(line.rstrip("\n")))
        while not (queue.stopping or queue.is_idle()):
            time.sleep(0.05)
    finally:
        is_reading = False  # after an error of the read
        queue.stop()
        for worker in workers:
            if worker.ident:  # it was started
                worker.join()
        queue.close()
    if queue.failure:
        raise queue.failure
    print(len(queue.dead()), "dead")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end if nobody reads the output
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        sys.exit(130)
    except (JournalError, OSError, UnicodeError) as error:
        sys.exit(f"stopped: {error}")
