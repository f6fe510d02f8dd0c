"""Streams: reads what a command prints, and keeps it in files and its end in memory.

The files are made at the first byte. An error of the disk ends the files of a stream, and never the
command: the rest counts as cut.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from manager._run.facts import Printed
from manager._run.printer import LinePrinter
from manager.outputs import OutputDirectory, Part
from manager.values import cut, utf8_bytes

_READ_BYTES = 1 << 16  # the size of a pipe
_PAUSE_S = 0.02


class OutputFiles:
    """The files of one stream of one start: at most two, which rotate at half of `bytes_max`."""

    def __init__(self, directory: OutputDirectory, first: Part, bytes_max: int) -> None:
        self._directory = directory
        self._part = first
        self._part_bytes_max = bytes_max // 2
        self._part_bytes = 0
        self._before_bytes = 0  # of the part before
        self._fd: int | None = None
        self._has_failed = not self._part_bytes_max
        self.kept_bytes = 0
        """The number of bytes in the files."""

    def write(self, data: bytes) -> None:
        """Append `data`. After an error of the disk, this does nothing."""
        rest = memoryview(data)
        while rest and not self._has_failed:
            try:
                if self._fd is None or self._part_bytes == self._part_bytes_max:
                    self._begin_part()
                assert self._fd is not None
                written = os.write(self._fd, rest[: self._part_bytes_max - self._part_bytes])
            except OSError:
                self._has_failed = True
                return
            self._part_bytes += written
            self.kept_bytes += written
            rest = rest[written:]

    def close(self) -> None:
        """Close the newest file."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)

    def _begin_part(self) -> None:
        part = self._part
        if self._fd is not None:
            part = part._replace(number=part.number + 1)
        fd = self._directory.create(part)
        if self._fd is not None:
            with suppress(OSError):
                self.close()
            if self._part.number:
                with suppress(OSError):
                    self._directory.remove(self._part._replace(number=self._part.number - 1))
                self.kept_bytes -= self._before_bytes
            self._before_bytes, self._part_bytes = self._part_bytes, 0
        self._fd, self._part = fd, part


class OutputStream:
    """One stream of a running command: the end of a pipe that it reads until the pipe ends."""

    def __init__(
        self, fd: int, files: OutputFiles, printer: LinePrinter | None, *, tail_bytes_max: int
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._fd = fd
        self._files = files
        self._printer = printer
        self._is_ending = False
        self._tail = bytearray()
        self._tail_bytes_max = tail_bytes_max
        self._bytes = 0
        self.drained: asyncio.Future[None] = self._loop.create_future()
        """Done once the pipe has ended."""

        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def end(self) -> None:
        """Read the rest even if the printer is full. The command has ended, so a pipe holds it."""
        if not self._is_ending and not self.drained.done():
            self._is_ending = True
            self._loop.add_reader(self._fd, self._read)

    def close(self) -> None:
        """Close the pipe and the files, even if the pipe has not ended."""
        if not self.drained.done():
            self._end()

    def printed(self) -> Printed:
        """Return what the command has printed so far."""
        tail = bytes(self._tail[-self._tail_bytes_max :])
        text = tail.decode(errors="replace")
        if len(tail) < self._bytes:
            # Of a character that was cut, at most three bytes are left.
            text = text[:3].lstrip("\ufffd") + text[3:]
            text = cut(text, self._bytes, self._tail_bytes_max)
        elif utf8_bytes(text) > self._tail_bytes_max:  # each U+FFFD has three bytes
            text = cut(text, self._bytes, self._tail_bytes_max)
        return Printed(self._bytes, self._bytes - self._files.kept_bytes, text)

    def _read(self) -> None:
        if self._printer is not None and self._printer.is_full and not self._is_ending:
            self._loop.remove_reader(self._fd)
            self._loop.call_later(_PAUSE_S, self._resume)
            return
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # of a damaged pipe, which does not exist
            data = b""
        if not data:
            self._end()
            return
        self._bytes += len(data)
        self._files.write(data)
        if self._printer is not None:
            self._printer.write(data)
        self._tail += data
        if len(self._tail) > 2 * self._tail_bytes_max:  # not at each read, because this copies
            del self._tail[: -self._tail_bytes_max]

    def _resume(self) -> None:
        if not self._is_ending and not self.drained.done():
            self._loop.add_reader(self._fd, self._read)

    def _end(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        with suppress(OSError):  # a network file system reports an error of an earlier write here
            self._files.close()
        if self._printer is not None:
            self._printer.close()
        self.drained.set_result(None)
