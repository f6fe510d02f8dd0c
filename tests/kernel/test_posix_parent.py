"""Parents that may only be passed through, and a umask that takes all rights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from journal._disk.posix import PosixDisk

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def as_nobody(action: Callable[[], object]) -> str:
    """Run `action` in a child of another user, and return the name of its exception, or ""."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            try:
                action()
                name = ""
            except BaseException as error:
                name = type(error).__name__
            os.write(write_end, name.encode())
        finally:
            os._exit(0)
    os.close(write_end)
    os.waitpid(child, 0)
    with open(read_end, "rb") as pipe:
        return pipe.read().decode()


@pytest.fixture
def parent() -> Iterator[Path]:
    """Yield a directory that others may pass through, like those above it.

    The directory of temporary files may be below a private one.
    """
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        os.chmod(name, 0o711)
        yield Path(name)


@needs_root
def test_a_journal_opens_below_a_directory_that_is_only_passed_through(parent: Path) -> None:
    """P5: A parent of mode 0711 does not keep the owner of a journal from opening it."""
    path = parent / "j"
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)

    def open_and_lock() -> None:
        directory = PosixDisk().open_directory(path, write=True)
        directory.lock()
        directory.close(unlock=True)

    assert as_nobody(open_and_lock) == ""
    missing = parent / "missing"
    assert as_nobody(lambda: PosixDisk().open_directory(missing, write=True)) == "FileNotFoundError"


@needs_root
def test_a_directory_that_cant_be_searched_is_named(parent: Path) -> None:
    """A directory that may be opened but not searched is named in the error by its path."""
    path = parent / "j"
    path.mkdir(mode=0o744)

    def list_names() -> None:
        with pytest.raises(PermissionError) as caught:
            PosixDisk().open_directory(path, write=False).names()
        assert caught.value.filename == str(path)

    assert as_nobody(list_names) == ""


@needs_root
def test_a_umask_that_takes_all_rights_leaves_nothing_behind(parent: Path) -> None:
    """P5: If the new directory can't be opened because of the umask, it is removed again."""
    above = parent / "above"
    above.mkdir()
    os.chown(above, NOBODY, NOBODY)

    def make() -> None:
        os.umask(0o777)
        PosixDisk().open_directory(above / "j", write=True)

    assert as_nobody(make) == "PermissionError"
    assert os.listdir(above) == []
