"""Values: checks and copies callers' values, so that msgpack and JSON both carry them unchanged."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from manager.arguments import short_repr

_INT_MIN, INT_MAX = -(1 << 63), (1 << 64) - 1  # the range of msgpack's integers
NAME_BYTES_MAX = 256
_LEVELS_MAX = 100  # well below the recursion limits of msgpack, json and this module
AGENT_ID_PATTERN = r"agent_[0-9a-f]{12}"
"""The regular expression of the ids that a manager gives its agents. No name may match it. An
imported agent keeps its old id, which need not match."""
is_agent_id = re.compile(AGENT_ID_PATTERN).fullmatch


def text(where: str, value: object) -> str:
    """Return `value` as an exact str. Raises TypeError, or ValueError if UTF-8 can't encode it."""
    if type(value) is str and value.isascii():
        return value
    if not isinstance(value, str):
        raise TypeError(f"{where} must be a string, not {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{where} has half a surrogate pair: {error}") from None
    return str.__str__(value)  # msgpack does not pack a subclass, such as a StrEnum


def optional_text(where: str, value: object) -> str | None:
    return None if value is None else text(where, value)


def prompt_text(where: str, value: object, bytes_max: int) -> str:
    prompt = text(where, value)
    if (size := utf8_bytes(prompt)) > bytes_max:
        raise ValueError(f"{where} has {size} bytes, over prompt_bytes_max={bytes_max}")
    return prompt


def tail(where: str, value: object, bytes_max: int) -> str:
    """Return `value`, or its end after a line that says so if it has over `bytes_max` UTF-8 bytes.

    The end of a long text shows the outcome. At least half of `bytes_max` is kept of the text, so
    with a small limit the result may be longer than `bytes_max`.
    """
    full = text(where, value)
    size = utf8_bytes(full)
    return full if size <= bytes_max else cut(full, size, bytes_max)


def cut(end: str, size: int, bytes_max: int) -> str:
    """Return the end of a text of `size` bytes, of which `end` is known, as `tail` does."""
    notice = f"[{size} bytes, cut to the last ones]\n"
    encoded = end.encode()[-max(bytes_max - len(notice), bytes_max // 2, 1) :]
    return notice + encoded.decode(errors="ignore")


def utf8_bytes(value: str) -> int:
    """Return the length of a text in UTF-8."""
    return len(value) if value.isascii() else len(value.encode())


def whole(where: str, value: object, *, low: int = 0) -> int:
    """Return `value` as an exact int from `low` to 2^64 - 1. Raises TypeError or ValueError."""
    if type(value) is int and low <= value <= INT_MAX:
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{where} must be a whole number, not {short_repr(value)}")
    if not low <= value <= INT_MAX:
        raise ValueError(f"{where} must be from {low} to {INT_MAX}, not {short_repr(value)}")
    return int(value)


def json_value(where: str, value: object) -> Any:
    """Return a deep copy of `value` in exact types. Tuples become lists, as in JSON.

    Raises TypeError or ValueError, which names the key, unless keys are strings, floats are finite,
    integers fit in 64 bits, there are no bytes, and values nest at most 100 levels deep.
    """
    return None if value is None else _json_value([where], value)


def _json_value(path: list[object], value: object) -> Any:
    if isinstance(value, dict) and len(path) <= _LEVELS_MAX:  # first, as the most frequent type
        return {
            key if type(key) is str and key.isascii() else _key(path, key): item
            if type(item) is int and 0 <= item <= INT_MAX
            else _item(path, key, item)
            for key, item in value.items()
        }
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):  # the place is formatted only if the text might be refused
        return value if type(value) is str and value.isascii() else text(_named(path), value)
    if isinstance(value, int):
        if not _INT_MIN <= value <= INT_MAX:
            raise ValueError(f"{_named(path)} is an integer that does not fit in 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{_named(path)} is {value}, which JSON can't carry")
        return float(value)
    if len(path) > _LEVELS_MAX:
        raise ValueError(f"{path[0]} nests deeper than {_LEVELS_MAX} levels, or contains itself")
    if isinstance(value, (list, tuple)):
        return [_item(path, index, item) for index, item in enumerate(value)]
    raise TypeError(f"{_named(path)} is of type {type(value).__name__}, which JSON can't carry")


def _item(path: list[object], key: object, value: object) -> Any:
    path.append(key)
    copy = _json_value(path, value)
    path.pop()
    return copy


def _key(path: list[object], key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{_named(path)} has the key {key!r}; in JSON, keys are strings")
    return str.__str__(key) if key.isascii() else text(f"{_named(path)}, key {key!r}", key)


def _named(path: list[object]) -> str:
    return f"{path[0]}{''.join(f'[{key!r}]' for key in path[1:])}"


def checked_name(name: str) -> str:
    """Return `name` as an exact str. Raises TypeError or ValueError if no agent may have it."""
    name = text("name", name)
    if not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"name must have 1 to {NAME_BYTES_MAX} bytes, not {len(name.encode())}")
    if is_agent_id(name):
        raise ValueError(f"name {name!r} looks like an agent's id, so it would be ambiguous")
    return name


def source_name(where: str, value: object) -> str:
    """Return the id of a source of usage. Raises TypeError or ValueError if it is not one."""
    name = text(where, value)
    if not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"{where} must have 1 to {NAME_BYTES_MAX} bytes")
    return name


def texts(where: str, values: Iterable[str]) -> list[str]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{where} must be a sequence of strings, not {short_repr(values)}")
    return [text(f"{where}[{index}]", value) for index, value in enumerate(values)]
