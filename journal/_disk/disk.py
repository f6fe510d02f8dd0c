"""The storage seam: everything that the engine asks of a disk, and nothing else.

`journal._disk.posix` is the real disk; `journal.testing.disk` simulates one that loses power. Both
pass one contract suite. Errors of the disk are plain `OSError`s with an `errno`; the caller
decides what they mean. Names are plain file names, never paths.
"""

from __future__ import annotations

from typing import Literal, Protocol

from journal._mutex import package_of
from journal._names import LOCK as LOCK  # every user of a disk imports both names from here
from journal._names import TMP as TMP
from journal._public import public
from journal.errors import UnsafePathError

Buffer = bytes | bytearray | memoryview  # collections.abc.Buffer is 3.12's
"""The bytes that a File writes."""

FileMode = Literal["read", "update", "create"]
"""The mode in which a Directory opens a File."""

_CLOCK_NS_MAX = 2**64 - 1


class PathLike(Protocol):
    """An argument of `os.fspath`. It is defined here so that the core need not import `os`."""

    def __fspath__(self) -> str: ...


StrPath = str | PathLike
"""A path: a string, or an object such as a `pathlib.Path`."""


@public
class File(Protocol):
    """One open regular file. Offsets and sizes are in bytes."""

    @property
    def path(self) -> str:
        """The absolute path that the file had when it was opened, for messages only."""

    def read(self, size: int, offset: int) -> bytes:
        """Return `size` bytes at `offset`, or fewer if the file ends before that."""

    def write(self, data: Buffer, offset: int) -> int:
        """Write `data` at `offset`, and return the number of bytes written, which may be less.

        The file is never in append mode.
        """

    def sync(self) -> None:
        """Put the content and the size of the whole file on stable storage.

        This covers every write so far, not only the last one.
        """

    def size(self) -> int:
        """Return the size in bytes that a reader of the file sees now."""

    def next_data(self, offset: int) -> int:
        """Return the offset of the next bytes, at or after `offset`, that may not be zeros. Return
        `size()` if there are none.

        This is an optimization for readers: it may return `offset` always. A file of a directory
        that is open for writing does so, because a file system may report holes wrongly.
        """

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes, or grow it with zeros that take no disk space."""

    def allocate(self, size: int) -> None:
        """Grow the file with zeros to `size` bytes, and reserve the disk space for them.

        This is an optimization: it may raise, and then the file may have any size up to `size`.
        """

    def is_linked(self) -> bool:
        """Return whether the file still has a name.

        A file without one is lost when it is closed, with everything that was written to it.
        """

    def drop_cache(self) -> None:
        """Drop the file's clean cached pages, so that the next read comes from the disk.

        This is done as far as the system allows, and never raises.
        """

    def close(self) -> None:
        """Close the handle, without a sync. A second call does nothing."""


@public
class Directory(Protocol):
    """The open directory of one journal. Every name is looked up relative to the handle."""

    @property
    def path(self) -> str:
        """The absolute path, for messages only."""

    def open(self, name: str, mode: FileMode) -> File:
        """Open a regular file.

        `mode`: "read" to read it, "update" to read and write it, "create" to make a new file with
        the permissions 0600. Raises FileNotFoundError, FileExistsError (mode "create"), and
        UnsafePathError for a symlink or any other file that is not regular. Never blocks on a FIFO.
        """

    def names(self) -> list[str]:
        """Return the names of all entries, sorted."""

    def rename(self, old: str, new: str) -> None:
        """Rename the file `old` to `new`, and atomically replace a file of that name."""

    def rename_new(self, old: str, new: str) -> None:
        """Give the file `old` the name `new`, which no file may have yet.

        After a crash before the next `sync` of the directory, the file may have either name, or
        both. Raises FileExistsError, and UnsafePathError on a file system that can't do this.
        """

    def remove(self, name: str) -> None:
        """Remove the name. Open handles of the file stay usable. Raises FileNotFoundError."""

    def sync(self) -> None:
        """Put every creation, renaming and removal so far on stable storage."""

    def lock(self) -> None:
        """Take the writer's lock, without waiting for it.

        Raises LockedError, and UnsafePathError on a file system that has no locks, or whose locks
        exclude nobody.
        """

    def lock_holder(self) -> int | None:
        """Return the pid of the live writer: 0 if the pid is unknown, None if there is no writer.

        Never takes the lock to find out.
        """

    def check_unshared(self) -> None:
        """Raise UnsafePathError if others can write to the directory, as `open_directory` does for
        a writer. A handle that was opened for reading can be checked, too."""

    def close(self, *, unlock: bool) -> None:
        """Close the handle. A second call does nothing.

        `unlock`: release the lock first. A forked child passes False, because its handle shares the
        parent's lock, and releasing it would release the parent's.
        """


@public
class Disk(Protocol):
    """A place for journals, with the clock and the source of ids that they need."""

    def open_directory(self, path: StrPath, *, write: bool) -> Directory:
        """Open a journal's directory.

        The path above the last component is resolved once and may hold symlinks; the last component
        must not be a symlink. Raises UnsafePathError.

        `write`: also create the directory (mode 0700) if only its last component is missing. Raise
        UnsafePathError if another user owns the directory or others can write to it. If others can
        only read it, narrow its mode to 0700 and log a warning. Then sync the parent, so that the
        directory's own name is durable; raise FailedError if that sync fails.
        """

    def now_ns(self) -> int:
        """Return nanoseconds since the Unix epoch. It may be any number if the clock is wrong."""

    def new_id(self) -> bytes:
        """Return 16 random bytes."""


class ReadableFile(Protocol):
    """The part of a File that only reads it."""

    @property
    def path(self) -> str: ...

    def read(self, size: int, offset: int) -> bytes: ...

    def size(self) -> int: ...

    def next_data(self, offset: int) -> int: ...

    def close(self) -> None: ...


class ReadableFiles(Protocol):
    """The part of a Directory that opens files to read."""

    def open(self, name: str, mode: Literal["read"]) -> ReadableFile: ...


class ReadableDirectory(ReadableFiles, Protocol):
    """The part of a Directory that recovery reads before it changes anything."""

    @property
    def path(self) -> str: ...

    def names(self) -> list[str]: ...


class Clock(Protocol):
    """The source of the times in segments: a Disk, or one that repeats earlier times."""

    def now_ns(self) -> int:
        """Return the time in Unix nanoseconds."""


def clock_ns(clock: Clock) -> int:
    """Return the clock's time in Unix nanoseconds, limited to the range of 8 bytes.

    A clock before 1970 or after 2554 stops no journal, because recovery decides nothing by time.
    """
    return min(max(clock.now_ns(), 0), _CLOCK_NS_MAX)


def write_all(file: File, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`, in more than one write if the disk takes only a part."""
    written = file.write(data, offset) if data else 0
    while written < len(data):
        written += file.write(memoryview(data)[written:], offset + written)


