"""Checks: verifies that fields of recovered agents and records have values that a manager writes.

A correct checksum does not prove that a manager wrote the bytes. A field of a wrong type would end
a listing in a TypeError, and a value that JSON can't carry would prevent every later checkpoint. No
message quotes a value, because `journal-inspect` may have been asked to leave that value out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, get_args, get_type_hints

from manager.agent import (
    ENDED,
    EXTRA_FIELDS,
    NEVER_STARTED,
    ROW_FIELDS,
    STARTED_ONCE,
    STATUSES,
    Extras,
    Lease,
    Row,
    get,
)
from manager.layouts import Import, Layout, Record, optional_fields
from manager.values import INT_MAX, NAME_BYTES_MAX, checked_name, json_value, text

_TYPES: dict[object, tuple[type, ...]] = {
    str: (str,),
    str | None: (str, type(None)),
    int: (int,),
    int | None: (int, type(None)),
    list[str] | None: (list, type(None)),
    dict[str, Any]: (dict,),
    Any: (type(None), bool, int, float, str, list, dict),
}


def allowed_types(layout: type[Layout | Import]) -> list[tuple[type, ...]]:
    """Return the allowed types of each field of a record, in the fields' order."""
    return [_TYPES.get(hint, (str,)) for hint in get_type_hints(layout).values()]


# A row has the fields of an "import" record without its kind and attempt, then the LSN, and the
# newer fields.
ALLOWED: list[tuple[type, ...]] = [
    *allowed_types(Import)[1:-1],
    (int,),
    _TYPES[str | None],
    _TYPES[int | None],
    (tuple,),
]
_ALLOWED_EXTRAS: list[tuple[type, ...]] = [
    (int,),
    (int,),
    _TYPES[Any],
    (list, type(None)),
    (dict, type(None)),
]
TEXTS = [at for at, allowed in enumerate(ALLOWED) if str in allowed and int not in allowed]
NUMBERS = [at for at, allowed in enumerate(ALLOWED) if int in allowed and str not in allowed]
_LEVELS = 50  # nesting that the quick check follows; `json_value` checks deeper values
_STATUSES = frozenset(STATUSES)
_FROM_ONE = frozenset(("token_budget", "attempt", "keep", "epoch", "sequence"))
_texts: Callable[[Row], tuple[str | None, ...]] = itemgetter(*TEXTS)


def check_row(row: Row) -> None:
    """Raise TypeError or ValueError, naming the field, for a value that no manager writes."""
    _check_types(tuple(map(type, row)))
    (
        agent_id, name, _, _, _, _, status, _, _, steps_taken, _, _,
        tools, _, depth, budget, tokens_used, metadata, created, started, updated, ended, _, lsn,
        taken_by, taken, extras,
    ) = row  # fmt: skip
    # One check of all numbers: the OR is negative if one of them is, and longer than 64 bits if one
    # of them is.
    together = steps_taken | depth | tokens_used | lsn | created | updated
    together |= (started or 0) | (ended or 0) | (taken or 0)
    if together >> 64 or budget is not None:
        for at in NUMBERS:
            if row[at] is not None:
                check_whole(ROW_FIELDS[at], row[at], low=_lowest(ROW_FIELDS[at]))
    check_names(agent_id, name)
    if status not in _STATUSES:
        raise ValueError("status is not the status of an agent")
    if (ended is None) is (status in ENDED):
        raise ValueError("ended_at_ms does not fit the status")
    if (taken_by is None) is not (taken is None) or (ended is None) > (taken is None):
        raise ValueError("taken_by and taken_at_ms do not fit the status")
    if extras is not STARTED_ONCE and extras is not NEVER_STARTED:
        check_extras(extras)
    check_given(tools, metadata)


def check_extras(extras: Extras) -> None:
    _check_types_of_extras(tuple(map(type, extras)))
    attempt, starts, _, progress, lease = extras
    check_whole("attempt", attempt, low=1)
    check_whole("starts", starts)
    if progress is not None:
        check_events(progress)
    if lease is not None:
        check_lease(lease)


def check_events(events: list[Any]) -> None:
    """Raise TypeError or ValueError unless these are events of progress, as a row has them."""
    last = 0
    for event in events:
        if type(event) is not list or len(event) != 4:
            raise TypeError("progress has an event that is not an array of four values")
        check_whole("progress", event[0], low=last + 1)
        check_whole("progress", event[1])
        text("progress", event[2])
        last = event[0]
    if not events:
        raise ValueError("progress is empty")


def check_lease(lease: dict[Any, Any]) -> None:
    """Raise TypeError or ValueError unless this is a lease, as a row has it."""
    if lease.keys() != Lease.__annotations__.keys():
        raise ValueError("lease does not have the fields of a lease")
    text("lease", lease["worker"])
    for name, value in lease.items():
        if name != "worker":
            check_whole("lease", value, low=int(name in ("epoch", "lsn")))


