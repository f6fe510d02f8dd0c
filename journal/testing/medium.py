"""What the simulated disk keeps of a file and of a directory: as it reads now, as it is on stable
storage, and the unsynced changes between the two. No locks here: `journal.testing.disk` has them.
"""

from __future__ import annotations

from typing import NamedTuple

from journal.testing.outcome import Change, Outcome


class Content:
    """The bytes of a file. Zeros at its end take no memory, so that allocating ahead is cheap."""

    def __init__(self, data: bytes | bytearray = b"", size: int = 0) -> None:
        self._data = bytearray(data)
        self.size = size

    def copy(self) -> Content:
        return Content(self._data, self.size)

    def read(self, size: int, offset: int) -> bytes:
        end = min(offset + size, self.size)
        return bytes(self._data[offset:end]).ljust(max(0, end - offset), b"\0")

    def write(self, offset: int, data: bytes) -> None:
        self._data.extend(bytes(max(0, offset - len(self._data))))
        self._data[offset : offset + len(data)] = data
        self.size = max(self.size, offset + len(data))

    def resize(self, size: int) -> None:
        del self._data[size:]
        self.size = size

    def apply(self, offset: int, data: bytes | None) -> None:
        """Write `data`; None: resize to `offset`."""
        if data is None:
            self.resize(offset)
        elif data:
            self.write(offset, data)


class Inode:
    """A file, whatever its name."""

    def __init__(self) -> None:
        self.now = Content()
        self.allocated = 0  # bytes with disk space behind them: writing there needs no more
        self._stable = Content()
        self._unsynced: list[tuple[int, bytes | None]] = []  # as Content.apply takes them

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

    def sync(self) -> None:
        for change in self._unsynced:
            self._stable.apply(*change)
        self._unsynced.clear()

    def drop_cache(self) -> None:
        """Forget what counts as written; the size is not in the cache, and stays."""
        size, self.now = self.now.size, self._stable.copy()
        for change in self._unsynced:
            self.now.apply(*change)
        self.now.resize(size)

    def settle(self, path: str, outcome: Outcome) -> None:
        """`outcome` says what reached the disk of what is unsynced, and all of it counts as
        written: what a sync that fails leaves behind."""
        for offset, data in self._unsynced:
            if data is None:
                if outcome(Change("resize", path, offset)) is not None:
                    self._stable.resize(offset)
                continue
            found = outcome(Change("write", path, offset, data)) or b""
            assert len(found) <= len(data), "a write harms no byte outside its range"
            self._stable.apply(offset, found)
        self._unsynced.clear()

    def power_cut(self, path: str, outcome: Outcome) -> None:
        self.settle(path, outcome)
        self.now = self._stable.copy()
        self.allocated = self.now.size

    def _change(self, offset: int, data: bytes | None) -> None:
        self.now.apply(offset, data)
        self._unsynced.append((offset, data))


class Move(NamedTuple):
    """One change of a directory: a create has no old name, a removal no new one."""

    inode: Inode
    old: str | None
    new: str | None

    def apply(self, names: dict[str, Inode]) -> None:
        # By inode, not by the old name: an earlier move of the file may have been undone.
        for name in [name for name, inode in names.items() if inode is self.inode]:
            del names[name]
        if self.new is not None:
            names[self.new] = self.inode

    def as_change(self, path: str) -> Change:
        if self.new is None:
            return Change("remove", f"{path}/{self.old}")
        return Change("create" if self.old is None else "rename", f"{path}/{self.new}")


class Folder:
    """A directory: names of inodes."""

    def __init__(self) -> None:
        self.now: dict[str, Inode] = {}
        self.writer: object | None = None  # the handle that holds the lock
        self._stable: dict[str, Inode] = {}
        self._unsynced: list[Move] = []

    def move(self, inode: Inode, old: str | None, new: str | None) -> None:
        move = Move(inode, old, new)
        move.apply(self.now)
        self._unsynced.append(move)

    def sync(self) -> None:
        self._stable = dict(self.now)
        self._unsynced.clear()

    def power_cut(self, path: str, outcome: Outcome) -> None:
        kept = [outcome(move.as_change(path)) is not None for move in self._unsynced]
        taken: set[str | None] = set()
        for index, move in reversed(list(enumerate(self._unsynced))):
            # A name went to another file, so the file that was renamed away from it did move:
            # undone, it would have neither name.
            if move.new is not None and (kept[index] or move.old in taken):
                kept[index] = True
                taken.add(move.new)
        for move, is_kept in zip(self._unsynced, kept, strict=True):
            if is_kept:
                move.apply(self._stable)
        self._unsynced.clear()
        self.now = dict(self._stable)
        for name in sorted(self.now):
            self.now[name].power_cut(f"{path}/{name}", outcome)
