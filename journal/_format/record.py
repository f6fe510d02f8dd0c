"""Record: one msgpack object, which unpacks to a value equal to the one that was packed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from types import AsyncGeneratorType, CoroutineType
from typing import Any, NoReturn, TypeAlias

import msgpack
from msgpack import unpackb

from journal._callbacks import close_coroutine
from journal._format.large_record import walk_large
from journal._format.wrong_place import wrong_place
from journal._mutex import is_raised_by_call
from journal._public import public
from journal.errors import RecordError

Record: TypeAlias = Any
"""A record: None, a bool, int, float, str, bytes, `msgpack.ExtType` or `msgpack.Timestamp`, or a
list or a dict of these. The keys of a dict may be of any of these types but list and dict."""

NESTING_MAX = 1000
# Most callers that name the place of a part that can't be packed hold a lock. Looking at this many
# parts takes 1 ms.
_PARTS_MAX = 1000
UNPACKING = "journal", "msgpack"  # packages whose code unpacks
LARGE_BYTES = 1 << 18  # a payload over this is checked without making the objects of a large record


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

    is_filler: bool = False
    """True for a filler: a nil that a compaction has appended, and that no state applies. Source:
    journal/docs/FORMAT.md, "Fillers"."""


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

    @property
    def size_bytes(self) -> int:
        """The size of the packed record, in bytes."""
        return len(self._packed)

    def _take(self) -> tuple[Record, bytes]:
        """Return the unpacked value, to which nothing else refers, and the bytes."""
        try:
            return self._values.pop(), self._packed
        except IndexError as error:  # an earlier call has taken the value
            if not is_raised_by_call(error):
                raise
        return unpack_one(self._packed), self._packed

    __reduce_ex__ = __init__  # type: ignore[assignment]  # copying and pickling raise, too

    def __eq__(self, other: object) -> bool:
        return type(other) is PackedRecord and self._packed == other._packed

    def __hash__(self) -> int:
        return hash(self._packed)

    def __repr__(self) -> str:
        return f"pack({unpack_one(self._packed)!r})"


CANT_PACK = TypeError, ValueError, OverflowError, RecursionError


def refuse(record: Record, error: Exception, parts_max: int | None = _PARTS_MAX) -> NoReturn:
    """Raise RecordError, with the place in the record, if the packer raised `error`. Otherwise
    raise `error` again as it is: a signal handler raised it."""
    if not is_raised_by_call(error, "msgpack"):
        raise error
    place = wrong_place(record, "record", parts_max)
    reason = str(error).removesuffix(".")  # as msgpack says of what nests too deep
    close_coroutine(record)  # of a coroutine function that was to decide on a record
    raise RecordError(
        f"a record of type {type(record).__name__} can't be packed: {place or reason}; use only "
        "None, bool, int (64 bits), float, str, bytes, list and dict, and no subclasses of them"
    ) from error


# A single record, its bytes, records without an order, or a function's body that has not run.
_NO_BATCHES = (
    *(str, bytes, bytearray, memoryview, dict, set, frozenset),
    *(CoroutineType, AsyncGeneratorType),
)


def check_batch(records: object) -> None:
    """Raise TypeError for an object that is not a batch's list of records."""
    kind = type(records)  # nearly always a list or a tuple
    if kind is not list and kind is not tuple and isinstance(records, _NO_BATCHES):
        close_coroutine(records)
        raise TypeError(f"a batch is a list of records, not a {type(records).__name__}")


_new = object.__new__

# Free packers. A packer is exclusive while in use: packing may trigger garbage collection, and a
# finalizer may pack too. Buffers never shrink, so a packer whose buffer has grown is not kept.
_idle_packs: deque[Callable[[Record], bytes]] = deque()


@public
def pack(record: Record) -> PackedRecord:
    """Pack a record ahead of time, without holding any lock.

    Pass the result to `update` or `append` in the record's place: they then hold their locks for a
    time that hardly grows with the record's size. Later changes to the record have no effect,
    because `apply` gets the value that the bytes decode to. Raises RecordError. A record that is
    too large is refused only by `update` and `append`.
    """
    if type(record) is PackedRecord:
        return record
    packed = pack_undecoded(record)
    try:
        value = unpackb(packed, strict_map_key=False)
    except Exception as error:
        raise_unreadable(error, record)
    made = _new(PackedRecord)  # not by a call of `_packed_as`, which takes 5 % of the time
    made._packed = packed
    made._values = [value]
    return made


