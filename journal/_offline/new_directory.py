"""NewDirectory: the directory that a backup or a restore fills, and clears if it fails.

The lock is held from the check that it is empty until the copy is complete, so neither a writer nor
another copy can begin there meanwhile. The file COPYING.tmp is there, durably, before any other
file, and until all of them are durable and verified. So wherever a crash interrupts the copy, no
open takes a part of the journal for the whole, and the next copy may remove that part.
Source: journal/docs/FORMAT.md, "Incomplete copies".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from journal._disk.disk import Directory, Disk, File, FileMode, StrPath, is_disk_error
from journal._names import COPYING, TMP, file_at, is_incomplete_copy
from journal.errors import UnsafePathError

T = TypeVar("T")
_COPIED = frozenset({"segment", "checkpoint", "lock", "mirror"})


def fill_directory(disk: Disk, path: StrPath, fill: Callable[[NewDirectory], T]) -> T:
    """Make a directory, or clear one that is an incomplete copy, and return the result of `fill`.

    `fill` makes all files of a copy, durably. The copy is complete when it returns. If it raises,
    the files of the copy are removed, and no others. Raises what it raises, FileExistsError if the
    directory has other files, LockedError, what `Disk.open_directory` raises, and the disk's
    errors.
    """
    # This is not a context manager, because an interrupt at its end would remove nothing.
    directory = disk.open_directory(path, write=True)
    is_own = False  # True once no other copy can be under way there
    try:
        names = _names_to_clear(directory)
        try:
            directory.lock()
            is_own = True
            names = _names_to_clear(directory)  # a writer may have begun and ended meanwhile
        except UnsafePathError:  # no writer can open a journal where there are no locks
            if names:
                raise FileExistsError(
                    f"{directory.path}: contains an incomplete copy, perhaps one that is still "
                    "being made, because there are no file locks; give a new directory"
                ) from None
        target = NewDirectory(directory)
        try:
            if not names:
                target.mark()
            is_own = True
            target.sync()
            target.clear()
            result = fill(target)
            target.complete()
        except BaseException:
            if is_own:
                _discard(target, directory)
            raise
        return result
    finally:
        directory.close(unlock=True)


def _names_to_clear(directory: Directory) -> list[str]:
    names = directory.names()
    if names and not (is_incomplete_copy(names) and all(map(_is_copied, names))):
        raise FileExistsError(f"{directory.path}: is not empty; give a new directory")
    return names


def _is_copied(name: str) -> bool:
    return name == COPYING or file_at(name.removesuffix(TMP)).kind in _COPIED


def _discard(target: NewDirectory, directory: Directory) -> None:
    try:
        target.discard()
    except OSError as error:  # what stays is an incomplete copy
        if not is_disk_error(error, directory):
            raise


class NewDirectory:
    """A Directory that is an incomplete copy. No writer has it open, as it holds the lock."""

    def __init__(self, directory: Directory) -> None:
        self.path = directory.path
        self._directory = directory

    def mark(self) -> None:
        """Mark the copy as incomplete. Raises the disk's errors, and FileExistsError if another
        copy has begun meanwhile, because there are no locks."""
        self._directory.open(COPYING, "create").close()

    def clear(self) -> None:
        """Remove the files of the copy. Raises the disk's errors."""
        for name in filter(_is_copied, self.names()):
            self._directory.remove(name)

    def complete(self) -> None:
        """Make the copy a journal, durably. All its files are durable. Raises the disk's errors."""
        self._directory.remove(COPYING)
        self._directory.sync()

    def discard(self) -> None:
        """Remove everything that belongs to the copy. Raises the disk's errors."""
        if COPYING not in self._directory.names():  # an interrupt struck at the very end
            self.mark()
            self.sync()
        self.clear()
        self.sync()  # or a crash could leave a part of the copy without the mark
        self.complete()

    def open(self, name: str, mode: FileMode) -> File:
        return self._directory.open(name, mode)

    def names(self) -> list[str]:
        """Return the names of all entries but the mark."""
        return [name for name in self._directory.names() if name != COPYING]

    def rename(self, old: str, new: str) -> None:
        self._directory.rename(old, new)

    def rename_new(self, old: str, new: str) -> None:
        self._directory.rename_new(old, new)

    def remove(self, name: str) -> None:
        self._directory.remove(name)

    def sync(self) -> None:
        self._directory.sync()

    def lock(self) -> None:
        """Do nothing: the lock is held."""

    def lock_holder(self) -> int | None:
        """Return None: the holder of the lock is not a writer."""
        return None

    def check_unshared(self) -> None:
        self._directory.check_unshared()

    def close(self, *, unlock: bool) -> None:
        """Do nothing: `fill_directory` closes the handle."""
