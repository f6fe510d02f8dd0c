"""The real disk: file descriptors, each opened relative to a directory's handle.

This module buffers nothing, retries nothing and decides nothing. That is left to
`journal._commit.writer` and `journal._recovery.recovery`. It guards against the dangers of a path,
which may lead through a symlink, block on a FIFO, belong to another user, or be replaced between
two calls.
"""

from __future__ import annotations

import sys

if sys.platform not in ("linux", "darwin"):
    raise ImportError(
        f"journal runs on Linux and macOS, not on {sys.platform}: it needs flock, directory "
        "handles and a sync that reaches the disk"
    )

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from journal._disk import lock_holder as holder
from journal._disk import syscalls
from journal._disk.disk import LOCK, Disk, FileMode, StrPath
from journal._disk.posix_file import CLOSED, PosixFile
from journal._names import is_journal
from journal._waits import refuse
from journal.errors import FailedError, LockedError, UnsafePathError

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: never block on a FIFO
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MODES: dict[FileMode, int] = {
    "read": os.O_RDONLY,
    "update": os.O_RDWR,
    "create": os.O_RDWR | os.O_CREAT | os.O_EXCL,
}
# The errors of open(2) for a symlink, a directory, a socket or a device.
_NOT_REGULAR = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP)
# The errors of flock(2) on a file system without locks, such as some network file systems.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_OTHERS_ACCESS = stat.S_IRWXG | stat.S_IRWXO
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class PosixDisk:
    """The local file systems, with the system's clock and its source of random bytes."""

    def open_directory(self, path: StrPath, *, write: bool) -> PosixDirectory:
        parent_path, name = _split_last(path_of(path))
        full_path = os.path.join(parent_path, name)
        parent, may_list = _open_parent(parent_path, write=write)
        try:
            fd, made = _open_last(parent, name or ".", full_path, make=write and may_list)
            try:
                if write:
                    _secure(fd, full_path, made=made)
                if write and may_list:
                    # Sync also if the directory existed: its maker may have crashed before this.
                    _sync_parent(parent, parent_path)
            except BaseException:
                os.close(fd)
                raise
        finally:
            os.close(parent)
        return PosixDirectory(fd, full_path, write=write)

    def now_ns(self) -> int:
        return time.time_ns()

    def new_id(self) -> bytes:
        return os.urandom(16)


