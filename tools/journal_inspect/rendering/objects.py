"""Objects: the values of the engine and of the manager as JSON.

Keys are the names of fields. Each object contains a schema version, so that a program can detect a
change.
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
from _journal_console.text import escaped, put_lines

Format = Literal["text", "json", "jsonl"]
JSON = Any

SCHEMA_VERSION = 1
_CHECKPOINT_FIELDS = ("lsn", "epoch", "count", "created_at_ms", "application", "path")
# Fields for programs that call the engine. No schema contains them.
_LEFT_OUT = {
    "Finding": ("reason", "header_of", "durable_lsn", "journal_id", "last_lsn"),
    "RepairReport": ("refusal", "renamed"),
    "SegmentInfo": ("unreadable",),
}
_ATOMS = frozenset((str, int, bool, type(None)))
_ALL_STRINGS = frozenset((str,)).issuperset
_TIMESTAMP_EXT = -1  # msgpack's ext type of a Timestamp


def as_object(value: Any, **more: JSON) -> dict[str, JSON]:
    """Return an Entry, SegmentInfo, Checkpoint, Finding or Agent as an object with `more` keys."""
    names = [f.name for f in fields(value)] if is_dataclass(value) else _CHECKPOINT_FIELDS
    left_out = _LEFT_OUT.get(type(value).__name__, ())
    names = [name for name in names if name not in left_out]
    return versioned(**{name: plain(getattr(value, name)) for name in names}, **more)


def versioned(**keys: JSON) -> dict[str, JSON]:
    """Return an object with these keys and the schema version."""
    return {"schema_version": SCHEMA_VERSION, **keys}


def plain(value: Any) -> JSON:
    """Return a decoded msgpack value as a JSON value.

    Bytes become {"base64": ...}, ext types and timestamps {"ext": n, "base64": ...}, NaN and the
    infinities {"float": "nan"}, and maps whose keys are not all strings {"map": [[key, value]]}.
    A value that needs none of this is returned itself: to copy it would take twice the time.
    """
    return value if _is_plain(value) else _made_plain(value)


def _is_plain(value: Any) -> bool:
    """Return whether `value` is a JSON value already, of exactly the types that msgpack makes."""
    kind = type(value)
    if kind is dict:
        if not _ALL_STRINGS(map(type, value)):
            return False
        value = value.values()
    elif kind is not list:
        return kind in _ATOMS or (kind is float and math.isfinite(value))
    for item in value:  # `all` with a generator would take twice the time
        if type(item) not in _ATOMS and not _is_plain(item):
            break
    else:
        return True
    return False


def _made_plain(value: Any) -> JSON:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if isinstance(value, dict):
        if all(type(key) is str for key in value):
            return {key: _made_plain(item) for key, item in value.items()}
        return {"map": [[_made_plain(key), _made_plain(item)] for key, item in value.items()]}
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, msgpack.Timestamp):
        return {"ext": _TIMESTAMP_EXT, **_made_plain(value.to_bytes())}
    if isinstance(value, msgpack.ExtType):  # an ExtType is also a tuple
        return {"ext": value.code, **_made_plain(value.data)}
    if isinstance(value, (list, tuple)):
        return [_made_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def is_json(value: object) -> bool:
    """Return whether `value` consists of JSON types only."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    return value is None or isinstance(value, (str, int, float))


def dumps(value: JSON) -> str:
    """Return one line that is safe for a terminal, in characters that stdout can encode."""
    return escaped(encoder()(value))


def encoder() -> Callable[[JSON], str]:
    """Return the function that makes JSON of a value, as `dumps` does, without its last step."""
    return _encoder(sys.stdout.encoding)


@cache
def _encoder(encoding: str) -> Callable[[JSON], str]:
    is_unicode = encoding.lower().replace("-", "") == "utf8"
    # Values are copies without cycles, and to look for some would take a tenth of the time.
    encoder = json.JSONEncoder(ensure_ascii=not is_unicode, check_circular=False)
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return encoder.encode
    # `encode` makes such an encoder for each value, which takes half of the time of a small one.
    quote = json.encoder.encode_basestring if is_unicode else json.encoder.encode_basestring_ascii
    chunks = make(None, encoder.default, quote, None, ": ", ", ", False, False, True)
    return lambda value: quote(value) if type(value) is str else "".join(chunks(value, 0))


def put_objects(values: Iterable[JSON], form: Format) -> int:
    """Print the values as they arrive, as lines or as one array, and return their number."""
    if form == "jsonl":
        return put_lines(map(dumps, values))
    count = 0
    try:
        for value in values:
            print(",\n" if count else "[\n", dumps(value), sep="", end="")
            count += 1
    finally:  # close the array even after an error
        print("\n]" if count else "[]")
    return count


def put_one(value: JSON) -> None:
    """Print the only object of a verb: one line in both formats."""
    print(dumps(value))
