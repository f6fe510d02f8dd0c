"""JournalStore beside LangGraph's own, and in one journal with a saver and a cache."""

from __future__ import annotations

import asyncio
import threading
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import ClosedError, JournalError, Tables, TransactionTooLargeError
from journal._tables.publisher import Publisher
from journal.testing import SimulatedDisk, lose
from tests.installed import import_package
from tests.support import TIMEOUT_S

import_package("langgraph.checkpoint.base")

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer  # noqa: E402
from langgraph.store.base import PutOp  # noqa: E402
from langgraph.store.memory import InMemoryStore  # noqa: E402

from journal.adapters.langgraph import JournalCache, JournalSaver, JournalStore  # noqa: E402
from tests.adapters.langgraph_support import put_steps, saver_on, steps  # noqa: E402

NAMESPACES = st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=3).map(tuple)
VALUES = st.none() | st.dictionaries(st.sampled_from("xy"), st.integers(0, 3), max_size=2)
PUTS = st.lists(st.tuples(NAMESPACES, st.sampled_from("kl"), VALUES), min_size=1, max_size=3)


def embed(texts: list[str]) -> list[list[float]]:
    return [[float(len(text)), float(text.count("a"))] for text in texts]


INDEX: Any = {"dims": 2, "embed": embed, "fields": ["text"]}


def contents(store: Any) -> Any:
    """Return all items and namespaces of a store."""
    items = store.search((), limit=1000)
    found = sorted((item.namespace, item.key, sorted(item.value.items())) for item in items)
    return found, sorted(store.list_namespaces(limit=1000))


@given(st.lists(PUTS, max_size=4))
@settings(max_examples=20, deadline=None)
def test_a_store_is_as_langgraphs_after_a_power_cut(batches: list[Any]) -> None:
    """P2: after each batch and a power cut, a store has the items of LangGraph's own store."""
    disk, oracle = SimulatedDisk(), InMemoryStore()
    with Tables.open("/journal", disk=disk) as tables:
        store: Any = JournalStore(tables)
        for batch in batches:
            for each in (store, oracle):
                each.batch([PutOp(*put) for put in batch])
            assert contents(store)[0] == contents(oracle)[0]
        disk.power_cut(lose)
    with Tables.open("/journal", disk=disk) as tables:
        assert contents(JournalStore(tables))[0] == contents(oracle)[0]


def test_only_namespaces_with_items_are_listed(tmp_path: Path) -> None:
    """Neither a read nor a removal leaves a namespace, as in LangGraph's stores on databases."""
    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables, index=INDEX)
        assert store.get(("users", "ada"), "k") is None
        store.delete(("users", "bob"), "k")
        for key in "kl":
            store.put(("docs",), key, {"text": "fig"})
        store.delete(("docs",), "k")
        assert store.list_namespaces() == [*store._data] == [*store._vectors] == [("docs",)]
        store.delete(("docs",), "l")
        assert store.list_namespaces() == [*store._data] == [*store._vectors] == []


class Names(StrEnum):
    """The namespaces and keys of a program."""

    ADA = "ada"


def test_names_may_be_of_a_subclass_of_str(tmp_path: Path) -> None:
    """A member of a StrEnum is the name that a string of its text is, as for LangGraph's own."""
    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables, index=INDEX)
        store.batch([PutOp((Names.ADA,), Names.ADA, {"text": "fig"})])
        for name in (Names.ADA, "ada"):
            assert store.get((name,), name).value == {"text": "fig"}
        assert store.search(()) == JournalStore(tables, index=INDEX).search(())
        assert store._vectors == JournalStore(tables, index=INDEX)._vectors
        store.batch([PutOp((Names.ADA,), Names.ADA, None)])
        assert store.search(()) == JournalStore(tables).search(()) == []


