"""journal-inspect's exit codes: each row of the table, and no traceback for a user."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from journal_inspect.exits import explain

from journal import (
    ClosedError,
    CorruptionError,
    DamageReason,
    FailedError,
    LockedError,
    RecordError,
)
from manager import AmbiguousNameError, SubAgentManager
from tests.inspect.inspect_support import (
    ARGS,
    DIFFER,
    TABLE_VERBS,
    VERBS,
    Answer,
    ask,
    ask_child,
    check_refused,
    checkpoints,
    child_main,
    compact,
    damage_all_frames,
    flip,
    golden,
    make,
    open_journal,
    put,
    segments,
    set_version,
    tear,
)

Ask = Callable[..., Answer]
READ = ["info", "verify", "log", "stats", "agents", "show", "history", "diff"]
CHECKED = ["info", "checkpoint"]


# In the quick part, only one test of each code starts child processes.
IN_A_CHILD = pytest.mark.parametrize(
    "inspect", [ask, ask_child], ids=["inside", "child"], indirect=True
)


@pytest.fixture(
    params=[ask, pytest.param(ask_child, marks=pytest.mark.slow)],
    ids=["inside", "child"],
    name="inspect",
)
def _inspect(request: pytest.FixtureRequest) -> Ask:
    """Run commands in this process and in a child process."""
    return request.param  # type: ignore[no-any-return]


def verbs_of(inspect: Ask, *but: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return the commands except `but`, with their arguments; only some of them for children."""
    verbs = [verb for verb in VERBS if verb not in but]
    return [(verb, ARGS.get(verb, ())) for verb in (verbs if inspect is ask else verbs[::4])]


def fleet(workspace: Path) -> Path:
    """Make a manager's journal with a checkpoint, one agent in it and one after it."""
    with SubAgentManager.open(workspace) as manager:
        manager.spawn("in the checkpoint", name="lead")
        manager.compact()
        manager.spawn("after it")
        return Path(manager.path)


# --- 0 and 1 ---


@IN_A_CHILD
def test_0_success(tmp_path: Path, inspect: Ask) -> None:
    """A command that finds what it was asked for exits with 0."""
    path = fleet(tmp_path)
    for verb, args in verbs_of(inspect, *DIFFER):
        answer = inspect(verb, path, *args)
        assert answer.code == 0, verb
        assert answer.out
    assert inspect("diff", path, 3, 3).code == 0


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["log"], "no entry matches"),
        (["log", "--from-lsn", "5"], "no entry matches"),
        (["checkpoint"], "the journal has no checkpoint yet"),
        (["checkpoint", "--lsn", "3"], "the journal has no checkpoint yet"),
        (["agents"], "no agents"),
        (["agents", "--at", "1"], "the log ends at LSN 0, before LSN 1"),
        (["stats"], "no record matches"),
        (["show", "nobody"], "no agent 'nobody'"),
        (["history", "nobody"], "no agent 'nobody'"),
        (["log", "--frames"], "no frame matches"),
    ],
)
def test_1_nothing_found(tmp_path: Path, inspect: Ask, args: list[str], words: str) -> None:
    """A negative answer exits with 1, like that of grep."""
    verb, *options = args
    path = make(tmp_path / "j", [], application="")
    check_refused(inspect(verb, path, *options), 1, words)


def test_1_no_longer_kept(tmp_path: Path, inspect: Ask) -> None:
    """An LSN that compaction removed is not found."""
    check_refused(
        inspect("log", golden(tmp_path / "j"), "--from-lsn", 1),
        1,
        "the first LSN that is kept is 9",
    )


def test_1_a_torn_tail(tmp_path: Path, inspect: Ask) -> None:
    """`verify` of a torn tail exits with 1; other commands show what an open would keep."""
    path = fleet(tmp_path)
    tear(path)
    assert inspect("verify", path).code == 1
    assert inspect("log", path).code == inspect("info", path).code == 0
    assert inspect("agents", path).code == inspect("checkpoint", path).code == 0


