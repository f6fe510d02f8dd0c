"""A user-space file system that keeps unsynced changes apart, and loses them on command.

    python -m tests.kernel.lazy_fs MOUNTPOINT      until its standard input ends, or SIGTERM

It puts the simulated disk's model (`journal.testing.medium`) behind real system calls. The kernel's
own page cache is in front of it, and is written through. Everything is in memory. A sync of a file
moves its contents to stable storage. So do O_DSYNC and RWF_DSYNC, because the kernel asks for a
sync after the write. A sync of a directory moves its names.

A value written to the extended attribute `user.lazy` of the root is a command:

    clear               cut the power: unsynced changes are lost, all open files are dead
    clear SEED          the same, but the seed decides which changes are kept, lost, torn or garbled
    kill PID N          instead of the Nth change from now, send SIGKILL to that process
    fail N              let the Nth sync from now fail with EIO; what it should have synced is lost
    disarm              cancel `kill` and `fail` if they have not happened yet
    ignore files        from now on, a sync of a file does nothing and reports success
    ignore directories  the same for directories
"""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
from importlib import import_module
from itertools import count
from typing import Any

from journal.testing import Outcome, lose, seeded
from journal.testing.medium import Folder, Inode

# Both packages are in an optional dependency group, so the type checker may lack them.
pyfuse3: Any = import_module("pyfuse3")
trio: Any = import_module("trio")

COMMAND = b"user.lazy"
BLOCK_BYTES = 4096
RENAME_NOREPLACE = 1  # see renameat2(2)