def test_vectors_are_not_computed_again(tmp_path: Path) -> None:
    """A search by meaning gives the same scores after a restart, and embeds only the query."""

    def found(store: Any) -> Any:
        return [(i.key, i.score) for i in store.search(("docs",), query="banana")]

    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables, index=INDEX)
        for text in ("banana", "cherry", "fig"):
            store.put(("docs",), text, {"text": text})
        before = found(store)
    asked: list[str] = []

    def embed_and_note(texts: list[str]) -> list[list[float]]:
        asked.extend(texts)
        return embed(texts)

    index = {**INDEX, "embed": embed_and_note}
    with Tables.open(tmp_path / "journal") as tables:
        assert found(JournalStore(tables, index=index)) == before
        assert before[0][0] == "banana"
        assert asked == ["banana"]


def test_an_item_keeps_its_time_of_creation(tmp_path: Path) -> None:
    """A second put changes the time of the update only, and a restart neither."""
    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables)
        store.put(("a",), "k", {"n": 1})
        created = store.get(("a",), "k").created_at
        store.put(("a",), "k", {"n": 2})
        item = store.get(("a",), "k")
        assert item.created_at == created < item.updated_at
    with Tables.open(tmp_path / "journal") as tables:
        assert JournalStore(tables).get(("a",), "k") == item


def test_a_search_finds_items_in_the_order_of_their_creation(tmp_path: Path) -> None:
    """A search without a query finds the oldest items first, before and after the journal is opened
    again, as in LangGraph's own store."""
    oracle: Any = InMemoryStore()

    def found(store: Any) -> list[Any]:
        return [(*item.namespace, item.key) for item in store.search((), limit=6)]

    expected = [("b", "z"), ("b", "y"), ("b", "a"), ("a", "x"), ("d", "k"), ("d", "j")]
    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables)
        for each in (store, oracle):
            for namespace, key in [("b", "z"), ("b", "y"), ("a", "x"), ("b", "a"), ("b", "z")]:
                each.put((namespace,), key, {})
            batch = [("d", "k"), ("d", "j"), ("c", "i"), ("a", "x")]
            each.batch([PutOp((namespace,), key, {}) for namespace, key in batch])
        assert found(store) == found(oracle) == expected
    with Tables.open(tmp_path / "journal") as tables:
        assert found(JournalStore(tables)) == found(oracle)


def test_a_put_that_the_journal_refuses_is_not_seen(tmp_path: Path) -> None:
    """A put that raises changes nothing that the store shows."""
    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables)
        store.put(("a",), "k", {"n": 1})
    with pytest.raises(ClosedError):
        store.put(("a",), "k", {"n": 2})
    assert store.get(("a",), "k").value == {"n": 1}


def test_a_refused_put_changes_no_vector(tmp_path: Path) -> None:
    """After a put that raises, a search by meaning gives the items and scores of before."""

    def found(store: Any) -> Any:
        return [(item.value, item.score) for item in store.search(("docs",), query="banana")]

    with Tables.open(tmp_path / "journal", transaction_keys_max=1) as tables:
        store: Any = JournalStore(tables, index=INDEX)
        store.put(("docs",), "k", {"text": "banana"})
        before = found(store)
        with pytest.raises(TransactionTooLargeError):
            store.batch([PutOp(("docs",), key, {"text": f"fig {key}"}) for key in "kl"])
        assert found(store) == before


