"""Printer: passes on what commands print, line by line, while they run."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Callable, Mapping
from queue import SimpleQueue
from threading import Thread
from typing import Self

from manager.outputs import Stream

_LINE_BYTES_MAX = 1 << 16
_QUEUED_BYTES_MAX = 1 << 20
_STOPPED_S = 1.0  # for the reader, after a run was stopped


class Printer:
    """Writes lines to the descriptors in `fds`, in a thread of its own.

    So a reader that stops reading, such as a pager, holds up the commands that print more than is
    queued, but not the timeouts, signals and ends of the others. If the reader goes away, the lines
    for it are dropped, and the run goes on.
    """

    def __init__(
        self, fds: Mapping[Stream, int], *, tag: Callable[[str], str] | None = None
    ) -> None:
        """Start the thread. `tag` makes the tag of each line from the command's name. None: lines
        have no tag."""
        self.error: OSError | None = None
        """The error because of which lines were dropped, or None. A reader that has gone is none.
        """

        self._fds = dict(fds)
        self._tag = tag
        self._queue: SimpleQueue[tuple[Stream, bytes] | None] = SimpleQueue()
        self._put_bytes = 0  # changed by the event loop only
        self._written_bytes = 0  # changed by the thread only
        self._close_s: float | None = None
        self._thread = Thread(target=self._write_all, daemon=True)
        self._thread.start()

    @property
    def is_full(self) -> bool:
        """True while too much is queued to read more."""
        return self._put_bytes - self._written_bytes > _QUEUED_BYTES_MAX

    def lines(self, stream: Stream, name: str) -> LinePrinter:
        """Return a printer of one stream of a command with this name."""
        return LinePrinter(self, stream, f"{self._tag(name)}\t".encode() if self._tag else b"")

    def put(self, stream: Stream, lines: bytes) -> None:
        """Queue whole lines."""
        self._put_bytes += len(lines)
        self._queue.put((stream, lines))

    def hurry(self) -> None:
        """Let `close` wait only a moment, because the run was stopped: its reader may never read
        again."""
        self._close_s = _STOPPED_S

    def close(self) -> None:
        """Wait until everything is printed. After `hurry`, drop the lines that are left."""
        self._queue.put(None)
        self._thread.join(self._close_s)
        if self._thread.is_alive():
            self.error = TimeoutError(errno.ETIMEDOUT, "the reader has stopped reading")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Exception):  # a signal
            self.hurry()
        self.close()

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            stream, lines = item
            self._write(stream, memoryview(lines))
            self._written_bytes += len(lines)

    def _write(self, stream: Stream, lines: memoryview) -> None:
        try:
            while lines and stream in self._fds:
                fd = self._fds[stream]
                try:
                    lines = lines[os.write(fd, lines) :]
                except BlockingIOError:  # another process with this pipe or terminal has set that
                    select.select([], [fd], [])
        except BrokenPipeError:  # the reader has gone
            del self._fds[stream]
        except OSError as error:  # the disk is full
            del self._fds[stream]
            self.error = error


class LinePrinter:
    """Prints one stream of one command in whole lines, so that commands don't mix within a line."""

    def __init__(self, printer: Printer, stream: Stream, tag: bytes) -> None:
        self._printer = printer
        self._stream: Stream = stream
        self._tag = tag
        self._rest = b""

    @property
    def is_full(self) -> bool:
        """True while the printer should get no more."""
        return self._printer.is_full

    def write(self, data: bytes) -> None:
        """Print the whole lines, and keep the rest. A very long line is printed in pieces."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        if lines:
            self._printer.put(self._stream, b"".join(self._tag + line + b"\n" for line in lines))

    def close(self) -> None:
        """Print the rest, with the end of line that it lacks."""
        if self._rest:
            self.write(b"\n")
