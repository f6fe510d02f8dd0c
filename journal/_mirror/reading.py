"""Reading: the log of a mirror, as a reader on any machine sees it.

A new reader begins at a checkpoint: what comes before is trimmed sooner or later. Each entry states
the nonce of the one before, so a reader notices an entry that does not belong there. There may be
one: once a number is trimmed, a late or a stale request can put an entry there again. Such a stray
is a claim, and a roll-up holds its number. So a reader that meets a missing number or a wrong
predecessor goes on from that roll-up, or else from a checkpoint. Bytes that are applied twice are
the same bytes. Source: tools/proof/mirror_model.py.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from typing import NamedTuple

from journal._mirror.ahead import in_order, streams
from journal._mirror.blobs import (
    CheckpointName,
    RollUpName,
    checkpoint_names,
    read_blob,
    roll_up_names,
)
from journal._mirror.entry import (
    BASE,
    BLOBS,
    CHECKPOINT,
    CLAIM,
    MirrorDamageError,
    MirrorEntry,
    decode,
    segment_name,
)
from journal._mirror.store import AbsentError, Store

REQUESTS = 32  # at a time: a request takes tens of milliseconds, whatever its size
MISSING = "it is missing, and in no blob"


class Place(NamedTuple):
    """A place in a mirror's log: the number of the last entry that was read, and its nonce.

    `sure` is the number of the last entry that is not a claim: only a claim can be a stray.
    """

    number: int = 0
    nonce: bytes = b""
    sure: int = 0

    def after(self, entry: MirrorEntry) -> Place:
        """Return the place after `entry`, which was read next."""
        if entry.more:
            return self
        sure = self.sure if entry.kind == CLAIM else entry.number
        return Place(entry.number, entry.nonce, sure)


BEGINNING = Place()


def has_lost(store: Store, place: Place) -> bool:
    """Return whether a store has lost the last entry that was read, and all later ones. An entry is
    trimmed only if others follow it."""
    if place == BEGINNING:
        return False
    try:
        store.entry(place.number)
    except AbsentError:
        return not store.numbers(place.number)
    return False


def read_entry(store: Store, number: int) -> MirrorEntry:
    """Return an entry. Raises AbsentError, MirrorDamageError and what the store raises."""
    entry = decode(store.entry(number), number)
    if entry.kind in BLOBS and entry.kind != BASE:
        raise MirrorDamageError(number, "it belongs in a blob")
    return entry


def true_checkpoints(store: Store, names: Iterable[str]) -> list[CheckpointName]:
    """Return the checkpoints and the bases among the names of blobs, without bases that never came
    to be part of the log. Raises MirrorDamageError and what the store raises."""
    true: list[CheckpointName] = []
    for name in checkpoint_names(names):
        if name.nonce:
            with suppress(AbsentError):
                if read_entry(store, name.number).nonce.hex() == name.nonce:
                    true.append(name)
        else:
            true.append(name)
    return true


def start_from(checkpoints: Sequence[CheckpointName]) -> list[CheckpointName]:
    """Return the blobs from which a reader begins, if `checkpoints` are those that it may take.

    These are two checkpoints, as every writer keeps two, and the log after the older one. A base
    holds two checkpoints itself.
    """
    newest = checkpoints[-2:]
    return [*newest[-1:]] if newest and newest[-1].nonce else [*newest]


class Names(NamedTuple):
    """The names in a store: the numbers of its entries, and its blobs."""

    numbers: list[int]
    blobs: list[str]

    def show(self, first: int, last: int) -> bool:
        """Return whether each number from `first` to `last` is in an entry or in a roll-up."""
        rolled_up, there, number = roll_up_names(self.blobs), set(self.numbers), first
        while number <= last:
            holding = [name.last for name in rolled_up if name.first <= number <= name.last]
            if not holding and number not in there:
                return False
            number = max(holding, default=number) + 1
        return True


def list_names(store: Store) -> Names:
    """Return the names in a store. Raises what the store raises."""
    numbers = store.numbers(0)  # first: what is trimmed after that is in a blob already
    return Names(numbers, store.blob_names())


def has_beginning(store: Store, checkpoints: Sequence[CheckpointName]) -> bool:
    """Return whether a mirror with these checkpoints still has its log before the first of them."""
    return list_names(store).show(1, checkpoints[0].number)


def read_log(
    store: Store,
    after: Place = BEGINNING,
    *,
    start: Sequence[CheckpointName] | None = None,
    blobs: list[str] | None = None,
    requests: int = REQUESTS,
) -> Generator[MirrorEntry, None, None]:
    """Yield the entries after a place, and parts of blobs, in order, up to the end of the log.

    `start`: the blobs from which to begin; none of them for the first entry. None stands for the
    newest ones, if `after` is the beginning. `blobs`: the names of the blobs, if they are known.
    `requests`: the number of requests at a time.

    A roll-up may begin before the place, and an entry that turns out to be a stray may be yielded,
    but only a claim, which has no bytes. A checkpoint or a base may come instead of entries that
    are trimmed. Raises MirrorDamageError if a number is in no entry and no blob, and what the store
    raises.
    """
    log = _Log(store, after, requests)
    try:
        yield from log.read(start, blobs)
    except MirrorDamageError as error:
        error.lsn = error.lsn or (0 if log.last_lsn is None else log.last_lsn + 1)
        raise


class _Log:
    """A reader in the middle of a mirror's log."""

    def __init__(self, store: Store, after: Place, requests: int) -> None:
        self._store = store
        self._place = after
        self._requests = requests
        # What was missing at the last look, and what there was to go on from.
        self._suspect: tuple[str, list[RollUpName], list[CheckpointName]] | None = None
        self._from_lsn = 0
        self.last_lsn: int | None = None  # None: not known

    def read(
        self, start: Sequence[CheckpointName] | None, blobs: list[str] | None
    ) -> Generator[MirrorEntry, None, None]:
        is_fixed = start is not None
        if start is None and self._place == BEGINNING:
            start = self._newest(self._store.blob_names())
        if not start and self._place == BEGINNING:
            self.last_lsn = 0
        astray = (yield from self._from(start)) if start else None
        if astray is not None and is_fixed:
            raise astray
        while True:
            # The names come first: what is rolled up and trimmed after that is noticed as missing.
            names, blobs = self._store.blob_names() if blobs is None else blobs, None
            chain = roll_up_chain(roll_up_names(names), self._place)
            if astray is None:
                astray = (yield from self._roll_ups(chain)) or (yield from self._entries(names))
            if astray is None:
                return
            # Either that was rolled up or removed meanwhile, or what was read before is a stray.
            names = self._store.blob_names()
            chain_now = roll_up_chain(roll_up_names(names), self._place)
            newest = [] if is_fixed else self._newest(names)
            if self._suspect == (suspect := (str(astray), chain_now, newest)):
                raise astray
            self._suspect, astray = suspect, None
            if chain_now not in ([], chain):
                continue
            if newest and newest[0].number > self._place.number:
                astray = yield from self._from(newest)

    def _newest(self, names: list[str]) -> list[CheckpointName]:
        return start_from(true_checkpoints(self._store, names))

    def _take(self, entry: MirrorEntry) -> MirrorEntry:
        """Note an entry, and return it without bytes before the checkpoint at which the reader
        began: the reader lacks the beginning of their segments."""
        self._place = self._place.after(entry)
        if not entry.more:
            self.last_lsn = max(self.last_lsn or 0, entry.last_lsn)
        pieces = [
            piece
            for piece in entry.pieces
            if piece.is_checkpoint or segment_name(piece.name).first_lsn >= self._from_lsn
        ]
        return entry if len(pieces) == len(entry.pieces) else replace(entry, pieces=pieces)

    def _from(
        self, start: Sequence[CheckpointName]
    ) -> Generator[MirrorEntry, None, MirrorDamageError | None]:
        """Yield the blobs of a start, the first one last: the log goes on after it, and a reader
        that was interrupted before that begins again. Return an error for one that is missing."""
        for name in reversed(start):
            try:
                for entry in read_blob(self._store, name):
                    if name == start[0]:
                        self._from_lsn = entry.from_lsn if entry.kind == CHECKPOINT else 0
                    yield self._take(entry if name == start[0] else replace(entry, more=True))
            except AbsentError:
                return MirrorDamageError(name.number, "it is missing", name=str(name))
        return None

    def _roll_ups(
        self, chain: list[RollUpName]
    ) -> Generator[MirrorEntry, None, MirrorDamageError | None]:
        """Yield roll-ups. Return an error for one that is missing."""
        reads = [lambda name=name: read_blob(self._store, name) for name in chain]
        with closing(streams(reads, self._requests)) as parts:
            try:
                for entry in parts:
                    yield self._take(entry)
            except AbsentError:
                following = [name for name in chain if name.last > self._place.number]
                name = following[0]
                return MirrorDamageError(name.last, "it is missing", name=str(name))
        return None

    def _entries(self, names: list[str]) -> Generator[MirrorEntry, None, MirrorDamageError | None]:
        """Yield entries. Return an error for a number at which there is none, or a stray."""
        after = self._place.number
        last = self._store.last(after)
        fetches = (self._fetch(number) for number in range(after + 1, last + 1))
        with closing(in_order(fetches, self._requests)) as entries:
            for number, fetched in enumerate(entries, after + 1):
                if fetched is None:
                    return MirrorDamageError(number, MISSING)
                if fetched.follows != self._place.nonce:
                    return MirrorDamageError(number, "it does not follow the entry before it")
                if fetched.kind != BASE:
                    yield self._take(fetched)
                    continue
                bases = [n for n in checkpoint_names(names) if n.nonce == fetched.nonce.hex()]
                if not bases:
                    return MirrorDamageError(number, "the blob of this base is missing")
                if astray := (yield from self._from(bases)):
                    return astray
        return None

    def _fetch(self, number: int) -> Callable[[], MirrorEntry | None]:
        def fetch() -> MirrorEntry | None:
            try:
                return read_entry(self._store, number)
            except AbsentError:
                return None

        return fetch


def shown_after(entry: MirrorEntry, before: int) -> int:
    """Return the LSN at which the first segment begins that was read since the last gap in the log,
    after `entry`; 0 if there is none. `before`: the result for the entry before it."""
    for piece in entry.pieces:
        if piece.is_checkpoint:  # the log between what was read and this is removed
            before = 0
        else:
            lsn = segment_name(piece.name).first_lsn
            before = min(before, lsn) if before else lsn
    return before


def roll_up_chain(names: Sequence[RollUpName], place: Place) -> list[RollUpName]:
    """Return the roll-ups from which to go on, one after the other. There are none if the entries
    go on.

    The first one holds the first number after `place.sure` that any roll-up holds. The claims
    before that are not strays, because only a number that was rolled up is ever trimmed.
    """
    chain: list[RollUpName] = []
    numbers: Iterable[int] = range(place.sure + 1, place.number + 2)
    while True:
        holding: list[RollUpName] = []
        for number in numbers:
            holding = [name for name in names if name.first <= number <= name.last]
            if holding:
                break
        if not holding:
            return chain
        chain.append(max(holding))
        numbers = (chain[-1].last + 1,)
