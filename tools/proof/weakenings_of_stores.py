"""Weakenings of the adapters that keep sessions, conversations and tasks.

Their tests need the dependency group `adapters`.
"""

from __future__ import annotations

from proof.weakenings import Weakening

_SESSION = ("tests/adapters/test_openai_agents_session.py",)
_COMPACTION = ("tests/adapters/test_openai_agents_compaction.py",)
_SESSION_FOLDER = "journal/adapters/openai_agents"
_CHATS = ("tests/adapters/test_pydantic_ai_store.py",)
_CHATS_FOLDER = "journal/adapters/pydantic_ai"
_A2A = ("tests/adapters/test_a2a_stores.py",)
_A2A_FOLDER = "journal/adapters/a2a"

ALL_OF = (
    Weakening(
        "session_without_wait",
        f"{_SESSION_FOLDER}/_session.py",
        "        await durable(self._tables, lsn)\n",
        "",
        _SESSION,
    ),
    Weakening(
        "changed_suffix_is_replaced",
        f"{_SESSION_FOLDER}/_compaction.py",
        "if extent.end != self.expected_end or texts[len(kept) :] != self.expected:",
        "if texts[len(kept) :] != self.expected:",
        _SESSION,
    ),
    Weakening(
        "session_removal_is_forgotten",
        f"{_SESSION_FOLDER}/_rows.py",
        "            t[self._removals][self.session] = None\n            return True\n",
        "            return True\n",
        _SESSION,
    ),
    Weakening(
        "removed_items_are_read",
        f"{_SESSION_FOLDER}/_rows.py",
        "if number < extent.first or (limit",
        "if (limit",
        _SESSION,
    ),
    *(
        Weakening(name, f"{_SESSION_FOLDER}/{file}", old, new, _COMPACTION)
        for name, file, old, new in (
            ("many_items_replaced_at_once", "_compaction.py", "extent.end - number >", "0 >"),
            ("replacement_loses_older_items", "_compaction.py", "kept = before + kept", "pass"),
            ("half_a_replacement_is_read", "_rows.py", "(after.begun, after.first) ==", "True or"),
        )
    ),
    Weakening(
        "long_list_has_too_many_rows",
        f"{_SESSION_FOLDER}/_rows.py",
        "-(-len(texts) // _ROWS_A_LIST)",
        "0",
        _SESSION,
    ),
    Weakening(
        "conversation_without_wait",
        f"{_CHATS_FOLDER}/_store.py",
        "        await durable(self._rows.tables, lsn)\n",
        "",
        _CHATS,
    ),
    Weakening(
        "stale_conversation_is_saved",
        f"{_CHATS_FOLDER}/_store.py",
        "if (stored.revision if stored else None) != expected_revision or not (",
        "if not (",
        _CHATS,
    ),
    Weakening(
        "stale_conversation_is_deleted",
        f"{_CHATS_FOLDER}/_store.py",
        "if stored is None or stored.revision != expected_revision:",
        "if stored is None:",
        _CHATS,
    ),
    Weakening(
        "conversation_without_its_head_is_saved",
        f"{_CHATS_FOLDER}/_store.py",
        "head is None or head in entries or self._rows.entry(head, t)",
        "True",
        _CHATS,
    ),
    Weakening(
        "conversation_that_cannot_be_read_is_saved",
        f"{_CHATS_FOLDER}/_store.py",
        "        adapter.validate_json(data)\n",
        "        pass\n",
        _CHATS,
    ),
    Weakening(
        "conversation_deletion_is_forgotten",
        f"{_CHATS_FOLDER}/_store.py",
        "        if not self._has_released:\n",
        "        if False:\n",
        _CHATS,
    ),
    Weakening(
        "shared_messages_are_deleted",
        f"{_CHATS_FOLDER}/_rows.py",
        "if t[self._counts].get(current, 1) > 1:",
        "if False:",
        _CHATS,
    ),
    Weakening(
        "old_place_of_a_conversation_stays",
        f"{_CHATS_FOLDER}/_rows.py",
        "for table, key in self._places(conversation, old) if old else ():",
        "for table, key in ():",
        _CHATS,
    ),
    Weakening(
        "task_without_wait",
        f"{_A2A_FOLDER}/_store.py",
        "        await durable(self.tables, lsn)\n        return TaskVersion(version)\n",
        "        return TaskVersion(version)\n",
        _A2A,
    ),
    Weakening(
        "stale_task_is_saved",
        f"{_A2A_FOLDER}/_store.py",
        "is_allowed = stored == prev_version",
        "is_allowed = True",
        _A2A,
    ),
    Weakening(
        "a_save_reads_its_task_later",
        f"{_A2A_FOLDER}/_store.py",
        "self._write, owner=owner, task_id=task_id, row=row, prev_version=prev_version",
        "lambda t: self._write(t, owner, task_id, row_of(task), prev_version)",
        _A2A,
    ),
    Weakening(
        "ended_task_is_canceled",
        f"{_A2A_FOLDER}/_store.py",
        "is_allowed = old is not None and old.state not in _TERMINAL",
        "is_allowed = old is not None",
        _A2A,
    ),
    Weakening(
        "old_place_of_a_task_stays",
        f"{_A2A_FOLDER}/_rows.py",
        "            if old and old_key != key:\n",
        "            if False:\n",
        _A2A,
    ),
    Weakening(
        "version_is_used_twice",
        f"{_A2A_FOLDER}/_rows.py",
        "max(self._tables.journal.last_lsn, old.version if old else 0) + 1",
        "(old.version if old else 0) + 1",
        _A2A,
    ),
)
