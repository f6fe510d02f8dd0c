"""DurableDict: one table that looks like a dict."""

from __future__ import annotations

from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    Mapping,
    MutableMapping,
    ValuesView,
)
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from journal._disk.disk import Disk, StrPath
from journal._engine.async_handle import AsyncHandle
from journal._public import public
from journal._tables.keys import Key
from journal._tables.table_changes import TableChanges
from journal._tables.tables import Table, Tables
from journal._tables.transaction import Transaction
from journal.errors import ConflictError
from journal.options import Options

if TYPE_CHECKING:
    from journal._mirror.mirror import Mirror
    from journal.metrics import LockStats, Stats

_TABLE = "items"
_MISSING: Any = object()
_ATTEMPTS = 16  # of a change without the lock
_Result = TypeVar("_Result")
_Key = TypeVar("_Key", bound=Key)  # a Mapping[str, Any] is no Mapping[Key, Any]


@public
class DurableDict(AsyncHandle, MutableMapping[Key, Any]):
    """A dict that survives crashes. A context manager.

    A change is made in memory and committed within 10 ms. After `sync`, it survives a power cut.
    Each read returns a fresh value, so changing that value changes nothing: assign it again, or use
    `update(key, function)`. Iteration is over a snapshot, in the order of the keys. Thread-safe.
    """

    def __init__(self, tables: Tables) -> None:
        if not isinstance(tables, Tables):
            raise TypeError(
                f"{tables!r:.80} is not Tables; open a dict with DurableDict.open(path)"
            )
        self._tables = tables
        self._table = tables.table(_TABLE)

    @classmethod
    def open(
        cls,
        path: StrPath,
        *,
        options: Options = Options(),
        transaction_keys_max: int = 1000,
        lock_timeout_s: float | None = 0.0,
        mirror: str | Mirror | Literal[False] | None = None,
        takeover: bool = False,
        disk: Disk | None = None,
    ) -> Self:
        """Open the dict at `path`, or begin a new one there.

        `transaction_keys_max` bounds the keys that one `update` sets. Raises what `Tables.open`
        raises.
        """
        tables = Tables.open(
            path,
            options=options,
            transaction_keys_max=transaction_keys_max,
            lock_timeout_s=lock_timeout_s,
            mirror=mirror,
            takeover=takeover,
            disk=disk,
        )
        return cls(tables)

    def __getitem__(self, key: Key) -> Any:
        return self._table[key]

    def __contains__(self, key: object) -> bool:
        return key in self._table  # type: ignore[operator]  # any other type raises TypeError

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._table)

    def items(self) -> ItemsView[Key, Any]:
        """Return a view of the keys and values. Each iteration is over a snapshot."""
        return _Items(self, self._table)

    def values(self) -> ValuesView[Any]:
        """Return a view of the values. Each iteration is over a snapshot."""
        return _Values(self, self._table)

    def __setitem__(self, key: Key, value: Any) -> None:
        self._table[key] = value

    def __delitem__(self, key: Key) -> None:
        del self._table[key]

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """Return the value of `key`. If the key is new, set it to `default` first. Atomic."""
        while True:
            value = self._table.get(key, _MISSING)
            if value is not _MISSING:
                return value
            try:
                self._table.insert(key, default)
            except ConflictError:
                continue  # another thread has just set it
            return default

    def pop(self, key: Key, default: Any = _MISSING) -> Any:
        """Remove `key` and return its value, or `default` if it is given. Atomic."""

        def take(t: Transaction) -> Any:
            rows = t[self._table]
            value = rows.get(key, _MISSING)
            if value is not _MISSING:
                del rows[key]
            return value

        value = self._atomically(take)
        if value is _MISSING and default is _MISSING:
            raise KeyError(key)
        return default if value is _MISSING else value

    def popitem(self) -> tuple[Key, Any]:
        """Remove the last key in order. Return the key and its value. Atomic."""

        def take(t: Transaction) -> tuple[Key, Any]:
            rows = t[self._table]
            for key, value in rows.range(reverse=True, limit=1):
                del rows[key]
                return key, value
            raise KeyError("the dict is empty")

        return self._atomically(take)

    @overload  # type: ignore[override]  # a dict's update takes no function
    def update(
        self, other: Mapping[_Key, Any] | Iterable[tuple[_Key, Any]] = (), /, **more: Any
    ) -> None: ...

    @overload
    def update(
        self, key: Key, function: Callable[[Any], Any], /, *, default: Any = None
    ) -> Any: ...

    def update(self, other: Any = (), function: Any = _MISSING, /, **more: Any) -> Any:
        """Set several keys in one transaction: a crash leaves all of them or none.

        `update(key, function, default=None)` sets one key to `function(value)`, and returns the new
        value; see Table.update.
        """
        if function is not _MISSING:
            return self._table.update(other, function, **more)
        pairs = dict(other, **more) if more else dict(other)
        with self._tables.transaction() as t:
            for key, value in pairs.items():
                t[self._table][key] = value
        return None

    def __ior__(self, other: Mapping[_Key, Any] | Iterable[tuple[_Key, Any]]) -> Self:
        self.update(other)
        return self

    def clear(self) -> None:
        """Remove all keys, in transactions of at most `transaction_keys_max` keys.

        Keys that are set meanwhile may stay.
        """
        keys = iter(self)
        while slice_of_keys := list(islice(keys, self._tables._keys_max)):
            with self._tables.transaction() as t:
                for key in slice_of_keys:
                    t._collected.write(self._table._place(key), None)  # unread, so no conflict

    def _atomically(self, function: Callable[[Transaction], _Result]) -> _Result:
        """Call `function` with a transaction, without the lock: decoding may take long.

        After many conflicts, call it under the lock, where it can't conflict.
        """
        try:
            return self._tables.transact(function, attempts=_ATTEMPTS)
        except ConflictError:
            return self._tables.update(function)

    def changes(self, after: int | None = None) -> TableChanges:
        """Return an iterator of the durable changes of all keys, in order; see Tables.changes."""
        return self._tables.changes(after)

    def sync(self, *, timeout_s: float | None = None) -> None:
        """Block until every change made before this call survives a power cut; see Tables.sync."""
        self._tables.sync(timeout_s=timeout_s)

    async def durable(self) -> None:
        """Wait as `sync` does, in an event loop."""
        await self._tables.durable()

    def wait_mirrored(self, *, timeout_s: float | None = None) -> None:
        """Block until the mirror has every change made before this call; see
        Tables.wait_mirrored."""
        self._tables.wait_mirrored(timeout_s=timeout_s)

    async def mirrored(self) -> None:
        """Wait as `wait_mirrored` does, in an event loop."""
        await self._tables.mirrored()

    def stats(self) -> Stats:
        """Return the figures since open; see Journal.stats."""
        return self._tables.stats()

    def lock_stats(self) -> LockStats:
        """Return how long the lock was held and waited for; see DurableState.lock_stats."""
        return self._tables.lock_stats()

    def close(self, *, timeout_s: float | None = None) -> None:
        """Make all changes durable, and close the journal; see Journal.close."""
        self._tables.close(timeout_s=timeout_s)

    @property
    def closed(self) -> bool:
        """True once `close` has finished; see Journal.closed."""
        return self._tables.closed

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._tables.__exit__(kind, error, traceback)

    def _condition(self) -> str:
        return f"of {len(self)} keys, {self._tables._condition()}"


class _Items(ItemsView[Key, Any]):
    def __init__(self, whole: DurableDict, table: Table) -> None:
        super().__init__(whole)
        self._table = table

    def __iter__(self) -> Iterator[tuple[Key, Any]]:
        return self._table.items()


class _Values(ValuesView[Any]):
    def __init__(self, whole: DurableDict, table: Table) -> None:
        super().__init__(whole)
        self._table = table

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._table.items())
