"""Checkpoint: the state as of one LSN, in JSON with one item a line, so that it can be streamed
and searched.

    {"format":"journal-checkpoint","version":2,…,"lsn":4096,…,
    "items":[
    {…},
    {…}
    ],
    "count":2,"crc32c":"89abcdef"}

The CRC covers every byte before the last line, including the LF before it.
Source: journal/docs/FORMAT.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from journal._disk.disk import (
    TMP,
    Directory,
    File,
    ReadableDirectory,
    ReadableFile,
    remove_if_exists,
)
from journal._format.checksummed_writer import ChecksummedWriter
from journal._format.crc32c import checksum
from journal._format.items import CODEC, EncodedItems, decoder, encode_item, plain_text, text_of
from journal._format.items import JSON as JSON  # the modules that freeze import it from here
from journal._format.lines import count_lines, lines_of
from journal._handle import OpenHandle
from journal._mutex import is_raised_by_call
from journal._names import CHECKPOINT_NAME
from journal._public import public
from journal.errors import (
    CheckpointItemError,
    CorruptionError,
    DamageReason,
    FormatReason,
    FormatVersionError,
    JournalError,
)

FORMAT = "journal-checkpoint"
VERSION = 2  # the version written; version 1, whose items hold no bytes, can be read too
LINE_BYTES_MAX = 1 << 26
# Every writer keeps at least two checkpoints. How many more it is configured to keep is not on
# disk, so readers rely on two.
CHECKPOINTS_KEPT_MIN = 2
_FIRST = b'"items":[\n'
_HEADER_KINDS: dict[str, type] = {
    **dict.fromkeys(("version", "epoch", "lsn"), int),
    **dict.fromkeys(("journal_id", "created_at", "application"), str),
}
_CHUNK_BYTES = 1 << 16
_FAST_FROM_BYTES = 1 << 23  # decoding this many takes longer than importing msgspec, 20 ms
_LAST_LINE_BYTES_MAX = 64


class BadCheckpointError(JournalError):
    """A checkpoint that does not verify. Recovery looks for an older one."""

    reason = DamageReason.CHECKPOINT_DAMAGED

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path}: {what}")
        self.what = what


class MisnamedCheckpointError(BadCheckpointError):
    """A whole checkpoint of `journal_id`, which states `lsn`, under the name of another one."""

    reason = DamageReason.MISNAMED

    def __init__(self, path: str, what: str, *, lsn: int, journal_id: str) -> None:
        super().__init__(path, what)
        self.path = path
        self.lsn = lsn
        self.journal_id = journal_id


def checkpoint_name(lsn: int) -> str:
    return f"checkpoint-{lsn:020d}.json"


def checkpoint_lsns(names: list[str]) -> list[int]:
    """Return the LSNs of the checkpoints among `names`, ascending."""
    return sorted(int(match[1]) for match in map(CHECKPOINT_NAME.fullmatch, names) if match)


def floor_lsn(lsns: Sequence[int]) -> int:
    """Return the LSN after which every writer whose checkpoints are at `lsns` keeps the log.

    `lsns` ascend. The result is the LSN of the older of the two newest checkpoints, or 0 if there
    are fewer than two: then the writer keeps the whole log.
    """
    return lsns[-CHECKPOINTS_KEPT_MIN] if len(lsns) >= CHECKPOINTS_KEPT_MIN else 0


@public
class Checkpoint(OpenHandle):
    """A verified checkpoint. Its file stays open, so `items()` works even after compaction has
    removed it."""

    size_bytes: int
    """The size of its file in bytes."""

    path: str
    """The path of its file."""

    count: int
    """The number of its items."""

    lsn: int
    """The LSN up to which it holds the state."""

    epoch: int
    """The epoch of its writer."""

    application: str
    """`Options.application` of its writer; "" if that had none."""

    journal_id: str
    """The identity of its journal, as 32 hexadecimal digits."""

    created_at_ms: int
    """The time at which it was written, in Unix milliseconds."""

    def __init__(self, file: ReadableFile, size: int, header: dict[str, Any], count: int) -> None:
        self._file = file
        self._first_item_offset = header["items_offset"]
        self._version: int = header["version"]
        self.size_bytes = size
        self.path = file.path
        self.count = count
        self.lsn = header["lsn"]
        self.epoch = header["epoch"]
        self.application = header["application"]
        self.journal_id = header["journal_id"]
        created = datetime.fromisoformat(header["created_at"])
        self.created_at_ms = round(created.timestamp() * 1000)

    def _blocks(self) -> Iterator[bytes]:
        """Read the lines of the items, several at a time, each with its comma and LF."""
        offset, end = self._first_item_offset, b""
        for block in _blocks(self._file, offset, self.size_bytes):
            offset += len(block)
            if offset < self.size_bytes - _LAST_LINE_BYTES_MAX - len(b"],\n"):
                yield block
            else:
                end += block
        if lines := lines_of(end)[:-2]:  # the last two lines are not items
            yield b"".join(lines)

    def _encoded_items(self) -> Iterator[EncodedItems]:
        """Yield the items as their lines, for another checkpoint of this version."""
        for block in self._blocks():
            is_large = len(block) > _CHUNK_BYTES * 2
            for part in lines_of(block) if is_large else [block]:
                text = part.removesuffix(b"\n").removesuffix(b",")
                yield EncodedItems(text, count_lines(part))

    def items(self) -> Iterator[JSON]:
        """Yield the items. Raises CorruptionError for one that can't be decoded."""
        return chain.from_iterable(self._item_lists())

    def _item_lists(self, take: Callable[[bytes], bytes] | None = None) -> Iterator[list[JSON]]:
        """Yield the items, several at a time. With `take`, these are the items in the lines that it
        returns: the first ones of those it is given."""
        offset, number = self._first_item_offset, 0
        is_large = self.size_bytes >= _FAST_FROM_BYTES
        for block in self._blocks():
            left = take(block) if take else block
            count = count_lines(left)
            # Not for maps that stay in memory: msgspec makes most of their keys anew for each map.
            may_be_fast = is_large and (take is not None or left.startswith(b"["))
            yield from self._decoded(left, count, offset, number, may_be_fast)
            offset += len(block)
            number += count if left is block else count_lines(block)

    def _plain_text(self, lines: bytes) -> str | None:
        """Return the lines of items as a JSON array if msgspec can decode it, else None."""
        is_large = self.size_bytes >= _FAST_FROM_BYTES
        return plain_text(self._version, lines) if lines and is_large else None

    def _decoded(
        self, block: bytes, count: int, offset: int, number: int, may_be_fast: bool
    ) -> Iterator[list[JSON]]:
        """Yield lists of the items in the `count` lines of `block`. The first one is item `number`,
        at `offset`.

        All lines are decoded as one list, which takes half the time of decoding each by itself.
        """
        decode = decoder(self._version, block, is_large=may_be_fast)
        try:
            items = decode(f"[{text_of(block)}]")
        except (ValueError, RecursionError) as error:
            if not is_raised_by_call(error, *CODEC):
                raise
            items = []
        if len(items) == count:
            yield items
            return
        for line in lines_of(block):  # one of the lines can't be decoded, so find it
            try:
                item = decode(text_of(line))
            except (ValueError, RecursionError) as error:
                if not is_raised_by_call(error, *CODEC):
                    raise
                problem = f"item {number} of the checkpoint can't be decoded: {error}"
                raise CorruptionError(
                    self.path, offset, self.lsn, problem, reason=DamageReason.ITEM_UNREADABLE
                ) from error
            yield [item]
            offset += len(line)
            number += 1

    def close(self) -> None:
        """Close the file. From now on `items()` raises OSError. A second call does nothing."""
        self._file.close()

    def __repr__(self) -> str:
        return f"<Checkpoint lsn={self.lsn} epoch={self.epoch} count={self.count}>"


