"""Items: the content of a checkpoint, as lines of JSON that decode to exactly what was frozen.

JSON has no bytes, and Python's encoder converts some values to other types: `{1: 10}` becomes
`{"1": 10}`, a tuple becomes a list, and an IntEnum becomes an int. So bytes are written as
`{"$bytes": "<base64>"}`, a map that looks like this gets one more `$`, and every value that would
be read back changed is refused. Source: journal/docs/FORMAT.md, "Items".
"""

from __future__ import annotations

import json
import math
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from journal._format.wrong_place import short_repr
from journal._mutex import is_raised_by_call
from journal.errors import CheckpointItemError

JSON: TypeAlias = Any
"""An item of a checkpoint: None, a bool, int, float, str or bytes, or a list or a dict of these.
The keys of a dict are strings."""

# Python 3.11 counts the calls of C and of Python together, so a decoder there stops at about 1000
# levels less the caller's own. An item that was written must never be too deep to be read.
NESTING_MAX = 500
CODEC = "journal", "json"  # packages whose code encodes and decodes
_BYTES_FROM_VERSION = 2
_DOLLAR_KEY = re.compile(r"\$+bytes")
_BYTES_KEY = "$bytes"
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_TYPES = "a checkpoint holds None, bool, int, float, str, bytes, list and dict"
_BASES = (int, float, str, bytes, list, dict)
_SEPARATOR, _DIVIDER = "\x1e", b',"\\u001e",'
_MSGSPEC_MIN = [0, 19]  # older versions change integers of more than 64 bits
LARGE_BYTES = 1 << 12  # the size of bytes from which `encode_large` is faster
_SHORT = b'{"$bytes":"\\u001e"}'


class EncodedItems(NamedTuple):
    """Items that a machine has encoded itself, as lines of a checkpoint."""

    lines: bytes
    """The lines, with a comma and an LF between two of them, and none at the end."""

    number: int
    """The number of lines."""

    def decoded(self) -> list[JSON]:
        """Return the items that the lines hold."""
        return list(_decode_escaped(f"[{self.lines.decode()}]"))


# --- encoding ---


def encode_item(item: JSON, index: int) -> bytes:
    """Return the item's line, without the comma and the LF.

    `index`: the item's place in the checkpoint, for the error. Raises CheckpointItemError for an
    item that would not be read back unchanged.
    """
    try:
        if _is_plain_json(item, NESTING_MAX):
            return _encode(item).encode()
    except (ValueError, RecursionError) as error:
        if not is_raised_by_call(error, *CODEC):
            raise
        # A float, an int or a string is to blame, or the depth of the stack. The walk below finds
        # the path of a bad value.
    plain = escaped(item, index)
    try:
        return _encode(plain).encode()
    except (ValueError, RecursionError) as error:
        if not is_raised_by_call(error, *CODEC):
            raise
        # The caller's stack is too deep, or another thread changes the item meanwhile.
        raise CheckpointItemError(index, "", f"it can't be encoded: {error}") from error


def encode_large(item: JSON, index: int) -> bytes:
    """Return what `encode_item` returns, in half the time if the item has large bytes."""
    # No other object gives the text of bytes: a map with the one key `$bytes` is not plain JSON.
    if _is_plain_json(item, NESTING_MAX):
        aside = _BytesAside(LARGE_BYTES)
        try:
            return aside.put_back(_encoder(aside.encode).encode(item).encode())
        except (ValueError, RecursionError) as error:
            if not is_raised_by_call(error, *CODEC):
                raise
    return encode_item(item, index)


def encode_together(values: Sequence[JSON]) -> list[bytes] | None:
    """Return the texts of `encode_item` for values that msgpack has decoded, with keys that are
    strs or bytes, and without extension types. Return None unless one call certainly gives them.

    A string between two values divides their text again. A value that has the same string in a list
    makes more parts. This saves the 1.2 us that each call takes in addition to the encoding.
    """
    items: list[JSON] = [_SEPARATOR] * (2 * len(values) - 1)
    items[::2] = values
    aside = _BytesAside(0)
    try:
        text = _encoder(aside.encode).encode(items)[1:-1].encode()
    except (ValueError, TypeError, RecursionError) as error:
        if not is_raised_by_call(error, *CODEC):
            raise
        return None
    # A quote inside a string has a backslash before it, so these are bytes and dollar keys.
    if b"$" in text and text.count(b'{"$') != len(aside.texts):  # one byte is found faster
        return None
    texts = aside.put_back(text).split(_DIVIDER)
    if len(texts) != len(values):
        return None
    for part in texts:  # a value that nests too deep has more than `NESTING_MAX` brackets
        if len(part) > NESTING_MAX and part.count(b"[") + part.count(b"{") > NESTING_MAX:
            return None
    return texts


