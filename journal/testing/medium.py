"""The simulated disk's model of files and directories.

Each is kept twice, as it reads now and as it is on stable storage, with the unsynced changes
between the two. Nothing here is locked; `journal.testing.disk` does that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import NamedTuple

from journal.errors import UnsafePathError
from journal.testing.arguments import check_files, check_kind
from journal.testing.outcome import Change, Outcome

_OLDER_FILES = 3  # the number of older files whose blocks a new file may get
_INLINE_BYTES_MAX = 60  # a file up to this size is stored in the inode itself and has no blocks


class Content:
    """The bytes of a file. Zeros at its end take no memory. A copy takes none until it changes."""

    __slots__ = ("_data", "_digest", "size")

    def __init__(self, data: bytes | bytearray = b"", size: int = 0) -> None:
        self._data = data
        self._digest: bytes | None = None
        self.size = max(size, len(data))

    def copy(self) -> Content:
        if isinstance(self._data, bytearray):
            self._data = bytes(self._data)
        twin = Content(self._data, self.size)
        twin._digest = self._digest
        return twin

    @property
    def digest(self) -> bytes:
        """A hash of the bytes and the size."""
        if self._digest is None:
            head = self.size.to_bytes(8, "little")
            self._digest = blake2b(head + self._data.rstrip(b"\0"), digest_size=16).digest()
        return self._digest

    def read(self, size: int, offset: int) -> bytes:
        end = min(offset + size, self.size)
        return bytes(self._data[offset:end]).ljust(max(0, end - offset), b"\0")

    def write(self, offset: int, data: bytes) -> None:
        own = self._own()
        own.extend(bytes(max(0, offset - len(own))))
        own[offset : offset + len(data)] = data
        self.size = max(self.size, offset + len(data))

    def resize(self, size: int) -> None:
        if size < len(self._data):
            del self._own()[size:]
        self.size, self._digest = size, None

    def apply(self, offset: int, data: bytes | None) -> None:
        """Write `data` at `offset`, or resize to `offset` if `data` is None."""
        if data is None:
            self.resize(offset)
        elif data:
            self.write(offset, data)

    def _own(self) -> bytearray:
        self._digest = None
        if isinstance(self._data, bytes):
            self._data = bytearray(self._data)
        return self._data


class Inode:
    """A file, independent of its names. Its blocks may hold bytes of the `older` contents."""

    def __init__(self, older: Iterable[Content] = ()) -> None:
        self.now = Content()
        self.allocated = 0  # the size up to which writes need no more disk space
        self.stable = Content()
        self.unsynced: list[tuple[int, bytes | None]] = []  # arguments of Content.apply
        self.changes = 0  # made so far
        self.errors = 0  # of failed syncs
        self._overwritten = Content()
        self._older = tuple(older)

    def copy(self) -> Inode:
        twin = Inode(self._older)
        twin.now, twin.stable = self.now.copy(), self.stable.copy()
        twin.allocated, twin.unsynced = self.allocated, self.unsynced.copy()
        twin.changes, twin.errors = self.changes, self.errors
        twin._overwritten = self._overwritten.copy()
        return twin

    def write(self, offset: int, data: bytes) -> None:
        self._change(offset, data)
        self.allocated = max(self.allocated, offset + len(data))

    def resize(self, size: int) -> None:
        self._change(size, None)
        self.allocated = min(self.allocated, size)

    def allocate(self, size: int) -> None:
        if size > self.now.size:
            self._change(size, None)
        self.allocated = max(self.allocated, size)

    def sync(self, until: int | None = None) -> None:
        """Store the changes, or the first `until` ones, which were made before the sync began."""
        later = 0 if until is None else self.changes - until
        count = max(0, len(self.unsynced) - later)
        for change in self.unsynced[:count]:
            self._store(*change)
        del self.unsynced[:count]

    def fail_sync(self, path: str, outcome: Outcome) -> int:
        """Settle the unsynced changes. Return how many syncs of the file have failed so far."""
        self.settle(path, outcome)
        self.errors += 1
        return self.errors

    def sync_range(self, size: int, offset: int) -> None:
        """Store the bytes of that range and the file's size. Other bytes stay unsynced."""
        end = offset + size
        unsynced: list[tuple[int, bytes]] = []
        for at, data in self.unsynced:
            if data is None:
                self._store(at, None)
                unsynced = [(begin, part[: max(0, at - begin)]) for begin, part in unsynced]
                continue
            begin, stop = max(at, offset), min(at + len(data), end)
            if begin < stop:
                self._store(begin, data[begin - at : stop - at])
            else:
                begin, stop = at + len(data), at + len(data)
            unsynced += [(at, data[: begin - at]), (stop, data[stop - at :])]
        self.unsynced = [(at, part) for at, part in unsynced if part]

    def drop_cache(self) -> None:
        """Drop the clean pages, which may differ from the disk. The size is kept."""
        size, self.now = self.now.size, self.stable.copy()
        for change in self.unsynced:
            self.now.apply(*change)
        self.now.resize(size)

    def settle(self, path: str, outcome: Outcome) -> None:
        """Store the part of the unsynced changes that `outcome` names, and mark all of them clean.

        That is the effect of a failed sync.
        """
        for offset, data in self.unsynced:
            if data is None:
                if outcome(Change("resize", path, offset)) is not None:
                    self.stable.resize(offset)
                continue
            stored = outcome(self.change(path, self.stable, offset, data)) or b""
            assert len(stored) <= len(data), "the outcome of a write is longer than the write"
            self.stable.apply(offset, stored)
        self.unsynced.clear()

    def change(self, path: str, stable: Content, offset: int, data: bytes | None) -> Change:
        """Return one of `unsynced` as a Change. The changes before it left `stable`."""
        if data is None:
            return Change("resize", path, offset)
        size = len(data)
        old = stable.read(size, offset).ljust(size, b"\0")
        stale: list[bytes] = []
        for content in (self._overwritten, *self._older):
            older = content.read(size, offset).ljust(size, b"\0")
            if older not in (old, data, *stale) and older.strip(b"\0"):
                stale.append(older)
        return Change("write", path, offset, data, old, tuple(stale))

    def power_cut(self, path: str, outcome: Outcome) -> None:
        self.settle(path, outcome)
        self.now = self.stable.copy()
        self.allocated = self.now.size

    def _change(self, offset: int, data: bytes | None) -> None:
        self.now.apply(offset, data)
        self.unsynced.append((offset, data))
        self.changes += 1

    def _store(self, offset: int, data: bytes | None) -> None:
        if data:
            self._overwritten.write(offset, self.stable.read(len(data), offset))
        self.stable.apply(offset, data)


