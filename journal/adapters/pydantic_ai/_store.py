"""JournalConversationStore: conversations of Pydantic AI in a journal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Any

import pydantic
from pydantic_ai.conversation_store import (
    ConversationConflict,
    ConversationEntry,
    ConversationRecord,
    ConversationStore,
)
from pydantic_ai.messages import ModelMessagesTypeAdapter

from journal import JournalError, Tables, Transaction
from journal.adapters._commits import acommit, durable
from journal.adapters._size import LARGE_BYTES, is_large
from journal.adapters._strings import plain
from journal.adapters.pydantic_ai._rows import (
    ConversationTables,
    EntryRow,
    RecordRow,
    microseconds,
)

_ATTEMPTS = 100  # of a list, each after a change by another thread in the middle of it
# As Pydantic AI's adapter of messages, whose settings reach values of any type.
_RecordsTypeAdapter = pydantic.TypeAdapter(
    list[ConversationRecord],
    config=pydantic.ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"),
)


class JournalConversationStore(ConversationStore):
    """A conversation store for Pydantic AI whose conversations survive a crash.

        async with Tables.aopen("chats.d") as tables:
            store = JournalConversationStore(tables)

    A save, branch, fork or deletion is durable when it returns, and is there after a crash as a
    whole, or not at all. One of two changes of the same revision is refused. Each call returns
    copies. Tasks and threads may share it.
    """

    def __init__(self, tables: Tables) -> None:
        """Keep conversations in open tables, in those whose names begin with `pydantic_ai.`."""
        self._rows = ConversationTables(tables)
        self._has_released = False  # what an interrupted deletion has left

    async def read_record(self, conversation_id: str) -> ConversationRecord | None:
        """Return the record of a conversation, or None. Raises JournalError if it can't be read."""
        row = self._rows.record(conversation_id)
        return None if row is None else _record_of(conversation_id, row)

    async def read_records(
        self, *, scope: str | None = None, limit: int | None = None
    ) -> Sequence[ConversationRecord]:
        """Return the records of a scope, or all, the last saved first, at most `limit` of them.

        Raises JournalError if one of them can't be read, and names it: a list without it would look
        like a list of all.
        """
        for _ in range(_ATTEMPTS):
            positions = [*islice(self._rows.positions(scope), limit)]
            found = [(name, self._rows.record(name)) for *_, name in positions]
            if all(
                row is not None and (row.updated_us, -row.begun) == (moment, begun)
                for (_, row), (moment, begun, _) in zip(found, positions, strict=True)
            ):
                return [_record_of(name, row) for name, row in found if row is not None]
        raise JournalError(
            "the lists of conversations don't match the conversations; check that only "
            "JournalConversationStore writes to the tables `pydantic_ai.*`"
        )

    async def write_record(
        self,
        record: ConversationRecord,
        *,
        new_entries: Sequence[ConversationEntry] = (),
        expected_revision: str | None,
    ) -> None:
        """Store a record and new entries in one transaction, and wait until they survive a crash.

        Raises ConversationConflict if the stored revision is not `expected_revision`, or if the
        entry `head_id` is missing, and ValueError if the record or a message can't be written as
        JSON or could not be read back; nothing is stored then. Raises TransactionTooLargeError for
        more new entries than some half of the tables' `transaction_keys_max`, and what `durable`
        raises.
        """
        row = _row_of(record)
        dump = partial(_dumped_entries, new_entries)
        is_long = is_large([entry.message for entry in new_entries])
        entries = await asyncio.to_thread(dump) if is_long else dump()

        def write(t: Transaction) -> None:
            stored = self._rows.record(record.conversation_id, t)
            head = record.head_id
            if (stored.revision if stored else None) != expected_revision or not (
                head is None or head in entries or self._rows.entry(head, t)
            ):
                raise ConversationConflict(record.conversation_id)
            self._rows.write(t, record.conversation_id, row, stored, entries)

        if not self._has_released:
            await self._release()
        await self._durably(write)

    async def delete_record(self, conversation_id: str, *, expected_revision: str) -> None:
        """Delete a record and all entries that no history or branch has any more, and wait until
        that survives a crash.

        The record goes at once, and the entries in slices. After a crash in between, the next
        change deletes the rest. Raises ConversationConflict if the stored revision is not
        `expected_revision`.
        """

        def write(t: Transaction) -> None:
            stored = self._rows.record(conversation_id, t)
            if stored is None or stored.revision != expected_revision:
                raise ConversationConflict(conversation_id)
            self._rows.delete(t, conversation_id, stored)

        await self._durably(write)
        await self._release()
        await self._rows.tables.durable()

    async def delete(self, conversation_id: str, *, scope: str | None = None) -> None:
        """Do what Pydantic AI's `delete` does, even for a conversation that can't be read."""
        while (row := self._rows.record(conversation_id)) is not None:
            if scope not in (None, row.scope):
                return
            with suppress(ConversationConflict):  # it was saved meanwhile: delete what was saved
                await self.delete_record(conversation_id, expected_revision=row.revision)
                return

    async def read_entry(self, entry_id: str) -> ConversationEntry:
        """Return an entry. Raises KeyError if it is missing."""
        return (await self._load([(entry_id, self._entry(entry_id))]))[0]

    async def read_history(
        self, head_id: str | None, *, limit: int | None = None
    ) -> list[ConversationEntry]:
        """Return the entries up to `head_id`, the oldest first, or only the last `limit` of them.

        A long history is deserialized in a thread. Raises KeyError if an entry is missing, and
        JournalError if one can't be read.
        """
        found: list[tuple[str, EntryRow]] = []
        while head_id is not None and (limit is None or len(found) < limit):
            row = self._entry(head_id)
            found.append((head_id, row))
            head_id = row.parent
        return await self._load(found[::-1])

    def _entry(self, entry_id: str) -> EntryRow:
        row = self._rows.entry(entry_id)
        if row is None:
            raise KeyError(entry_id)
        return row

    async def _load(self, found: list[tuple[str, EntryRow]]) -> list[ConversationEntry]:
        if sum(len(row.data) for _, row in found) > LARGE_BYTES:
            return await asyncio.to_thread(_loaded_entries, found)
        return _loaded_entries(found)

    async def _durably(self, write: Callable[[Transaction], None]) -> None:
        """Call `write` with a transaction, and wait until it survives a crash."""
        _, lsn = await acommit(self._rows.tables, write)
        await durable(self._rows.tables, lsn)

    async def _release(self) -> None:
        """Delete all entries to which nothing refers. Nothing waits for the disk."""
        tables = self._rows.tables
        for key in self._rows.deleted():
            while (await acommit(tables, partial(self._rows.forget, key=key)))[0]:
                pass
        for entry in self._rows.unused():
            current: str | None = entry
            while current is not None:
                release = partial(self._rows.release, entry=current)
                current, _ = await acommit(tables, release)
        self._has_released = True


