"""Objects: what the engine and the manager hand out, as JSON.

Keys are the names of their fields. A version stands in each object, so that who reads them
can tell when that changes.
"""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal

import msgpack

from journal_inspect.rendering.text import escaped, put_lines

Format = Literal["text", "json", "jsonl"]
JSON = Any

SCHEMA_VERSION = 1
_CHECKPOINT_FIELDS = ("lsn", "epoch", "count", "created_at_ms", "application", "path")
# Fields for programs that call the engine, which no schema has.
_LEFT_OUT = {
    "Finding": ("reason", "header_of", "durable_lsn", "journal_id"),
    "RepairReport": ("refusal",),
}
_ATOMS = frozenset((str, int, bool, type(None)))
_TIMESTAMP_EXT = -1  # msgpack's number for a Timestamp


def as_object(value: Any, **more: JSON) -> dict[str, JSON]:
    """An Entry, SegmentInfo, Checkpoint, Finding or Agent, and `more`."""
    names = [f.name for f in fields(value)] if is_dataclass(value) else _CHECKPOINT_FIELDS
    left_out = _LEFT_OUT.get(type(value).__name__, ())
    names = [name for name in names if name not in left_out]
    return versioned(**{name: plain(getattr(value, name)) for name in names}, **more)


def versioned(**keys: JSON) -> dict[str, JSON]:
    """An object of our own."""
    return {"schema_version": SCHEMA_VERSION, **keys}


def plain(value: Any) -> JSON:
    """`value`, which msgpack carried, as what JSON carries.

    Bytes are {"base64": ...}, ext types and timestamps {"ext": n, "base64": ...}, floats that
    are no numbers {"float": "nan"}, maps with other keys than strings {"map": [[key, value]]}.
    """
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, dict):
        if all(type(key) is str for key in value):
            return {
                key: item if type(item) in _ATOMS else plain(item) for key, item in value.items()
            }
        return {"map": [[plain(key), plain(item)] for key, item in value.items()]}
    if kind is list:
        return [item if type(item) in _ATOMS else plain(item) for item in value]
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, msgpack.Timestamp):
        return {"ext": _TIMESTAMP_EXT, **plain(value.to_bytes())}
    if isinstance(value, msgpack.ExtType):  # a tuple too, so before those
        return {"ext": value.code, **plain(value.data)}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def is_json(value: object) -> bool:
    """Whether `value` is made of what JSON has."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    return value is None or isinstance(value, (str, int, float))


def dumps(value: JSON) -> str:
    """One line, safe for a terminal, in characters that the output can carry."""
    is_unicode = sys.stdout.encoding.lower().replace("-", "") == "utf8"
    return escaped(_encoder(not is_unicode)(value))


@cache
def _encoder(ensure_ascii: bool) -> Callable[[JSON], str]:
    return json.JSONEncoder(ensure_ascii=ensure_ascii).encode


def put_objects(values: Iterable[JSON], form: Format) -> int:
    """Each as it comes: a line each, or in one array; how many they were."""
    if form == "jsonl":
        return put_lines(map(dumps, values))
    count = 0
    try:
        for value in values:
            print(",\n" if count else "[\n", dumps(value), sep="", end="")
            count += 1
    finally:  # what an error cuts short is a whole array still
        print("\n]" if count else "[]")
    return count


def put_one(value: JSON) -> None:
    """The one object that a verb has, which is a line in either form."""
    print(dumps(value))