def pack_undecoded(record: Record) -> bytes:
    """Return the bytes that `pack` packs. It is unknown whether they can be decoded. Raises
    RecordError."""
    try:
        pack_one = _idle_packs.pop()
    except IndexError as error:
        if not is_raised_by_call(error):
            raise
        pack_one = msgpack.Packer(strict_types=True, buf_size=NESTING_MAX).pack
    try:
        packed = pack_one(record)
    except CANT_PACK as error:
        refuse(record, error, None)  # no lock is held here
    if len(packed) < NESTING_MAX:
        _idle_packs.append(pack_one)
    return packed


def pack_flat(record: list[Any]) -> PackedRecord:
    """Pack a new list of ints, strs, bytes, None, and lists of these, and do not decode it.

    Decoding takes as long as packing, and would make an equal list. `apply` gets `record` itself,
    so nothing else may refer to any list in it.
    """
    return _packed_as(pack_undecoded(record), record)


def _packed_as(packed: bytes, value: Record) -> PackedRecord:
    made = _new(PackedRecord)
    made._packed = packed
    made._values = [value]
    return made


def pack_pair(name: str, record: PackedRecord) -> PackedRecord:
    """Return the record `[name, record]`, made of the bytes of the packed `record`.

    Raises RecordError if it nests one level too deep.
    """
    value, packed = record._take()
    made = _packed_as(b"\x92%b%b" % (pack(name)._packed, packed), [name, value])  # a list of two
    if len(packed) >= NESTING_MAX - 1:  # each level takes a byte at least
        _check_unpacks(made._packed)
    return made


def bare(record: Record) -> Record:
    """Return the record itself; a packed one is unpacked."""
    return unpack_one(record._packed) if type(record) is PackedRecord else record


def unpack_one(packed: bytes) -> Record:
    """Return the record that replay would read from these bytes.

    Raises RecordError if they can't be read back: the packer accepts deeper nesting than the
    unpacker.
    """
    try:
        return unpackb(packed, strict_map_key=False)
    except Exception as error:
        raise_unreadable(error)


class RecordPacker:
    """A packer of one record at a time. It is not thread-safe: the log buffer's lock guards it."""

    def __init__(self, **bytes_max: int) -> None:
        """Take the limits in bytes, each by the name of its option. The smallest one applies."""
        self.pack_unchecked: Callable[[Record], bytes] = msgpack.Packer(strict_types=True).pack
        self._limit, self.bytes_max = min(bytes_max.items(), key=itemgetter(1))
        self.surely_fits = min(NESTING_MAX, self.bytes_max + 1)  # fewer bytes need no check

    def pack(self, record: Record) -> bytes:
        """Return the record's bytes. After a RecordError, the packer is as it was before."""
        try:
            packed = record._packed if type(record) is PackedRecord else self.pack_unchecked(record)
        except CANT_PACK as error:
            refuse(record, error)
        if len(packed) >= self.surely_fits:
            self.check(record, packed)
        return packed

    def pack_and_unpack(self, record: Record) -> tuple[Record, bytes]:
        """Return the record as replay would read it, and its bytes. Raises RecordError."""
        packed = self.pack(record)
        if type(record) is PackedRecord:
            return record._take()
        return unpack_one(packed), packed

    def check(self, record: Record, packed: bytes) -> None:
        """Raise RecordError if the record is too large or can't be read back."""
        if type(record) is not PackedRecord and len(packed) >= NESTING_MAX:
            _check_unpacks(packed)
        if len(packed) > self.bytes_max:
            raise RecordError(
                f"a record of {len(packed)} bytes is over {self._limit}={self.bytes_max}; "
                "split it, or raise the option"
            )


def _check_unpacks(packed: bytes) -> None:
    """Raise RecordError if the bytes can't be read back, because they nest too deep.

    The packer accepts deeper nesting than the unpacker. Each level takes at least a byte, so only a
    record of `NESTING_MAX` bytes or more can be too deep.
    """
    try:
        feed(packed).skip()
    except Exception as error:
        raise_unreadable(error)


