"""Replay: checks the items and records of a recovered journal before the fleet applies them.

Checksums prove that the bytes are unchanged, but not that a manager wrote them. So each item and
record must follow the rules that a manager follows: the parent of an agent exists and has a depth
of one less, which excludes cycles; a status changes only as `VERBS` allows; fields have the types
and ranges that a manager's methods accept. A manager's own changes are checked before they are
appended, so they are not checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, get_args, get_type_hints

from journal import FormatVersionError
from manager import columns as field
from manager.agent import ENDED, LIVE, VERBS, Row, get
from manager.checks import (
    allowed_types,
    check_given,
    check_names,
    check_progress,
    check_row,
    check_texts,
    check_whole,
    field_counts,
    record_checker,
    types_checker,
)
from manager.family import Family
from manager.layouts import KINDS, Record, Spawn
from manager.names import Names
from manager.records import AGENT_ID, APPLICATION, KIND, SOURCE_ID, TAKEN_BY
from manager.steps import SOURCES, STEPS, Step
from manager.values import source_name

Check = Callable[[Record], None]
_ENDED = frozenset(ENDED)

_HINT = "open the journal with the version that wrote it"


class Replay:
    """Checks of the items and records from which a fleet is rebuilt.

    It reads the fleet's own tables, and changes none. `rows` are the fleet's agents by id, and
    `steps` its steps, which may raise ValueError, too.
    """

    def __init__(
        self,
        rows: Mapping[str, Row],
        family: Family,
        by_name: Names,
        steps: Mapping[str, Step],
    ) -> None:
        self._rows = rows
        self._family = family
        self._by_name = by_name
        self._loaded = 0
        self._newest = 0, 0  # the highest LSN of an item, and the item's number
        # Items may come in any order. Parents that are not loaded yet, each with the depth that its
        # children imply, and the number of the first child's item.
        self._awaited: dict[str, tuple[int, int]] = {}
        self._first_lsn: int | None = None
        # Agents that a reader marked as interrupted without a record. The log's next record may
        # still treat them as running.
        self._presumed: set[str] = set()
        # The steps that the fleet uses during replay: its own, with checks.
        self.steps = {kind: self._checked(kind, step) for kind, step in steps.items()}

    def presume(self, agent_id: str) -> None:
        """Remember that a reader marked the agent as interrupted without a record of that."""
        self._presumed.add(agent_id)

    def check_item(self, row: Row, *, has_valid_fields: bool = False) -> None:
        """Raise FormatVersionError unless `row` is valid after the items that came before it.

        `has_valid_fields`: the caller has checked everything for which no other row is needed.
        """
        self._loaded += 1
        try:
            if not has_valid_fields:
                check_row(row)
                check_texts(row)
                check_progress(row)
            if get.agent_id(row) in self._rows:
                raise ValueError("agent_id is taken")
            if self._by_name.live(get.name(row)) is not None:
                self._check_name(row)
            self._check_item_depth(row)
            if (lsn := get.lsn(row)) > self._newest[0]:
                self._newest = lsn, self._loaded
        except (TypeError, ValueError) as error:
            raise FormatVersionError(f"item {self._loaded}: {error!s:.200}; {_HINT}") from error

    def accept_together(self, columns: list[tuple[Any, ...]]) -> bool:
        """Count agents, whose fields are valid, as loaded if `check_item` accepts each of them.

        `columns` are the values of their rows, by field. Return False, and count nothing, if only
        `check_item` can tell.
        """
        ids, lsns = columns[field.AGENT_ID], columns[field.LSN]
        if len({*ids}) < len(ids) or self._awaited or any(map(self._rows.__contains__, ids)):
            return False
        if columns[field.PARENT_ID].count(None) < len(ids) or any(columns[field.SPAWN_DEPTH]):
            return False
        if columns[field.NAME] != ids and not _ENDED.issuperset(columns[field.STATUS]):
            return False
        if (newest := max(lsns)) > self._newest[0]:
            self._newest = newest, self._loaded + lsns.index(newest) + 1
        self._loaded += len(ids)
        return True

    def check_loaded(self, lsn: int) -> None:
        """Raise FormatVersionError unless the items form a complete checkpoint as of `lsn`."""
        for _, number in self._awaited.values():
            raise FormatVersionError(f"item {number}: parent_id names no agent; {_HINT}")
        newest_lsn, number = self._newest
        if newest_lsn > lsn:
            raise FormatVersionError(f"item {number}: lsn is higher than the checkpoint's; {_HINT}")

    def begin(self, lsn: int) -> None:
        """Note the LSN of the first record. Raises FormatVersionError as `check_loaded` does."""
        if self._first_lsn is None:
            self._first_lsn = lsn
            try:
                self.check_loaded(lsn - 1)
            except FormatVersionError as error:
                # The caller will add the place of the record, but the fault is in the checkpoint.
                what = f"checkpoint of LSN {lsn - 1}: {error.what}"
                raise FormatVersionError(what, reason=error.reason) from error

    def check_progress(self, rows: Iterable[Row]) -> None:
        """Raise FormatVersionError if a record gave one of `rows` a value that no manager accepts.

        This checks the fields that "checkpoint" records set, and all JSON. An agent may have
        thousands of such records, and each replaces the values of the one before, so it is enough
        to check the last state.
        """
        if self._first_lsn is None:
            return  # no record followed the items, which were checked when they were loaded
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

    def _checked(self, kind: str, step: Step) -> Step:
        """Return the step of `kind` with checks before and after it."""
        sources, check = SOURCES[kind], _CHECKS[kind]
        is_new, is_result, is_take = not sources, kind == "result", kind == "take"

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
                elif get.status(old) not in sources or (
                    is_result and record[3:4] == [get.status(old)]
                ):
                    self._check_presumed(sources, old)
                if check is not None:
                    check(record)
                if is_take:
                    self._check_take(old, record)
                new = step(old, lsn, record)
                if new is None:
                    if self._family.children(record[AGENT_ID]):
                        raise ValueError("the agent has children, so it can't be removed")
                elif old is None:
                    self._check_new(new)
                elif self._presumed and get.status(new) != get.status(old):
                    self._presumed.discard(record[AGENT_ID])
                return new
            except (TypeError, ValueError) as error:
                raise _refusal(lsn, record, error) from error

        return checked

    def _check_take(self, old: Row | None, record: Record) -> None:
        if old is not None and get.taken_by(old) is not None:
            raise ValueError("the result was taken before")
        if record[TAKEN_BY] not in self._rows or record[TAKEN_BY] == record[AGENT_ID]:
            raise ValueError("taken_by names no other agent")

    def _check_presumed(self, sources: Container[str], old: Row) -> None:
        if get.agent_id(old) not in self._presumed or "running" not in sources:
            raise ValueError(f"the agent is {get.status(old)}, which does not allow it")
        self._presumed.discard(get.agent_id(old))

    def _check_new(self, new: Row) -> None:
        if self._by_name.live(get.name(new)) is not None:
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

    def _check_item_depth(self, row: Row) -> None:
        """Raise ValueError unless the depth is one more than the parent's and one less than the
        children's.

        A parent that is not loaded yet must later have the depth that its children imply. In a
        cycle, the depths would have to grow forever, so the agent of a cycle that is loaded last
        breaks the rule.
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
        raise ValueError(f"spawn_depth is {depth}, but must be {due} because of its {whose}")


