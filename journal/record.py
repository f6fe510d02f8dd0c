"""Record: one msgpack object, and the rule that what packs comes back equal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any

import msgpack

from journal.errors import RecordError

Record = Any  # nil, bool, int, float, str, bytes, list, dict, msgpack.ExtType, msgpack.Timestamp
NESTING_MAX = 1000


@dataclass(slots=True)
class Entry:
    """A `record` with its place in the log: (`epoch`, `lsn`) names it for ever.

    `written_at_ns` is when its frame was made, in Unix nanoseconds. `path` (its segment) and
    `offset` (its frame in that, in bytes) are None unless a JournalReader made this.
    """

    lsn: int
    epoch: int
    written_at_ns: int
    record: Record
    offset: int | None = None
    path: str | None = None


class PackedRecord(tuple[Record, bytes]):
    """A record and its bytes, made by `pack` alone; it is taken wherever a record is."""

    __slots__ = ()
    __iter__ = None  # type: ignore[assignment]  # or a batch that is one would be two records

    def __new__(cls, *_: object) -> PackedRecord:
        raise TypeError("a PackedRecord is made by journal.pack, which knows what its bytes are")


CANT_PACK = (TypeError, ValueError, OverflowError, RecursionError, MemoryError)


def refusal(record: Record, error: Exception) -> RecordError:
    return RecordError(
        f"a record of type {type(record).__name__} can't be packed: {error}; use nil, "
        "bool, int (64 bits), float, str, bytes, list, dict (their exact types)"
    )


# Packers that nobody uses. Each is one caller's from when it is taken: as one refuses, a collector
# may run, and what that runs may pack, too. Their buffers only grow, so those that grew are let go.
_idle_packs: deque[Callable[[Record], bytes]] = deque()


def pack(record: Record) -> PackedRecord:
    """Pack a record now, under no lock: `update` and `append`, which take what it returns in the
    record's place, hold theirs for a time that hardly grows with its size.

    Change the record no more. Raises RecordError, but not for one that is too large: they do.
    """
    if type(record) is PackedRecord:
        return record
    try:
        pack_one = _idle_packs.pop()
    except IndexError:
        pack_one = msgpack.Packer(strict_types=True, buf_size=NESTING_MAX).pack
    try:
        packed = pack_one(record)
    except CANT_PACK as error:
        raise refusal(record, error) from error
    if len(packed) < NESTING_MAX:
        _idle_packs.append(pack_one)
    else:
        _check_unpacks(packed)
    return tuple.__new__(PackedRecord, (record, packed))


def bare(record: Record) -> Record:
    """The record itself, of a packed one too."""
    return record[0] if type(record) is PackedRecord else record


class RecordPacker:
    """Packs records one at a time. Not thread-safe: the log buffer's lock guards it."""

    def __init__(self, **bytes_max: int) -> None:
        """`bytes_max`: bounds by the names of the options that set them; the least holds."""
        self.pack_unchecked: Callable[[Record], bytes] = msgpack.Packer(strict_types=True).pack
        self._limit, self._bytes_max = min(bytes_max.items(), key=itemgetter(1))
        self.surely_fits = min(NESTING_MAX, self._bytes_max + 1)  # less than so many bytes

    def pack(self, record: Record) -> bytes:
        """The record's bytes. Raises RecordError, after which the packer is as before."""
        try:
            packed = record[1] if type(record) is PackedRecord else self.pack_unchecked(record)
        except CANT_PACK as error:
            raise refusal(record, error) from error
        if len(packed) >= self.surely_fits:
            self.check(record, packed)
        return packed

    def check(self, record: Record, packed: bytes) -> None:
        """Raise RecordError if it is too large, or can't be read back."""
        if type(record) is not PackedRecord and len(packed) >= NESTING_MAX:
            _check_unpacks(packed)
        if len(packed) > self._bytes_max:
            raise RecordError(
                f"a record of {len(packed)} bytes is over {self._limit}={self._bytes_max}; "
                "split it, or raise the option"
            )


def _check_unpacks(packed: bytes) -> None:
    """Raise RecordError if it can't be read back: a packer may nest deeper than an unpacker. A
    level costs a byte, so a record of less than `NESTING_MAX` can't be that deep."""
    try:
        feed(packed).skip()
    except Exception as error:
        raise RecordError(f"a record nests too deep to be read back: {error!r}") from error


def feed(payload: bytes) -> msgpack.Unpacker:
    unpacker = msgpack.Unpacker(
        raw=False, strict_map_key=False, max_buffer_size=max(len(payload), 1)
    )
    unpacker.feed(payload)
    return unpacker


# From and to, in bytes, of a payload in what was read, and its count of records.
Span = tuple[int, int, int]


def unpack_spans(data: bytes, spans: list[Span]) -> list[Record]:
    """The records of payloads that stand in `data`: from, to and count of each.

    Raises ValueError if one of them holds anything else; `unpack` says of each by itself what.
    """
    unpacker = feed(data)
    pass_over, unpack, tell = unpacker.read_bytes, unpacker.unpack, unpacker.tell
    records: list[Record] = []
    at = total = 0
    try:
        for start, end, count in spans:
            pass_over(start - at)
            if count > 1:
                records += islice(unpacker, count)
            else:
                records.append(unpack())
            at = end
            total += count
            if tell() != end or len(records) != total:
                raise ValueError(f"{len(records)} of {total} up to {tell()}, not to {end}")
    except MemoryError:  # of these bytes it says nothing
        raise
    except Exception as error:
        raise _no_record(error) from error
    return records


def spans_hold(data: bytes, spans: list[Span]) -> bool:
    """Whether each payload holds its count of records, and nothing else. None of them is kept,
    which takes half the time of `unpack_spans`, and no memory."""
    unpacker = feed(data)
    pass_over, unpack, tell, at = unpacker.read_bytes, unpacker.unpack, unpacker.tell, 0
    try:
        for start, end, count in spans:
            pass_over(start - at)
            if count > 1:
                deque(islice(unpacker, count - 1), maxlen=0)
            unpack()
            if tell() != end:
                return False
            at = end
    except MemoryError:
        raise
    except Exception:  # whatever somebody's bytes raise
        return False
    return True


def unpack(payload: bytes, count: int, skip: int = 0) -> list[Record]:
    """The `count` records that `payload` holds end to end, without the first `skip`, which are
    not made: that takes a sixth of the time.

    Raises ValueError, with what is wrong, if it holds anything else.
    """
    unpacker = feed(payload)
    try:
        for _ in range(skip):
            unpacker.skip()
        records = list(islice(unpacker, count - skip))
        end = unpacker.tell()
    except MemoryError:
        raise
    except Exception as error:
        raise _no_record(error) from error
    finally:
        del unpacker  # with all that it believed: who keeps the error keeps this frame
    found = skip + len(records)
    if found != count or end != len(payload):
        raise ValueError(f"{found} of {count} records in the first {end} bytes")
    return records


def _no_record(error: Exception) -> ValueError:
    # Not its repr: that of a UnicodeDecodeError has all the bytes that it was given.
    return ValueError(f"a record does not unpack: {type(error).__name__}: {error}")
