"""Plain strings in place of instances of subclasses."""

from __future__ import annotations

from enum import Enum, StrEnum

import pytest

from journal.adapters._strings import plain


class Name(StrEnum):
    """Names that are strings."""

    ADA = "ada"


class OlderName(str, Enum):  # noqa: UP042 - its `str` differs from that of a StrEnum
    """Names as programs for Python 3.10 write them."""

    ADA = "ada"


class Loud(str):
    """A string that is printed in another way."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()


@pytest.mark.parametrize("name", ["ada", Name.ADA, OlderName.ADA, Loud("ada")])
def test_a_string_of_a_subclass_becomes_a_plain_one(name: str) -> None:
    """The plain string has the same text, whatever `__str__` returns."""
    assert plain(name) == "ada"
    assert type(plain(name)) is str


def test_other_values_stay_as_they_are() -> None:
    """Numbers and None, for example, are returned."""
    for value in (None, 7, b"ada"):
        assert plain(value) is value
