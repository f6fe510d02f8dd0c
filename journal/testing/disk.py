"""A disk in memory that can fail, fill up and lose power.

A file's content and a directory's names are each kept twice (`journal.testing.medium`): as they
read now (the page cache), and as they are on stable storage, with the unsynced changes between the
two. A sync stores these changes; a power cut asks an `Outcome` about each of them. So the fate of a
file's name does not depend on that of its content, and only syncs enforce an order.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from posixpath import normpath
from typing import Literal, TypeVar, get_args

from journal._disk.disk import Buffer, FileMode, StrPath
from journal._mutex import HandlerSafeLock
from journal.errors import LockedError
from journal.testing.arguments import absolute_path, check_fault, check_outcome, journal_path
from journal.testing.medium import Folder, Inode, Medium, contents_of, join_name
from journal.testing.outcome import Outcome, lose
from journal.testing.process import Process

T = TypeVar("T")

Mutation = Literal[
    "make_directory", "create", "write", "sync", "truncate", "allocate",
    "rename", "link", "remove", "sync_directory",
]  # fmt: skip
"""An operation that changes the disk."""

Query = Literal[
    "open_directory", "open", "names", "lock", "lock_holder", "read", "size", "is_linked",
    "drop_cache",
]  # fmt: skip
"""An operation that changes nothing."""

Operation = Mutation | Query
"""An operation that `SimulatedDisk.before` and `SimulatedDisk.fail` get."""

_MUTATIONS: dict[Operation, Mutation] = {name: name for name in get_args(Mutation)}


class SimulatedDisk:
    """A Disk in memory. Each path is absolute, and the parent of any directory exists.

    `SimulatedDisk(medium)` continues from a `snapshot()` of another disk. All attributes except
    `operations` and `faults` may be set at any time.
    """

    before: Callable[[Operation, str], None] | None
    """A function that is called with the operation and its path before each operation, with no lock
    held. It may wait, or raise an OSError to make the operation fail. A sync that fails this way
    leaves its file's unsynced changes in the cache, marked clean, as Linux does; `failed_sync`
    decides which of them reached the disk."""

    watch: Callable[[Mutation, str], None] | None
    """A function that is called with each mutation and its path just before the mutation, under the
    disk's lock. It may take a `snapshot`, and must not use the disk in any other way."""

    failed_sync: Outcome
    """The outcome of the unsynced changes of a file whose sync failed."""

    capacity: int | None
    """The size of the disk in bytes of file content (None: unlimited). Writes beyond it raise
    ENOSPC."""

    write_bytes_max: int | None
    """The maximum number of bytes that one write takes (None: all of them)."""

    clock_ns: int
    """The time that `now_ns` returns next, in nanoseconds."""

    tick_ns: int
    """The number of nanoseconds that `now_ns` adds to the clock at each call."""

    pid: int
    """The process ID that holds the lock of a locked directory."""

    operations: list[tuple[Mutation, str]]
    """The mutations so far, each with its path. `crash_after` counts them."""

    faults: int
    """The number of operations that failed because `before` raised."""

    links_new_names: bool = False
    """True if `rename_new` links the new name and removes the old one in a second step, as on a
    file system without an exclusive rename."""

    def __init__(self, medium: Medium | None = None) -> None:
        self.before = None
        self.watch = None
        self.failed_sync = lose
        self.capacity = None
        self.write_bytes_max = None
        self.clock_ns = 1_700_000_000_000_000_000
        self.tick_ns = 1_000_000
        self.pid = 4242
        self.operations = []
        self.faults = 0
        # Guards everything below, and the folders and inodes. Never held while `before` runs.
        self._mutex = HandlerSafeLock()
        self._medium = Medium._copy_of(medium)
        self._process = Process()  # the running process; handles of earlier ones are dead
        self._ids = itertools.count(1)

    @classmethod
    def holding(cls, path: str, files: Mapping[str, bytes]) -> SimulatedDisk:
        """Return a disk on which the directory `path` holds just these files, all of them durable.

        files: the content of each file, by name. Raises TypeError or ValueError for a path or
        files that no disk can have.
        """
        return cls(Medium._holding(journal_path(path), contents_of(files)))

    def snapshot(self) -> Medium:
        """Return a copy of the page cache and of the disk, for the constructor."""
        with self._mutex:
            return self._medium.copy()

    def open_directory(self, path: StrPath, *, write: bool) -> SimulatedDirectory:
        """Open a directory, and with `write` create it if it does not exist. See Disk."""
        if not (absolute := absolute_path(path)):
            raise _error(errno.ENOENT, "")

        def open_existing() -> SimulatedDirectory | None:
            folder = self._medium._folders.get(absolute)
            if folder is None and not write:
                raise _error(errno.ENOENT, absolute)
            return SimulatedDirectory(self, process, absolute, folder) if folder else None

        def make() -> SimulatedDirectory:
            folder = self._medium._folders.setdefault(absolute, Folder())
            return SimulatedDirectory(self, process, absolute, folder)

        process = self._process
        existing = self._run(process, "open_directory", absolute, open_existing)
        return existing or self._run(process, "make_directory", absolute, make)

    def now_ns(self) -> int:
        """Return `clock_ns`, then add `tick_ns` to it."""
        with self._mutex:
            now = self.clock_ns
            self.clock_ns += self.tick_ns
            return now

    def new_id(self) -> bytes:
        """Return the next id of a fixed series, so that a journal's bytes are reproducible."""
        return next(self._ids).to_bytes(16, "big")

    def kill(self) -> None:
        """Kill the process: its handles fail, its locks are released, the page cache remains."""
        with self._mutex:
            self._process = Process()
            for folder in self._medium._folders.values():
                folder.writer = None

    def power_cut(self, outcome: Outcome) -> None:
        """Cut the power: `outcome` decides the fate of each unsynced change.

        The process is killed, and the page cache is lost.
        """
        check_outcome(outcome)
        with self._mutex:
            self.kill()
            self._medium.power_cut(outcome)

    def crash_after(self, count: int) -> None:
        """Crash after `count` more mutations.

        From the next mutation on, every call raises EIO and does nothing until `kill` or
        `power_cut`. So the engine's threads can end before the fate of the disk is decided. Raises
        TypeError or ValueError unless `count` is a whole number, at least 0.
        """
        with self._mutex:
            self._process.crash_after(count, len(self.operations))

    @property
    def crashed(self) -> bool:
        """True from the crash that `crash_after` set until the next `kill` or `power_cut`."""
        with self._mutex:
            return self._process.has_crashed

    def fail(
        self,
        operation: Operation,
        code: int,
        *,
        path: str = "",
        after: int = 0,
        times: int | None = 1,
    ) -> None:
        """Set `before` so that calls of `operation` raise OSError with the errno `code`.

        path: a part of the paths that are affected. after: the number of calls that succeed first.
        times: the number of calls that then fail (None: all). Raises TypeError or ValueError for an
        unknown operation or an argument of the wrong kind.
        """
        check_fault(Operation, operation, code, path, after, times)
        calls = itertools.count()

        def before(called: Operation, where: str) -> None:
            if called == operation and path in where:
                call = next(calls) - after
                if call >= 0 and (times is None or call < times):
                    raise _error(code, where)

        self.before = before

    def contents(self, path: str) -> dict[str, bytes]:
        """Return the content of each file of a directory, by name, as it reads now.

        A directory that does not exist has no files.
        """
        with self._mutex:
            return self._medium.contents(normpath(path))

    def _run(
        self,
        process: Process,
        operation: Operation,
        path: str,
        act: Callable[[], T],
        *,
        failed: Callable[[], None] = lambda: None,
    ) -> T:
        """Run `act`, which is an operation of any handle. `failed` runs if `before` raises."""
        self._check(process, operation, path)
        try:
            if self.before is not None:
                self.before(operation, path)
        except OSError:
            with self._mutex:
                self._check(process, operation, path)
                self.faults += 1
                failed()
            raise
        with self._mutex:
            self._check(process, operation, path)  # the disk may have crashed during `before`
            mutation = _MUTATIONS.get(operation)
            if mutation and self.watch is not None:
                self.watch(mutation, path)
            result = act()
            if mutation:
                self.operations.append((mutation, path))
            return result

    def _room_for(self, inode: Inode, size: int) -> int:
        """Return the size, up to `size`, to which an inode may grow. Call it under the lock."""
        if self.capacity is None:
            return size
        folders = self._medium._folders.values()
        used = sum(each.allocated for folder in folders for each in folder.now.values())
        return min(size, inode.allocated + max(0, self.capacity - used))

    def _check(self, process: Process, operation: Operation, path: str) -> None:
        with self._mutex:
            if operation in _MUTATIONS:
                self._process.reach(len(self.operations))
            if self._process.has_crashed or process is not self._process:
                raise _error(errno.EIO, path)


