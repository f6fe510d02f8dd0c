"""The example of a job queue: killed again and again, and on a disk that loses power."""

from __future__ import annotations

import errno
import io
import random
import re
import resource
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from journal import FailedError, JournalReader
from journal.docs.examples.jobs import JobQueue, Jobs, main, work
from journal.testing import Owner, SimulatedDisk, explore, lose
from tests.examples.examples_support import started
from tests.support import TIMEOUT_S, until

KILLS = 6
LINES = [f"{'bad' if number % 10 == 0 else 'good'} {number}" for number in range(60)]


def read(printed: str, words: str) -> list[int]:
    """Return the jobs of which the program reported one of the words."""
    return [int(number) for number in re.findall(rf"^(?:{words}) (\d+)$", printed, re.MULTILINE)]


def records(path: Path) -> list[tuple[int, Any]]:
    with JournalReader.open(path) as reader:
        return [(entry.lsn, entry.record) for entry in reader.entries(after=0)]


def ends(path: Path) -> dict[int, str]:
    """Return the end of each job that has ended on disk. A job must not end twice."""
    found: dict[int, str] = {}
    for _, record in records(path):
        if record[0] == "done" or (record[0] == "failed" and record[2] == "dead"):
            assert record[1] not in found
            found[record[1]] = "done" if record[0] == "done" else "dead"
    return found


