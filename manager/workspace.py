"""Where a manager keeps its journal: a directory inside the workspace, reached without symlinks.

An agent may write to its workspace, so a link left on the way could lead the journal out of it.
Each component is opened relative to its parent's handle and never followed; what the journal
then opened by its path is compared with what the handles lead to.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from journal import UnsafePathError
from manager import arguments

StrPath = str | os.PathLike[str]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def state_path(workspace: StrPath, state_dir: StrPath) -> Iterator[str]:
    """The path to open the journal at, inside the `with`; components above it are made (0700).

    Raises UnsafePathError for a `state_dir` that is absolute, has `..`, or meets a symlink, and
    at the end if something was swapped meanwhile; FileNotFoundError without a workspace.
    """
    workspace = arguments.path("workspace", workspace)
    state_dir = arguments.path("state_dir", state_dir)
    names = [name for name in state_dir.split(os.sep) if name not in ("", os.curdir)]
    if not names or os.path.isabs(state_dir) or os.pardir in names:
        raise UnsafePathError(
            f"state_dir {state_dir!r} must name a directory below the workspace, "
            "relative to it and without '..'"
        )
    path = os.path.realpath(workspace)
    handle = os.open(path, _DIRECTORY)
    try:
        for name in names[:-1]:
            path = os.path.join(path, name)
            handle = _entered(handle, name, path)
        path = os.path.join(path, names[-1])
        yield path
        held = os.stat(names[-1], dir_fd=handle, follow_symlinks=False)
        if not os.path.samestat(held, os.stat(path)):
            raise UnsafePathError("a component was replaced while it was opened", path=path)
    finally:
        os.close(handle)


def _entered(parent: int, name: str, path: str) -> int:
    """A handle on `name` in `parent`, made if missing; closes the parent's if it succeeds."""
    try:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        handle = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):  # Linux and macOS, of a symlink
            raise UnsafePathError("a symlink, or no directory; move it away", path=path) from error
        raise
    # A power cut may take a name that isn't synced, and the journal below with it; also when it
    # was there, for who made it may have crashed before this sync.
    os.fsync(parent)
    os.close(parent)
    return handle
