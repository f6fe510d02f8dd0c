"""journal-inspect's exit codes: each row of the table, and that no traceback reaches a user."""

from __future__ import annotations

import os
import shlex
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from journal_inspect.exits import explain

from journal import ClosedError, FailedError, LockedError, RecordError
from manager import SubAgentManager
from tests.independent_reader import crc32c
from tests.inspect_support import (
    COMMAND,
    TIMEOUT_S,
    VERBS,
    Answer,
    ask,
    ask_child,
    checkpoints,
    compact,
    environment,
    flip,
    golden,
    make,
    open_journal,
    put,
    running,
    segments,
    tear,
)

Ask = Callable[..., Answer]
IN_SHELL: dict[str, Any] = {
    "shell": True,
    "capture_output": True,
    "text": True,
    "timeout": TIMEOUT_S,
    "env": environment(),
}


@pytest.fixture(params=[ask, ask_child], ids=["inside", "child"], name="inspect")
def _inspect(request: pytest.FixtureRequest) -> Ask:
    """Both ways to ask: what a user's shell sees, and what a debugger could."""
    return request.param  # type: ignore[no-any-return]


def refuses(answer: Answer, code: int, *words: str) -> None:
    """That code, no data, and one line for people that has these words."""
    assert (answer.code, answer.out) == (code, ""), answer.err
    assert answer.err.startswith("journal-inspect: ")
    assert answer.err.count("\n") == 1
    assert "Traceback" not in answer.err
    for word in words:
        assert word in answer.err


def fleet(workspace: Path) -> Path:
    """A manager's journal with a checkpoint, an agent in it and one after it."""
    with SubAgentManager.open(workspace) as manager:
        manager.spawn("in the checkpoint")
        manager.compact()
        manager.spawn("after it")
        return Path(manager.path)


def seal(segment: Path, **changed: Any) -> None:
    """Write a segment's header with another version, and a CRC that says it is whole."""
    data = bytearray(segment.read_bytes())
    struct.pack_into("<H", data, 8, changed["version"])
    struct.pack_into("<I", data, 60, crc32c(bytes(data[:60])))
    segment.write_bytes(data)


# --- 0 and 1 ---


@pytest.mark.parametrize("verb", VERBS)
def test_0_fine(tmp_path: Path, inspect: Ask, verb: str) -> None:
    """What was asked for is there and whole."""
    answer = inspect(verb, fleet(tmp_path))
    assert answer.code == 0
    assert answer.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["log"], "no entry there"),
        (["log", "--from-lsn", "5"], "no entry there"),
        (["checkpoint"], "no checkpoint verifies"),
        (["checkpoint", "--lsn", "3"], "no checkpoint at LSN 3 verifies"),
        (["agents"], "no agents"),
    ],
)
def test_1_nothing_found(tmp_path: Path, inspect: Ask, args: list[str], words: str) -> None:
    """A negative answer, as grep gives one."""
    verb, *options = args
    refuses(inspect(verb, make(tmp_path / "j", []), *options), 1, words)


def test_1_no_longer_kept(tmp_path: Path, inspect: Ask) -> None:
    """What compaction dropped is not found either."""
    refuses(inspect("log", golden(tmp_path / "j"), "--from-lsn", 1), 1, "the first that is: 9")


def test_1_a_torn_tail(tmp_path: Path, inspect: Ask) -> None:
    """`verify` says no; the other verbs show what an open would keep."""
    path = fleet(tmp_path)
    tear(path)
    assert inspect("verify", path).code == 1
    assert inspect("log", path).code == inspect("info", path).code == 0
    assert inspect("agents", path).code == inspect("checkpoint", path).code == 0


def test_1_a_bad_checkpoint(tmp_path: Path, inspect: Ask) -> None:
    """It verifies not, and an open takes another way."""
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1)
        compact(journal, 1)
    flip(checkpoints(tmp_path / "j")[0], 60)
    assert inspect("verify", tmp_path / "j").code == 1
    assert inspect("info", tmp_path / "j").code == 0


# --- 2 ---


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["frobnicate", "PATH"],
        ["info"],
        ["info", "PATH", "PATH"],
        ["info", "PATH", "--frobnicate"],
        ["log", "PATH", "-o", "yaml"],
        ["log", "PATH", "-n", "-1"],
        ["log", "PATH", "-n", "many"],
        ["log", "PATH", "--from-lsn", "0"],
        ["log", "PATH", "--from-lsn", "7", "--to-lsn", "6"],
        ["log", "PATH", "-f", "-r"],
        ["log", "PATH", "-f", "-o", "json"],
        ["checkpoint", "PATH", "--lsn", "0"],
    ],
)
def test_2_usage(tmp_path: Path, inspect: Ask, args: list[str]) -> None:
    """A call that means nothing: usage on stderr, whatever stands at the path."""
    path = make(tmp_path / "j")
    answer = inspect(*[str(path) if arg == "PATH" else arg for arg in args])
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: ")


