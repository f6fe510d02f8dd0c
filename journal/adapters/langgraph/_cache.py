"""JournalCache: results of LangGraph's nodes in a journal."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from langgraph.cache.base import BaseCache, FullKey, Namespace
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from journal import Tables
from journal.adapters._strings import plain
from journal.adapters._tables import checked
from journal.adapters.langgraph._rows import KEYS_A_SLICE, typed_of

_log = logging.getLogger("journal")
_ROWS = "langgraph.cache"
_UNREADABLE = "the cached value of %r in %r can't be deserialized, so it is computed again"


class JournalCache(BaseCache[Any]):
    """A cache for LangGraph's nodes that survives restarts.

        graph = builder.compile(checkpointer=saver, cache=JournalCache(saver.tables))

    Nothing waits for the disk: a crash may lose the entries of the last 10 ms, which are computed
    again. An entry with a time to live is removed some time after its end. Thread-safe.
    """

    def __init__(self, tables: Tables, *, serde: SerializerProtocol | None = None) -> None:
        """Cache in open tables. `serde`: as in `JournalSaver.open`."""
        super().__init__(serde=serde or JsonPlusSerializer(allowed_msgpack_modules=None))
        self._tables = checked(tables)
        self._rows = tables.table(_ROWS)

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Return the cached values of those keys that have one that can be deserialized."""
        found = {}
        for namespace, key in keys:
            typed = self._rows.get((_encoded(namespace), plain(key)))
            if typed is not None:
                try:
                    found[tuple(namespace), key] = self.serde.loads_typed(tuple(typed))
                except Exception:  # its class may be gone, for example
                    with suppress(Exception):  # of a log handler
                        _log.warning(_UNREADABLE, key, namespace, exc_info=True)
        return found

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """Do what `get` does."""
        return self.get(keys)

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Cache values, each with the seconds for which it lives, or None. Nothing waits."""
        now = time.time()
        for (namespace, key), (value, ttl_s) in pairs.items():
            expires_at = None if ttl_s is None else now + ttl_s
            typed = list(typed_of(self.serde, value))
            self._rows.set((_encoded(namespace), plain(key)), typed, expires_at=expires_at)

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Cache values, as `set` does, after waiting for room in the log buffer."""
        for pair in pairs.items():
            await self._tables.room()
            self.set(dict((pair,)))

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Remove the entries of namespaces, or all entries."""
        if namespaces is None:
            keys = list(self._rows)
        else:
            prefixes = [(_encoded(namespace),) for namespace in namespaces]
            keys = [key for prefix in prefixes for key, _ in self._rows.prefix(prefix)]
        for start in range(0, len(keys), KEYS_A_SLICE):

            def remove(t: Any, some: Any = keys[start : start + KEYS_A_SLICE]) -> None:
                for key in some:
                    t[self._rows].discard(key)

            self._tables.update(remove)

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Remove the entries of namespaces, or all entries."""
        self.clear(namespaces)


def _encoded(namespace: Namespace) -> str:
    return json.dumps(list(namespace))
