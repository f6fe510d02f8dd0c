"""JournalConversationStore beside Pydantic AI's own store, and what only it promises."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journal import JournalError, Options, Tables, TransactionTooLargeError
from journal.testing import SimulatedDisk, lose
from tests.installed import import_package
from tests.tiers import examples

import_package("pydantic_ai.conversation_store")

from pydantic_ai.conversation import Conversation  # noqa: E402
from pydantic_ai.conversation_store import (  # noqa: E402
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    InMemoryConversationStore,
)
from pydantic_ai.messages import (  # noqa: E402
    ModelRequest,
    ModelResponse,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.usage import RunUsage  # noqa: E402

from journal.adapters.pydantic_ai import JournalConversationStore  # noqa: E402

OPTIONS = Options(segment_bytes=1 << 20)
NAMES, SCOPES = ("a", "b", "a\0"), (None, "", "s")
START = datetime(2026, 1, 1, tzinfo=UTC)
CHOICES = st.integers(0, 7)
# conversation, scope, seconds, head, branches, whether its revision is the stored one, new entries
WRITES = st.tuples(
    st.just("write"), st.sampled_from(NAMES), st.sampled_from(SCOPES), st.integers(0, 2),
    st.none() | CHOICES, st.lists(CHOICES, max_size=3), st.sampled_from((True, True, True, False)),
    st.lists(st.none() | CHOICES, max_size=3),
)  # fmt: skip
DELETES = st.tuples(st.just("delete"), st.sampled_from(NAMES), st.booleans())
STEPS = st.lists(WRITES | WRITES | DELETES | st.just(("crash",)), max_size=14)


def message(text: str) -> Any:
    return ModelRequest(parts=[UserPromptPart(content=text, timestamp=START)])


def texts(conversation: Any) -> list[str]:
    return [part.parts[0].content for part in conversation.messages]


async def outcome(awaited: Any) -> Any:
    """Return the result, or the type of the exception."""
    try:
        return await awaited
    except (ConversationConflict, KeyError) as error:
        return type(error)


class Pair:
    """A JournalConversationStore beside Pydantic AI's own, and the entries that they were given."""

    def __init__(self) -> None:
        self.disk, self.oracle = SimulatedDisk(), InMemoryConversationStore()
        self.tables, self.store = self._opened()
        self.ids: list[str] = []

    async def write(
        self, name: str, scope: Any, seconds: int, head: Any, branches: Any, is_current: bool,
        parents: list[Any],
    ) -> None:  # fmt: skip
        """Write a record with new entries, to both stores."""
        entries: list[Any] = []
        for parent in parents:
            new = f"e{len(self.ids)}"
            known = parent is not None and self._pick(parent, entries)
            entries.append(ConversationEntry(id=new, parent_id=known or None, message=message(new)))
            self.ids.append(new)
        stored = await self.oracle.read_record(name)
        record = ConversationRecord(
            conversation_id=name,
            head_id=self.ids[head % len(self.ids)] if head is not None and self.ids else None,
            usage=RunUsage(requests=seconds),
            scope=scope,
            branches=[found for index in branches if (found := self._pick(index, entries))],
            revision=f"r{len(self.ids)}.{seconds}.{head}",
            updated_at=START + timedelta(seconds=seconds),
        )
        expected = (stored.revision if stored else None) if is_current else "another"
        await self._both("write_record", record, new_entries=entries, expected_revision=expected)

    async def delete(self, name: str, is_current: bool) -> None:
        """Delete a record from both stores."""
        stored = await self.oracle.read_record(name)
        expected = stored.revision if stored and is_current else "another"
        await self._both("delete_record", name, expected_revision=expected)

    async def crash(self) -> None:
        """Cut the power, and open the tables again. The oracle drops its unused entries, too."""
        self.disk.power_cut(lose)
        self.tables.close()
        self.tables, self.store = self._opened()
        for store in (self.oracle, self.store):
            unused = ConversationRecord(conversation_id="unused", head_id=None, revision="r")
            await store.write_record(unused, expected_revision=None)
            await store.delete_record("unused", expected_revision="r")

    async def compare(self) -> None:
        """Compare everything that the stores return."""
        for name in NAMES:
            await self._both("read_record", name)
        for scope in SCOPES:
            for limit in (None, 0, 1, 2):
                await self._both("read_records", scope=scope, limit=limit)
        for entry in self.ids:
            await self._both("read_entry", entry)
            await self._both("read_history", entry, limit=2)
            await self._both("read_history", entry)

    def _opened(self) -> tuple[Tables, JournalConversationStore]:
        tables = Tables.open("/journal", disk=self.disk, options=OPTIONS)
        return tables, JournalConversationStore(tables)

    def _pick(self, index: int, entries: list[Any]) -> str | None:
        """Return an entry that the oracle has, or one of the new ones, or None."""
        known = [*self.oracle._entries, *(entry.id for entry in entries)]
        return known[index % len(known)] if known else None

    async def _both(self, name: str, *arguments: Any, **named: Any) -> None:
        ours = await outcome(getattr(self.store, name)(*arguments, **named))
        assert ours == await outcome(getattr(self.oracle, name)(*arguments, **named))


