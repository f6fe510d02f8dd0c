"""DirectoryStore: a store in a mounted directory, for `file://`.

An entry is written to a temporary file, which is synced and then given a name that no file has yet.
Then the directory is synced. So an entry or a blob is whole and durable once it has its name. The
layout is flat: `entry-` and 20 digits, `blob-` and the blob's name.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from journal._disk.disk import (
    TMP,
    Directory,
    Disk,
    StrPath,
    discard_file,
    is_disk_error,
    remove_if_exists,
    write_all,
)
from journal._disk.mounts import NETWORK_FILE_SYSTEMS, file_system_of
from journal._disk.posix import disk_or_default
from journal._mirror.store import AbsentError, RefusedError, TakenError, UnreachableError
from journal._mutex import is_raised_by_call
from journal.errors import JournalError

ENTRY_BYTES_MAX = 16 << 20
_ENTRY_NAME = re.compile(r"entry-([0-9]{20})")
_TMP_NAME = re.compile(r"(?:entry|blob)-([0-9]{20})(?:-.*)?\.[0-9a-f]{32}\.tmp")
_BLOB_PREFIX = "blob-"
_PIECE_BYTES = 1 << 20


class DirectoryStore:
    """A store in the directory at `path`.

    A writer makes the last component if it is missing. A reader makes nothing, and may belong to
    another user than the directory.
    """

    entry_bytes_max = ENTRY_BYTES_MAX

    def __init__(self, path: StrPath, disk: Disk | None = None, *, is_reader: bool = False) -> None:
        """Open the store. Raises RefusedError for a directory that can't be used, and, for a
        reader, FileNotFoundError for one that is missing."""
        self._disk = disk_or_default(disk)
        self._is_reader = is_reader
        try:
            self._directory: Directory = self._disk.open_directory(path, write=not is_reader)
        except (OSError, JournalError) as error:
            if not _is_raised_by_disk(error, self._disk):
                raise
            if is_reader and isinstance(error, FileNotFoundError):
                problem = f"file://{path}: there is no mirror of a journal here"
                raise FileNotFoundError(problem) from error
            what = getattr(error, "strerror", None) or error
            raise RefusedError(f"{path}: the mirror's directory can't be opened: {what}") from error
        self.url = f"file://{self._directory.path}"
        file_system = None if disk else file_system_of(self._directory.path)
        if file_system in NETWORK_FILE_SYSTEMS:
            self._directory.close(unlock=False)
            raise RefusedError(
                f"{self.url}: the directory is on {file_system}, which may repeat a request whose "
                "answer was lost, and then report a name as taken or lose the fence between two "
                "writers; use object storage, or a file system that is not shared"
            )
        # A sync that failed may have lost names that a later sync reports as safe.
        self._failure: OSError | None = None

    def append(self, number: int, data: bytes) -> None:
        what = f"entry {number}"
        try:
            self._create(_entry_name(number), [data], what, replace=False)
        except FileExistsError as error:
            if not _is_raised_by_disk(error, self._directory):
                raise
            self._sync(what)  # the name may be this writer's own, from before a lost answer
            raise TakenError(f"{self.url}: {what} exists") from error

    def entry(self, number: int) -> bytes:
        return b"".join(self._read(_entry_name(number), f"entry {number}"))

    def numbers(self, after: int) -> list[int]:
        matches = map(_ENTRY_NAME.fullmatch, self._names())
        return [number for match in matches if match and (number := int(match[1])) > after]

    def last(self, after: int) -> int:
        return max(self.numbers(after), default=0)

    def trim(self, numbers: Iterable[int]) -> None:
        trimmed = set(numbers)
        last = max(trimmed, default=0)
        names = [_entry_name(number) for number in trimmed]
        # A writer that died may have left unfinished files. One that was overtaken may still write
        # its own: then its request fails, and it learns that it was overtaken. This writer puts no
        # blob of so low a number any more.
        matches = map(_TMP_NAME.fullmatch, self._names())
        self._remove([*names, *(match[0] for match in matches if match and int(match[1]) <= last)])

    def put_blob(self, name: str, pieces: Iterable[bytes]) -> None:
        self._create(_BLOB_PREFIX + name, pieces, f"blob {name}", replace=True)

    def blob(self, name: str) -> Iterator[bytes]:
        return self._read(_BLOB_PREFIX + name, f"blob {name}")

    def blob_names(self) -> list[str]:
        return [
            name.removeprefix(_BLOB_PREFIX)
            for name in self._names()
            if name.startswith(_BLOB_PREFIX) and not name.endswith(TMP)
        ]

    def delete_blobs(self, names: Iterable[str]) -> None:
        self._remove([_BLOB_PREFIX + name for name in names])

    def close(self) -> None:
        self._directory.close(unlock=False)

    # --- internal ---

    def _create(self, name: str, pieces: Iterable[bytes], what: str, *, replace: bool) -> None:
        """Write a file, and give it its name. Pass on what `pieces` raises, which is foreign code.
        Raises FileExistsError if the name exists, unless `replace`."""
        tmp = f"{name}.{self._disk.new_id().hex()}{TMP}"
        try:
            with self._reaching(what):
                file = self._directory.open(tmp, "create")
            try:
                offset = 0
                for piece in pieces:
                    with self._reaching(what):
                        write_all(file, piece, offset)
                    offset += len(piece)
                with self._reaching(what):
                    file.sync()
            finally:
                file.close()
            with self._reaching(what, but=FileExistsError):
                (self._directory.rename if replace else self._directory.rename_new)(tmp, name)
        except BaseException:
            remove_if_exists(self._directory, tmp)
            raise
        self._sync(what)

    def _sync(self, what: str) -> None:
        with self._reaching(what):
            if self._failure is None:
                try:
                    self._directory.sync()
                except OSError as error:
                    if not _is_raised_by_disk(error, self._directory):
                        raise
                    self._failure = error
            if self._failure is not None:
                raise self._failure

    def _read(self, name: str, what: str) -> Iterator[bytes]:
        with self._reaching(what):
            try:
                file = self._directory.open(name, "read")
            except FileNotFoundError as error:
                if not _is_raised_by_disk(error, self._directory):
                    raise
                raise AbsentError(f"{self.url}: {what} does not exist") from error
        try:
            offset = 0
            while True:
                with self._reaching(what):
                    data = file.read(_PIECE_BYTES, offset)
                if not data:
                    return
                yield data
                offset += len(data)
        finally:
            file.close()

    def _names(self) -> list[str]:
        with self._reaching("the list of names"):
            return self._directory.names()

    def _remove(self, names: list[str]) -> None:
        with self._reaching("a removal"):
            for name in names:
                discard_file(self._directory, name)

    @contextmanager
    def _reaching(self, what: str, but: type[OSError] | None = None) -> Iterator[None]:
        """Turn errors of the disk into errors of the store, except those of the type `but`."""
        try:
            yield
        except (OSError, JournalError) as error:
            is_kept = but is not None and isinstance(error, but)
            if is_kept or not _is_raised_by_disk(error, self._directory):
                raise
            is_refused = isinstance(error, JournalError) or (
                self._is_reader and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
            )
            kind = RefusedError if is_refused else UnreachableError
            why = getattr(error, "strerror", None) or error
            raise kind(f"{self.url}: {what}: {why}") from error


def _is_raised_by_disk(error: OSError | JournalError, disk: Disk | Directory) -> bool:
    """Return whether the disk raised `error`, rather than a signal handler."""
    if isinstance(error, JournalError):  # the disk refuses a name or a path
        return is_raised_by_call(error, "journal")
    return is_disk_error(error, disk)


def _entry_name(number: int) -> str:
    return f"entry-{number:020d}"
