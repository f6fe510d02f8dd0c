"""Places where a journal can't be kept: open explains the refusal, and leaves nothing there."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from journal import FailedError, Journal, LockedError, UnsafePathError
from tests.support import logged, put, run


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path.resolve() / "j"


# --- the parent's sync ---


@pytest.mark.skipif(sys.platform != "linux", reason="a Mac syncs by fcntl")
def test_a_failed_sync_of_the_parent_is_a_failed_sync(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: If the parent's sync fails, the directory's name may not survive. Open raises
    FailedError, with the OSError as its cause."""

    def failing(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(FailedError, match=f"{path.parent}: can't be synced") as caught:
        Journal.open(path)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EIO
    monkeypatch.undo()
    with Journal.open(path) as journal:
        put(journal, 1)


def test_a_parent_that_can_not_be_opened_is_no_failed_sync(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent that may not be opened raises PermissionError, and not FailedError."""
    opened = os.open

    def refusing(name: Any, *args: Any, **more: Any) -> int:
        if name == str(path.parent):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
        return opened(name, *args, **more)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(PermissionError) as caught:
        Journal.open(path)
    assert type(caught.value) is PermissionError
    assert caught.value.filename == str(path.parent)


# --- locks ---


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_named(
    path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: The error names the path, says what to do, and has the OSError as its cause."""

    def refusing(fd: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refusing)
    with pytest.raises(UnsafePathError, match=f"{path}: .*has no locks.*local file") as caught:
        Journal.open(path)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == code
    assert os.listdir(path) == []


def test_other_errors_of_the_lock_are_not_translated(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that says nothing about the file system is raised as a plain OSError."""

    def refusing(fd: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refusing)
    with pytest.raises(OSError, match="Input/output error") as caught:
        Journal.open(path)
    assert caught.value.errno == errno.EIO


def test_a_file_system_with_useless_locks_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P10: If `flock` succeeds for a second handle, two writers could destroy each other's records.
    Open refuses the file system, and leaves no handle."""
    descriptors = len(os.listdir("/dev/fd"))
    monkeypatch.setattr(fcntl, "flock", lambda fd, operation: None)
    with pytest.raises(UnsafePathError, match=f"{path}: .*locks.*local file system"):
        Journal.open(path)
    assert os.listdir(path) == []
    assert len(os.listdir("/dev/fd")) == descriptors


def test_a_check_of_the_lock_does_not_free_it(path: Path) -> None:
    """P10: Neither the closing of the second handle nor a failed open frees the lock."""
    with Journal.open(path):
        for _ in range(2):
            with pytest.raises(LockedError):
                Journal.open(path)
    Journal.open(path).close()


# --- subinterpreters ---


INTERPRETER = """
import os, sys
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

def run_in(kind, script):
    script = f"import sys\\nsys.path[:] = {sys.path!r}\\npath = {sys.argv[1]!r}\\n" + script
    if sys.version_info >= (3, 13):
        interpreter = interpreters.create(kind)
        assert interpreters.exec(interpreter, script) is None
    else:
        interpreter = interpreters.create(isolated=kind == "isolated")
        interpreters.run_string(interpreter, script)
    interpreters.destroy(interpreter)
"""
CALLS = {
    "Journal": "from journal import Journal; Journal.open(path)",
    "DurableState": (
        "from types import SimpleNamespace; from journal import DurableState; "
        "nothing = lambda *_: (); "
        "members = dict(application='a/1', load=nothing, apply=nothing, freeze=nothing); "
        "DurableState.open(path, SimpleNamespace(**members))"
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_an_isolated_subinterpreter_is_refused(path: Path, call: str) -> None:
    """An isolated subinterpreter can't run the engine's threads. Open raises JournalError before it
    makes anything, and leaves nothing for the exit."""
    script = (
        f"try:\n    {call}\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    process = run(INTERPRETER + f"run_in('isolated', {script!r})", path)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith("JournalError")
    assert "subinterpreter" in process.stdout
    assert str(path) in process.stdout
    assert not path.exists()


def test_a_legacy_subinterpreter_is_not_refused(path: Path) -> None:
    """A subinterpreter that shares the GIL and may start threads works like the main
    interpreter."""
    script = (
        "from journal import Journal\n"
        "with Journal.open(path) as journal:\n"
        "    journal.wait_durable(journal.append('there'))\n"
    )
    process = run(INTERPRETER + f"run_in('legacy', {script!r})", path)
    assert (process.returncode, process.stderr) == (0, "")
    with Journal.open(path) as journal:
        assert logged(journal) == ["there"]
