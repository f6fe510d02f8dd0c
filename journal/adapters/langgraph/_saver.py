"""JournalSaver: LangGraph's checkpoints in a journal."""

from __future__ import annotations

import asyncio
import builtins
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Literal, Self

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_metadata,
)
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from journal import Mirror, Options, StrPath, Tables, Transaction
from journal.adapters._size import LARGE_BYTES, is_large
from journal.adapters._strings import plain
from journal.adapters._turns import pause
from journal.adapters.langgraph._opening import SaverOpening
from journal.adapters.langgraph._parts import owner_of_write, write_parts
from journal.adapters.langgraph._put import NeededError, Put, check_stays
from journal.adapters.langgraph._reads import as_tuple, config_of, delta_history, find, load
from journal.adapters.langgraph._retention import check_retention, drop, drop_all_doomed, touch
from journal.adapters.langgraph._rows import SaverTables, Typed, checkpoint_of, place_of, typed_of
from journal.adapters.langgraph._threads import Threads

KEEP = 10


class JournalSaver(BaseCheckpointSaver[str]):
    """A checkpoint saver for LangGraph whose checkpoints survive a crash.

        with JournalSaver.open("agents.d") as saver:
            graph = builder.compile(checkpointer=saver)

    It keeps the state in memory, and each put and each write is durable when the call returns. One
    process at a time has the journal open. All methods work in threads, and those that begin with
    `a` in an event loop. Thread-safe.
    """

    tables: Tables
    """The tables in which the checkpoints are. Other tables of yours may be beside them."""

    def __init__(
        self,
        tables: Tables,
        *,
        keep: int | None = KEEP,
        ttl_s: float | None = None,
        wait_loop_puts: bool = True,
        serde: SerializerProtocol | None = None,
    ) -> None:
        """Keep checkpoints in open tables, beside other rows. `open` explains the arguments.

        Finishes the removals that a crash interrupted.
        """
        check_retention(keep, ttl_s)
        super().__init__(serde=serde or JsonPlusSerializer(allowed_msgpack_modules=None))
        self.tables = tables
        self._keep = keep
        self._ttl_s = ttl_s or 0.0
        self._wait_loop_puts = wait_loop_puts
        self._saved = SaverTables(tables)
        self._threads = Threads(self._saved)
        drop_all_doomed(self._saved)

    @classmethod
    def open(
        cls,
        path: StrPath,
        *,
        keep: int | None = KEEP,
        ttl_s: float | None = None,
        wait_loop_puts: bool = True,
        serde: SerializerProtocol | None = None,
        options: Options = Options(),
        lock_timeout_s: float | None = 0.0,
        mirror: str | Mirror | Literal[False] | None = None,
        takeover: bool = False,
    ) -> SaverOpening[Self]:
        """Open the journal at `path`, in `with` or in `async with`.

        `keep`: the number of newest checkpoints that each thread and namespace keeps; None: all. Up
        to a quarter more stay until they are removed, and so do the ancestors that a delta channel
        needs. `ttl_s`: the time, in seconds, after its last checkpoint at which a thread expires;
        None: never. `wait_loop_puts=False`: `put` does not wait for a checkpoint of a loop, which
        follows from the writes before it. `serde`: the serializer; None: LangGraph's, which
        rebuilds only types of its own list (see `with_allowlist`). The others are those of
        `Tables.open`.

        Raises ValueError at once, and when entered what `Tables.open` raises.
        """
        check_retention(keep, ttl_s)
        make = partial(cls, keep=keep, ttl_s=ttl_s, wait_loop_puts=wait_loop_puts, serde=serde)
        return SaverOpening(
            make,
            path,
            options=options,
            lock_timeout_s=lock_timeout_s,
            mirror=mirror,
            takeover=takeover,
        )

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Return the checkpoint that `config` names, or the newest of its thread, or None."""
        read = self._read(config)
        return None if read is None else read()

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do what `get_tuple` does. Deserialize a large checkpoint in a thread."""
        await pause()
        read = self._read(config)
        if read is None:
            return None
        stored = read.args[-1]
        found = await _in_thread_if(stored.size > LARGE_BYTES, read)
        await pause()
        return found

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Yield the checkpoints that match, the newest first.

        `config` names a thread, and maybe a namespace and a checkpoint. `filter` has values of the
        metadata. Only checkpoints older than that of `before` match.
        """
        found = find(self._saved, self.serde, config, filter, before, self._is_expired)
        return found if limit is None else islice(found, max(limit, 0))

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Yield the checkpoints that `list` yields. Each is read in a thread."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while (item := await asyncio.to_thread(next, found, None)) is not None:
            yield item

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint, and wait until it survives a crash. Return the config that names it.

        A value whose version has been stored is not written again. With `wait_loop_puts=False`, a
        checkpoint of a loop is not waited for. Raises what `Tables.transaction` and `sync` raise.
        """
        merged = get_checkpoint_metadata(config, metadata)
        put = _new_put(config, checkpoint, merged)
        self._serialize(put, checkpoint, merged, new_versions)
        write = self._writer(put)
        while True:
            try:
                lsn = self._threads.commit(write)
                break
            except NeededError as error:
                self._serialize_values(put, checkpoint, error.channels)
        self._tidy(put)
        if self._waits_for(metadata):
            self._saved.wait(lsn)
        return config_of(config["configurable"]["thread_id"], put.place[1], put.checkpoint_id)

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do what `put` does. Large values are serialized in a thread."""
        await pause()
        merged = get_checkpoint_metadata(config, metadata)
        put = _new_put(config, checkpoint, merged)
        values = checkpoint["channel_values"]
        changed = [values[channel] for channel in new_versions if channel in values]
        serialize = partial(self._serialize, put, checkpoint, merged, new_versions)
        await _in_thread_if(is_large(changed), serialize)
        write = self._writer(put)
        while True:
            try:
                lsn = await self._threads.acommit(write)
                break
            except NeededError as error:
                more = partial(self._serialize_values, put, checkpoint, error.channels)
                needed = [values[channel] for channel in error.channels]
                await _in_thread_if(is_large(needed), more)
        if put.doomed or self._ttl_s:
            tidied = asyncio.get_running_loop().run_in_executor(None, self._tidy, put)
            await asyncio.shield(tidied)  # a cancellation would leave it to the next open
        if self._waits_for(metadata):
            await self._saved.durable(lsn)
        return config_of(config["configurable"]["thread_id"], put.place[1], put.checkpoint_id)

    def put_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Store the writes of a task with a checkpoint, and wait until they survive a crash.

        A write of the same task that is stored already stays, unless it is an error, an interrupt
        or a resume. Raises what `Tables.transaction` and `sync` raise.
        """
        typed = self._serialize_writes(writes)
        names = (plain(task_id), plain(task_path))
        write = partial(self._write_writes, config, typed, *names)
        self._saved.wait(self._threads.commit(write))

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Do what `put_writes` does. Large values are serialized in a thread."""
        await pause()
        large = is_large([value for _, value in writes])
        typed = await _in_thread_if(large, partial(self._serialize_writes, writes))
        names = (plain(task_id), plain(task_path))
        write = partial(self._write_writes, config, typed, *names)
        await self._saved.durable(await self._threads.acommit(write))

    def delete_thread(self, thread_id: str) -> None:
        """Remove a thread, and wait until its removal survives a crash."""
        self._threads.delete(str(thread_id))

    async def adelete_thread(self, thread_id: str) -> None:
        """Do what `delete_thread` does, in a thread."""
        await asyncio.to_thread(self.delete_thread, thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Remove the checkpoints of runs, and wait until their removal survives a crash.

        The run of a checkpoint is the str `run_id` of its metadata. LangGraph takes that from the
        `metadata` or the `configurable` of the config, and not from the config's own `run_id`.
        Looks at all checkpoints. A delta channel that was built from one of them loses its history.
        """
        self._threads.delete_for_runs(set(map(str, run_ids)))

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do what `delete_for_runs` does, in a thread."""
        await asyncio.to_thread(self.delete_for_runs, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints and writes of a thread, and wait until the copy survives a crash.

        A crash may leave a part of the copy, whose checkpoints are whole; then copy again.
        """
        source, target = str(source_thread_id), str(target_thread_id)
        self._threads.copy(source, target, time.time(), self._ttl_s)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do what `copy_thread` does, in a thread."""
        await asyncio.to_thread(self.copy_thread, source_thread_id, target_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Remove the checkpoints of threads, and wait until their removal survives a crash.

        "keep_latest" keeps the newest of each namespace, and the ancestors that its delta channels
        need. "delete" keeps none. Raises ValueError for another strategy.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f'strategy is {strategy!r:.80}; give "keep_latest" or "delete"')
        for thread_id in thread_ids:
            if strategy == "delete":
                self._threads.delete(str(thread_id))
            else:
                self._threads.keep_latest(str(thread_id))

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do what `prune` does, in a thread."""
        await asyncio.to_thread(self.prune, thread_ids, strategy=strategy)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Return for each channel the writes since its nearest stored value, and that value.

        Raises JournalError if the checkpoint that `config` names was removed or has expired.
        """
        return delta_history(self._saved, self.serde, config, channels, self._is_expired)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Do what `get_delta_channel_history` does, in a thread."""
        return await asyncio.to_thread(
            self.get_delta_channel_history, config=config, channels=channels
        )

    def get_next_version(self, current: str | int | float | None, channel: None) -> str:
        """Return a version after `current` that no fork of the thread has."""
        number = 0 if current is None else int(str(current).partition(".")[0])
        return f"{number + 1:032}.{random.random():016}"  # noqa: S311  # it keeps no secret

    def remove_expired(self) -> int:
        """Remove all threads that have expired, and return their number.

        Each put removes some of them. An idle program may call this.
        """
        return self._threads.remove_expired(time.time())

    def _read(self, config: RunnableConfig) -> partial[CheckpointTuple] | None:
        """Return the call that deserializes the checkpoint of `config`, or None."""
        configurable = config["configurable"]
        place = place_of(config)
        if self._is_expired(place[0]):
            return None
        stored = load(self._saved, place, checkpoint_of(config))
        if stored is None:
            return None
        if not configurable.get("checkpoint_id"):
            config = config_of(configurable["thread_id"], place[1], stored.checkpoint_id)
        return partial(as_tuple, self.serde, config, stored)

    def _is_expired(self, thread: str) -> bool:
        return bool(self._ttl_s) and self._threads.is_expired(thread, time.time())

    def _serialize(
        self,
        put: Put,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> None:
        """Serialize a checkpoint, its metadata, and the values that have a new version."""
        rest = {name: part for name, part in checkpoint.items() if name != "channel_values"}
        put.checkpoint = typed_of(self.serde, rest)
        put.metadata = typed_of(self.serde, metadata)
        put.changed = set(new_versions)
        values = checkpoint["channel_values"]
        put.without_version = [plain(name) for name in values if name not in put.versions]
        changed = [name for name in new_versions if name in values and name in put.versions]
        self._serialize_values(put, checkpoint, [*changed, *put.without_version])

    def _serialize_values(self, put: Put, checkpoint: Checkpoint, channels: Sequence[str]) -> None:
        for channel in channels:
            value = checkpoint["channel_values"][channel]
            put.values[plain(channel)] = typed_of(self.serde, value)

    def _writer(self, put: Put) -> Callable[[Transaction], None]:
        def write(t: Transaction) -> None:
            now = time.time()  # here, after all waits
            put.write(t, self._saved, self._keep, (now, self._ttl_s))

        return write

    def _tidy(self, put: Put) -> None:
        """Remove the subgraphs of checkpoints that were removed, and some expired threads."""
        for prefix in put.doomed:
            drop(self._saved, prefix)
        if self._ttl_s:
            self._threads.remove_expired(time.time(), threads_max=2)

    def _waits_for(self, metadata: CheckpointMetadata) -> bool:
        return self._wait_loop_puts or metadata.get("source") != "loop"

    def _serialize_writes(
        self, writes: Sequence[tuple[str, Any]]
    ) -> builtins.list[tuple[str, Typed]]:
        return [(plain(channel), typed_of(self.serde, value)) for channel, value in writes]

    def _write_writes(
        self,
        config: RunnableConfig,
        typed: Sequence[tuple[str, Typed]],
        task_id: str,
        task_path: str,
        t: Transaction,
    ) -> None:
        place, checkpoint_id = place_of(config), plain(config["configurable"]["checkpoint_id"])
        now = time.time()  # here, after all waits
        check_stays(t, self._saved, place, now, has_ttl=self._ttl_s > 0)
        if self._ttl_s and place[0] not in t[self._saved.deadlines]:
            touch(t, self._saved, place[0], now, self._ttl_s)  # its checkpoint may never come
        rows = t[self._saved.writes]
        for number, (channel, (kind, data)) in enumerate(typed):
            index = WRITES_IDX_MAP.get(channel, number)
            key = (*place, checkpoint_id, task_id, index)
            if index < 0 or key not in rows:
                owner = owner_of_write(place, checkpoint_id, task_id, index)
                rows[key] = [channel, kind, task_path, *write_parts(t, self._saved, owner, data)]


def _new_put(config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata) -> Put:
    return Put(place_of(config), checkpoint, metadata, checkpoint_of(config))


async def _in_thread_if(is_long: bool, function: Callable[[], Any]) -> Any:
    """Call a function, in a thread if it may take long."""
    return await asyncio.to_thread(function) if is_long else function()
