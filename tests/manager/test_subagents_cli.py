"""The `subagents` command: its output, its messages, and every exit code."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest

from journal import __version__
from manager import Agent, AgentResult, SubAgentManager
from manager._cli import cli as cli_module
from manager._cli import progress
from manager._run.report import RunReport
from manager.view import read_fleet

TIMEOUT_S = 60
KEYS = {field.name for field in fields(Agent)} | {"schema_version"}
NASTY = "a\x1b[31m\rb\x9b\u202e\x07"  # would colour, overwrite, reverse and ring on a terminal


def subagents(
    *args: str | Path, cwd: Path, stdin: str = "", env: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Run the command. Return its exit code, stdout and stderr."""
    child = subprocess.run(
        [sys.executable, "-P", "-m", "manager", *map(str, args)],
        cwd=cwd,
        input=stdin,
        env=os.environ | (env or {}),
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_S,
    )
    assert "Traceback" not in child.stderr
    return child.returncode, child.stdout, child.stderr


def assert_harmless(text: str) -> None:
    assert all(c.isprintable() or c == "\n" for c in text), ascii(text)


# --- run ---


def test_run_shows_progress_on_stderr_alone(tmp_path: Path) -> None:
    """Progress goes to stderr, with a summary as the last line; the exit code is 0."""
    (tmp_path / "tasks.txt").write_text("echo out\necho err >&2\n")
    code, out, messages = subagents("run", "tasks.txt", cwd=tmp_path)
    assert (code, out) == (0, "")
    assert messages.splitlines()[-1].startswith("subagents: 2 tasks: 2 completed; ")


def test_run_reads_stdin(tmp_path: Path) -> None:
    """TASKS may be `-`, and the workspace and the state directory may be elsewhere."""
    (tmp_path / "there").mkdir()
    args = ("--workspace", "there", "--state-dir", "kept/state")
    assert subagents("run", "-", *args, cwd=tmp_path, stdin="touch ran\n")[0] == 0
    assert (tmp_path / "there" / "ran").exists()
    assert len(read_fleet(tmp_path / "there" / "kept" / "state").agents(include_archived=True)) == 1
    code, out, _ = subagents("list", *args, cwd=tmp_path)
    assert (code, "touch ran" in out) == (0, True)


def test_run_lists_failed_tasks(tmp_path: Path) -> None:
    """Failed tasks are listed at each run with exit code and last lines, escaped."""
    line = json.dumps({"name": "bad", "command": ["sh", "-c", f"printf '%s' '{NASTY}'; exit 7"]})
    for _ in range(2):
        code, _, messages = subagents("run", "-", cwd=tmp_path, stdin=f"{line}\ntrue\n")
        assert code == 1
        assert "failed: bad: " in messages
        assert "exit 7; a\\x1b[31m" in messages
        assert "2 tasks: 1 completed, 1 failed" in messages
        assert_harmless(messages)


def test_run_shows_the_first_of_many_failures(tmp_path: Path) -> None:
    """Ten failures are shown, with the command that lists the others."""
    _, _, messages = subagents("run", "-", cwd=tmp_path, stdin="false\n" * 12)
    assert messages.count("false: exit 1") == 10
    assert "2 more; subagents list --status failed" in messages


def test_run_refuses_a_bad_line_before_anything_starts(tmp_path: Path) -> None:
    """A bad line is named with exit code 2, and no state is created."""
    (tmp_path / "tasks.txt").write_text('touch ran\n{"comand": "true"}\n')
    code, _, messages = subagents("run", "tasks.txt", cwd=tmp_path)
    assert code == 2
    assert messages.startswith("subagents: tasks.txt:2: unknown key 'comand'")
    assert os.listdir(tmp_path) == ["tasks.txt"]
    code, _, messages = subagents("run", "-", cwd=tmp_path, stdin="{}\n")
    assert (code, "stdin:1: " in messages) == (2, True)


