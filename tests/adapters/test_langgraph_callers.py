"""Values and names of a caller's own types, which LangGraph's own savers take."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.installed import import_package

import_package("langgraph.checkpoint.base")

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer  # noqa: E402

from journal.adapters.langgraph import JournalSaver  # noqa: E402
from tests.adapters.langgraph_support import checkpoint, place  # noqa: E402


class Sized:
    """A value whose `nbytes` is a method."""

    __slots__ = ()

    def nbytes(self) -> int:
        """Return a size."""
        return 3


class Freed:
    """A value whose `nbytes` can't be read."""

    __slots__ = ()

    @property
    def nbytes(self) -> int:
        """Raise RuntimeError."""
        raise RuntimeError("freed")


class Unbound:
    """A value whose attributes can't be read."""

    __slots__ = ()

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        """Raise RuntimeError."""
        raise RuntimeError("unbound")


@pytest.mark.parametrize("kind", [Sized, Freed, Unbound])
def test_aput_takes_what_put_takes(tmp_path: Path, kind: type[Any]) -> None:
    """An object whose attributes or size can't be read is stored, if its serializer can do so."""

    async def put() -> None:
        serde = JsonPlusSerializer(pickle_fallback=True)
        async with JournalSaver.open(tmp_path / "journal", serde=serde) as saver:
            state = checkpoint({"n": kind()}, {"n": "1"})
            config = await saver.aput(place(), state, {"source": "loop"}, {"n": "1"})
            await saver.aput_writes(config, [("n", kind())], "task")
            found = await saver.aget_tuple(config)
            assert found is not None
            assert isinstance(found.checkpoint["channel_values"]["n"], kind)

    asyncio.run(put())
