"""Helpers for the tests of journal-inspect: journals on the real disk, damage, and commands."""

from __future__ import annotations

import json
import os
import queue
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner
from journal_inspect.commands.cli import cli

from journal import Journal, JournalReader, Options, Tables
from manager import AgentResult, SubAgentManager
from tests.independent_reader import crc32c
from tests.support import until

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "v1"
TIMEOUT_S = 30.0
FRAME_BYTES = 44  # the size of a frame's header
# The commands that read, and further arguments for some of them, in a fleet with a `lead`.
VERBS = ("info", "verify", "log", "stats", "checkpoint", "agents", "show", "history", "diff")
ARGS: dict[str, tuple[str, ...]] = {"show": ("lead",), "history": ("lead",), "diff": ("1", "3")}
# The same for a journal of tables, with a key `lead` in a table `users`.
TABLE_VERBS = ("tables", "get", "export")
ARGS |= {"get": ("users", "lead")}
DIFFER = ("diff",)  # these find differences, so they exit with 1
COMMAND = [sys.executable, "-P", "-m", "journal_inspect"]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out, parse_constant=_refuse)

    @property
    def jsonl(self) -> list[Any]:
        return [json.loads(line, parse_constant=_refuse) for line in self.lines]


def _refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")


def ask(*args: object) -> Answer:
    """Run a command in this process. Errors that no handler catches are raised."""
    result = CliRunner().invoke(cli, list(map(str, args)), catch_exceptions=False)
    return Answer(result.exit_code, result.stdout, result.stderr)


def ask_verb(verb: str, path: object, *options: object) -> Answer:
    """Run a command with the arguments that it needs."""
    return ask(verb, path, *ARGS.get(verb, ()), *options)


def environment(**changed: str) -> dict[str, str]:
    """Return our environment without variables that change buffering or colours."""
    ours = {"PYTHONUNBUFFERED", "PYTHONIOENCODING", "NO_COLOR", "TERM"}
    return {name: value for name, value in os.environ.items() if name not in ours} | changed


def ask_child(*args: object, **popen: Any) -> Answer:
    """Run a command in its own process, as a user does."""
    default: dict[str, Any] = {"capture_output": True, "env": environment()}
    popen = {"text": True, "timeout": TIMEOUT_S} | default | popen
    done = subprocess.run([*COMMAND, *map(str, args)], check=False, **popen)
    return Answer(done.returncode, done.stdout or "", done.stderr or "")


def check_refused(answer: Answer, code: int, *words: str) -> None:
    """Check the exit code, empty stdout, and one message that contains `words`."""
    assert (answer.code, answer.out) == (code, ""), answer.err
    assert answer.err.startswith("journal-inspect: ")
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.err
    for word in words:
        assert word in answer.err


