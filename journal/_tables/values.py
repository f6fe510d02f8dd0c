"""Values of tables, stored as bytes. Each read decodes them again, so no two readers share a value.

A value is stored as msgpack. A value that was loaded from a checkpoint is stored as its JSON text,
after a byte with which no msgpack object begins, and the next checkpoint copies that text. If the
text is large and has bytes in base64, it is stored as msgpack, too. A value that was too large for
one record is stored in pieces, which each read joins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from gc import is_tracked
from struct import Struct
from typing import Any

from msgpack import unpackb

from journal._format.checkpoint import VERSION
from journal._format.items import (
    CODEC,
    LARGE_BYTES,
    decoder,
    encode_item,
    encode_large,
    encode_together,
)
from journal._format.record import pack_undecoded, raise_unreadable
from journal._format.wrong_place import wrong_place
from journal._mutex import is_raised_by_call
from journal._tables.chunked_map import Stored
from journal._tables.expiry import (
    HEAD,
    HEAD_BYTES,
    MARK_BYTE,
    expiry_of,
    head_of,
    to_ms,
    with_expiry,
)
from journal.errors import CheckpointItemError, RecordError

VALUE_BYTES_MAX = 1 << 28
_ARRAY_32, _array_32 = 0xDD, Struct(">BI").pack  # the header of an array in msgpack
_BYTES_AT_ONCE = 1 << 16
_BYTES_IN_TEXT = b'{"$bytes":"'
_TEXT = bytes((MARK_BYTE,))
_KINDS = "a value holds None, bool, int (64 bits), float, str, bytes, list and dict"


def pack_value(value: Any, expires_at: float | None = None) -> bytes:
    """Return the stored form of `value`. `expires_at` is in Unix seconds.

    Raises RecordError that names the place in `value` that msgpack can't hold, and TypeError or
    ValueError for a wrong `expires_at`.
    """
    expires_at_ms = None if expires_at is None else to_ms(expires_at)
    try:
        packed = pack_undecoded(value)
        # A wrong ExtType, or what nests too deep, can be packed, but not unpacked. An object that
        # the garbage collector does not track, as a dict of strs and numbers, has no such part.
        # Decoding it takes 0.25 us of 0.6.
        if is_tracked(value):
            try:  # Strs were encoded, so they can be decoded: without that, 0.1 us less.
                unpackb(packed, raw=True, strict_map_key=False)
            except Exception as error:
                raise_unreadable(error)
    except RecordError as error:
        place = wrong_place(value, "value")
        reason = str(error.__cause__ or error).removesuffix(".")
        message = f"{place}; {_KINDS}" if place else f"the value can't be packed: {reason}"
        raise RecordError(message) from error
    if len(packed) > VALUE_BYTES_MAX:
        raise RecordError(
            f"the value takes {len(packed)} bytes, more than the limit of {VALUE_BYTES_MAX}; "
            "split it into several rows, or keep it in a file"
        )
    return packed if expires_at_ms is None else with_expiry(packed, expires_at_ms)


def unpack_value(stored: Stored) -> Any:
    """Decode a stored value. Raises RecordError if that fails."""
    try:
        whole = stored if isinstance(stored, bytes) else b"".join(stored)
        if whole[0] != MARK_BYTE:
            return unpackb(whole, strict_map_key=False)
        at = 0 if expiry_of(whole) is None else HEAD_BYTES
        if whole[at] != MARK_BYTE:
            return unpackb(memoryview(whole)[at:], strict_map_key=False)
        text = whole[at + 1 :]
        return decoder(VERSION, text)(text.decode())
    except Exception as error:
        if isinstance(error, MemoryError) or not is_raised_by_call(error, "msgpack", *CODEC):
            raise
        raise RecordError(f"a stored value can't be read: {error!r:.200}") from error


def unpack_values(values: Sequence[Stored]) -> Iterable[Any]:
    """Return the stored values, decoded, or an iterator that decodes each as `unpack_value` does.

    Up to 64 KiB of msgpack are decoded together, as an array, which takes 100 ns less for each
    value. An array can't hold a value with a mark, so such values are decoded one at a time.
    """
    if sum(map(len, values)) <= _BYTES_AT_ONCE:
        try:
            parts: list[Any] = [_array_32(_ARRAY_32, len(values)), *values]
            decoded: list[Any] = unpackb(b"".join(parts), strict_map_key=False)
        except Exception as error:  # a value in pieces, or with a mark, or one that can't be read
            if isinstance(error, MemoryError) or not is_raised_by_call(error, "msgpack"):
                raise
        else:
            return decoded
    return map(unpack_value, values)


def check_stored(stored: Stored) -> None:
    """Raise RecordError or ValueError unless these bytes are a value as a write keeps it.

    That is msgpack, after the time at which it expires. Text in a journal would be copied to a
    checkpoint as it is, with any LF in it.
    """
    unpack_value(stored)
    expires_at_ms = expiry_of(stored)
    if expires_at_ms is not None:
        head_of(expires_at_ms)
    whole = b"".join(stored) if isinstance(stored, tuple) else stored
    if whole[0 if expires_at_ms is None else HEAD_BYTES] == MARK_BYTE:
        raise ValueError("a value is JSON text, which only a line of a checkpoint has")


def stored_texts(texts: list[bytes]) -> list[bytes]:
    """Return the stored forms of values from their JSON texts in a checkpoint.

    Base64 takes a third more memory than its bytes, so large texts with bytes are decoded. For
    small ones, decoding would take most of the time of an open.
    """
    return [
        _decoded(text) if len(text) >= LARGE_BYTES and _BYTES_IN_TEXT in text else _TEXT + text
        for text in texts
    ]


def _decoded(text: bytes) -> bytes:
    """Return the stored form of a value, decoded if msgpack can hold it."""
    try:
        return pack_value(decoder(VERSION, text)(text.decode()))
    except Exception as error:  # each read of the value reports a text that can't be decoded
        if isinstance(error, MemoryError) or not is_raised_by_call(error, "msgpack", *CODEC):
            raise
        return _TEXT + text


def json_texts(values: Sequence[Stored]) -> list[bytes] | None:
    """Return the JSON texts of stored values of rows that never expire, encoded together.

    Return None for any others, and if they have to be encoded one at a time.
    """
    if set(map(type, values)) != {bytes} or sum(map(len, values)) > _BYTES_AT_ONCE:
        return None
    whole: Sequence[Any] = values
    packed = [value for value in whole if value[0] != MARK_BYTE]
    if len(packed) < len(whole) and any(value[:2] == HEAD for value in whole):
        return None
    texts = _encoded_together(packed) if packed else []
    if texts is None or len(packed) == len(whole):
        return texts
    encoded = iter(texts)
    return [value[1:] if value[0] == MARK_BYTE else next(encoded) for value in whole]


class _NotJSON:
    """An extension type, for which JSON has no type."""

    def __init__(self, code: int, data: bytes) -> None:
        pass


def _encoded_together(packed: list[bytes]) -> list[bytes] | None:
    whole = b"".join((_array_32(_ARRAY_32, len(packed)), *packed))
    try:  # JSON has no keys but strs, and would take an ExtType for a list
        return encode_together(unpackb(whole, ext_hook=_NotJSON))
    except Exception as error:
        if isinstance(error, MemoryError) or not is_raised_by_call(error, "msgpack", *CODEC):
            raise
        return None


def json_text(stored: bytes) -> bytes | None:
    """Return the JSON text of a stored value without a head, or None if JSON can't hold it."""
    if stored[0] == MARK_BYTE:
        return stored[1:]
    try:
        encode = encode_item if len(stored) < LARGE_BYTES else encode_large
        return encode(unpack_value(stored), 0)
    except CheckpointItemError:
        return None
