"""Reads of checkpoints, outside of transactions. What is removed meanwhile is read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple, DeltaChannelHistory
from langgraph.checkpoint.serde.base import SerializerProtocol

from journal import JournalError
from journal.adapters.langgraph._parts import joined, owner_of_write, value
from journal.adapters.langgraph._rows import (
    CheckpointRow,
    Place,
    SaverTables,
    Typed,
    checkpoint_of,
    pairs,
    place_of,
    vanished,
)

_ATTEMPTS = 100  # of a read, each after a removal that struck in the middle of it


class PendingRow(NamedTuple):
    """A write that is stored with a checkpoint."""

    path: str
    task: str
    number: int
    channel: str
    typed: Typed


class Stored(NamedTuple):
    """A checkpoint with its values and writes, all serialized."""

    checkpoint_id: str
    row: CheckpointRow
    values: dict[str, Typed]
    writes: list[PendingRow]

    @property
    def size(self) -> int:
        """The number of serialized bytes."""
        return (
            len(self.row.data)
            + sum(len(data) for _, data in self.values.values())
            + sum(len(write.typed[1]) for write in self.writes)
        )


def config_of(thread: Any, namespace: str, checkpoint_id: str) -> RunnableConfig:
    return {
        "configurable": {
            "thread_id": thread,
            "checkpoint_ns": namespace,
            "checkpoint_id": checkpoint_id,
        }
    }


def load(saved: SaverTables, place: Place, checkpoint_id: str | None) -> Stored | None:
    """Return a checkpoint, the newest without an id, or None."""
    missing = ""
    for _ in range(_ATTEMPTS):
        found = checkpoint_id or saved.newest(place)
        row = None if found is None else saved.row(place, found)
        if found is None or (row is None and checkpoint_id):
            return None
        if row is None:
            continue
        values: dict[str, Any] = {
            channel: value(saved, place, channel, ref) for channel, ref in row.refs.items()
        }
        writes = pending(saved, place, found)
        is_there = (*place, found) in saved.checkpoints
        if is_there and writes is not None and None not in values.values():
            return Stored(found, row, values, writes)
        missing = found
    raise vanished(place, missing)


def pending(saved: SaverTables, place: Place, checkpoint_id: str) -> list[PendingRow] | None:
    """Return the writes of a checkpoint in the order in which a superstep applies them.

    Return None if a large one was replaced or removed meanwhile.
    """
    found = []
    rows = pairs(saved.writes.prefix((*place, checkpoint_id)))
    for key, row in rows:
        (channel, kind, path, *parts), (task, index) = row, key[-2:]
        data = joined(saved, owner_of_write(place, checkpoint_id, task, index), *parts)
        if data is None or (len(parts) > 1 and saved.writes.get(key) != row):
            return None
        found.append(PendingRow(path, task, index, channel, (kind, data)))
    return sorted(found)


def as_tuple(serde: SerializerProtocol, config: RunnableConfig, stored: Stored) -> CheckpointTuple:
    """Deserialize a checkpoint that `config` names."""
    row, configurable = stored.row, config["configurable"]
    values = {channel: serde.loads_typed(tuple(typed)) for channel, typed in stored.values.items()}
    parent = None
    if row.parent:
        namespace = configurable.get("checkpoint_ns") or ""
        parent = config_of(configurable["thread_id"], namespace, row.parent)
    return CheckpointTuple(
        config=config,
        checkpoint={**serde.loads_typed((row.kind, row.data)), "channel_values": values},
        metadata=serde.loads_typed((row.metadata_kind, row.metadata)),
        parent_config=parent,
        pending_writes=[(w.task, w.channel, serde.loads_typed(w.typed)) for w in stored.writes],
    )


def find(
    saved: SaverTables,
    serde: SerializerProtocol,
    config: RunnableConfig | None,
    filter: Mapping[str, Any] | None,
    before: RunnableConfig | None,
    is_expired: Callable[[str], bool],
) -> Iterator[CheckpointTuple]:
    """Yield the checkpoints that match and whose thread has not expired, the newest first."""
    configurable = config["configurable"] if config else {}
    wanted = configurable.get("checkpoint_id")
    bound = before["configurable"].get("checkpoint_id") if before else None
    for (thread, namespace, checkpoint_id), row in _newest_first(saved, configurable):
        if (wanted and checkpoint_id != wanted) or (bound and checkpoint_id >= bound):
            continue
        if filter:
            metadata = serde.loads_typed((row.metadata_kind, row.metadata))
            if any(metadata.get(name) != value for name, value in filter.items()):
                continue
        stored = None if is_expired(thread) else load(saved, (thread, namespace), checkpoint_id)
        if stored is not None:
            shown = configurable.get("thread_id", thread)
            yield as_tuple(serde, config_of(shown, namespace, checkpoint_id), stored)


def _newest_first(
    saved: SaverTables, configurable: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, str, str], CheckpointRow]]:
    """Yield the rows of a namespace, of a thread, or of all threads, the newest first."""
    rows: Any
    if "thread_id" not in configurable:
        rows = saved.checkpoints.items()
    elif configurable.get("checkpoint_ns") is None:
        rows = saved.checkpoints.prefix((str(configurable["thread_id"]),))
    else:
        place = place_of({"configurable": configurable})
        rows = saved.checkpoints.prefix(place, reverse=True)
        yield from ((key, CheckpointRow(*row)) for key, row in rows)
        return
    keys = [(key[2], key) for key, _ in rows]
    for _, key in sorted(keys, reverse=True):
        row = saved.row(key[:2], key[2])
        if row is not None:
            yield key, row


def delta_history(
    saved: SaverTables,
    serde: SerializerProtocol,
    config: RunnableConfig,
    channels: Sequence[str],
    is_expired: Callable[[str], bool],
) -> dict[str, DeltaChannelHistory]:
    """Return the writes of each channel since the nearest ancestor that has its value, and that
    value, for the checkpoint that `config` names.

    Raises JournalError if the checkpoint was removed. LangGraph read it in an earlier call, and its
    channels would be empty without their history.
    """
    place, wanted = place_of(config), checkpoint_of(config)
    ancestors: list[Stored] | None = None
    for _ in range(1 if wanted else _ATTEMPTS):
        found = wanted or saved.newest(place)
        if is_expired(place[0]) or found is None:
            ancestors = None if wanted else []
            break
        ancestors = _ancestors(saved, place, found, channels)
        if ancestors is not None:
            break
    if ancestors is None:
        raise JournalError(
            f"the delta channels of a checkpoint of thread {place[0]!r:.80} can't be read: it was "
            "removed or has expired; read the thread again"
        )
    writes: dict[str, list[tuple[str, str, Any]]] = {channel: [] for channel in channels}
    result: dict[str, DeltaChannelHistory] = {channel: {"writes": []} for channel in channels}
    remaining = set(channels)
    for stored in ancestors:
        for write in reversed(stored.writes):
            if write.channel in remaining:
                loaded = serde.loads_typed(write.typed)
                writes[write.channel].append((write.task, write.channel, loaded))
        for channel in remaining & stored.values.keys():
            result[channel]["seed"] = serde.loads_typed(tuple(stored.values[channel]))
        remaining -= stored.values.keys()
    for channel in channels:
        result[channel]["writes"] = writes[channel][::-1]
    return result


def _ancestors(
    saved: SaverTables, place: Place, checkpoint_id: str, channels: Sequence[str]
) -> list[Stored] | None:
    """Return the ancestors of a checkpoint, the nearest first, back to those that have the values
    of all channels. Return None if the checkpoint was removed before they were read."""
    found: list[Stored] = []
    remaining, row = set(channels), saved.row(place, checkpoint_id)
    while remaining and row is not None and row.parent is not None:
        stored = load(saved, place, row.parent)
        if stored is None:
            break
        found.append(stored)
        row = stored.row
        remaining -= row.refs.keys()
    if not remaining or (row is not None and row.parent is None):
        return found
    # A checkpoint goes before its ancestors, except in the removal of a whole namespace. If it is
    # still there, the ancestors were gone when it was put, or `delete_for_runs` removed them.
    is_doomed = place in saved.doomed or place[:1] in saved.doomed
    return None if is_doomed or saved.row(place, checkpoint_id) is None else found