def test_the_queue_survives_sigkill(tmp_path: Path) -> None:
    """P2: However often the process is killed, each job that it called queued ends exactly once,
    and what it called done or dead stays so."""
    path, draws = tmp_path / "jobs.d", random.Random(7)
    queued: list[int] = []
    said: dict[int, str] = {}
    for _ in range(KILLS):
        with started("jobs.py", tmp_path, path) as process:
            assert process.stdin
            assert process.stdout
            process.stdin.write("\n".join(LINES[len(queued) :]) + "\n")
            process.stdin.flush()
            printed = "".join(process.stdout.readline() for _ in range(draws.randrange(1, 40)))
            process.kill()
            printed += process.stdout.read()
        queued += read(printed, "queued")
        said |= dict.fromkeys(read(printed, "done"), "done")
        said |= dict.fromkeys(read(printed, "dead"), "dead")
        put = {lsn for lsn, record in records(path) if record[0] == "put"}
        assert {*queued} <= put
        assert said.items() <= ends(path).items()
    with started("jobs.py", tmp_path, path) as process:
        out, err = process.communicate("\n".join(LINES[len(queued) :]), timeout=TIMEOUT_S)
        assert (process.returncode, err) == (0, "")
    on_disk = records(path)
    payloads = {lsn: record[1] for lsn, record in on_disk if record[0] == "put"}
    assert {*LINES} <= {*payloads.values()}
    ended = ends(path)
    assert ended.keys() == payloads.keys()
    # Each kill counts as an attempt of the jobs that were running, so a good job may be dead, too.
    assert {number for number, payload in payloads.items() if payload[:3] == "bad"} <= {
        number for number, end in ended.items() if end == "dead"
    }
    assert out.endswith(f"{list(ended.values()).count('dead')} dead\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_queue(tmp_path: Path, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C end the program with 0, and close the journal. The jobs that are left run
    later."""
    path = tmp_path / "jobs.d"
    with started("jobs.py", tmp_path, path) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("good\n" * 100)
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=TIMEOUT_S)
        assert (process.returncode, err) == (0, "")
    with started("jobs.py", tmp_path, path) as process:
        out, err = process.communicate("", timeout=TIMEOUT_S)
        assert (process.returncode, err) == (0, "")
    assert out.endswith("0 dead\n")
    assert {*ends(path).values()} == {"done"}


def test_a_signal_inside_apply_stops_only_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that strikes while a record is applied is no error of the state, and a second one
    while the queue closes is none either."""
    struck: list[str] = []

    def strike(where: str) -> None:
        struck.append(where)
        signal.raise_signal(signal.SIGTERM)

    def apply(jobs: Jobs, lsn: int, record: Any) -> None:
        if threading.current_thread() is threading.main_thread() and record[0] == "put":
            strike("apply")
        applied(jobs, lsn, record)

    def close(queue: JobQueue) -> None:
        strike("close")
        closed(queue)

    applied, closed = Jobs.apply, JobQueue.close
    monkeypatch.setattr(Jobs, "apply", apply)
    monkeypatch.setattr(JobQueue, "close", close)
    monkeypatch.setattr("sys.stdin", io.StringIO("good\n" * 3))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        main(str(tmp_path / "jobs.d"))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert struck == ["apply", "close"]
    assert [record[:2] for _, record in records(tmp_path / "jobs.d")] == [["put", "good"]]


def test_a_disk_that_fails_ends_the_program_without_a_traceback(tmp_path: Path) -> None:
    """The main thread and the workers meet the error, and the program reports it once, after the
    journal's own logger."""
    with started("jobs.py", tmp_path, tmp_path / "jobs.d") as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write("good\n")
        process.stdin.flush()
        process.stdout.readline()
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
        _, err = process.communicate("good\n" * 1000, timeout=TIMEOUT_S)
    assert process.returncode == 1
    logged, reported = err.splitlines()
    assert logged.startswith(f"{tmp_path / 'jobs.d'}: the journal stopped: ")
    assert re.fullmatch("stopped: .*File too large.*", reported)


def test_a_failing_disk_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose journal has failed sends SIGTERM to its process, and reports the error."""
    disk, signals = SimulatedDisk(), []
    monkeypatch.setattr("os.kill", lambda *arguments: signals.append(arguments[1]))
    queue = JobQueue("/jobs", disk=disk)
    queue.put("good")
    disk.fail("sync", errno.EIO)
    work(queue, print)
    assert signals == [signal.SIGTERM]
    assert isinstance(queue.failure, FailedError)
    with pytest.raises(FailedError):
        queue.close()


def test_no_crash_breaks_a_promise_of_the_jobs() -> None:
    """P1 to P6: The machine keeps the six rules, in every crash of a workload."""

    def calls(owner: Owner[Jobs]) -> None:
        for record in (
            ["put", "a", 1],
            ["put", "b", 2],
            ["take", 1],
            ["failed", 1, "waiting", 3, "no"],
            ["take", 2],
            ["done", 2],
            ["take", 1],
        ):
            owner.append(record)
        owner.wait()
        owner.compact()
        owner.append(["failed", 1, "dead", 4, "no"])
        owner.reopen()

    assert explore(Jobs, calls).states > 500


def test_a_job_is_retried_and_then_dead() -> None:
    """A failing job runs `attempts` times; a dead job survives a power cut and never runs again."""
    disk = SimulatedDisk()
    tried: list[str] = []

    def handle(payload: str) -> None:
        tried.append(payload)
        if payload == "bad":
            raise ValueError(payload)
        queue.stop()

    queue = JobQueue("/jobs", retry_s=0, disk=disk)
    queue.put("bad")
    queue.put("good")
    work(queue, handle)  # until the good job stops the queue
    queue.close()
    queue = JobQueue("/jobs", retry_s=0, disk=disk)
    while not queue.is_idle():
        job = queue.take()
        assert job
        tried.append(job["payload"])
        queue.failed(job, "no")
    disk.power_cut(lose)
    with suppress(FailedError):
        queue.close()
    queue = JobQueue("/jobs", retry_s=0, disk=disk)
    assert queue.is_idle()
    assert sorted(tried) == ["bad", "bad", "bad", "good"]
    (dead,) = queue.dead()
    assert (dead["payload"], dead["attempts"]) == ("bad", 3)
    queue.close()


def test_a_job_may_raise_anything() -> None:
    """A job that calls `sys.exit`, or whose error is too large for a record, fails like others."""

    def handle(payload: str) -> None:
        if payload == "exit":
            sys.exit()
        raise ValueError(payload * 5_000_000)

    disk = SimulatedDisk()
    queue = JobQueue("/jobs", attempts=1, disk=disk)
    queue.put("exit")
    queue.put("x")
    worker = threading.Thread(target=work, args=(queue, handle))
    worker.start()
    until(lambda: len(queue.dead()) == 2, "both jobs are dead")
    queue.stop()
    worker.join(TIMEOUT_S)
    assert queue.failure is None
    assert [job["error"][:20] for job in queue.dead()] == ["SystemExit()", "ValueError('xxxxxxxx"]
    queue.close()


def test_a_record_of_another_program_is_refused() -> None:
    """The machine never passes over a record that it does not know."""
    with pytest.raises(ValueError, match="no record of a job queue: 'an event'"):
        Jobs().apply(1, "an event")


def test_an_attempt_that_killed_the_process_counts() -> None:
    """P2: A power cut while a job runs counts as a failed attempt of that job."""
    disk = SimulatedDisk()
    for attempt in (1, 2, 3):
        queue = JobQueue("/jobs", retry_s=0, disk=disk)
        if attempt == 1:
            queue.put("poison")
        job = queue.take()
        assert job
        assert job["attempts"] == attempt
        disk.power_cut(lose)
        with suppress(FailedError):
            queue.close()
    queue = JobQueue("/jobs", retry_s=0, disk=disk)
    assert queue.is_idle()
    assert [job["error"] for job in queue.dead()] == ["the process died"]
    assert queue.died == [1]
    queue.close()
