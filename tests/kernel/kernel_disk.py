"""A small ext4 on a loop device. Its power can be cut, and it can be filled."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Self

import pytest

from tests.installed import find_command

KIB, MIB = 1 << 10, 1 << 20
BLOCK_BYTES = 4096
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, from linux/ext4.h
_NO_FLUSH = 2  # neither the log nor the pages, so unsynced data is lost


class SmallDisk:
    """An ext4 in an image of `size` bytes, mounted at `path`.

    It is a context manager. It skips the test if the image can't be mounted.
    """

    def __init__(self, folder: Path, size: int = 16 * MIB) -> None:
        self.image = folder / "ext4.img"
        self.path = folder / "ext4"
        self._filler = self.path / "filler"
        self._size = size
        self._mounts = [self.path]

    def __enter__(self) -> Self:
        if sys.platform != "linux" or os.geteuid() != 0:
            pytest.skip("only root may mount a file system")
        find_command("mkfs.ext4")
        # The guard unmounts the disk when its input ends, and so also when this process is killed.
        # If a failed test left files open, the mount disappears with the last of them.
        self._guard = subprocess.Popen(
            ["sh", "-c", 'cat; umount --lazy "$@"', "sh", *self._mounts],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self._end()
            pytest.skip(f"can't mount: {error.stderr}")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._guard.communicate(timeout=60)
        self.image.unlink(missing_ok=True)

    def _make(self) -> None:
        self.path.mkdir()
        with self.image.open("wb") as image:
            os.truncate(image.fileno(), self._size)
            run("mkfs.ext4", "-q", "-F", "-m", "0", "-b", str(BLOCK_BYTES), self.image)
            os.posix_fallocate(image.fileno(), 0, self._size)
        self.mount()

    def mount(self) -> None:
        run("mount", "-o", "loop", self.image, self.path)

    def unmount(self) -> None:
        run("umount", self.path)

    def remount(self) -> None:
        """Unmount and mount the disk, as a restart of the machine does."""
        self.unmount()
        self.mount()

    def make_read_only(self) -> None:
        """Remount the disk read-only. This fails while a file is open for writing."""
        run("mount", "-o", "remount,ro", self.path)

    def make_writable(self) -> None:
        run("mount", "-o", "remount,rw", self.path)

    def abort(self) -> None:
        """Let ext4 find an error and become read-only while files are open, until `remount`."""
        run("mount", "-o", "remount,abort", self.path)

    def cut_power(self) -> None:
        """Let every call fail and lose unsynced data, until `remount`."""
        root = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(root, _SHUTDOWN, struct.pack("I", _NO_FLUSH))
        except OSError as error:
            pytest.skip(f"this kernel can't shut an ext4 down: {error}")
        finally:
            os.close(root)

    def fill(self, left_bytes: int = 0) -> None:
        """Leave room for at most `left_bytes`, until `empty`."""
        fill(self._filler, left_bytes)

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)


class ThinDisk(SmallDisk):
    """A disk that promises more space than it has.

    A block is taken from a memory file system at its first write. If that file system is full, the
    write is an I/O error. But if a part of the write succeeded, the loop device takes that for
    success.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._memory = folder / "memory"
        self.image = self._memory / "ext4.img"
        self._taken = self._memory / "taken"
        self._mounts.append(self._memory)

    def _make(self) -> None:
        self._memory.mkdir()
        run("mount", "-t", "tmpfs", "-o", f"size={self._size + MIB}", "tmpfs", self._memory)
        super()._make()
        run("fstrim", self.path)

    def run_out(self) -> None:
        """Let writes to blocks that are not taken yet fail, until `refill`."""
        fill(self._taken, 0)

    def refill(self) -> None:
        self._taken.unlink()


def fill(path: Path, left_bytes: int) -> None:
    """Make a file that fills all free space except `left_bytes`."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    try:
        end, piece = 0, 1 * MIB
        while piece >= KIB:
            try:
                os.posix_fallocate(file, end, piece)
                end += piece
            except OSError:
                os.ftruncate(file, end)
                piece //= 2
        os.ftruncate(file, end - left_bytes)
        os.fsync(file)
    finally:
        os.close(file)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
