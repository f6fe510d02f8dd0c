"""Staging: files that are made anew beside a directory's own, until all of them are whole.

What a mirror has and the directory lacks is written to unfinished files, as it arrives, so memory
holds one entry at a time. No open reads them. They get their names only once it is known that
nothing is to be put aside.
"""

from __future__ import annotations

from typing import Literal

from journal._disk.disk import TMP, Directory, File, discard_file, write_all
from journal._mirror.entry import Piece, is_checkpoint

_COPY_BYTES = 1 << 20


class Staging:
    """The unfinished segments and checkpoints of a directory. One thread uses it."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._file: File | None = None
        self._open_name = ""
        self.names: list[str] = []

    def write(self, piece: Piece) -> None:
        """Write bytes of a file. All bytes before them are in the directory, or were written
        before. Raises the disk's errors."""
        if piece.name != self._open_name or self._file is None:
            self._open(piece)
        assert self._file is not None
        write_all(self._file, piece.data, piece.offset)

    def put(self) -> None:
        """Sync the files, and give them their names, the checkpoints and the oldest segments first.
        So a crash leaves a log that ends too early, which the next comparison finds. Raises the
        disk's errors."""
        self._close()
        present = set(self._directory.names())
        for name in sorted(self.names, key=lambda name: (not is_checkpoint(name), name)):
            if name in present:
                self._directory.rename(name + TMP, name)
            else:
                self._directory.rename_new(name + TMP, name)
            self._directory.sync()
        self.names = []

    def drop(self, names: set[str] | None = None) -> None:
        """Remove the unfinished files `names` (None: all)."""
        dropped = [name for name in self.names if names is None or name in names]
        if self._open_name in dropped or names is None:
            self._close()
        for name in dropped:
            discard_file(self._directory, name + TMP)
        self.names = [name for name in self.names if name not in dropped]

    def _open(self, piece: Piece) -> None:
        self._close()
        unfinished = piece.name + TMP
        is_known = piece.name in self.names
        if not is_known:
            discard_file(self._directory, unfinished)  # a crash may have left it
        mode: Literal["update", "create"] = "update" if is_known else "create"
        self._file, self._open_name = self._directory.open(unfinished, mode), piece.name
        if not is_known:
            self.names.append(piece.name)
            self._copy_before(piece)

    def _copy_before(self, piece: Piece) -> None:
        """Copy the bytes that the directory has before the piece."""
        assert self._file is not None
        if not piece.offset:
            return
        file = self._directory.open(piece.name, "read")
        try:
            for offset in range(0, piece.offset, _COPY_BYTES):
                data = file.read(min(_COPY_BYTES, piece.offset - offset), offset)
                write_all(self._file, data, offset)
        finally:
            file.close()

    def _close(self) -> None:
        """Sync and close the open file."""
        file, self._file, self._open_name = self._file, None, ""
        if file is not None:
            try:
                file.sync()
            finally:
                file.close()
