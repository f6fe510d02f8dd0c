"""JournalStore: LangGraph's long-term memory in a journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
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
    batch are there after a crash, or none. Items that expire are not supported. Thread-safe.
    """

    __slots__ = ("_lock", "_rows", "_serde", "_tables")

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
        self._tables = tables
        self._rows = tables.table(_ROWS)
        self._serde = serde or JsonPlusSerializer(allowed_msgpack_modules=None)
        for (*namespace, key), (kind, data, created, updated, vectors) in pairs(self._rows.items()):
            place = tuple(namespace)
            self._data[place][key] = Item(
                value=self._serde.loads_typed((kind, data)),
                key=key,
                namespace=place,
                created_at=datetime.fromisoformat(created),
                updated_at=datetime.fromisoformat(updated),
            )
            if vectors:
                self._vectors[place][key].update(vectors)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Run the operations, and wait until their puts survive a crash."""
        ops = list(ops)
        has_puts = any(isinstance(op, PutOp) for op in ops)
        if has_puts:
            self._tables.journal.wait_room()  # here, and not under the lock
        results: list[Result] = super().batch(ops)
        if has_puts:
            self._tables.sync()
        return results

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do what `batch` does, in an event loop."""
        ops = list(ops)
        has_puts = any(isinstance(op, PutOp) for op in ops)
        if has_puts:
            await self._tables.room()
        results: list[Result] = await super().abatch(ops)
        if has_puts:
            await self._tables.durable()
        return results

    # These three are the parts of `InMemoryStore.batch` that touch the items.

    def _prepare_ops(self, ops: Iterable[Op]) -> Any:
        with self._lock.checked():
            return super()._prepare_ops(ops)

    def _insertinmem_store(self, to_embed: Any, embeddings: Any) -> None:
        with self._lock.checked():
            super()._insertinmem_store(to_embed, embeddings)

    def _apply_put_ops(self, put_ops: Mapping[tuple[tuple[str, ...], str], PutOp]) -> None:
        """Write the items to the journal, then to memory: what the journal refuses is not seen."""
        if not put_ops:
            return
        now = datetime.now(UTC)
        typed = {
            place: self._serde.dumps_typed(dict(op.value))
            for place, op in put_ops.items()
            if op.value is not None
        }
        with self._lock.checked():
            items: dict[tuple[tuple[str, ...], str], Item | None] = {}
            with self._tables.transaction() as t:
                rows = t[self._rows]
                for (namespace, key), op in put_ops.items():
                    row = (*namespace, key)
                    if op.value is None:
                        items[namespace, key] = None
                        if row in rows:
                            rows.delete(row)
                        continue
                    old = self._data.get(namespace, {}).get(key)
                    created = now if old is None else old.created_at
                    times = (created.isoformat(), now.isoformat())
                    vectors = dict(self._vectors.get(namespace, {}).get(key, {}))
                    rows[row] = [*typed[namespace, key], *times, vectors]
                    items[namespace, key] = Item(
                        value=dict(op.value), key=key, namespace=namespace,
                        created_at=created, updated_at=now,
                    )  # fmt: skip
            for (namespace, key), item in items.items():
                if item is not None:
                    self._data[namespace][key] = item
                else:
                    self._data[namespace].pop(key, None)
                    self._vectors[namespace].pop(key, None)
