"""The replacement of the newest items of a session, for example by a summary of them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

from journal import Transaction
from journal.adapters.openai_agents._rows import ROWS_A_SLICE, Extent, SessionRows

Prune: TypeAlias = Callable[[Any], bool]
"""A function that returns whether an item is removed, if it is the oldest one."""


class CompactionSnapshot(NamedTuple):
    """The newest items of a session, in the form in which the SDK's compaction takes them."""

    items: list[Any]
    complete: bool  # whether these are all items
    replace_suffix: Callable[[int, list[Any]], Awaitable[bool]]


class Replacement(NamedTuple):
    """The newest items that a compaction has read, and those that take their place."""

    rows: SessionRows
    expected: list[str]
    expected_end: int  # of the rows
    output: list[str]

    def write(self, t: Transaction, prune: Prune | None) -> bool:
        """Replace the newest items. Return False if they are not the expected ones any more.

        The oldest of the other items are removed as long as `prune` returns True for them.
        """
        extent = self.rows.extent(t)
        number, found, count = extent.end, list[list[str]](), 0
        while number > extent.first and count < len(self.expected):
            number -= 1
            found.append(self.rows.peek(number))
            count += len(found[-1])
        texts = [text for some in reversed(found) for text in some]
        kept = texts[: max(len(texts) - len(self.expected), 0)]
        if extent.end != self.expected_end or texts[len(kept) :] != self.expected:
            return False
        if extent.end - number > ROWS_A_SLICE:
            self._move(t, extent, number, kept, prune)
        else:
            self._overwrite(t, extent, number, kept, prune)
        return True

    def _overwrite(
        self, t: Transaction, extent: Extent, number: int, kept: list[str], prune: Prune | None
    ) -> None:
        """Write the new items from row `number` on, after those that stay of this row."""
        first = extent.first
        if prune is not None:
            first = self._prune(t, prune, first, number)
            if first == number:
                kept = _pruned(kept, prune)
        end = self.rows.write(t, number, kept + self.output)
        for unused in range(end, extent.end):
            self.rows.delete(t, unused)
        self.rows.set_extent(t, extent._replace(first=first, end=end))

    def _move(
        self, t: Transaction, extent: Extent, number: int, kept: list[str], prune: Prune | None
    ) -> None:
        """Write all items that stay, and the new ones, after the last row, and remove all others.

        One transaction can't delete the replaced rows, since they are too many. But a removal
        deletes all rows before `first` in slices, while nobody sees them any more.
        """
        before = [text for row in range(extent.first, number) for text in self.rows.peek(row)]
        kept = before + kept
        if prune is not None:
            kept = _pruned(kept, prune)
        end = self.rows.write(t, extent.end, kept + self.output)
        self.rows.set_extent(t, extent._replace(first=extent.end, end=end))

    def _prune(self, t: Transaction, prune: Prune, first: int, stop: int) -> int:
        """Remove the oldest items before row `stop`. Return the number of the first row then."""
        for number in range(first, stop):
            texts = self.rows.peek(number)
            rest = _pruned(texts, prune)
            if rest:
                if len(rest) < len(texts):
                    self.rows.write(t, number, rest)
                return number
        return stop


def _pruned(texts: list[str], prune: Prune) -> list[str]:
    """Return the texts without the first ones, as long as `prune` returns True for their items."""
    for place, text in enumerate(texts):
        if not prune(json.loads(text)):
            return texts[place:]
    return []