def _refusal(lsn: int, record: Record, error: Exception) -> FormatVersionError:
    kind = record[KIND]
    counts = field_counts(KINDS[kind])
    fault = str(error) if len(record) in counts else f"{len(record)} fields, not {counts.start}"
    return FormatVersionError(
        f"LSN {lsn}: {kind}: {fault:.200}; not a record of {APPLICATION}; {_HINT}"
    )


# --- checks of the fields of each kind of record ---


def is_boot(record: Record) -> bool:
    """Return True if `record` states that a manager of this application opened the journal."""
    if not isinstance(record, list) or record[:2] != ["boot", APPLICATION]:
        return False
    try:
        _check_boot(record)
    except (TypeError, ValueError):
        return False
    return True


def _check_spawn(record: Record) -> None:
    """Check a spawn record in half the time of `check_row`, because most fields of the row are
    fixed.
    """
    _check_spawn_types(tuple(map(type, record)))
    (
        _, agent_id, at_ms, _, _, _, status, name, _, _, _, _, tools, token_budget, metadata,
        *attempts,
    ) = record  # fmt: skip
    if at_ms < 0:
        check_whole("at_ms", at_ms)
    if status not in _BEGINNINGS:
        raise ValueError("status is not allowed for a new agent")
    if token_budget is not None:
        check_whole("token_budget", token_budget, low=1)
    for attempt in attempts:
        check_whole("attempt", attempt, low=1)
    check_names(agent_id, agent_id if name is None else name)
    check_given(tools, metadata)


def _check_answer(record: Record) -> None:
    _DERIVED["answer"](record)
    if record[3] is None:
        raise ValueError("answer is nil")


def _check_import(record: Record) -> None:
    check_row(STEPS["import"](None, 0, record) or ())


# The checks of the two most frequent kinds check all numbers at once, which takes 0.1 us instead of
# the 0.4 us of `record_checker`'s function. Types and signs are enough, because msgpack carries no
# integer over 64 bits.


def _check_usage(record: Record) -> None:
    _, _, at_ms, tokens_in, tokens_out = record
    are_whole = type(at_ms) is type(tokens_in) is type(tokens_out) is int
    if not (are_whole and at_ms >= 0 <= tokens_in and tokens_out >= 0):
        _check_usage_fields(record)


def _check_usage_once(record: Record) -> None:
    _DERIVED["usage_once"](record)
    source_name("source_id", record[SOURCE_ID])


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
_check_spawn_types = types_checker(Spawn._fields, allowed_types(Spawn), field_counts(Spawn))
_check_boot = _DERIVED["boot"]
_check_usage_fields = _DERIVED["usage"]
_check_result_fields = _DERIVED["result"]
# The check of the fields of each kind of record.
_CHECKS: Mapping[str, Check | None] = {
    **_DERIVED,
    "spawn": _check_spawn,
    "checkpoint": None,  # see Replay.check_progress
    "usage": _check_usage,
    "usage_once": _check_usage_once,
    "result": _check_result,
    "import": _check_import,
    "answer": _check_answer,
}
