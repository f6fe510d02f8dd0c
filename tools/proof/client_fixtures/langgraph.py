"""The fixtures of LangGraph's tests, with the journal's stores. See tools/proof/clients.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.store.memory import InMemoryStore

from journal import Options
from journal.adapters.langgraph import JournalSaver

NO_DOCKER = True
_OPTIONS = Options(durability="os")  # these tests don't crash


@pytest.fixture
def anyio_backend() -> str:
    """Return the event loop's library."""
    return "asyncio"


@pytest.fixture
def deterministic_uuids(mocker: Any) -> Any:
    """Make uuid4 count."""
    numbered = (UUID(f"00000000-0000-4000-8000-{i:012}", version=4) for i in range(10000))
    return mocker.patch("uuid.uuid4", side_effect=numbered)


@pytest.fixture(params=["sync", "async", "exit"])
def durability(request: Any) -> Any:
    """Return LangGraph's durability."""
    return request.param


@pytest.fixture
def sync_checkpointer(tmp_path: Path) -> Iterator[Any]:
    """Return a saver that keeps everything: the tests look at whole histories."""
    with JournalSaver.open(tmp_path / "journal", keep=None, options=_OPTIONS) as saver:
        yield saver


@pytest.fixture
async def async_checkpointer(tmp_path: Path) -> AsyncIterator[Any]:
    """Return a saver that keeps everything."""
    async with JournalSaver.open(tmp_path / "journal", keep=None, options=_OPTIONS) as saver:
        yield saver


@pytest.fixture
def cache() -> Any:
    """Return LangGraph's own cache."""
    return InMemoryCache()


@pytest.fixture
def sync_store() -> Any:
    """Return LangGraph's own store."""
    return InMemoryStore()


@pytest.fixture
async def async_store() -> Any:
    """Return LangGraph's own store."""
    return InMemoryStore()