# --- 3 ---


@pytest.mark.parametrize("verb", ["info", "log", "verify", "agents"])
def test_3_corruption(tmp_path: Path, inspect: Ask, verb: str) -> None:
    """P4: every verb that reads the log says so; nothing on disk has changed."""
    path = fleet(tmp_path)
    flip(segments(path)[-1], 64 + 44)
    answer = inspect(verb, path)
    assert answer.code == 3
    assert str(path) in answer.err
    assert "Traceback" not in answer.err


def test_3_what_went_before_is_missing(tmp_path: Path, inspect: Ask) -> None:
    """P4: without the checkpoints the log begins too late; a fleet is not made of half of it."""
    path = fleet(tmp_path)
    with SubAgentManager.open(tmp_path) as manager:
        manager.compact()
        manager.spawn("x")
        manager.compact()
        manager.spawn("y")
    with SubAgentManager.open(tmp_path) as manager:
        manager.wait_durable(manager.spawn("z").lsn)
        manager.compact()
    for file in segments(path)[:-1]:
        file.unlink()
    for file in checkpoints(path):
        flip(file, 40)
    for verb in ("info", "verify", "agents"):
        assert inspect(verb, path).code == 3, verb


# --- 4 ---


@pytest.mark.parametrize("verb", VERBS)
def test_4_no_journal(tmp_path: Path, inspect: Ask, verb: str) -> None:
    """Missing, a file, an empty directory, one that holds something else: each is named."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    refuses(inspect(verb, tmp_path / "missing"), 4, f"{tmp_path}/missing: No such file")
    refuses(inspect(verb, tmp_path / "file"), 4, f"{tmp_path}/file: Not a directory")
    for name in ("empty", "other"):
        refuses(inspect(verb, tmp_path / name), 4, f"{tmp_path}/{name}: not a journal")


@pytest.mark.parametrize("verb", VERBS)
def test_4_a_symlink(tmp_path: Path, inspect: Ask, verb: str) -> None:
    """P9: a link is not followed, as the path or in the journal; above the path it may be."""
    path = fleet(tmp_path)
    (tmp_path / "link").symlink_to(path)
    refuses(inspect(verb, tmp_path / "link"), 4, f"{tmp_path}/link: is a symlink")
    (tmp_path / "above").symlink_to(path.parent)
    assert inspect(verb, tmp_path / "above" / path.name).code == 0
    file = (checkpoints if verb == "checkpoint" else segments)(path)[-1]
    file.rename(tmp_path / file.name)
    file.symlink_to(tmp_path / file.name)
    answer = inspect(verb, path)
    assert answer.code == 4
    assert f"{file}: a symlink" in answer.err


@pytest.mark.parametrize("verb", ["info", "log", "verify", "agents"])
def test_4_a_newer_version(tmp_path: Path, inspect: Ask, verb: str) -> None:
    """What a newer version wrote is not guessed at; the message says what to do."""
    path = fleet(tmp_path)
    seal(segments(path)[-1], version=2)
    refuses(inspect(verb, path), 4, "format version 2, newer than 1", "newer journal-engine")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("verb", VERBS)
def test_4_no_permission(tmp_path: Path, inspect: Ask, verb: str) -> None:
    """What may not be read is named."""
    path = fleet(tmp_path)
    path.chmod(0)
    try:
        refuses(inspect(verb, path), 4, f"{path}: Permission denied")
    finally:
        path.chmod(0o700)


@pytest.mark.parametrize("verb", VERBS)
def test_4_is_for_the_journal_to_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """Permissions are asked of nobody but the open itself, so that they are never `usage`."""
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    assert ask(verb, fleet(tmp_path)).code == 0


def test_4_no_fleet(tmp_path: Path, inspect: Ask) -> None:
    """Another program's journal has no agents to show."""
    refuses(inspect("agents", make(tmp_path / "j", [["spawn"]])), 4, str(tmp_path / "j"))


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_4_without_the_extra(missing: str) -> None:
    """A script that was installed without its extra says which one to install."""
    refuses(
        child_main(f"sys.modules[{missing!r}] = None"),
        4,
        f"needs {missing}",
        "pip install 'journal-engine[cli]'",
    )


def child_main(*before: str) -> Answer:
    """The console script in a process of its own, after these statements; `m` is its module."""
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


