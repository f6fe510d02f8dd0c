"""Statement: a small JSON file with which a directory says what it is and what became of it."""

from __future__ import annotations

import json
from typing import Any

from journal._disk.disk import TMP, Directory, remove_if_exists, write_all
from journal._mutex import is_raised_by_call
from journal.errors import JournalError


def read_statement(directory: Directory, name: str, version: int) -> list[Any]:
    """Return the values in the file `name`, in their order, without its version.

    Raises FileNotFoundError, and JournalError if the file is damaged or has another version.
    """
    file = directory.open(name, "read")
    try:
        data = file.read(file.size(), 0)
    finally:
        file.close()
    try:
        values: list[Any]
        stated, *values = json.loads(data).values()
    except (ValueError, TypeError, AttributeError) as error:
        if not is_raised_by_call(error, "json"):
            raise
        raise JournalError(f"{directory.path}/{name}: it is damaged: {error}") from error
    if stated == version:
        return values
    raise JournalError(f"{directory.path}/{name}: version {stated}; use a newer journal-engine")


def write_statement(directory: Directory, name: str, version: int, values: dict[str, Any]) -> None:
    """Write or replace the file `name`, durably. It has all `values` but "path"."""
    stated = {"version": version, **values}
    del stated["path"]
    data = json.dumps(stated, indent=1).encode() + b"\n"
    remove_if_exists(directory, name + TMP)
    file = directory.open(name + TMP, "create")
    try:
        write_all(file, data, 0)
        file.sync()
    finally:
        file.close()
    directory.rename(name + TMP, name)
    directory.sync()
