"""The tables that a store of an adapter is given."""

from __future__ import annotations

from typing import Any

import pytest

from tests.installed import import_package

STORES = [
    ("a2a", "a2a", "JournalTaskStore", ()),
    ("a2a", "a2a", "JournalVersionedTaskStore", ()),
    ("langgraph", "langgraph", "JournalSaver", ()),
    ("langgraph", "langgraph", "JournalStore", ()),
    ("langgraph", "langgraph", "JournalCache", ()),
    ("openai_agents", "agents", "JournalSession", ("ada",)),
    ("pydantic_ai", "pydantic_ai", "JournalConversationStore", ()),
]


@pytest.mark.parametrize(("adapter", "client", "store", "before"), STORES)
def test_a_path_is_not_taken_for_tables(
    adapter: str, client: str, store: str, before: tuple[Any, ...]
) -> None:
    """A path in place of open tables raises TypeError, which says how to open them."""
    import_package(client)
    make = getattr(import_package(f"journal.adapters.{adapter}"), store)
    with pytest.raises(TypeError, match=r"^'chats\.db' is not Tables; open them with Tables\.open"):
        make(*before, "chats.db")
