"""A model of the protocol between a journal's mirror and its store, which `proof.mirror` searches.

The store is a list of numbered entries, where the first writer of a number owns it, and blobs. It
models:

- Writers that list, claim, list again, append, and pause forever or go on. A writer has one append
  in flight. Each answer may be lost, and each request may be delivered long after its sender gave
  it up.
- Roll-ups, including those of a writer that was fenced long ago: a blob holds the bytes of a run of
  entries. Then the entries are trimmed, one by one.
- Checkpoints: a blob stands for everything up to an entry. What two of them cover is deleted, and
  so is an older checkpoint. One checkpoint may turn out to be damaged.
- Bases: a writer that can't append the next bytes, because they are gone, puts a checkpoint of what
  follows them, and then an entry that makes it true.
- A reader that follows: it gets the next number, and starts again from the newest blob.
- Two kinds of store. In "objects" a trimmed number is free again. In a "stream" it never is.

It assumes that a list shows every entry that was put before the list began. It does not model
bytes, lost or damaged entries, two claims of one writer process, and anything local.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from proof.mirror_states import (
    Blob,
    Entry,
    Model,
    Reader,
    State,
    Step,
    Weakening,
    true_blobs,
)
from proof.search import BrokenPromiseError


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
            rolled_up = (blob.last for blob in self._state.blobs if blob.kind != "base")
            newest = max(rolled_up, default=-1)
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
            yield from self._put_base()
        elif writer.phase == "again":
            yield from self._put(Entry(writer.sent, self._index, writer.before))
        elif writer.phase == "asked":
            yield from self._ask_append()
        if writer.late:
            yield self._deliver(*writer.late)
        if writer.phase in ("active", "asked", "again", "fenced"):
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
        asked: dict[str, Any] = {"phase": "claim asked" if is_claim else "asked"}
        if entry.kind != "claim":
            asked["sent"] = entry.kind
        yield self._become(
            f"puts {entry.kind} {number}, which is delayed", late=(number, entry), **asked
        )
        if self._weakening is Weakening.TWO_IN_FLIGHT and not is_claim:
            yield from self._put_two(entry)
        if not self._is_free(number):
            yield self._become(f"is refused at {number}", **asked)
            return
        state = self._landed(number, entry)
        yield self._become(f"puts {entry.kind} {number}, the answer is lost", state, **asked)
        label = f"puts {entry.kind} {number}"
        if entry.kind != "claim":
            yield self._acknowledge(label, state, entry.kind)
        elif self._weakening is Weakening.NO_SECOND_LIST:
            yield self._stand(label, state)
        else:
            yield self._become(label, state, phase="verifying")

    def _put_base(self) -> Iterator[Step]:
        """Put the blob of a base, or else the entry that makes it true."""
        number, state = self._writer.number, self._state
        blob = Blob("base", 0, number, ("base", self._index))
        is_put = blob in state.blobs
        if is_put or self._weakening is Weakening.BASE_AFTER_ENTRY:
            yield from self._put(Entry("base", self._index, self._writer.before))
        elif len(state.blobs) < self._model.blobs:
            state = state._replace(blobs=state.blobs | {blob})
            yield self._become(f"puts a base up to {number}", state)

    def _put_two(self, entry: Entry) -> Iterator[Step]:
        number = self._writer.number
        if number + 1 < self._model.numbers and self._state.store[number + 1] is None:
            state = self._landed(number + 1, entry._replace(follows=entry.identity))
            label = f"puts {number}, which is delayed, and {number + 1}"
            yield self._become(label, state, phase="asked", late=(number, entry))

    def _ask_append(self) -> Iterator[Step]:
        number, sent = self._writer.number, self._writer.sent
        entry = self._state.store[number]
        is_own = entry is not None and entry.identity == (sent, self._index)
        if is_own or (entry and self._weakening is Weakening.CONFLICT_IS_OWN):
            yield self._acknowledge(f"finds its entry at {number}", self._state, sent)
        elif entry is None and not self._is_gone(number):
            changes = self._weakening is Weakening.OTHER_AFTER_SILENCE
            yield self._become(f"finds {number} free", phase="active" if changes else "again")
        else:
            yield self._become(f"is fenced at {number}", phase="fenced")

    def _acknowledge(self, label: str, state: State, kind: Literal["bytes", "base"]) -> Step:
        number, own = self._writer.number, (kind, self._index)
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
        changes = {"phase": "active", "number": number + 1, "before": own, "sent": "bytes"}
        return self._become(label, state, **changes)

    def _deliver(self, number: int, entry: Entry) -> Step:
        state = self._landed(number, entry) if self._is_free(number) else self._state
        return self._become(f"late {entry.kind} {number} arrives", state, late=None)

    # --- roll-up ---

    def _roll_up(self) -> Iterator[Step]:
        """Put a roll-up or a checkpoint of what is acknowledged."""
        last, end = self._writer.number - 1, self._writer.before
        is_unanswered = self._writer.phase == "asked"
        if self._weakening is Weakening.ROLL_UP_BEFORE_ANSWER and is_unanswered:
            last, end = last + 1, (self._writer.sent, self._index)
        blobs = self._state.blobs
        assert end is not None
        if len(blobs) == self._model.blobs:
            return
        newest = max((b.last for b in blobs if b.kind == "roll-up" and b.last <= last), default=-1)
        runs: set[Blob] = {Blob("roll-up", first, last, end) for first in (0, newest + 1)}
        for blob in runs | {Blob("checkpoint", 0, last, end)}:
            if blob.first <= last and blob not in blobs:
                state = self._state._replace(blobs=blobs | {blob})
                yield self._become(f"puts a {blob.kind} of {blob.first} to {last}", state)

    def _trim(self) -> Iterator[Step]:
        state, weakening = self._state, self._weakening
        is_last_kept = weakening is not Weakening.TRIM_TAKES_LAST
        kinds = {
            "bytes": True,
            "claim": weakening is Weakening.TRIM_TAKES_CLAIMS,
            "base": weakening is Weakening.TRIM_TAKES_BASES,
        }
        for number in range(self._writer.number - is_last_kept):
            entry = state.store[number]
            is_covered = self._is_covered(number) or any(
                blob.kind == "roll-up" and blob.first <= number <= blob.last for blob in state.blobs
            )
            if (
                entry
                and (is_covered or weakening is Weakening.TRIM_BEFORE_BLOB)
                and kinds[entry.kind]
            ):
                store = _at(state.store, number, None)
                yield self._become(f"trims {number}", state._replace(store=store))
        for blob in state.blobs:
            if self._is_covered(blob.last, blob) or weakening is Weakening.DELETE_ANY_BLOB:
                text = f"deletes the {blob.kind} of {blob.first} to {blob.last}"
                yield self._become(text, state._replace(blobs=state.blobs - {blob}))

    def _is_covered(self, number: int, but: Blob | None = None) -> bool:
        """Return whether two checkpoints, not counting `but`, cover entry `number`."""
        needed = 1 if self._weakening is Weakening.ONE_CHECKPOINT_COVERS else 2
        true = true_blobs(self._state, self._model)
        covering = [b for b in true if b.kind != "roll-up" and b.last >= number and b != but]
        return len({blob.last for blob in covering}) >= needed

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
    newest = chain(true_blobs(state, model))
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


def check(state: State, model: Model) -> None:
    """Raise BrokenPromiseError unless a new reader finds every entry up to the last one, and every
    entry that was acknowledged, even if one of the checkpoints is damaged."""
    blobs = true_blobs(state, model)
    for blob in blobs:
        first = state.ever[blob.last]
        if first is None or first.identity != blob.end:
            raise BrokenPromiseError(f"the blob up to {blob.last} holds what the log does not")
    checkpoints = [blob for blob in blobs if blob.kind == "checkpoint"]
    last = max((n for n, entry in enumerate(state.store) if entry), default=-1)
    for damaged in (None, *checkpoints):
        newest = chain(blobs - {damaged} if damaged else blobs)
        number = newest.last + 1 if newest else 0
        for missing in range(number, max(state.acknowledged, last) + 1):
            entry = state.store[missing]
            if entry is None:
                raise BrokenPromiseError(f"entry {missing} is in no entry and no blob")
            if entry.kind == "base":
                raise BrokenPromiseError(f"the blob of base {missing} is gone")


def _at(values: tuple[Entry | None, ...], at: int, value: Entry | None) -> tuple[Entry | None, ...]:
    return (*values[:at], value, *values[at + 1 :])