class PosixDirectory:
    """A directory's handle. The flock is on this handle, not on a file in the directory."""

    def __init__(self, fd: int, path: str, *, write: bool) -> None:
        self._fd = fd
        self.path = path
        self._write = write

    def open(self, name: str, mode: FileMode) -> PosixFile:
        path = self._join(name)
        try:
            with _with_whole_path(path):
                fd = os.open(name, _MODES[mode] | _FLAGS, 0o600, dir_fd=self._fd)
        except OSError as error:
            if error.errno in _NOT_REGULAR:
                raise _not_regular_error(path) from error
            raise
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise _not_regular_error(path)
            if mode == "create" and info.st_mode & 0o600 != 0o600:  # the umask did that
                os.fchmod(fd, 0o600)
        except BaseException:
            os.close(fd)
            raise
        return PosixFile(fd, path, has_holes=not self._write)

    def names(self) -> list[str]:
        # Listing moves a handle's position, and threads would share one. So open another handle.
        with _with_whole_path(self.path):
            fd = os.open(".", _DIRECTORY, dir_fd=self._fd)
            try:
                return sorted(os.listdir(fd))
            finally:
                os.close(fd)

    def rename(self, old: str, new: str) -> None:
        with _with_whole_path(self._join(old), self._join(new)):
            os.rename(old, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def rename_new(self, old: str, new: str) -> None:
        old_path, new_path = self._join(old), self._join(new)
        try:
            with _with_whole_path(old_path, new_path):
                syscalls.rename_new(self._fd, old, new)
        except OSError as error:
            if error.errno not in syscalls.UNKNOWN:
                raise
            raise UnsafePathError(
                "the file system can neither rename a file without replacing another nor link one "
                f"({error.strerror}), so two writers could destroy each other's records; put the "
                "journal on a local file system",
                path=self.path,
            ) from error

    def remove(self, name: str) -> None:
        with _with_whole_path(self._join(name)):
            os.unlink(name, dir_fd=self._fd)

    def sync(self) -> None:
        _sync_directory(self._fd)

    def lock(self) -> None:
        if not self._has_locked():
            pid = self.lock_holder()
            # The holder may have released the lock by now, as a dropped journal of this process
            # does after a moment.
            if pid is not None or not self._has_locked():
                raise LockedError(self.path, pid or None, is_this_process=pid == os.getpid())
        if self._is_lock_ignored():
            raise _no_locks_error(self.path, "grants the same lock twice, so it excludes nobody")
        syscalls.load()

    def lock_holder(self) -> int | None:
        """Return the pid of the live writer, as the Protocol says.

        A writer in another pid namespace (container) is not seen.
        """
        likely_pid = None
        with suppress(OSError, UnsafePathError):
            likely_pid = self._read_pid_note()
        try:
            return holder.lock_holder(self._fd, likely_pid)
        except (FileNotFoundError, PermissionError):  # macOS; a sandbox
            return self._read_pid_note()

    def check_unshared(self) -> None:
        _check_unshared(self._fd, self.path)

    def close(self, *, unlock: bool) -> None:
        fd, self._fd = self._fd, CLOSED
        if fd != CLOSED:
            try:
                if unlock:
                    fcntl.flock(fd, fcntl.LOCK_UN)
            except OSError as error:
                if error.errno not in _NO_LOCKS:  # without locks, none was ever taken
                    raise
            finally:
                os.close(fd)

    def __del__(self) -> None:
        with suppress(OSError):
            self.close(unlock=False)

    def _has_locked(self) -> bool:
        """Take the lock if it is free, and return whether it was."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _NO_LOCKS:
                raise _no_locks_error(self.path, f"has no locks ({error.strerror})") from error
            raise
        return True

    def _is_lock_ignored(self) -> bool:
        """Return whether a second handle gets the lock that this one holds."""
        with _with_whole_path(self.path):
            fd = os.open(".", _DIRECTORY, dir_fd=self._fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def _join(self, name: str) -> str:
        if "/" in name or name in ("", ".", ".."):
            raise UnsafePathError(f"{name!r} is not a plain file name", path=self.path)
        return f"{self.path}/{name}"

    def _read_pid_note(self) -> int | None:
        """Return the first number in LOCK, if it is the pid of a live process."""
        try:
            file = self.open(LOCK, "read")
        except FileNotFoundError:
            return None
        words = file.read(64, 0).split()
        file.close()
        pid = next((int(word) for word in words if word.isdigit()), 0)
        return pid if holder.is_alive(pid) else None


def path_of(path: StrPath, name: str = "path") -> str:
    """Return a path as a string. Raises TypeError or ValueError, with the `name` of the argument,
    if it is not a path."""
    text: object = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        refuse(TypeError, f"{name} must be a str or a path object", path)
    if "\0" in text:
        refuse(ValueError, f"{name} must be a path without NUL", path)
    return text


def disk_or_default(disk: Disk | None) -> Disk:
    """Return `disk`, or without one the real disk. Raises TypeError if it is no Disk."""
    if disk is None:
        return PosixDisk()
    if isinstance(disk, type) or not hasattr(disk, "open_directory"):
        refuse(TypeError, "disk must be a Disk, such as a SimulatedDisk, or None", disk)
    return disk


def _split_last(path: str) -> tuple[str, str]:
    """Return the real path of everything above the last component, and the last component."""
    if not path:
        raise FileNotFoundError(errno.ENOENT, "a journal's path can't be empty", path)
    above, name = os.path.split(path.rstrip("/"))
    try:
        if name in ("", ".", ".."):  # not a name that could be a symlink, so resolve the whole path
            return os.path.split(os.path.realpath(path))
        return os.path.realpath(above), name
    except FileNotFoundError as error:  # only the working directory is looked up
        raise FileNotFoundError(errno.ENOENT, "the working directory was removed", path) from error


def _open_parent(path: str, *, write: bool) -> tuple[int, bool]:
    """Return a handle of the directory above a journal, and whether this process may list it.

    A process that may only pass through it (mode 0711) can't sync it. Readers and writers of an
    existing journal need no sync: either the journal's name was synced when it was made, or it was
    made by somebody who may list the parent.
    """
    if write:
        with suppress(PermissionError):
            return os.open(path, _DIRECTORY), True
    return os.open(path, os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)), False


def _open_last(parent: int, name: str, path: str, *, make: bool) -> tuple[int, bool]:
    """Return a handle of the directory `name` in `parent`, and whether it had to be made."""
    made = False
    while True:
        try:
            return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent), made
        except FileNotFoundError as error:
            if not make or made:
                error.filename = path
                raise
            with suppress(FileExistsError), _with_whole_path(path):
                os.mkdir(name, 0o700, dir_fd=parent)
            made = True
        except OSError as error:
            # For a symlink, Linux raises ENOTDIR, and macOS raises ELOOP.
            with _with_whole_path(path):
                info = os.lstat(name, dir_fd=parent)
            if stat.S_ISLNK(info.st_mode):
                raise UnsafePathError(
                    "is a symlink; give the path of the directory itself", path=path
                ) from error
            if made:  # the umask took all rights away; nothing must be left behind
                with suppress(OSError):
                    os.rmdir(name, dir_fd=parent)
            error.filename = path
            raise


def _secure(fd: int, path: str, *, made: bool) -> None:
    """Raise UnsafePathError for a directory that others own or can write to.

    Narrow the mode of one that others can read. `made`: it has just been made by this process.
    """
    info = os.fstat(fd)
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid != os.geteuid():
        raise UnsafePathError(
            f"is owned by uid {info.st_uid}, but this process runs as uid {os.geteuid()}; "
            f"run as its owner: sudo -u '#{info.st_uid}' COMMAND",
            path=path,
        )
    _check_unshared(fd, path)
    if made and mode & 0o777 != 0o700:  # the umask removed the owner's rights, too
        with _with_whole_path(path):
            os.fchmod(fd, 0o700)
    elif mode & _OTHERS_ACCESS and _is_ours(os.listdir(fd)):
        with _with_whole_path(path):
            os.fchmod(fd, 0o700)
        import logging

        from journal._log import report

        text = "%s: mode %04o let others read the journal; it was narrowed to 0700"
        report(logging.WARNING, text, path, mode)


def _check_unshared(fd: int, path: str) -> None:
    """Raise UnsafePathError for a directory that others can write to."""
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & _OTHERS_WRITE:
        # A directory that others use, such as root's /tmp, must stay as it is.
        is_ours = _is_ours(os.listdir(fd))
        fix = f"run: chmod 700 {path}" if is_ours else "give an empty or a new directory"
        raise UnsafePathError(f"mode {mode:04o} lets others write to it; {fix}", path=path)


def _is_ours(names: list[str]) -> bool:
    """Return whether a directory with these names is a journal, or an empty one that will become a
    journal.

    An open refuses any other directory, such as a user's home, so its mode must not change.
    """
    return not names or is_journal(names)


@contextmanager
def _with_whole_path(path: str, new_path: str | None = None) -> Iterator[None]:
    """Put the whole path into an OSError: a call relative to a handle knows only the last name."""
    try:
        yield
    except OSError as error:
        error.filename = path
        if new_path is not None:
            error.filename2 = new_path
        raise


def _sync_directory(fd: int) -> None:
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def _sync_parent(fd: int, path: str) -> None:
    try:
        _sync_directory(fd)
    except OSError as error:
        raise FailedError(f"{path}: can't be synced: {error}") from error


def _no_locks_error(path: str, problem: str) -> UnsafePathError:
    return UnsafePathError(
        f"the file system {problem}; without locks, two writers would destroy each other's "
        "records; put the journal on a local file system",
        path=path,
    )


def _not_regular_error(path: str) -> UnsafePathError:
    return UnsafePathError(
        "is not a regular file but a symlink, a directory or a special file; a journal makes none "
        "of these, so find out what made it, then move it out of the directory",
        path=path,
    )
