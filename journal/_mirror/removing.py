"""Removing: deletes what a mirror no longer keeps, in an order that any crash may interrupt."""

from __future__ import annotations

from collections.abc import Iterator

from journal._mirror.blobs import checkpoint_names, roll_up_names
from journal._mirror.claiming import Appender
from journal._mirror.entry import BASE, CLAIM, MirrorDamageError
from journal._mirror.reading import read_entry, true_checkpoints
from journal._mirror.retention import keep
from journal._mirror.store import AbsentError, Store


class Removal:
    """The removals of one writer. One thread uses it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        # The numbers of earlier writers' entries that may have to go. None: not known yet. No more
        # are added, so one list is enough, and the writer knows its own.
        self._others: list[int] | None = None

    def run(self, appender: Appender, now_ms: int, keep_s: float) -> None:
        """Remove everything that is not kept. Checkpoints go first, so that each of them has the
        log after it while it is there.

        Raises what the store raises, and MirrorDamageError; then it may be repeated.
        """
        last = appender.last.number
        names = self._store.blob_names()
        kept, floor = keep(true_checkpoints(self._store, names), now_ms, keep_s)
        # A base that is not true, and whose number is taken, will never be.
        put = [name for name in checkpoint_names(names) if name.number <= last]
        self._store.delete_blobs([str(name) for name in put if name not in kept])
        rolled_up = [str(name) for name in roll_up_names(names) if name.last <= floor]
        self._store.delete_blobs(rolled_up)
        if not floor:
            return
        if self._others is None:
            own = appender.claimed.number
            self._others = [number for number in self._store.numbers(0) if number < own]
        covered = [number for number in self._others if number <= floor]
        appender.trim_covered(floor, [*self._trimmable(covered)])
        self._others = self._others[len(covered) :]

    def _trimmable(self, numbers: list[int]) -> Iterator[int]:
        """Yield the numbers that have whole entries which are neither claims nor bases."""
        for number in numbers:
            try:
                kind = read_entry(self._store, number).kind
            except (AbsentError, MirrorDamageError):
                continue
            if kind not in (CLAIM, BASE):
                yield number