def test_an_interrupted_put_is_seen_if_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an interrupt, the store shows what is in the journal."""

    def press_ctrl_c(_: object) -> None:
        raise KeyboardInterrupt

    value = {"text": "banana"}
    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables, index=INDEX)
        for key in "kl":
            store.put(("docs",), key, {"text": "fig"})
        with monkeypatch.context() as patch:
            patch.setattr(Publisher, "tidy", press_ctrl_c)  # the rows are written by then
            with pytest.raises(KeyboardInterrupt):
                store.batch([PutOp(("docs",), *put) for put in (("k", value), ("l", None))])
        [item] = store.search(("docs",), query="banana")
        assert (item.key, item.value) == ("k", value)
        assert [item] == JournalStore(tables, index=INDEX).search(("docs",), query="banana")


class Unsteady(JsonPlusSerializer):
    """A serializer that runs `hook` before it deserializes a value."""

    hook: Any = None

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        if self.hook is not None:
            self.hook()
        return super().loads_typed(data)


def test_a_store_shows_what_is_in_the_journal_whatever_its_serializer_raises(
    tmp_path: Path,
) -> None:
    """P2: after an error or an interrupt in the serializer, the store has the items of the journal.
    The serializer may call the store."""
    serde = Unsteady()
    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables, serde=serde)
        store.batch([PutOp(("a",), key, {"n": 1}) for key in "kl"])
        for error in (KeyboardInterrupt, MemoryError):
            hooks = iter([None, error()])

            def strike(hooks: Any = hooks) -> None:
                if (raised := next(hooks, None)) is not None:
                    raise raised

            serde.hook = strike
            puts = [PutOp(("a",), "k", {"n": 2}), PutOp(("a",), "m", {"n": 2})]
            with pytest.raises(error):
                store.batch([*puts, PutOp(("a",), "l", None)])
            serde.hook = None
            assert contents(store) == contents(JournalStore(tables))
        serde.hook = lambda: store.get(("a",), "l")
        store.put(("a",), "k", {"n": 3})
        assert store.get(("a",), "k").value == {"n": 3}


def test_a_put_that_is_interrupted_before_it_is_in_memory_is_seen_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next read, and the next put, find the items of a put that an interrupt cut off right
    after its rows were written."""
    keep = JournalStore._keep

    def keep_and_press_ctrl_c(self: JournalStore, *arguments: Any) -> None:
        keep(self, *arguments)
        raise KeyboardInterrupt

    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables)
        calls: list[Any] = [lambda: store.get(("a",), "k"), lambda: store.put(("b",), "k", {})]
        for number, call in enumerate(calls):
            with monkeypatch.context() as patch:
                patch.setattr(JournalStore, "_keep", keep_and_press_ctrl_c)
                with pytest.raises(KeyboardInterrupt):
                    store.batch([PutOp(("a",), key, {"n": number}) for key in "kl"])
            call()
            assert contents(store) == contents(JournalStore(tables))


class Renamed:
    """A class that the next version of a program lacks."""


def test_an_item_that_cannot_be_deserialized_does_not_affect_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item whose class is gone raises an error that names it, when it is read. The other items
    can be read, and this one can be replaced and deleted."""
    serde = JsonPlusSerializer(pickle_fallback=True)
    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables, serde=serde)
        for key in "kl":
            store.put(("a",), key, {"order": Renamed()})
        store.put(("b",), "m", {"n": 1})
        monkeypatch.delattr(f"{__name__}.Renamed")
        store = JournalStore(tables, serde=serde)
        assert store.get(("b",), "m").value == {"n": 1}
        assert store.list_namespaces() == [("a",), ("b",)]
        reads: list[Any] = [lambda: store.get(("a",), "k"), lambda: store.search(("a",))]
        named = r"item 'k' of namespace \('a',\) .*Renamed.*put"
        for read in reads:
            with pytest.raises(JournalError, match=named):
                read()
        store.put(("a",), "k", {"n": 2})
        store.delete(("a",), "l")
        assert [item.value for item in store.search(())] == [{"n": 2}, {"n": 1}]


def test_an_item_can_be_read_after_an_interrupted_deserialization(tmp_path: Path) -> None:
    """An exception of a signal handler, raised while a store is made, leaves no item unreadable."""

    class Interrupted(JsonPlusSerializer):
        def loads_typed(self, data: Any) -> Any:
            if interrupts:
                raise interrupts.pop()
            return super().loads_typed(data)

    interrupts = [TimeoutError("of a signal handler")]
    with Tables.open(tmp_path / "journal") as tables:
        JournalStore(tables).put(("a",), "k", {"n": 1})
        store = JournalStore(tables, serde=Interrupted())
        assert interrupts == []
        assert [item.value for item in store.search(())] == [{"n": 1}]


def test_an_item_has_the_vectors_of_its_own_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The item and the vectors that are stored are of one put, also if two run at the same time."""
    apply = JournalStore._apply_put_ops
    others = [{"text": "banana"}]

    def apply_late(self: JournalStore, put_ops: Any) -> None:
        if others:
            put = threading.Thread(target=self.put, args=(("docs",), "k", others.pop()))
            put.start()
            put.join(TIMEOUT_S)
        apply(self, put_ops)

    monkeypatch.setattr(JournalStore, "_apply_put_ops", apply_late)
    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables, index=INDEX)
        store.put(("docs",), "k", {"text": "fig"})
        assert store.get(("docs",), "k").value == {"text": "fig"}
        for found in (store, JournalStore(tables, index=INDEX)):
            assert found._vectors["docs",]["k"] == {"text": embed(["fig"])[0]}


