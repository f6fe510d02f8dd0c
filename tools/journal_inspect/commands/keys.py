"""Keys: keys of tables as users type them, in JSON or as a bare word."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any

from journal import Key

Element = int | str | bytes
_FORMS = '7, "a", {"$bytes": "AA=="}, or a list of these; a bare word is a string'
_INT_MIN, _INT_MAX = -(1 << 63), (1 << 64) - 1


def parse_key(text: str) -> Key:
    """Parse a key. Raises ValueError, with the possible forms, if `text` is not one."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        if text.lstrip()[:1] in ('"', "[", "{"):  # JSON was meant
            raise ValueError(f"{text!r} is not JSON; a key is {_FORMS}") from None
        return _checked(text, text)
    if isinstance(value, list):
        if not value:
            raise ValueError(f"{text!r} is an empty list; a key is {_FORMS}")
        return tuple(_element(part, text) for part in value)
    return _element(value, text)


def parse_prefix(text: str) -> str | bytes | tuple[Element, ...]:
    """Parse the beginning of keys: of a string, of bytes or of a list. Raises ValueError if `text`
    is not one."""
    prefix = parse_key(text)
    if isinstance(prefix, int):
        raise ValueError(
            f"{text!r} is a number; for lists that begin with it give [{text}], "
            f'for strings "{text}"'
        )
    return prefix


def _element(value: Any, text: str) -> Element:
    if type(value) is int and _INT_MIN <= value <= _INT_MAX:
        return value
    if type(value) is str:
        return _checked(value, text)
    if type(value) is dict and len(value) == 1:
        [(form, data)] = value.items()
        if (
            form in ("$bytes", "base64") and type(data) is str
        ):  # as in a checkpoint, or as shown by `log`
            try:
                return b64decode(data, validate=True)
            except ValueError:
                raise ValueError(
                    f"{text!r} has bytes that are not base64; a key is {_FORMS}"
                ) from None
    raise ValueError(f"{text!r} is not a key: a key is {_FORMS}, and true, 1.5 and null are quoted")


def _checked(value: str, text: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{text!r} is not UTF-8") from None
    return value


def _refuse(name: str) -> Any:
    raise ValueError(name)