def read_checkpoint(
    directory: ReadableDirectory, lsn: int, progress: Callable[[int], object] = id
) -> Checkpoint:
    """Open and verify the checkpoint whose name states `lsn`.

    `progress` is called now and then, with the bytes read so far. Raises BadCheckpointError, which
    says what does not verify, and FormatVersionError.
    """
    file = directory.open(checkpoint_name(lsn), "read")
    try:
        return _verified(file, lsn, progress)
    except BaseException:
        file.close()
        raise


def read_application(directory: ReadableDirectory, lsn: int) -> str:
    """Return the application that the checkpoint at `lsn` states in its first line.

    Nothing else is read, so the checkpoint need not verify.
    """
    return str(_read_first_line(directory, lsn)["application"])


def read_stated_lsn(directory: ReadableDirectory, lsn: int) -> int:
    """Return the LSN that the checkpoint whose name states `lsn` states in its first line."""
    return int(_read_first_line(directory, lsn)["lsn"])


def _read_first_line(directory: ReadableDirectory, lsn: int) -> dict[str, Any]:
    file = directory.open(checkpoint_name(lsn), "read")
    try:
        return _read_header(file, file.size())
    finally:
        file.close()


def _verified(file: ReadableFile, lsn: int, progress: Callable[[int], object]) -> Checkpoint:
    size = file.size()
    tail = file.read(_LAST_LINE_BYTES_MAX, max(0, size - _LAST_LINE_BYTES_MAX))
    last_line = tail[tail.rfind(b"\n", 0, -1) + 1 :]
    body_bytes = size - len(last_line)
    crc = lines = 0
    for offset in range(0, body_bytes, _CHUNK_BYTES):
        chunk = file.read(min(_CHUNK_BYTES, body_bytes - offset), offset)
        crc = checksum(chunk, crc)
        lines += count_lines(chunk)
        progress(offset)
    count = lines - 3
    if count < 0 or last_line != _last_line(count, crc):
        problem = "the count and the checksum in the last line do not match the content"
        raise BadCheckpointError(file.path, problem)
    header = _read_header(file, size)
    stated_lsn, journal_id = header["lsn"], header["journal_id"]
    if stated_lsn != lsn:
        problem = f"the file states LSN {stated_lsn}, but its name states LSN {lsn}"
        raise MisnamedCheckpointError(file.path, problem, lsn=stated_lsn, journal_id=journal_id)
    return Checkpoint(file, size, header, count)


