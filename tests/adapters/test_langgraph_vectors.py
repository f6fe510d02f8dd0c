"""The vectors of a JournalStore's items, and the texts that they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from journal import Tables
from tests.installed import import_package

import_package("langgraph.checkpoint.base")

from langgraph.store.base import PutOp  # noqa: E402

from journal.adapters.langgraph import JournalStore  # noqa: E402


def embed(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), float(text.count("a"))] for text in texts]


def test_items_with_the_same_text_have_the_same_vector(tmp_path: Path) -> None:
    """LangGraph embeds a text once, however many items and fields of a batch have it."""
    index: Any = {"dims": 2, "embed": embed, "fields": ["text", "title"]}
    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables, index=index)
        same = {"text": "fig", "title": "fig"}
        texts = {"k": same, "l": {"text": "banana"}, "m": {"text": "fig"}}
        store.batch([PutOp(("docs",), key, value) for key, value in texts.items()])
        expected = {k: dict(zip(v, embed([*v.values()]), strict=True)) for k, v in texts.items()}
        for found in (store, JournalStore(tables, index=index)):
            assert found._vectors["docs",] == expected


@pytest.mark.parametrize("count", [0, 3])
def test_a_wrong_number_of_vectors_is_refused(tmp_path: Path, count: int) -> None:
    """The error has both numbers, and no item of the batch is stored."""
    index: Any = {"dims": 2, "embed": lambda texts: [[1.0, 2.0]] * count, "fields": ["text"]}
    with Tables.open(tmp_path / "journal") as tables:
        store = JournalStore(tables, index=index)
        with pytest.raises(ValueError, match=f"returned {count} vectors for 2 texts"):
            store.batch([PutOp(("docs",), text, {"text": text}) for text in ("fig", "nut")])
        assert store.search(()) == []
