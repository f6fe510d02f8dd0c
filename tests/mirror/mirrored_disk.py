"""A real disk whose directories a mirror reads meanwhile, for the disk's contract."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from journal import Directory, Disk, UnsafePathError
from journal._disk.disk import File, FileMode, StrPath, file_size
from journal._disk.posix import PosixDisk
from journal._mirror.unshipped import read_range


class MirroredDisk:
    """A real disk. After each sync, everything in the directory is read as a shipper reads it: with
    a handle of its own, which is closed without releasing the lock."""

    def __init__(self) -> None:
        self._disk = PosixDisk()

    def open_directory(self, path: StrPath, *, write: bool) -> Any:
        return _MirroredDirectory(self._disk, self._disk.open_directory(path, write=write))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._disk, name)


class _MirroredDirectory:
    def __init__(self, disk: Disk, directory: Directory) -> None:
        self._disk = disk
        self._directory = directory

    def open(self, name: str, mode: FileMode) -> Any:
        return _MirroredFile(self, self._directory.open(name, mode))

    def sync(self) -> None:
        self._directory.sync()
        self.ship()

    def ship(self) -> None:
        own = self._disk.open_directory(self._directory.path, write=False)
        for name in own.names():
            with suppress(UnsafePathError):  # it is no regular file
                read_range(own, name, 0, file_size(own, name))
        own.close(unlock=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._directory, name)


class _MirroredFile:
    def __init__(self, directory: _MirroredDirectory, file: File) -> None:
        self._directory = directory
        self._file = file

    def sync(self) -> None:
        self._file.sync()
        self._directory.ship()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
