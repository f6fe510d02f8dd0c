"""CowTable: a mapping whose snapshots take constant time, whatever its size.

Each value is in a cell, and the cells are in a dense list. A snapshot is the list's length at that
moment, plus the *before-images* of the places that were written since. A writer saves a place's
value there before it changes the place. So a reader that reads the place first and the
before-images second gets the value as of the snapshot. Writers save only into the newest snapshot;
a reader of an older one continues in the newer ones.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, MutableMapping
from typing import Any, Generic, TypeVar, overload

from journal._public import public

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_Cell = list[Any]  # [key, value, place]
_MISSING: Any = object()


@public
class Snapshot(Generic[V]):
    """The values of a CowTable at one moment. Any thread may iterate it, at any later time."""

    __slots__ = ("__weakref__", "_cells", "_count", "_images", "_newer")

    def __init__(self, cells: list[_Cell]) -> None:
        self._cells = cells
        self._count = len(cells)
        self._images: dict[int, V] = {}
        self._newer: Snapshot[V] | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[V]:
        for place in range(self._count):
            try:
                value = self._cells[place][1]
            except IndexError:  # the table has shrunk, so the place has a before-image
                value = _MISSING
            snapshot: Snapshot[V] | None = self
            while snapshot is not None:
                if place in snapshot._images:
                    value = snapshot._images[place]
                    break
                snapshot = snapshot._newer
            yield value

    def _save(self, cell: _Cell) -> None:
        """Save the cell's value before its place changes. A value that was saved earlier stays."""
        if cell[2] < self._count:
            self._images.setdefault(cell[2], cell[1])


@public
class CowTable(MutableMapping[K, V]):
    """A dict with a constant-time `freeze()`. Values are replaced, never mutated.

    One thread at a time may write or freeze, which the owner's lock ensures. Any thread may look up
    a key at any time. An iteration shows the keys of the moment at which it began. They are in the
    order of insertion until the first removal, which moves the last key to the removed key's place.
    """

    def __init__(self) -> None:
        self._by_key: dict[K, _Cell] = {}
        self._cells: list[_Cell] = []
        # A weak reference, so that a snapshot that is no longer used costs writers nothing.
        self._newest: weakref.ref[Snapshot[V]] | None = None

    def freeze(self) -> Snapshot[V]:
        """Return a snapshot of the values. Takes constant time, and copies nothing."""
        snapshot: Snapshot[V] = Snapshot(self._cells)
        older = self._newest() if self._newest else None
        if older is not None:
            older._newer = snapshot
        self._newest = weakref.ref(snapshot)
        return snapshot

    def __getitem__(self, key: K) -> V:
        value: V = self._by_key[key][1]
        return value

    @overload
    def get(self, key: K, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | T, /) -> V | T: ...
    def get(self, key: K, default: Any = None, /) -> Any:
        """Return the key's value, or `default`. One step, so another thread may write meanwhile."""
        cell = self._by_key.get(key)
        return default if cell is None else cell[1]

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[K]:
        return iter([cell[0] for cell in self._cells.copy()])

    def __setitem__(self, key: K, value: V) -> None:
        cell = self._by_key.get(key)
        if cell is None:
            cell = [key, value, len(self._cells)]
            self._cells.append(cell)
            self._by_key[key] = cell
            return
        if self._newest is not None:
            self._save(cell)
        cell[1] = value

    def __delitem__(self, key: K) -> None:
        cell = self._by_key[key]
        last = self._cells[-1]
        if self._newest is not None:
            self._save(cell)
            self._save(last)
        del self._by_key[key]
        self._cells[cell[2]] = last
        last[2] = cell[2]
        self._cells.pop()

    def popitem(self) -> tuple[K, V]:
        """Remove and return the last key and its value. Takes constant time."""
        if not self._cells:
            raise KeyError("the table is empty")
        key, value, _ = self._cells[-1]
        del self[key]
        return key, value

    def __reduce__(self) -> tuple[Any, ...]:
        # For copy and pickle: an independent table. If it shared cells with this one, it would
        # change the snapshots of this one.
        return type(self), (), None, None, iter(list(self.items()))

    def _save(self, cell: _Cell) -> None:
        newest = self._newest() if self._newest else None
        if newest is None:
            self._newest = None
        else:
            newest._save(cell)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"