def _read_header(file: ReadableFile, size: int) -> dict[str, Any]:
    lines = chain.from_iterable(map(lines_of, _blocks(file, 0, size)))
    first, second = next(lines, b""), next(lines, b"")
    try:
        header = json.loads(first.decode().removesuffix(",\n") + "}")
        if header["format"] != FORMAT or second != _FIRST:
            raise BadCheckpointError(file.path, f"the file is not a {FORMAT}")
        version = header["version"]
        for key, kind in _HEADER_KINDS.items():
            if type(header[key]) is not kind:
                problem = f"{key} is {header[key]!r}, which is not of type {kind.__name__}"
                raise BadCheckpointError(file.path, problem)
        bytes.fromhex(header["journal_id"])
        datetime.fromisoformat(header["created_at"]).timestamp()
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        if not is_raised_by_call(error, *CODEC):
            raise
        problem = f"the first line can't be read: {error!r}"
        raise BadCheckpointError(file.path, problem) from error
    if version > VERSION:
        raise FormatVersionError(
            f"checkpoint version {version} is newer than {VERSION}; "
            "open it with a newer journal-engine",
            path=file.path,
            reason=FormatReason.NEWER_VERSION,
        )
    header["items_offset"] = len(first) + len(second)
    return dict(header)


def decode_item(text: bytes) -> JSON:
    """Return the item in a part of a line, as the version that is written has it."""
    return decoder(VERSION, text)(text.decode())


