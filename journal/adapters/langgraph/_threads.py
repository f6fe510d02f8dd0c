"""Removal and copies of whole threads, and of what they no longer keep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from journal import Transaction
from journal.adapters.langgraph._retention import (
    doom_thread,
    drop,
    expired_threads,
    has_expired,
    kept_rows,
    ordered,
    remove,
    touch,
)
from journal.adapters.langgraph._rows import (
    KEYS_A_SLICE,
    CheckpointRow,
    Place,
    SaverTables,
    delete_existing,
    pairs,
)


class Threads:
    """The threads of a saver."""

    def __init__(self, saved: SaverTables) -> None:
        self._saved = saved

    def delete(self, thread: str) -> None:
        """Remove a thread, and wait until that survives a crash."""
        self._saved.wait(self._drop(thread))

    def is_expired(self, thread: str, now: float) -> bool:
        """Return whether a thread has expired by `now`, in Unix seconds."""
        return has_expired(self._saved.deadlines.get(thread), now)

    def remove_expired(self, now: float, threads_max: int | None = None) -> int:
        """Remove threads that have expired, and return their number. Nothing waits."""
        expired = list(islice(expired_threads(self._saved, now), threads_max))
        for thread in expired:
            self._drop(thread, now)
        return len(expired)

    def finish_removal(self, prefix: tuple[str, ...], now: float) -> None:
        """Remove what a put has found doomed, or expired by `now`, in Unix seconds."""
        if len(prefix) > 1:
            drop(self._saved, prefix)
        else:
            self._drop(prefix[0], now)

    def keep_latest(self, thread: str) -> None:
        """Remove all but the newest checkpoint of each namespace, and what that one needs."""
        lsn = None
        for place in self._saved.namespaces(thread):
            while victims := self._not_kept(place):
                lsn = self._remove(place, victims)
        self._saved.wait(lsn)

    def delete_for_runs(self, runs: set[str]) -> None:
        """Remove the checkpoints of runs, and wait until that survives a crash."""
        victims: dict[Place, set[str]] = defaultdict(set)
        rows = pairs(self._saved.checkpoints.items())
        for (thread, namespace, checkpoint_id), row in rows:
            if CheckpointRow(*row).run in runs:
                victims[thread, namespace].add(checkpoint_id)
        lsn = None
        for place, ids in victims.items():
            while ids & self._saved.rows(place).keys():
                lsn = self._remove(place, ids)
        self._saved.wait(lsn)

    def copy(self, source: str, target: str, now: float, ttl_s: float) -> None:
        """Copy a thread, and wait until the copy survives a crash. The copy lives for `ttl_s`
        seconds from `now` on, or forever if that is 0."""
        if source == target or (ttl_s and self.is_expired(source, now)):
            return
        saved = self._saved
        if ttl_s and self.is_expired(target, now):
            self._drop(target, now)
        for prefix, _ in pairs(saved.doomed.prefix((target,))):
            drop(saved, prefix)  # first: it would take away parts of the copy
        while True:
            heads = list(saved.heads.prefix((source,)))
            tables = (saved.parts, saved.values, saved.writes, saved.children, saved.checkpoints)
            rows = [(table, list(table.prefix((source,)))) for table in tables]
            if list(saved.heads.prefix((source,))) == heads:
                break  # nothing was put or removed meanwhile
        lsn = None
        for table, some in rows:
            for part in _slices(some):
                lsn = saved.commit(partial(_copy_rows, table, part, target))
        # Each head counts all checkpoints that the target has now.
        for (_, namespace), (_, ancestors) in pairs(iter(heads)):
            place = (target, namespace)
            lsn = saved.commit(partial(self._write_head, place, ancestors, now, ttl_s))
        saved.wait(lsn)

    def _write_head(
        self, place: Place, ancestors: int, now: float, ttl_s: float, t: Transaction
    ) -> None:
        heads = t[self._saved.heads]
        heads.get(place)  # first: see `_rows.py`
        heads[place] = [len(self._saved.rows(place, t)), ancestors]
        if ttl_s:
            touch(t, self._saved, place[0], now, ttl_s)

    def _drop(self, thread: str, now: float | None = None) -> int | None:
        """Remove a thread, or the rest of a doomed one. If `now` is given, spare any other thread
        that has not expired by then."""
        self._saved.commit(lambda t: doom_thread(t, self._saved, thread, now))
        return drop(self._saved, (thread,))

    def _not_kept(self, place: Place) -> set[str]:
        rows = self._saved.rows(place)
        return rows.keys() - kept_rows(rows, 1)

    def _remove(self, place: Place, victims: set[str]) -> int | None:
        """Remove some of the victims in a transaction, and the subgraphs that ran under them."""
        doomed: list[tuple[str, ...]] = []

        def write(t: Transaction) -> None:
            head = t[self._saved.heads].get(place)
            rows = self._saved.rows(place, t)
            doomed[:] = remove(t, self._saved, place, rows, ordered(rows, victims))
            if rows and head:
                t[self._saved.heads][place] = [len(rows), head[1]]
            else:
                delete_existing(t, self._saved.heads, place)

        lsn = self._saved.commit(write)
        for prefix in doomed:
            lsn = drop(self._saved, prefix)
        return lsn


def _copy_rows(table: Any, rows: list[tuple[Any, Any]], target: str, t: Transaction) -> None:
    for key, value in rows:
        t[table][(target, *key[1:])] = value


def _slices(rows: list[Any]) -> Iterator[list[Any]]:
    waiting = iter(rows)
    while part := list(islice(waiting, KEYS_A_SLICE)):
        yield part