class Subfolder(Inode):
    """A directory, as the entry in its parent."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Folder()

    def power_cut(self, path: str, outcome: Outcome) -> None:
        self.folder.power_cut(path, outcome)


class LazyFs(pyfuse3.Operations):  # type: ignore[misc]  # a class of an untyped module
    """The file system. One thread serves the requests in turn, and waits inside none of them."""

    def __init__(self) -> None:
        super().__init__()
        self._root = Subfolder()
        self._ids = count(pyfuse3.ROOT_INODE + 1)
        self._kill: tuple[int, int] | None = None  # the process, and the changes until its kill
        self._syncs_until_failure = 0
        self._ignored: set[str] = set()
        self._boot()

    def _boot(self) -> None:
        """Forget what the kernel knows: no page, name or handle from before is valid."""
        self._numbers: dict[Inode, int] = {self._root: pyfuse3.ROOT_INODE}
        self._inodes: dict[int, Inode] = {pyfuse3.ROOT_INODE: self._root}

    # --- commands ---

    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: Any) -> None:
        if name != COMMAND or inode != pyfuse3.ROOT_INODE:
            raise pyfuse3.FUSEError(errno.ENOTSUP)
        match value.decode().split():
            case ["clear", *seed]:
                self._root.power_cut("", seeded(int(seed[0]), damage=True) if seed else lose)
                self._boot()
            case ["kill", pid, changes]:
                self._kill = int(pid), int(changes)
            case ["fail", syncs]:
                self._syncs_until_failure = int(syncs)
            case ["disarm"]:
                self._kill, self._syncs_until_failure = None, 0
            case ["ignore", "files" | "directories" as kind]:
                self._ignored.add(kind)
            case _:
                raise pyfuse3.FUSEError(errno.EINVAL)

    def _changing(self) -> None:
        """Count a change of the disk, and kill the process if it is the chosen one."""
        if self._kill:
            pid, changes = self._kill
            self._kill = (pid, changes - 1) if changes > 1 else None
            if self._kill is None:
                os.kill(pid, signal.SIGKILL)
                raise pyfuse3.FUSEError(errno.EIO)

    def _fails(self) -> bool:
        """Return whether this sync has to fail."""
        self._syncs_until_failure -= 1
        return self._syncs_until_failure == 0

    # --- files ---

    async def create(self, parent: int, name: bytes, mode: int, flags: int, ctx: Any) -> Any:
        self._changing()
        inode = self._folder(parent).create(os.fsdecode(name))
        return self._opened(inode), self._attributes(inode)

    async def open(self, number: int, flags: int, ctx: Any) -> Any:
        inode = self._inode(number)
        if flags & os.O_TRUNC:
            self._changing()
            inode.resize(0)
        return self._opened(inode)

    async def read(self, number: int, offset: int, size: int) -> bytes:
        return self._inode(number).now.read(size, offset)

    async def write(self, number: int, offset: int, data: bytes) -> int:
        inode = self._inode(number)
        self._changing()
        inode.write(offset, data)
        return len(data)

    async def setattr(self, number: int, wanted: Any, fields: Any, fh: Any, ctx: Any) -> Any:
        inode = self._inode(number)
        if fields.update_size:
            self._changing()
            inode.resize(wanted.st_size)
        return self._attributes(inode)  # modes, owners and times never change

    async def fsync(self, number: int, datasync: bool) -> None:
        inode = self._inode(number)
        self._changing()
        if self._fails():
            # The data to be written is lost. The kernel still shows it while it has the pages, and
            # considers them clean.
            inode.settle(str(number), lose)
            inode.drop_cache()
            raise pyfuse3.FUSEError(errno.EIO)
        if "files" not in self._ignored:
            inode.sync()

    async def release(self, number: int) -> None:
        pass

    # --- directories ---

    async def lookup(self, parent: int, name: bytes, ctx: Any) -> Any:
        return self._attributes(self._named(parent, name))

    async def getattr(self, number: int, ctx: Any) -> Any:
        return self._attributes(self._inode(number))

    async def mkdir(self, parent: int, name: bytes, mode: int, ctx: Any) -> Any:
        self._changing()
        inode = Subfolder()
        self._folder(parent).move(inode, None, os.fsdecode(name))
        return self._attributes(inode)

    async def unlink(self, parent: int, name: bytes, ctx: Any) -> None:
        inode = self._named(parent, name)
        self._changing()
        self._folder(parent).move(inode, os.fsdecode(name), None)

    async def rename(
        self, parent: int, name: bytes, new_parent: int, new: bytes, flags: int, ctx: Any
    ) -> None:
        inode = self._named(parent, name)
        if flags not in (0, RENAME_NOREPLACE) or parent != new_parent:
            raise pyfuse3.FUSEError(errno.EINVAL)
        if flags and os.fsdecode(new) in self._folder(parent).now:
            raise pyfuse3.FUSEError(errno.EEXIST)
        self._changing()
        self._folder(parent).move(inode, os.fsdecode(name), os.fsdecode(new))

    async def opendir(self, number: int, ctx: Any) -> int:
        self._folder(number)
        return number

    async def readdir(self, number: int, start: int, token: Any) -> None:
        entries = sorted(self._folder(number).now.items())
        for index, (name, inode) in enumerate(entries[start:], start + 1):
            attributes = self._attributes(inode)
            if not pyfuse3.readdir_reply(token, os.fsencode(name), attributes, index):
                break

    async def fsyncdir(self, number: int, datasync: bool) -> None:
        folder = self._folder(number)
        self._changing()
        if self._fails():
            raise pyfuse3.FUSEError(errno.EIO)
        if "directories" not in self._ignored:
            folder.sync()

    async def statfs(self, ctx: Any) -> Any:
        statistics = pyfuse3.StatvfsData()
        statistics.f_bsize = statistics.f_frsize = BLOCK_BYTES
        statistics.f_blocks = statistics.f_bfree = statistics.f_bavail = 2**20
        statistics.f_files = statistics.f_ffree = statistics.f_favail = 2**20
        statistics.f_namemax = 255
        return statistics

    # --- inodes ---

    def _inode(self, number: int) -> Inode:
        try:
            return self._inodes[number]
        except KeyError:
            raise pyfuse3.FUSEError(errno.ESTALE) from None

    def _folder(self, number: int) -> Folder:
        inode = self._inode(number)
        if not isinstance(inode, Subfolder):
            raise pyfuse3.FUSEError(errno.ENOTDIR)
        return inode.folder

    def _named(self, parent: int, name: bytes) -> Inode:
        try:
            return self._folder(parent).now[os.fsdecode(name)]
        except KeyError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None

    def _number(self, inode: Inode) -> int:
        if inode not in self._numbers:
            self._numbers[inode] = number = next(self._ids)
            self._inodes[number] = inode
        return self._numbers[inode]

    def _opened(self, inode: Inode) -> Any:
        # Pages stay cached from one open to the next, as on a disk.
        return pyfuse3.FileInfo(fh=self._number(inode), keep_cache=True)

    def _attributes(self, inode: Inode) -> Any:
        attributes = pyfuse3.EntryAttributes()
        attributes.st_ino = self._number(inode)
        attributes.entry_timeout = attributes.attr_timeout = 0
        is_folder = isinstance(inode, Subfolder)
        attributes.st_mode = stat.S_IFDIR | 0o700 if is_folder else stat.S_IFREG | 0o600
        attributes.st_nlink = int(inode is self._root or self._is_linked(inode))
        attributes.st_uid, attributes.st_gid = os.getuid(), os.getgid()
        attributes.st_size = inode.now.size
        attributes.st_blksize = BLOCK_BYTES
        attributes.st_blocks = -(-inode.now.size // 512)
        return attributes

    def _is_linked(self, inode: Inode) -> bool:
        folders = [each.folder for each in self._inodes.values() if isinstance(each, Subfolder)]
        return any(inode in folder.now.values() for folder in folders)


async def serve() -> None:
    async def end_with_stdin() -> None:
        await trio.lowlevel.wait_readable(sys.stdin)
        pyfuse3.terminate()

    async def end_by_signal() -> None:
        ends = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
        with trio.open_signal_receiver(*ends) as received:
            async for _ in received:
                pyfuse3.terminate()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_with_stdin)
        nursery.start_soon(end_by_signal)
        print("mounted", flush=True)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


def main(mountpoint: str) -> None:
    pyfuse3.init(LazyFs(), mountpoint, {*pyfuse3.default_options, "fsname=lazy"})
    try:
        trio.run(serve)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main(sys.argv[1])
