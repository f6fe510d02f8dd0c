"""CowTable: a mapping whose snapshots take constant time, whatever its size.

Each value has a place in a dense list. A snapshot is the list's length at that moment, plus the
*before-images* of the places that were written since. A writer saves a place's value there before
it changes the place. So a reader that reads the place first and the before-images second gets the
value as of the snapshot. Writers save only into the newest snapshot; a reader of an older one
continues in the newer ones.

The first _CELLS values are in cells, each a small list, which is fastest. The values after them are
in ManyRows, where the garbage collector need not visit each. If it has to visit the values anyway,
that would gain nothing, and all of them are in cells.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterator, MutableMapping
from typing import Any, Generic, TypeVar, overload

from journal._public import public
from journal._state.many_rows import _BITS, ManyRows, Row

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_Cell = list[Any]  # [key, value, place]
# The key to remove and its cell, if it has one; the row to remove, and the last row.
_Removal = tuple[Any, _Cell | None, Row[Any, Any], Row[Any, Any]]
_MISSING: Any = object()
_FLAT = frozenset((type(None), bool, int, float, str, bytes))
_PLAIN_KEYS = frozenset((str, int, bytes))  # no code of theirs runs in a search
_CELLS = 16384  # a full collection takes 2.7 ms longer for as many cells


@public
class Snapshot(Generic[V]):
    """The values of a CowTable at one moment. Any thread may iterate it, at any later time."""

    __slots__ = ("__weakref__", "_cells", "_count", "_images", "_many", "_newer")

    def __init__(self, cells: list[_Cell], many: ManyRows[Any, V] | None) -> None:
        self._cells = cells
        self._many = many
        self._count = len(cells) + (len(many) if many else 0)
        self._images: dict[int, V] = {}
        self._newer: Snapshot[V] | None = None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[V]:
        in_cells = self._count if self._many is None else min(self._count, _CELLS)
        cells, images = self._cells, self._images
        for place in range(in_cells):
            try:
                value = cells[place][1]
            except IndexError:  # the table has shrunk, so the place has a before-image
                value = _MISSING
            # Without before-images, a call of `_frozen` would take half of the time.
            is_unchanged = not images and self._newer is None
            yield value if is_unchanged else self._frozen(place, value)
        many = self._many
        if many is None:
            return
        for first in range(_CELLS, self._count, 1 << _BITS):
            values = many.values_of((first - _CELLS) >> _BITS)
            size = min(1 << _BITS, self._count - first)
            for at in range(size):
                yield self._frozen(first + at, values[at] if at < len(values) else _MISSING)

    def _frozen(self, place: int, value: V) -> V:
        """Return the place's value as of the snapshot. `value` was read from the place before."""
        snapshot: Snapshot[V] | None = self
        while snapshot is not None:
            if place in snapshot._images:
                return snapshot._images[place]
            snapshot = snapshot._newer
        return value

    def _save(self, place: int, value: V) -> None:
        """Save a value before its place changes. A value that was saved earlier stays."""
        if place < self._count:
            self._images.setdefault(place, value)


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
        self._cells_max = _CELLS
        self._many: ManyRows[K, V] | None = None  # the rows that have no cells
        # The removal that changes `_many` now. If an exception interrupts it, the next write
        # finishes it.
        self._removal: _Removal | None = None
        self._finished_removals = 0
        # A weak reference, so that a snapshot that is no longer used costs writers nothing.
        self._newest: weakref.ref[Snapshot[V]] | None = None

    def freeze(self) -> Snapshot[V]:
        """Return a snapshot of the values. Takes constant time, and copies nothing."""
        if self._removal is not None:
            self._end_removal(self._removal)
        snapshot: Snapshot[V] = Snapshot(self._cells, self._many)
        older = self._newest() if self._newest else None
        if older is not None:
            older._newer = snapshot
        self._newest = weakref.ref(snapshot)
        return snapshot

    def __getitem__(self, key: K) -> V:
        cell: _Cell | Row[K, V] | None = self._by_key.get(key)
        if cell is None and self._many is not None:
            cell = self._find(key)
        if cell is None:
            raise KeyError(key)
        value: V = cell[1]
        return value

    @overload
    def get(self, key: K, default: None = None, /) -> V | None: ...
    @overload
    def get(self, key: K, default: V | T, /) -> V | T: ...
    def get(self, key: K, default: Any = None, /) -> Any:
        """Return the key's value, or `default`. One step, so another thread may write meanwhile."""
        cell: _Cell | Row[K, V] | None = self._by_key.get(key)
        if cell is None and self._many is not None:
            cell = self._find(key)
        return default if cell is None else cell[1]

    def position(self, key: K) -> int | None:
        """Return the place of the key in an iteration, from 0 on, or None. Takes constant time."""
        cell: _Cell | Row[K, V] | None = self._by_key.get(key) or self._find(key)
        if cell is None:
            return None
        return cell[2] if type(cell) is list else _CELLS + cell[2]

    def __contains__(self, key: object) -> bool:
        if key in self._by_key:
            return True
        return self._many is not None and self._find(key) is not None

    def __len__(self) -> int:
        unfinished = None if self._removal is None else self._unfinished()
        if unfinished is not None:
            return len(self._cells) + unfinished[3][2]  # the place of the last row, which moves
        return len(self._cells) + (len(self._many) if self._many else 0)

    def __iter__(self) -> Iterator[K]:
        finished = self._finished_removals
        # In this order, a key that moves from a row to a cell meanwhile is in one list or in both.
        keys = self._many.keys() if self._many else []
        keys[:0] = [cell[0] for cell in self._cells.copy()]
        if self._removal is None and finished == self._finished_removals:
            return iter(keys)
        unique = dict.fromkeys(keys)  # a key that was moved may be there twice
        unfinished = self._unfinished()
        if unfinished is not None:
            unique.pop(unfinished[0], None)
        return iter(unique)

    def __setitem__(self, key: K, value: V) -> None:
        if self._removal is not None:
            self._end_removal(self._removal)
        cell = self._by_key.get(key)
        if cell is None:
            if len(self._cells) == self._cells_max:
                many = self._many
                if many is None and _is_flat(value):
                    many = self._many = ManyRows()
                if many is not None:
                    if not many.add(key, value):
                        self._replace(many, key, value)
                    return
                self._cells_max = sys.maxsize
            cell = [key, value, len(self._cells)]
            try:
                self._cells.append(cell)
                self._by_key[key] = cell
            except BaseException:  # an interrupt, or an exception of the key's `__hash__`
                del self._cells[cell[2] :]
                raise
            return
        if self._newest is not None:
            self._save(cell[2], cell[1])
        cell[1] = value

    def update(self, other: Any = (), /, **more: Any) -> None:
        """Set keys, as `dict.update` does. Many new keys take half the time of setting each."""
        pairs: dict[K, V] = dict(other, **more)
        is_own = type(self).__setitem__ is CowTable.__setitem__  # a subclass may check each key
        if self._removal is not None or not (is_own and self._add_cells(pairs)):
            for key, value in pairs.items():
                self[key] = value

    def _add_cells(self, pairs: dict[K, V]) -> bool:
        """Add cells for these keys. Return False, and add none, unless there is room, and all are
        new and plain."""
        place, cells = len(self._cells), self._cells
        is_room = self._many is None and place + len(pairs) <= self._cells_max
        are_plain = _PLAIN_KEYS.issuperset(map(type, pairs))
        if not (is_room and are_plain) or any(map(self._by_key.get, pairs)):
            return False
        added = [[key, value, at] for at, (key, value) in enumerate(pairs.items(), place)]
        try:
            cells.extend(added)
            self._by_key.update(zip(pairs, added, strict=True))
        finally:  # an interrupt, an exception of a known key's `__eq__`, or no memory
            del cells[len(self._by_key) :]
        return True

    def __delitem__(self, key: K) -> None:
        if self._removal is not None:
            self._end_removal(self._removal)
        cell = self._by_key.get(key)
        if self._many:
            self._remove_from_many(key, cell, self._many)
            return
        if cell is None:
            raise KeyError(key)
        last = self._cells[-1]
        if self._newest is not None:
            self._save(cell[2], cell[1])
            self._save(last[2], last[1])
        del self._by_key[key]
        self._cells[cell[2]] = last
        last[2] = cell[2]
        self._cells.pop()

    def _remove_from_many(self, key: K, cell: _Cell | None, many: ManyRows[K, V]) -> None:
        """Remove a key. The last key moves to its place, and gets its cell if there is one."""
        last = many.last()
        row: Row[K, V] | None
        if cell is None:
            row = many.find(key)
            if row is None:
                raise KeyError(key)
            self._save_row(row)
        else:
            row = last
            self._save(cell[2], cell[1])
        self._save_row(last)
        self._removal = key, cell, row, last
        self._remove(self._removal)

    def _unfinished(self) -> _Removal | None:
        """Return the removal that has begun and not ended, if there is one."""
        removal = self._removal
        if removal is None or CowTable.__contains__(self, removal[0]):
            return None
        return removal

    def _end_removal(self, removal: _Removal) -> None:
        """Finish a removal that an exception has interrupted, unless the key is still there."""
        if CowTable.__contains__(self, removal[0]):
            self._removal = None
        else:
            self._remove(removal)

    def _remove(self, removal: _Removal) -> None:
        """Remove a key whose value is saved. Each step can be repeated after an interrupt."""
        key, cell, row, last = removal
        many: Any = self._many
        if cell is not None:
            moved = [last[0], last[1], cell[2]]
            self._by_key.pop(key, None)
            self._cells[cell[2]] = moved
            # A key that moves is found at each moment: here first, then no longer there.
            self._by_key[last[0]] = moved
        many.remove(row, last)
        self._finished_removals += 1
        self._removal = None

    def popitem(self) -> tuple[K, V]:
        """Remove and return the last key and its value. Takes constant time."""
        if self._removal is not None:
            self._end_removal(self._removal)
        if self._many:
            key, value, _ = self._many.last()
        elif self._cells:
            key, value, _ = self._cells[-1]
        else:
            raise KeyError("the table is empty")
        del self[key]
        return key, value

    def __reduce__(self) -> tuple[Any, ...]:
        # For copy and pickle: an independent table. If it shared cells with this one, it would
        # change the snapshots of this one.
        return type(self), (), None, None, iter(list(self.items()))

    def _find(self, key: Any) -> _Cell | Row[K, V] | None:
        """Return the row of a key that had no cell, or its cell if the row was moved meanwhile."""
        many = self._many
        return None if many is None else many.find(key) or self._by_key.get(key)

    def _replace(self, many: ManyRows[K, V], key: K, value: V) -> None:
        """Replace the value of a key that has no cell."""
        row: Any = many.find(key)
        if self._newest is not None:
            self._save_row(row)
        many.replace(row[2], value)

    def _save_row(self, row: Row[K, V]) -> None:
        self._save(_CELLS + row[2], row[1])

    def _save(self, place: int, value: V) -> None:
        newest = self._newest() if self._newest else None
        if newest is None:
            self._newest = None
        else:
            newest._save(place, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self)!r})"


def _is_flat(value: object) -> bool:
    """Return whether a value is a string, bytes, a number or None, or a tuple of these."""
    if type(value) is tuple:
        return all(type(element) in _FLAT for element in value)
    return type(value) in _FLAT
