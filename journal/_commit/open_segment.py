"""OpenSegment: the segment to which the writer appends, and the state of its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from journal._disk.disk import File, write_all
from journal._format import frame
from journal._format.layout import FRAME_HEADER_BYTES, MARK, RECORDS


class OpenSegment:
    """A segment's file and the offset of the next frame. Only the thread with the turn uses it."""

    def __init__(self, file: File, path: str, header: bytes, recorded_lsn: int) -> None:
        self.file = file
        self.path = path
        self.seed = int.from_bytes(header[-4:], "little")
        self.offset = len(header)
        self.recorded_lsn = recorded_lsn  # the highest durable LSN that the segment states
        self._is_marked = False  # whether a mark is at the end
        self._handles = [file]

    def encode(
        self, payload: bytes, count: int, *, lsn: int, durable_lsn: int, now_ns: int
    ) -> bytes:
        """Return the frame of a payload with `count` records, the first of which has `lsn`."""
        if durable_lsn:  # not of a filler
            self.recorded_lsn = durable_lsn
        return frame.encode(
            RECORDS, payload, count, lsn=lsn, durable_lsn=durable_lsn, now_ns=now_ns, seed=self.seed
        )

    def write(self, data: bytes, offset: int) -> None:
        """Write frames at `offset`, over a mark if there is one. May be repeated."""
        write_all(self.file, data, offset)
        self._is_marked = False
        self.offset = offset + len(data)

    def handle(self, index: int) -> File | None:
        """Return the handle of the lane `index`, or None if the file can't be opened again.

        A file may have `reopen`, which returns another handle of the same file; a user's Disk may
        lack it. The system reports an error to each handle by itself.
        """
        reopen: Callable[[], File] | None = getattr(self.file, "reopen", None)
        while len(self._handles) <= index:
            try:
                if reopen is None:
                    return None
                self._handles.append(reopen())
            except OSError:
                return None
        return self._handles[index]

    def close(self) -> None:
        for file in reversed(self._handles):  # the last close may report an error
            file.close()

    def mark(self, next_lsn: int, durable_lsn: int, now_ns: int) -> None:
        """Write a mark, which states that every record up to `durable_lsn` is durable.

        The next frame is written over it.
        """
        mark = frame.encode(
            MARK,
            b"",
            0,
            lsn=next_lsn,
            durable_lsn=durable_lsn,
            now_ns=now_ns,
            seed=self.seed,
        )
        self.recorded_lsn = durable_lsn
        write_all(self.file, mark, self.offset)
        self._is_marked = True

    def trim(self) -> None:
        """Free the space that was preallocated and is not used."""
        # A mark stays: a reader that has seen its durable LSN must find that again, until the next
        # segment exists and proves it.
        size = self.offset + FRAME_HEADER_BYTES * self._is_marked
        with suppress(OSError):  # it saves space, and no promise depends on it
            if self.file.size() > size:
                self.file.truncate(size)
