"""A model of the protocol between a journal's mirror and its store, which `proof.mirror` searches.

The store is a list of numbered entries, where the first writer of a number owns it, and blobs. It
models:

- Writers that list, claim, list again, append, and pause forever or go on. A writer has one append
  in flight. Each answer may be lost, and each request may be delivered long after its sender gave
  it up.
- Roll-ups, also those of a writer that was fenced long ago: a blob holds the bytes of a run of
  entries, or everything from the beginning (a checkpoint). Then the entries are trimmed, one by
  one, and blobs that a newer checkpoint covers are deleted.
- A reader that follows: it gets the next number, and starts again from the newest blob.
- Two kinds of store. In "objects" a trimmed number is free again. In a "stream" it never is.

It assumes that a list shows every entry that was put before the list began. It does not model
bytes, lost or damaged entries, two claims of one writer process, and anything local.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple

Kind = Literal["objects", "stream"]


class Weakening(Enum):
    """A clause that can be removed from the protocol. Its value is the weakened behavior."""

    NO_SECOND_LIST = "a claim stands as soon as it is put"
    CONFLICT_IS_OWN = "a taken number is believed to be the writer's own entry"
    TWO_IN_FLIGHT = "a writer sends the next entry before the answer to the last one"
    TRIM_TAKES_CLAIMS = "claims are trimmed, too"
    TRIM_TAKES_LAST = "a writer trims its own last entry"
    TRIM_BEFORE_BLOB = "entries are trimmed before a blob holds their bytes"
    ROLL_UP_BEFORE_ANSWER = "a blob holds bytes whose append was not answered yet"
    DELETE_ANY_BLOB = "a blob is deleted although no checkpoint covers it"
    NO_CHAIN = "a reader takes an entry that follows another one than the reader's last"


@dataclass(frozen=True)
class Model:
    """The parameters of a search: the kind of store, a weakening if any, and the bounds."""

    kind: Kind = "objects"
    weakening: Weakening | None = None
    writers: int = 2  # processes that claim
    numbers: int = 4  # numbers of entries
    blobs: int = 2  # blobs that exist at a time


class Entry(NamedTuple):
    """An entry. `follows` identifies the entry before it, as its writer believes."""

    kind: Literal["claim", "bytes"]
    writer: int
    follows: tuple[str, int] | None

    @property
    def identity(self) -> tuple[str, int]:
        """The nonce. With its number, it identifies the entry."""
        return self.kind, self.writer


class Blob(NamedTuple):
    """The bytes of the entries from `first` to `last`. `end` is the identity of the last one."""

    first: int
    last: int
    end: tuple[str, int]


class Writer(NamedTuple):
    """A writer process: its phase, the number it works on, and the identity of the one before.

    `late` is an entry that it gave up, and that may still be delivered.
    """

    phase: Literal[
        "new", "out", "blobs listed", "entries listed", "claiming", "claim asked", "verifying",
        "active", "asked", "fenced",
    ] = "new"  # fmt: skip
    number: int = -1
    before: tuple[str, int] | None = None
    late: tuple[int, Entry] | None = None


class Reader(NamedTuple):
    """A follower: the last number that it has read, and the identity of that entry."""

    at: int = -1
    end: tuple[str, int] | None = None


class State(NamedTuple):
    """The store, its processes, and the truth: what each number held first, which claim stands, and
    the highest number that was acknowledged."""

    store: tuple[Entry | None, ...]
    ever: tuple[Entry | None, ...]
    blobs: frozenset[Blob]
    writers: tuple[Writer, ...]
    reader: Reader
    standing: tuple[int, int] | None  # the writer and the number of the last claim that stands
    acknowledged: int


Step = tuple[str, State]


class BrokenPromiseError(Exception):
    """A promise does not hold. The text names the promise."""


def initial(model: Model) -> State:
    """Return the state with an empty store."""
    empty = (None,) * model.numbers
    return State(empty, empty, frozenset(), (Writer(),) * model.writers, Reader(), None, -1)


def steps(state: State, model: Model) -> Iterator[Step]:
    """Yield each step that may happen next."""
    for number, writer in enumerate(state.writers):
        if writer.phase == "new" and number and state.writers[number - 1].phase == "new":
            continue  # the writers are alike, so they begin in order
        yield from _Turn(state, model, number).steps()
    yield from _reading(state, model)


class _Turn:
    """The steps of one writer in one state."""

    def __init__(self, state: State, model: Model, index: int) -> None:
        self._state = state
        self._model = model
        self._weakening = model.weakening
        self._index = index
        self._writer = state.writers[index]

    def steps(self) -> Iterator[Step]:
        writer = self._writer
        if writer.phase in ("new", "out"):
            newest = max((blob.last for blob in self._state.blobs), default=-1)
            yield self._become("lists the blobs", phase="blobs listed", number=newest)
        elif writer.phase == "blobs listed":
            yield self._list_entries()
        elif writer.phase == "entries listed":
            yield self._get_last()
        elif writer.phase == "claiming" and writer.number < self._model.numbers:
            yield from self._put(Entry("claim", self._index, writer.before))
        elif writer.phase == "claim asked":
            yield from self._ask_claim()
        elif writer.phase == "verifying":
            yield self._verify()
        elif writer.phase == "active" and writer.number < self._model.numbers:
            yield from self._put(Entry("bytes", self._index, writer.before))
        elif writer.phase == "asked":
            yield from self._ask_append()
        if writer.late:
            yield self._deliver(*writer.late)
        if writer.phase in ("active", "asked", "fenced"):
            yield from self._roll_up()
            yield from self._trim()

    # --- the claim ---

    def _list_entries(self) -> Step:
        """List the entries after the newest blob. The last entry of all is never trimmed, so it is
        among them, or it is the blob's own last one."""
        seen = [n for n, entry in enumerate(self._state.store) if entry]
        last = max(self._writer.number, max(seen, default=-1))
        return self._become(f"lists the entries up to {last}", phase="entries listed", number=last)

    def _get_last(self) -> Step:
        last = self._writer.number
        entry = self._state.store[last] if last >= 0 else None
        if last >= 0 and entry is None:
            return self._become(f"finds that {last} was trimmed", phase="out", number=-1)
        before = entry.identity if entry else None
        return self._become(f"gets {last}", phase="claiming", number=last + 1, before=before)

    def _ask_claim(self) -> Iterator[Step]:
        number = self._writer.number
        entry = self._state.store[number]
        if entry is None and not self._is_gone(number):
            yield self._become(f"finds {number} free", phase="claiming")
        elif entry and entry.identity == ("claim", self._index):
            yield self._become(f"finds its claim at {number}", phase="verifying")
        else:
            yield self._become(f"finds {number} taken", phase="out", number=-1)

    def _verify(self) -> Step:
        number = self._writer.number
        if any(self._state.store[number + 1 :]):
            return self._become(f"sees more after {number}", phase="out", number=-1)
        return self._stand(f"sees nothing after {number}", self._state)

    def _stand(self, label: str, state: State) -> Step:
        number = self._writer.number
        if state.acknowledged >= number:
            raise BrokenPromiseError(
                f"claim {number} stands, and {state.acknowledged} was acknowledged before"
            )
        state = state._replace(standing=(self._index, number))
        return self._become(
            f"{label}: its claim stands",
            state,
            phase="active",
            number=number + 1,
            before=("claim", self._index),
        )

    # --- appending ---

    def _put(self, entry: Entry) -> Iterator[Step]:
        """Put an entry at the writer's number: it lands or is refused, and the answer comes or is
        lost; or the request arrives long after."""
        number, is_claim = self._writer.number, entry.kind == "claim"
        asked: Literal["claim asked", "asked"] = "claim asked" if is_claim else "asked"
        yield self._become(
            f"puts {entry.kind} {number}, which is delayed", phase=asked, late=(number, entry)
        )
        if self._weakening is Weakening.TWO_IN_FLIGHT and not is_claim:
            yield from self._put_two(entry)
        if not self._is_free(number):
            yield self._become(f"is refused at {number}", phase=asked)
            return
        state = self._landed(number, entry)
        yield self._become(f"puts {entry.kind} {number}, the answer is lost", state, phase=asked)
        label = f"puts {entry.kind} {number}"
        if not is_claim:
            yield self._acknowledge(label, state)
        elif self._weakening is Weakening.NO_SECOND_LIST:
            yield self._stand(label, state)
        else:
            yield self._become(label, state, phase="verifying")

    def _put_two(self, entry: Entry) -> Iterator[Step]:
        number = self._writer.number
        if number + 1 < self._model.numbers and self._state.store[number + 1] is None:
            state = self._landed(number + 1, entry._replace(follows=entry.identity))
            label = f"puts {number}, which is delayed, and {number + 1}"
            yield self._become(label, state, phase="asked", late=(number, entry))

    def _ask_append(self) -> Iterator[Step]:
        number, own = self._writer.number, ("bytes", self._index)
        entry = self._state.store[number]
        is_own = entry is not None and entry.identity == own
        if is_own or (entry and self._weakening is Weakening.CONFLICT_IS_OWN):
            yield self._acknowledge(f"finds its entry at {number}", self._state)
        elif entry is None and not self._is_gone(number):
            yield self._become(f"finds {number} free", phase="active")
        else:
            yield self._become(f"is fenced at {number}", phase="fenced")

    def _acknowledge(self, label: str, state: State) -> Step:
        number, own = self._writer.number, ("bytes", self._index)
        first = state.ever[number]
        if first is None or first.identity != own:
            raise BrokenPromiseError(f"{number} is acknowledged, and holds another entry")
        if state.standing and state.standing[0] != self._index and number > state.standing[1]:
            raise BrokenPromiseError(
                f"{number} is acknowledged to writer {self._index} after claim "
                f"{state.standing[1]} of writer {state.standing[0]} stands"
            )
        state = state._replace(acknowledged=max(state.acknowledged, number))
        label = f"{label}: acknowledged"
        return self._become(label, state, phase="active", number=number + 1, before=own)

    def _deliver(self, number: int, entry: Entry) -> Step:
        state = self._landed(number, entry) if self._is_free(number) else self._state
        return self._become(f"late {entry.kind} {number} arrives", state, late=None)

    # --- roll-up ---

    def _roll_up(self) -> Iterator[Step]:
        last, end = self._writer.number - 1, self._writer.before
        is_unanswered = self._writer.phase == "asked"
        if self._weakening is Weakening.ROLL_UP_BEFORE_ANSWER and is_unanswered:
            last, end = last + 1, ("bytes", self._index)
        blobs = self._state.blobs
        newest = max((blob.last for blob in blobs if blob.last <= last), default=-1)
        assert end is not None
        for first in {0, newest + 1}:
            blob = Blob(first, last, end)
            if first <= last and blob not in blobs and len(blobs) < self._model.blobs:
                state = self._state._replace(blobs=blobs | {blob})
                yield self._become(f"rolls {first} to {last} up", state)

    def _trim(self) -> Iterator[Step]:
        state, weakening = self._state, self._weakening
        is_last_kept = weakening is not Weakening.TRIM_TAKES_LAST
        for number in range(self._writer.number - is_last_kept):
            entry = state.store[number]
            is_covered = any(blob.first <= number <= blob.last for blob in state.blobs)
            if (
                entry
                and (is_covered or weakening is Weakening.TRIM_BEFORE_BLOB)
                and (entry.kind == "bytes" or weakening is Weakening.TRIM_TAKES_CLAIMS)
                and number != self._writer.number - is_last_kept
            ):
                store = _at(state.store, number, None)
                yield self._become(f"trims {number}", state._replace(store=store))
        for blob in state.blobs:
            others = state.blobs - {blob}
            is_covered = any(not other.first and other.last >= blob.last for other in others)
            if is_covered or weakening is Weakening.DELETE_ANY_BLOB:
                text = f"deletes the blob of {blob.first} to {blob.last}"
                yield self._become(text, state._replace(blobs=others))

    # --- helpers ---

    def _is_free(self, number: int) -> bool:
        if self._model.kind == "objects":
            return self._state.store[number] is None
        ever = self._state.ever
        return ever[number] is None and (number == 0 or ever[number - 1] is not None)

    def _is_gone(self, number: int) -> bool:
        """Return whether a stream has passed `number`, so that nothing can be put there again."""
        return self._model.kind == "stream" and self._state.ever[number] is not None

    def _landed(self, number: int, entry: Entry) -> State:
        state = self._state
        ever = _at(state.ever, number, state.ever[number] or entry)
        return state._replace(store=_at(state.store, number, entry), ever=ever)

    def _become(self, label: str, state: State | None = None, **changes: Any) -> Step:
        state = self._state if state is None else state
        writer = self._writer._replace(**changes)
        at = self._index
        writers = (*state.writers[:at], writer, *state.writers[at + 1 :])
        return f"writer {at} {label}", state._replace(writers=writers)