class Move(NamedTuple):
    """A change of a directory. A create and a link have no old name, a removal has no new one."""

    inode: Inode
    old: str | None
    new: str | None
    is_link: bool = False

    def apply(self, names: dict[str, Inode]) -> None:
        if self.old is not None and names.get(self.old) is self.inode:
            del names[self.old]
        elif not self.is_link:
            # Search for the inode, not the old name: an earlier move of the file may be undone.
            for name in [name for name, inode in names.items() if inode is self.inode]:
                del names[name]
        if self.new is not None:
            names[self.new] = self.inode

    def as_change(self, path: str) -> Change:
        if self.new is None:
            return Change("remove", f"{path}/{self.old}")
        return Change("create" if self.old is None else "rename", f"{path}/{self.new}")


class Folder:
    """A directory, which maps names to inodes."""

    def __init__(self) -> None:
        self.now: dict[str, Inode] = {}
        self.writer: object | None = None  # the handle that holds the lock
        self.stable: dict[str, Inode] = {}
        self.unsynced: list[Move] = []
        self._made: deque[Inode] = deque(maxlen=_OLDER_FILES)

    def copy(self) -> Folder:
        """Return a copy in which nobody holds the lock."""
        twins: dict[int, Inode] = {}

        def copied(inode: Inode) -> Inode:
            twin = twins.get(id(inode))
            if twin is None:
                twin = twins[id(inode)] = inode.copy()
            return twin

        twin = Folder()
        twin.now = {name: copied(inode) for name, inode in self.now.items()}
        twin.stable = {name: copied(inode) for name, inode in self.stable.items()}
        twin.unsynced = [move._replace(inode=copied(move.inode)) for move in self.unsynced]
        twin._made.extend(map(copied, self._made))
        return twin

    def create(self, name: str) -> Inode:
        older = [made.now.copy() for made in reversed(self._made)]
        inode = Inode([content for content in older if content.size > _INLINE_BYTES_MAX])
        self._made.append(inode)
        self.move(inode, None, name)
        return inode

    def move(self, inode: Inode, old: str | None, new: str | None) -> None:
        self._add(Move(inode, old, new))

    def link(self, inode: Inode, new: str) -> None:
        """Give a file an additional name."""
        self._add(Move(inode, None, new, is_link=True))

    def _add(self, move: Move) -> None:
        move.apply(self.now)
        self.unsynced.append(move)

    def sync(self) -> None:
        self.stable = dict(self.now)
        self.unsynced.clear()

    def names_if(self, kept: list[bool]) -> dict[str, Inode]:
        """Return the names after a power cut that keeps the moves marked in `kept`.

        `kept` has an item for each unsynced move. A move without which a file would have no name is
        kept in any case.
        """
        kept = kept.copy()
        taken: set[str | None] = set()
        for index, move in reversed(list(enumerate(self.unsynced))):
            # If a later move that is kept gives the old name to another file, this move is kept
            # too. Otherwise, this file would have no name.
            if move.new is not None and (kept[index] or move.old in taken):
                kept[index] = True
                taken.add(move.new)
        names = dict(self.stable)
        for move, is_kept in zip(self.unsynced, kept, strict=True):
            if is_kept:
                move.apply(names)
        return names

    def power_cut(self, path: str, outcome: Outcome) -> None:
        kept = [outcome(move.as_change(path)) is not None for move in self.unsynced]
        self.stable = self.names_if(kept)
        self.unsynced.clear()
        self.now = dict(self.stable)
        for name in sorted(self.now):
            self.now[name].power_cut(f"{path}/{name}", outcome)