def is_disk_error(error: Exception, disk: object = None) -> bool:
    """Return whether the disk raised `error`, rather than a signal handler.

    To be called where the error is caught, in the code that called the disk. The error is a signal
    handler's if it has no errno, such as an alarm's TimeoutError, or if code outside the engine
    raised it. `disk`: the File or Directory that was called.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return False
    trace = error.__traceback__
    while trace is not None:
        package = package_of(trace)
        if package not in ("journal", "contextlib"):
            return package == type(disk).__module__.partition(".")[0]
        if trace.tb_frame.f_globals["__name__"].startswith("journal.testing."):
            return True  # the simulated disk raised it, perhaps in a function that the test passed
        trace = trace.tb_next
    return True


def remove_if_exists(directory: Directory, name: str) -> None:
    """Remove a file, and ignore the disk's errors: an unfinished file that stays does no harm."""
    try:
        directory.remove(name)
    except OSError as error:
        if not is_disk_error(error):
            raise


def discard_file(directory: Directory, name: str) -> None:
    """Remove a file, or do nothing if it does not exist. Raises the disk's other errors."""
    try:
        directory.remove(name)
    except FileNotFoundError as error:
        if not is_disk_error(error, directory):
            raise


def file_size(directory: Directory, name: str) -> int:
    """Return the file's size in bytes, or 0 if it can't be opened."""
    try:
        file = directory.open(name, "read")
    except UnsafePathError:
        return 0
    except OSError as error:
        if not is_disk_error(error):
            raise
        return 0
    try:
        return file.size()
    finally:
        file.close()
