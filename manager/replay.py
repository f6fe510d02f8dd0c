"""Replay: the rules that items and records of a recovered journal have to keep.

Their checksums say that they are what somebody wrote, not that a manager did. So each is held to
what a manager writes before the fleet takes it in: an agent has a parent that is there, at a depth
of one less, which excludes every cycle; a status changes as `VERBS` allows; fields have the types
and ranges that the methods of a manager let through. A manager's own changes are checked before
they are appended, so they are not checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping

from journal import FormatVersionError
from manager.agent import (
    AGENT_ID,
    ENDED,
    FIELDS,
    LIVE,
    LSN,
    NAME,
    PARENT_ID,
    SPAWN_DEPTH,
    STATUS,
    STATUSES,
    VERBS,
    Row,
)
from manager.checks import (
    check_given,
    check_names,
    check_progress,
    check_row,
    check_text,
    check_texts,
    check_whole,
    kinds_checker,
)
from manager.family import Family
from manager.records import APPLICATION, Record
from manager.steps import STEPS, Step

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
        self.presumed: set[str] = set()
        # What a fleet goes by instead of STEPS: the same, with the rules before.
        changes = {kind: self._changing(STEPS[kind], *rule) for kind, rule in _RULES.items()}
        added = {kind: self._adding(STEPS[kind]) for kind in STEPS if kind not in changes}
        self.steps: Mapping[str, Step] = changes | added

    def check_item(self, row: Row) -> None:
        """Raise FormatVersionError unless a checkpoint may have `row` beside those before it."""
        self._loaded += 1
        try:
            check_row(row)
            check_texts(row)
            check_progress(row)
            if row[AGENT_ID] in self._rows:
                raise ValueError("agent_id is taken")
            if row[NAME] in self._live:
                self._check_name(row)
            self._check_line(row)
            if row[LSN] > self._newest[0]:
                self._newest = row[LSN], self._loaded
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
                raise FormatVersionError(f"checkpoint of LSN {lsn - 1}: {error}") from error

    def check_progress(self, rows: Iterable[Row]) -> None:
        """Raise FormatVersionError if a record gave one of `rows` what no manager would.

        It looks at what "checkpoint" records say, and at all JSON. An agent may have thousands of
        those records, each of which replaces what the one before said, so the last one is enough.
        """
        if self._first_lsn is None:
            return  # all are as they were loaded
        for row in rows:
            if row[LSN] < self._first_lsn:
                continue
            try:
                check_progress(row)
            except (TypeError, ValueError) as error:
                raise FormatVersionError(
                    f"agent {str(row[AGENT_ID])[:80]!r} as of LSN {row[LSN]}: {error!s:.200}; "
                    f"{_HINT}"
                ) from error

    def _adding(self, step: Step) -> Step:
        """Return `step`, which adds an agent, with the rules before and after it."""

        is_spawn = step is STEPS["spawn"]

        def add(old: Row | None, lsn: int, record: Record) -> Row | None:
            if self._first_lsn is None:
                self.begin(lsn)
            try:
                if type(record) is not list:
                    raise TypeError("not an array")
                if old is not None:
                    raise ValueError("agent_id is taken")
                if is_spawn:
                    _check_spawn(record)
                new = step(None, lsn, record)
                assert new is not None
                if not is_spawn:
                    check_row(new)
                self._check_new(new)
                return new
            except (TypeError, ValueError) as error:
                raise _refusal(lsn, record, error) from error

        return add

    def _changing(self, step: Step, sources: Container[str], check: Check | None) -> Step:
        """Return `step`, which changes an agent, with the rules before and after it."""

        def change(old: Row | None, lsn: int, record: Record) -> Row | None:
            if self._first_lsn is None:
                self.begin(lsn)
            try:
                if type(record) is not list:
                    raise TypeError("not an array")
                if old is None:
                    raise ValueError("agent_id names no agent")
                if old[STATUS] not in sources:
                    self._check_presumed(sources, old)
                if check is not None:
                    check(record)
                new = step(old, lsn, record)
                if new is None and self._family.children(old[AGENT_ID]):
                    raise ValueError("the agent has children, so it can't be removed")
                return new
            except (TypeError, ValueError) as error:
                raise _refusal(lsn, record, error) from error

        return change

    def _check_presumed(self, sources: Container[str], old: Row) -> None:
        if old[AGENT_ID] not in self.presumed or "running" not in sources:
            raise ValueError(f"the agent is {old[STATUS]}, which does not allow it")
        self.presumed.discard(old[AGENT_ID])

    def _check_new(self, new: Row) -> None:
        if new[NAME] in self._live:
            self._check_name(new)
        depth, parent_id = 0, new[PARENT_ID]
        if parent_id is not None:
            parent = self._rows.get(parent_id)
            if parent is None:
                raise ValueError("parent_id names no agent")
            depth = parent[SPAWN_DEPTH] + 1
        _check_depth(new, depth, "parents")

    def _check_name(self, row: Row) -> None:
        if row[STATUS] in LIVE and row[NAME] != row[AGENT_ID]:
            raise ValueError("name is taken by another live agent")

    def _check_line(self, row: Row) -> None:
        """Raise ValueError unless its depth is its parent's and one, and its children's less one.

        A parent that has not come yet is awaited at that depth. In a cycle the depths would have
        to grow forever, so the last of its agents to come breaks the rule.
        """
        parent_id, depth = row[PARENT_ID], row[SPAWN_DEPTH]
        if parent_id is None:
            _check_depth(row, 0, "parents")
        elif (parent := self._rows.get(parent_id)) is not None:
            _check_depth(row, parent[SPAWN_DEPTH] + 1, "parents")
        else:
            due, _ = self._awaited.setdefault(parent_id, (depth - 1, self._loaded))
            _check_depth(row, due + 1, "siblings")
        if self._awaited:
            due, _ = self._awaited.pop(row[AGENT_ID], (depth, 0))
            _check_depth(row, due, "children")


def _check_depth(row: Row, due: int, whose: str) -> None:
    if row[SPAWN_DEPTH] != due:
        raise ValueError(f"spawn_depth is {row[SPAWN_DEPTH]}, but its {whose} make it {due}")


def _refusal(lsn: int, record: Record, error: Exception) -> FormatVersionError:
    kind, count = record[0], _FIELDS[record[0]]
    what = str(error) if len(record) == count else f"{len(record)} fields, not {count}"
    return FormatVersionError(
        f"LSN {lsn}: {kind}: {what:.200}; not a record of {APPLICATION}; {_HINT}"
    )


# --- what the fields of each kind of record hold ---


def _check_spawn(record: Record) -> None:
    """Check a spawn record. It takes half as long as `check_row`: most fields are fixed."""
    _check_spawn_kinds(tuple(map(type, record)))
    _, agent_id, at_ms, _, _, _, status, name, _, _, _, _, tools, token_budget, metadata = record
    if at_ms < 0:
        check_whole("at_ms", at_ms)
    if token_budget is not None:
        check_whole("token_budget", token_budget, low=1)
    if status not in _BEGINNINGS:
        raise ValueError("status is not one that an agent begins with")
    check_names(agent_id, agent_id if name is None else name)
    check_given(tools, metadata)


# msgpack carries no int over 64 bits, so the types and the signs are enough. The fast check of all
# numbers together takes 0.1 us instead of 0.4; where it fails, the slow ones name the field.


def _check_run(record: Record) -> None:
    _, _, at_ms, boot_id = record
    check_whole("at_ms", at_ms)
    check_text("boot_id", boot_id)


def _check_usage(record: Record) -> None:
    _, _, at_ms, tokens_in, tokens_out = record
    are_whole = type(at_ms) is type(tokens_in) is type(tokens_out) is int
    if not (are_whole and at_ms >= 0 <= tokens_in and tokens_out >= 0):
        check_whole("at_ms", at_ms)
        check_whole("input_tokens", tokens_in)
        check_whole("output_tokens", tokens_out)


def _check_interrupt(record: Record) -> None:
    _, _, at_ms, reason, _, _ = record
    check_whole("at_ms", at_ms)
    check_text("reason", reason)


def _check_result(record: Record) -> None:
    _, _, at_ms, status, result, reason, steps_taken, _, _, tokens_in, tokens_out = record
    steps = 0 if steps_taken is None else steps_taken
    are_whole = type(at_ms) is type(steps) is type(tokens_in) is type(tokens_out) is int
    if not (are_whole and at_ms >= 0 <= steps and tokens_in >= 0 <= tokens_out):
        check_whole("at_ms", at_ms)
        check_whole("steps_taken", steps)
        check_whole("input_tokens", tokens_in)
        check_whole("output_tokens", tokens_out)
    if status not in _OUTCOMES:
        raise ValueError("status is not one that a run ends with")
    if not (type(result) is type(reason) is str):
        check_text("result", result, optional=True)
        check_text("reason", reason, optional=True)


def _check_cancel(record: Record) -> None:
    _, _, at_ms, reason = record
    check_whole("at_ms", at_ms)
    check_text("reason", reason, optional=True)


def _check_remove(record: Record) -> None:
    _, _ = record


_OPTIONAL = str, type(None)
_check_spawn_kinds = kinds_checker(
    (
        *("kind", "agent_id", "at_ms", "boot_id", "parent_id", "spawn_depth", "status", "name"),
        *("agent_type", "role", "model", "prompt", "allowed_tools", "token_budget", "metadata"),
    ),
    (
        *((str,), (str,), (int,), (str,), _OPTIONAL, (int,), (str,), _OPTIONAL),
        *((str,), _OPTIONAL, _OPTIONAL, (str,), (list, type(None)), (int, type(None)), (dict,)),
    ),
)
_BEGINNINGS = frozenset(("queued", "running"))
_OUTCOMES = frozenset(VERBS["update_from_result"][1])
# Which statuses allow each kind of record, and what checks its fields.
_RULES: Mapping[str, tuple[Container[str], Check | None]] = {
    "start": (VERBS["start"][0], _check_run),
    "resume": (VERBS["resume"][0], _check_run),
    "checkpoint": (VERBS["update_checkpoint"][0], None),  # see Replay.check_progress
    "usage": (frozenset(STATUSES), _check_usage),
    "interrupt": (VERBS["interrupt"][0], _check_interrupt),
    "result": (VERBS["update_from_result"][0], _check_result),
    "cancel": (VERBS["cancel"][0], _check_cancel),
    "remove": (ENDED, _check_remove),
}
# How many entries a record of each kind has, the kind included. Source: manager/records.py.
_FIELDS = {
    "spawn": 15,
    "start": 4,
    "resume": 4,
    "checkpoint": 5,
    "usage": 5,
    "interrupt": 6,
    "result": 11,
    "cancel": 4,
    "remove": 2,
    "import": len(FIELDS),
}
