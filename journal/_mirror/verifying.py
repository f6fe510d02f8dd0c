"""Verifying: a check of every entry and blob of a mirror, and of what its store guarantees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import chain
from secrets import token_hex
from typing import Literal

from journal._mirror.ahead import in_order
from journal._mirror.blobs import (
    CheckpointName,
    RollUpName,
    checkpoint_names,
    read_blob,
    roll_up_names,
)
from journal._mirror.claiming import look
from journal._mirror.entry import MirrorDamageError
from journal._mirror.public_errors import as_public
from journal._mirror.reading import (
    MISSING,
    REQUESTS,
    has_beginning,
    list_names,
    read_entry,
    read_log,
    start_from,
    true_checkpoints,
)
from journal._mirror.store import AbsentError, RefusedError, Store, StoreError, TakenError
from journal._mirror.urls import open_store, shown_url
from journal._public import public

_ATTEMPTS = 5


@public
@dataclass(frozen=True, slots=True)
class MirrorFinding:
    """A problem that `verify_mirror` found in a mirror."""

    kind: Literal["damage", "gap", "stray", "store"]
    """The kind of problem: "damage" for an entry or a blob that is missing or not whole, "gap" for
    records that were never mirrored, "stray" for a blob whose name no mirror uses, and "store" for
    a guarantee that the store does not give."""

    number: int
    """The number of the entry, or of the last one that the blob holds; 0 if there is none."""

    blob: str | None
    """The name of the blob. None for an entry, and for the store itself."""

    lsn: int
    """The first LSN that can't be restored because of it; 0 if none is lost or none is known."""

    message: str
    """The problem in words, for people."""


@public
def verify_mirror(
    url: str, *, probe: bool = True, progress: Callable[[int], object] | None = None
) -> Iterator[MirrorFinding]:
    """Read every entry and every blob of the mirror at `url`, and yield the problems.

    A writer may be live. Whether the records are whole is for `restore` to check. `probe`: also
    check that the store refuses to replace an entry, and that it lists what was just put; this
    needs the right to write. `progress` is called with the number of bytes that were checked since
    its last call.

    Raises FileNotFoundError if there is no mirror at `url`, MirrorError if the store can't be read,
    ValueError for another address, and ImportError if the package that the address needs is
    missing.
    """
    try:
        store = open_store(url, is_reader=True)
        try:
            yield from findings(store, probe=probe, progress=progress or _ignore)
        finally:
            store.close()
    except StoreError as error:
        raise as_public(error, shown_url(url)) from error


def findings(
    store: Store, *, probe: bool, progress: Callable[[int], object] = lambda _: None
) -> Iterator[MirrorFinding]:
    """Yield the problems of a mirror. Raises FileNotFoundError if nothing is there, and what the
    store raises."""
    names = store.blob_names()
    if not names and not store.numbers(0):
        raise FileNotFoundError(f"{store.url}: there is no mirror of a journal here")
    yield from _strays(names)
    found = set[tuple[int, str]]()
    damaged = _damaged_blobs(store, names, progress), _damaged_entries(store, progress), _end(store)
    for error in chain.from_iterable(damaged):
        if (error.number, error.name) not in found:
            found.add((error.number, error.name))
            yield _damage(error)
    for finding in chain(_breaks(store), _holes(store)):
        if (place := (finding.number, finding.blob or "")) not in found:
            found.add(place)
            yield finding
    if probe:
        with suppress(RefusedError):  # the credentials may read and not write
            yield from _probe(store)


def _strays(names: list[str]) -> Iterator[MirrorFinding]:
    known = {str(name) for name in (*roll_up_names(names), *checkpoint_names(names))}
    for name in names:
        if name not in known and not name.startswith(_PROBE):
            problem = f"blob {name}: no mirror uses such a name, so something else wrote it"
            yield MirrorFinding("stray", 0, name, 0, problem)


def _damaged_blobs(
    store: Store, names: list[str], progress: Callable[[int], object]
) -> Iterator[MirrorDamageError]:
    blobs: list[RollUpName | CheckpointName] = [*roll_up_names(names), *checkpoint_names(names)]
    for name in blobs:
        try:
            for part in read_blob(store, name):
                progress(sum(len(piece.data) for piece in part.pieces))
        except MirrorDamageError as error:
            if str(name) in store.blob_names():
                yield error
        except AbsentError:
            continue  # removed meanwhile; if it is needed, the log shows that


