"""backup --output: copy what the commands of `subagents run` have printed."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import NamedTuple

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES = 1 << 20


class Copied(NamedTuple):
    """The files that were copied."""

    files: int = 0
    """The number of files."""

    size_bytes: int = 0
    """The size of all of them, in bytes."""


def copy_output(path: str, dest: str) -> Copied:
    """Copy the outputs of the journal at `path`, as they are now, to the journal at `dest`.

    Only regular files are copied, and no symlink is followed. Raises OSError.
    """
    try:
        source = _open_output(path)
    except FileNotFoundError:
        return Copied()
    try:
        target_path = os.path.join(dest, "output")
        os.mkdir(target_path, 0o700)
        target = os.open(target_path, _DIRECTORY)
        try:
            copied = Copied()
            for name in sorted(os.listdir(source)):
                with suppress(FileNotFoundError):  # its agent has been removed meanwhile
                    size = _copy_file(source, target, name)
                    if size is not None:
                        copied = Copied(copied.files + 1, copied.size_bytes + size)
            os.fsync(target)
        finally:
            os.close(target)
        return copied
    finally:
        os.close(source)


def _open_output(path: str) -> int:
    journal = os.open(path, _DIRECTORY)
    try:
        return os.open("output", _DIRECTORY, dir_fd=journal)
    finally:
        os.close(journal)


def _copy_file(source: int, target: int, name: str) -> int | None:
    """Copy what a file holds now. Return its size, or None if it is not a regular file."""
    if not stat.S_ISREG(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode):
        return None
    reader = os.open(name, _FILE, dir_fd=source)
    try:
        rest = size = os.fstat(reader).st_size
        writer = os.open(name, _NEW_FILE, 0o600, dir_fd=target)
        try:
            while rest and (data := os.read(reader, min(rest, _COPY_BYTES))):
                rest -= len(data)
                while data:
                    data = data[os.write(writer, data) :]
            os.fsync(writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
    return size - rest
