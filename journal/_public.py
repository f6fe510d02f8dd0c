"""The decorator of public classes and functions."""

from __future__ import annotations

from typing import TypeVar

PACKAGES = ("journal", "manager")
"""The packages of this project whose code runs in a user's process."""

T = TypeVar("T")


def public(definition: T) -> T:
    """Make the package the module of a public class or function. Return it.

    Tracebacks, `repr` and pickles then show the name that users import, not a private module.
    """
    definition.__module__ = definition.__module__.partition(".")[0]
    return definition
