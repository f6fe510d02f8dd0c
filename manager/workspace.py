"""Workspace: opens the way to a manager's journal inside the workspace without following symlinks.

An agent may write to its workspace, so a symlink on the way could lead the journal out of it. Each
component of the path is opened relative to its parent's handle, without following a symlink. After
the journal has opened the directory by its path, that directory is compared with the one that the
handles lead to.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from journal import UnsafePathError
from manager import arguments

StrPath = str | os.PathLike[str]
"""A path: a string, or an object such as a `pathlib.Path`."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# The names of segments and checkpoints; FORMAT.md, "Files". A new journal has no segment yet.
_NAME = re.compile(r"[0-9]{20}-[0-9]{10}\.seg|checkpoint-[0-9]{20}\.json")


@contextmanager
def state_path(workspace: StrPath, state_dir: StrPath) -> Iterator[str]:
    """Yield the path at which the block must open the journal.

    Missing directories above it are created, with mode 0700. Raises UnsafePathError if `state_dir`
    is absolute, contains `..` or leads over a symlink, or if the workspace is itself a journal, and
    after the block if a component was replaced meanwhile. Raises FileNotFoundError if the workspace
    does not exist.
    """
    workspace = arguments.path("workspace", workspace)
    state_dir = arguments.path("state_dir", state_dir)
    names = [name for name in state_dir.split(os.sep) if name not in ("", os.curdir)]
    if not names or os.path.isabs(state_dir) or os.pardir in names:
        raise UnsafePathError(
            "the directory of the state must be below the workspace, and named relative to it and "
            f"without '..', unlike {state_dir!r}"
        )
    try:
        path = os.path.realpath(workspace)
    except FileNotFoundError as error:  # only the working directory is looked up
        message = "the working directory was removed"
        raise FileNotFoundError(errno.ENOENT, message, workspace) from error
    handle = os.open(path, _DIRECTORY)
    try:
        _refuse_journal(path)
        for name in names[:-1]:
            path = os.path.join(path, name)
            handle = _entered(handle, name, path)
        path = os.path.join(path, names[-1])
        yield path
        checked = os.stat(names[-1], dir_fd=handle, follow_symlinks=False)
        if not os.path.samestat(checked, os.stat(path)):
            raise UnsafePathError(
                "a component of the path was replaced while it was opened", path=path
            )
    finally:
        os.close(handle)


def _refuse_journal(workspace: str) -> None:
    """Raise UnsafePathError if the workspace is the directory of a journal, such as a manager's
    own: the fleet in `.subagents` below it would be another one, and empty."""
    if any(map(_NAME.fullmatch, os.listdir(workspace))):
        raise UnsafePathError(
            "is the directory of a journal; give the workspace that contains it", path=workspace
        )


def _entered(parent: int, name: str, path: str) -> int:
    """Return a handle on the directory `name` in `parent`, which is created if it is missing. Close
    `parent` on success.
    """
    try:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
        handle = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    except OSError as error:
        # A symlink gives ENOTDIR on Linux and ELOOP on macOS.
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            what = "is a symlink or not a directory; move it away"
            raise UnsafePathError(what, path=path) from error
        raise
    # A power cut may remove a name that isn't synced, and the journal below it. This also syncs a
    # name that existed before, because its creator may have crashed before the sync.
    os.fsync(parent)
    os.close(parent)
    return handle