def _damaged_entries(
    store: Store, progress: Callable[[int], object]
) -> Iterator[MirrorDamageError]:
    def check(number: int) -> MirrorDamageError | None:
        try:
            entry = read_entry(store, number)
        except MirrorDamageError as error:
            return error
        except AbsentError:
            return None
        progress(sum(len(piece.data) for piece in entry.pieces))
        return None

    checks = ((lambda number=number: check(number)) for number in store.numbers(0))
    with closing(in_order(checks, REQUESTS)) as errors:
        yield from (error for error in errors if error is not None)


def _end(store: Store) -> Iterator[MirrorDamageError]:
    """Look for the last entry and its claim, as an open does: roll-ups may hold their numbers."""
    try:
        look(store)
    except MirrorDamageError as error:
        yield error


def _breaks(store: Store, attempts: int = _ATTEMPTS) -> Iterator[MirrorFinding]:
    """Read the log from its oldest start, and after each break from the next checkpoint. Begin
    again if the writer has removed that start meanwhile."""
    try:
        begin, rest = _oldest_start(store)
    except MirrorDamageError as error:
        yield _damage(error)
        return
    start = begin
    while True:
        number, last_lsn = 0, 0
        try:
            with closing(read_log(store, start=start)) as log:
                for entry in log:
                    is_base = bool(entry.from_lsn) and number > 0 and entry.number > number
                    if is_base and entry.from_lsn > last_lsn + 1 and last_lsn:
                        yield _gap(entry.number, last_lsn, entry.from_lsn)
                    number = entry.number
                    last_lsn = max(last_lsn, entry.last_lsn)
            return
        except MirrorDamageError as error:
            with suppress(MirrorDamageError):
                if attempts > 1 and _oldest_start(store)[0] != begin:
                    yield from _breaks(store, attempts - 1)
                    return
            yield _damage(error)
            rest = [name for name in rest if name.number >= error.number]
            if not rest:
                return
            start = start_from(rest[:1])
            rest.pop(0)


def _holes(store: Store) -> Iterator[MirrorFinding]:
    """Yield the holes in the log: a reader stops at the first one after each checkpoint. Look
    twice, because a writer may remove the oldest start and what follows it meanwhile."""
    for number in sorted(_first_missing(store) & _first_missing(store)):
        yield _damage(MirrorDamageError(number, MISSING))


def _first_missing(store: Store) -> set[int]:
    """Return the first number of each run that is in no entry and in no blob. Numbers before the
    oldest start do not count."""
    names = list_names(store)
    try:
        start = _oldest_start(store)[0]
    except MirrorDamageError:
        return set()  # a reader reports it
    held = [(name.first, name.last) for name in roll_up_names(names.blobs)]
    held += [(number, number) for number in names.numbers]
    first, next_number = set[int](), start[0].number + 1 if start else 1
    for begin, end in sorted(held):
        if begin > next_number:
            first.add(next_number)
        next_number = max(next_number, end + 1)
    return first


def _oldest_start(store: Store) -> tuple[list[CheckpointName], list[CheckpointName]]:
    """Return the oldest blob from which the log can be read, none for its beginning, and the
    checkpoints after it. Raises MirrorDamageError and what the store raises."""
    checkpoints = true_checkpoints(store, store.blob_names())
    is_removed = bool(checkpoints) and not has_beginning(store, checkpoints)
    return checkpoints[:is_removed], checkpoints[is_removed:]


def _gap(number: int, last_lsn: int, from_lsn: int) -> MirrorFinding:
    text = (
        f"entry {number}: the mirror lacks the records from LSN {last_lsn + 1} to {from_lsn - 1}, "
        "which were removed before they were shipped"
    )
    return MirrorFinding("gap", number, None, last_lsn + 1, text)


def _damage(error: MirrorDamageError) -> MirrorFinding:
    return MirrorFinding("damage", error.number, error.name or None, error.lsn, str(error))


_PROBE = "probe-"


def _probe(store: Store) -> Iterator[MirrorFinding]:
    """Check the guarantees of the store without changing the mirror: the same bytes are put again,
    and a blob that no reader reads is put and removed."""
    first = next(iter(store.numbers(0)), None)
    if first is not None:
        data = store.entry(first)
        try:
            store.append(first, data)
        except TakenError:
            pass
        else:
            yield _of_store("it replaced an entry, so it can't tell two writers apart")
    name = f"{_PROBE}{token_hex(8)}"
    store.put_blob(name, [b"probe"])
    if name not in store.blob_names():
        yield _of_store("it does not list a blob that was just put")
    store.delete_blobs([name])
    if name in store.blob_names():
        yield _of_store("it still lists a blob that was just removed")


def _of_store(problem: str) -> MirrorFinding:
    text = f"the store is not fit for a mirror: {problem}; use another one"
    return MirrorFinding("store", 0, None, 0, text)


def _ignore(size_bytes: int) -> None:
    pass
