"""Interleavings of transactions, step by step in one thread, beside a model of plain dicts.

A body is a list of steps, such as `("get", "t", "a")`. Each body runs in a context of its own, so
that one thread can run a step of one and then a step of another. A commit in an event loop pauses
before each piece of a large value.

Each transaction that commits must have seen what it would see if it ran alone at its commit, and
each conflict must have a reason: a write of others to something that it had read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import pytest

from journal import ConflictError, Tables
from journal._tables import chunked_map
from journal._tables.keys import encode_key
from journal.testing import SimulatedDisk
from tests.crash.crash_support import every_choice
from tests.support import PATH, options

Step = tuple[Any, ...]  # a verb, a table, and the verb's arguments
Model = dict[tuple[str, str], tuple[Any, int | None]]  # the value, and when it expires
LARGE = "large " * 50  # takes three pieces
WITHOUT_READS = {"set", "abort"}
OF_RANGES = {"keys", "range", "prefix", "count"}


class AbortedError(Exception):
    """The exception with which a body ends."""


@dataclass(frozen=True)
class Body:
    """One transaction. If it `goes_on`, it catches what a step raises, and relies on that."""

    steps: tuple[Step, ...]
    goes_on: bool = False
    in_loop: bool = False


class ModelTable:
    """A table of the model, as seen at one moment."""

    def __init__(self, rows: Model, name: str, now_s: int) -> None:
        self._rows = rows
        self._name = name
        self._now_s = now_s

    def shown(self) -> dict[str, Any]:
        """Return the rows that have not expired, in the order of their keys."""
        return {
            key: value
            for (name, key), (value, time_s) in sorted(self._rows.items(), key=lambda row: row[0])
            if name == self._name and (time_s is None or self._now_s < time_s)
        }

    def get(self, key: str) -> Any:
        return self.shown().get(key)

    def __contains__(self, key: str) -> bool:
        return key in self.shown()

    def __iter__(self) -> Iterator[str]:
        return iter(self.shown())

    def range(
        self, start: str | None, stop: str | None, *, reverse: bool, limit: int | None
    ) -> Iterable[tuple[str, Any]]:
        rows = [
            row
            for row in self.shown().items()
            if (start or "") <= row[0] and (stop is None or row[0] < stop)
        ]
        return (rows[::-1] if reverse else rows)[:limit]

    def prefix(self, prefix: str) -> Iterable[tuple[str, Any]]:
        return [row for row in self.shown().items() if row[0].startswith(prefix)]

    def set(self, key: str, value: Any, *, expires_at: int | None = None) -> None:
        self._rows[self._name, key] = value, expires_at

    def insert(self, key: str, value: Any) -> None:
        if key in self:
            raise ConflictError(self._name, key, "is there already")
        self.set(key, value)

    def replace(self, key: str, value: Any, **expected: Any) -> None:
        if key not in self or any(self.get(key) != other for other in expected.values()):
            raise ConflictError(self._name, key, "is not as expected")
        self.set(key, value)

    def delete(self, key: str) -> None:
        if key not in self:
            raise ConflictError(self._name, key, "is not there")
        del self._rows[self._name, key]

    def discard(self, key: str) -> None:
        self._rows.pop((self._name, key), None)

    def __delitem__(self, key: str) -> None:
        if key not in self:
            raise KeyError(key)
        del self._rows[self._name, key]

    def update(self, key: str, function: Callable[[Any], Any]) -> Any:
        new = function(self.get(key))
        time_s = self._rows[self._name, key][1] if key in self else None
        self.set(key, new, expires_at=time_s)
        return new


def perform(table: Any, step: Step) -> Any:
    """Perform a step on a table, on one within a transaction, or on a model. Return what the step
    shows."""
    match step:
        case "get", _, key:
            return table.get(key)
        case "has", _, key:
            return key in table
        case "keys", _:
            return list(table)
        case "range", _, start, stop, reverse, limit:
            return list(table.range(start, stop, reverse=reverse, limit=limit))
        case "prefix", _, prefix:
            return list(table.prefix(prefix))
        case "add", _, key:  # a write that depends on a read
            table.set(key, count := _number(table.get(key)) + 1)
            return count
        case "count", _, key:  # a write that depends on a range
            table.set(key, count := len(list(table)))
            return count
        case "set", _, key, value, time_s:
            return _nothing(table.set(key, value, expires_at=time_s))
        case "insert", _, key, value:
            return _nothing(table.insert(key, value))
        case "replace", _, key, value:
            return _nothing(table.replace(key, value))
        case "replace", _, key, value, expected:
            return _nothing(table.replace(key, value, expected=expected))
        case "delete", _, key:
            return _nothing(table.delete(key))
        case "discard", _, key:
            return _nothing(table.discard(key))
        case "del", _, key:
            del table[key]
        case "update", _, key:  # not within a transaction
            return table.update(key, lambda value: _number(value) + 1)
        case "abort", _:
            raise AbortedError
        case _:
            raise ValueError(step)
    return None


def _number(value: Any) -> int:
    return value if type(value) is int else 0


def _nothing(_: object) -> None:
    """Ignore an LSN, which a direct write returns."""


def seen_by(tables: Callable[[str], Any], body: Body) -> Iterator[Any]:
    """Perform the steps of a body, and yield what each shows."""
    for step in body.steps:
        try:
            yield perform(tables(step[1]), step)
        except (ConflictError, KeyError) as error:
            if not body.goes_on:
                raise
            yield type(error).__name__


class Run:
    """One run of bodies and of direct writes, beside the model."""

    def __init__(self, app: Tables, disk: SimulatedDisk, rows: Model, number: int) -> None:
        self.app = app
        self.disk = disk
        self.number = number  # each run has tables of its own
        self.model = dict(rows)
        self.written: list[tuple[str, str]] = []  # the places of all writes, in their order
        self.now_s = 0
        self.outcomes: dict[int, str] = {}  # "committed", "conflict" or "aborted", by body
        disk.clock_ns = 0
        for (name, key), (value, time_s) in rows.items():
            self.table(name).set(key, value, expires_at=time_s)

    def table(self, name: str) -> Any:
        return self.app.table(f"{name}{self.number}")

    def events_of(self, number: int, body: Body) -> Iterator[None]:
        """Run a body. Yield between any two of its events."""
        context = self.app.transaction()
        began, began_s = len(self.written), self.now_s
        seen: list[Any] = []
        t = context.__enter__()
        yield
        try:
            for shown in seen_by(lambda name: t[self.table(name)], body):
                seen.append(shown)
                yield
        except (AbortedError, KeyError, ConflictError) as error:
            yield from _left(context, body, error)
            self._ended(number, body, error, began)
            return
        try:
            yield from _left(context, body, None)
        except ConflictError as error:
            self._ended(number, body, error, began)
            return
        self.outcomes[number] = "committed"
        self.commit(body, seen, range(began_s, self.now_s + 1))

    def actions_of(self, actions: Iterable[Step]) -> Iterator[None]:
        """Perform what others do outside of these transactions. Yield between any two actions."""
        for number, action in enumerate(actions):
            if number:
                yield
            self.act(action)

    def act(self, action: Step) -> None:
        """Perform one action on the tables and on the model, which must show the same."""
        match action:
            case "wait", seconds:
                self.now_s += seconds
                self.disk.clock_ns = self.now_s * 10**9
            case "compact", _:
                self.app.compact()
                self._forget_removed()
            case ("transact" | "update_all") as verb, steps:
                call = self.app.transact if verb == "transact" else self.app.update
                body = Body(steps, goes_on=True)
                seen = call(lambda t: list(seen_by(lambda name: t[self.table(name)], body)))
                self.commit(body, seen, [self.now_s])
            case _:
                body = Body((action,), goes_on=True)
                self.commit(body, list(seen_by(self.table, body)), [self.now_s])

    def check_end(self) -> None:
        """Check that the tables hold what the model holds, now and once rows have expired."""
        for now_s in (self.now_s, 1000):
            self.disk.clock_ns = now_s * 10**9
            for name in ("t", "u"):
                expected = ModelTable(self.model, name, now_s).shown()
                assert dict(self.table(name).items()) == expected

    def commit(self, body: Body, seen: list[Any], moments: Iterable[int]) -> None:
        """Run a body alone on the model: at some moment, it must see what it has seen."""
        expected: list[Any] = []
        for now_s in moments:
            rows = dict(self.model)
            alone = self._alone(body, rows, now_s)
            if alone == seen:
                self.written += [
                    at for at in {**rows, **self.model} if rows.get(at) is not self.model.get(at)
                ]
                self.model = rows
                self._forget_removed()
                return
            expected.append(alone)
        raise AssertionError(f"{body} saw {seen}; alone, it sees {expected}")

    def _alone(self, body: Body, rows: Model, now_s: int) -> list[Any] | None:
        """Return what a body sees on the model, or None if it conflicts there."""
        try:
            return list(seen_by(lambda name: ModelTable(rows, name, now_s), body))
        except ConflictError:
            return None

    def _ended(self, number: int, body: Body, error: Exception, began: int) -> None:
        """Check that a conflict has a reason. A body without reads has none."""
        self.outcomes[number] = "conflict" if isinstance(error, ConflictError) else "aborted"
        if self.outcomes[number] == "aborted" or self.now_s:
            return  # what expires may have been removed
        reading = [step for step in body.steps if step[0] not in WITHOUT_READS]
        places = {(step[1], step[2]) for step in reading if step[0] not in OF_RANGES}
        ranges = {step[1] for step in reading if step[0] in OF_RANGES}
        changed = self.written[began:]
        has_reason = any(place in places or place[0] in ranges for place in changed)
        assert has_reason or self._alone(body, dict(self.model), 0) is None, (body, error)

    def _forget_removed(self) -> None:
        """Remove from the model what has expired and was removed from the tables."""
        machine = self.app._machine
        for (name, key), (_, time_s) in list(self.model.items()):
            is_gone = machine.get(f"{name}{self.number}", encode_key(key)) is None
            if time_s is not None and time_s <= self.now_s and is_gone:
                del self.model[name, key]


def _left(context: Any, body: Body, error: Exception | None) -> Iterator[None]:
    """Leave a body, after an exception or without one. Yield at each wait of an event loop."""
    if body.in_loop:
        yield from context.__aexit__(type(error), error, None).__await__()
    else:
        context.__exit__(type(error), error, None)


@contextmanager
def small_tables() -> Iterator[tuple[Tables, SimulatedDisk]]:
    """Open tables with small chunks and small records, whose commits pause in an event loop."""
    disk = SimulatedDisk()
    disk.clock_ns = disk.tick_ns = 0
    chosen = options(segment_bytes=1 << 22, record_bytes_max=256)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunked_map, "CHUNK_KEYS_MAX", 2)
        patch.setattr(chunked_map, "_CHUNK_KEYS_MIN", 1)
        with Tables.open(PATH, options=chosen, disk=disk) as app:
            patch.setattr(app._state, "room", _Pause)
            yield app, disk


class _Pause:
    """A wait for room that lets others run once."""

    def __await__(self) -> Iterator[None]:
        yield


def runs_of(
    rows: Model, bodies: Iterable[Body], actions: Iterable[Step] = (), schedule: str | None = None
) -> list[Run]:
    """Run all interleavings of the bodies' events and of what others do, or the one of `schedule`.

    A letter of `schedule` is a body's event ("a" and "b"), or an action of others ("o").
    """
    with small_tables() as (app, disk):
        runs: list[Run] = []
        for choose in every_choice():
            run = Run(app, disk, rows, len(runs))
            _interleave(run, list(bodies), list(actions), choose, schedule)
            run.check_end()
            assert app._machine.uploads.ids() == []
            runs.append(run)
            if schedule is not None:
                break
        return runs


def _interleave(
    run: Run,
    bodies: list[Body],
    actions: list[Step],
    choose: Callable[[int], int],
    schedule: str | None,
) -> None:
    live = {"ab"[n]: run.events_of(n, body) for n, body in enumerate(bodies)}
    if actions:
        live["o"] = run.actions_of(actions)
    contexts = {name: copy_context() for name in live}
    names = iter(schedule) if schedule is not None else None
    while live:
        name = next(names) if names else list(live)[choose(len(live))]
        if contexts[name].run(next, live[name], "ended") == "ended":
            del live[name]
    assert not names or next(names, None) is None