class _BytesAside:
    """Bytes that are encoded beside the encoder, which gets a short string in their place.

    It looks at each character of a string, which takes as long as encoding base64.
    """

    def __init__(self, bytes_min: int) -> None:
        """Leave bytes of fewer than `bytes_min` to the encoder."""
        self.texts: list[bytes] = []  # base64
        self._bytes_min = bytes_min

    def encode(self, value: object) -> JSON:
        """Return bytes as JSON. The encoder calls this for every value whose type JSON lacks."""
        if type(value) is not bytes or len(value) < self._bytes_min:
            return _encoded_bytes(value)
        self.texts.append(b2a_base64(value, newline=False))
        return {_BYTES_KEY: _SEPARATOR}

    def put_back(self, text: bytes) -> bytes:
        """Return the encoder's text with the base64 in its places."""
        if not self.texts:
            return text
        between = text.split(_SHORT)
        objects = (b'{"$bytes":"%b"}' % base64 for base64 in self.texts)
        return b"".join(chain.from_iterable(zip(between, chain(objects, [b""]), strict=True)))


def escaped(item: JSON, index: int) -> JSON:
    """Return a copy of the item as plain JSON: bytes become objects, and dollar keys that could be
    mistaken for them get one more `$`. Raises CheckpointItemError as `encode_item` does."""
    path: list[object] = []
    try:
        return _Escaping(path).copy(item)
    except _RefusedError as error:
        raise CheckpointItemError(index, _path_text(path), str(error)) from None
    except RecursionError as error:
        problem = f"nests too deep here: {error}"
        raise CheckpointItemError(index, _path_text(path), problem) from None


