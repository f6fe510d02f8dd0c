"""The `subagents` command: its output, its messages, and every exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from journal import __version__
from manager import AgentResult, SubAgentManager
from manager._cli import cli as cli_module
from tests.manager.cli_support import KEYS, NASTY, TIMEOUT_S, assert_harmless, subagents
from tests.tiers import slow_but_every, slow_unless

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
    assert "first line\\nsecond line" in lines[0]
    assert "why\\na\\u001b" in lines[2]
    assert "a\\u001b[31m\\rb\\u009b\\u202e\\u0007" in lines[1]
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
    assert "prompt: a\\u001b[31m" in out
    assert_harmless(out)


def test_show_of_an_unknown_name_gives_exit_code_1(fleet: Path) -> None:
    """An unknown name gives exit code 1."""
    code, out, messages = subagents("show", "nobody\x1b", cwd=fleet)
    assert (code, out) == (1, "")
    assert_harmless(messages)
    assert subagents("show", "\udcff", cwd=fleet)[0] == 1  # a byte that is not UTF-8


def test_the_beginning_of_an_id_means_its_agent(fleet: Path) -> None:
    """`show` takes the beginning of an id, and names the ids if several begin so."""
    agents = json.loads(subagents("list", "-o", "json", cwd=fleet)[1])
    agent_id = agents[0]["agent_id"]
    assert subagents("show", agent_id[:-1], cwd=fleet) == subagents("show", agent_id, cwd=fleet)
    code, out, messages = subagents("show", "agent_", cwd=fleet)
    assert (code, out) == (1, "")
    assert f"{len(agents)} ids begin with 'agent_': " in messages


def test_a_name_means_the_newest_attempt(fleet: Path) -> None:
    """A name that several agents had means the newest of them."""
    with SubAgentManager.open(fleet) as manager:
        again = manager.spawn("again", name="root")
        manager.update_from_result("root", AgentResult(None))
    code, out, _ = subagents("show", "root", "-o", "json", cwd=fleet)
    assert (code, json.loads(out)["agent_id"], json.loads(out)["attempt"]) == (0, again.agent_id, 2)


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
    slow_but_every(
        4,
        [
            ["--no-such-option"],
            ["no-such-verb"],
            ["run", "no-such-file"],
            ["run", "."],
            ["run", "-", "--jobs", "0"],
            ["run", "-", "--jobs", "99999999999999999999"],
            ["run", "-", "--timeout-s", "0"],
            ["run", "-", "--timeout-s", "nan"],
            ["run", "-", "--timeout-s", "inf"],
            ["run", "-", "--workspace", "no-such-dir"],
            ["list", "--status", "done"],
            ["list", "-o", "xml"],
            ["show"],
        ],
    ),
)
def test_wrong_usage_gives_exit_code_2(tmp_path: Path, args: list[str]) -> None:
    """Wrong usage gives exit code 2 with a message, and creates nothing."""
    code, out, messages = subagents(*args, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "Error: " in messages
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "args", [["cancel", "\udcff"], ["cancel", "a", "--reason", "\udcff"], ["answer", "a", "\udcff"]]
)
def test_a_value_that_no_manager_takes_is_refused(tmp_path: Path, args: list[str]) -> None:
    """A change that this process makes is refused with a message, as another process would do."""
    with SubAgentManager.open(tmp_path) as manager:
        manager.spawn("work", name="a", queued=True)
    code, out, messages = subagents(*args, cwd=tmp_path)
    assert (code, out) == (1, "")
    assert "has half a surrogate pair" in messages


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


@pytest.mark.parametrize(
    "args", slow_unless(lambda args: args != ["show", "a"], [["run"], ["list"], ["show", "a"]])
)
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


@pytest.mark.parametrize("missing", ["click", "rich", "msgpack", "crc32c"])
def test_a_missing_package_is_named(tmp_path: Path, missing: str) -> None:
    """Without a package, the console script prints one line that says what to install, and exits as
    journal-inspect does."""
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from _journal_console.start import subagents; subagents()"
    )
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
