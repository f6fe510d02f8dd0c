"""The examples, as an operator meets them: a second process, a wrong path, output that nobody
reads, a disk that fails, and one without space."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from journal import DurableState
from journal.docs.examples import jobs
from journal.testing import SimulatedDisk
from manager import SubAgentManager, read_fleet
from tests.examples.examples_support import EXAMPLES, started
from tests.installed import import_package
from tests.support import TIMEOUT_S, line_of, until

COMMANDS: dict[str, tuple[str, ...]] = {
    "jobs.py": ("x.d",),
    "events.py": ("write", "x.d"),
    "harness.py": (),
    "service.py": ("x.d", "0"),
}


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit code of a process, and what it wrote to stderr."""
    _, err = process.communicate("", timeout=TIMEOUT_S)
    return process.returncode, err


def needs(name: str) -> None:
    if name == "service.py":
        import_package("aiohttp")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_path_that_is_a_file_is_reported(tmp_path: Path, name: str) -> None:
    """A path that can't be a journal's gives one line, and exit code 1."""
    needs(name)
    (tmp_path / "x.d").touch()
    (tmp_path / ".subagents").touch()
    with started(name, tmp_path, *COMMANDS[name]) as process:
        code, err = ended(process)
    assert code == 1
    assert re.fullmatch(r"stopped: .*(x\.d|\.subagents).*\n", err)


@pytest.mark.parametrize("name", ["jobs.py", "events.py"])
def test_a_second_process_is_refused(tmp_path: Path, name: str) -> None:
    """Only one process writes to a directory. A second one names the first, and exits with 1."""
    with started(name, tmp_path, *COMMANDS[name]) as first:
        assert first.stdin
        first.stdin.write("good\n")
        first.stdin.flush()
        line_of(first)
        with started(name, tmp_path, *COMMANDS[name]) as second:
            code, err = ended(second)
        assert code == 1
        assert re.fullmatch(rf"stopped: .*\b{first.pid}\b.*\n", err)
        assert ended(first) == (0, "")


def test_a_second_harness_is_refused(tmp_path: Path) -> None:
    """The harness names the other process, and exits with 1."""
    with SubAgentManager.open(tmp_path), started("harness.py", tmp_path) as process:
        code, err = ended(process)
    assert code == 1
    assert re.fullmatch(rf"stopped: .*\b{os.getpid()}\b.*\n", err)


@pytest.mark.parametrize("name", ["jobs.py", "events.py"])
def test_a_closed_input_is_empty(tmp_path: Path, name: str) -> None:
    """A program that is started without a standard input has nothing to do."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), *COMMANDS[name]]
    shell = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    environment = {"PYTHONPATH": str(EXAMPLES.parents[2])}
    run = subprocess.run(
        shell, cwd=tmp_path, env=environment, capture_output=True, timeout=TIMEOUT_S, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize("name", ["jobs.py", "events.py", "harness.py"])
def test_a_reader_that_leaves_ends_the_program(tmp_path: Path, name: str) -> None:
    """The program ends as other commands do with `| head -1`, and loses nothing."""
    with started(name, tmp_path, *COMMANDS[name]) as process:
        assert process.stdin
        assert process.stdout
        with suppress(BrokenPipeError):  # the harness reads nothing
            process.stdin.write("good\n")
            process.stdin.flush()
            process.stdout.readline()
            process.stdout.close()
            process.stdin.write("good\n" * 50)
            process.stdin.flush()
        assert process.stderr
        assert (process.wait(TIMEOUT_S), process.stderr.read()) == (-signal.SIGPIPE, "")
    with started(name, tmp_path, *COMMANDS[name]) as process:
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, "")
    assert {"jobs.py": "0 dead", "events.py": "", "harness.py": "part 19 has"}[name] in out


def test_a_full_output_ends_no_agent(tmp_path: Path) -> None:
    """An agent that can't report its step goes on. The program fails once it has to."""
    command = [sys.executable, str(EXAMPLES / "harness.py")]
    environment = {"PYTHONPATH": str(EXAMPLES.parents[2])}
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=full, timeout=TIMEOUT_S, check=False
        )
    assert run.returncode != 0
    agents = read_fleet(tmp_path / ".subagents").agents(include_archived=True)
    assert len(agents) == 21
    assert {agent.status for agent in agents} == {"completed"}


def test_a_lead_that_did_not_complete_is_reported(tmp_path: Path) -> None:
    """If somebody has ended the lead, there is no result. Each run says so, and exits with 1."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.find_or_spawn("survey all parts", name="lead", agent_type="lead", queued=True)
        manager.cancel("lead", reason="no time")
    for _ in range(2):
        with started("harness.py", tmp_path) as process:
            assert ended(process) == (1, "the lead is cancelled: no time\n")


def test_a_service_whose_disk_fails_exits_with_one_line(tmp_path: Path) -> None:
    """The service ends with 1 after its logger has named the error, and prints no traceback."""
    needs("service.py")
    from tests.examples.test_service import call, port_of

    with started("service.py", tmp_path, *COMMANDS["service.py"]) as process:
        port = port_of(process)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (4096, 4096))
        body = {"account": "a" * 3000, "cents": 1}
        statuses = [call(port, "PUT", f"/payments/{number}", body)[0] for number in range(2)]
        assert statuses[-1] == 503
        code, err = ended(process)
    assert code == 1
    _, reported = err.splitlines()
    assert re.fullmatch("stopped: .*File too large.*", reported)


def test_a_service_on_a_full_disk_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM ends the service although a payment can't become durable."""
    needs("service.py")
    from journal.docs.examples import service

    disk = SimulatedDisk()
    opened: list[DurableState[Any]] = []

    async def aopen(*args: Any, **others: Any) -> DurableState[Any]:
        opened.append(DurableState.open(*args, disk=disk, **others))
        disk.fail("write", errno.ENOSPC, times=None)
        opened[0].update(lambda m: {"id": "1", "account": "a", "cents": 1})
        os.kill(os.getpid(), signal.SIGTERM)
        return opened[0]

    monkeypatch.setattr(service, "WAIT_S", 0.2)
    monkeypatch.setattr(DurableState, "aopen", aopen)
    with pytest.raises(TimeoutError, match=r"0\.2 s"):
        asyncio.run(service.main("/x.d", 0))
    disk.fail("write", errno.ENOSPC, times=0)
    opened[0].close(timeout_s=TIMEOUT_S)


def test_a_queue_on_a_full_disk_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that can't become durable waits for space until the queue stops."""
    monkeypatch.setattr(jobs, "WAIT_S", 0.1)
    disk, errors = SimulatedDisk(), []
    queue = jobs.JobQueue("/x.d", disk=disk)
    disk.fail("write", errno.ENOSPC, times=None)

    def put() -> None:
        try:
            queue.put("good")
        except TimeoutError as error:
            errors.append(error)

    thread = threading.Thread(target=put)
    thread.start()
    until(lambda: queue.state.stats().stalls > 0, "the disk is full")
    queue.stop()
    thread.join(TIMEOUT_S)
    assert len(errors) == 1
    with pytest.raises(TimeoutError):
        queue.close()
    disk.fail("write", errno.ENOSPC, times=0)
    queue.state.close(timeout_s=TIMEOUT_S)
