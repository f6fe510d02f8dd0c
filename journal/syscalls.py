"""System calls that `os` does not have, through ctypes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache

# statx(2)
_AT_EMPTY_PATH, _STATX_NLINK, _STATX_BYTES = 0x1000, 0x4, 256


def load() -> None:
    """Import ctypes: for writers, as they open. It takes a tenth of the package's own import, and
    among busy threads, at the first use, much longer."""
    _statx()


@cache
def _statx() -> Callable[..., int] | None:
    try:
        import ctypes

        # PyDLL: a call this short is not worth giving up the interpreter's lock.
        return ctypes.PyDLL(None).statx
    except (ImportError, OSError, AttributeError):
        return None


def link_counter(fd: int) -> Callable[[], int]:
    """How many names an open file has, asking for nothing else.

    fstat asks for the ctime too. Since Linux 6.13 (multigrain timestamps) a ctime that was
    looked at makes the next write stamp the inode anew, and the next fdatasync commit that:
    half as long again for each commit. statx(2) can be asked for one field.
    """
    statx = _statx()
    if statx is None:
        return lambda: os.fstat(fd).st_nlink
    import ctypes

    answer = bytearray(_STATX_BYTES)
    out = (ctypes.c_char * len(answer)).from_buffer(answer)

    def count() -> int:
        if statx(fd, b"", _AT_EMPTY_PATH, _STATX_NLINK, out):
            return os.fstat(fd).st_nlink
        return int.from_bytes(answer[16:20], sys.byteorder)

    return count
