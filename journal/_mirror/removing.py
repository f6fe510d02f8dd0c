"""Removing: what a mirror does not keep any more goes, in an order that any crash may interrupt."""

from __future__ import annotations

from collections.abc import Iterator

from journal._mirror.blobs import checkpoint_names, roll_up_names
from journal._mirror.entry import BASE, CLAIM, MirrorDamageError
from journal._mirror.reading import read_entry, true_checkpoints
from journal._mirror.retention import keep
from journal._mirror.store import AbsentError, Store


class Removal:
    """The removals of one writer. One thread uses it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._swept = 0  # up to this number, only entries that stay are left

    def run(self, last: int, now_ms: int, keep_s: float) -> None:
        """Remove what is not kept: checkpoints first, so that each of them has the log after it
        while it is there.

        `last`: the number of the writer's own last entry. Raises what the store raises, and
        MirrorDamageError; then it may be repeated.
        """
        names = self._store.blob_names()
        kept, floor = keep(true_checkpoints(self._store, names), now_ms, keep_s)
        # A base that is not true, and whose number is taken, will never be.
        put = [name for name in checkpoint_names(names) if name.number <= last]
        self._store.delete_blobs([str(name) for name in put if name not in kept])
        rolled_up = [str(name) for name in roll_up_names(names) if name.last <= floor]
        self._store.delete_blobs(rolled_up)
        self._store.trim([number for number in self._numbers(floor) if number < last])
        self._swept = max(self._swept, floor)

    def _numbers(self, floor: int) -> Iterator[int]:
        """Yield the numbers up to `floor` of entries that may be trimmed: not claims, and not the
        entries of bases."""
        if floor <= self._swept:
            return
        for number in self._store.numbers(self._swept):
            if number > floor:
                return
            try:
                kind = read_entry(self._store, number).kind
            except (AbsentError, MirrorDamageError):
                continue
            if kind not in (CLAIM, BASE):
                yield number
