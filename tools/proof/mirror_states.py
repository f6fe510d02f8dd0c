"""The states of a model of the mirror's protocol: the store, its processes, and the truth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, NamedTuple

Kind = Literal["objects", "stream"]


class Weakening(Enum):
    """A clause that can be removed from the protocol. Its value is the weakened behavior."""

    NO_SECOND_LIST = "a claim stands as soon as it is put"
    CONFLICT_IS_OWN = "a taken number is believed to be the writer's own entry"
    TWO_IN_FLIGHT = "a writer sends the next entry before the answer to the last one"
    OTHER_AFTER_SILENCE = "a writer may send another entry after one without an answer"
    TRIM_TAKES_CLAIMS = "claims are trimmed, too"
    TRIM_TAKES_LAST = "a writer trims its own last entry"
    TRIM_BEFORE_BLOB = "entries are trimmed before a blob holds their bytes"
    ROLL_UP_BEFORE_ANSWER = "a blob holds bytes whose append was not answered yet"
    DELETE_ANY_BLOB = "a blob is deleted although no checkpoint covers it"
    ONE_CHECKPOINT_COVERS = "a blob is deleted as soon as one checkpoint covers it"
    BASE_WITHOUT_ENTRY = "a base is believed before its entry is in the log"
    BASE_AFTER_ENTRY = "the entry of a base is appended before its blob is put"
    TRIM_TAKES_BASES = "the entry of a base is trimmed"
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

    kind: Literal["claim", "bytes", "base"]
    writer: int
    follows: tuple[str, int] | None

    @property
    def identity(self) -> tuple[str, int]:
        """The nonce. With its number, it identifies the entry."""
        return self.kind, self.writer


class Blob(NamedTuple):
    """A blob that stands for the entries from `first` to `last`. `end` is the identity of the last
    one. A checkpoint and a base stand for everything from the beginning."""

    kind: Literal["roll-up", "checkpoint", "base"]
    first: int
    last: int
    end: tuple[str, int]


class Writer(NamedTuple):
    """A writer process: its phase, the number it works on, the identity of the one before, and the
    kind of the entry in flight.

    `late` is an entry that it gave up, and that may still be delivered.
    """

    phase: Literal[
        "new", "out", "blobs listed", "entries listed", "claiming", "claim asked", "verifying",
        "active", "asked", "again", "fenced",
    ] = "new"  # fmt: skip
    number: int = -1
    before: tuple[str, int] | None = None
    sent: Literal["bytes", "base"] = "bytes"
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


def initial(model: Model) -> State:
    """Return the state with an empty store."""
    empty = (None,) * model.numbers
    return State(empty, empty, frozenset(), (Writer(),) * model.writers, Reader(), None, -1)


def true_blobs(state: State, model: Model) -> frozenset[Blob]:
    """Return the blobs that a process believes: of the bases, those whose entry is in the log."""
    if model.weakening is Weakening.BASE_WITHOUT_ENTRY:
        return state.blobs
    return frozenset(
        blob
        for blob in state.blobs
        if blob.kind != "base"
        or ((entry := state.store[blob.last]) is not None and entry.identity == blob.end)
    )