def test_only_a_put_changes_an_item(tmp_path: Path) -> None:
    """A change of a value that was put, or that a read has returned, changes no item."""
    value = {"likes": ["figs"]}
    with Tables.open(tmp_path / "journal") as tables:
        store: Any = JournalStore(tables)
        store.put(("a",), "k", value)
        value["likes"].append("nuts")
        store.get(("a",), "k").value["likes"].append("tea")
        store.search(("a",))[0].value["likes"].append("rice")

        async def change() -> None:
            (await store.aget(("a",), "k")).value["likes"].append("peas")

        asyncio.run(change())
        assert store.get(("a",), "k").value == {"likes": ["figs"]}
        assert store.search(("a",)) == JournalStore(tables).search(("a",))


def test_values_and_vectors_of_other_libraries_types_are_stored(tmp_path: Path) -> None:
    """Vectors may be of any sequence of numbers, and bytes of a subclass, as in NumPy."""

    class Number(float):
        pass

    class Data(bytes):
        pass

    class Whole(JsonPlusSerializer):
        def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
            kind, data = super().dumps_typed(obj)
            return kind, Data(data)

    def embed(texts: list[str]) -> Any:
        return [(Number(len(text)), Number(1)) for text in texts]

    index: Any = {"dims": 2, "embed": embed, "fields": ["text"]}
    with Tables.open(tmp_path / "journal") as tables:
        store = JournalStore(tables, index=index, serde=Whole())
        store.put(("a",), "k", {"text": "abc"})
        cache = JournalCache(tables, serde=Whole())
        cache.set({(("a",), "k"): (1, None)})
        assert cache.get([(("a",), "k")]) == {(("a",), "k"): 1}
    with Tables.open(tmp_path / "journal") as tables:
        (found,) = JournalStore(tables, index=index).search(("a",), query="abc")
        assert (found.key, found.score) == ("k", pytest.approx(1))


def test_a_saver_a_store_and_a_cache_share_a_journal() -> None:
    """One journal has the checkpoints, the items and the cache of a program."""
    disk = SimulatedDisk()
    with saver_on(disk) as saver:
        put_steps(saver, 2)
        JournalCache(saver.tables).set({(("a",), "k"): (1, None)})
        JournalStore(saver.tables).put(("a",), "k", {"n": 1})
        disk.power_cut(lose)
    with saver_on(disk) as saver:
        assert steps(saver) == [1, 0]
        assert JournalStore(saver.tables).get(("a",), "k").value == {"n": 1}
        assert JournalCache(saver.tables).get([(("a",), "k")]) == {(("a",), "k"): 1}


def test_a_store_works_in_an_event_loop(tmp_path: Path) -> None:
    """Puts, searches and removals work in an event loop as in threads."""

    async def main() -> None:
        async with JournalSaver.open(tmp_path / "journal") as saver:
            store: Any = JournalStore(saver.tables)
            await asyncio.gather(*(store.aput(("a",), str(n), {"n": n}) for n in range(20)))
            assert len(await store.asearch(("a",), limit=100)) == 20
            await store.adelete(("a",), "3")
            assert await store.aget(("a",), "3") is None
            journal = saver.tables.journal
            assert journal.durable_lsn == journal.last_lsn

    asyncio.run(main())
