"""Restoring: a journal's directory, made anew from its mirror, byte for byte.

Until everything is there and synced, each file has the name of an unfinished one, which no open
reads. Then the files get their names, the newest first. So if a crash interrupts that, an open
finds that the log begins too late, and refuses; it never takes a part of the log for the whole.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Literal, NamedTuple

from journal._disk.disk import TMP, Directory, Disk, File, StrPath, write_all
from journal._disk.posix import PosixDisk
from journal._format.segment import segment_names
from journal._mirror.entry import MirrorDamageError, Piece
from journal._mirror.reading import BEGINNING, read_log
from journal._mirror.store import Store
from journal._names import LOCK
from journal._offline.reader import JournalReader


class Restored(NamedTuple):
    """A finished restore: the directory, the LSN of its last record, the number of its segments,
    their size, and the number of the last entry of the mirror that was read."""

    path: str
    lsn: int
    segments: int
    size_bytes: int
    number: int


def restore_into(store: Store, path: StrPath, disk: Disk | None = None) -> Restored:
    """Restore the journal that is mirrored in `store` into the new directory `path`, and verify it.

    Raises FileExistsError if `path` exists and is not empty, MirrorDamageError, FileNotFoundError
    if the store has no journal, CorruptionError if the restored journal does not verify, and what
    the store and the disk raise. Nothing is left in the directory then.
    """
    disk = disk or PosixDisk()
    target = disk.open_directory(path, write=True)
    try:
        if target.names():
            raise FileExistsError(f"{target.path}: is not empty; give a new directory")
        try:
            number, lsn = _copy(store, target)
            return _verified(target, disk, number, lsn)
        except BaseException:
            with suppress(OSError):
                for name in target.names():
                    target.remove(name)
            raise
    finally:
        target.close(unlock=False)


def _copy(store: Store, target: Directory) -> tuple[int, int]:
    """Copy everything, and return the number of the last entry and the LSN that it promises."""
    place, lsn = BEGINNING, 0
    copy = Copy(target)
    try:
        for entry in read_log(store, place):
            for piece in entry.pieces:
                copy.write(piece, entry.number)
            place, lsn = place.after(entry), entry.last_lsn
    finally:
        copy.close()
    if not place.number:
        raise FileNotFoundError(f"{store.url}: there is no mirror of a journal here")
    unfinished = segment_names([name.removesuffix(TMP) for name in target.names()])
    target.sync()
    for name in reversed(unfinished):
        target.rename_new(f"{name}{TMP}", str(name))
        target.sync()  # so that a crash can't leave an older one without a newer one
    target.open(LOCK, "create").close()  # without it, an empty journal is none
    target.sync()
    return place.number, lsn


def _verified(target: Directory, disk: Disk, number: int, lsn: int) -> Restored:
    with JournalReader.open(target.path, disk=disk) as reader:
        for finding in reader.verify():
            if finding.kind == "corruption":  # a torn tail is the journal's own
                raise finding.as_error()
        segments = reader.segments()
    last_lsn = max((segment.last_lsn for segment in segments), default=0)
    if last_lsn < lsn:
        problem = f"the mirror promises LSN {lsn}, but its bytes end at LSN {last_lsn}"
        raise MirrorDamageError(number, problem)
    size_bytes = sum(segment.size_bytes for segment in segments)
    return Restored(target.path, last_lsn, len(segments), size_bytes, number)


class Copy:
    """The unfinished segments of a copy. Each is synced before the next one is opened."""

    def __init__(self, target: Directory) -> None:
        self._target = target
        self._name = ""
        self._file: File | None = None
        self._size = 0

    def write(self, piece: Piece, number: int) -> None:
        """Write the bytes of entry `number`. Writing them twice changes nothing. Raises
        MirrorDamageError if bytes before them are missing."""
        if piece.name != self._name or self._file is None:
            self._open(piece.name)
        assert self._file is not None
        if piece.offset > self._size:
            problem = f"bytes {self._size} to {piece.offset} of {piece.name} are missing"
            raise MirrorDamageError(number, problem)
        write_all(self._file, piece.data, piece.offset)
        self._size = max(self._size, piece.end)

    def close(self) -> None:
        """Sync and close the open segment."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.sync()
        finally:
            file.close()

    def _open(self, name: str) -> None:
        self.close()
        unfinished = name + TMP
        mode: Literal["update", "create"] = (
            "update" if unfinished in self._target.names() else "create"
        )
        self._file = self._target.open(unfinished, mode)
        self._name, self._size = name, self._file.size()
