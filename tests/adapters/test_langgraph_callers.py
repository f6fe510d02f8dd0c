"""Values and names of a caller's own types, which LangGraph's own savers take."""

from __future__ import annotations

import asyncio
import enum
from pathlib import Path
from typing import Any

import pytest

from tests.installed import import_package

import_package("langgraph.checkpoint.base")

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer  # noqa: E402

from journal.adapters.langgraph import JournalCache, JournalSaver  # noqa: E402
from tests.adapters.langgraph_support import checkpoint, place  # noqa: E402


class Sized:
    """A value whose `nbytes` is a method."""

    __slots__ = ()

    def nbytes(self) -> int:
        return 3


class Freed:
    """A value whose `nbytes` can't be read."""

    __slots__ = ()

    @property
    def nbytes(self) -> int:
        raise RuntimeError("freed")


class Unbound:
    """A value whose attributes can't be read."""

    __slots__ = ()

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
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


class Name(enum.StrEnum):
    """A str of a subclass."""

    ADA = "ada"


def test_names_may_be_of_subclasses_of_str(tmp_path: Path) -> None:
    """Ids of threads, checkpoints and tasks, namespaces, channels and keys of caches may be of
    subclasses. They name the same rows as plain strs."""
    with JournalSaver.open(tmp_path / "journal") as saver:
        state = checkpoint({Name.ADA: 1, "n": 2}, {Name.ADA: Name.ADA})
        config = saver.put(
            place(Name.ADA, Name.ADA), state, {"source": "loop"}, {Name.ADA: Name.ADA}
        )
        first = type("Id", (str,), {})(config["configurable"]["checkpoint_id"])
        saver.put_writes(place(Name.ADA, Name.ADA, first), [(Name.ADA, 1)], Name.ADA, Name.ADA)
        for shown in (place("ada", "ada"), place(Name.ADA, Name.ADA, first)):
            found = saver.get_tuple(shown)
            assert found is not None
            assert found.pending_writes == [("ada", "ada", 1)]
            assert found.checkpoint["channel_values"] == {"ada": 1, "n": 2}
            assert [listed.checkpoint["id"] for listed in saver.list(shown)] == [state["id"]]
            history = saver.get_delta_channel_history(config=shown, channels=["n"])
            assert history == {"n": {"writes": []}}
        child = checkpoint({"n": 1}, {"n": "1"})
        saver.put(place(Name.ADA, Name.ADA, first), child, {"source": "loop"}, {})
        cache = JournalCache(saver.tables)
        cache.set({((Name.ADA,), Name.ADA): (1, None)})
        assert cache.get([(("ada",), "ada")]) == cache.get([((Name.ADA,), Name.ADA)])
        assert cache.get([(("ada",), "ada")]) == {(("ada",), "ada"): 1}
        saver.delete_thread(Name.ADA)
        assert saver.get_tuple(place("ada", "ada")) is None
