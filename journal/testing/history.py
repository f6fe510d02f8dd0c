"""What an owner appended, and what each prefix of it amounts to: the oracle of a recovery."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from journal._format.checkpoint import JSON
from journal._format.items import escaped
from journal._format.layout import PAYLOAD_BYTES_MAX
from journal._format.record import Record, RecordPacker, unpack_spans
from journal._state.contract import check_items, check_machine
from journal._state.cow_table import CowTable
from journal._state.durable_state import StateMachine

M = TypeVar("M", bound=StateMachine)


class BrokenPromiseError(AssertionError):
    """A crash after which something did not hold that journal/docs/RELIABILITY.md promises."""


def expect(truth: object, promise: str, what: str) -> None:
    """Raise BrokenPromiseError unless `truth`. Not an `assert`: this is what is tested."""
    if not truth:
        raise BrokenPromiseError(f"{promise}: {what}")


class History(Generic[M]):
    """The appended records in the order of their LSNs, from 1 on, and the end of each batch.

    A state is what `freeze` gives, item by item. After a checkpoint the machines are compared too:
    by `==` if their class defines it, otherwise by each CowTable that they have. Raises TypeError
    for a machine that DurableState refuses.
    """

    machine: Callable[[], M]
    """The function that makes a new state machine."""

    def __init__(self, machine: Callable[[], M]) -> None:
        self.machine = machine
        self._pack = RecordPacker(record_bytes_max=PAYLOAD_BYTES_MAX).pack
        self._packed: list[bytes] = []
        self._ends = [0]
        # States by LSN; they are made when they are asked for, by a machine that follows.
        self._states: list[list[str]] = []
        self._follower = machine()
        check_machine(self._follower)

    @property
    def last_lsn(self) -> int:
        """Of the last record added; 0 before there is one."""
        return len(self._packed)

    @property
    def ends(self) -> list[int]:
        """The last LSN of each batch, and 0."""
        return self._ends

    def records(self, after: int = 0, to: int | None = None) -> list[Record]:
        """Those after LSN `after` up to `to` (None: all)."""
        packed = self._packed[after:to]
        data = b"".join(packed)
        return unpack_spans(data, [(0, len(data), len(packed))])

    def add(self, records: list[Record]) -> None:
        """They are about to be appended, as one batch."""
        # Packed at once: who appends may change a record later.
        self._packed += [self._pack(record) for record in records]
        self._ends.append(self.last_lsn)

    def cut(self, lsn: int) -> None:
        """Nothing after `lsn` was appended after all."""
        del self._packed[lsn:]
        self._ends = [end for end in self._ends if end <= lsn]
        if len(self._states) > lsn + 1:
            self._states, self._follower = [], self.machine()

    def until(self, lsn: int) -> History[M]:
        """Another one, with these records up to `lsn`, that goes on by itself."""
        twin = History(self.machine)
        twin._packed, twin._ends = self._packed[:lsn], [end for end in self._ends if end <= lsn]
        return twin

    def replayed(self) -> M:
        """A new machine to which all records were applied."""
        machine = self.machine()
        for lsn, record in enumerate(self.records(), 1):
            machine.apply(lsn, record)
        return machine

    def state(self, lsn: int) -> list[str]:
        """What all records up to `lsn` amount to: a line of JSON an item."""
        while len(self._states) <= lsn:
            at = len(self._states)
            if at:
                [record] = self.records(at - 1, at)
                self._follower.apply(at, record)
            self._states.append(state_of(self._follower))
        return self._states[lsn]

    def holds(self, lsn: int, record: Record) -> bool:
        """Whether `record` is what was appended with that LSN."""
        return 1 <= lsn <= self.last_lsn and self._pack(record) == self._packed[lsn - 1]

    def check(self, lsn: int, machine: M, after: int, tail: list[tuple[int, Record]]) -> None:
        """That recovery up to `lsn`, which gave `machine`, from a checkpoint at LSN `after` and
        with `tail` behind it, shows a prefix. Raises BrokenPromiseError.
        """
        self.check_end(lsn)
        records = [(at, self._pack(record)) for at, record in tail]
        expected = list(enumerate(self._packed[after:lsn], after + 1))
        expect(records == expected, "P1", f"replay after LSN {after} gives {tail}")
        state, replayed = state_of(machine), self.state(lsn)
        if state != replayed:
            what = _difference("the recovered state", state, "replay gives", replayed)
            raise BrokenPromiseError(f"P6: {what}, at LSN {lsn}")
        if after:  # what `freeze` leaves out is missing on both sides of that, but not in memory
            unlike = _unlike(machine, self.until(lsn).replayed())
            expect(not unlike, "P6", f"{unlike} differs from what replay gives, at LSN {lsn}")

    def check_end(self, lsn: int) -> None:
        """That a log may end at `lsn`."""
        expect(lsn <= self.last_lsn, "P1", f"LSN {lsn}, but {self.last_lsn} was the last appended")
        expect(lsn in self._ends, "P3", f"it ends at LSN {lsn}, in the midst of a batch")


class HeldItems:
    """The items that `freeze` gives at LSN `lsn`, to be read when further records were applied.

    That is how a compaction reads them. If they change meanwhile, its checkpoint is newer than its
    LSN, and recovery applies records to a state that has them already.
    """

    def __init__(self, machine: StateMachine, lsn: int) -> None:
        self._lsn = lsn
        # One text of all items: it is made at each update, and that of each item takes far longer.
        self._before = _text(_frozen(machine))
        self._items = _frozen(machine)

    def check(self, last_lsn: int) -> None:
        """Read the items, now that the records up to `last_lsn` have been applied.

        Raises BrokenPromiseError (P6) if they are not what they were.
        """
        try:
            now = _text(self._items)
        except Exception as error:  # such as a dict that grows while it is iterated
            what = f"reading them raises {error!r:.200}"
            raise BrokenPromiseError(self._story(last_lsn, what)) from error
        if now != self._before:
            lines, before = _lines(now), _lines(self._before)
            what = _difference("the snapshot", lines, "before that it gave", before)
            raise BrokenPromiseError(self._story(last_lsn, what))

    def _story(self, last_lsn: int, what: str) -> str:
        is_one = last_lsn == self._lsn + 1
        after = "the record after it" if is_one else f"the records after it, up to LSN {last_lsn}"
        return (
            f"P6: the items of `freeze` at LSN {self._lsn} change with {after}: {what}. The cause "
            "is one of three: `freeze` takes a snapshot, or reads an attribute, only when its "
            "items are read; or it returns a container that `apply` changes; or `apply` changes a "
            "value in place instead of replacing it"
        )


def state_of(machine: StateMachine) -> list[str]:
    """Return a line of JSON for each item, as a checkpoint would hold it but for the order of keys.

    Raises CheckpointItemError for an item that a checkpoint refuses, and TypeError as check_items
    does.
    """
    return _lines(_text(_frozen(machine)))


def _frozen(machine: StateMachine) -> Iterable[JSON]:
    items = machine.freeze()
    check_items(machine, items)
    return items


def _text(items: Iterable[JSON]) -> str:
    return _encode([escaped(item, index) for index, item in enumerate(items)])


def _lines(text: str) -> list[str]:
    return [_encode(item) for item in json.loads(text)]


_encode = json.JSONEncoder(sort_keys=True).encode


def _unlike(machine: Any, other: Any) -> str:
    """What of the first is not as in the other, which freezes the same; "": nothing."""
    name = type(machine).__name__
    if _by_value(machine):
        return "" if machine == other else f"{name} itself, by its own `==`,"
    for attribute, value in getattr(machine, "__dict__", {}).items():  # none: it has slots
        if isinstance(value, CowTable) and not _same(value, getattr(other, attribute, None)):
            return f"{name}.{attribute}, of which `freeze` or `load` leaves something out,"
    return ""


def _same(one: Any, other: Any) -> bool:
    """As far as values say so, and where a tuple that was loaded may be a list."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return not _by_value(one) or bool(one == other)


def _by_value(value: object) -> bool:
    return "__eq__" in {name for kind in type(value).__mro__[:-1] for name in vars(kind)}


def _difference(whose: str, found: list[str], source: str, expected: list[str]) -> str:
    """Say where the items of `whose` state first differ from the `expected` ones of `source`."""
    pairs: list[tuple[Any, Any]] = list(zip(found, expected, strict=False))
    for number, (one, other) in enumerate(pairs):
        if one != other:
            return f"item {number} of {whose} is {one}, but {source} {other}"
    return f"{whose} has {len(found)} items, but {source} {len(expected)}"
