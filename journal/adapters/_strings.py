"""Plain strings, which keys and values of tables are made of."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def plain(value: T) -> T:
    """Return a `str` with the text of `value`, if `value` is an instance of a subclass.

    Other libraries take the members of a StrEnum as ids, and tables refuse them. `str(value)` could
    return another text: that of a `class Name(str, Enum)` begins with "Name.".
    """
    if type(value) is not str and isinstance(value, str):
        return str.__str__(value)  # type: ignore[return-value]
    return value