def test_1_a_bad_checkpoint(tmp_path: Path, inspect: Ask) -> None:
    """`verify` of a damaged checkpoint exits with 1; an open does without that checkpoint."""
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
        ["checkpoint", "PATH", "--at", "1"],
        ["checkpoint", "PATH", "--write", "-", "--lsn", "1"],
        ["log", "PATH", "--until-match", "x"],
        ["log", "PATH", "--timeout-s", "1"],
        ["log", "PATH", "-f", "--timeout-s", "0"],
        ["log", "PATH", "-f", "--timeout-s", "nan"],
        ["log", "PATH", "-f", "--timeout-s", "inf"],
        ["follow", "file:///missing", "PATH", "--timeout-s", "nan"],
        ["follow", "file:///missing", "PATH", "--timeout-s", "inf"],
        ["log", "PATH", "--frames", "-r"],
        ["log", "PATH", "--frames", "-a", "x"],
        ["log", "PATH", "-g", "("],
        ["log", "PATH", "-S", "yesterday"],
        ["log", "PATH", "-S", f"-{'9' * 400}d"],
        ["log", "PATH", "--decoder", "json"],
        ["log", "PATH", "--decoder", "json:nothing"],
        ["log", "PATH", "--decoder", "no_such_module:f"],
        ["stats", "PATH", "--from-lsn", "7", "--to-lsn", "6"],
        ["agents", "PATH", "--at", "-1"],
        ["agents", "PATH", "--at", "soon"],
        ["agents", "PATH", "-s", "dead"],
        ["agents", "PATH", "--tree", "-o", "json"],
        ["show", "PATH"],
        ["history", "PATH"],
        ["diff", "PATH", "1"],
        ["diff", "PATH", "1", "x"],
        ["backup", "PATH"],
        ["repair", "PATH", "--cut-at", "-1"],
        ["repair", "PATH", "--cut-at", "99"],
        ["report", "PATH"],
        ["completion", "powershell"],
        ["schema", "report"],
    ],
)
def test_2_usage(tmp_path: Path, args: list[str]) -> None:
    """A wrong call prints its usage to stderr, whatever the path is."""
    path = make(tmp_path / "j")
    answer = ask(*[str(path) if arg == "PATH" else arg for arg in args])
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: ")


# --- 3 ---


@IN_A_CHILD
def test_1_differs(tmp_path: Path, inspect: Ask) -> None:
    """`diff` of two moments that differ exits with 1, like diff."""
    assert inspect("diff", fleet(tmp_path), 1, 3).code == 1


@IN_A_CHILD
def test_3_corruption(tmp_path: Path, inspect: Ask) -> None:
    """P4: Every command that reads the log reports corruption."""
    path = fleet(tmp_path)
    damage_all_frames(path)
    for verb, args in verbs_of(inspect, "checkpoint"):
        answer = inspect(verb, path, *args)
        assert answer.code == 3, verb
        assert str(path) in answer.err
        assert "Traceback" not in answer.err


def test_3_a_log_without_its_beginning(tmp_path: Path, inspect: Ask) -> None:
    """P4: A log without its beginning is refused, and no fleet is built from the rest."""
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


def test_4_not_a_journal(tmp_path: Path, inspect: Ask) -> None:
    """A missing path, a file, an empty directory and a foreign one are refused by name."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    commands = verbs_of(inspect) + [(verb, ARGS.get(verb, ())) for verb in TABLE_VERBS]
    refusals = {
        "missing": ": No such file",
        "file": ": Not a directory",
        "empty": ": not a journal",
        "other": ": not a journal",
    }
    for number, (verb, args) in enumerate(commands):
        # A child is slow, so each of them is refused another one.
        names = [*refusals] if inspect is ask else [[*refusals][number % len(refusals)]]
        for name in names:
            path = tmp_path / name
            check_refused(inspect(verb, path, *args), 4, f"{path}{refusals[name]}")


def test_4_a_symlink(tmp_path: Path, inspect: Ask) -> None:
    """P9: A symlink is refused as the path and inside the journal, but may be above the path."""
    path = fleet(tmp_path)
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "above").symlink_to(path.parent)
    for verb, args in verbs_of(inspect):
        link = tmp_path / "link"
        check_refused(inspect(verb, link, *args), 4, f"{link}: is a symlink")
        assert inspect(verb, tmp_path / "above" / path.name, *args).code == (verb in DIFFER)
    for file, verbs in ((segments(path)[-1], READ), (checkpoints(path)[-1], CHECKED)):
        file.rename(tmp_path / file.name)
        file.symlink_to(tmp_path / file.name)
        for verb, args in verbs_of(inspect, *set(VERBS).difference(verbs)):
            answer = inspect(verb, path, *args)
            assert answer.code == 4
            assert f"{file}: is not a regular file" in answer.err
        (tmp_path / file.name).replace(file)


@IN_A_CHILD
def test_4_a_newer_version(tmp_path: Path, inspect: Ask) -> None:
    """A newer format is refused with advice, and not guessed at."""
    path = fleet(tmp_path)
    set_version(segments(path)[-1], version=2)
    for verb, args in verbs_of(inspect, "checkpoint"):
        answer = inspect(verb, path, *args)
        check_refused(answer, 4, "format version 2 is newer than 1", "newer journal-engine")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("verb", VERBS + TABLE_VERBS)
def test_4_no_permission(tmp_path: Path, inspect: Ask, verb: str) -> None:
    """A path without read permission is named."""
    path = fleet(tmp_path)
    path.chmod(0)
    try:
        check_refused(inspect(verb, path, *ARGS.get(verb, ())), 4, f"{path}: Permission denied")
    finally:
        path.chmod(0o700)


def test_only_the_open_checks_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the open checks permissions, so that their lack is never reported as wrong usage."""
    path = fleet(tmp_path)
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    for verb, args in verbs_of(ask, *DIFFER):
        assert ask(verb, path, *args).code == 0


