"""The storage seam: all that the engine asks of a disk, and nothing else.

`journal._disk.posix` is the real disk; `journal.testing.disk` simulates one that loses power. Both
pass one contract suite. Errors of the disk are plain `OSError`s with an `errno`; who calls
decides what they mean. Names are plain file names, never paths.
"""

from __future__ import annotations

from typing import Literal, Protocol

from journal._mutex import package_of
from journal._names import LOCK as LOCK  # every user of a disk takes them from here
from journal._names import TMP as TMP
from journal._public import public

Buffer = bytes | bytearray | memoryview  # collections.abc.Buffer is 3.12's
Mode = Literal["read", "update", "create"]
_CLOCK_NS_MAX = 2**64 - 1


class PathLike(Protocol):
    """What `os.fspath` takes; defined here so that the core need not import `os`."""

    def __fspath__(self) -> str: ...


StrPath = str | PathLike


@public
class File(Protocol):
    """One open regular file. Offsets and sizes are in bytes."""

    @property
    def path(self) -> str:
        """Absolute path when it was opened; for messages only."""

    def read(self, size: int, offset: int) -> bytes:
        """`size` bytes at `offset`, fewer only where the file ends."""

    def write(self, data: Buffer, offset: int) -> int:
        """Write at `offset` (never at the end by itself); the bytes written, which may be fewer."""

    def sync(self) -> None:
        """Put content and size of the whole file on stable storage, not only the last write."""

    def size(self) -> int:
        """How many bytes it reads as having now."""

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes, or grow it with zeros that take no space."""

    def allocate(self, size: int) -> None:
        """Grow the file to `size` bytes of zeros with disk space behind them.

        An optimization: it may raise, and leave the file of any size up to `size`.
        """

    def is_linked(self) -> bool:
        """Whether the file still has a name: what is written to one without is lost."""

    def drop_cache(self) -> None:
        """Best effort: let the next read come from the disk, not from clean cached pages."""

    def close(self) -> None:
        """Close the handle; again: nothing. Syncs nothing."""


@public
class Directory(Protocol):
    """One journal's directory, held open: every name is taken relative to the handle."""

    @property
    def path(self) -> str:
        """Absolute path, for messages only."""

    def open(self, name: str, mode: Mode) -> File:
        """Open a regular file: to read, to read and write, or as a new file (mode 0600).

        Raises FileNotFoundError, FileExistsError (mode create), and UnsafePathError for a
        symlink or anything that is not a regular file; never blocks on a FIFO.
        """

    def names(self) -> list[str]:
        """The names of all entries, sorted."""

    def rename(self, old: str, new: str) -> None:
        """Atomically replace `new` by `old`."""

    def rename_new(self, old: str, new: str) -> None:
        """Give the file `old` the name `new`, which no file may have yet.

        A crash before the next `sync` of the directory may leave it either name, or both. Raises
        FileExistsError, and UnsafePathError on a file system that can't do it.
        """

    def remove(self, name: str) -> None:
        """Take the name away; handles that are open go on. Raises FileNotFoundError."""

    def sync(self) -> None:
        """Put every create, rename and removal so far on stable storage."""

    def lock(self) -> None:
        """Take the writer's lock, without waiting.

        Raises LockedError, and UnsafePathError where locks don't exist or keep nobody out.
        """

    def lock_holder(self) -> int | None:
        """The pid of the live writer, 0 if there is one of unknown pid, None if there is none.

        Never takes the lock to find out.
        """

    def close(self, *, unlock: bool) -> None:
        """Close the handle; again: nothing.

        `unlock` releases the lock first. A forked child passes False: its handle shares the
        parent's lock, which a release would free.
        """


@public
class Disk(Protocol):
    """Where journals live, with the clock and the source of ids that they need."""

    def open_directory(self, path: StrPath, *, write: bool) -> Directory:
        """Open a journal's directory; with `write`, make its last component (0700) if missing.

        What is above the last component is resolved once and may hold symlinks; the last
        component may not be one. With `write`: a directory of another owner or writable by
        others is an UnsafePathError; one that others can only read is narrowed to 0700, with a
        warning logged; the parent is synced, so that the directory's own name is durable; if
        that fails, it raises FailedError.
        """

    def now_ns(self) -> int:
        """Return nanoseconds since the Unix epoch. It may be any number if the clock is wrong."""

    def new_id(self) -> bytes:
        """16 random bytes."""


def clock_ns(disk: Disk) -> int:
    """Return the disk's time, at most what 8 bytes can say.

    A clock before 1970, or after 2554, stops no journal: no decision of recovery uses
    times.
    """
    return min(max(disk.now_ns(), 0), _CLOCK_NS_MAX)


def write_all(file: File, data: bytes, offset: int) -> None:
    """Write all of `data` at `offset`, in as many writes as the disk makes of it."""
    rest = memoryview(data)
    while rest:
        written = file.write(rest, offset)
        rest = rest[written:]
        offset += written


def is_disk_error(error: Exception, disk: object = None) -> bool:
    """Return whether a disk raised `error`, as it is caught by the code that asked the disk.

    Otherwise a signal handler raised it: it has no errno, such as an alarm's TimeoutError, or code
    outside the engine raised it. `disk`: the File or Directory that was asked.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return False
    trace = error.__traceback__
    while trace is not None:
        package = package_of(trace)
        if package not in ("journal", "contextlib"):
            return package == type(disk).__module__.partition(".")[0]
        if trace.tb_frame.f_globals["__name__"].startswith("journal.testing."):
            return True  # the simulated disk calls what the test gave it
        trace = trace.tb_next
    return True


def remove_if_exists(directory: Directory, name: str) -> None:
    """Remove a file if that can be: what is left of one that never got its name harms nobody."""
    try:
        directory.remove(name)
    except OSError as error:
        if not is_disk_error(error):
            raise


def file_size(directory: Directory, name: str) -> int:
    """In bytes; 0 for one that is gone."""
    try:
        file = directory.open(name, "read")
    except OSError as error:
        if not is_disk_error(error):
            raise
        return 0
    try:
        return file.size()
    finally:
        file.close()