def _row_of(record: ConversationRecord) -> RecordRow:
    head = [] if record.head_id is None else [record.head_id]
    ends = [*dict.fromkeys([*head, *record.branches])]
    data = _dumped(_RecordsTypeAdapter, record, f"conversation {record.conversation_id!r:.80}")
    updated_us = microseconds(record.updated_at)
    return RecordRow(record.revision, updated_us, 0, plain(record.scope), ends, data)


def _record_of(conversation_id: str, row: RecordRow) -> ConversationRecord:
    try:
        return _RecordsTypeAdapter.validate_json(row.data)[0]
    except pydantic.ValidationError as error:
        raise _unreadable(f"conversation {conversation_id!r:.80}", error) from error


def _dumped_entries(entries: Sequence[ConversationEntry]) -> dict[str, EntryRow]:
    return {
        entry.id: EntryRow(
            entry.parent_id,
            entry.kind,
            _dumped(ModelMessagesTypeAdapter, entry.message, f"message {number} of the new ones"),
        )
        for number, entry in enumerate(entries, 1)
    }


def _loaded_entries(found: list[tuple[str, EntryRow]]) -> list[ConversationEntry]:
    texts = (row.data[1:-1] for _, row in found)  # each is a list of one message
    try:
        messages = ModelMessagesTypeAdapter.validate_json(b"[" + b",".join(texts) + b"]")
    except pydantic.ValidationError as error:
        raise _unreadable(f"a history that ends with entry {found[-1][0]}", error) from error
    return [
        ConversationEntry(id=entry, parent_id=row.parent, message=message, kind=row.kind)
        for (entry, row), message in zip(found, messages, strict=True)
    ]


def _dumped(adapter: pydantic.TypeAdapter[Any], item: object, name: str) -> bytes:
    """Return a list of one item as JSON. Raises ValueError if it can't be written or could not be
    read back: Pydantic writes values of wrong types and integers of any size, and reads neither."""
    try:
        data: bytes = adapter.dump_json([item])
    except ValueError as error:  # for half a surrogate pair, for example
        raise _refused(name, f"it can't be written as JSON ({error})") from error
    try:
        adapter.validate_json(data)
    except pydantic.ValidationError as error:
        raise _refused(name, f"its JSON could not be read back ({_reason(error)})") from error
    return data


def _refused(name: str, why: str) -> ValueError:
    return ValueError(f"{name} can't be stored, because {why}; nothing was stored")


def _unreadable(name: str, error: pydantic.ValidationError) -> JournalError:
    return JournalError(
        f"{name} can't be read by this version of Pydantic AI ({_reason(error)}); use the version "
        "that saved it, or delete the conversation with JournalConversationStore.delete"
    )


def _reason(error: pydantic.ValidationError) -> str:
    """Return the field and the problem of the first mistake that Pydantic has found."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"][1:]))  # within the list of one item
    return f"{place}: {first['msg']}" if place else first["msg"]
