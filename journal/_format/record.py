"""Record: one msgpack object, and the rule that what packs comes back equal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any, NoReturn

import msgpack
from msgpack import unpackb

from journal._mutex import is_raised_by_call
from journal._public import public
from journal.errors import RecordError

Record = Any  # nil, bool, int, float, str, bytes, list, dict, msgpack.ExtType, msgpack.Timestamp
NESTING_MAX = 1000
UNPACKING = "journal", "msgpack"  # packages whose code unpacks


@public
@dataclass(slots=True)
class Entry:
    """A record and its place in the log. The epoch and the LSN together identify it forever."""

    lsn: int
    """The record's log sequence number (LSN)."""

    epoch: int
    """The epoch of the writer that appended it."""

    written_at_ns: int
    """The time at which its frame was made, in Unix nanoseconds."""

    record: Record
    """The record itself, as msgpack decodes it."""

    offset: int | None = None
    """The offset of its frame in the segment, in bytes. None unless a JournalReader made this
    entry."""

    path: str | None = None
    """The path of its segment. None unless a JournalReader made this entry."""


@public
class PackedRecord:
    """A packed record. Only `pack` makes one; `append` and `update` take it in a record's place."""

    __slots__ = ("_packed", "_values")

    _values: list[Record]
    _packed: bytes

    def __init__(self, *_: object) -> None:
        raise TypeError(
            "a PackedRecord can't be constructed, copied or pickled; make one with journal.pack"
        )

    def _take(self) -> tuple[Record, bytes]:
        """Return what its bytes decode to, which nobody else has, and the bytes."""
        try:
            return self._values.pop(), self._packed
        except IndexError as error:  # it was taken before
            if not is_raised_by_call(error):
                raise
        return unpack_one(self._packed), self._packed

    __reduce_ex__ = __init__  # type: ignore[assignment]  # a copy, or a pickle

    def __eq__(self, other: object) -> bool:
        return type(other) is PackedRecord and self._packed == other._packed

    def __hash__(self) -> int:
        return hash(self._packed)

    def __repr__(self) -> str:
        return f"pack({unpack_one(self._packed)!r})"


CANT_PACK = (TypeError, ValueError, OverflowError, RecursionError, MemoryError)


def refuse(record: Record, error: Exception) -> NoReturn:
    """Raise RecordError for what the packer raised, as it is caught. What a signal handler raised
    meanwhile goes on."""
    if not is_raised_by_call(error, "msgpack"):
        raise error
    raise RecordError(
        f"a record of type {type(record).__name__} can't be packed: {error}; use nil, "
        "bool, int (64 bits), float, str, bytes, list, dict (their exact types)"
    ) from error


_new = object.__new__

# Packers that nobody uses. Each is one caller's from when it is taken: as one refuses, a collector
# may run, and what that runs may pack, too. Their buffers only grow, so those that grew are let go.
_idle_packs: deque[Callable[[Record], bytes]] = deque()


@public
def pack(record: Record) -> PackedRecord:
    """Pack a record now, under no lock. `update` and `append` take what it returns in the record's
    place, and then hold their locks for a time that hardly grows with the record's size.

    Later changes to the record have no effect: `apply` gets what the bytes decode to. Raises
    RecordError, but `update` and `append` are what refuse a record that is too large.
    """
    if type(record) is PackedRecord:
        return record
    try:
        pack_one = _idle_packs.pop()
    except IndexError as error:
        if not is_raised_by_call(error):
            raise
        pack_one = msgpack.Packer(strict_types=True, buf_size=NESTING_MAX).pack
    try:
        packed = pack_one(record)
    except CANT_PACK as error:
        refuse(record, error)
    if len(packed) < NESTING_MAX:
        _idle_packs.append(pack_one)
    try:
        value = unpackb(packed, strict_map_key=False)
    except Exception as error:
        raise_unreadable(error)
    made = _new(PackedRecord)
    made._packed = packed
    made._values = [value]
    return made


def bare(record: Record) -> Record:
    """Return the record itself, also of a packed one."""
    return unpack_one(record._packed) if type(record) is PackedRecord else record


def unpack_one(packed: bytes) -> Record:
    """Return what replay makes of the bytes of one record. Raises RecordError for one that it
    can't read back: a packer may nest deeper than an unpacker."""
    try:
        return unpackb(packed, strict_map_key=False)
    except Exception as error:
        raise_unreadable(error)


