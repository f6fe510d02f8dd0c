"""journal-inspect's exit codes: each row of the table, and that no traceback reaches a user."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
from tests.independent_reader import crc32c
from tests.inspect.inspect_support import (
    ARGS,
    DIFFER,
    VERBS,
    Answer,
    ask,
    ask_child,
    checkpoints,
    child_main,
    compact,
    flip,
    golden,
    make,
    open_journal,
    put,
    segments,
    tear,
)

Ask = Callable[..., Answer]
READ = ["info", "verify", "log", "stats", "agents", "show", "history", "diff"]
CHECKED = ["info", "checkpoint"]


@pytest.fixture(params=[ask, ask_child], ids=["inside", "child"], name="inspect")
def _inspect(request: pytest.FixtureRequest) -> Ask:
    """Both ways to ask: what a user's shell sees, and what a debugger could."""
    return request.param  # type: ignore[no-any-return]


def verbs_of(inspect: Ask, *but: str) -> list[tuple[str, tuple[str, ...]]]:
    """Each verb but those with what it wants behind the path; of children, which take time, few."""
    verbs = [verb for verb in VERBS if verb not in but]
    return [(verb, ARGS.get(verb, ())) for verb in (verbs if inspect is ask else verbs[::4])]


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
        manager.spawn("in the checkpoint", name="lead")
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


def test_0_fine(tmp_path: Path, inspect: Ask) -> None:
    """What was asked for is there and whole."""
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
        (["show", "nobody"], "no agent has the id or name 'nobody'"),
        (["history", "nobody"], "no agent has the id or name 'nobody'"),
        (["log", "--frames"], "no frame matches"),
    ],
)
def test_1_nothing_found(tmp_path: Path, inspect: Ask, args: list[str], words: str) -> None:
    """A negative answer, as grep gives one."""
    verb, *options = args
    refuses(inspect(verb, make(tmp_path / "j", []), *options), 1, words)


def test_1_no_longer_kept(tmp_path: Path, inspect: Ask) -> None:
    """What compaction dropped is not found either."""
    refuses(
        inspect("log", golden(tmp_path / "j"), "--from-lsn", 1),
        1,
        "the first LSN that is kept is 9",
    )


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
        ["checkpoint", "PATH", "--at", "1"],
        ["checkpoint", "PATH", "--write", "-", "--lsn", "1"],
        ["log", "PATH", "--until-match", "x"],
        ["log", "PATH", "--timeout-s", "1"],
        ["log", "PATH", "-f", "--timeout-s", "0"],
        ["log", "PATH", "--frames", "-r"],
        ["log", "PATH", "--frames", "-a", "x"],
        ["log", "PATH", "-g", "("],
        ["log", "PATH", "-S", "yesterday"],
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
        ["repair", "PATH", "--cut-at", "0"],
        ["repair", "PATH", "--cut-at", "99"],
        ["report", "PATH"],
        ["completion", "powershell"],
        ["schema", "report"],
    ],
)
def test_2_usage(tmp_path: Path, args: list[str]) -> None:
    """A call that means nothing: usage on stderr, whatever stands at the path."""
    path = make(tmp_path / "j")
    answer = ask(*[str(path) if arg == "PATH" else arg for arg in args])
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: ")


# --- 3 ---


def test_1_differs(tmp_path: Path, inspect: Ask) -> None:
    """Of two moments that are not the same `diff` says so, as diff does."""
    assert inspect("diff", fleet(tmp_path), 1, 3).code == 1


def test_3_corruption(tmp_path: Path, inspect: Ask) -> None:
    """P4: every verb that reads the log says so; nothing on disk has changed."""
    path = fleet(tmp_path)
    flip(segments(path)[-1], 64 + 44)
    for verb, args in verbs_of(inspect, "checkpoint"):
        answer = inspect(verb, path, *args)
        assert answer.code == 3, verb
        assert str(path) in answer.err
        assert "Traceback" not in answer.err


def test_3_the_beginning_is_missing(tmp_path: Path, inspect: Ask) -> None:
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


