"""JournalStore: LangGraph's long-term memory in a journal."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from copy import copy, deepcopy
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from operator import attrgetter
from typing import Any, NamedTuple, TypeAlias

from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.store.base import Item, Op, PutOp, Result
from langgraph.store.memory import InMemoryStore

from journal import HandlerSafeLock, JournalError, Tables
from journal.adapters._strings import plain
from journal.adapters._tables import checked
from journal.adapters.langgraph._rows import pairs, typed_of

Place: TypeAlias = tuple[tuple[str, ...], str]
"""The namespace and the key of an item."""

_ROWS = "langgraph.store"


class JournalStore(InMemoryStore):
    """A store for LangGraph whose items and vectors survive a crash.

        with JournalSaver.open("agents.d") as saver:
            graph = builder.compile(checkpointer=saver, store=JournalStore(saver.tables))

    Make one for the tables of a journal. A put is durable when the call returns, and all puts of a
    batch are there after a crash, or none. Each call returns copies. Items that expire are not
    supported. Thread-safe.
    """

    # `_data` and `_vectors` are those of InMemoryStore, with another type.
    __slots__ = (
        "_data",
        "_embedded",
        "_lock",
        "_rows",
        "_serde",
        "_tables",
        "_unapplied",
        "_vectors",
    )

    def __init__(
        self,
        tables: Tables,
        *,
        index: Any = None,
        serde: SerializerProtocol | None = None,
    ) -> None:
        """Load the items of open tables.

        `index`: LangGraph's IndexConfig, for searches by meaning. Stored vectors are not computed
        again, so keep the model. `serde`: as in `JournalSaver.open`. An item that it can't
        deserialize raises JournalError when it is read.
        """
        super().__init__(index=index)
        base: Any = self  # whose attributes have no types
        if base.embeddings is not None:
            base.embeddings = _ThenRoom(base.embeddings, tables)
        self._lock = HandlerSafeLock()  # guards the items and vectors; nothing waits under it
        self._embedded = _Embedded()
        self._unapplied: dict[Place, _Written] = {}  # of a put, until its items are in memory
        self._data = _Namespaces()
        self._vectors = _Namespaces()
        self._tables = checked(tables)
        self._rows = tables.table(_ROWS)
        self._serde = serde or JsonPlusSerializer(allowed_msgpack_modules=None)
        for (*namespace, key), row in pairs(self._rows.items()):
            self._load(tuple(namespace), key, row)
        self._data.sort()

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
            self._catch_up()
            return super()._prepare_ops(ops)

    def _insertinmem_store(self, to_embed: Any, embeddings: Any) -> None:
        """Keep the vectors for `_apply_put_ops`, which this thread calls next."""
        embeddings = list(embeddings)
        if len(embeddings) != len(to_embed):
            raise ValueError(
                f"the embedding function returned {len(embeddings)} vectors for {len(to_embed)} "
                "texts; nothing was stored"
            )
        vectors: dict[Any, dict[str, Any]] = defaultdict(dict)
        for vector, places in zip(embeddings, to_embed.values(), strict=True):
            for namespace, key, path in places:  # which have the same text
                vectors[namespace, key][path] = list(map(float, vector))  # an array, for example
        self._embedded.vectors = vectors

    def _apply_put_ops(self, put_ops: Mapping[Place, PutOp]) -> None:
        """Write the items to the journal, then to memory: what the journal refuses is not seen."""
        embedded, self._embedded.vectors = self._embedded.vectors, {}
        if not put_ops:
            return
        now = datetime.now(UTC)
        # Here, because the serializer is the caller's code: it may raise, and call the store.
        written = {
            (tuple(map(plain, namespace)), plain(key)): self._written(op)
            for (namespace, key), op in put_ops.items()
        }
        with self._lock.checked():
            self._catch_up()
            self._unapplied = written
            try:
                with self._tables.transaction() as t:
                    for number, ((namespace, key), (typed, _)) in enumerate(written.items()):
                        if typed is None:
                            t[self._rows].discard((*namespace, key))
                            continue
                        old = self._data[namespace].get(key)
                        moment = now + timedelta(microseconds=number)  # the next open sorts by it
                        created = moment if old is None else old.created_at
                        times = (created.isoformat(), moment.isoformat())
                        vectors = {
                            **self._vectors[namespace].get(key, {}),
                            **embedded.get((namespace, key), {}),
                        }
                        t[self._rows][(*namespace, key)] = [*typed, *times, vectors]
            finally:  # an interrupt may strike after the rows were written
                self._catch_up()

    def _written(self, op: PutOp) -> _Written:
        """Return what a put stores."""
        if op.value is None:
            return _Written(None, None)
        typed = typed_of(self._serde, dict(op.value))
        return _Written(typed, self._serde.loads_typed(typed))

    def _catch_up(self) -> None:
        """Put the items of the last put in memory, as far as the journal has them.

        If an interrupt strikes here, the next call does it again. Called under the lock.
        """
        for (namespace, key), (typed, value) in self._unapplied.items():
            row = self._rows.get((*namespace, key))
            if row is None:
                self._data.drop(namespace, key)
                self._vectors.drop(namespace, key)
            elif typed is not None and (*row[:2],) == (*typed,):
                self._keep(namespace, key, row, value)
        self._unapplied = {}

    def _load(self, namespace: tuple[str, ...], key: str, row: Any) -> None:
        """Deserialize the item of a row. If that fails twice, reading the item raises an error."""
        kind: type[Item] = Item
        load = partial(self._serde.loads_typed, (row[0], row[1]))
        try:
            try:
                value = load()
            except Exception:  # maybe of a signal handler, so try it again
                value = load()
        except Exception as error:
            kind, value = _UnreadableItem, error
        self._keep(namespace, key, row, value, kind)

    def _keep(
        self, namespace: tuple[str, ...], key: str, row: Any, value: Any, kind: type[Item] = Item
    ) -> None:
        """Put an item in memory, with the times and vectors of its row."""
        *_, created, updated, vectors = row
        self._data.setdefault(namespace, {})[key] = kind(
            value=value,
            key=key,
            namespace=namespace,
            created_at=datetime.fromisoformat(created),
            updated_at=datetime.fromisoformat(updated),
        )
        if vectors:
            self._vectors.setdefault(namespace, {})[key] = vectors


class _Namespaces(dict[tuple[str, ...], dict[str, Any]]):
    """The items or the vectors of each namespace that has any, by key.

    `InMemoryStore` reads with `[namespace]` and has a defaultdict, in which each read leaves the
    namespace, and lists it.
    """

    def __missing__(self, namespace: tuple[str, ...]) -> dict[str, Any]:
        return {}

    def drop(self, namespace: tuple[str, ...], key: str) -> None:
        """Remove a key, and its namespace if that is empty then."""
        self[namespace].pop(key, None)
        if not self[namespace]:
            self.pop(namespace, None)

    def sort(self) -> None:
        """Put the items in the order of their creation, in which a search finds them."""
        items = chain.from_iterable(map(dict.values, self.values()))
        by_age = sorted(items, key=attrgetter("created_at"))
        self.clear()
        for item in by_age:
            self.setdefault(item.namespace, {})[item.key] = item


class _Written(NamedTuple):
    """An item as a put stores it. Both fields are None if the put removes the item."""

    typed: tuple[str, bytes] | None
    value: Any  # deserialized from `typed`


class _UnreadableItem(Item):
    """An item whose value can't be deserialized. It may be replaced and deleted."""

    __slots__ = ("_error",)

    @property
    def value(self) -> Any:
        """The value, in place of which this raises JournalError."""
        raise JournalError(
            f"item {self.key!r:.80} of namespace {self.namespace!r:.200} can't be deserialized "
            f"({self._error!r:.300}); make its classes importable again and reopen the store, or "
            "put or delete the item"
        ) from self._error

    @value.setter
    def value(self, error: Exception) -> None:
        self._error = error


class _ThenRoom:
    """Embeddings that wait for room in the log buffer before they return the vectors of a put."""

    def __init__(self, embeddings: Any, tables: Tables) -> None:
        self._embeddings, self._tables = embeddings, tables

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embeddings, name)

    def embed_documents(self, texts: list[str]) -> Any:
        vectors = self._embeddings.embed_documents(texts)
        self._tables.journal.wait_room()
        return vectors

    async def aembed_documents(self, texts: list[str]) -> Any:
        vectors = await self._embeddings.aembed_documents(texts)
        await self._tables.room()
        return vectors


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