@given(STEPS)
@settings(max_examples=examples(60), deadline=None)
def test_a_store_is_as_pydantic_ais_after_power_cuts(steps: list[Any]) -> None:
    """P2: a store returns what Pydantic AI's own does, refuses the same changes, and has the same
    entries, also after power cuts. Nothing is left once all conversations are deleted."""

    async def main() -> None:
        pair = Pair()
        try:
            for name, *arguments in steps:
                await getattr(pair, name)(*arguments)
            await pair.compare()
            for name in NAMES:
                await pair.delete(name, True)
            await pair.crash()
            assert pair.tables.names() == []
        finally:
            pair.tables.close()

    asyncio.run(main())


def on_disk(main: Any, **arguments: Any) -> None:
    """Run a coroutine function with open tables."""
    with Tables.open("/journal", disk=SimulatedDisk(), options=OPTIONS, **arguments) as tables:
        asyncio.run(main(tables))


def test_a_change_of_a_conversation_is_durable_when_its_method_returns() -> None:
    """P2: a saved, branched, forked or deleted conversation is durable when the call returns."""

    async def main(tables: Tables) -> None:
        store, journal = JournalConversationStore(tables), tables.journal

        async def check(awaited: Any) -> Any:
            before, result = journal.last_lsn, await awaited
            assert journal.durable_lsn == journal.last_lsn > before
            return result

        chat = Conversation(conversation_id="c", messages=[message("1"), message("2")])
        await check(store.save(chat))
        await check(store.branch("c", at=1, expected_revision=chat.revision))
        await check(store.fork("c"))
        await check(store.delete("c"))

    on_disk(main)