class _Handle:
    """The part that files and directories share: their process, and whether they are closed."""

    def __init__(self, disk: SimulatedDisk, process: Process, path: str) -> None:
        self.path = path
        self._disk = disk
        self._process = process
        self._closed = False

    def _run(
        self,
        operation: Operation,
        act: Callable[[], T],
        *,
        name: str | None = None,
        failed: Callable[[], None] = lambda: None,
    ) -> T:
        path = self.path if name is None else join_name(self.path, name)
        if self._closed:
            raise _error(errno.EBADF, path)
        return self._disk._run(self._process, operation, path, act, failed=failed)


class SimulatedDirectory(_Handle):
    """A directory of a SimulatedDisk. `Directory` documents its methods."""

    def __init__(self, disk: SimulatedDisk, process: Process, path: str, folder: Folder) -> None:
        super().__init__(disk, process, path)
        self._folder = folder

    def open(self, name: str, mode: FileMode) -> SimulatedFile:
        def act() -> SimulatedFile:
            inode = self._folder.now.get(name)
            if mode == "create":
                if inode is not None:
                    raise _error(errno.EEXIST, f"{self.path}/{name}")
                inode = self._folder.create(name)
            return SimulatedFile(self, f"{self.path}/{name}", inode or self._find(name), mode)

        return self._run("create" if mode == "create" else "open", act, name=name)

    def names(self) -> list[str]:
        return self._run("names", lambda: sorted(self._folder.now))

    def rename(self, old: str, new: str) -> None:
        join_name(self.path, old)
        self._run("rename", lambda: self._folder.move(self._find(old), old, new), name=new)

    def rename_new(self, old: str, new: str) -> None:
        join_name(self.path, old)

        def act() -> None:
            inode = self._find(old)
            if new in self._folder.now:
                error = _error(errno.EEXIST, f"{self.path}/{old}")
                error.filename2 = f"{self.path}/{new}"
                raise error
            if self._disk.links_new_names:
                self._folder.link(inode, new)
            else:
                self._folder.move(inode, old, new)

        if not self._disk.links_new_names:
            self._run("rename", act, name=new)
            return
        self._run("link", act, name=new)
        with suppress(OSError):
            self.remove(old)

    def remove(self, name: str) -> None:
        self._run("remove", lambda: self._folder.move(self._find(name), name, None), name=name)

    def sync(self) -> None:
        self._run("sync_directory", self._folder.sync)

    def lock(self) -> None:
        def act() -> None:
            if self._folder.writer not in (None, self):
                raise LockedError(self.path, self._disk.pid)
            self._folder.writer = self

        self._run("lock", act)

    def lock_holder(self) -> int | None:
        return self._run(
            "lock_holder", lambda: self._disk.pid if self._folder.writer is not None else None
        )

    def check_unshared(self) -> None:
        """Do nothing: a simulated directory has no mode."""

    def close(self, *, unlock: bool) -> None:
        # A simulated process never forks, so no other handle shares the lock: release it.
        self._closed = True
        with self._disk._mutex:
            if self._folder.writer is self:
                self._folder.writer = None

    def _find(self, name: str) -> Inode:
        try:
            return self._folder.now[name]
        except KeyError:
            raise _error(errno.ENOENT, f"{self.path}/{name}") from None


