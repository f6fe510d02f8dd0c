"""JournalSession: a conversation of the OpenAI Agents SDK in a journal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from agents.items import TResponseInputItem
from agents.memory.session import SessionABC
from agents.memory.session_settings import (
    SessionSettings,
    coerce_session_settings,
    resolve_session_limit,
)

from journal import Tables, Transaction
from journal.adapters._commits import acommit, commit, durable
from journal.adapters.openai_agents._compaction import CompactionSnapshot, Replacement
from journal.adapters.openai_agents._rows import SessionRows, interrupted

T = TypeVar("T")
_LARGE_CHARS = 65_536  # decoding this many takes some 300 us
_HISTORY_METHODS = ("get_items", "add_items", "pop_item", "clear_session")


class JournalSession(SessionABC):
    """A session for the OpenAI Agents SDK whose items survive a crash.

        with Tables.open("chats.d") as tables:
            await Runner.run(agent, "Hello", session=JournalSession("ada", tables))

    Any number of sessions share open tables. Each change is durable when its method returns, and is
    there after a crash as a whole, or not at all. Objects with the same id are the same session.
    Tasks and threads may share them.
    """

    session_id: str
    """The id of the conversation."""

    session_settings: SessionSettings | None
    """The SDK's settings: `limit` is the default number of items that `get_items` returns."""

    def __init__(
        self,
        session_id: str,
        tables: Tables,
        *,
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        """Use the session `session_id` in open tables, and finish the removals that a crash
        interrupted. Its rows are in tables whose names begin with `openai_agents.`.

        Raises TypeError for an id that is not a str.
        """
        if not isinstance(session_id, str):  # keys 7 and "7" differ, and SQLiteSession's do not
            kind = type(session_id).__name__  # type: ignore[unreachable]
            raise TypeError(f"session_id is {session_id!r:.80}, of type {kind}; give a str")
        self.session_id = session_id
        self.session_settings = coerce_session_settings(
            SessionSettings() if session_settings is None else session_settings
        )
        self._tables = tables
        self._rows = SessionRows(tables, session_id)
        for rows in interrupted(tables):
            while commit(tables, rows.delete_some)[0]:
                pass

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Return the newest `limit` items, the oldest first.

        None stands for the limit of the settings. Without one, or with a negative one, all items
        are returned. A long history is decoded in a thread.
        """
        limit = resolve_session_limit(limit, self.session_settings)
        texts, _ = self._rows.newest(None if limit is not None and limit < 0 else limit)
        if sum(map(len, texts)) > _LARGE_CHARS:
            return await asyncio.to_thread(_decoded, texts)
        return _decoded(texts)

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add items, and wait until they survive a crash.

        Raises TypeError or ValueError for an item that JSON can't hold, and what
        `Tables.transaction` and `durable` raise.
        """
        texts = _encoded(items)

        def write(t: Transaction) -> None:
            extent = self._rows.extent(t)
            end = self._rows.write(t, extent.end, texts)
            self._rows.set_extent(t, extent._replace(end=end))

        if texts:
            await self._durably(write)

    async def pop_item(self) -> TResponseInputItem | None:
        """Remove the newest item, and wait until that survives a crash. Return it, or None."""

        def write(t: Transaction) -> str | None:
            extent = self._rows.extent(t)
            if extent.first == extent.end:
                return None
            last = extent.end - 1
            *others, text = self._rows.read(t, last)
            end = self._rows.write(t, last, others)
            if end == last:
                self._rows.delete(t, last)
            self._rows.set_extent(t, extent._replace(end=end))
            return text

        popped = await self._durably(write)
        return None if popped is None else json.loads(popped)

    async def clear_session(self) -> None:
        """Remove all items at once, and wait until that survives a crash."""

        def write(t: Transaction) -> None:
            extent = self._rows.extent(t)
            if extent.first < extent.end:
                self._rows.set_extent(t, extent._replace(first=extent.end))

        await self._durably(write)
        await self._delete_rest()

    async def _get_compaction_snapshot(
        self, limit: int, *, prune_prefix: Callable[[TResponseInputItem], bool] | None = None
    ) -> CompactionSnapshot | None:
        """Return the newest `limit` items, for the SDK's OpenAIResponsesCompactionSession.

        With this method, which SQLiteSession has too, a compaction replaces the items that it
        summarizes at once. Return None for a subclass that stores items in a way of its own.
        """
        if any(
            getattr(type(self), name) is not getattr(JournalSession, name)
            for name in _HISTORY_METHODS
        ):
            return None
        texts, end = self._rows.newest(limit + 1)
        seen = texts[-limit:]

        async def replace(start: int, output: list[TResponseInputItem]) -> bool:
            if not seen[start:]:
                return False
            replacement = Replacement(self._rows, seen[start:], end, _encoded(output))
            replaced = await self._durably(partial(replacement.write, prune=prune_prefix))
            await self._delete_rest()
            return replaced

        return CompactionSnapshot(_decoded(seen), len(texts) <= limit, replace)

    async def _durably(self, write: Callable[[Transaction], T]) -> T:
        """Call `write` with a transaction, and wait until it survives a crash."""
        result, lsn = await acommit(self._tables, write)
        await durable(self._tables, lsn)
        return result

    async def _delete_rest(self) -> None:
        """Delete the rows that a removal has left."""
        while self._rows.is_being_removed():
            await acommit(self._tables, self._rows.delete_some)


def _encoded(items: list[TResponseInputItem]) -> list[str]:
    return [json.dumps(item) for item in items]


def _decoded(texts: list[str]) -> list[TResponseInputItem]:
    return list(json.loads(f"[{','.join(texts)}]"))  # one call takes half the time of many