def test_run_reports_unfinished_tasks(tmp_path: Path) -> None:
    """Unfinished tasks of another file are counted, and run when no file is given."""
    with SubAgentManager.open(tmp_path) as manager:
        metadata = {"task": "line:x:1", "command": "touch ran"}
        manager.spawn("touch ran", metadata=metadata, queued=True)
    code, _, messages = subagents("run", "-", cwd=tmp_path, stdin="true\n")
    assert (code, "1 unfinished" in messages) == (0, True)
    assert not (tmp_path / "ran").exists()
    assert subagents("run", cwd=tmp_path)[0] == 0
    assert (tmp_path / "ran").exists()


def test_run_without_anything_to_run_succeeds(tmp_path: Path) -> None:
    """A file without tasks, or a state without unfinished ones, gives exit code 0."""
    code, _, messages = subagents("run", "-", cwd=tmp_path, stdin="# none\n")
    assert (code, "nothing to run" in messages) == (0, True)
    assert subagents("run", cwd=tmp_path)[0] == 0


def test_progress_without_a_terminal_is_a_line_at_most_every_5_s(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a terminal, progress is at most one line in a few seconds, whatever happens."""
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    tell = progress._Lines()
    for now in (100, 104, 105, 106, 109, 110, 111):
        clock[0] = now
        tell(RunReport())
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_progress_on_a_terminal_is_a_bar(tmp_path: Path) -> None:
    """The bar counts the tasks while they run, and gives way to the summary."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "manager", "run", "-", "-j2"],
        cwd=tmp_path,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    assert child.stdin
    waiting = "for i in $(seq 3000); do [ -e go ] && exit; sleep 0.01; done; exit 1"
    child.stdin.write(f"true\n{waiting}\ntrue\n".encode())
    child.stdin.close()
    screen = b""
    while True:
        try:
            data = os.read(master, 1 << 16)
        except OSError:  # EIO is the end of a terminal on Linux
            break
        if not data:
            break
        screen += data
        if b"2/3" in screen:
            (tmp_path / "go").touch()
    os.close(master)
    assert child.wait(TIMEOUT_S) == 0
    assert b"2/3" in screen
    assert "━".encode() in screen
    assert b"3 tasks: 3 completed" in screen.splitlines()[-1]


# --- list, show ---


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """Return a workspace with one completed, one failed and one queued agent, closed."""
    with SubAgentManager.open(tmp_path) as manager:
        root = manager.spawn("first line\nsecond line", name="root", metadata={"k": [1]})
        manager.update_from_result("root", AgentResult("one\ntwo\n"))
        manager.spawn(NASTY, name=NASTY, parent_id=root.agent_id, queued=True)
        bad = manager.spawn("work")
        manager.update_failed(bad.agent_id, f"why\n{NASTY}")
    return tmp_path


def test_list_as_text_is_a_line_for_each_agent(fleet: Path) -> None:
    """The list has an escaped line for each agent, oldest first, archived ones too."""
    code, out, messages = subagents("list", cwd=fleet)
    assert (code, messages) == (0, "")
    head, *lines = out.splitlines()
    assert head.split()[:2] == ["AGENT", "STATUS"]
    assert [line.split()[1] for line in lines] == ["completed", "queued", "failed"]
    assert "first line" in lines[0]
    assert "a\\x1b[31m\\rb\\x9b\\u202e\\x07" in lines[1]
    assert_harmless(out)


def test_list_as_json_has_the_fields_of_agent(fleet: Path) -> None:
    """The keys are the fields of Agent; `json` is one array, and `jsonl` one object a line."""
    code, out, _ = subagents("list", "-o", "json", cwd=fleet)
    agents = json.loads(out)
    assert code == 0
    assert [agent["status"] for agent in agents] == ["completed", "queued", "failed"]
    assert all(agent.keys() == KEYS and agent["schema_version"] == 1 for agent in agents)
    assert agents[1]["name"] == NASTY
    assert_harmless(out)
    code, out, _ = subagents("list", "-o", "jsonl", "--status", "failed", cwd=fleet)
    assert (code, [json.loads(line) for line in out.splitlines()]) == (0, agents[2:])
    code, out, _ = subagents("list", "-o", "json", "--status", "cancelled", cwd=fleet)
    assert (code, json.loads(out)) == (1, [])
    code, out, messages = subagents("list", "--status", "cancelled", cwd=fleet)
    assert (code, out) == (1, "")
    assert messages == "subagents: no cancelled sub-agents found\n"


def test_show_prints_all_fields(fleet: Path) -> None:
    """An agent is shown by name or id, with all its fields."""
    code, out, messages = subagents("show", "root", cwd=fleet)
    assert (code, messages) == (0, "")
    assert "result:\n  one\n  two\n" in out
    assert "prompt:\n  first line\n  second line\n" in out
    assert "status: completed\n" in out
    assert 'metadata: {"k": [1]}\n' in out
    code, as_json, _ = subagents("show", "root", "-o", "json", cwd=fleet)
    agent = json.loads(as_json)
    assert (code, agent.keys(), agent["result"]) == (0, KEYS, "one\ntwo\n")
    assert subagents("show", agent["agent_id"], cwd=fleet)[1] == out
    _, out, _ = subagents("show", NASTY, cwd=fleet)
    assert "prompt: a\\x1b[31m" in out
    assert_harmless(out)


def test_show_of_an_unknown_or_ambiguous_name_gives_exit_code_1(fleet: Path) -> None:
    """An unknown name, or a name of several ended agents, gives exit code 1."""
    assert subagents("show", "nobody\x1b", cwd=fleet)[0] == 1
    assert subagents("show", "\udcff", cwd=fleet)[0] == 1  # a byte that is not UTF-8
    with SubAgentManager.open(fleet) as manager:
        manager.spawn("again", name="root")
        manager.update_from_result("root", AgentResult(None))
    code, out, messages = subagents("show", "root", cwd=fleet)
    assert (code, out) == (1, "")
    assert "use an id" in messages
    assert_harmless(messages)


def test_list_and_show_need_no_lock(tmp_path: Path) -> None:
    """A fleet is shown while its manager is open elsewhere; running agents are shown as running."""
    with SubAgentManager.open(tmp_path) as manager:
        agent = manager.spawn("work", name="a")
        manager.compact()  # a checkpoint proves to a reader what is durable
        _, out, _ = subagents("list", "-o", "json", cwd=tmp_path)
        assert [a["status"] for a in json.loads(out)] == ["running"]
        assert json.loads(out)[0]["agent_id"] == agent.agent_id
        assert subagents("show", "a", cwd=tmp_path)[0] == 0
    _, out, _ = subagents("show", "a", cwd=tmp_path)
    assert "status: interrupted\n" in out
    assert "reason: process restarted\n" in out


def test_list_needs_only_search_permission_on_the_workspace(
    fleet: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command, like the library, needs no read permission on directories above the state."""
    monkeypatch.setattr(os, "access", lambda path, mode, **_: not mode & os.R_OK)
    code = cli_module.run_cli(["list", "--workspace", str(fleet)])
    assert (code, capsys.readouterr().err) == (0, "")


def test_output_in_another_encoding_is_escaped(fleet: Path) -> None:
    """Characters that the locale can't show are escaped, and are no error."""
    with SubAgentManager.open(fleet) as manager:
        manager.spawn("größe 🐈", queued=True)
    env = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    child = subprocess.run(
        [sys.executable, "-P", "-m", "manager", "list"],
        cwd=fleet,
        env=os.environ | env,
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    assert child.returncode == 0
    assert "größe \\U0001f408".encode("latin-1") in child.stdout


def test_a_closed_pipe_is_quiet(fleet: Path) -> None:
    """A closed pipe ends the command without a message, with exit code 141."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    child = subprocess.run(
        [sys.executable, "-P", "-m", "manager", "list", "-o", "json"],
        cwd=fleet,
        stdout=write_end,
        stderr=subprocess.PIPE,
        timeout=TIMEOUT_S,
    )
    os.close(write_end)
    assert (child.returncode, child.stderr) == (141, b"")


# --- exit codes ---


@pytest.mark.parametrize(
    "args",
    [
        ["--no-such-option"],
        ["no-such-verb"],
        ["run", "no-such-file"],
        ["run", "."],
        ["run", "-", "--jobs", "0"],
        ["run", "-", "--timeout-s", "0"],
        ["run", "-", "--timeout-s", "nan"],
        ["run", "-", "--timeout-s", "inf"],
        ["run", "-", "--workspace", "no-such-dir"],
        ["list", "--status", "done"],
        ["list", "-o", "xml"],
        ["show"],
    ],
)
def test_wrong_usage_gives_exit_code_2(tmp_path: Path, args: list[str]) -> None:
    """Wrong usage gives exit code 2 with a message, and creates nothing."""
    code, out, messages = subagents(*args, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "Error: " in messages
    assert os.listdir(tmp_path) == []


def damage(workspace: Path) -> None:
    """Flip a bit of the first record, which later frames prove to have been durable."""
    with SubAgentManager.open(workspace) as manager:
        manager.wait_durable(manager.spawn("one", queued=True).lsn)
        manager.wait_durable(manager.spawn("two", queued=True).lsn)
    (segment,) = (workspace / ".subagents").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[64 + 44 + 3] ^= 1
    segment.write_bytes(data)


def put_other_files(workspace: Path) -> None:
    (workspace / ".subagents").mkdir(mode=0o700)
    (workspace / ".subagents" / "file").touch()


def put_symlink(workspace: Path) -> None:
    (workspace / ".subagents").symlink_to("elsewhere")


@pytest.mark.parametrize("args", [["run"], ["list"], ["show", "a"]])
@pytest.mark.parametrize(
    ("prepare", "code"),
    [(damage, 3), (put_other_files, 4), (put_symlink, 4), (lambda path: None, 4)],
)
def test_a_state_that_cannot_be_opened_gives_exit_code_3_or_4(
    tmp_path: Path, args: list[str], prepare: Callable[[Path], None], code: int
) -> None:
    """Damage gives exit code 3, other errors 4, in one line with the path; nothing is changed."""
    prepare(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    exit_code, out, messages = subagents(*args, cwd=tmp_path)
    assert (exit_code, out) == (code, "")
    assert ".subagents" in messages
    assert len(messages.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_run_needs_the_lock(tmp_path: Path) -> None:
    """A locked state gives exit code 5, and the message names the process that has the lock."""
    with SubAgentManager.open(tmp_path):
        code, _, messages = subagents("run", "-", cwd=tmp_path, stdin="touch ran\n")
    assert code == 5
    assert f"locked by process {os.getpid()}" in messages
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_a_missing_extra_is_named(tmp_path: Path, missing: str) -> None:
    """Without the extra, the console script prints one line that says what to install, and exits as
    journal-inspect does."""
    code = f"import sys; sys.modules[{missing!r}] = None; from manager.__main__ import main; main()"
    child = subprocess.run(
        [sys.executable, "-P", "-c", code, "list"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert child.returncode == 4
    assert child.stderr.splitlines() == [
        f"subagents: needs {missing}, which is not installed; install it with: "
        "python -m pip install 'journal-engine[cli]'"
    ]


def test_help_states_the_guarantees(tmp_path: Path) -> None:
    """The help defines when two lines are the same task, and how often a command runs."""
    code, out, _ = subagents("run", "--help", cwd=tmp_path)
    words = " ".join(out.split())
    assert code == 0
    for phrase in ("completes exactly once", "at least once", "same name", "--retry-failed"):
        assert phrase in words
    assert subagents("-h", cwd=tmp_path)[0] == 0
    assert __version__ in subagents("--version", cwd=tmp_path)[1]
