"""The messages of `subagents` about files that are damaged, missing, or of something else.

Each names the file, what is wrong, and what to do next, in the words of the command line.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from journal import DurableDict, FailedError, Journal, MirrorError, MirrorReason
from manager._cli.cli import run_cli
from manager._cli.mcp_tools import _shown
from manager._cli.messages import message_of
from tests.installed import import_package

READERS = ("list", "list -f", "show a", "output a", "export -", "wait a")
WRITERS = ("run tasks.txt", "run --yes", "import old.json")
CHANGES = ("cancel a", "retry a", "prune a")
REQUESTS = ("pause a", "resume a", "spawn p")
PYTHON = re.compile(r"takeover=|mirror=|start_over|`apply`|`load`|raised|Error\(|reopen|state_dir")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run a task with a mirror in a new workspace, and return the directory of the state."""
    monkeypatch.chdir(tmp_path)
    Path("tasks.txt").write_text('{"name": "a", "command": "true"}\n')
    Path("old.json").write_text('{"schema_version": 1, "agents": []}')
    assert run_cli(["run", "tasks.txt", "--mirror", f"file://{tmp_path}/mirror"]) == 0
    return tmp_path / ".subagents"


def remove(state: Path) -> None:
    shutil.rmtree(state)


def empty(state: Path) -> None:
    shutil.rmtree(state)
    state.mkdir(0o700)


def put_notes(state: Path) -> None:
    empty(state)
    (state / "notes.txt").touch()


def put_file(state: Path) -> None:
    shutil.rmtree(state)
    state.touch()


def put_symlink(state: Path) -> None:
    state.rename("elsewhere")
    state.symlink_to("elsewhere")


def put_other_journal(state: Path) -> None:
    shutil.rmtree(state)
    with Journal.open(state) as journal:
        journal.wait_durable(journal.append(b"other"))


def begin_copy(state: Path) -> None:
    for path in state.glob("*.*"):
        path.unlink()
    (state / "COPYING.tmp").touch()


def put_dict(state: Path) -> None:
    shutil.rmtree(state)
    with DurableDict.open(state) as other:
        other["a"] = 1


def damage_marker(state: Path) -> None:
    (state / "MIRROR").write_text("{}")


def empty_mirror(state: Path) -> None:
    shutil.rmtree("mirror")


def keep_all(state: Path) -> None:
    """Change nothing."""


def put_control_file(state: Path) -> None:
    shutil.rmtree(state / "control", ignore_errors=True)
    (state / "control").touch()


NO_STATE = "STATE: no state is there; give the --workspace and --state-dir of a run, or start one"
NOT_SAFE = ": is a symlink or not a directory; move it away"
BAD_MARKER = "STATE/MIRROR: this file states the mirror of its directory, and is damaged"


