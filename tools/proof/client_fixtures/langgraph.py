"""The fixtures of LangGraph's tests, with the journal's stores. See tools/proof/clients.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from journal import Options, Tables
from journal.adapters.langgraph import JournalCache, JournalSaver, JournalStore

NO_DOCKER = True
_OPTIONS = Options(durability="os")  # these tests don't crash
_STORES = {"sync_checkpointer", "async_checkpointer", "sync_store", "async_store", "cache"}


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Leave out the tests that make a store of their own."""
    items[:] = [item for item in items if _STORES & {*item.fixturenames}]


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
def tables(tmp_path: Path) -> Iterator[Tables]:
    """Return the tables of the store and the cache."""
    with Tables.open(tmp_path / "beside", options=_OPTIONS) as opened:
        yield opened


@pytest.fixture
def cache(tables: Tables) -> Any:
    return JournalCache(tables)


@pytest.fixture
def sync_store(tables: Tables) -> Any:
    return JournalStore(tables)


@pytest.fixture
async def async_store(tables: Tables) -> Any:
    return JournalStore(tables)
