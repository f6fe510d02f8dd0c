"""The check of the tables that a store of an adapter is given."""

from __future__ import annotations

from journal import Tables


def checked(tables: Tables) -> Tables:
    """Return `tables`. Raises TypeError for an object without tables, such as a path."""
    if not hasattr(tables, "table"):  # a view has tables, too, and can be read
        raise TypeError(
            f"{tables!r:.80} is not Tables; open them with Tables.open(path), or with "
            "`async with Tables.aopen(path)`"
        )
    return tables