def test_4_no_journal(tmp_path: Path, inspect: Ask) -> None:
    """Missing, a file, an empty directory, one that holds something else: each is named."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    for verb, args in verbs_of(inspect):
        missing, file = tmp_path / "missing", tmp_path / "file"
        refuses(inspect(verb, missing, *args), 4, f"{missing}: No such file")
        refuses(inspect(verb, file, *args), 4, f"{file}: Not a directory")
        for name in ("empty", "other"):
            refuses(inspect(verb, tmp_path / name, *args), 4, f"{tmp_path}/{name}: not a journal")


def test_4_a_symlink(tmp_path: Path, inspect: Ask) -> None:
    """P9: a link is not followed, as the path or in the journal; above the path it may be."""
    path = fleet(tmp_path)
    (tmp_path / "link").symlink_to(path)
    (tmp_path / "above").symlink_to(path.parent)
    for verb, args in verbs_of(inspect):
        link = tmp_path / "link"
        refuses(inspect(verb, link, *args), 4, f"{link}: is a symlink")
        assert inspect(verb, tmp_path / "above" / path.name, *args).code == (verb in DIFFER)
    for file, verbs in ((segments(path)[-1], READ), (checkpoints(path)[-1], CHECKED)):
        file.rename(tmp_path / file.name)
        file.symlink_to(tmp_path / file.name)
        for verb, args in verbs_of(inspect, *set(VERBS).difference(verbs)):
            answer = inspect(verb, path, *args)
            assert answer.code == 4
            assert f"{file}: is not a regular file" in answer.err
        (tmp_path / file.name).replace(file)


def test_4_a_newer_version(tmp_path: Path, inspect: Ask) -> None:
    """What a newer version wrote is not guessed at; the message says what to do."""
    path = fleet(tmp_path)
    seal(segments(path)[-1], version=2)
    for verb, args in verbs_of(inspect, "checkpoint"):
        answer = inspect(verb, path, *args)
        refuses(answer, 4, "format version 2 is newer than 1", "newer journal-engine")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("verb", VERBS)
def test_4_no_permission(tmp_path: Path, inspect: Ask, verb: str) -> None:
    """What may not be read is named."""
    path = fleet(tmp_path)
    path.chmod(0)
    try:
        refuses(inspect(verb, path, *ARGS.get(verb, ())), 4, f"{path}: Permission denied")
    finally:
        path.chmod(0o700)


def test_4_is_for_the_journal_to_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Permissions are asked of nobody but the open itself, so that they are never `usage`."""
    path = fleet(tmp_path)
    monkeypatch.setattr("os.access", lambda *_, **__: False)
    for verb, args in verbs_of(ask, *DIFFER):
        assert ask(verb, path, *args).code == 0


def test_4_no_fleet(tmp_path: Path, inspect: Ask) -> None:
    """Another program's journal has no agents to show."""
    path = make(tmp_path / "j", [["spawn"]])
    for verb in ("agents", "show", "history", "diff"):
        refuses(inspect(verb, path, *ARGS.get(verb, ())[:1] * (1 + (verb == "diff"))), 4, str(path))


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_4_without_the_extra(missing: str) -> None:
    """A script that was installed without its extra says which one to install."""
    refuses(
        child_main(f"sys.modules[{missing!r}] = None"),
        4,
        f"needs {missing}",
        "pip install 'journal-engine[cli]'",
    )


def test_4_a_defect_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody thought of is one line, escaped, that says where; before there is a command
    line too."""

    def show_info(*_: object) -> int:
        raise RuntimeError("of a kind\x1b\nnobody thought of")

    monkeypatch.setattr("journal_inspect.commands.info.show_info", show_info)
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


def test_5_locked(tmp_path: Path, inspect: Ask) -> None:
    """Where the lock is needed and a writer has it: who that is, and what to do."""
    with open_journal(tmp_path / "j") as journal:
        put(journal, 1)
        answer = inspect("repair", tmp_path / "j")
        refuses(answer, 5, f"locked by process {os.getpid()}; stop it first")


def test_every_error_has_its_code() -> None:
    """Of the engine, the manager and the system."""
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


def test_124_timed_out(tmp_path: Path, inspect: Ask) -> None:
    """What was waited for did not come: what there was is shown, and how long it took is said."""
    path = make(tmp_path / "j")
    answer = inspect("log", path, "-f", "--timeout-s", 0.05, "--until-match", "never")
    assert (answer.code, len(answer.lines)) == (124, 3)
    assert answer.err == (
        f"journal-inspect: {path}: timed out after 0.05 s: no entry matched, and no writer is "
        "running; wait longer with --timeout-s\n"
    )
    said = inspect("log", path, "-f", "--timeout-s", 0.05).err
    assert "s: no entry was added, and no writer is running; wait" in said
    with open_journal(path):
        assert (
            "s: the writer is still running; wait"
            in inspect("log", path, "-f", "--timeout-s", 0.05).err
        )