class SimulatedFile(_Handle):
    """A file of a SimulatedDisk. `File` documents its methods, except `sync_range`."""

    def __init__(
        self, directory: SimulatedDirectory, path: str, inode: Inode, mode: FileMode
    ) -> None:
        super().__init__(directory._disk, directory._process, path)
        self._directory, self._folder = directory, directory._folder
        self._inode, self._mode = inode, mode
        self._seen_errors = inode.errors

    def read(self, size: int, offset: int) -> bytes:
        return self._run("read", lambda: self._inode.now.read(size, offset))

    def write(self, data: Buffer, offset: int) -> int:
        def act() -> int:
            self._need_writable()
            taken = bytes(data)[: self._disk.write_bytes_max]
            end = self._disk._room_for(self._inode, offset + len(taken))
            if end <= offset and taken:
                raise _error(errno.ENOSPC, self.path)
            if taken:
                self._inode.write(offset, taken[: end - offset])
            return len(taken[: end - offset])

        return self._run("write", act)

    def sync(self) -> None:
        def failed() -> None:
            self._seen_errors = self._inode.fail_sync(self.path, self._disk.failed_sync)

        def act() -> None:
            seen, self._seen_errors = self._seen_errors, self._inode.errors
            if seen != self._inode.errors:  # each handle gets an error once
                raise _error(errno.EIO, self.path)
            self._inode.sync(until)

        until = self._inode.changes
        self._run("sync", act, failed=failed)

    def sync_range(self, size: int, offset: int) -> None:
        """Sync these bytes and the file's size, and nothing else, as RWF_DSYNC does.

        The engine does not use it. It is here so that a variant of the engine that does can be
        tested.
        """
        self._run("sync", lambda: self._inode.sync_range(size, offset))

    def size(self) -> int:
        return self._run("size", lambda: self._inode.now.size)

    def next_data(self, offset: int) -> int:
        return offset

    def truncate(self, size: int) -> None:
        def act() -> None:
            self._need_writable()
            self._inode.resize(size)

        self._run("truncate", act)

    def allocate(self, size: int) -> None:
        def act() -> None:
            self._need_writable()
            self._inode.allocate(self._disk._room_for(self._inode, size))
            if self._inode.allocated < size:
                raise _error(errno.ENOSPC, self.path)

        self._run("allocate", act)

    def is_linked(self) -> bool:
        return self._run("is_linked", lambda: self._inode in self._folder.now.values())

    def drop_cache(self) -> None:
        self._run("drop_cache", self._inode.drop_cache)

    def reopen(self) -> SimulatedFile:
        act = partial(SimulatedFile, self._directory, self.path, self._inode, self._mode)
        return self._run("open", act)

    def close(self) -> None:
        self._closed = True

    def _need_writable(self) -> None:
        if self._mode == "read":
            raise _error(errno.EBADF, self.path)


def _error(code: int, path: str) -> OSError:
    return OSError(code, f"simulated {errno.errorcode[code]}", path)
