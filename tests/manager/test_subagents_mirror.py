"""`subagents run --mirror`: a run that another machine continues."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from journal import MirrorError, MirrorReason
from manager import SubAgentManager
from manager._cli.cli import run_cli
from manager._cli.remote_output import connected
from manager.errors import DispatchError
from manager.view import read_fleet
from tests.installed import import_package
from tests.manager.cli_support import subagents
from tests.support import until

LEGACY = """{"schema_version": 1, "agents": [
  {"id": "agent_01234567", "prompt": "p", "status": "Completed"}]}"""


def test_another_machine_continues_a_run(tmp_path: Path) -> None:
    """With the same mirror, a run in an empty workspace has the results of the first one, and runs
    only what is left."""
    url = f"file://{tmp_path}/mirror"
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = (f"echo {name} >> {tmp_path}/log\n" for name in ("first", "second"))
    for place, text in ((one, first), (two, first + second)):
        place.mkdir()
        (place / "tasks.txt").write_text(text)
        code, _, messages = subagents("run", "tasks.txt", "--mirror", url, cwd=place)
        assert code == 0, messages
    assert (tmp_path / "log").read_text() == "first\nsecond\n"
    code, out, _ = subagents("list", "-o", "json", cwd=two)
    assert code == 0
    assert out.count('"completed"') == 2
    shutil.rmtree(one)
    code, _, messages = subagents("run", "--mirror", url, cwd=two)
    assert code == 0, messages


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("--mirror", "ftp://host/x"), 2, "is not the address of a mirror"),
        (("--mirror", "file:///missing/parent/mirror"), 4, "can't be opened"),
        (("--takeover",), 2, "add --mirror URL"),
    ],
)
def test_a_bad_mirror_is_named(
    arguments: tuple[str, ...], code: int, text: str, tmp_path: Path
) -> None:
    """An address that names no mirror is wrong usage, and one that can't be used an error. Nothing
    runs."""
    (tmp_path / "tasks.txt").write_text("touch ran\n")
    result = subagents("run", "tasks.txt", *arguments, cwd=tmp_path)
    assert (result[0], result[1]) == (code, "")
    assert text in result[2]
    assert not (tmp_path / "ran").exists()


def mirrored(tmp_path: Path) -> str:
    """Run a task with a mirror, write a file to import, and return the mirror's address."""
    (tmp_path / "tasks.txt").write_text("true\n")
    (tmp_path / "old.json").write_text(LEGACY)
    url = f"file://{tmp_path}/the mirror"
    assert subagents("run", "tasks.txt", "--mirror", url, cwd=tmp_path)[0] == 0
    return url


@pytest.mark.parametrize("line", ["run tasks.txt", "run", "import old.json"])
def test_a_state_with_a_mirror_asks_for_it(tmp_path: Path, line: str) -> None:
    """Without its mirror, a state that has one is not changed, and the message says how to give
    it on the command line."""
    url = mirrored(tmp_path)
    before = read_fleet(tmp_path / ".subagents").lsn
    code, out, message = subagents(*line.split(), cwd=tmp_path)
    assert (code, out) == (4, "")
    assert message == (
        f"subagents: {url}: the state has this mirror, which every change must reach, too; nothing "
        f"was changed; add --mirror '{url}'\n"
    )
    assert read_fleet(tmp_path / ".subagents").lsn == before
    code, _, message = subagents(*line.split(), "--mirror", url, cwd=tmp_path)
    assert code == 0, message


def test_an_import_reaches_the_mirror(tmp_path: Path) -> None:
    """`import --mirror` copies what it imports, and refuses the same options as `run`."""
    url = mirrored(tmp_path)
    assert subagents("import", "old.json", "--mirror", url, cwd=tmp_path)[0] == 0
    other = tmp_path / "other"
    other.mkdir()
    assert subagents("run", "--mirror", url, cwd=other)[0] == 0
    assert "agent_01234567" in subagents("list", cwd=other)[1]
    for options, text in (
        (("--takeover",), "add --mirror URL"),
        (("--mirror", "ftp://host/x"), "is not the address of a mirror"),
    ):
        code, _, message = subagents("import", "old.json", *options, cwd=tmp_path)
        assert (code, text in message) == (2, True)


@contextmanager
def writer(place: Path, url: str) -> Iterator[int]:
    """Run a task with a mirror until the block ends, and yield the run's process ID."""
    place.mkdir()
    command = [sys.executable, "-P", "-m", "manager", "run", "-", "--mirror", url]
    with subprocess.Popen(
        command, cwd=place, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            assert process.stdin
            process.stdin.write(b"touch begun; exec sleep 60")
            process.stdin.close()
            until(lambda: (place / "begun").exists(), "the command to begin")
            yield process.pid
        finally:
            process.kill()


def test_a_mirror_that_is_held_elsewhere_names_the_option(tmp_path: Path) -> None:
    """If a writer on another machine holds the mirror, the message names that machine and
    --takeover."""
    url = f"file://{tmp_path}/mirror"
    with writer(tmp_path / "one", url) as pid:
        code, _, message = subagents("run", "-", "--mirror", url, cwd=tmp_path, stdin="true\n")
    assert code == 5
    assert f"process {pid} on " in message
    assert message.endswith(
        "holds its mirror; stop that process, or if it is dead, add --takeover\n"
    )


def test_an_output_elsewhere_needs_a_run_with_the_mirror(tmp_path: Path) -> None:
    """A command that opens the state only to ask workers says which run has to be there. Another
    problem of the mirror is raised as it is."""
    import_package("nats")
    mirrored(tmp_path)
    with (
        pytest.raises(DispatchError, match="while subagents run --mirror URL --on URL has the"),
        connected(str(tmp_path), ".subagents", "nats://127.0.0.1:1", None),
    ):
        pass
    (tmp_path / ".subagents" / "MIRROR").write_text("no marker")
    with (
        pytest.raises(MirrorError) as raised,
        connected(str(tmp_path), ".subagents", "nats://127.0.0.1:1", None),
    ):
        pass
    assert raised.value.reason is MirrorReason.DAMAGED


@pytest.mark.parametrize(("missing", "creds"), [("nats", ""), ("nkeys", "--creds tasks.txt")])
@pytest.mark.parametrize("known", [False, True])
def test_a_missing_package_binds_no_state_to_a_mirror(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    known: bool,
    missing: str,
    creds: str,
) -> None:
    """Without a package that --on needs, a run and `output` end before they open the state."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "nkeys":
        monkeypatch.setitem(sys.modules, "nats", ModuleType("nats"))
    Path("tasks.txt").write_text("true\n")
    if known:
        SubAgentManager.open(".").close()
    before = sorted(tmp_path.rglob("*"))
    options = ["--mirror", f"file://{tmp_path}/m", "--joblog", "log"]
    line = ["run", "tasks.txt", "--on", "nats://127.0.0.1:1", *creds.split(), *options]
    assert run_cli(line) == 4
    assert "run: pip install" in capsys.readouterr().err
    with (
        pytest.raises(ImportError, match="run: pip install"),
        connected(str(tmp_path), ".subagents", "nats://127.0.0.1:1", creds or None),
    ):
        pass
    assert sorted(tmp_path.rglob("*")) == before
