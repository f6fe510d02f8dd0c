"""Output file: a file that a verb writes, which appears only once it is complete."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO


@contextmanager
def output_file(path: str, *, replace: bool) -> Iterator[IO[str]]:
    """Yield a new text file, which gets the name `path` when the block ends without an exception.

    It is written beside `path`, readable by its owner only, and synced. So a full disk or an
    interrupt leaves an old file as it was. Raises FileExistsError if `path` exists, unless it may
    be replaced: it has to be a regular file of this user, and not a symlink.
    """
    check_replaceable(path, replace=replace)
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.fchmod(fd, 0o600)  # also with a umask that removes the owner's rights
            with open(fd, "w", encoding="utf-8", newline="\n", closefd=False) as file:
                yield file
            os.fsync(fd)
        finally:
            os.close(fd)
        check_replaceable(path, replace=replace)
        if replace:
            os.replace(temporary, path)
        else:
            _rename_new(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno and error.filename in (None, temporary):
            error.filename, error.filename2 = path, None
        raise


def _rename_new(temporary: str, path: str) -> None:
    """Give a file a name that no file has, as far as the file system can guarantee that."""
    try:
        os.link(temporary, path)  # unlike a rename, it never replaces a file
    except FileExistsError:
        raise
    except OSError:  # a file system without links, such as that of a memory stick
        os.rename(temporary, path)
    else:
        os.unlink(temporary)


def check_replaceable(path: str, *, replace: bool) -> None:
    """Raise FileExistsError if something is at `path` that must not be replaced."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not replace:
        problem = os.strerror(errno.EEXIST)
    elif not stat.S_ISREG(info.st_mode):
        problem = "is not a regular file, so it is not replaced"
    elif info.st_uid != os.geteuid():
        problem = f"belongs to uid {info.st_uid}, so it is not replaced"
    else:
        return
    raise FileExistsError(errno.EEXIST, problem, path)
