"""Sessions of the OpenAI Agents SDK in a journal. Needs the extra `openai-agents`.

    with Tables.open("chats.d") as tables:
        session = JournalSession("ada", tables)
        await Runner.run(agent, "Hello", session=session)

journal/adapters/docs/OPENAI_AGENTS.md describes what survives a crash.
"""

from __future__ import annotations

from journal._extra import needing_extra

with needing_extra("openai-agents"):
    from journal.adapters.openai_agents._session import JournalSession

__all__ = ["JournalSession"]
