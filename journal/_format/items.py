"""Items: what a checkpoint holds, as lines of JSON that give back exactly what was frozen.

JSON has no bytes, and Python's encoder changes what it has no type for: `{1: 10}` becomes
`{"1": 10}`, a tuple a list, an IntEnum an int. So bytes are written as `{"$bytes": "<base64>"}`,
an object that looks like that gets one `$` more, and whatever would come back as something else is
refused. Source: journal/docs/FORMAT.md, "Items".
"""

from __future__ import annotations

import json
import math
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable
from typing import Any

from journal._mutex import is_raised_by_call
from journal.errors import CheckpointItemError

JSON = Any  # None, bool, int, float, str, bytes, list, dict with str keys
# Where Python counts the calls of C and of Python together (3.11), a decoder stops at about 1000
# levels less the caller's own. An item that was written must never be too deep to be read.
NESTING_MAX = 500
CODEC = "journal", "json"  # packages whose code encodes and decodes
_BYTES_FROM_VERSION = 2
_DOLLAR_KEY = re.compile(r"\$+bytes")
_BYTES_KEY = "$bytes"
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_SHOWN_CHARS = 80
_TYPES = "a checkpoint holds None, bool, int, float, str, bytes, list and dict"
_BASES = (int, float, str, bytes, list, dict)


# --- encoding ---


def encode_item(item: JSON, index: int) -> bytes:
    """Return the item's line, without the comma and the LF.

    `index` is the item's place in the checkpoint, for the message. Raises CheckpointItemError
    for an item that would not come back as it is.
    """
    try:
        if _is_plain_json(item, NESTING_MAX):
            return _encode(item).encode()
    except (ValueError, RecursionError) as error:
        if not is_raised_by_call(error, *CODEC):
            raise
        # A float, an int, a string or the stack's depth: found again, with its path
    careful = escaped(item, index)
    try:
        return _encode(careful).encode()
    except (ValueError, RecursionError) as error:
        if not is_raised_by_call(error, *CODEC):
            raise
        # The stack is too deep already, or another thread changes the item.
        raise CheckpointItemError(index, "", f"it can't be encoded: {error}") from error


def escaped(item: JSON, index: int) -> JSON:
    """Return a copy of the item as plain JSON, with objects for its bytes and one `$` more in each
    key that asks for it. Raises CheckpointItemError as `encode_item` does."""
    path: list[object] = []
    try:
        return _Escaping(path).copy(item)
    except _RefusedError as error:
        raise CheckpointItemError(index, _joined(path), str(error)) from None
    except RecursionError as error:
        raise CheckpointItemError(index, _joined(path), f"nests too deep here: {error}") from None


def _is_plain_json(value: JSON, levels: int) -> bool:
    """Return whether the encoder alone gives the item's line, if it gives one.

    False for what it would change, what nests deeper than `levels`, and keys to be escaped. It
    takes a quarter of the time that encoding takes: 1.5 us for an agent of 25 fields. A walk by
    levels, `set.issuperset(map(type, ...))` and msgpack's strict types with a look at the keys
    all took longer.
    """
    kind = type(value)
    if kind in _SCALARS:
        return True
    if levels == 0:
        return False
    if kind is dict:
        for key, inner in value.items():
            if type(key) is not str:
                return False
            if type(inner) not in _SCALARS and not _is_plain_json(inner, levels - 1):
                return False
        return len(value) != 1 or key[:1] != "$"
    if kind is list:
        for inner in value:
            if type(inner) not in _SCALARS and not _is_plain_json(inner, levels - 1):
                return False
        return True
    return False


def _encoded_bytes(value: object) -> JSON:
    """Return bytes as JSON: the encoder asks for whatever it has no type for."""
    if type(value) is bytes:
        return {_BYTES_KEY: b2a_base64(value, newline=False).decode()}
    raise ValueError(f"{type(value).__name__} is no type of JSON")


# `json.dumps` would make one for each value. A cycle nests too deep, so it is never encoded.
_encode = json.JSONEncoder(
    ensure_ascii=False,
    allow_nan=False,
    check_circular=False,
    separators=(",", ":"),
    default=_encoded_bytes,
).encode


class _RefusedError(Exception):
    """The reason why an item is refused; the path of the _Escaping leads to the place."""


