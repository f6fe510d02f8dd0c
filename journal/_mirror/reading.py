"""Reading: the log of a mirror, as a reader on any machine sees it.

Each entry states the nonce of the one before, so a reader notices if it was led astray. That may
happen: once a number is trimmed, a late or a stale request can put an entry there again. Such a
stray is a claim, and a roll-up holds its number. So a reader that meets a missing number or a wrong
predecessor goes on from that roll-up. Bytes that are applied twice are the same bytes.
Source: tools/proof/mirror_model.py.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Generator
from contextlib import closing
from itertools import islice
from typing import NamedTuple

from journal._mirror.entry import CLAIM, ROLL_UP, MirrorDamageError, MirrorEntry, decode
from journal._mirror.store import AbsentError, Store

REQUESTS = 16  # at a time: a request takes tens of milliseconds, whatever its size
_ROLL_UP_NAME = re.compile(r"([0-9]{20})-([0-9]{20})\.roll")


class Place(NamedTuple):
    """A place in a mirror's log: the number of the last entry that was read, and its nonce.

    `sure` is the number of the last entry that is not a claim: only a claim can be a stray.
    """

    number: int = 0
    nonce: bytes = b""
    sure: int = 0

    def after(self, entry: MirrorEntry) -> Place:
        """Return the place after `entry`, which was read next."""
        sure = self.sure if entry.kind == CLAIM else entry.number
        return Place(entry.number, entry.nonce, sure)


class RollUpName(NamedTuple):
    """The name of a roll-up. Names sort by the last number that they hold."""

    last: int
    first: int

    def __str__(self) -> str:
        return f"{self.last:020d}-{self.first:020d}.roll"


def roll_up_names(names: list[str]) -> list[RollUpName]:
    """Return the roll-ups among the names of blobs, in the order of their last numbers."""
    matches = map(_ROLL_UP_NAME.fullmatch, names)
    return sorted(RollUpName(int(match[1]), int(match[2])) for match in matches if match)


def read_entry(store: Store, number: int) -> MirrorEntry:
    """Return an entry. Raises AbsentError, MirrorDamageError and what the store raises."""
    entry = decode(store.entry(number), number)
    if entry.kind == ROLL_UP:
        raise MirrorDamageError(number, "it is a roll-up, which belongs in a blob")
    return entry


def read_roll_up(store: Store, name: RollUpName) -> MirrorEntry:
    """Return a roll-up. Raises AbsentError, MirrorDamageError and what the store raises."""
    entry = decode(b"".join(store.blob(str(name))), name.last)
    if entry.kind != ROLL_UP or entry.first != name.first:
        raise MirrorDamageError(name.last, f"blob {name} holds something else")
    return entry


BEGINNING = Place()


def read_log(
    store: Store, after: Place = BEGINNING, *, requests: int = REQUESTS
) -> Generator[MirrorEntry, None, None]:
    """Yield the roll-ups and entries after a place, in order, up to the end of the log.

    `requests`: the number of entries that are requested at a time.

    A roll-up may begin before the place, and an entry that turns out to be a stray may be yielded,
    but only a claim, which has no bytes. Raises MirrorDamageError if a number is in no entry and no
    roll-up, and what the store raises.
    """
    place = after
    while True:
        # The names come first: what is rolled up and trimmed after that is noticed as missing.
        name = _next_roll_up(store, place)
        if name is not None:
            try:
                entry = read_roll_up(store, name)
            except AbsentError as error:
                if _next_roll_up(store, place) == name:
                    raise MirrorDamageError(name.last, f"blob {name} is missing") from error
                continue
            yield entry
            place = place.after(entry)
            continue
        astray: MirrorDamageError | None = None
        last = max(store.numbers(place.number), default=0)
        with closing(_fetch(store, range(place.number + 1, last + 1), requests)) as entries:
            for number, fetched in entries:
                if fetched is None:
                    astray = MirrorDamageError(number, "it is missing")
                elif fetched.follows != place.nonce:
                    astray = MirrorDamageError(number, "it does not follow the entry before it")
                if astray is not None or fetched is None:
                    break
                yield fetched
                place = place.after(fetched)
        if astray is None:
            return
        # Either that number was rolled up meanwhile, or what was read before it is a stray.
        if _next_roll_up(store, place) is None:
            raise astray


def _next_roll_up(store: Store, place: Place) -> RollUpName | None:
    """Return the roll-up from which to go on, or None if the entries go on.

    It holds the first number after `place.sure` that any roll-up holds. The claims before that are
    no strays, because only a number that was rolled up is ever trimmed.
    """
    names = roll_up_names(store.blob_names())
    for number in range(place.sure + 1, place.number + 2):
        holding = [name for name in names if name.first <= number <= name.last]
        if holding:
            return holding[-1]
    return None


def _fetch(
    store: Store, numbers: range, requests: int
) -> Generator[tuple[int, MirrorEntry | None], None, None]:
    """Yield entries in order, or None for one that is absent. Request several at a time."""

    def fetch(number: int) -> MirrorEntry | None:
        try:
            return read_entry(store, number)
        except AbsentError:
            return None

    if min(len(numbers), requests) < 2:
        yield from ((number, fetch(number)) for number in numbers)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(requests, "journal-mirror-reader") as pool:
        ahead = iter(numbers)
        waiting = deque(pool.submit(fetch, number) for number in islice(ahead, requests))
        try:
            for number in numbers:
                fetched = waiting.popleft().result()
                waiting.extend(pool.submit(fetch, following) for following in islice(ahead, 1))
                yield number, fetched
        finally:
            for future in waiting:
                future.cancel()
