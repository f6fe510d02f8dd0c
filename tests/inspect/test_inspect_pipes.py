"""journal-inspect stopped, piped or closed: no message, and the exit code that shells expect."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from journal import Tables
from manager import Limits, SubAgentManager
from tests.inspect.inspect_support import (
    COMMAND,
    TIMEOUT_S,
    ask_child,
    child_main,
    environment,
    golden,
    make,
    running,
    tear,
)
from tests.support import bounded

IN_SHELL: dict[str, Any] = {
    "shell": True,
    "capture_output": True,
    "text": True,
    "timeout": TIMEOUT_S,
    "env": environment(),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_130_and_143_stopped(tmp_path: Path, number: int) -> None:
    """A signal stops a follower without a message; the exit code is 128 plus its number."""
    with running("log", make(tmp_path / "j"), "-f") as child:
        for _ in range(3):
            child.line()
        answer = child.end(number)
    assert (answer.code, answer.out, answer.err) == (128 + number, "", "")


def test_130_before_the_command_line_is_read() -> None:
    """An interrupt before the command line is read ends without a message, too."""
    answer = child_main("def stop(): raise KeyboardInterrupt", "m.missing_extra = stop")
    assert (answer.code, answer.out, answer.err) == (130, "", "")


def long_journal(path: Path) -> Path:
    """Make a journal for which no command's output fits in a pipe and the buffer of stdout."""
    with SubAgentManager.open(path, limits=Limits(max_admitted=4000)) as manager:
        for number in range(2000):
            manager.spawn("x" * 500, queued=True, metadata={"number": number})
        manager.compact()
        for _ in range(2000):
            manager.spawn("y" * 500, queued=True)
        return Path(manager.path)


def many_rows(path: Path) -> Path:
    """Make tables whose rows do not fit in a pipe."""
    with Tables.open(path) as app:
        for number in range(300):
            app.table("t")[number] = "x" * 1000
    return path


@contextmanager
def closed() -> Iterator[int]:
    """Yield a pipe whose reader has closed it."""
    theirs, ours = os.pipe()
    os.close(theirs)
    try:
        yield ours
    finally:
        os.close(ours)


@pytest.mark.parametrize(
    "forms", [("text",), pytest.param(("json", "jsonl"), marks=pytest.mark.slow)]
)
def test_a_closed_pipe_is_quiet(tmp_path: Path, forms: tuple[str, ...]) -> None:
    """`| head -1` gets its line, and the command ends without a message, with exit code 141."""
    path = long_journal(tmp_path)
    of_tables = many_rows(tmp_path / "tables")
    for verb, place in (
        ("log", path),
        ("checkpoint", path),
        ("agents", path),
        ("export", of_tables),
    ):
        for form in forms:
            process = subprocess.Popen(
                [*COMMAND, verb, place, "-o", form],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
            )
            with process, bounded(process):
                assert process.stdout
                assert process.stderr
                assert process.stdout.readline()
                process.stdout.close()
                assert (process.stderr.read(), process.wait(TIMEOUT_S)) == (b"", 141), (verb, form)
    with closed() as pipe:
        answer = ask_child("info", path, capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert (answer.code, answer.err) == (141, "")  # even though the output fits in a buffer
    command = f"{shlex.join([*COMMAND, 'log', str(path)])} | head -1"
    done = subprocess.run(command, **IN_SHELL)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")


def test_messages_come_after_the_data(tmp_path: Path) -> None:
    """A message comes after the output that it is about, if both go to one file."""
    path = make(tmp_path / "j")
    tear(path)
    answer = ask_child(
        "verify", path, capture_output=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    verdict, *lines = answer.lines
    assert verdict == f"{path}: whole, up to a torn tail."
    begins = [line.split()[0] for line in lines]
    assert begins == ["torn_tail", "good", "journal-inspect:", "journal-inspect"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_leave_the_exit_code(tmp_path: Path, closed: str) -> None:
    """Closed streams do not change the exit code, and no message is written into the output."""
    path = make(tmp_path / "j")
    tear(path)
    command = f"{shlex.join([*COMMAND, 'verify', str(path)])} {closed}"
    done = subprocess.run(command, **IN_SHELL)
    assert done.returncode == 1
    assert "journal-inspect: " not in done.stdout
    assert "Traceback" not in done.stderr


def test_4_output_that_cannot_be_written(tmp_path: Path) -> None:
    """A failed write to stdout is reported and gives exit code 4."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    path = golden(tmp_path / "j")
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("x" * 4000)
    lines: list[tuple[object, ...]] = [("schema", "log"), ("report", path, "-o", "-")]
    # One prints less than a buffer, one more, and the last one a message after 4 to 8 KiB.
    for verb, place in (("info", path), ("log", path), ("verify", path), ("agents", manager.path)):
        lines.append((verb, place, "-o", "json"))
    for line in lines:
        with open("/dev/full", "w") as full:
            answer = ask_child(*line, capture_output=False, stdout=full, stderr=subprocess.PIPE)
        assert answer.code == 4
        assert answer.err.splitlines()[-1].startswith("journal-inspect: stdout: No space left")
        assert "Exception" not in answer.err
