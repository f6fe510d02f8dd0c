"""Conversations of Pydantic AI in a journal. Needs the extra `pydantic-ai`.

    async with Tables.aopen("chats.d") as tables:
        store = JournalConversationStore(tables)

journal/adapters/docs/PYDANTIC_AI.md describes what survives a crash.
"""

from __future__ import annotations

from journal._extra import needing_extra

with needing_extra("pydantic-ai"):
    from journal.adapters.pydantic_ai._store import JournalConversationStore

__all__ = ["JournalConversationStore"]
