"""Replay: the rules that items and records of a recovered journal have to keep.

Their checksums say that they are what somebody wrote, not that a manager did. So each is held to
what a manager writes before the fleet takes it in: an agent has a parent that is there, at a depth
of one less, which excludes every cycle; a status changes as `VERBS` allows; fields have the types
and ranges that the methods of a manager let through. A manager's own changes are checked before
they are appended, so they are not checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import get_args, get_type_hints

from journal import FormatVersionError
from manager.agent import LIVE, VERBS, Row, get
from manager.checks import (
    allowed_types,
    check_given,
    check_names,
    check_progress,
    check_row,
    check_texts,
    check_whole,
    record_checker,
    types_checker,
)
from manager.family import Family
from manager.records import AGENT_ID, APPLICATION, KIND, KINDS, Record, Spawn
from manager.steps import SOURCES, STEPS, Step

Check = Callable[[Record], None]

_HINT = "open it with the version that wrote it"


class Replay:
    """Checks what a fleet is rebuilt from; it looks at the fleet's own tables, and changes none.

    `rows` and `live` are the fleet's agents by id, and the ids of live ones by name.
    """

    def __init__(self, rows: Mapping[str, Row], family: Family, live: Mapping[str, str]) -> None:
        self._rows = rows
        self._family = family
        self._live = live
        self._loaded = 0
        self._newest = 0, 0  # the highest LSN of an item, and the item's number
        # Items come in any order. Each parent that has not come yet, with the depth that its
        # children give it, and the number of the first of them.
        self._awaited: dict[str, tuple[int, int]] = {}
        self._first_lsn: int | None = None
        # Agents that a reader marked as interrupted without a record. The log's next record may
        # still treat them as running.
        self._presumed: set[str] = set()
        # What a fleet goes by instead of STEPS: the same, with the rules before.
        self.steps: Mapping[str, Step] = {kind: self._checked(kind) for kind in STEPS}

    def presume(self, agent_id: str) -> None:
        """Note that a reader marked the agent as interrupted, without a record that says so."""
        self._presumed.add(agent_id)

    def check_item(self, row: Row) -> None:
        """Raise FormatVersionError unless a checkpoint may have `row` beside those before it."""
        self._loaded += 1
        try:
            check_row(row)
            check_texts(row)
            check_progress(row)
            if get.agent_id(row) in self._rows:
                raise ValueError("agent_id is taken")
            if get.name(row) in self._live:
                self._check_name(row)
            self._check_line(row)
            if (lsn := get.lsn(row)) > self._newest[0]:
                self._newest = lsn, self._loaded
        except (TypeError, ValueError) as error:
            raise FormatVersionError(f"item {self._loaded}: {error!s:.200}; {_HINT}") from error

    def check_loaded(self, lsn: int) -> None:
        """Raise FormatVersionError unless the items make a whole checkpoint, as of `lsn`."""
        for _, number in self._awaited.values():
            raise FormatVersionError(f"item {number}: parent_id names no agent; {_HINT}")
        newest_lsn, number = self._newest
        if newest_lsn > lsn:
            raise FormatVersionError(f"item {number}: lsn is after the checkpoint's; {_HINT}")

    def begin(self, lsn: int) -> None:
        """Note the LSN of the first record. Raise what `check_loaded` raises."""
        if self._first_lsn is None:
            self._first_lsn = lsn
            try:
                self.check_loaded(lsn - 1)
            except FormatVersionError as error:
                # Whoever replays names the record's place, where nothing is wrong.
                what = f"checkpoint of LSN {lsn - 1}: {error.what}"
                raise FormatVersionError(what, reason=error.reason) from error

    def check_progress(self, rows: Iterable[Row]) -> None:
        """Raise FormatVersionError if a record gave one of `rows` what no manager would.

        It looks at what "checkpoint" records say, and at all JSON. An agent may have thousands of
        those records, each of which replaces what the one before said, so the last one is enough.
        """
        if self._first_lsn is None:
            return  # all are as they were loaded
        for row in rows:
            if get.lsn(row) < self._first_lsn:
                continue
            try:
                check_progress(row)
            except (TypeError, ValueError) as error:
                raise FormatVersionError(
                    f"agent {get.agent_id(row)[:80]!r} as of LSN {get.lsn(row)}: "
                    f"{error!s:.200}; {_HINT}"
                ) from error

    def _checked(self, kind: str) -> Step:
        """Return the step of `kind` with the rules before and after it."""
        step, sources, check = STEPS[kind], SOURCES[kind], _CHECKS[kind]
        is_new = not sources

        def checked(old: Row | None, lsn: int, record: Record) -> Row | None:
            if self._first_lsn is None:
                self.begin(lsn)
            try:
                if type(record) is not list:
                    raise TypeError("not an array")
                if is_new:
                    if old is not None:
                        raise ValueError("agent_id is taken")
                elif old is None:
                    raise ValueError("agent_id names no agent")
                elif get.status(old) not in sources:
                    self._check_presumed(sources, old)
                if check is not None:
                    check(record)
                new = step(old, lsn, record)
                if new is None:
                    if self._family.children(record[AGENT_ID]):
                        raise ValueError("the agent has children, so it can't be removed")
                elif old is None:
                    self._check_new(new)
                return new
            except (TypeError, ValueError) as error:
                raise _refusal(lsn, record, error) from error

        return checked

    def _check_presumed(self, sources: Container[str], old: Row) -> None:
        if get.agent_id(old) not in self._presumed or "running" not in sources:
            raise ValueError(f"the agent is {get.status(old)}, which does not allow it")
        self._presumed.discard(get.agent_id(old))

    def _check_new(self, new: Row) -> None:
        if get.name(new) in self._live:
            self._check_name(new)
        depth, parent_id = 0, get.parent_id(new)
        if parent_id is not None:
            parent = self._rows.get(parent_id)
            if parent is None:
                raise ValueError("parent_id names no agent")
            depth = get.spawn_depth(parent) + 1
        _check_depth(get.spawn_depth(new), depth, "parents")

    def _check_name(self, row: Row) -> None:
        if get.status(row) in LIVE and get.name(row) != get.agent_id(row):
            raise ValueError("name is taken by another live agent")

    def _check_line(self, row: Row) -> None:
        """Raise ValueError unless its depth is its parent's and one, and its children's less one.

        A parent that has not come yet is awaited at that depth. In a cycle the depths would have
        to grow forever, so the last of its agents to come breaks the rule.
        """
        parent_id, depth = get.parent_id(row), get.spawn_depth(row)
        if parent_id is None:
            _check_depth(depth, 0, "parents")
        elif (parent := self._rows.get(parent_id)) is not None:
            _check_depth(depth, get.spawn_depth(parent) + 1, "parents")
        else:
            due, _ = self._awaited.setdefault(parent_id, (depth - 1, self._loaded))
            _check_depth(depth, due + 1, "siblings")
        if self._awaited:
            due, _ = self._awaited.pop(get.agent_id(row), (depth, 0))
            _check_depth(depth, due, "children")


def _check_depth(depth: int, due: int, whose: str) -> None:
    if depth != due:
        raise ValueError(f"spawn_depth is {depth}, but its {whose} make it {due}")


def _refusal(lsn: int, record: Record, error: Exception) -> FormatVersionError:
    kind = record[KIND]
    count = len(KINDS[kind]._fields)
    what = str(error) if len(record) == count else f"{len(record)} fields, not {count}"
    return FormatVersionError(
        f"LSN {lsn}: {kind}: {what:.200}; not a record of {APPLICATION}; {_HINT}"
    )


# --- what the fields of each kind of record hold ---


def is_boot(record: Record) -> bool:
    """Return whether `record` says that a manager of this application opened the journal."""
    if not isinstance(record, list) or record[:2] != ["boot", APPLICATION]:
        return False
    try:
        _check_boot(record)
    except (TypeError, ValueError):
        return False
    return True


def _check_spawn(record: Record) -> None:
    """Check a spawn record. It takes half as long as `check_row`: most fields are fixed."""
    _check_spawn_types(tuple(map(type, record)))
    _, agent_id, at_ms, _, _, _, status, name, _, _, _, _, tools, token_budget, metadata = record
    if at_ms < 0:
        check_whole("at_ms", at_ms)
    if status not in _BEGINNINGS:
        raise ValueError("status is not one that an agent begins with")
    if token_budget is not None:
        check_whole("token_budget", token_budget, low=1)
    check_names(agent_id, agent_id if name is None else name)
    check_given(tools, metadata)


def _check_import(record: Record) -> None:
    check_row((*record[1:], 0))


# msgpack carries no int over 64 bits, so the types and the signs are enough. Most of a log are the
# two kinds below: all numbers together take 0.1 us, and what `record_checker` returns 0.4.


def _check_usage(record: Record) -> None:
    _, _, at_ms, tokens_in, tokens_out = record
    are_whole = type(at_ms) is type(tokens_in) is type(tokens_out) is int
    if not (are_whole and at_ms >= 0 <= tokens_in and tokens_out >= 0):
        _check_usage_fields(record)


def _check_result(record: Record) -> None:
    _, _, at_ms, status, result, reason, steps_taken, _, _, tokens_in, tokens_out = record
    steps = 0 if steps_taken is None else steps_taken
    are_whole = type(at_ms) is type(steps) is type(tokens_in) is type(tokens_out) is int
    are_texts = type(result) in _TEXT and type(reason) in _TEXT and status in _OUTCOMES
    if not (are_whole and are_texts and at_ms >= 0 <= steps and tokens_in >= 0 <= tokens_out):
        _check_result_fields(record)


_TEXT = frozenset((str, type(None)))
_BEGINNINGS = frozenset(get_args(get_type_hints(Spawn)["status"]))
_OUTCOMES = frozenset(VERBS["update_from_result"][1])
_DERIVED = {kind: record_checker(layout) for kind, layout in KINDS.items()}
_check_spawn_types = types_checker(Spawn._fields, allowed_types(Spawn))
_check_boot = _DERIVED["boot"]
_check_usage_fields = _DERIVED["usage"]
_check_result_fields = _DERIVED["result"]
# What checks the fields of each kind of record.
_CHECKS: Mapping[str, Check | None] = {
    **_DERIVED,
    "spawn": _check_spawn,
    "checkpoint": None,  # see Replay.check_progress
    "usage": _check_usage,
    "result": _check_result,
    "import": _check_import,
}