def write_checkpoint(
    directory: Directory,
    items: Iterable[JSON],
    *,
    journal_id: str,
    epoch: int,
    lsn: int,
    now_ns: int,
    application: str,
    pace: Callable[[int], int],
) -> None:
    """Stream `items` into a file, and publish it under its name, atomically and durably.

    Raises CheckpointItemError for an item that would not be read back unchanged.

    `pace` is called after the first item, with the bytes encoded so far. It returns the number of
    items after which to call it again, and may sleep, or raise to give up. Whatever is raised, the
    `*.tmp` file is removed, unless the disk fails to do even that.
    """
    header = _header(journal_id, epoch, lsn, now_ns, application)
    _publish(directory, header, items, directory.rename, pace)
    directory.sync()


def state_application(
    directory: Directory, application: str, *, journal_id: str, epoch: int, now_ns: int
) -> None:
    """Publish an empty checkpoint at LSN 0, which states the application of a new journal.

    Its name is not synced: the sync of the directory for the first segment's name does that, before
    any record is written. Raises FileExistsError if there is a checkpoint at LSN 0.
    """
    header = _header(journal_id, epoch, 0, now_ns, application)
    _publish(directory, header, (), directory.rename_new, lambda _: 0)


def _header(journal_id: str, epoch: int, lsn: int, now_ns: int, application: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "journal_id": journal_id,
        "epoch": epoch,
        "lsn": lsn,
        "created_at": f"{datetime.fromtimestamp(now_ns // 10**9, UTC):%Y-%m-%dT%H:%M:%S}"
        f".{now_ns // 1_000_000 % 1000:03d}Z",
        "application": application,
    }


def _publish(
    directory: Directory,
    header: dict[str, Any],
    items: Iterable[JSON],
    rename: Callable[[str, str], None],
    pace: Callable[[int], int],
) -> None:
    """Write a checkpoint to a `*.tmp` file, sync it, and rename it."""
    name = checkpoint_name(header["lsn"])
    remove_if_exists(directory, name + TMP)
    file = directory.open(name + TMP, "create")
    try:
        try:
            _write(file, header, items, pace)
            file.sync()
        finally:
            file.close()
        rename(name + TMP, name)
    except BaseException:
        remove_if_exists(directory, name + TMP)
        raise


def _write(
    file: File, header: dict[str, Any], items: Iterable[JSON], pace: Callable[[int], int]
) -> None:
    out = ChecksummedWriter(file)
    first = json.dumps(header, ensure_ascii=False, separators=(",", ":")).removesuffix("}")
    out.add(first.encode() + b",\n" + _FIRST)
    count, pause_at = 0, 1
    for item in items:
        encoded = item if type(item) is EncodedItems else EncodedItems(encode_item(item, count), 1)
        lines = encoded.lines
        if len(lines) > LINE_BYTES_MAX - 2:
            problem = f"its line of {len(lines)} bytes is over {LINE_BYTES_MAX}; split the item"
            raise CheckpointItemError(count, "", problem)
        out.add(b",\n" + lines if count else lines)
        count += encoded.number
        if count >= pause_at:
            pause_at = count + pace(out.size_bytes)
    out.add(b"\n],\n" if count else b"],\n")
    out.add(_last_line(count, checksum(bytes(out.pending), out.crc)))
    out.flush()


def _last_line(count: int, crc: int) -> bytes:
    return f'"count":{count},"crc32c":"{crc:08x}"}}\n'.encode()


def _blocks(file: ReadableFile, offset: int, size: int) -> Iterator[bytes]:
    """Yield the lines from `offset` on, each with its LF, as many at a time as end in one read.
    Stop at a line that is too long."""
    pieces: list[bytes] = []
    while offset < size and len(pieces) * _CHUNK_BYTES <= LINE_BYTES_MAX:
        chunk = file.read(min(_CHUNK_BYTES, size - offset), offset)
        if not chunk:
            return
        offset += len(chunk)
        last_end = chunk.rfind(b"\n") + 1
        if last_end:
            yield b"".join((*pieces, chunk[:last_end]))
            pieces = []
        pieces.append(chunk[last_end:])
