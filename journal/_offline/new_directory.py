"""NewDirectory: the directory that a backup or a restore fills, and clears if it fails.

The lock is held from the check that it is empty until the copy is verified, so neither a writer nor
another copy can begin there meanwhile. If the copy fails, only the files that it made are removed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from journal._disk.disk import Directory, Disk, File, FileMode, StrPath
from journal.errors import UnsafePathError


@contextmanager
def new_directory(disk: Disk, path: StrPath) -> Iterator[NewDirectory]:
    """Make and lock a directory, or lock one that is empty. Raises FileExistsError if it has files,
    LockedError, and what `Disk.open_directory` raises."""
    directory = disk.open_directory(path, write=True)
    try:
        _check_empty(directory)
        with suppress(UnsafePathError):  # no writer can open a journal where there are no locks
            directory.lock()
        _check_empty(directory)  # a writer may have begun and ended meanwhile
        yield NewDirectory(directory)
    finally:
        directory.close(unlock=True)


def _check_empty(directory: Directory) -> None:
    if directory.names():
        raise FileExistsError(f"{directory.path}: is not empty; give a new directory")


class NewDirectory:
    """A Directory that knows which files it has made. No writer has it open, as it holds the
    lock."""

    def __init__(self, directory: Directory) -> None:
        self.path = directory.path
        self._directory = directory
        self._made: set[str] = set()

    def clear(self) -> None:
        """Remove the files that it has made. Raises the disk's errors."""
        for name in sorted(self._made.intersection(self._directory.names())):
            self._directory.remove(name)
        self._made.clear()

    def open(self, name: str, mode: FileMode) -> File:
        file = self._directory.open(name, mode)
        if mode == "create":
            self._made.add(name)
        return file

    def names(self) -> list[str]:
        return self._directory.names()

    def rename(self, old: str, new: str) -> None:
        self._directory.rename(old, new)
        self._made.add(new)

    def rename_new(self, old: str, new: str) -> None:
        self._directory.rename_new(old, new)
        self._made.add(new)

    def remove(self, name: str) -> None:
        self._directory.remove(name)

    def sync(self) -> None:
        self._directory.sync()

    def lock(self) -> None:
        """Do nothing: the lock is held."""

    def lock_holder(self) -> int | None:
        """Return None: the holder of the lock is no writer."""
        return None

    def close(self, *, unlock: bool) -> None:
        """Do nothing: `new_directory` closes the handle."""
