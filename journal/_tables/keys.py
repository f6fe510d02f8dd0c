"""Keys of tables, encoded as bytes that sort in the order of the keys.

    integer   10 or 11, then 8 bytes, big-endian (10: negative, plus 2^64)
    string    20, then UTF-8
    bytes     30, then the bytes
    tuple     40, then its elements, then 00; a string or bytes in it has each 00 written as 00 ff,
              and ends with 00

Integers come before strings, strings before bytes, bytes before tuples. Strings sort by code point,
as UTF-8 does. A tuple sorts by its elements, and comes after each of its prefixes: the 00 that ends
it is less than any element's first byte, and the 00 that ends an element is never followed by ff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeAlias

from journal._format.wrong_place import short_repr
from journal._mutex import is_raised_by_call

Element: TypeAlias = int | str | bytes
Key: TypeAlias = Element | tuple[Element, ...]

INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1
_NEGATIVE, _POSITIVE, _STR, _BYTES = 0x10, 0x11, 0x20, 0x30
_END = b"\0"
_ESCAPED_END = b"\0\xff"
_KINDS = "a key is an int of 64 bits, a str, bytes, or a tuple of these"
_SHOWN_CHARS = 80


def encode_key(key: Key) -> bytes:
    """Return `key` as bytes. Raises TypeError or ValueError that names the wrong element."""
    if type(key) is str:
        try:
            return b"\x20" + key.encode()  # a call of `_encode_str` takes 50 ns more
        except UnicodeEncodeError:
            return _encode_str(key, "key")  # raises, and names the place
    if type(key) is tuple:
        return _encode_elements(key, "key") + _END
    encode = _ENCODERS.get(type(key))
    if encode is None:
        problem = _wrong_type("key", key)
        raise TypeError(problem)
    return encode(key, "key")


def encode_loaded(keys: list[Any]) -> list[bytes]:
    """Return the keys of a checkpoint, where a tuple is a list, as bytes. Raises what `encode_key`
    raises."""
    with suppress(TypeError, UnicodeEncodeError):  # `encode_key` names the place
        encoded = ("\x20" + "\n\x20".join(keys)).encode().split(b"\n")
        if len(encoded) == len(keys):
            return encoded
    return [encode_key(tuple(key) if type(key) is list else key) for key in keys]


def decode_key(data: bytes) -> Key:
    """Return the key that `data` encodes. Raises ValueError if it encodes none."""
    if data and data[0] == _STR:
        return data[1:].decode()
    kind = data[:1]
    if kind == b"\x30":
        return data[1:]
    if kind == b"\x40":
        return _decode_strs(data) or _decode_mixed(data)
    if len(data) != 9:
        raise ValueError(f"{data[:_SHOWN_CHARS]!r} encodes no key")
    return _decode_int(data, 0)


def decode_keys(keys: list[bytes]) -> Iterable[Key]:
    """Return the keys that `keys`, which ascend or descend, encode.

    Strs are decoded together, which takes half the time: if the first and the last key are strs, so
    are all. A str that contains the separator makes more parts than there are keys.
    """
    if keys and keys[0][0] == _STR == keys[-1][0]:
        texts = b"\n".join(keys).decode()[1:].split("\n\x20")
        if len(texts) == len(keys):
            return texts
    return map(decode_key, keys)


def range_bounds(start: Key | None, stop: Key | None) -> tuple[bytes, bytes | None]:
    """Return the encoded bounds of a range of keys; None: the beginning, and the end."""
    return b"" if start is None else encode_key(start), None if stop is None else encode_key(stop)


def prefix_bounds(prefix: str | bytes | tuple[Element, ...]) -> tuple[bytes, bytes]:
    """Return the start and the stop of the range of encoded keys that begin with `prefix`.

    A tuple matches tuples by their leading elements; a str or bytes matches keys of its own type by
    their leading characters or bytes.
    """
    if type(prefix) is tuple:
        start = _encode_elements(prefix, "prefix")
        return start, start + b"\xff"
    if type(prefix) is str or type(prefix) is bytes:
        start = _ENCODERS[type(prefix)](prefix, "prefix")
        stop = start.rstrip(b"\xff")  # the first byte is never ff
        return start, stop[:-1] + bytes((stop[-1] + 1,))
    raise TypeError(f"prefix is {short_repr(prefix)}; a prefix is a str, bytes or a tuple")


def _encode_int(number: int, place: str) -> bytes:
    if not INT_MIN <= number <= INT_MAX:
        raise ValueError(f"{place} is {short_repr(number)}, an int of more than 64 bits; {_KINDS}")
    if number < 0:
        return b"\x10" + (number + (1 << 64)).to_bytes(8, "big")
    return b"\x11" + number.to_bytes(8, "big")


def _encode_str(text: str, place: str) -> bytes:
    try:
        return b"\x20" + text.encode()
    except UnicodeEncodeError as error:
        at = error.start
        raise ValueError(f"{place} has half a surrogate pair, {text[at]!r}, at {at}") from None


def _encode_bytes(data: bytes, _: str) -> bytes:
    return b"\x30" + data


_ENCODERS: dict[type, Callable[[Any, str], bytes]] = {
    int: _encode_int,
    str: _encode_str,
    bytes: _encode_bytes,
}


def _encode_elements(elements: tuple[Element, ...], what: str) -> bytes:
    """Return the elements of a tuple, encoded, without the end of the tuple."""
    if not elements:
        raise ValueError(f"{what} is an empty tuple; {_KINDS}, and a tuple has an element")
    for element in reversed(elements):  # a number is mostly the last one
        if type(element) is not str:
            break
    else:
        joined = "\0 ".join(elements)  # type: ignore[arg-type]  # all are strs
        if joined.isascii() and joined.count("\0") == len(elements) - 1:
            return b"\x40\x20" + joined.encode() + _END  # in half the time of what follows
    parts = [b"\x40"]
    for index, element in enumerate(elements):
        # Most elements are one of these two, which need no text for an error: half the time.
        if type(element) is str and element.isascii():
            part = b"\x20" + element.encode().replace(_END, _ESCAPED_END) + _END
        elif type(element) is int and 0 <= element <= INT_MAX:
            part = b"\x11" + element.to_bytes(8, "big")
        else:
            part = _encode_element(element, f"{what}[{index}]")
        parts.append(part)
    return b"".join(parts)


def _encode_element(element: Element, place: str) -> bytes:
    """Return one element of a tuple, encoded with the end of its text."""
    encode = _ENCODERS.get(type(element))
    if encode is None:
        raise TypeError(_wrong_type(place, element))
    part = encode(element, place)
    return part if type(element) is int else part.replace(_END, _ESCAPED_END) + _END


def _decode_strs(data: bytes) -> tuple[str, ...] | None:
    """Return the elements of a tuple of strs, in a third of the time that `_decode_mixed` takes, or
    None for any other tuple."""
    try:
        texts = data[2:-2].decode().split("\0 ")
    except UnicodeDecodeError as error:
        if not is_raised_by_call(error):
            raise
        return None
    is_whole = data.startswith(b"\x40\x20") and data.endswith(b"\0\0")
    return tuple(texts) if is_whole and "\0" not in "".join(texts) else None


def _decode_mixed(data: bytes) -> tuple[Element, ...]:
    elements: list[Element] = []
    at, last = 1, len(data) - 1
    while at < last:
        kind = data[at]
        if kind in (_NEGATIVE, _POSITIVE):
            elements.append(_decode_int(data, at))
            at += 9
            continue
        end = data.index(_END, at)
        while data[end + 1] == 0xFF:
            end = data.index(_END, end + 2)
        raw = data[at + 1 : end].replace(_ESCAPED_END, _END)
        if kind not in (_STR, _BYTES):
            raise ValueError(f"{data[:_SHOWN_CHARS]!r} encodes no key")
        elements.append(raw.decode() if kind == _STR else raw)
        at = end + 1
    if at != last or data[last] or not elements:
        raise ValueError(f"{data[:_SHOWN_CHARS]!r} encodes no key")
    return tuple(elements)


def _decode_int(data: bytes, at: int) -> int:
    number = int.from_bytes(data[at + 1 : at + 9], "big")
    if data[at] == _POSITIVE:
        return number
    if data[at] == _NEGATIVE and number >> 63:
        return number - (1 << 64)
    raise ValueError(f"{data[:_SHOWN_CHARS]!r} encodes no key")


def _wrong_type(place: str, value: object) -> str:
    return f"{place} is {short_repr(value)}, of type {type(value).__name__}; {_KINDS}"