def test_saves_of_many_threads_lose_nothing() -> None:
    """Of the saves of one revision, one succeeds, and the others are refused inside of the
    transaction and leave nothing behind. All messages of the others are there in the end."""

    def main_of_thread(store: Any, thread: int) -> None:
        async def main() -> None:
            for number in range(8):
                while True:
                    chat = await store.load("c") or Conversation(conversation_id="c")
                    chat.messages.append(message(f"{thread}.{number}"))
                    try:
                        await store.save(chat)
                        break
                    except ConversationConflict:
                        continue

        asyncio.run(main())

    async def check(tables: Tables) -> None:
        store = JournalConversationStore(tables)
        threads = [threading.Thread(target=main_of_thread, args=(store, n)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join, 60)
        expected = {f"{thread}.{number}" for thread in range(4) for number in range(8)}
        assert sorted(texts(await store.load("c"))) == sorted(expected)
        assert len(tables.table("pydantic_ai.entries")) == len(expected)

    on_disk(check)


@pytest.mark.parametrize("name", ["forget", "release"])
def test_an_interrupted_deletion_is_finished_by_the_next_change(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entries of a conversation whose deletion was interrupted are gone after the next save,
    and those that a fork shares stay."""

    async def main(tables: Tables) -> None:
        store: Any = JournalConversationStore(tables)
        chat = Conversation(conversation_id="c", messages=[message("1"), message("2")])
        await store.save(chat)
        fork = await store.fork("c", at=1)
        with monkeypatch.context() as patch:
            patch.setattr(f"journal.adapters.pydantic_ai._rows.ConversationTables.{name}", None)
            with pytest.raises(TypeError):
                await store.delete("c")
        assert await store.load("c") is None
        assert len(tables.table("pydantic_ai.entries")) == 2
        await JournalConversationStore(tables).save(Conversation())
        assert len(tables.table("pydantic_ai.entries")) == 1
        assert texts(await store.load(fork.conversation_id)) == ["1"]

    on_disk(main)


def test_a_long_conversation_with_many_branches_is_deleted() -> None:
    """A deletion takes as many transactions as it needs. A save of too many messages is refused,
    and leaves nothing behind."""

    async def main(tables: Tables) -> None:
        store = JournalConversationStore(tables)
        chat = Conversation(conversation_id="c")
        with pytest.raises(TransactionTooLargeError):
            await store.save(Conversation(messages=[message("x")] * 510))
        assert tables.names() == []
        longest = Conversation(conversation_id="longest", messages=[message("x")] * 490)
        await store.save(longest)
        await store.delete("longest")
        assert tables.names() == []
        for turn in range(5):
            chat.messages.extend([message(f"{turn}")] * 300)
            await store.save(chat)
        record = await store.read_record("c")
        assert record is not None
        entries = [entry.id for entry in await store.load_entries("c") or ()]
        revision = record.revision
        for stop in range(100, len(entries) + 1, 100):
            record.branches, record.revision = entries[:stop], f"{stop}"
            await store.write_record(record, expected_revision=revision)
            revision = record.revision
        await store.delete("c")
        assert tables.names() == []

    on_disk(main)


def test_large_messages_are_serialized_off_the_event_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A thread serializes and deserializes large messages, and no thread small ones."""
    calls, in_thread = [], asyncio.to_thread

    async def watched(function: Any, *arguments: Any) -> Any:
        calls.append(function)
        return await in_thread(function, *arguments)

    async def main(tables: Tables) -> None:
        store = JournalConversationStore(tables)
        for text, count in (("x", 0), ("x" * 100_000, 2)):
            chat = Conversation(messages=[message(text)])
            await store.save(chat)
            loaded = await store.load(chat.conversation_id)
            assert texts(loaded) == [text]
            assert len(calls) == count

    monkeypatch.setattr(asyncio, "to_thread", watched)
    on_disk(main)


UNREADABLE: Any = {
    "a number of tokens that is no integer": Conversation(
        usage=RunUsage(input_tokens=cast(Any, 2.75))
    ),
    "an integer of 5,000 digits": Conversation(
        messages=[ModelRequest(parts=[ToolReturnPart("tool", 10**4999, tool_call_id="1")])]
    ),
    "half a surrogate pair": Conversation(messages=[message("\ud83d")]),
    "an unknown reason to finish": Conversation(
        messages=[ModelResponse(parts=[], finish_reason=cast(Any, "stop_sequence"))]
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pydantic's own, about a wrong type
@pytest.mark.parametrize("conversation", UNREADABLE.values(), ids=UNREADABLE)
def test_a_save_that_could_not_be_read_back_is_refused(conversation: Any) -> None:
    """P2: a save is acknowledged only if the conversation can be loaded, and a refused one leaves
    nothing behind."""

    async def main(tables: Tables) -> None:
        store = JournalConversationStore(tables)
        with pytest.raises(ValueError, match=r"^(conversation|message 1) .*; nothing was stored"):
            await store.save(conversation)
        assert tables.names() == []
        assert conversation.revision is None

    on_disk(main)


def test_a_conversation_that_cannot_be_read_is_named_and_deleted() -> None:
    """An error names a conversation that another version has saved and this one can't read, and
    `delete` deletes it in its scope. The others can be read all the time."""

    async def main(tables: Tables) -> None:
        store = JournalConversationStore(tables)
        for name in "ab":
            await store.save(
                Conversation(conversation_id=name, messages=[message(name)]), scope=name
            )
        records, entries = (tables.table(f"pydantic_ai.{name}") for name in ("records", "entries"))
        entry = records["a"][4][0]
        entries[entry] = [*entries[entry][:2], b'[{"kind": "request", "parts": 1}]']
        with pytest.raises(JournalError, match=r"history .* can't .*request.parts: .*delete"):
            await store.load("a")
        records["a"] = [*records["a"][:5], b'[{"conversation_id": "a"}]']
        for read in (store.list_conversations, partial(store.load, "a")):
            with pytest.raises(JournalError, match=r"conversation 'a' can't .*head_id: .*delete"):
                await read()
        assert texts(await store.load("b")) == ["b"]
        assert len(await store.list_conversations(scope="b")) == 1
        await store.delete("a", scope="b")
        assert "a" in records
        await store.delete("a", scope="a")
        assert [record.conversation_id for record in await store.list_conversations()] == ["b"]
        assert len(entries) == 1

    on_disk(main)


class Names(StrEnum):
    """The ids and scopes of a program's conversations."""

    ADA = "ada"


def test_ids_and_scopes_may_be_of_a_subclass_of_str() -> None:
    """A member of a StrEnum is the id and the scope that a string of its text is."""

    async def main(tables: Tables) -> None:
        store = JournalConversationStore(tables)
        chat = Conversation(conversation_id=Names.ADA, messages=[message("1")])
        await store.save(chat, scope=Names.ADA)
        for name in (Names.ADA, "ada"):
            assert texts(await store.load(name, scope=name)) == ["1"]
            assert len(await store.list_conversations(scope=name)) == 1
        await store.delete(Names.ADA, scope=Names.ADA)
        assert tables.names() == []

    on_disk(main)


def test_a_conversation_that_is_saved_meanwhile_is_deleted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A deletion also deletes what another task has saved since it began."""

    async def main(tables: Tables) -> None:
        store = JournalConversationStore(tables)
        chat = Conversation(conversation_id="c", messages=[message("1")])
        await store.save(chat)
        delete_record, saves = store.delete_record, [chat]

        async def delete_late(*arguments: Any, **named: Any) -> None:
            while saves:
                await store.save(saves.pop())
            await delete_record(*arguments, **named)

        monkeypatch.setattr(store, "delete_record", delete_late)
        await store.delete("c")
        assert tables.names() == []

    on_disk(main)
