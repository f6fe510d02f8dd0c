"""The `subagents` command with closed, full and unbuffered streams."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.tiers import slow_but_every, slow_unless

TIMEOUT_S = 60

# How streams are closed, and a command that the quick part starts with them, besides `list`.
QUICK = {">&-": "run tasks.txt", "2>&-": "list -o json", "<&- >&- 2>&-": "run -"}
LONG = '{"name": "long", "command": "seq 9000"}'
LINE = '{"name": "one", "command": "echo 1"}'


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a run that has completed two agents."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "tasks.txt").write_text(f"{LINE}\n{LONG}\n")
    command = [sys.executable, "-P", "-m", "manager", "run", "tasks.txt"]
    subprocess.run(command, cwd=folder, capture_output=True, timeout=TIMEOUT_S, check=True)
    return folder


@pytest.mark.parametrize(
    ("closed", "verb"),
    slow_unless(
        lambda closed, verb: verb == QUICK[closed],
        product(QUICK, ["run tasks.txt", "run -", "list", "show one", "list -o json"]),
    ),
)
def test_closed_streams_leave_the_exit_code(
    tmp_path: Path, finished_run: Path, verb: str, closed: str
) -> None:
    """The exit code is the same when streams are closed."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -P -m manager {verb} {closed}",
        shell=True,
        cwd=tmp_path,
        input=LINE,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


@pytest.mark.skipif(sys.platform != "linux", reason="pipes keep writes apart there only")
@pytest.mark.parametrize("program", ["manager list", "journal_inspect log .subagents -n 4"])
def test_output_is_written_in_large_blocks(tmp_path: Path, program: str) -> None:
    """Output is one block even with PYTHONUNBUFFERED, which many containers set."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    tasks = "".join(f"echo {number}\n" for number in range(4))

    def run(arguments: str, **options: Any) -> None:
        command = [sys.executable, "-P", "-m", *arguments.split()]
        subprocess.run(
            command, cwd=tmp_path, env=environment, timeout=TIMEOUT_S, check=True, **options
        )

    run("manager run -", input=tasks.encode(), stderr=subprocess.DEVNULL)
    reading, writing = os.pipe2(os.O_DIRECT)
    try:
        run(program, stdout=writing)
        os.close(writing)
        assert len(os.read(reading, 4096).splitlines()) >= 4
        assert os.read(reading, 1) == b""
    finally:
        os.close(reading)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("unbuffered", ["", pytest.param("1", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "program",
    slow_but_every(
        3,
        [
            "manager list",
            "manager completion bash",
            "manager output long",
            "manager --help",
            "manager demo",
            "journal_inspect --help",
            "journal_inspect --version",
        ],
    ),
)
def test_a_failed_write_to_stdout_is_reported_once(
    tmp_path: Path, finished_run: Path, program: str, unbuffered: str
) -> None:
    """A failed write gives one message, no traceback, and an exit code that the help documents."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(tmp_path)}
    environment["PYTHONUNBUFFERED"] = unbuffered

    def run(arguments: str, stdout: Any) -> tuple[int, list[str]]:
        command = [sys.executable, "-P", "-m", *arguments.split()]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            timeout=TIMEOUT_S,
            input="true\n",
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        return done.returncode, done.stderr.splitlines()

    with open("/dev/full", "wb") as full:
        code, messages = run(program, full)
    assert (code, len(messages)) == (4, 1)
    assert ": stdout: No space left on device" in messages[0]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert run(program, writing) == (141, [])
    finally:
        os.close(writing)


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("program", "code"),
    [("manager show nobody", 1), ("journal_inspect verify nowhere", 4)],
)
def test_the_exit_code_does_not_depend_on_stderr(
    tmp_path: Path, finished_run: Path, program: str, code: int, unbuffered: str
) -> None:
    """A message that stderr does not accept, because its disk is full or its reader has gone, is
    lost, and the exit code stays."""
    shutil.copytree(finished_run, tmp_path, dirs_exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment["PYTHONUNBUFFERED"] = unbuffered
    command = [sys.executable, "-P", "-m", *program.split()]
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "wb") as full, open(writing, "wb") as abandoned:
        for stderr in (full, abandoned):
            done = subprocess.run(
                command, cwd=tmp_path, env=environment, timeout=TIMEOUT_S, stderr=stderr
            )
            assert done.returncode == code