@pytest.mark.parametrize(
    ("prepare", "lines", "expected"),
    [
        (remove, (*READERS, *CHANGES), NO_STATE),
        (empty, (*READERS, *CHANGES), NO_STATE),
        (put_notes, (*READERS, *CHANGES), NO_STATE),
        (put_file, (*READERS[:-1], *WRITERS), "STATE: Not a directory; move it away"),
        (put_file, (*CHANGES, *REQUESTS, "wait a"), f"STATE{NOT_SAFE}"),
        (put_symlink, (*READERS[:-1], *WRITERS), "STATE: is a symlink; give the path of"),
        (put_symlink, (*CHANGES, *REQUESTS, "wait a"), f"STATE{NOT_SAFE}"),
        (put_control_file, (*CHANGES, *REQUESTS, "wait a"), f"STATE/control{NOT_SAFE}"),
        (put_other_journal, (*READERS, *CHANGES, *WRITERS), "open the journal with the version"),
        (begin_copy, (*READERS, *CHANGES, *WRITERS), "interrupted; wait for its end, or repeat it"),
        (put_dict, (*READERS, *CHANGES, *WRITERS), "open it with the program that wrote it"),
        (damage_marker, (*CHANGES, *WRITERS), BAD_MARKER),
        (keep_all, WRITERS, "add --mirror file://"),
        (keep_all, CHANGES, "while subagents run --mirror URL has the state open"),
        (empty_mirror, ("run tasks.txt --mirror URL",), "remove the file MIRROR from the"),
        (keep_all, ("run tasks.txt --state-dir ../x", "import old.json --state-dir /x"), "unlike"),
        (keep_all, ("export old.json",), "old.json: File exists; nothing was overwritten; choose"),
        (remove, ("import no/file",), "no/file: No such file or directory; check the path"),
        (keep_all, ("export no/file",), "no/file: No such file or directory; check the path"),
    ],
)
def test_a_message_names_the_file_and_the_next_step(
    state: Path,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[Path], None],
    lines: tuple[str, ...],
    expected: str,
) -> None:
    """Each command that meets the file prints one line, and no words for a Python program."""
    prepare(state)
    capsys.readouterr()
    for line in lines:
        url = f"file://{state.parent}/mirror"
        assert run_cli([url if word == "URL" else word for word in line.split()]) in (1, 4), line
        out, message = capsys.readouterr()
        assert (out, message.count("\n")) == ("", 1), line
        assert expected.replace("STATE", str(state)) in message, line
        assert not PYTHON.search(message), line


@pytest.mark.parametrize("damage", [damage_marker, empty_mirror])
def test_the_next_step_for_a_mirror_helps(state: Path, damage: Callable[[Path], None]) -> None:
    """A run continues after the step that the message names."""
    damage(state)
    run = ["run", "tasks.txt", "--mirror", f"file://{state.parent}/mirror"]
    assert run_cli(run) == 4
    (state / "MIRROR").unlink()
    assert run_cli([*run, "--takeover"] if damage is damage_marker else run) == 0


@pytest.mark.parametrize(("count", "begin"), [(0, ""), (4, "the state can't be written: ")])
def test_a_failing_disk_is_named(
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    count: int,
    begin: str,
) -> None:
    """If the state can't be made or written, the last line names the file and the next step."""
    remove(state)
    written: list[int] = []

    def write(fd: int, data: bytes, offset: int) -> int:
        written.append(offset)
        if len(written) > count:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pwrite(fd, data, offset)

    pwrite = os.pwrite
    monkeypatch.setattr("os.pwrite", write)
    assert run_cli(["run", "tasks.txt"]) == 4
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        rf"subagents: {begin}{state}/\S+: Input/output error; fix that, then run the same "
        "command again",
        last,
    )


def test_a_mirror_that_does_not_answer_is_explained() -> None:
    """The message says that the command may be repeated."""
    error = MirrorError("nats://h/S", "connect: no answer", reason=MirrorReason.UNREACHABLE)
    step = "fix that, then run the same command again"
    assert message_of(error) == f"nats://h/S: connect: no answer; {step}"


def test_a_client_of_the_tools_gets_the_same_message(state: Path) -> None:
    """The MCP tools describe an error as the commands do."""
    import_package("mcp")
    import asyncio

    async def fail() -> dict[str, object]:
        raise FileExistsError(17, "File exists", "/a")

    with pytest.raises(Exception, match="/a: File exists; nothing was overwritten") as raised:
        asyncio.run(_shown(fail()))
    assert str(raised.value) == message_of(FileExistsError(17, "File exists", "/a"))


def test_a_lack_of_memory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A command that needs too much memory ends in a message, which the interpreter lacks."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("manager._cli.cli.fleet_at", fail)
    assert run_cli(["list", "--workspace", str(tmp_path)]) == 4
    assert capfd.readouterr().err == f"subagents: {message_of(MemoryError())}\n"
    failed = FailedError("the journal stopped: MemoryError()")
    failed.__cause__ = MemoryError()
    assert "can't be written: this needs more memory than there is" in message_of(failed)
