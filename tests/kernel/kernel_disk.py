"""A small ext4 of its own on a loop device, whose power can be cut, and which can be filled."""

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
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, of linux/ext4.h
_NO_FLUSH = 2  # of neither the log nor the pages: what is not synced is lost


class SmallDisk:
    """An ext4 in an image of `size` bytes, mounted at `path`. A context manager; skips the test
    where it can't be mounted."""

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
        # Unmounts when its input ends, so also when this process is killed. If a test failed and
        # left files open, the mount goes with the last of them.
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
        """As after a restart of the machine."""
        self.unmount()
        self.mount()

    def make_read_only(self) -> None:
        """Whoever has a file open for writing makes it fail."""
        run("mount", "-o", "remount,ro", self.path)

    def make_writable(self) -> None:
        run("mount", "-o", "remount,rw", self.path)

    def abort(self) -> None:
        """ext4 finds an error, and goes read-only under its writers. Until `remount`."""
        run("mount", "-o", "remount,abort", self.path)

    def cut_power(self) -> None:
        """From now on every call fails, and what is not synced is lost. Until `remount`."""
        root = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(root, _SHUTDOWN, struct.pack("I", _NO_FLUSH))
        except OSError as error:
            pytest.skip(f"this kernel can't shut an ext4 down: {error}")
        finally:
            os.close(root)

    def fill(self, left: int = 0) -> None:
        """Until `empty`, there is room for no more than `left` bytes."""
        fill(self._filler, left)

    def empty(self) -> None:
        self._filler.unlink(missing_ok=True)


class ThinDisk(SmallDisk):
    """One that promises more than it has: a block is taken from a memory file system when it is
    written first, and if that is full then, the write is an error of the disk. (Unless a part of
    it found room: the loop device takes that for success.)"""

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
        """What is not taken yet is an error, until `refill`."""
        fill(self._taken, 0)

    def refill(self) -> None:
        self._taken.unlink()


def fill(path: Path, left: int) -> None:
    """Make a file of all the room there is, but for `left` bytes."""
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
        os.ftruncate(file, end - left)
        os.fsync(file)
    finally:
        os.close(file)


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
