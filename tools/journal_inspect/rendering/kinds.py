"""Kinds: the kind of a record, the agent that it is about, and the names of a manager's fields.

The manager defines the names. A record that does not have exactly these fields is shown like the
record of any other program: another program, or a newer manager, wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from journal import LargeRecord

if TYPE_CHECKING:
    from journal import TableWrite

_COMPOSITE_PREFIX = "journal.composite/"
_TYPES = {"NoneType": "nil", "dict": "map", "list": "array", "bytes": "bin", "ExtType": "ext"}


FILLER_KIND = "(filler)"


def kind_of(record: Any) -> str:
    """Return a list's first string or a map's `kind` or `type`, else the type in brackets."""
    kind = record
    if isinstance(record, list):
        kind = record[0] if record else None
    elif isinstance(record, LargeRecord):
        kind = next(record.elements(), None)
        record = [kind]
    elif isinstance(record, dict):
        kind = record.get("kind", record.get("type"))
    if isinstance(kind, str) and kind and not isinstance(record, str):
        return kind
    name = type(record).__name__
    return f"({_TYPES.get(name, name)})"


@cache
def _names_by_kind() -> Mapping[str, tuple[str, ...]]:
    """Return the names of the fields of a manager's records.

    The import of the manager is here, because most journals do not need it.
    """
    from manager import RECORD_FIELDS

    return RECORD_FIELDS


def field_names(kind: str) -> tuple[str, ...]:
    """Return the names of the fields of a manager's record of this kind; () if no such kind exists.

    The results are not cached: each record of another program may be of a kind of its own.
    """
    return _names_by_kind().get(kind, ())


@cache
def _counts_of_fields(kind: str) -> range:
    """Return the numbers of fields that a manager's record of this kind may have."""
    from manager import OPTIONAL_RECORD_FIELDS

    count = len(field_names(kind))
    return range(count - OPTIONAL_RECORD_FIELDS.get(kind, 0), count + 1)


def fields_of(record: Any) -> dict[str, Any] | None:
    """Return the fields of a manager's record by name, without those that it lacks.

    Return None if it is not a known record.
    """
    if not _may_be_a_managers(record):
        return None
    names = field_names(record[0])
    if not names or len(record) - 1 not in _counts_of_fields(record[0]):
        return None
    return dict(zip(names, record[1:], strict=False))


def fields_in_line(record: Any) -> tuple[tuple[int, str], ...] | None:
    """Return the place and the JSON key of each field of a manager's record but its agent, in the
    order in which a line shows them: `at_ms` is last, because the line begins with nearly the same
    time. Return None if it is not a known record."""
    if type(record) is not list or len(record) < 2 or type(record[1]) is not str:
        return None
    kind, length = record[0], len(record)
    if type(kind) is not str:
        return None
    found = _LINES.get((kind, length))  # of nearly every record of a manager's log
    if found is None and field_names(kind) and (found := _fields_in_line(kind, length)):
        _LINES[kind, length] = found
    return found


# What `fields_in_line` returns for the kinds and lengths of records that it has met.
_LINES: dict[tuple[str, int], tuple[tuple[int, str], ...]] = {}


def _fields_in_line(kind: str, length: int) -> tuple[tuple[int, str], ...] | None:
    if length - 1 not in _counts_of_fields(kind):
        return None
    names = list(enumerate(field_names(kind)[: length - 1], 1))
    names.sort(key=lambda field: field[1] == "at_ms")
    return tuple((place, f'"{name}": ') for place, name in names if name != "agent_id")


def agent_of(record: Any) -> str | None:
    """Return the id of the agent that a manager's record is about; None if it is about none."""
    if isinstance(record, LargeRecord):
        record = [*islice(record.elements(), 2)]
    if not _may_be_a_managers(record) or field_names(record[0])[:1] != ("agent_id",):
        return None
    agent_id: str = record[1]
    return agent_id


def is_agent_id(text: str) -> bool:
    """Return whether `text` has the form of the ids that a manager gives its agents."""
    from manager import AGENT_ID_PATTERN

    return re.fullmatch(AGENT_ID_PATTERN, text) is not None


def is_managers_application(application: str) -> bool:
    """Return whether a manager, of whatever version, gives its journals this application."""
    from manager import APPLICATION_PREFIX

    return application.startswith(APPLICATION_PREFIX)


def is_boot(record: Any) -> bool:
    """Return whether a manager, of whatever version, journaled `record` when it opened."""
    return _may_be_a_managers(record) and record[0] == "boot" and is_managers_application(record[1])


def writes_of(record: Any) -> list[TableWrite] | None:
    """Return the writes in a record of tables; None for any other record.

    The import is here, because most journals do not need it.
    """
    if not isinstance(record, list) or len(record) < 2 or type(record[1]) is not list:
        return None
    from journal import tables_writes

    return tables_writes(record)


def tables_record_of(record: Any) -> list[Any] | None:
    """Return the record of tables that `record` is, or that it applies to a part of a Composite.

    Return None if it seems to be neither.
    """
    if not isinstance(record, list):
        return None
    if writes_of(record) or (len(record) == 4 and record[0] == "piece"):
        return record
    return tables_record_of(record[1]) if len(record) == 2 else None


def may_have_tables(application: str) -> bool:
    """Return whether a journal of this application may have tables, of whatever version."""
    from journal import TABLES_APPLICATION_PREFIX

    prefixes = (TABLES_APPLICATION_PREFIX, _COMPOSITE_PREFIX)
    return application.startswith(prefixes) or is_managers_application(application)


def _may_be_a_managers(record: Any) -> bool:
    return isinstance(record, list) and len(record) > 1 and {str} == {*map(type, record[:2])}


def name_of(record: Any) -> str | None:
    """Return the name that a record gives to its agent; None if it gives none."""
    fields = fields_of(record) if isinstance(record, list) else None
    name = fields.get("name") if fields else None
    return name if isinstance(name, str) else None
