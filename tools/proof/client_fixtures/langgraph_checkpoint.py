"""The store of langgraph-checkpoint's tests, in a journal. See tools/proof/clients.py."""

from __future__ import annotations

import tempfile
from typing import Any

import langgraph.store.memory

from journal import Options, Tables
from journal.adapters.langgraph import JournalStore


class TestedStore(JournalStore):
    """A JournalStore that is made as LangGraph's own store, in a journal of its own."""

    __slots__ = ()

    def __init__(self, *, index: Any = None) -> None:
        folder = tempfile.mkdtemp()
        super().__init__(Tables.open(folder, options=Options(durability="os")), index=index)


# The tests import the name from there.
langgraph.store.memory.InMemoryStore = TestedStore  # type: ignore[misc,unused-ignore]
