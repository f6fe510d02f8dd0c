"""LangGraph's checkpoints, store and cache in one journal. Needs the extra `langgraph`.

    async with JournalSaver.open("agents.d") as saver:
        graph = builder.compile(checkpointer=saver)

journal/adapters/docs/LANGGRAPH.md describes what survives a crash, and what is removed when.
"""

from __future__ import annotations

from journal._extra import needing_extra

with needing_extra("langgraph"):
    from journal.adapters.langgraph._cache import JournalCache
    from journal.adapters.langgraph._opening import SaverOpening
    from journal.adapters.langgraph._saver import JournalSaver
    from journal.adapters.langgraph._store import JournalStore

__all__ = ["JournalCache", "JournalSaver", "JournalStore", "SaverOpening"]