class _Escaping:
    """One careful walk through an item. `path` has the keys and indices down to where it is."""

    def __init__(self, path: list[object]) -> None:
        self._path = path
        self._outer_ids: set[int] = set()  # of the lists and dicts around

    def copy(self, value: JSON) -> JSON:
        """Return the value as plain JSON. One call a level: the stack bounds the levels."""
        kind = type(value)
        if kind in _SCALARS:
            return _checked_scalar(value)
        if kind is not list and kind is not dict:
            raise _RefusedError(_wrong_type(kind))
        if id(value) in self._outer_ids:
            raise _RefusedError("this list or dict contains itself")
        if len(self._outer_ids) == NESTING_MAX:
            raise _RefusedError(f"nests deeper than {NESTING_MAX} lists and dicts")
        self._outer_ids.add(id(value))
        copies = []
        for at, inner in value.items() if kind is dict else enumerate(value):
            if kind is dict:
                _check_key(at)
            self._path.append(at)
            copies.append(self.copy(inner))
            self._path.pop()
        self._outer_ids.remove(id(value))
        return copies if kind is list else _escaped_map(dict(zip(value, copies, strict=True)))


def _escaped_map(mapping: dict[str, JSON]) -> dict[str, JSON]:
    """Return the map with one `$` more if it would be read as bytes, or as what stands for it."""
    if len(mapping) == 1:
        [(key, value)] = mapping.items()
        if _DOLLAR_KEY.fullmatch(key):
            return {f"${key}": value}
    return mapping


def _checked_scalar(value: JSON) -> JSON:
    kind = type(value)
    if kind is bytes:
        return _encoded_bytes(value)
    if kind is str:
        _check_text("a str", value)
    elif kind is float and not math.isfinite(value):
        raise _RefusedError(f"a float is {value}; a checkpoint holds finite floats only")
    elif kind is int:
        _check_int(value)
    return value


def _wrong_type(kind: type) -> str:
    """Return what is wrong with a value of that type, and what to do about it."""
    base = next((base.__name__ for base in _BASES if issubclass(kind, base)), None)
    if base is None:
        target = "a list" if issubclass(kind, (tuple, set, frozenset)) else "one of these"
        return f"a value is of type {kind.__name__}; {_TYPES}: convert it to {target} first"
    what = f"a value is of type {kind.__name__}, a subclass of {base}"
    return f"{what}; a checkpoint holds no subclasses: convert it to a plain {base} first"


def _check_key(key: object) -> None:
    if type(key) is not str:
        what = f"a map's key is {_shown(key)}, of type {type(key).__name__}"
        raise _RefusedError(f"{what}; a checkpoint holds plain str keys only: convert it first")
    _check_text("a map's key", key)


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        problem = f"{what} has {text[error.start]!r}, half a surrogate pair, at {error.start}"
        raise _RefusedError(f"{problem}; a checkpoint holds UTF-8") from None


def _check_int(value: int) -> None:
    try:
        str(value)
    except ValueError as error:
        raise _RefusedError(f"an int is too large to be read back: {error}") from None


def _joined(path: list[object]) -> str:
    """Return the path as an expression, its keys cut."""
    return "".join(f"[{_shown(part)}]" for part in path)


def _shown(key: object) -> str:
    """Return a repr that is short, of a key that has none too."""
    try:
        text = repr(key)
    except Exception:  # whatever somebody's class raises, and an int that is too large
        return "one without a repr"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."


# --- decoding ---


def decoder(version: int, lines: bytes) -> Callable[[str], JSON]:
    """Return what decodes these lines of a checkpoint of that version.

    It raises ValueError or RecursionError for what is no JSON, and for bytes that are no base64.
    """
    # A `$` is written as itself or as an escape. Looking for one character takes no time; looking
    # for `"$` would take an eighth of what decoding takes, more than a decoder that unescapes.
    if version < _BYTES_FROM_VERSION or not (b"$" in lines or b"\\" in lines):
        return _decode
    return _decode_escaped


def _unescaped(mapping: dict[str, JSON]) -> JSON:
    """Return what an object of a checkpoint stands for."""
    if len(mapping) != 1:
        return mapping
    [(key, value)] = mapping.items()
    if not _DOLLAR_KEY.fullmatch(key):
        return mapping
    if key != _BYTES_KEY:
        return {key[1:]: value}
    if type(value) is not str:
        raise ValueError(f"{_BYTES_KEY} of type {type(value).__name__}, not base64")
    data = a2b_base64(value)  # a binascii.Error is a ValueError
    if b2a_base64(data, newline=False) != value.encode():  # it passes over much
        raise ValueError(f"{_BYTES_KEY} with what is not base64")
    return data


def _refuse_constant(name: str) -> JSON:
    raise ValueError(f"{name} is no JSON")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_decode_escaped = json.JSONDecoder(object_hook=_unescaped, parse_constant=_refuse_constant).decode
