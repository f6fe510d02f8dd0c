"""JournalCache beside LangGraph's own."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from journal import Tables
from tests.installed import import_package

import_package("langgraph.checkpoint.base")

from langgraph.cache.memory import InMemoryCache  # noqa: E402
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer  # noqa: E402

from journal.adapters.langgraph import JournalCache, JournalSaver  # noqa: E402


@dataclass
class Order:
    """A type of a program."""

    number: int


def test_a_cache_is_as_langgraphs(tmp_path: Path) -> None:
    """A cache returns what LangGraph's own returns, after a restart, too."""
    oracle: Any = InMemoryCache()
    entries: Any = {(("a",), "k"): (1, None), (("a", "b"), "k"): ({"x": [1]}, None)}
    keys = [*entries, (("a",), "absent")]
    with Tables.open(tmp_path / "journal") as tables:
        for cache in (oracle, JournalCache(tables)):
            cache.set(entries)
            asyncio.run(cache.aset({(("b",), "brief"): (2, -1)}))
    with Tables.open(tmp_path / "journal") as tables:
        cache = JournalCache(tables)
        assert cache.get([*keys, (("b",), "brief")]) == oracle.get(keys)
        for each in (cache, oracle):
            each.clear([("a",)])
        assert asyncio.run(cache.aget(keys)) == oracle.get(keys) == {(("a", "b"), "k"): {"x": [1]}}
        asyncio.run(cache.aclear())
        assert cache.get(keys) == {}


def test_an_entry_of_a_cache_that_cannot_be_read_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry that can't be deserialized any more fails no node, and hides no other entry. It is
    logged, with the error, even by a log handler that raises."""

    def refuse(record: logging.LogRecord) -> bool:
        raise OSError(record)

    class Failing(JsonPlusSerializer):
        def loads_typed(self, data: tuple[str, bytes]) -> Any:
            value = super().loads_typed(data)
            if value == "gone":
                raise AttributeError(value)
            return value

    with Tables.open(tmp_path / "journal") as tables:
        cache = JournalCache(tables, serde=Failing())
        keys: Any = [(("a",), "k"), (("a",), "l")]
        cache.set({keys[0]: ("gone", None), keys[1]: (1, None)})
        assert cache.get(keys) == {keys[1]: 1}
        (logged,) = caplog.records
        assert logged.getMessage().startswith("the cached value of 'k' in ('a',) can't be")
        assert "AttributeError: gone" in caplog.text
        monkeypatch.setattr(logging.getLogger("journal"), "filters", [refuse])
        assert asyncio.run(cache.aget(keys)) == {keys[1]: 1}


def test_a_cache_rebuilds_the_types_of_a_savers_serializer(tmp_path: Path) -> None:
    """A hit is an instance of its class, if the serializer is that of a saver that allows it."""
    keys: Any = [(("a",), "k")]
    with JournalSaver.open(tmp_path / "journal") as saver:
        allowing = saver.with_allowlist([(__name__, "Order")])
        JournalCache(saver.tables, serde=allowing.serde).set({keys[0]: (Order(5), None)})
        assert JournalCache(saver.tables, serde=allowing.serde).get(keys) == {keys[0]: Order(5)}
