"""Writes in a record of tables, and rows as JSON, for programs that show a journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from journal._format.items import escaped
from journal._format.record import pack
from journal._public import public
from journal._tables.keys import Key, decode_key
from journal._tables.machine import APPLICATION, ROWS
from journal._tables.values import unpack_value
from journal.errors import CheckpointItemError, RecordError

TABLES_APPLICATION_PREFIX = APPLICATION.partition("/")[0] + "/"
"""The prefix of `Options.application` in the journals of all versions of Tables."""


@public
@dataclass(frozen=True, slots=True)
class TableWrite:
    """One write in the record of a transaction."""

    table: str
    """The name of the table."""

    key: int | str | bytes | tuple[int | str | bytes, ...]
    """The key that was written."""

    change: Literal["set", "removed", "other"]
    """"set" to `value`, or "removed". "other": the value is not in this record, or a newer version
    wrote it in a form that this one can't read."""

    value: Any
    """The new value; None unless `change` is "set"."""


@public
def tables_writes(record: Any) -> list[TableWrite] | None:
    """Return the writes in a decoded record of Tables, in their order.

    Return None for any other record, including one of a kind that this version does not know.
    """
    if type(record) is not list or len(record) < 2 or record[0] != ROWS:
        return None
    writes = [_decoded_write(write) for write in record[1:]]
    return None if None in writes else [write for write in writes if write]


@public
def row_as_json(table: str, key: Key, value: Any) -> dict[str, Any]:
    """Return a row as a checkpoint has it, in values that `json.dumps` accepts.

    The keys are "table", "key" and "value". Bytes are `{"$bytes": "<base64>"}`, and a tuple is a
    list. A value that JSON can't hold, such as one with a NaN, is msgpack under "packed" instead.
    """
    row = {"table": table, "key": escaped(list(key) if type(key) is tuple else key, 0)}
    try:
        return {**row, "value": escaped(value, 0)}
    except CheckpointItemError:
        return {**row, "packed": escaped(pack(value)._packed, 0)}


def _decoded_write(write: Any) -> TableWrite | None:
    """Return a write of a record, or None if it is not one of Tables."""
    if type(write) is not list or len(write) < 3:
        return None
    name, encoded, value = write[:3]
    if type(name) is not str or type(encoded) is not bytes:
        return None
    try:
        key = decode_key(encoded)
    except (ValueError, IndexError):
        return None
    if len(write) == 3 and value is None:
        return TableWrite(name, key, "removed", None)
    if len(write) == 3 and type(value) is bytes:
        try:
            return TableWrite(name, key, "set", unpack_value(value))
        except (RecordError, IndexError):  # a newer version may keep values in other forms
            pass
    return TableWrite(name, key, "other", None)
