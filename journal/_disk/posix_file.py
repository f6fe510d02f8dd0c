"""PosixFile: one open file of the real disk."""

from __future__ import annotations

import errno
import fcntl
import os
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress

from journal._disk import syscalls
from journal._disk.disk import Buffer
from journal._disk.giving_way import give_way
from journal._disk.zeros_ahead import ZerosAhead, overwrites_in_place
from journal._mutex import is_raised_by_call

# The descriptor of a closed handle. The kernel refuses it with EBADF in every call; for -1, some of
# Python's functions raise ValueError instead.
CLOSED = 2**31 - 1
_NEVER = 2**64  # after the end of any file


class PosixFile:
    """A file descriptor of a regular file."""

    def __init__(self, fd: int, path: str, *, has_holes: bool = False) -> None:
        """Take over a descriptor. `has_holes`: the file system may be asked for holes."""
        self._fd = fd
        self.path = path
        self._has_holes = has_holes
        self._count_links: Callable[[], int] | None = None
        self._zeros: ZerosAhead | None = None
        self._zeroed_end = _NEVER  # a write that ends after this writes zeros ahead
        self._is_synced = False  # since the last zeros
        # It has no `__del__`: Python ignores an interrupt that strikes there, and a follower drops
        # files all the time. A closed file is dropped without running any Python code.
        self._closing = weakref.finalize(self, _close_quietly, fd)
        self._closing.atexit = False

    def read(self, size: int, offset: int) -> bytes:
        give_way()
        data = os.pread(self._fd, size, offset)
        if len(data) == size or not data:
            return data
        parts = [data]
        missing = size - len(data)
        while missing and (data := os.pread(self._fd, missing, offset + size - missing)):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def write(self, data: Buffer, offset: int) -> int:
        if (end := offset + len(data)) > self._zeroed_end and self._zeros is not None:
            self._zeroed_end = end
            if self._is_synced:  # a log that is not synced gains nothing
                self._is_synced = False
                self._zeroed_end = self._zeros.write(len(data), end)
        try:
            return os.pwrite(self._fd, data, offset)
        except OSError as error:
            self._name_in(error)
            raise

    def sync(self) -> None:
        try:
            if sys.platform == "darwin":
                fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)  # fsync stops at the drive's own cache
            else:
                os.fdatasync(self._fd)
        except OSError as error:
            self._name_in(error)
            raise
        self._is_synced = True

    def size(self) -> int:
        return os.fstat(self._fd).st_size

    def next_data(self, offset: int) -> int:
        if self._has_holes and hasattr(os, "SEEK_DATA"):
            try:
                return os.lseek(self._fd, offset, os.SEEK_DATA)
            except OSError as error:
                if not is_raised_by_call(error):
                    raise
                if error.errno == errno.ENXIO:  # only a hole is left
                    return max(offset, self.size())
        return offset

    def truncate(self, size: int) -> None:
        self._zeroed_end = _NEVER
        os.ftruncate(self._fd, size)

    def allocate(self, size: int) -> None:
        if sys.platform == "linux":
            content_end = self.size()  # the zeros come only after it
            os.posix_fallocate(self._fd, 0, size)
            if overwrites_in_place(self._fd):
                self._zeros, self._zeroed_end = ZerosAhead(self._fd, size), content_end

    def is_linked(self) -> bool:
        if self._count_links is None:
            self._count_links = syscalls.link_counter(self._fd)
        return self._count_links() > 0

    def drop_cache(self) -> None:
        if sys.platform == "linux":
            with suppress(OSError):
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def reopen(self) -> PosixFile:
        # Not by its name, which another file may have by now.
        flags = os.O_RDWR | os.O_CLOEXEC
        return PosixFile(os.open(f"/proc/self/fd/{self._fd}", flags), self.path)

    def close(self) -> None:
        if self._closing.detach():
            fd, self._fd = self._fd, CLOSED
            os.close(fd)

    def _name_in(self, error: OSError) -> None:
        """Name the file in the error of a call that knew only the descriptor."""
        error.filename = self.path
        with suppress(OSError):  # a segment was opened under the name of an unfinished file
            path = os.readlink(f"/proc/self/fd/{self._fd}")
            error.filename = path if path.startswith("/") else self.path


def _close_quietly(fd: int) -> None:
    with suppress(OSError):
        os.close(fd)
