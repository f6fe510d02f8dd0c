"""JournalStore: LangGraph's long-term memory in a journal."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from copy import copy, deepcopy
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import Item, Op, PutOp, Result
from langgraph.store.memory import InMemoryStore

from journal import HandlerSafeLock, Tables
from journal.adapters.langgraph._rows import pairs

_ROWS = "langgraph.store"


class JournalStore(InMemoryStore):
    """A store for LangGraph whose items and vectors survive a crash.

        with JournalSaver.open("agents.d") as saver:
            graph = builder.compile(checkpointer=saver, store=JournalStore(saver.tables))

    Make one for the tables of a journal. A put is durable when the call returns, and all puts of a
    batch are there after a crash, or none. Each call returns copies. Items that expire are not
    supported. Thread-safe.
    """

    __slots__ = ("_embedded", "_lock", "_rows", "_serde", "_tables")

    def __init__(
        self,
        tables: Tables,
        *,
        index: Any = None,
        serde: SerializerProtocol | None = None,
    ) -> None:
        """Load the items of open tables.

        `index`: LangGraph's IndexConfig, for searches by meaning. Stored vectors are not computed
        again, so keep the model. `serde`: as in `JournalSaver.open`.
        """
        super().__init__(index=index)
        self._lock = HandlerSafeLock()  # guards the items and vectors; nothing waits under it
        self._embedded = _Embedded()
        self._tables = tables
        self._rows = tables.table(_ROWS)
        self._serde = serde or JsonPlusSerializer(allowed_msgpack_modules=None)
        for (*namespace, key), row in pairs(self._rows.items()):
            self._load(tuple(namespace), key, row)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run the operations, and wait until their puts survive a crash."""
        ops = list(ops)
        has_puts = any(isinstance(op, PutOp) for op in ops)
        if has_puts:
            self._tables.journal.wait_room()  # here, and not under the lock
        results: list[Result] = super().batch(ops)
        if has_puts:
            self._tables.sync()
        return list(map(_copied, results))

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what `batch` does, in an event loop."""
        ops = list(ops)
        has_puts = any(isinstance(op, PutOp) for op in ops)
        if has_puts:
            await self._tables.room()
        results: list[Result] = await super().abatch(ops)
        if has_puts:
            await self._tables.durable()
        return list(map(_copied, results))

    # These three are the parts of `InMemoryStore.batch` that touch the items.

    def _prepare_ops(self, ops: Iterable[Op]) -> Any:
        with self._lock.checked():
            return super()._prepare_ops(ops)

    def _insertinmem_store(self, to_embed: Any, embeddings: Any) -> None:
        """Keep the vectors for `_apply_put_ops`, which this thread calls next."""
        places = chain.from_iterable(to_embed.values())
        vectors: dict[Any, dict[str, Any]] = defaultdict(dict)
        for vector, (namespace, key, path) in zip(embeddings, places, strict=True):
            vectors[namespace, key][path] = vector
        self._embedded.vectors = vectors

    def _apply_put_ops(self, put_ops: Mapping[tuple[tuple[str, ...], str], PutOp]) -> None:
        """Write the items to the journal, then to memory: what the journal refuses is not seen."""
        embedded, self._embedded.vectors = self._embedded.vectors, {}
        if not put_ops:
            return
        now = datetime.now(UTC)
        typed = {
            place: self._serde.dumps_typed(dict(op.value))
            for place, op in put_ops.items()
            if op.value is not None
        }
        with self._lock.checked():
            try:
                with self._tables.transaction() as t:
                    for (namespace, key), op in put_ops.items():
                        if op.value is None:
                            t[self._rows].discard((*namespace, key))
                            continue
                        old = self._data.get(namespace, {}).get(key)
                        created = now if old is None else old.created_at
                        times = (created.isoformat(), now.isoformat())
                        vectors = {
                            **self._vectors.get(namespace, {}).get(key, {}),
                            **embedded.get((namespace, key), {}),
                        }
                        row = [*typed[namespace, key], *times, vectors]
                        t[self._rows][(*namespace, key)] = row
            finally:  # an interrupt may strike after the rows were written
                for namespace, key in put_ops:
                    self._load(namespace, key, self._rows.get((*namespace, key)))

    def _load(self, namespace: tuple[str, ...], key: str, row: Any) -> None:
        """Put the item of a row in memory; None: there is none."""
        if row is None:
            self._data.get(namespace, {}).pop(key, None)
            self._vectors.get(namespace, {}).pop(key, None)
            return
        kind, data, created, updated, vectors = row
        self._data[namespace][key] = Item(
            value=self._serde.loads_typed((kind, data)),
            key=key,
            namespace=namespace,
            created_at=datetime.fromisoformat(created),
            updated_at=datetime.fromisoformat(updated),
        )
        if vectors:
            self._vectors[namespace][key] = vectors


class _Embedded(threading.local):
    """The vectors of the put that this thread is making, by namespace and key, and then by path."""

    def __init__(self) -> None:
        self.vectors: dict[Any, dict[str, Any]] = {}


def _copied(result: Any) -> Any:
    """Return the result of an operation, with items that the caller may change."""
    if isinstance(result, list):
        return list(map(_copied, result))
    if isinstance(result, Item):
        result = copy(result)
        result.value = deepcopy(result.value)
    return result