def _reading(state: State, model: Model) -> Iterator[Step]:
    """Yield the step of the reader: it takes the next entry, or starts again from the blobs."""
    at, end = state.reader
    following = state.store[at + 1] if at + 1 < model.numbers else None
    is_next = following is not None and following.follows == end
    if following is not None and (is_next or model.weakening is Weakening.NO_CHAIN):
        own, first = state.ever[at] if at >= 0 else None, state.ever[at + 1]
        if following.kind == "bytes" and own and own.identity != end:
            raise BrokenPromiseError(f"the reader takes bytes after an entry {at} not of the log")
        if following.kind == "bytes" and first and first.identity != following.identity:
            raise BrokenPromiseError(f"the reader takes other bytes at {at + 1} than the log's")
        reader = Reader(at + 1, following.identity)
        yield f"the reader takes {at + 1}", state._replace(reader=reader)
        return
    newest = chain(state.blobs)
    if newest and (newest.last > at or following is not None):
        first = state.ever[newest.last]
        if first is None or first.identity != newest.end:
            raise BrokenPromiseError(f"the blob up to {newest.last} holds what the log does not")
        reader = Reader(newest.last, newest.end)
        yield f"the reader starts again at {newest.last}", state._replace(reader=reader)


def chain(blobs: frozenset[Blob]) -> Blob | None:
    """Return the last of the blobs that, one after the other, hold everything from the start."""
    last: Blob | None = None
    while True:
        at = last.last + 1 if last else 0
        better = [blob for blob in blobs if blob.first <= at <= blob.last]
        if not better:
            return last
        last = max(better, key=lambda blob: blob.last)


def check(state: State) -> None:
    """Raise BrokenPromiseError unless a new reader finds every entry up to the last one, and every
    entry that was acknowledged."""
    newest = chain(state.blobs)
    number = newest.last + 1 if newest else 0
    last = max((n for n, entry in enumerate(state.store) if entry), default=-1)
    for missing in range(number, max(state.acknowledged, last) + 1):
        if state.store[missing] is None:
            raise BrokenPromiseError(f"entry {missing} is in no entry and no blob")


def _at(values: tuple[Entry | None, ...], at: int, value: Entry | None) -> tuple[Entry | None, ...]:
    return (*values[:at], value, *values[at + 1 :])
