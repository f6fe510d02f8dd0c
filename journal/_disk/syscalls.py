"""System calls that `os` does not have, through ctypes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import cache

# statx(2)
_AT_EMPTY_PATH, _STATX_NLINK, _STATX_BYTES = 0x1000, 0x4, 256
# renameat2(2), renameatx_np(2)
_RENAME_NOREPLACE, _RENAME_EXCL = 1, 4
# How a call is refused that the kernel, a sandbox or the file system doesn't know.
UNKNOWN = (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)


def load() -> None:
    """Import ctypes: for writers, as they open. It takes a tenth of the package's own import, and
    among busy threads, at the first use, much longer."""
    _statx()
    _exclusive_rename()


@cache
def _statx() -> Callable[..., int] | None:
    try:
        import ctypes

        # PyDLL: a call this short is not worth giving up the interpreter's lock.
        return ctypes.PyDLL(None).statx
    except (ImportError, OSError, AttributeError):
        return None


@cache
def _exclusive_rename() -> Callable[[int, str, str], int] | None:
    """Return what renames a file within a directory unless the new name exists, if there is any."""
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

    Raises FileExistsError, replacing nothing, and an OSError whose errno is in UNKNOWN where the
    file system has no way to do this.
    """
    rename = _exclusive_rename()
    if rename is not None:
        if not rename(folder, old, new):
            return
        import ctypes

        code = ctypes.get_errno()
        if code not in UNKNOWN:
            raise OSError(code, os.strerror(code))
    # Not every file system knows such a rename: NFS and some FUSE ones know links alone.
    os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    with suppress(OSError):  # it has the new name, and that is what counts
        os.unlink(old, dir_fd=folder)


def link_counter(fd: int) -> Callable[[], int]:
    """Return how many names an open file has, without reading its ctime.

    fstat reads the ctime too. Since Linux 6.13 (multigrain timestamps), once a ctime has been read,
    the next write stamps the inode again and the next fdatasync has to commit that: each commit
    takes half as long again. statx(2) can be asked for one field.
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
