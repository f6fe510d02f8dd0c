"""ZerosAhead: zeros written after the end of a log, so that a commit costs one flush of the device.

The space that posix_fallocate reserves is unwritten: the first write to each block changes the
file's metadata, so the sync after it also commits the file system's own journal, with a flush of
its own. Writing zeros over the next blocks in the same sync moves that to one commit in many. A
file system that never overwrites a block in place (copy-on-write) gains nothing. PostgreSQL
(wal_init_zero) and SQLite (its WAL is overwritten) do the same for this reason.
"""

from __future__ import annotations

import os
from contextlib import suppress

from journal._disk.syscalls import file_system_type

_IN_PLACE = frozenset((0xEF53, 0x58465342))  # ext2 to ext4, and xfs: from linux/magic.h
_PIECE = bytes(16 << 10)
_COMMITS_AHEAD = 64
_BYTES_AHEAD, _BYTES_AHEAD_MAX = 256 << 10, 16 << 20
_COMMIT_BYTES_MAX = 256 << 10  # the metadata of a larger commit costs little beside its bytes


def overwrites_in_place(fd: int) -> bool:
    """Return whether the file system of an open file is known to overwrite blocks in place."""
    return file_system_type(fd) in _IN_PLACE


class ZerosAhead:
    """The zeros after the end of one file, whose space up to `allocated_end` is reserved.

    There are few at first, so that a short log costs little, and then those of 64 commits.
    """

    __slots__ = ("_allocated_end", "_bytes_ahead", "_fd")

    def __init__(self, fd: int, allocated_end: int) -> None:
        self._fd = fd
        self._allocated_end = allocated_end
        self._bytes_ahead = len(_PIECE) // 2

    def write(self, size: int, end: int) -> int:
        """Write zeros from `end` on, before a write of `size` bytes that ends there.

        Return where the zeros end. Never raises OSError: without them, a commit is only slower.
        """
        if size > _COMMIT_BYTES_MAX:
            return end
        self._bytes_ahead = min(2 * self._bytes_ahead, _BYTES_AHEAD)
        bytes_ahead = min(max(self._bytes_ahead, _COMMITS_AHEAD * size), _BYTES_AHEAD_MAX)
        rest = self._allocated_end - end
        if rest < bytes_ahead * 3 // 2:  # what is left would need a sync of its own
            bytes_ahead = rest
        pieces = bytes_ahead // len(_PIECE)
        if pieces <= 0:
            return self._allocated_end
        with suppress(OSError):
            os.pwritev(self._fd, [_PIECE] * pieces, end)
        return end + pieces * len(_PIECE)
