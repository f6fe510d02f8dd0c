"""Removal and copies of whole threads, and of what they no longer keep."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import islice

from journal import Transaction
from journal.adapters.langgraph._parts import owner_of_write, write_parts
from journal.adapters.langgraph._put import Put, RemovedError
from journal.adapters.langgraph._reads import PendingRow, load
from journal.adapters.langgraph._retention import (
    doom_thread,
    drop,
    expired_threads,
    has_expired,
    has_strays,
    kept_rows,
    ordered,
    remove,
)
from journal.adapters.langgraph._rows import (
    CheckpointRow,
    Place,
    SaverTables,
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

    def commit(self, write: Callable[[Transaction], None]) -> int | None:
        """Commit a put, after the removal of what it finds doomed or expired. Return the LSN."""
        while True:
            try:
                return self._saved.commit(write)
            except RemovedError as error:
                self._finish_removal(error)

    async def acommit(self, write: Callable[[Transaction], None]) -> int | None:
        """Do what `commit` does, in an event loop. A thread finishes the removal."""
        while True:
            try:
                return await self._saved.acommit(write)
            except RemovedError as error:
                await asyncio.to_thread(self._finish_removal, error)

    def keep_latest(self, thread: str) -> None:
        """Remove all but the newest checkpoint of each namespace, and what that one needs."""
        lsn = None
        for place in self._saved.namespaces(thread):
            while (victims := self._not_kept(place)) or has_strays(self._saved, place):
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
        saved, lsn = self._saved, None
        roots = self._roots(source)
        places = saved.namespaces(source)
        roots |= self._roots(source)  # a put may have begun a namespace since the first look
        for place in places:
            for checkpoint_id in saved.rows(place):  # the oldest first
                stored = load(saved, place, checkpoint_id)
                if stored is not None:  # it was not removed meanwhile
                    put = Put.of_copy((target, place[1]), stored, roots.get(place[1]))
                    write = partial(_write_copy, saved, put, stored.writes, (now, ttl_s))
                    lsn = self.commit(write)
        saved.wait(lsn)

    def _roots(self, thread: str) -> dict[str, str]:
        """Return the root checkpoint of each namespace of a thread that runs under one."""
        return {key[2]: key[1] for key, _ in pairs(self._saved.children.prefix((thread,)))}

    def _finish_removal(self, found: RemovedError) -> None:
        if len(found.prefix) > 1:
            drop(self._saved, found.prefix)
        else:
            self._drop(found.prefix[0], found.now)

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
            strays_before = min(rows.keys() - victims, default=max(victims, default=""))
            found = ordered(rows, victims)
            doomed[:] = remove(t, self._saved, place, rows, found, strays_before)
            if rows and head:
                t[self._saved.heads][place] = [len(rows), head[1]]
            else:
                t[self._saved.heads].discard(place)

        lsn = self._saved.commit(write)
        for prefix in doomed:
            lsn = drop(self._saved, prefix)
        return lsn


def _write_copy(
    saved: SaverTables,
    put: Put,
    writes: list[PendingRow],
    deadline: tuple[float, float],
    t: Transaction,
) -> None:
    """Write a checkpoint and its writes in one transaction."""
    put.write(t, saved, None, deadline)
    for path, task, index, channel, (kind, data) in writes:
        owner = owner_of_write(put.place, put.checkpoint_id, task, index)
        parts = write_parts(t, saved, owner, data)
        key = (*put.place, put.checkpoint_id, task, index)
        t[saved.writes][key] = [channel, kind, path, *parts]