class RecordPacker:
    """Packs records one at a time. Not thread-safe: the log buffer's lock guards it."""

    def __init__(self, **bytes_max: int) -> None:
        """`bytes_max`: bounds by the names of the options that set them; the least holds."""
        self.pack_unchecked: Callable[[Record], bytes] = msgpack.Packer(strict_types=True).pack
        self._limit, self.bytes_max = min(bytes_max.items(), key=itemgetter(1))
        self.surely_fits = min(NESTING_MAX, self.bytes_max + 1)  # less than so many bytes

    def pack(self, record: Record) -> bytes:
        """The record's bytes. Raises RecordError, after which the packer is as before."""
        try:
            packed = record._packed if type(record) is PackedRecord else self.pack_unchecked(record)
        except CANT_PACK as error:
            refuse(record, error)
        if len(packed) >= self.surely_fits:
            self.check(record, packed)
        return packed

    def pack_and_unpack(self, record: Record) -> tuple[Record, bytes]:
        """Return what replay makes of the record, and its bytes. Raises RecordError."""
        packed = self.pack(record)
        if type(record) is PackedRecord:
            return record._take()
        return unpack_one(packed), packed

    def check(self, record: Record, packed: bytes) -> None:
        """Raise RecordError if it is too large, or can't be read back."""
        if type(record) is not PackedRecord and len(packed) >= NESTING_MAX:
            _check_unpacks(packed)
        if len(packed) > self.bytes_max:
            raise RecordError(
                f"a record of {len(packed)} bytes is over {self._limit}={self.bytes_max}; "
                "split it, or raise the option"
            )


def _check_unpacks(packed: bytes) -> None:
    """Raise RecordError if it can't be read back: a packer may nest deeper than an unpacker. A
    level costs a byte, so a record of less than `NESTING_MAX` can't be that deep."""
    try:
        feed(packed).skip()
    except Exception as error:
        raise_unreadable(error)


def raise_unreadable(error: Exception) -> NoReturn:
    """Raise RecordError for what unpacking raised. What a signal handler raised meanwhile goes on,
    and so does a MemoryError, which says nothing of the bytes."""
    if isinstance(error, MemoryError) or not is_raised_by_call(error, "msgpack"):
        raise error
    raise RecordError(f"a record nests too deep to be read back: {error!r:.200}") from error


def feed(payload: bytes) -> msgpack.Unpacker:
    unpacker = msgpack.Unpacker(
        raw=False, strict_map_key=False, max_buffer_size=max(len(payload), 1)
    )
    unpacker.feed(payload)
    return unpacker


# Where a payload begins and ends in the bytes that were read, and its count of records.
Span = tuple[int, int, int]


def unpack_spans(data: bytes, spans: list[Span]) -> list[Record]:
    """Return the records of the payloads at `spans` of `data`.

    Raises ValueError, with what is wrong, if a payload does not hold just its count of records.
    """
    unpacker = feed(data)
    pass_over, unpack, tell = unpacker.read_bytes, unpacker.unpack, unpacker.tell
    records: list[Record] = []
    at = total = 0
    try:
        for start, end, count in spans:
            pass_over(start - at)
            total += count
            if count != 1:
                records += islice(unpacker, count)
            else:
                records.append(unpack())
            if tell() != end or len(records) != total:
                break
            at = end
        else:
            return records
        count_so_far, size = len(records) - total + count, tell() - start
    except msgpack.OutOfData:
        count_so_far, size = 0, 0
    except MemoryError:  # it says nothing about these bytes
        raise
    except Exception as error:
        _refuse_payload(error)
    finally:
        # A kept traceback would keep what the unpacker allocated for the lengths that it read.
        del unpacker, pass_over, unpack, tell
    raise ValueError(f"{count_so_far} of {count} records in the first {size} bytes")


def check_spans(data: bytes, spans: list[Span]) -> list[Record]:
    """Raise what `unpack_spans` raises, and return no records.

    It keeps none of them, so it takes half the time of `unpack_spans`, and no memory.
    """
    if not _spans_hold(data, spans):
        return unpack_spans(data, spans)  # it raises, and says what is wrong
    return []


def _spans_hold(data: bytes, spans: list[Span]) -> bool:
    """Return whether each payload holds just its count of records."""
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
    except Exception as error:
        if not is_raised_by_call(error, "msgpack"):
            raise
        return False
    return True


def _refuse_payload(error: Exception) -> NoReturn:
    """Raise ValueError for what unpacking raised; a signal handler's exception goes on."""
    if not is_raised_by_call(error, "msgpack"):
        raise error
    # Not its repr: that of a UnicodeDecodeError has all the bytes that it was given.
    raise ValueError(f"a record does not unpack: {type(error).__name__}: {error}") from error