class Child:
    """A running process whose lines can be read as they come."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self) -> str:
        return self._lines.get(timeout=TIMEOUT_S)

    def has_line(self) -> bool:
        return not self._lines.empty()

    def end(self, signal: int | None = None) -> Answer:
        """End the process, by `signal` if given. Return its exit code and unread output."""
        if signal is not None:
            self.process.send_signal(signal)
        code = self.process.wait(TIMEOUT_S)
        self._reader.join(TIMEOUT_S)
        assert self.process.stderr
        unread = [self._lines.get_nowait() for _ in range(self._lines.qsize())]
        return Answer(code, "\n".join(unread), self.process.stderr.read())


@contextmanager
def running(*args: object) -> Iterator[Child]:
    """Run journal-inspect in its own process, which is killed at the end if it still runs."""
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [*COMMAND, *map(str, args)]
    with subprocess.Popen(command, env=environment(), **pipes) as process:
        child = Child(process)
        try:
            yield child
        finally:
            process.kill()
            child.end()


def open_journal(path: Path, *, application: str = "test/1") -> Journal:
    """Open a journal with small segments that is only compacted on request."""
    options = Options(segment_bytes=4096, checkpoint_min_bytes=1 << 30, application=application)
    return Journal.open(path, options=options)


def put(journal: Journal, *records: Any) -> int:
    """Append each record in its own commit. Return the last LSN."""
    for record in records:
        journal.wait_durable(journal.append(record), timeout_s=TIMEOUT_S)
    return journal.last_lsn


def compact(journal: Journal, *items: Any) -> None:
    journal.compact(lambda: (journal.last_lsn, list(items)))


def make(
    path: Path, records: Iterable[Any] = (["a"], ["b"], ["c"]), *, application: str = "test/1"
) -> Path:
    """Make and close a journal with these records."""
    with open_journal(path, application=application) as journal:
        put(journal, *records)
    return path


def golden(path: Path) -> Path:
    """Copy a journal with four epochs, a torn tail, two checkpoints and records of every type."""
    shutil.copytree(GOLDEN, path)
    path.chmod(0o700)
    return path


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("*.seg"))


def checkpoints(path: Path) -> list[Path]:
    return sorted(path.glob("checkpoint-*.json"))


def flip(file: Path, offset: int) -> None:
    """Damage one byte."""
    data = bytearray(file.read_bytes())
    data[offset] ^= 0xFF
    file.write_bytes(data)


def damage_all_frames(path: Path) -> None:
    """Damage the payload of each frame, also of those that a checkpoint covers."""
    with JournalReader.open(path) as reader:
        frames = [info for info in reader.frames() if info.state == "log"]
    for info in frames:
        flip(Path(info.path), info.offset + FRAME_BYTES)


def tear(path: Path) -> None:
    """Append what a crash leaves of an unfinished commit: bytes after the last mark."""
    with segments(path)[-1].open("ab") as file:
        file.write(b"\x01" * 50)


def contents(path: Path) -> dict[str, tuple[bytes, int, int]]:
    """Return everything that a write would change."""
    return {
        file.name: (file.read_bytes(), file.stat().st_mtime_ns, file.stat().st_mode)
        for file in sorted(path.iterdir())
    }


def fleet(workspace: Path) -> SubAgentManager:
    """Make agents of every status, before and after a checkpoint."""
    manager = SubAgentManager.open(workspace)
    parent = manager.spawn("lead", name="lead", metadata={"k": [1, None]})
    manager.spawn("child", parent_id="lead", allowed_tools=("read",), token_budget=7)
    manager.spawn("later", queued=True)
    manager.compact()
    done = manager.spawn("done", name="done")
    manager.update_from_result(done.agent_id, AgentResult("42", input_tokens=5, output_tokens=6))
    manager.update_failed(manager.spawn("bad").agent_id, "it broke")
    manager.cancel(manager.spawn("no", queued=True).agent_id)
    last = manager.update_checkpoint(parent.agent_id, {"at": 3}, steps_taken=3)
    manager.wait_durable()
    with JournalReader.open(manager.path) as reader:
        # A reader learns what is durable from the mark that follows.
        until(lambda: reader.last_lsn == last.lsn, "the last record to be visible")
    return manager


def tables(path: Path, **options: Any) -> Path:
    """Make and close a journal of two tables, with rows before and after a checkpoint."""
    with Tables.open(path, options=Options(**options)) as app:
        users, orders = app.table("users"), app.table("orders")
        users["lead"] = {"name": "Ada", "tags": ["a", None]}
        users["de", 7] = "first"
        users[b"\0"] = b"\xff"
        app.compact()
        with app.transaction() as t:
            t[users]["de", 7] = {"name": "Ida", 1: 2}
            t[orders].insert(-5, 1.5)
            del t[users][b"\0"]
        app.sync(timeout_s=TIMEOUT_S)
        users["late"] = "x"
    return path


def set_version(segment: Path, **changed: Any) -> None:
    """Change the version in a segment's header, with a CRC to match."""
    data = bytearray(segment.read_bytes())
    struct.pack_into("<H", data, 8, changed["version"])
    struct.pack_into("<I", data, 60, crc32c(bytes(data[:60])))
    segment.write_bytes(data)


class Damaged(NamedTuple):
    """A fleet's journal with damage in the frame that holds `lsn` to `last_lsn`."""

    path: Path
    lsn: int
    last_lsn: int
    records: list[Any]

    @property
    def end(self) -> int:
        return len(self.records)


def damage_a_fleet(workspace: Path) -> Damaged:
    """Make 60 agents, each spawned and ended in one commit, and damage a frame.

    The damage is in the third of five segments, after the checkpoint.
    """
    with SubAgentManager.open(workspace, options=Options(segment_bytes=4096)) as manager:
        for number in range(60):
            agent = manager.spawn("x" * 100, name=f"n{number}")
            manager.wait_durable(manager.update_from_result(agent.agent_id, AgentResult("ok")).lsn)
            if number == 9:
                manager.compact()
        path = Path(manager.path)
    with JournalReader.open(path) as reader:
        entries = list(reader.entries(0))
    third = segments(path)[2]
    inside = [entry for entry in entries if entry.path == str(third)]
    offset = inside[8].offset
    assert offset
    lsns = [entry.lsn for entry in inside if entry.offset == offset]
    flip(third, offset + FRAME_BYTES + 20)
    return Damaged(path, lsns[0], lsns[-1], [entry.record for entry in entries])


def child_main(*before: str) -> Answer:
    """Run the console script in its own process, after these statements; `m` is its module."""
    code = ["import sys, journal_inspect.__main__ as m", *before, "sys.exit(m.main())"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", "\n".join(code), "info", "nowhere"],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
        env=environment(),
    )
    return Answer(done.returncode, done.stdout, done.stderr)