def test_4_no_fleet(tmp_path: Path, inspect: Ask) -> None:
    """Another program's journal is refused by the commands that show agents."""
    path = make(tmp_path / "j", [["spawn"]])
    for verb in ("agents", "show", "history", "diff"):
        check_refused(
            inspect(verb, path, *ARGS.get(verb, ())[:1] * (1 + (verb == "diff"))), 4, str(path)
        )


def test_4_a_defect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected exception gives one escaped line with its place, even before a command runs."""

    def show_info(*_: object) -> int:
        raise RuntimeError("of a kind\x1b\nnobody thought of")

    monkeypatch.setattr("journal_inspect.commands.info.show_info", show_info)
    answer = ask("info", make(tmp_path / "j"))
    message = "RuntimeError: of a kind\\u001b\\nnobody thought of"
    check_refused(answer, 4, message, "please report", f"in {__name__}, line ")
    check_refused(child_main("m.missing_extra = lambda: 1 / 0"), 4, "ZeroDivisionError")


# --- 5 ---


@IN_A_CHILD
def test_5_locked(tmp_path: Path, inspect: Ask) -> None:
    """A command that needs the lock of a live writer exits with 5 and names the writer."""
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1)
        answer = inspect("repair", tmp_path / "j")
        check_refused(answer, 5, f"locked by process {os.getpid()}; stop it first")


def test_every_error_has_its_code() -> None:
    """Errors of the engine, the manager and the system each have their exit code."""
    code, message = explain(LockedError("/j", 7))
    assert (code, message.partition("; ")[0]) == (5, "/j: locked by process 7")
    assert message.endswith("or use journal-inspect log and verify, which need no lock")
    for error in (FailedError("failed"), ClosedError("closed"), RecordError("record")):
        assert explain(error) == (4, str(error))
    overtaken = CorruptionError("/j", 0, 0, "overtaken", reason=DamageReason.OVERTAKEN)
    assert explain(overtaken) == (3, "/j: overtaken; nothing is damaged; try again")
    assert explain(AmbiguousNameError("two")) == (1, "two")
    code, message = explain(OSError(5, "Input/output error", "/j/x.seg"))
    assert code == 4
    assert message.startswith("/j/x.seg: Input/output error; ")


# --- 124 ---


@IN_A_CHILD
def test_124_timed_out(tmp_path: Path, inspect: Ask) -> None:
    """A timeout shows what came until then, and says how long it waited."""
    path = make(tmp_path / "j")
    answer = inspect("log", path, "-f", "--timeout-s", 0.05, "--until-match", "never")
    assert (answer.code, len(answer.lines)) == (124, 3)
    assert answer.err == (
        f"journal-inspect: {path}: timed out after 0.05 s: no entry matched, and no writer is "
        "running; wait longer with --timeout-s\n"
    )
    message = inspect("log", path, "-f", "--timeout-s", 0.05).err
    assert "s: no entry was added, and no writer is running; wait" in message
    with open_journal(path):
        assert (
            "s: the writer is still running; wait"
            in inspect("log", path, "-f", "--timeout-s", 0.05).err
        )
