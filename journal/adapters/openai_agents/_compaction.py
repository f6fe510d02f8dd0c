"""The replacement of the newest items of a session, for example by a summary of them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from journal import Transaction
from journal.adapters.openai_agents._rows import SessionRows


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

    def write(self, t: Transaction, prune: Callable[[Any], bool] | None) -> bool:
        """Replace the newest items. Return False if they are not the expected ones any more.

        The oldest of the other items are removed as long as `prune` returns True for them.
        """
        extent = self.rows.extent(t)
        number, texts = extent.end, list[str]()
        while number > extent.first and len(texts) < len(self.expected):
            number -= 1
            texts = self.rows.read(t, number) + texts
        kept = texts[: max(len(texts) - len(self.expected), 0)]
        if extent.end != self.expected_end or texts[len(kept) :] != self.expected:
            return False
        first = extent.first
        if prune is not None:
            first = self._prune(t, prune, first, number)
            if first == number:
                kept = _pruned(kept, prune)
        end = self.rows.write(t, number, kept + self.output)
        for unused in range(end, extent.end):
            self.rows.delete(t, unused)
        self.rows.set_extent(t, extent._replace(first=first, end=end))
        return True

    def _prune(self, t: Transaction, prune: Callable[[Any], bool], first: int, stop: int) -> int:
        """Remove the oldest items before row `stop`. Return the number of the first row then."""
        for number in range(first, stop):
            texts = self.rows.read(t, number)
            rest = _pruned(texts, prune)
            if rest:
                if len(rest) < len(texts):
                    self.rows.write(t, number, rest)
                return number
        return stop


def _pruned(texts: list[str], prune: Callable[[Any], bool]) -> list[str]:
    """Return the texts without the first ones, as long as `prune` returns True for their items."""
    for place, text in enumerate(texts):
        if not prune(json.loads(text)):
            return texts[place:]
    return []
