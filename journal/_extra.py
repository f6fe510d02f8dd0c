"""The error of a module's import without the packages of its extra."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needing_extra(extra: str) -> Iterator[None]:
    """Let the error name the extra that installs a missing package, or a version of it that has a
    missing name."""
    try:
        yield
    except ImportError as error:
        if error.name is None or error.name.partition(".")[0] == "journal":
            raise
        kind = ModuleNotFoundError if isinstance(error, ModuleNotFoundError) else ImportError
        raise kind(
            f"{error.msg}, which the extra {extra} installs; "
            f"run: pip install 'journal-engine[{extra}]'",
            name=error.name,
        ) from error