def check_names(agent_id: str, name: str) -> None:
    """Raise ValueError unless a manager would accept the lengths of both and the name's form."""
    if not 0 < len(agent_id) <= NAME_BYTES_MAX // 4:
        _check_id(agent_id)
    if name != agent_id and (not 0 < len(name) <= NAME_BYTES_MAX // 4 or name[:6] == "agent_"):
        _check_name(name)


def check_given(allowed_tools: list[Any] | None, metadata: dict[Any, Any]) -> None:
    """Raise TypeError or ValueError if a tool is not a string, or if `metadata` is not JSON."""
    if allowed_tools:
        for index, tool in enumerate(allowed_tools):
            text(f"allowed_tools[{index}]", tool)
    if metadata and not is_plain(metadata):
        json_value("metadata", metadata)  # raises, with the place, if it is not JSON


def check_progress(row: Row) -> None:
    """Raise TypeError or ValueError if a field that a runner reports has a value that no manager
    accepts.
    """
    steps_taken, updated_at_ms = get.steps_taken(row), get.updated_at_ms(row)
    # No int of a record has over 64 bits, and those of an item were checked before.
    if not (type(steps_taken) is type(updated_at_ms) is int and steps_taken >= 0 <= updated_at_ms):
        check_whole("steps_taken", steps_taken)
        check_whole("updated_at_ms", updated_at_ms)
    checkpoint, needs_input = get.checkpoint(row), get.needs_input(row)
    if checkpoint is not None and not is_plain(checkpoint):
        json_value("checkpoint", checkpoint)
    if needs_input is not None and not is_plain(needs_input):
        json_value("needs_input", needs_input)
    for event in get.progress(row) or ():
        if event[3] is not None and not is_plain(event[3]):
            json_value("data", event[3])
    if (answer := get.answer(row)) is not None and not is_plain(answer):
        json_value("answer", answer)


def check_texts(row: Row) -> None:
    """Raise ValueError for half a surrogate pair, which JSON can express and msgpack can't."""
    if not "".join(filter(None, _texts(row))).isascii():
        for at in TEXTS:
            if row[at] is not None:
                text(ROW_FIELDS[at], row[at])


def check_whole(field: str, value: object, *, low: int = 0) -> None:
    """Raise TypeError or ValueError unless `value` is an int from `low` to 2^64 - 1."""
    if type(value) is not int:
        raise TypeError(f"{field} is of type {type(value).__name__}, not int")
    if not low <= value <= INT_MAX:
        raise ValueError(f"{field} is below {low}" if value < low else f"{field} is over 64 bits")


def is_plain(value: Any, levels: int = _LEVELS) -> bool:
    """Return True if JSON can carry `value`. False means that only `json_value` can tell.

    This takes a fifth of the time of `json_value`, which copies and tracks the path to each value.
    """
    kind = type(value)
    if kind is str:
        return bool(value.isascii())
    if kind is int:
        return not value >> 63
    if kind is dict and levels:
        for key, item in value.items():
            if type(key) is not str or not key.isascii():
                return False
            kind = type(item)
            if kind is int or kind is str:  # a call for each would double the time
                if item >> 63 if kind is int else not item.isascii():
                    return False
            elif item is not None and not is_plain(item, levels - 1):
                return False
        return True
    if kind is list and levels:
        for item in value:
            if not is_plain(item, levels - 1):
                break
        else:
            return True
    return kind is bool or value is None


def record_checker(layout: type[Layout | Import]) -> Callable[[Record], None]:
    """Return a function that raises TypeError or ValueError unless a record has `layout`'s fields.

    It does not check the kind and the agent_id: the caller used them to find the checker and the
    agent. It leaves JSON fields to `Replay.check_progress`.
    """
    names, hints = layout._fields, [*get_type_hints(layout).values()]
    fields = [(at, hint) for at, hint in enumerate(hints) if at > 1 and hint is not Any]
    types = [(at, _TYPES.get(hint, (str,))) for at, hint in fields]
    numbers = [(at, _lowest(names[at])) for at, hint in fields if hint in (int, int | None)]
    choices = [(at, get_args(hint)) for at, hint in fields if hint not in _TYPES]
    counts = field_counts(layout)

    def check(record: Record) -> None:
        count = len(record)
        if count not in counts:
            raise ValueError(f"{count} fields, not {counts.start}")
        for at, allowed in types:
            if at < count and type(record[at]) not in allowed:
                raise TypeError(f"{names[at]} is of type {type(record[at]).__name__}")
        for at, low in numbers:
            if at < count and (value := record[at]) is not None and value < low:
                check_whole(names[at], value, low=low)
        for at, values in choices:
            if record[at] not in values:
                raise ValueError(f"{names[at]} is not one of {', '.join(values)}")

    return check


def field_counts(layout: type[Layout | Import]) -> range:
    """Return the numbers of fields that a record of this kind may have."""
    count = len(layout._fields)
    return range(count - optional_fields(layout), count + 1)


def _lowest(field: str) -> int:
    return int(field in _FROM_ONE)


def types_checker(
    names: Sequence[str], allowed: Sequence[tuple[type, ...]], counts: range
) -> Callable[[tuple[type, ...]], None]:
    """Return a function that raises TypeError or ValueError unless values have `allowed` types.

    Many agents have the same types, so its cache cuts a check to a sixth of its time.
    """

    @lru_cache(maxsize=1024)
    def check(kinds: tuple[type, ...]) -> None:
        if len(kinds) not in counts:
            raise ValueError(f"{len(kinds)} fields, not {counts.start}")
        for name, kind, fit in zip(names, kinds, allowed, strict=False):
            if kind not in fit:
                raise TypeError(f"{name} is of type {kind.__name__}")

    return check


def _check_id(agent_id: str) -> None:
    if not 1 <= len(agent_id.encode()) <= NAME_BYTES_MAX:
        raise ValueError(f"agent_id does not have 1 to {NAME_BYTES_MAX} bytes")


def _check_name(name: str) -> None:
    try:
        checked_name(name)
    except ValueError:
        raise ValueError("name is not allowed for an agent") from None


_check_types = types_checker(ROW_FIELDS, ALLOWED, range(len(ALLOWED), len(ALLOWED) + 1))
_check_types_of_extras = types_checker(
    EXTRA_FIELDS, _ALLOWED_EXTRAS, range(len(_ALLOWED_EXTRAS), len(_ALLOWED_EXTRAS) + 1)
)
