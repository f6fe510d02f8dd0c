"""All crashes that may strike a short use of an adapter, by the explorer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from journal import Composite, Tables
from journal.testing import explore
from tests.installed import import_package


def use_saver(tables: Tables) -> None:
    """Put checkpoints of a graph, and remove the older ones and then the thread."""
    import_package("langgraph.checkpoint.base")
    from journal.adapters.langgraph import JournalSaver
    from tests.adapters.langgraph_support import put_steps

    saver = JournalSaver(tables, keep=1)
    put_steps(saver, 3)
    saver.delete_thread("t")


def use_session(tables: Tables) -> None:
    """Add items, take one back, replace the newest one, and clear the session."""
    import_package("agents.memory")
    from journal.adapters.openai_agents import JournalSession

    async def main() -> None:
        session = JournalSession("ada", tables)
        await session.add_items([{"role": "user", "content": text} for text in "abc"])
        await session.pop_item()
        snapshot = await session._get_compaction_snapshot(1)
        assert snapshot is not None
        assert await snapshot.replace_suffix(0, [{"role": "user", "content": "d"}])
        await session.clear_session()

    asyncio.run(main())


def use_conversations(tables: Tables) -> None:
    """Save a conversation twice, branch it, and delete it."""
    import_package("pydantic_ai.conversation_store")
    from pydantic_ai.conversation import Conversation
    from pydantic_ai.messages import ModelRequest, UserPromptPart

    from journal.adapters.pydantic_ai import JournalConversationStore

    async def main() -> None:
        store = JournalConversationStore(tables)
        chat = Conversation(conversation_id="c")
        for text in "ab":
            chat.messages.append(ModelRequest(parts=[UserPromptPart(content=text)]))
            await store.save(chat)
        await store.branch("c", at=1, expected_revision=chat.revision)
        await store.delete("c")

    asyncio.run(main())


def use_tasks(tables: Tables) -> None:
    """Save a task twice, and delete it."""
    import_package("a2a.server.tasks")
    from a2a.server.context import ServerCallContext
    from a2a.types.a2a_pb2 import Task

    from journal.adapters.a2a import JournalTaskStore

    async def main() -> None:
        store, call = JournalTaskStore(tables), ServerCallContext()
        for context in ("a", "b"):
            await store.save(Task(id="t", context_id=context), call)
        await store.delete("t", call)

    asyncio.run(main())


@pytest.mark.parametrize("use", [use_saver, use_session, use_conversations, use_tasks])
def test_an_adapter_keeps_the_promises_in_every_crash(use: Callable[[Tables], None]) -> None:
    """P1 to P10: after every crash that may strike an adapter, its rows are those of one moment,
    and include all that was acknowledged."""

    def workload(owner: Any) -> None:
        use(Tables.in_state(owner.state, "tables"))

    report = explore(lambda: Composite(tables=Tables.machine()), workload)
    assert report.states > 500
