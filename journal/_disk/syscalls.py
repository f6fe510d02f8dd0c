"""System calls that `os` lacks, made through ctypes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache

# statx(2)
_AT_EMPTY_PATH, _STATX_NLINK, _STATX_BYTES = 0x1000, 0x4, 256
_STATFS_LONGS = 64  # statfs(2), whose first field is the type: 15 of them at most
# renameat2(2), renameatx_np(2)
_RENAME_NOREPLACE, _RENAME_EXCL = 1, 4
# The errors of a call that the kernel, a sandbox or the file system doesn't know.
UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)


def load() -> None:
    """Import ctypes. A writer calls this while it opens.

    The import takes a tenth of the package's own import time. Later, at the first use and among
    busy threads, it would take much longer.
    """
    _statx()
    _exclusive_rename()
    _fstatfs()


@cache
def _statx() -> Callable[..., int] | None:
    # PyDLL keeps the interpreter's lock: for a call this short, releasing it does not pay.
    return _function("PyDLL", "statx")


@cache
def _fstatfs() -> Callable[..., int] | None:
    return _function("CDLL", "fstatfs")


def _function(loader: str, name: str) -> Callable[..., int] | None:
    """Return a function of the C library, or None on a system without it."""
    try:
        import ctypes

        function: Callable[..., int] = getattr(getattr(ctypes, loader)(None), name)
        return function
    except (ImportError, OSError, AttributeError):
        return None


@cache
def _exclusive_rename() -> Callable[[int, str, str], int] | None:
    """Return a function that renames a file within a directory, but not onto an existing name.

    Return None on a system without such a call.
    """
    try:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            call, flag = library.renameatx_np, _RENAME_EXCL
        else:
            call, flag = library.renameat2, _RENAME_NOREPLACE
    except (ImportError, OSError, AttributeError):
        return None

    def rename(folder: int, old: str, new: str) -> int:
        result: int = call(folder, os.fsencode(old), folder, os.fsencode(new), flag)
        return result

    return rename


def rename_new(folder: int, old: str, new: str) -> None:
    """Give the file `old` the name `new`, both in the open directory `folder`.

    Raises FileExistsError, and replaces nothing, if the name exists. Raises an OSError whose errno
    is in UNKNOWN if the file system has no way to do this.
    """
    rename = _exclusive_rename()
    if rename is not None:
        if not rename(folder, old, new):
            return
        import ctypes

        code = ctypes.get_errno()
        if code not in UNKNOWN:
            raise OSError(code, os.strerror(code))
    # Some file systems, such as NFS and some FUSE ones, have no such rename, but have links.
    os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    with suppress(OSError):  # the file has its new name already, so the old one may stay
        os.unlink(old, dir_fd=folder)


def link_counter(fd: int) -> Callable[[], int]:
    """Return a function that counts the names of an open file without reading its ctime.

    fstat reads the ctime too. Since Linux 6.13 (multigrain timestamps), the first write after the
    ctime was read stamps the inode again, and the next fdatasync has to commit that stamp, so each
    commit takes half as long again. statx(2) can read one field alone.
    """
    statx = _statx()
    if statx is None:
        return lambda: os.fstat(fd).st_nlink
    import ctypes

    result = bytearray(_STATX_BYTES)
    out = (ctypes.c_char * len(result)).from_buffer(result)

    def count() -> int:
        if statx(fd, b"", _AT_EMPTY_PATH, _STATX_NLINK, out):
            return os.fstat(fd).st_nlink
        return int.from_bytes(result[16:20], sys.byteorder)

    return count


def file_system_type(fd: int) -> int:
    """Return the number of an open file's file system, of linux/magic.h; 0 if it is unknown."""
    fstatfs = _fstatfs()
    if fstatfs is None or sys.platform != "linux":
        return 0
    import ctypes

    result = (ctypes.c_long * _STATFS_LONGS)()
    return 0 if fstatfs(fd, result) else result[0]
