"""Composite: several state machines in one journal, each a part with a name.

A record is `[part, record]` and an item of a checkpoint is `[part, item]`. The checkpoint's
application holds those of all parts:

    journal.composite/1 {"fleet":"jobs/1","tables":"journal.tables/1"}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from journal._format.checkpoint import JSON, decode_item
from journal._format.items import EncodedItems, encode_item
from journal._format.lines import lines_of
from journal._format.record import PackedRecord, Record, pack_pair
from journal._format.restored import mark_of
from journal._public import public
from journal._state.contract import check_items, check_machine
from journal._state.state_machine import JudgesApplication, LoadsLines, StateMachine, why_refused

COMPOSITE_PREFIX = "journal.composite/1 "


@public
class Composite(LoadsLines, JudgesApplication):
    """A state machine whose parts are state machines, which change together.

        machine = Composite(jobs=Jobs(), users=Users())
        with DurableState.open("app.d", machine) as state:
            state.update_batch(lambda c: [c.part("jobs", job), c.part("users", user)])

    `composite["jobs"]` is the part `jobs`. A part may be added at a later open. An open refuses a
    journal with records or items of a missing part, and one whose checkpoint names an application
    that the part of this name does not accept. The LSNs of one part's records have gaps. For tables
    beside other machines, see `Tables.in_state`.
    """

    def __init__(self, /, **parts: StateMachine) -> None:
        """Combine new machines. The name of an argument is the name of the part."""
        if not parts:
            raise TypeError("a Composite has no parts: give each by its name, as in jobs=Jobs()")
        for name, machine in parts.items():
            if not name.isidentifier():
                raise ValueError(f"{name!r:.200} is not an identifier, so it can't name a part")
            try:
                check_machine(machine)
            except TypeError as error:
                raise TypeError(f"part {name!r}: {error}") from error
        if len(set(map(id, parts.values()))) < len(parts):
            raise ValueError("two parts are the same machine: make one for each part")
        self._parts = parts
        self._by_head = {_head(name): name for name in parts}
        applications = {name: machine.application for name, machine in parts.items()}
        self._application = COMPOSITE_PREFIX + json.dumps(
            applications, ensure_ascii=False, sort_keys=True, separators=(",", ":")
        )

    def __getitem__(self, name: str) -> Any:
        return self._parts[name]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts."""
        return tuple(self._parts)

    def part(self, name: str, record: Record) -> Record:
        """Return the record that `update` or `update_batch` needs to apply `record` to part `name`.

        This needs no lock. A packed record stays packed, so pack a large one before the update.
        Raises ValueError if there is no such part.
        """
        if name not in self._parts:
            raise ValueError(f"no part {name!r:.200}; the parts are {', '.join(self._parts)}")
        return pack_pair(name, record) if type(record) is PackedRecord else [name, record]

    def own_record(self, name: str, record: Record) -> Record | None:
        """Return the record of part `name` that `record` applies; None if it is another part's."""
        return record[1] if record[0] == name and len(record) == 2 else None

    def own_item(self, name: str, item: Any) -> Any | None:
        """Do for an item of a checkpoint what `own_record` does for a record."""
        return self.own_record(name, item)

    @property
    def application(self) -> str:
        """The names and applications of all parts, in one string."""
        return self._application

    def why_refused(self, application: str) -> str:
        """Return why the parts can't load a checkpoint of `application`, or "" if they can."""
        written = _applications(application)
        if written is None:
            return f"the journal was written for application {application!r}, not for a Composite"
        for name, older in written.items():
            # The data of a missing part is refused when it is read.
            if name in self._parts and (problem := why_refused(self._parts[name], older)):
                return f"part {name!r}: {problem}"
        return ""

    def apply(self, lsn: int, record: Any) -> None:
        """Apply the record of a part."""
        if type(record) is not list or len(record) != 2:
            if mark_of(record):
                return
            raise ValueError("a record of a Composite is [part, record]; make it with `part`")
        name, inner = record
        self._machine(name).apply(lsn, inner)

    def load(self, item: Any) -> None:
        """Load the item of a part."""
        name, inner = item
        self._machine(name).load(inner)

    def load_lines(self, block: bytes) -> None:
        """Load the items in these lines. Successive ones of one part are decoded together."""
        for head, run in groupby(lines_of(block), lambda line: line[: line.find(b",") + 1]):
            name = self._by_head.get(head)
            machine = self._machine(decode_item(head[1:-1]) if name is None else name)
            inner = [_inner(line, head) for line in run]
            if isinstance(machine, LoadsLines):
                machine.load_lines(b"".join(text + b",\n" for text in inner))
            else:
                items = decode_item(b"[%b]" % b",".join(inner))
                if len(items) != len(inner):
                    raise ValueError(f"{len(inner)} lines of a Composite hold {len(items)} items")
                for item in items:
                    machine.load(item)

    def freeze(self) -> Iterable[JSON]:
        """Return a snapshot of the items of all parts."""
        frozen = []
        for name, machine in self._parts.items():
            items = machine.freeze()
            check_items(machine, items)
            frozen.append((name, items))
        return _wrapped(frozen)

    def _machine(self, name: Any) -> StateMachine:
        machine = self._parts.get(name)
        if machine is None:
            raise ValueError(
                f"the journal has data of part {name!r:.200}, and the parts are "
                f"{', '.join(self._parts)}; open it with all of its parts"
            )
        return machine

    def __repr__(self) -> str:
        return f"<Composite of {', '.join(self._parts)}>"


def _head(name: str) -> bytes:
    """Return the beginning of each line of the part `name`. A name has no comma."""
    return b"[%b," % encode_item(name, 0)


def _wrapped(frozen: list[tuple[str, Iterable[JSON]]]) -> Iterator[JSON]:
    for name, items in frozen:
        head = _head(name)
        for item in items:
            if type(item) is EncodedItems:  # JSON text has no LF inside a line
                lines = item.lines.replace(b",\n", b"],\n" + head)
                yield EncodedItems(b"%b%b]" % (head, lines), item.number)
            else:
                yield [name, item]


def _applications(composite: str) -> dict[str, str] | None:
    """Return the application of each part, or None if this is no Composite's application."""
    try:
        applications = json.loads(composite.removeprefix(COMPOSITE_PREFIX))
    except (ValueError, RecursionError):
        return None
    if not composite.startswith(COMPOSITE_PREFIX) or type(applications) is not dict:
        return None
    is_valid = all(type(application) is str for application in applications.values())
    return applications if is_valid else None


def _inner(line: bytes, head: bytes) -> bytes:
    """Return the item of a part, whose line begins with `head`, as text."""
    text = line.removesuffix(b"\n").removesuffix(b",")
    if text[-1:] != b"]":
        raise ValueError("an item of a Composite is [part, item]")
    return text[len(head) : -1]
