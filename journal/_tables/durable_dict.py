"""DurableDict: one table that looks like a dict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Self

from journal._disk.disk import Disk, StrPath
from journal._public import public
from journal._tables.keys import Key
from journal._tables.tables import Tables
from journal._tables.transaction import Transaction
from journal.errors import ConflictError
from journal.options import Options

_TABLE = "items"
_MISSING: Any = object()


@public
class DurableDict(MutableMapping[Key, Any]):
    """A dict that survives crashes. A context manager.

    A change is made in memory and committed within 10 ms. After `sync`, it survives a power cut.
    Each read returns a fresh value, so changing that value changes nothing: assign it again.
    Iteration is over a snapshot, in the order of the keys. Thread-safe.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._table = tables.table(_TABLE)

    @classmethod
    def open(cls, path: StrPath, *, options: Options = Options(), disk: Disk | None = None) -> Self:
        """Open the dict at `path`, or begin a new one there. Raises what `Tables.open` raises."""
        return cls(Tables.open(path, options=options, disk=disk))

    def __getitem__(self, key: Key) -> Any:
        return self._table[key]

    def __contains__(self, key: object) -> bool:
        return key in self._table  # type: ignore[operator]  # any other type raises TypeError

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._table)

    def __setitem__(self, key: Key, value: Any) -> None:
        self._table[key] = value

    def __delitem__(self, key: Key) -> None:
        del self._table[key]

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """Return the value of `key`, which is `default` from now on if there was none. Atomic."""
        if key not in self._table:
            try:
                self._table.insert(key, default)
            except ConflictError:
                return self.setdefault(key, default)
        return self._table.get(key, default)

    def pop(self, key: Key, default: Any = _MISSING) -> Any:
        """Remove `key` and return its value, or `default` if it is given. Atomic."""

        def take(t: Transaction) -> Any:
            rows = t[self._table]
            value = rows.get(key, _MISSING)
            if value is not _MISSING:
                del rows[key]
            return value

        value = self._tables.update(take)
        if value is _MISSING and default is _MISSING:
            raise KeyError(key)
        return default if value is _MISSING else value

    def popitem(self) -> tuple[Key, Any]:
        """Remove and return the key that is last in order, and its value. Atomic."""

        def take(t: Transaction) -> tuple[Key, Any]:
            rows = t[self._table]
            for key, value in rows.range(reverse=True, limit=1):
                del rows[key]
                return key, value
            raise KeyError("the dict is empty")

        return self._tables.update(take)

    def update(  # type: ignore[override]  # keys are never keyword arguments of another type
        self, other: Mapping[Key, Any] | Iterable[tuple[Key, Any]] = (), /, **more: Any
    ) -> None:
        """Set several keys in one transaction: a crash leaves all of them or none."""
        pairs = dict(other, **more) if more else dict(other)
        with self._tables.transaction() as t:
            for key, value in pairs.items():
                t[self._table][key] = value

    def __ior__(self, other: Mapping[Key, Any] | Iterable[tuple[Key, Any]]) -> Self:
        self.update(other)
        return self

    def clear(self) -> None:
        """Remove all keys, in one transaction if they are not too many."""
        for key in self:
            self.pop(key, None)

    def sync(self, *, timeout_s: float | None = None) -> None:
        """Block until every change made before this call survives a power cut; see Tables.sync."""
        self._tables.sync(timeout_s=timeout_s)

    async def durable(self) -> None:
        """Wait as `sync` does, in an event loop."""
        await self._tables.durable()

    def close(self, *, timeout_s: float | None = None) -> None:
        """Make all changes durable, and close the journal; see Journal.close."""
        self._tables.close(timeout_s=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self._tables.__exit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<DurableDict of {len(self)} keys>"
