"""Outputs: the files of what commands print, in a directory beside the journal's files.

    .subagents/output/agent_0123456789ab.1.out.0

The name of a file states the agent's id, the number of the start (`Agent.starts`), the stream, and
the number of the part. A stream has at most two parts: when the newest one is full, the next one
begins, and the part before the two is removed. So a reader goes from part to part, and no byte is
ever moved.

Nothing here is synced. After a power cut, files may be missing, empty or cut off; the agent's
result has the end of the output. The files of an agent are removed only once its own removal is
durable, and an open removes the files of agents that do not exist.

An agent may write to its workspace, so no name here is opened through a symlink.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import closing, suppress
from typing import Literal, NamedTuple

from journal import UnsafePathError
from manager.companion import OPEN_DIRECTORY, open_companion
from manager.values import is_agent_id

DIRECTORY = "output"
Stream = Literal["out", "err"]

_OPEN_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # O_NONBLOCK: never block on a FIFO
_NAME = re.compile(r"([a-z]+_[0-9a-f]+)\.([0-9]{1,20})\.(out|err)\.([0-9]{1,20})")


class Part(NamedTuple):
    """One file: a part of what one start of an agent has printed to one stream."""

    owner: str
    """The agent, as `owner_of` names it."""

    start: int
    """The number of the start: 1 when the agent began to run for the first time."""

    stream: Stream
    """The stream: "out" for stdout, "err" for stderr."""

    number: int
    """The number of the part, from 0."""

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"{self.owner}.{self.start}.{self.stream}.{self.number}"


def owner_of(agent_id: str) -> str:
    """Return the agent's part of a file name: its id, or a hash of an id that is not a plain name.

    The id of an imported agent may be any text, even a path.
    """
    if is_agent_id(agent_id):
        return agent_id
    import hashlib

    return f"id_{hashlib.sha256(agent_id.encode()).hexdigest()[:32]}"


def part_named(name: str) -> Part | None:
    """Return what the name of a file states, or None if no runner gives a file this name."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    owner, start, stream, number = match.groups()
    part = Part(owner, int(start), "out" if stream == "out" else "err", int(number))
    return part if part.name == name else None  # not for 007, which is another name of 7


class OutputDirectory:
    """The open directory of a state's outputs. Every name is looked up relative to its handle."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path

    @classmethod
    def open(cls, state_path: str, *, write: bool = False) -> OutputDirectory:
        """Open the directory in the state directory `state_path`. With `write`, make a missing one.

        Raises FileNotFoundError, and UnsafePathError for a symlink, for another kind of file, and
        with `write` for a directory of another user.
        """
        fd = open_companion(state_path, DIRECTORY, write=write)
        return cls(fd, os.path.join(state_path, DIRECTORY))

    def names(self) -> list[str]:
        """Return the names of all files, in any order."""
        fd = os.open(".", OPEN_DIRECTORY, dir_fd=self._fd)  # a handle has only one position
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)

    def parts(self) -> list[Part]:
        """Return all parts, ordered by agent, start, stream and number."""
        return sorted(part for part in map(part_named, self.names()) if part is not None)

    def create(self, part: Part) -> int:
        """Return a handle of a new file, open for appending. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | _OPEN_FILE
        fd = os.open(part.name, flags, 0o600, dir_fd=self._fd)
        if os.fstat(fd).st_mode & 0o777 != 0o600:  # the umask removed the owner's rights, too
            os.fchmod(fd, 0o600)
        return fd

    def read(self, part: Part) -> int:
        """Return a file, open for reading. Raises FileNotFoundError and UnsafePathError."""
        try:
            fd = os.open(part.name, os.O_RDONLY | _OPEN_FILE, dir_fd=self._fd)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._unsafe(part) from error
            error.filename = os.path.join(self.path, part.name)
            raise
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._unsafe(part)
        return fd

    def remove(self, part: Part) -> None:
        """Remove a file if it exists. Raises OSError."""
        with suppress(FileNotFoundError):
            os.unlink(part.name, dir_fd=self._fd)

    def close(self) -> None:
        """Close the handle. A second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _unsafe(self, part: Part) -> UnsafePathError:
        path = os.path.join(self.path, part.name)
        return UnsafePathError("is not a regular file; move it away", path=path)


class OutputCleanup:
    """Removes the outputs of agents that no longer exist, once their removal is durable.

    If it happened earlier, a crash could bring an agent back without its output. What it can't
    remove now, because the disk refuses or the process ends, the next open removes. No lock is
    needed: each step is a single operation of a deque, which is atomic.
    """

    def __init__(self, state_path: str) -> None:
        self._state_path = state_path
        self._due: deque[tuple[int, set[str]]] = deque()  # the LSN of removals, and the owners

    def sweep(self, agent_ids: Collection[str], wait_durable: Callable[[], bool]) -> None:
        """Remove the files of all agents that are not in `agent_ids`. This never raises OSError.

        `wait_durable` waits until the removal of every missing agent is durable, and returns
        whether it is.
        """
        if (directory := self._opened()) is None:
            return
        with closing(directory):
            # Most names are those of known agents. A Part for each would take a second for 200,000.
            names = (name for name in _names(directory) if name.partition(".")[0] not in agent_ids)
            orphans = [part for part in map(part_named, names) if part is not None]
            if orphans and wait_durable():
                owners = set(map(owner_of, agent_ids))
                _remove_all(directory, [part for part in orphans if part.owner not in owners])

    def add(self, lsn: int, agent_ids: Iterable[str]) -> None:
        """Note agents whose removal is durable once `lsn` is."""
        self._due.append((lsn, set(map(owner_of, agent_ids))))

    def remove_durable(self, durable_lsn: int) -> None:
        """Remove the files of the agents whose removal is durable. This never raises OSError."""
        owners = set[str]()
        for _ in range(len(self._due)):
            try:
                lsn, removed = self._due.popleft()
            except IndexError:  # another thread has taken it
                break
            if lsn <= durable_lsn:
                owners |= removed
            else:
                self._due.append((lsn, removed))
        if owners and (directory := self._opened()) is not None:
            with closing(directory):
                parts = [part for part in map(part_named, _names(directory)) if part is not None]
                _remove_all(directory, [part for part in parts if part.owner in owners])

    def _opened(self) -> OutputDirectory | None:
        try:
            return OutputDirectory.open(self._state_path)
        except OSError:  # no command has printed anything, or the disk refuses
            return None


def _names(directory: OutputDirectory) -> list[str]:
    try:
        return directory.names()
    except OSError:
        return []


def _remove_all(directory: OutputDirectory, parts: Iterable[Part]) -> None:
    for part in parts:
        with suppress(OSError):
            directory.remove(part)
