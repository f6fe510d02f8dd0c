"""The records that an owner appended, and the state that each prefix of them gives.

This is the oracle against which a recovery is checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MemberDescriptorType
from typing import Any, Generic, TypeVar

from journal._format.checkpoint import JSON
from journal._format.items import EncodedItems, escaped
from journal._format.layout import PAYLOAD_BYTES_MAX
from journal._format.record import Record, RecordPacker, unpack_spans
from journal._state.composite import Composite
from journal._state.contract import check_items, check_machine
from journal._state.cow_table import CowTable
from journal._state.state_machine import StateMachine

M = TypeVar("M", bound=StateMachine)

_LIVE_CAUSES = (
    "either `apply` depends on more than the state and its record, such as the time, or other code "
    "than `apply`, such as `decide`, has changed the state"
)


class BrokenPromiseError(AssertionError):
    """A promise of journal/docs/RELIABILITY.md that a crash or an update broke.

    The message begins with the number of the promise, for example "P2: ".
    """


def expect(condition: object, promise: str, message: str) -> None:
    """Raise BrokenPromiseError unless `condition` is true.

    An `assert` would not do: this check is the subject of the tests, and must survive `-O`.
    """
    if not condition:
        raise BrokenPromiseError(f"{promise}: {message}")


class History(Generic[M]):
    """The appended records in the order of their LSNs, from 1 on, and the end of each batch.

    States are compared by the items that `freeze` gives. If recovery used a checkpoint, the
    machines are compared as well, by `==` if their class defines it, otherwise by their CowTables:
    by its own rows if a machine is a CowTable, and by its attributes. So are live machines.
    The constructor raises TypeError for a machine that DurableState refuses.
    """

    machine: Callable[[], M]
    """The function that makes a new state machine."""

    def __init__(self, machine: Callable[[], M]) -> None:
        given: Any = machine
        if not callable(given):
            kind = type(given).__name__
            raise TypeError(f"pass what makes a state machine, such as {kind}, not a {kind}")
        self.machine = machine
        self._pack = RecordPacker(record_bytes_max=PAYLOAD_BYTES_MAX).pack
        self._packed: list[bytes] = []
        self._ends = [0]
        self._fillers = set[int]()
        # The state at each LSN, computed on demand by a machine that follows the log.
        self._states: list[list[str]] = []
        self._follower = machine()
        check_machine(self._follower)

    @property
    def last_lsn(self) -> int:
        """The LSN of the last record, 0 if there is none."""
        return len(self._packed)

    @property
    def ends(self) -> list[int]:
        """The LSN 0, and the last LSN of each batch."""
        return self._ends

    def records(self, after: int = 0, to: int | None = None) -> list[Record]:
        """Return the records after LSN `after`, up to LSN `to` or (None) to the last one."""
        packed = self._packed[after:to]
        data = b"".join(packed)
        return unpack_spans(data, [(0, len(data), len(packed))])

    def _changes(self, after: int, to: int) -> list[Record]:
        """Return the records after LSN `after`, up to LSN `to`, without fillers."""
        lsns = range(after + 1, to + 1)
        records = zip(lsns, self.records(after, to), strict=False)
        return [record for lsn, record in records if lsn not in self._fillers]

    def add(self, records: list[Record]) -> None:
        """Note that `records` are about to be appended, as one batch."""
        # Pack them now: the caller may change a record later.
        self._packed += [self._pack(record) for record in records]
        self._ends.append(self.last_lsn)

    def add_filler(self) -> None:
        """Note that a compaction has appended a filler, which no machine applies."""
        self.add([None])
        self._fillers.add(self.last_lsn)

    def cut(self, lsn: int) -> None:
        """Forget the records after `lsn`, which were lost or never appended."""
        del self._packed[lsn:]
        self._fillers = {filler_lsn for filler_lsn in self._fillers if filler_lsn <= lsn}
        self._ends = [end for end in self._ends if end <= lsn]
        if len(self._states) > lsn + 1:
            self._states, self._follower = [], self.machine()

    def until(self, lsn: int) -> History[M]:
        """Return an independent history with the records up to `lsn`."""
        twin = History(self.machine)
        twin._packed, twin._ends = self._packed[:lsn], [end for end in self._ends if end <= lsn]
        twin._fillers = {filler_lsn for filler_lsn in self._fillers if filler_lsn <= lsn}
        return twin

    def replayed(self) -> M:
        """Return a new machine to which all records have been applied."""
        machine = self.machine()
        for lsn, record in enumerate(self.records(), 1):
            if lsn not in self._fillers:
                machine.apply(lsn, record)
        return machine

    def state(self, lsn: int) -> list[str]:
        """Return the state after the record `lsn`, as one line of JSON for each item."""
        while len(self._states) <= lsn:
            at = len(self._states)
            if at and at not in self._fillers:
                [record] = self.records(at - 1, at)
                self._follower.apply(at, record)
            self._states.append(state_of(self._follower))
        return self._states[lsn]

    def holds(self, lsn: int, record: Record, *, is_filler: bool = False) -> bool:
        """Return whether `record` was appended with that LSN."""
        is_known = 1 <= lsn <= self.last_lsn and is_filler == (lsn in self._fillers)
        return is_known and self._pack(record) == self._packed[lsn - 1]

    def check(self, lsn: int, machine: M, after: int, tail: list[tuple[int, Record]]) -> None:
        """Check that a recovery yielded a prefix of this history.

        It ended at `lsn` and yielded `machine`, from a checkpoint at LSN `after` (0: none) and the
        records `tail` after it, each with its LSN. Raises BrokenPromiseError (P1, P3, P6).
        """
        self.check_end(lsn)
        records = [(at, self._pack(record)) for at, record in tail]
        expected = list(enumerate(self._packed[after:lsn], after + 1))
        expect(records == expected, "P1", f"replay after LSN {after} gives {tail}")
        self._check_items("recovered", machine, lsn)
        if after:
            # Data that `freeze` leaves out is missing from both lists of items above. Only the
            # machines in memory show it.
            self._check_parts(
                "recovered", machine, lsn, "`freeze` or `load` leaves a part of it out"
            )

    def check_live(self, machine: M) -> None:
        """Check that `machine`, to which the records were applied one by one, has their state.

        Raises BrokenPromiseError (P6).
        """
        self._check_items("live", machine, self.last_lsn, f": {_LIVE_CAUSES}")
        self._check_parts("live", machine, self.last_lsn, _LIVE_CAUSES)

    def _check_items(self, kind: str, machine: M, lsn: int, causes: str = "") -> None:
        """Check that `freeze` gives the items that a replay of the records up to `lsn` gives."""
        state, replayed = state_of(machine), self.state(lsn)
        if state != replayed:
            difference = _difference(f"the {kind} state", state, "replay gives", replayed)
            if sorted(state) == sorted(replayed):
                causes = (
                    ": the items are the same, in another order; if their order means nothing, as "
                    "in a set, sort them in `freeze`"
                )
            raise BrokenPromiseError(f"P6: {difference}, at LSN {lsn}{causes}")

    def _check_parts(self, kind: str, machine: M, lsn: int, causes: str) -> None:
        """Check that `machine` is equal to a replay of the records up to `lsn`."""
        part = _differing_part(machine, self.until(lsn).replayed())
        expect(
            not part,
            "P6",
            f"{part} of the {kind} state differs from a replay, at LSN {lsn}: {causes}",
        )

    def check_end(self, lsn: int) -> None:
        """Check that the log may end at `lsn`. Raises BrokenPromiseError (P1, P3)."""
        last_lsn = self.last_lsn
        expect(lsn <= last_lsn, "P1", f"the log ends at LSN {lsn}, after the last one, {last_lsn}")
        expect(lsn in self._ends, "P3", f"the log ends at LSN {lsn}, in the middle of a batch")


class HeldItems:
    """The items that `freeze` returns at LSN `lsn`, read after further records have been applied.

    A compaction reads them like this. If they change meanwhile, the checkpoint is newer than its
    LSN, and recovery applies records to a state that contains them already.
    """

    def __init__(self, machine: StateMachine, lsn: int) -> None:
        self._lsn = lsn
        # One text for all items, because each update makes one. A text per item takes far longer.
        self._before = _text(_frozen(machine))
        self._items = _frozen(machine)

    def check(self, last_lsn: int) -> None:
        """Read the items, after the records up to `last_lsn` have been applied.

        Raises BrokenPromiseError (P6) if they have changed.
        """
        try:
            now = _text(self._items)
        except Exception as error:  # for example, a dict grew while it was iterated
            symptom = f"reading them raises {error!r:.200}"
            raise BrokenPromiseError(self._message(last_lsn, symptom)) from error
        if now != self._before:
            lines, before = _lines(now), _lines(self._before)
            symptom = _difference("the snapshot", lines, "before the change it gave", before)
            raise BrokenPromiseError(self._message(last_lsn, symptom))

    def _message(self, last_lsn: int, symptom: str) -> str:
        is_one = last_lsn == self._lsn + 1
        after = "the record after it" if is_one else f"the records after it, up to LSN {last_lsn}"
        return (
            f"P6: the items of `freeze` at LSN {self._lsn} change with {after}: {symptom}. There "
            "are three possible causes: `freeze` takes a snapshot, or reads an attribute, only "
            "when its items are read; or it returns a container that `apply` changes; or `apply` "
            "changes a value in place instead of replacing it"
        )


def state_of(machine: StateMachine) -> list[str]:
    """Return one line of JSON for each item of the state, with its keys sorted.

    Otherwise, the lines are those of a checkpoint. Raises CheckpointItemError for an item that a
    checkpoint refuses, and TypeError if `freeze` does not return a snapshot, as check_items does.
    """
    return _lines(_text(_frozen(machine)))


def _frozen(machine: StateMachine) -> Iterable[JSON]:
    items = machine.freeze()
    check_items(machine, items)
    return items


def _text(items: Iterable[JSON]) -> str:
    return _encode([escaped(item, index) for index, item in enumerate(_single(items))])


def _single(items: Iterable[JSON]) -> Iterator[JSON]:
    """Yield each item of `items`, including those that a machine has encoded itself."""
    for item in items:
        if type(item) is EncodedItems:
            yield from item.decoded()
        else:
            yield item


def _lines(text: str) -> list[str]:
    return [_encode(item) for item in json.loads(text)]


_encode = json.JSONEncoder(sort_keys=True).encode


def _differing_part(machine: Any, other: Any) -> str:
    """Return which part of `machine` differs from `other`, or "" if none does.

    Both machines give the same items in `freeze`.
    """
    name = type(machine).__name__
    if _by_value(machine):
        return "" if machine == other else f"{name} itself, by its own `==`,"
    if isinstance(machine, Composite):
        parts = (_differing_part(machine[part], other[part]) for part in machine.names)
        return next(filter(None, parts), "")
    if isinstance(machine, Mapping) and not _same(machine, other):
        return f"{name} itself"
    tables, others = _tables_of(machine), _tables_of(other)
    for attribute in tables | others:
        if not _same(tables.get(attribute), others.get(attribute)):
            return f"{name}.{attribute}"
    return ""


def _tables_of(machine: Any) -> dict[str, CowTable[Any, Any]]:
    """Return the attributes that are CowTables, those in `__slots__` too, by name."""
    names = [*getattr(machine, "__dict__", {})]
    for kind in type(machine).__mro__:
        names += [key for key, value in vars(kind).items() if type(value) is MemberDescriptorType]
    values = {name: getattr(machine, name, None) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, CowTable)}


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are equal.

    A list equals a tuple, because a tuple that was loaded is a list. Objects of one type without an
    `==` of their own count as equal.
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other) if _by_value(one) else type(one) is type(other)


def _by_value(value: object) -> bool:
    """Return whether an `==` compares all of `value`: that of a mapping compares only its rows."""
    return type(value).__eq__ not in (object.__eq__, Mapping.__eq__, dict.__eq__)


def _difference(subject: str, actual: list[str], source: str, expected: list[str]) -> str:
    """Describe the first item in which `actual` and `expected` differ, or their lengths.

    `subject` names the owner of the actual items. `source` ends in the verb for the expected ones.
    """
    pairs: list[tuple[Any, Any]] = list(zip(actual, expected, strict=False))
    for number, (one, other) in enumerate(pairs):
        if one != other:
            return f"item {number} of {subject} is {one}, but {source} {other}"
    return f"{subject} has {len(actual)} items, but {source} {len(expected)}"