class Medium:
    """A machine's memory and disk, as `SimulatedDisk.snapshot` returns them."""

    def __init__(self) -> None:
        self._folders: dict[str, Folder] = {}

    @classmethod
    def _holding(cls, path: str, files: Mapping[str, Content]) -> Medium:
        """Return a medium with one folder that has just these files, all of them durable."""
        medium, folder = cls(), Folder()
        for name, content in files.items():
            inode = folder.create(name)
            inode.now, inode.stable = content.copy(), content.copy()
            inode.allocated = content.size
        folder.sync()
        medium._folders[path] = folder
        return medium

    @classmethod
    def _copy_of(cls, medium: Medium | None) -> Medium:
        """Return a copy of `medium`, or without one an empty medium. Raises TypeError for anything
        else."""
        check_kind("medium", medium, Medium)
        return medium.copy() if medium else cls()

    def copy(self) -> Medium:
        """Return a copy that changes independently of this one."""
        twin = Medium()
        twin._folders = {path: folder.copy() for path, folder in self._folders.items()}
        return twin

    def power_cut(self, outcome: Outcome) -> None:
        """Cut the power. `outcome` decides the fate of each unsynced change."""
        for path in sorted(self._folders):
            self._folders[path].power_cut(path, outcome)

    def contents(self, path: str) -> dict[str, bytes]:
        """Return the files of the directory `path`, by name, as the running system reads them."""
        folder = self._folders.get(path)
        files = folder.now.items() if folder else ()
        return {name: inode.now.read(inode.now.size, 0) for name, inode in sorted(files)}


def join_name(path: str, name: str) -> str:
    """Return the path of the file `name` in the directory `path`. Raises UnsafePathError."""
    if "/" in name or name in ("", ".", ".."):
        raise UnsafePathError(f"{name!r} is not a plain file name", path=path)
    return f"{path}/{name}"


def contents_of(files: Mapping[str, bytes]) -> dict[str, Content]:
    """Return the contents that these bytes are, by name. Raises TypeError for other files."""
    check_files(files)
    return {name: Content(data) for name, data in files.items()}
