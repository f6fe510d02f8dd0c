"""Tasks of A2A agents in a journal. Needs the extra `a2a`.

    async with Tables.aopen("tasks.d") as tables:
        store = JournalTaskStore(tables)

journal/adapters/docs/A2A.md describes what survives a crash.
"""

from __future__ import annotations

from journal._extra import needing_extra

with needing_extra("a2a"):
    from journal.adapters.a2a._store import JournalTaskStore, JournalVersionedTaskStore

__all__ = ["JournalTaskStore", "JournalVersionedTaskStore"]
