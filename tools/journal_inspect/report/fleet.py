"""The fleet in a report: the last state of each agent, and when it was running or waiting.

Records are applied one at a time, as the manager documents them. A record that is not a manager's
is only counted. The number of remaining agents bounds the memory, however long the log is: long
texts are cut at once, and the oldest spans of an agent are merged when they exceed SPANS_MAX.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from heapq import nlargest
from typing import Any

from manager import OPTIONAL_RECORD_FIELDS, RECORD_FIELDS, Agent

RUNNING, WAITING, EARLIER = "r", "w", "e"  # EARLIER: one of the two, no longer known which
LIVE = ("queued", "running", "interrupted")
TEXT_MAX = 400  # characters of a text; the middle of a longer one is cut out
SPANS_MAX = 40
DRAWN_MAX = 10_000
_COUNTING = 5  # the length of a record of usage, and of one of a checkpoint
_WORD_MAX = 256  # characters of an id or a status
_BOOTS_MAX = 100
_DEPTH_MAX = 8
_TIME_MAX_MS = 8_640_000_000_000_000 - 86_400_000  # the latest time of a browser, in any zone

_LEFT_OUT = (
    *("checkpoint", "needs_input", "allowed_tools", "metadata", "spawn_depth", "boot_id"),
    *("from_prior_session", "lsn", "attempt", "starts", "answer", "taken_by", "taken_at_ms"),
    *("progress", "lease"),
)
TOLD = tuple(field.name for field in fields(Agent) if field.name not in _LEFT_OUT)

Fields = Mapping[str, Any]
Span = tuple[str, int, int]  # state, begin, end: Unix ms


@dataclass(slots=True)
class Life:
    """The fields of an agent by name, and the spans in which it was running or waiting."""

    agent: dict[str, Any]
    spans: list[Span] = field(default_factory=list)
    state: str = ""  # "" after its end
    since_ms: int = 0
    depth: int = 0
    is_leased: bool = False  # whether its last run was a worker's, which the manager's end leaves
    was_cut_off: bool = False  # whether it was running when its process ended

    def turn(self, state: str, at_ms: int) -> None:
        if state == self.state:
            return
        at_ms = _time(at_ms)
        if self.spans or self.state:
            at_ms = max(at_ms, self.since_ms)  # a clock may go back
        if self.state and (at_ms > self.since_ms or self.state == RUNNING):
            self.spans.append((self.state, self.since_ms, at_ms))
        if len(self.spans) > SPANS_MAX:
            self.spans[:2] = [(EARLIER, self.spans[0][1], self.spans[1][2])]
        self.state, self.since_ms = state, at_ms


class FleetTimeline:
    """The agents of a manager, built from its records in their order."""

    def __init__(self) -> None:
        self.lives: dict[str, Life] = {}
        self.application = ""
        self.boots: deque[int] = deque(maxlen=_BOOTS_MAX)  # Unix ms
        self.removed = 0
        self.unknown = 0  # records
        self.alive_ms = 0  # the time of the last commit
        # Every other kind of the manager only sets the agent's `updated_at_ms`.
        self._steps: Mapping[str, Callable[[Fields], object]] = {
            "boot": self._boot,
            "spawn": self._spawn,
            "start": self._run,
            "resume": self._run,
            "lease": self._lease,
            "lost": self._lost,
            "checkpoint": self._checkpoint,
            "usage": self._usage,
            "usage_once": self._usage,
            "interrupt": self._interrupt,
            "result": self._result,
            "cancel": self._cancel,
            "remove": self._remove,
            "import": self._put,
        }

    def apply(self, record: Any) -> None:
        """Apply a record, or only count it if it is not a manager's."""
        if self._has_only_counted(record):
            return
        try:
            names, values = RECORD_FIELDS[record[0]], record[1:]
            required = len(names) - OPTIONAL_RECORD_FIELDS[record[0]]
            if len(values) < required:
                raise ValueError(f"{required} fields, not {len(values)}")
            # A newer version may append more fields.
            step = self._steps.get(record[0], self._changed)
            step(dict(zip(names, values, strict=False)))
        except (LookupError, TypeError, ValueError, AttributeError):
            self.unknown += 1  # from a newer version or another program

    def _has_only_counted(self, record: Any) -> bool:
        """Apply a record of one of the two most frequent kinds, if all its values are usual, in a
        third of the time. Return False for any other record."""
        if type(record) is not list or len(record) != _COUNTING or type(record[1]) is not str:
            return False
        kind, agent_id, at_ms, first, second = record
        life = self.lives.get(agent_id)
        if life is None or not (type(at_ms) is type(second) is int and 0 <= at_ms < _TIME_MAX_MS):
            return False
        agent = life.agent
        if kind == "checkpoint":
            agent["steps_taken"] = second
        elif kind == "usage" and type(first) is int:
            if agent["parent_id"] is not None:
                self._add_tokens(agent_id, first + second)
            elif tokens := first + second:
                agent["tokens_used"] += tokens
        else:
            return False
        agent["updated_at_ms"] = at_ms
        return True

    def load(self, items: Iterable[Any]) -> None:
        """Replace all agents with a checkpoint's items."""
        self.lives.clear()
        for item in items:
            if isinstance(item, dict) and "usage_sources" in item:
                continue  # an item of counted usage, and not an agent
            try:
                self._put(item)
            except (LookupError, TypeError, ValueError, AttributeError):
                self.unknown += 1

    def finish(self, end_ms: int, *, is_live: bool) -> None:
        """End all spans. Without a live writer, interrupt running agents, as an open does."""
        for life in self.lives.values():
            if life.agent["status"] == "running" and not is_live and not life.is_leased:
                life.was_cut_off = True
                life.agent |= {"status": "interrupted", "reason": "process restarted"}
                life.turn(WAITING, self.alive_ms or end_ms)
            if life.state:
                life.turn("", end_ms)
            if not life.spans:
                life.spans = [(EARLIER, life.agent["created_at_ms"], life.agent["created_at_ms"])]

    def by_family(self) -> Iterator[Life]:
        """Yield each parent before its children, the oldest first.

        If there are more than DRAWN_MAX agents, yield only those that changed last.
        """
        drawn = {
            life.agent["agent_id"]: life
            for life in nlargest(
                DRAWN_MAX, self.lives.values(), key=lambda life: life.agent["updated_at_ms"]
            )
        }
        youngest_first = sorted(
            drawn.values(), key=lambda life: life.agent["created_at_ms"], reverse=True
        )
        children: dict[str | None, list[Life]] = {None: []}
        for life in youngest_first:
            parent_id = life.agent["parent_id"]
            children.setdefault(parent_id if parent_id in drawn else None, []).append(life)
        # The stack holds all agents below the roots, because forged records may contain a cycle.
        stack = youngest_first + children[None]
        while stack:
            life = stack.pop()
            if drawn.pop(life.agent["agent_id"], None) is None:
                continue  # already yielded
            yield life
            own_children = children.get(life.agent["agent_id"], [])
            for child in own_children:
                child.depth = min(life.depth + 1, _DEPTH_MAX)
            stack += own_children

    # --- one method for each kind of record ---

    def _boot(self, fields: Fields) -> None:
        at_ms = _time(fields["at_ms"])
        self.application = cut(str(fields["application"]))
        self.boots.append(at_ms)
        for life in self.lives.values():
            if (
                life.state == RUNNING and not life.is_leased
            ):  # until its process ended, at a time that no record states
                life.turn(WAITING, min(self.alive_ms or at_ms, at_ms))

    def _spawn(self, fields: Fields) -> None:
        at_ms, is_running = fields["at_ms"], fields["status"] == "running"
        times = {"created_at_ms": at_ms, "started_at_ms": at_ms if is_running else None}
        changes = {"name": fields["name"] or fields["agent_id"], "steps_taken": 0, "tokens_used": 0}
        self._put({**dict.fromkeys(TOLD), **fields, **changes, **times, "updated_at_ms": at_ms})

    def _run(self, fields: Fields) -> None:
        changes = {"status": "running", "reason": None, "started_at_ms": fields["at_ms"]}
        life = self._changed(fields, **changes)
        life.turn(RUNNING, fields["at_ms"])
        life.is_leased = False

    def _lease(self, fields: Fields) -> None:
        self._run(fields)
        self.lives[fields["agent_id"]].is_leased = True

    def _lost(self, fields: Fields) -> None:
        self._stop(self._changed(fields, status=fields["status"], reason=fields["reason"]), fields)

    def _checkpoint(self, fields: Fields) -> None:
        self._changed(fields, steps_taken=fields["steps_taken"])

    def _usage(self, fields: Fields) -> None:
        self._changed(fields)
        self._count(fields)

    def _interrupt(self, fields: Fields) -> None:
        self._stop(self._changed(fields, status="interrupted", reason=fields["reason"]), fields)

    def _result(self, fields: Fields) -> None:
        changes = {name: fields[name] for name in ("status", "reason")}
        kept = {
            name: fields[name] for name in ("result", "steps_taken") if fields[name] is not None
        }
        life = self._changed(fields, **changes, **kept)
        self._count(fields)
        self._stop(life, fields)

    def _cancel(self, fields: Fields) -> None:
        self._stop(self._changed(fields, status="cancelled", reason=fields["reason"]), fields)

    def _remove(self, fields: Fields) -> None:
        del self.lives[fields["agent_id"]]
        self.removed += 1

    # --- changes of agents ---

    def _put(self, item: Fields) -> None:
        """Add an agent in its present state: a new one, or one from a checkpoint."""
        agent = {name: check(item[name]) for name, check in _CHECKS.items()}
        created_at_ms, started_at_ms = agent["created_at_ms"], agent["started_at_ms"]
        ended_at_ms, status = agent["ended_at_ms"], agent["status"]
        life = Life(agent, is_leased=item.get("lease") is not None)
        if started_at_ms is None:
            life.turn(WAITING, created_at_ms)
        else:
            if started_at_ms > created_at_ms:
                life.turn(EARLIER, created_at_ms)
            life.turn(EARLIER if status == "cancelled" else RUNNING, started_at_ms)
            if status == "interrupted":
                life.turn(WAITING, agent["updated_at_ms"])
        if status not in LIVE:
            life.turn("", agent["updated_at_ms"] if ended_at_ms is None else ended_at_ms)
        self.lives[agent["agent_id"]] = life

    def _changed(self, fields: Fields, **changes: Any) -> Life:
        life = self.lives[fields["agent_id"]]
        changes["updated_at_ms"] = fields["at_ms"]
        life.agent.update({name: _CHECKS[name](value) for name, value in changes.items()})
        return life

    def _stop(self, life: Life, fields: Fields) -> None:
        """Note that an agent that does not run any more waits or has ended, as its status says."""
        if life.agent["status"] in LIVE:
            life.turn(WAITING, fields["at_ms"])
        else:
            life.agent["ended_at_ms"] = _time(fields["at_ms"])
            life.turn("", fields["at_ms"])

    def _count(self, fields: Fields) -> None:
        """Add the tokens of a record to the agent and to its ancestors."""
        tokens = _whole(fields["input_tokens"] + fields["output_tokens"])
        self._add_tokens(fields["agent_id"], tokens)

    def _add_tokens(self, agent_id: str, tokens: int) -> None:
        above: str | None = agent_id
        counted = set[str]()  # forged records may contain a cycle
        while tokens and above is not None and above in self.lives and above not in counted:
            counted.add(above)
            agent = self.lives[above].agent
            agent["tokens_used"] += tokens
            above = agent["parent_id"]


def cut(text: str) -> str:
    """Return the beginning and the end of a long text: the end often states the outcome."""
    if len(text) <= TEXT_MAX:
        return text
    half = TEXT_MAX // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]} [... {left_out} characters left out ...] {text[-half:]}"


# The checks of field values. A wrong value raises: then the record is not a manager's.


def _time(value: Any) -> int:
    return max(-_TIME_MAX_MS, min(_whole(value), _TIME_MAX_MS))


def _whole(value: Any) -> int:
    if not isinstance(value, int):
        raise TypeError(f"a {type(value).__name__}, not a whole number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__}, not a text")
    return cut(value)


def _word(value: Any) -> str:
    if len(value) > _WORD_MAX:
        raise ValueError(f"{len(value)} characters")
    return _text(value)


def _or_none(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else check(value)


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(TOLD, _or_none(_text)),
    **dict.fromkeys(("agent_id", "status"), _word),
    "parent_id": _or_none(_word),
    **dict.fromkeys(("steps_taken", "tokens_used"), _whole),
    "token_budget": _or_none(_whole),
    **dict.fromkeys(("created_at_ms", "updated_at_ms"), _time),
    **dict.fromkeys(("started_at_ms", "ended_at_ms"), _or_none(_time)),
}