def test_4_a_defect_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody thought of is one line, escaped, that says where; before there is a command
    line too."""

    def show_info(*_: object) -> int:
        raise RuntimeError("of a kind\x1b\nnobody thought of")

    monkeypatch.setattr("journal_inspect.info.show_info", show_info)
    answer = ask("info", make(tmp_path / "j"))
    what = "RuntimeError: of a kind\\u001b\\u000anobody thought of"
    refuses(answer, 4, what, "please report", f"in {__name__}, line ")
    refuses(child_main("m.find_spec = lambda name: 1 / 0"), 4, "ZeroDivisionError")


def test_4_output_that_can_not_be_written(tmp_path: Path) -> None:
    """A full disk under the output is told, and is not `fine`."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    path = golden(tmp_path / "j")
    for verb in ("info", "log", "verify"):  # one of them fills no buffer, one more than that
        with open("/dev/full", "w") as full:
            answer = ask_child(
                verb, path, capture_output=False, stdout=full, stderr=subprocess.PIPE
            )
        assert answer.code == 4
        assert answer.err.splitlines()[-1].startswith("journal-inspect: [Errno 28] No space left")
        assert "Exception" not in answer.err


# --- 5 ---


def test_5_locked() -> None:
    """Every error of the engine has its code; no verb needs the lock yet."""
    assert explain(LockedError("/j", 7)) == (5, str(LockedError("/j", 7)))
    for error in (FailedError("failed"), ClosedError("closed"), RecordError("record")):
        assert explain(error) == (4, str(error))
    code, message = explain(OSError(5, "Input/output error", "/j/x.seg"))
    assert code == 4
    assert message.startswith("/j/x.seg: Input/output error; ")


# --- signals and pipes ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_130_and_143_stopped(tmp_path: Path, number: int) -> None:
    """A follower is stopped by a signal, quietly; 128 and the signal's number."""
    with running("log", make(tmp_path / "j"), "-f") as child:
        for _ in range(3):
            child.line()
        answer = child.end(number)
    assert (answer.code, answer.out, answer.err) == (128 + number, "", "")


def test_130_before_there_is_a_command_line() -> None:
    """An interrupt as early as can be is as quiet."""
    answer = child_main("def stop(name): raise KeyboardInterrupt", "m.find_spec = stop")
    assert (answer.code, answer.out, answer.err) == (130, "", "")


def long(path: Path) -> Path:
    """A journal of which no verb's output fits in a pipe."""
    with SubAgentManager.open(path) as manager:
        for number in range(300):
            manager.spawn("x" * 1000, queued=True, metadata={"number": number})
        manager.compact()
        for _ in range(300):
            manager.spawn("y" * 1000, queued=True)
        return Path(manager.path)


@contextmanager
def closed() -> Iterator[int]:
    """A pipe that nobody reads from any more."""
    theirs, ours = os.pipe()
    os.close(theirs)
    try:
        yield ours
    finally:
        os.close(ours)


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    """`| head -1` gets its line, and nobody a message; 141, as of a program that SIGPIPE ends."""
    path = long(tmp_path)
    for verb in ("log", "checkpoint", "agents"):
        for form in ("text", "json", "jsonl"):
            with subprocess.Popen(
                [*COMMAND, verb, path, "-o", form],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
            ) as process:
                assert process.stdout
                assert process.stderr
                assert process.stdout.readline()
                process.stdout.close()
                assert (process.stderr.read(), process.wait(TIMEOUT_S)) == (b"", 141), (verb, form)
    with closed() as pipe:
        answer = ask_child("info", path, capture_output=False, stdout=pipe, stderr=subprocess.PIPE)
    assert (answer.code, answer.err) == (141, "")  # though all of it fits in a buffer
    command = f"{shlex.join([*COMMAND, 'log', str(path)])} | head -1"
    done = subprocess.run(command, **IN_SHELL)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")


def test_messages_come_behind_the_data(tmp_path: Path) -> None:
    """Where both go to one file, a message stands behind what it is about."""
    path = make(tmp_path / "j")
    tear(path)
    answer = ask_child(
        "verify", path, capture_output=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert [line.split()[0] for line in answer.lines] == ["torn_tail", "last", "journal-inspect:"]


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_were_closed_before(tmp_path: Path, closed: str) -> None:
    """The answer is the exit code, whoever listens; no message lands among the data."""
    path = make(tmp_path / "j")
    tear(path)
    command = f"{shlex.join([*COMMAND, 'verify', str(path)])} {closed}"
    done = subprocess.run(command, **IN_SHELL)
    assert done.returncode == 1
    assert "journal-inspect: " not in done.stdout
    assert "Traceback" not in done.stderr
