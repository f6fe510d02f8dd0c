"""Companion: a directory that a manager keeps beside the journal's files.

An agent may write to its workspace, so no name here is opened through a symlink.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from journal import UnsafePathError

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def open_companion(state_path: str, name: str, *, write: bool = False) -> int:
    """Return a handle of the directory `name` in `state_path`. With `write`, make a missing one.

    Raises FileNotFoundError, and UnsafePathError for a symlink, for another kind of file, and with
    `write` for a directory of another user.
    """
    path = os.path.join(state_path, name)
    with _naming(state_path):
        state_fd = os.open(state_path, OPEN_DIRECTORY)
    try:
        with _naming(path):
            if write:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=state_fd)
            fd = os.open(name, OPEN_DIRECTORY, dir_fd=state_fd)
    finally:
        os.close(state_fd)
    try:
        if write:
            _secure(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Put the whole path into an error of the block, which opens a directory."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            what = "is a symlink or not a directory; move it away"
            raise UnsafePathError(what, path=path) from error
        error.filename = path
        raise


def _secure(fd: int, path: str) -> None:
    info = os.fstat(fd)
    if info.st_uid != os.geteuid():
        problem = f"is owned by uid {info.st_uid}, but this process runs as uid {os.geteuid()}"
        raise UnsafePathError(f"{problem}; move it away", path=path)
    if stat.S_IMODE(info.st_mode) != 0o700:
        os.fchmod(fd, 0o700)