def _is_plain_json(value: JSON, levels: int) -> bool:
    """Return whether the encoder, by itself, either writes the value correctly or raises.

    Return False for a value that the encoder would convert, for one that nests deeper than
    `levels`, and for keys that have to be escaped. This takes a quarter of the time of encoding:
    1.5 us for an agent of 25 fields. Three other ways took longer: a walk by levels,
    `set.issuperset(map(type, ...))`, and msgpack's strict types with a check of the keys.
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
    """Return bytes as JSON. The encoder calls this for every value whose type JSON lacks."""
    if type(value) is bytes:
        return {_BYTES_KEY: b2a_base64(value, newline=False).decode()}
    raise ValueError(f"JSON has no type for {type(value).__name__}")


def _encoder(default: Callable[[object], JSON]) -> json.JSONEncoder:
    # It need not check for cycles: a cycle nests too deep, so it never gets here.
    return json.JSONEncoder(
        ensure_ascii=False,
        allow_nan=False,
        check_circular=False,
        separators=(",", ":"),
        default=default,
    )


# One encoder for all values; `json.dumps` would make one for each.
_encode = _encoder(_encoded_bytes).encode


class _RefusedError(Exception):
    """The reason why an item is refused. The path of the `_Escaping` leads to the place."""


class _Escaping:
    """A walk through an item that checks every value. `path` holds the keys and indices down to the
    current one."""

    def __init__(self, path: list[object]) -> None:
        self._path = path
        self._outer_ids: set[int] = set()  # of the lists and dicts that enclose the current value

    def copy(self, value: JSON) -> JSON:
        """Return the value as plain JSON. Each level is one call, so the stack bounds the depth."""
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
    """Return the map, with one more `$` if its single key is a dollar key."""
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
    """Return the error message for a value of this type, with the type to convert it to."""
    base = next((base.__name__ for base in _BASES if issubclass(kind, base)), None)
    if base is None:
        target = "a list" if issubclass(kind, (tuple, set, frozenset)) else "one of these"
        return f"a value is of type {kind.__name__}; {_TYPES}: convert it to {target} first"
    problem = f"a value is of type {kind.__name__}, a subclass of {base}"
    return f"{problem}; a checkpoint holds no subclasses: convert it to a plain {base} first"


def _check_key(key: object) -> None:
    if type(key) is not str:
        problem = f"a map's key is {short_repr(key)}, of type {type(key).__name__}"
        raise _RefusedError(f"{problem}; a checkpoint holds plain str keys only: convert it first")
    _check_text("a map's key", key)


def _check_text(subject: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = f"{text[error.start]!r}, half a surrogate pair, at {error.start}"
        raise _RefusedError(f"{subject} has {half}; a checkpoint holds only UTF-8") from None


def _check_int(value: int) -> None:
    try:
        str(value)
    except ValueError as error:
        raise _RefusedError(f"an int is too large to be read back: {error}") from None


def _path_text(path: list[object]) -> str:
    """Return the path as an expression, with its long keys cut."""
    return "".join(f"[{short_repr(part)}]" for part in path)


# --- decoding ---


def decoder(version: int, lines: bytes, *, is_large: bool = False) -> Callable[[str], JSON]:
    """Return the function that decodes these lines of a checkpoint of this version.

    It raises ValueError or RecursionError for text that is not JSON, and for bytes that are not
    base64. `is_large`: there is so much to decode that msgspec may be imported for it.
    """
    fast = _fast_decoder() if is_large else None
    # JSON spells a `$` as itself or as an escape with a backslash. The search for one character
    # takes no time. The search for `"$` would take an eighth of the decoding time, more than a
    # decoder that unescapes needs.
    if version < _BYTES_FROM_VERSION or not (b"$" in lines or b"\\" in lines):
        return fast or _decode
    # Only an escape with a `u` can spell a character of `$bytes`.
    if fast and b"\\u" not in lines and b'$bytes"' not in lines:
        return fast
    return _decode_escaped


def text_of(lines: bytes) -> str:
    """Return lines of a checkpoint without the comma and the LF at the end."""
    return lines.decode().removesuffix("\n").removesuffix(",")


def plain_text(version: int, lines: bytes) -> str | None:
    """Return lines of a large checkpoint as a JSON array if msgspec can decode it, else None."""
    if decoder(version, lines, is_large=True) is not _fast_decoder():
        return None
    try:
        return f"[{text_of(lines)}]"
    except UnicodeDecodeError:
        return None  # `Checkpoint.items` finds the line


def _unescaped(mapping: dict[str, JSON]) -> JSON:
    """Return the value that an object in a checkpoint encodes."""
    if len(mapping) != 1:
        return mapping
    [(key, value)] = mapping.items()
    if not _DOLLAR_KEY.fullmatch(key):
        return mapping
    if key != _BYTES_KEY:
        return {key[1:]: value}
    if type(value) is not str:
        kind = type(value).__name__
        raise ValueError(f"the value of {_BYTES_KEY} is of type {kind}, not a string of base64")
    data = a2b_base64(value)  # its binascii.Error is a ValueError
    if not _is_exact(value, data):
        raise ValueError(f"the value of {_BYTES_KEY} is not base64")
    return data


def _is_exact(text: str, data: bytes) -> bool:
    """Return whether `text`, from which `a2b_base64` has decoded `data`, is the base64 of it.

    `a2b_base64` ignores a character that is wrong, and then the text is too long for the data. It
    ignores set bits after the last byte, too, and then the last group differs. To encode all of
    `data` again would take a third of the decoding time.
    """
    last_bytes = (len(data) - 1) % 3 + 1
    last_group = b2a_base64(data[-last_bytes:], newline=False)
    return len(text) == (len(data) + 2) // 3 * 4 and text[-4:].encode() == last_group


def _refuse_constant(name: str) -> JSON:
    raise ValueError(f"{name} is not JSON")


@cache
def _fast_decoder() -> Callable[[str], JSON] | None:
    """Return msgspec's decoder, for lines without bytes, if the extra `fast` is installed."""
    try:
        import msgspec

        release = [*map(int, msgspec.__version__.split(".")[:2])]
        decode, refusal = msgspec.json.Decoder().decode, msgspec.MsgspecError
    except Exception as error:  # it is missing or broken, or its import has only begun
        if not is_raised_by_call(error, "importlib", "msgspec"):
            raise
        return None
    if release < _MSGSPEC_MIN:
        return None

    def decode_or_refuse(text: str) -> JSON:
        try:
            return decode(text)
        except (refusal, RecursionError) as error:
            if not is_raised_by_call(error):
                raise
            return _decode(text)  # which says what is wrong, or accepts it: "1e400", for instance

    return decode_or_refuse


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_decode_escaped = json.JSONDecoder(object_hook=_unescaped, parse_constant=_refuse_constant).decode
