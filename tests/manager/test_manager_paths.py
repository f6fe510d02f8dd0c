"""The place of a manager's journal: inside the workspace, with no symlink on the way (P9)."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journal import DurableState, UnsafePathError
from manager import SubAgentManager
from manager.fleet import Fleet


@pytest.mark.parametrize("bad", ["../out", "a/../../out", "a/..", "..", ".", ""])
def test_a_state_dir_outside_the_workspace_is_refused(tmp_path: Path, bad: str) -> None:
    """P9: A path outside the workspace is refused, like the workspace itself, before any write."""
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    with pytest.raises(UnsafePathError):
        SubAgentManager.open(workspace, state_dir=bad)
    with pytest.raises(UnsafePathError):
        SubAgentManager.open(workspace, state_dir=tmp_path / "out")
    assert list(tmp_path.iterdir()) == [workspace]
    assert list(workspace.iterdir()) == []


def test_a_removed_working_directory_is_no_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the working directory is gone, the error of a relative workspace says so."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(FileNotFoundError, match="working directory was removed") as caught:
        SubAgentManager.open(".")
    assert caught.value.filename == "."


def test_the_directory_of_the_state_is_no_workspace(tmp_path: Path) -> None:
    """A manager's own directory is no workspace: a second, empty fleet would begin in it."""
    SubAgentManager.open(tmp_path).close()
    state_dir = tmp_path / ".subagents"
    with pytest.raises(UnsafePathError, match="subagents: is the directory of a journal; give the"):
        SubAgentManager.open(state_dir)
    assert not (state_dir / ".subagents").exists()


def test_a_workspace_may_have_files_whose_names_end_like_those_of_segments(tmp_path: Path) -> None:
    """Other programs name their files `.seg`, too."""
    (tmp_path / "1-1.seg").touch()
    SubAgentManager.open(tmp_path).close()


@pytest.mark.parametrize("link", ["link", "a/link", "a/b/link"])
@pytest.mark.parametrize("below", ["", "/state"])
@pytest.mark.parametrize("inside", [True, False])
def test_no_symlink_below_the_workspace_is_followed(
    tmp_path: Path, link: str, below: str, inside: bool
) -> None:
    """P9: A symlink as any component is refused, and nothing is created at its target."""
    workspace = tmp_path / "workspace"
    target = (workspace if inside else tmp_path) / "target"
    (workspace / link).parent.mkdir(parents=True)
    target.mkdir()
    (workspace / link).symlink_to(target)
    with pytest.raises(UnsafePathError, match="link"):
        SubAgentManager.open(workspace, state_dir=link + below)
    assert list(target.iterdir()) == []


def test_a_component_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A component that is not a directory is named."""
    (tmp_path / "file").touch()
    with pytest.raises(UnsafePathError, match=str(tmp_path / "file")):
        SubAgentManager.open(tmp_path, state_dir="file/state")


def test_the_workspace_may_be_below_a_symlink(tmp_path: Path) -> None:
    """The workspace is resolved once, and directories below it are created for the owner alone."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with SubAgentManager.open(tmp_path / "link", state_dir=Path("a/b/c")) as manager:
        assert manager.path == str(tmp_path / "real/a/b/c")
    for folder in ("a", "a/b", "a/b/c"):
        assert (tmp_path / "real" / folder).stat().st_mode & 0o777 == 0o700
    with SubAgentManager.open(tmp_path / "real", state_dir="a/b/c"):
        pass


def test_a_journal_without_records_is_no_workspace(tmp_path: Path) -> None:
    """The directory of a journal is refused as a workspace, also before its first record."""
    SubAgentManager.open(tmp_path).close()
    for segment in (tmp_path / ".subagents").glob("*.seg"):
        segment.unlink()  # a writer that was killed during its open has made none yet
    with pytest.raises(UnsafePathError, match="is the directory of a journal"):
        SubAgentManager.open(tmp_path / ".subagents")


def test_a_workspace_must_exist(tmp_path: Path) -> None:
    """A mistyped workspace is an error, not a new directory."""
    with pytest.raises(FileNotFoundError):
        SubAgentManager.open(tmp_path / "missing")
    assert list(tmp_path.iterdir()) == []


def _replace_by_a_link(workspace: Path, outside: Path) -> None:
    (workspace / "a").rename(workspace / "moved")
    (workspace / "a").symlink_to(outside)


def _replace_by_another_directory(workspace: Path, outside: Path) -> None:
    (workspace / "a").rename(workspace / "moved")
    outside.rename(workspace / "a")


@pytest.mark.parametrize("swap", [_replace_by_a_link, _replace_by_another_directory])
def test_a_component_replaced_during_open_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path, Path], None]
) -> None:
    """P9: A directory replaced between its check and the opening of the journal is refused.

    The journal that was opened is closed again.
    """
    workspace, outside = tmp_path / "workspace", tmp_path / "outside"
    for folder in (workspace / "a/state", outside / "state"):
        folder.mkdir(parents=True)
    open_state = DurableState.open

    def swap_and_open(*args: Any, **options: Any) -> DurableState[Any]:
        swap(workspace, outside)
        return open_state(*args, **options)

    monkeypatch.setattr(DurableState, "open", swap_and_open)
    with pytest.raises(UnsafePathError, match="replaced"):
        SubAgentManager.open(workspace, state_dir="a/state")
    monkeypatch.undo()
    with DurableState.open(workspace / "a/state", Fleet()) as state:
        assert state.journal.last_lsn == 0


def test_new_directories_are_synced_in_their_parents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: A power cut removes no directory on the way to a journal, new or found there."""
    synced: list[int] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    (tmp_path / "a").mkdir()
    with SubAgentManager.open(tmp_path, state_dir="a/b/c"):
        for parent in (tmp_path, tmp_path / "a", tmp_path / "a/b"):
            assert parent.stat().st_ino in synced
