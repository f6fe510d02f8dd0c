"""Fixes: the repairs of a journal's files that lose nothing, made before anything is cut.

Segments that have each other's names get those in their headers, checkpoints those of the LSNs that
they state, and a damaged header is replaced by the one that the segment must have had. A
FixedDirectory shows the result before it is made.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from typing import Literal, NamedTuple

from journal._disk.disk import TMP, Directory, ReadableDirectory, ReadableFile, write_all
from journal._format.checkpoint import MisnamedCheckpointError, checkpoint_name
from journal._format.layout import SEGMENT_HEADER_BYTES
from journal._format.segment import SegmentHeader, SegmentName, read_header, segment_names
from journal._offline.header_fix import fixed_header
from journal._recovery.stray_segments import Identity
from journal.errors import CorruptionError, DamageReason, JournalError

_COPY_BYTES = 1 << 20
_ASIDE = re.compile(r"\.seg\.aside-\d+$")
Pair = tuple[str, str]  # two names of files in the journal's directory


class Fixes(NamedTuple):
    """The fixes to make: the renames, each with the old and the new name, and the new headers, each
    with the name that its file has after the renames."""

    renamed: tuple[Pair, ...] = ()
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def sources(self) -> list[str]:
        """The names that the changed files have now."""
        old_names = {new: old for old, new in self.renamed}
        rebuilt = [old_names.get(name, name) for name, _ in self.headers]
        return sorted({*old_names.values(), *rebuilt})


def plan_fixes(directory: ReadableDirectory, misnamed: Iterable[MisnamedCheckpointError]) -> Fixes:
    """Return the fixes of the segments in the directory, and of the checkpoints in `misnamed`."""
    names = directory.names()
    segments = segment_names(names)
    identity = Identity(directory, segments)
    wrong = {
        str(name): str(header.name)
        for name, header in identity.headers.items()
        if header and header.name != name and header.journal_id == identity.journal_id
    }
    for name in filter(_ASIDE.search, names):  # an interrupted repair left it
        header = _header_under(directory, name)
        if header and header.journal_id == identity.journal_id:
            wrong[name] = str(header.name)
    for error in misnamed:
        if bytes.fromhex(error.journal_id) == identity.journal_id:
            wrong[error.path.rpartition("/")[2]] = checkpoint_name(error.lsn)
    renamed = _possible(wrong, set(names))
    headers = (
        (str(name), _fixed_header(directory, name, identity.journal_id))
        for name, header in identity.headers.items()
        if header is None and identity.journal_id
    )
    return Fixes(renamed, tuple((name, fixed) for name, fixed in headers if fixed))


def _header_under(directory: ReadableDirectory, name: str) -> SegmentHeader | None:
    with suppress(JournalError):
        file = directory.open(name, "read")
        try:
            return read_header(file, 0)
        finally:
            file.close()
    return None


def _fixed_header(
    directory: ReadableDirectory, name: SegmentName, journal_id: bytes
) -> bytes | None:
    with suppress(JournalError):  # a newer version of the format, or not a regular file
        file = directory.open(str(name), "read")
        try:
            read_header(file, name.first_lsn)
        except CorruptionError as error:
            if error.reason is DamageReason.HEADER_DAMAGED:
                return fixed_header(file, name, journal_id)
        finally:
            file.close()
    return None


def _possible(wrong: dict[str, str], taken: set[str]) -> tuple[Pair, ...]:
    """Return the renames of the files in `wrong` to the names in their headers.

    A file keeps its name if two files claim the same new one, or if the new one belongs to a file
    that keeps its name.
    """
    claims = Counter(wrong.values())
    moves = {file: name for file, name in wrong.items() if claims[name] == 1}
    while stuck := [file for file, name in moves.items() if name not in moves and name in taken]:
        for file in stuck:
            del moves[file]
    return tuple(sorted(moves.items()))


class FixedDirectory:
    """A directory as it will be after the fixes."""

    def __init__(self, directory: ReadableDirectory, fixes: Fixes) -> None:
        self._directory = directory
        self._fixes = fixes
        self._sources = {new: old for old, new in fixes.renamed}
        self._moved = set(dict(fixes.renamed)) - set(self._sources)

    @property
    def path(self) -> str:
        return self._directory.path

    def names(self) -> list[str]:
        return sorted({*self._directory.names(), *self._sources} - self._moved)

    def open(self, name: str, mode: Literal["read"]) -> ReadableFile:
        if name in self._moved:
            raise FileNotFoundError(2, "the file will have another name", f"{self.path}/{name}")
        file = self._directory.open(self._sources.get(name, name), mode)
        return _FixedFile(file, f"{self.path}/{name}", dict(self._fixes.headers).get(name, b""))


class _FixedFile:
    def __init__(self, file: ReadableFile, path: str, header: bytes) -> None:
        self._file = file
        self._header = header
        self.path = path

    def read(self, size: int, offset: int) -> bytes:
        data = self._file.read(size, offset)
        fixed = self._header[offset : offset + size]
        return fixed + data[len(fixed) :]

    def size(self) -> int:
        return max(self._file.size(), len(self._header))

    def next_data(self, offset: int) -> int:
        return offset if offset < len(self._header) else self._file.next_data(offset)

    def close(self) -> None:
        self._file.close()


def apply_fixes(directory: Directory, fixes: Fixes) -> None:
    """Make the fixes. The caller has copies of the files.

    A header is replaced in a new file, which takes the old one's place at once.
    """
    for old, new in _in_order(dict(fixes.renamed), set(directory.names())):
        directory.rename_new(old, new)
        directory.sync()
    for name, header in fixes.headers:
        _replace_header(directory, name, header)
    directory.sync()


def _replace_header(directory: Directory, name: str, header: bytes) -> None:
    source = directory.open(name, "read")
    try:
        with suppress(FileNotFoundError):
            directory.remove(name + TMP)
        target = directory.open(name + TMP, "create")
        try:
            write_all(target, header, 0)
            for offset in range(SEGMENT_HEADER_BYTES, source.size(), _COPY_BYTES):
                write_all(target, source.read(_COPY_BYTES, offset), offset)
            target.sync()
        finally:
            target.close()
    finally:
        source.close()
    directory.rename(name + TMP, name)


def _in_order(moves: dict[str, str], taken: set[str]) -> Iterator[Pair]:
    """Yield `moves` ordered so that each new name is free when its turn comes.

    In a ring of names, one file first moves to a temporary name that is not `taken`.
    """
    pending = dict(moves)
    while pending:
        file = next((file for file, name in pending.items() if name not in pending), None)
        if file:
            yield file, pending.pop(file)
            continue
        file, name = pending.popitem()
        aside = next(free for n in count(1) if (free := f"{file}.aside-{n}") not in taken)
        yield file, aside
        pending[aside] = name