def raise_unreadable(error: Exception, record: Record = None) -> NoReturn:
    """Raise RecordError if the unpacker raised `error`, with the place in `record`. Raise a signal
    handler's error, or a MemoryError, again as it is: neither proves anything about the bytes."""
    if isinstance(error, MemoryError) or not is_raised_by_call(error, "msgpack"):
        raise error
    place = wrong_place(record, "record", _PARTS_MAX)
    problem = "it nests too deep" if isinstance(error, msgpack.StackError) else f"{error!r:.200}"
    raise RecordError(f"a record could not be read back: {place or problem}") from error


def feed(payload: bytes | memoryview, length_max: int = 0) -> msgpack.Unpacker:
    """Return an unpacker of `payload`. It refuses lengths over that of `payload`, or `length_max`
    if that is more."""
    unpacker = msgpack.Unpacker(
        raw=False, strict_map_key=False, max_buffer_size=max(len(payload), length_max, 1)
    )
    unpacker.feed(payload)
    return unpacker


# The offsets in the bytes at which a payload begins and ends, and its count of records.
Span = tuple[int, int, int]


def unpack_spans(data: bytes, spans: list[Span]) -> list[Record]:
    """Return the records of the payloads at `spans` of `data`.

    Raises ValueError, with the reason, if a payload does not hold exactly its count of records.
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
    except MemoryError:  # it proves nothing about these bytes
        raise
    except Exception as error:
        _refuse_payload(error)
    finally:
        # The unpacker has allocated memory for the lengths that it read. A traceback that somebody
        # keeps would keep this memory alive.
        del unpacker, pass_over, unpack, tell
    raise ValueError(f"its first {size} bytes hold {count_so_far} of {count} records")


def check_spans(data: bytes, spans: list[Span]) -> list[Record]:
    """Check the payloads as `unpack_spans` does, and return no records.

    Because no record is kept, this takes half the time of `unpack_spans`, and no memory. Raises the
    same ValueError.
    """
    if len(data) <= LARGE_BYTES:
        if not _spans_hold(data, spans):
            return unpack_spans(data, spans)  # raises the ValueError with the reason
        return []
    for start, end, count in spans:
        if end - start > LARGE_BYTES:
            _check_large_span(memoryview(data)[start:end], count)
        elif not _spans_hold(data[start:end], [(0, end - start, count)]):
            return unpack_spans(data[start:end], [(0, end - start, count)])
    return []


def _check_large_span(payload: memoryview, count: int) -> None:
    """Raise ValueError unless `payload` holds `count` records. Makes the objects of at most
    LARGE_BYTES at a time."""
    begin = checked = 0
    while checked < count and begin < len(payload):
        rest = payload[begin:]
        whole, size = _whole_records(rest[:LARGE_BYTES], len(payload), count - checked)
        if not whole:  # the record is large, or cut short
            whole, size = 1, walk_large(rest)[0]
        checked += whole
        begin += size
    if checked < count or begin != len(payload):
        raise ValueError(f"its first {begin} bytes hold {checked} of {count} records")


def _whole_records(data: memoryview, length_max: int, count_max: int) -> tuple[int, int]:
    """Return the number of whole records at the beginning of `data`, at most `count_max`, and their
    size. `length_max` bounds the lengths in them. Raises ValueError if one does not unpack."""
    try:
        feed(data, length_max).skip()  # makes no objects
        whole = len(list(islice(feed(data, length_max), count_max)))
        unpacker = feed(data, length_max)
        deque(islice(unpacker, whole), maxlen=0)
        return whole, unpacker.tell()
    except msgpack.OutOfData:  # of the first record
        return 0, 0
    except MemoryError:  # it proves nothing about these bytes
        raise
    except Exception as error:
        _refuse_payload(error)


def _spans_hold(data: bytes, spans: list[Span]) -> bool:
    """Return whether each payload holds exactly its count of records."""
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
    """Raise ValueError if the unpacker raised `error`. Otherwise raise `error` again as it is."""
    if not is_raised_by_call(error, "msgpack"):
        raise error
    # The message has no repr: the one of a UnicodeDecodeError contains all the bytes.
    raise ValueError(f"a record does not unpack: {type(error).__name__}: {error}") from error
