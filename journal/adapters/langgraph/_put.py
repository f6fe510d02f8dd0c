"""A checkpoint that is about to be put: serialized first, then written in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from journal import JournalError, Transaction
from journal.adapters._strings import plain
from journal.adapters.langgraph._parts import owner_of_value, value, write_parts
from journal.adapters.langgraph._reads import Stored
from journal.adapters.langgraph._retention import (
    forget_deadline,
    has_expired,
    kept_rows,
    ordered,
    remove,
    remove_unused,
    subgraph_parent,
    touch,
)
from journal.adapters.langgraph._rows import CheckpointRow, Place, SaverTables, Typed

_COLLISION = "~"  # before the number of a second value with the same version
_FIRST_STEP = -1  # of a run that found no checkpoint, maybe at an id that does not exist


class NeededError(Exception):
    """The transaction needs values that are not serialized yet."""

    def __init__(self, channels: list[str]) -> None:
        super().__init__(channels)
        self.channels = channels


class RemovedError(Exception):
    """The thread or the namespace has to be removed first: it is doomed, or expired by `now`."""

    def __init__(self, prefix: tuple[str, ...], now: float) -> None:
        super().__init__(prefix, now)
        self.prefix = prefix
        self.now = now  # in Unix seconds


class Put:
    """A checkpoint without values, and the serialized values of its new versions."""

    def __init__(
        self,
        place: Place,
        checkpoint: Mapping[str, Any],
        metadata: Mapping[str, Any],
        parent: str | None,
    ) -> None:
        self.place = place
        self.checkpoint_id = str(checkpoint["id"])
        self.parent = parent
        self.versions = {plain(k): str(v) for k, v in checkpoint["channel_versions"].items()}
        self.present = checkpoint["channel_values"].keys()
        run = metadata.get("run_id")
        self.run = plain(run) if isinstance(run, str) else None
        counted = metadata.get("counters_since_delta_snapshot") or {}
        # Without a version, a channel was never written, and has no history.
        self.deltas = [plain(channel) for channel in counted if channel in self.versions]
        self.is_copy = False  # a copy brings its writes, and lacks what the source lacks
        self.is_first = metadata.get("step") == _FIRST_STEP
        self.root = subgraph_parent(place[1], metadata.get("parents"))
        self.values: dict[str, Typed] = {}
        self.without_version: list[str] = []
        self.checkpoint: Typed = ("", b"")
        self.metadata: Typed = ("", b"")
        self.changed: set[str] = set()
        self.doomed: list[tuple[str, ...]] = []

    @classmethod
    def of_copy(cls, place: Place, stored: Stored, root: str | None) -> Put:
        """Return the put of a stored checkpoint at another place. `root`: the root checkpoint under
        which the namespace runs, or None."""
        row = stored.row
        versions = {channel: _version_of(reference) for channel, reference in row.refs.items()}
        rest = {"id": stored.checkpoint_id, "channel_versions": versions, "channel_values": {}}
        put = cls(place, rest, {"run_id": row.run}, row.parent)
        put.deltas, put.root = row.deltas, root
        put.is_copy = True
        put.values = stored.values
        put.checkpoint, put.metadata = (row.kind, row.data), (row.metadata_kind, row.metadata)
        return put

    def write(
        self, t: Transaction, saved: SaverTables, keep: int | None, deadline: tuple[float, float]
    ) -> None:
        """Write it, and remove what the namespace no longer keeps.

        `deadline` is the time in Unix seconds, and the seconds for which the thread lives, or 0.
        Raises NeededError and RemovedError, ConflictError as every transaction does, and
        JournalError if it came after the removal of its writes, or of the parent from which its
        delta channels are rebuilt.
        """
        now, ttl_s = deadline
        check_stays(t, saved, self.place, now, has_ttl=ttl_s > 0)
        heads = t[saved.heads]
        head = heads.get(self.place)  # first of the namespace: see `_rows.py`
        count, ancestors = head[:2] if head else (0, 0)
        parent = None if self.parent is None else saved.row(self.place, self.parent)
        refs = self._references(t, saved, {} if parent is None else parent.refs)
        deltas = [channel for channel in self.deltas if channel not in refs]
        replaced = saved.row(self.place, self.checkpoint_id)
        if not self.is_copy:
            self._check_not_late(saved, deltas if parent is None else [], replaced)
        row = CheckpointRow(self.parent, self.run, refs, deltas, *self.checkpoint, *self.metadata)
        count += replaced is None
        t[saved.checkpoints][(*self.place, self.checkpoint_id)] = list(row)
        if replaced is not None and keep is not None:
            rows = {**saved.rows(self.place, t), self.checkpoint_id: row}
            remove_unused(t, saved, self.place, rows, set(replaced.refs.items()))
        self.doomed = []
        if keep is not None and count > keep + keep // 4 + ancestors:
            rows = {**saved.rows(self.place, t), self.checkpoint_id: row}
            rows = dict(sorted(rows.items()))
            kept = kept_rows(rows, keep, self.checkpoint_id)
            victims = ordered(rows, rows.keys() - kept)
            oldest = next(iter(rows))
            strays_before = "" if oldest in kept else oldest
            self.doomed = remove(t, saved, self.place, rows, victims, strays_before)
            count, ancestors = len(rows), max(len(kept) - keep, 0)
        heads[self.place] = [count, ancestors]
        if head is None and self.root is not None:
            t[saved.children][(self.place[0], self.root, self.place[1])] = None
        if ttl_s:
            touch(t, saved, self.place[0], now, ttl_s)
        elif len(saved.deadlines):  # of an earlier `ttl_s`
            forget_deadline(t, saved, self.place[0], t[saved.deadlines].get(self.place[0]))

    def _check_not_late(
        self, saved: SaverTables, rootless: list[str], replaced: CheckpointRow | None
    ) -> None:
        """Raise JournalError if something that this checkpoint needs was removed. `rootless`: its
        delta channels, if its parent is not there."""
        # A parent that is there has all ancestors that it needs: `remove` keeps that so.
        if rootless and self.parent is not None and not self.is_first:
            names = ", ".join(rootless)
            reason = (
                f"its delta channels {names} are rebuilt from checkpoint {self.parent}, which was"
            )
        elif replaced is None and saved.is_removed_early(self.place, self.checkpoint_id):
            reason = "its tasks stored writes or subgraphs before it was put, and these were"
        else:
            return
        raise JournalError(
            f"checkpoint {self.checkpoint_id} of thread {self.place[0]!r:.80} was not stored: "
            f"{reason} removed; run the thread again from its newest checkpoint, and if several "
            "runs of a thread overlap, open the saver with a larger `keep`, or with None"
        )

    def _references(
        self, t: Transaction, saved: SaverTables, inherited: Mapping[str, str]
    ) -> dict[str, str]:
        """Return the reference to the value of each channel that has one. Write new values.
        `inherited`: the references of the parent."""
        refs: dict[str, str] = {}
        needed: list[str] = []
        for channel, version in self.versions.items():
            if channel in self.values:
                refs[channel] = self._write_value(t, saved, channel, version)
            elif channel in self.changed:
                continue  # its new version has no value
            elif channel in inherited and _version_of(inherited[channel]) == version:
                refs[channel] = inherited[channel]
            elif (*self.place, channel, version) in saved.values:
                refs[channel] = version
            elif channel in self.present:
                needed.append(channel)
        for channel in self.without_version:
            refs[channel] = self._write_value(t, saved, channel, self.checkpoint_id)
        if needed:
            raise NeededError(needed)
        return refs

    def _write_value(self, t: Transaction, saved: SaverTables, channel: str, version: str) -> str:
        """Write the value of a version, unless it is there. Return the reference to it.

        Versions of forks may be equal while their values differ: then the reference gets a number.
        """
        typed = self.values[channel]
        reference, number = version, 0
        while (*self.place, channel, reference) in saved.values:
            if value(saved, self.place, channel, reference) == typed:
                return reference
            number += 1
            reference = f"{version}{_COLLISION}{number}"
        parts = write_parts(t, saved, owner_of_value(self.place, channel, reference), typed[1])
        t[saved.values][(*self.place, channel, reference)] = [typed[0], *parts]
        return reference


def check_stays(
    t: Transaction, saved: SaverTables, place: Place, now: float, *, has_ttl: bool
) -> None:
    """Raise RemovedError if the thread or the namespace is doomed, or has expired by `now`, in Unix
    seconds: its removal would take away what the transaction writes."""
    thread, doomed = place[:1], t[saved.doomed]
    for prefix in (thread, place):
        if prefix in doomed:
            raise RemovedError(prefix, now)
    if has_ttl and has_expired(t[saved.deadlines].get(thread[0]), now):
        raise RemovedError(thread, now)


def _version_of(reference: str) -> str:
    """Return the version of a reference, without the number of a collision."""
    return reference.partition(_COLLISION)[0]
