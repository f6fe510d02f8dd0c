"""Files that verbs write: complete or not there, and never through somebody else's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from journal_inspect.rendering.output_file import output_file

from tests.inspect.inspect_support import ask, check_refused, fleet, make

PLACES: dict[str, Callable[[Path, Path], object]] = {
    "a symlink": lambda out, other: out.symlink_to(other),
    "a FIFO": lambda out, other: os.mkfifo(out),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_report_is_written_through_nothing_else(tmp_path: Path, place: str) -> None:
    """P9: A report replaces no symlink and no FIFO, and does not write to its target."""
    other, out = tmp_path / "other", tmp_path / "r.html"
    other.write_text("old")
    PLACES[place](out, other)
    before = sorted(os.listdir(tmp_path))
    (tmp_path / "w").mkdir()
    with fleet(tmp_path / "w") as manager:
        answer = ask("report", manager.path, "-o", out)
    assert answer.code == 4
    assert str(out) in answer.err
    assert other.read_text() == "old"
    assert sorted(set(os.listdir(tmp_path)) - {"w"}) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_foreign_file_is_not_replaced(tmp_path: Path) -> None:
    """P9: A file of another user is not replaced, because that user could read what it contains."""
    out = tmp_path / "r.html"
    out.touch()
    os.chown(out, 12345, -1)
    with (
        pytest.raises(FileExistsError, match="belongs to uid 12345"),
        output_file(str(out), replace=True),
    ):
        pass


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_a_file_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    """P9: The new file has mode 0600, whatever the umask and the old file's mode."""
    out = tmp_path / "r.html"
    out.write_text("old")
    out.chmod(0o666)
    previous = os.umask(umask)
    try:
        with output_file(str(out), replace=True) as file:
            file.write("new")
            assert out.read_text() == "old"
    finally:
        os.umask(previous)
    assert (out.read_text(), out.stat().st_mode & 0o777) == ("new", 0o600)
    assert os.listdir(tmp_path) == ["r.html"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old file as it was, and the error names the file."""

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    out = tmp_path / "r.html"
    out.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(OSError, match="No space left") as error,
        output_file(str(out), replace=True) as file,
    ):
        file.write("new")
    assert error.value.filename == str(out)
    assert (out.read_text(), os.listdir(tmp_path)) == ("old", ["r.html"])


def test_a_lack_of_memory_has_its_own_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lack of memory is no defect of the command, and has its own message."""

    def show_info(*_: object) -> int:
        raise MemoryError

    monkeypatch.setattr("journal_inspect.commands.info.show_info", show_info)
    check_refused(ask("info", make(tmp_path / "j")), 4, "needs more memory than there is")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_may_not_be_replaced_is_new(
    has_links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that another process makes at the last moment is not replaced. On a file system
    without links, the new file still gets its name."""
    path = tmp_path / "out"
    monkeypatch.setattr(
        "journal_inspect.rendering.output_file.check_replaceable", lambda *_, **__: 0
    )
    if has_links:
        with pytest.raises(FileExistsError), output_file(str(path), replace=False):
            path.write_text("of another process")
        assert path.read_text() == "of another process"
    else:
        monkeypatch.setattr(os, "link", lambda *_: os.stat("/missing"))
        with output_file(str(path), replace=False) as file:
            file.write("new")
        assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
