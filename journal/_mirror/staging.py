"""Staging: files that are made anew beside a directory's own, until all of them are whole.

What a mirror has and the directory lacks is written to unfinished files, as it arrives, so memory
holds one entry at a time. A segment with damaged bytes is copied, and the mirror's take their place
in the copy. No open reads these files. They get their names only once it is known that nothing is
to be put aside.
"""

from __future__ import annotations

from typing import Literal

from journal._disk.disk import (
    TMP,
    Directory,
    File,
    ReadableFile,
    discard_file,
    file_size,
    write_all,
)
from journal._mirror.entry import Piece, is_checkpoint

_COPY_BYTES = 1 << 20


class Staging:
    """The unfinished segments and checkpoints of a directory. One thread uses it.

    lacking: the names of those to which bytes are added. fixed: for each segment in which damaged
    bytes are replaced, the offset of the first one. A segment may be in both.
    """

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self._file: File | None = None
        self._open_name = ""
        self._begun = set[str]()
        self.lacking: list[str] = []
        self.fixed: dict[str, int] = {}

    @property
    def names(self) -> set[str]:
        """The names of all of them."""
        return {*self.lacking, *self.fixed}

    def write(self, piece: Piece) -> None:
        """Write bytes of a file that the directory lacks. All bytes before them are in the
        directory, or were written before. Raises the disk's errors."""
        if piece.name not in self.lacking:
            self.lacking.append(piece.name)
        file = self._opened(piece.name, copied_bytes=piece.offset)
        write_all(file, piece.data, piece.offset)

    def fix(self, piece: Piece) -> None:
        """Replace damaged bytes of a segment, or add lost ones, and keep those after them. Raises
        the disk's errors."""
        self.fixed.setdefault(piece.name, piece.offset)
        file = self._opened(piece.name, copied_bytes=file_size(self.directory, piece.name))
        write_all(file, piece.data, piece.offset)

    def put(self, *, at_once: bool = False) -> None:
        """Sync the files, and give them their names, the checkpoints and the oldest segments first.
        So a crash leaves a log that ends too early, which the next comparison finds. Raises the
        disk's errors.

        `at_once`: readers read the directory, and shall not see that end. So the directory is
        synced only after the last name, and a crash may leave any of them.
        """
        self._close()
        present = set(self.directory.names())
        for name in sorted(self.names, key=lambda name: (not is_checkpoint(name), name)):
            if name in present:
                self.directory.rename(name + TMP, name)
            else:
                self.directory.rename_new(name + TMP, name)
            if not at_once:
                self.directory.sync()
        if at_once:
            self.directory.sync()
        self._begun, self.lacking, self.fixed = set(), [], {}

    def drop(self, names: set[str] | None = None) -> None:
        """Remove the unfinished files `names` (None: all)."""
        dropped = self.names if names is None else self.names & names
        if self._open_name in dropped or names is None:
            self._close()
        for name in dropped:
            discard_file(self.directory, name + TMP)
        self._begun -= dropped
        self.lacking = [name for name in self.lacking if name not in dropped]
        self.fixed = {name: at for name, at in self.fixed.items() if name not in dropped}

    def open(self, name: str, mode: Literal["read"]) -> ReadableFile:
        """Open a file as `put` would leave it, to read. Raises the disk's errors."""
        return self.directory.open(name + TMP if name in self.names else name, mode)

    def _opened(self, name: str, copied_bytes: int) -> File:
        """Return the unfinished file, open. A new one begins with a copy of the first bytes of the
        directory's file."""
        if self._file is not None and name == self._open_name:
            return self._file
        self._close()
        unfinished = name + TMP
        is_begun = name in self._begun
        if not is_begun:
            discard_file(self.directory, unfinished)  # a crash may have left it
            self._begun.add(name)
        mode: Literal["update", "create"] = "update" if is_begun else "create"
        file = self._file = self.directory.open(unfinished, mode)
        self._open_name = name
        if copied_bytes and not is_begun:
            self._copy_to(file, name, copied_bytes)
        return file

    def _copy_to(self, target: File, name: str, size: int) -> None:
        """Copy the first `size` bytes of the directory's file."""
        file = self.directory.open(name, "read")
        try:
            for offset in range(0, size, _COPY_BYTES):
                data = file.read(min(_COPY_BYTES, size - offset), offset)
                write_all(target, data, offset)
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
