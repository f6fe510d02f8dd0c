"""The decorator of public classes and functions."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def public(definition: T) -> T:
    """Set the module of a public class or function to its package, so that tracebacks, `repr` and
    pickles show the name that users import, and no private module.
    """
    definition.__module__ = definition.__module__.partition(".")[0]
    return definition
