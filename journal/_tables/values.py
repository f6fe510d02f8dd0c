"""Values of tables, kept as bytes: reading one decodes it anew, so that no two readers share it.

A value is kept as msgpack, or as the JSON text that a checkpoint has of it, after a byte with which
no msgpack object begins. So a checkpoint copies the text of a value that did not change.
"""

from __future__ import annotations

from typing import Any

import msgpack
from msgpack import unpackb

from journal._format.checkpoint import VERSION
from journal._format.items import CODEC, decoder, encode_item
from journal._format.record import pack
from journal._mutex import is_raised_by_call
from journal.errors import CheckpointItemError, RecordError

_TEXT = b"\xc1"  # msgpack never uses this byte
_TEXT_BYTE = 0xC1
_SCALARS = (type(None), bool, int, float, str, bytes, msgpack.ExtType, msgpack.Timestamp)
_KINDS = "a value holds None, bool, int (64 bits), float, str, bytes, list and dict"
_SHOWN_CHARS = 80


def pack_value(value: Any) -> bytes:
    """Return `value` as it is kept. Raises RecordError that names the place that can't be kept."""
    try:
        return pack(value)._packed
    except RecordError as error:
        place = _wrong_place(value)
        raise RecordError(place or f"the value can't be packed: {error}") from error


def unpack_value(stored: bytes) -> Any:
    """Return a fresh value of what is kept. Raises RecordError for bytes that hold none."""
    try:
        if stored[0] == _TEXT_BYTE:
            text = stored[1:]
            return decoder(VERSION, text)(text.decode())
        return unpackb(stored, strict_map_key=False)
    except Exception as error:
        if isinstance(error, MemoryError) or not is_raised_by_call(error, "msgpack", *CODEC):
            raise
        raise RecordError(f"a stored value can't be read: {error!r:.200}") from error


def stored_text(text: bytes) -> bytes:
    """Return a value as it is kept, from the JSON text that a checkpoint has of it."""
    return _TEXT + text


def json_text(stored: bytes) -> bytes | None:
    """Return a value as JSON text, or None if a checkpoint can't hold it as JSON."""
    if stored[0] == _TEXT_BYTE:
        return stored[1:]
    try:
        return encode_item(unpack_value(stored), 0)
    except CheckpointItemError:
        return None


def _wrong_place(value: Any, path: str = "value", levels: int = 100) -> str:
    """Return where `value` has something that msgpack can't keep, and what it is; "" if nowhere."""
    kind = type(value)
    if kind in _SCALARS or levels == 0:
        if kind is int and not -(1 << 63) <= value < 1 << 64:
            return f"{path} is an int of more than 64 bits; {_KINDS}"
        return ""
    if kind is dict or kind is list:
        for at, part in value.items() if kind is dict else enumerate(value):
            if kind is dict and (problem := _wrong_place(at, f"a key of {path}", levels - 1)):
                return problem
            if problem := _wrong_place(part, f"{path}[{_shown(at)}]", levels - 1):
                return problem
        return ""
    return f"{path} is {_article(kind.__name__)}; {_KINDS}"


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _shown(key: object) -> str:
    try:
        text = repr(key)
    except Exception:  # any class may define any repr
        return "a key without a repr"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
