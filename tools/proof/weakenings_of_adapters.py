"""Weakenings of the adapters. Their tests need the dependency group `adapters`."""

from __future__ import annotations

from proof.weakenings import Weakening

_SAVER = ("tests/adapters/test_langgraph_saver.py",)
_STORE = ("tests/adapters/test_langgraph_store.py",)
_FOLDER = "journal/adapters/langgraph"
_SESSION = ("tests/adapters/test_openai_agents_session.py",)
_SESSION_FOLDER = "journal/adapters/openai_agents"

ALL_OF = (
    Weakening(
        "saver_put_without_wait",
        f"{_FOLDER}/_saver.py",
        "        if self._waits_for(metadata):\n            self._saved.wait(lsn)\n",
        "",
        _SAVER,
    ),
    Weakening(
        "saver_writes_without_wait",
        f"{_FOLDER}/_saver.py",
        "self._saved.wait(self._saved.commit(write))",
        "self._saved.commit(write)",
        _SAVER,
    ),
    Weakening(
        "saver_rebuilds_any_type",
        f"{_FOLDER}/_saver.py",
        "JsonPlusSerializer(allowed_msgpack_modules=None)",
        "JsonPlusSerializer(allowed_msgpack_modules=True)",
        _SAVER,
    ),
    Weakening(
        "delta_ancestors_are_removed",
        f"{_FOLDER}/_retention.py",
        "                kept.add(parent)\n",
        "",
        _SAVER,
    ),
    Weakening(
        "used_values_are_removed",
        f"{_FOLDER}/_retention.py",
        "for row in gone for pair in row.refs.items()} - used",
        "for row in gone for pair in row.refs.items()}",
        _SAVER,
    ),
    Weakening(
        "subgraphs_of_removed_checkpoints_stay",
        f"{_FOLDER}/_put.py",
        "if head is None and self.root is not None:",
        "if False:",
        _SAVER,
    ),
    Weakening(
        "equal_versions_share_a_value",
        f"{_FOLDER}/_put.py",
        "            if stored == typed:\n",
        "            if stored:\n",
        _SAVER,
    ),
    Weakening(
        "interrupted_removal_is_forgotten",
        f"{_FOLDER}/_saver.py",
        "        drop_all_doomed(self._saved)\n",
        "",
        _SAVER,
    ),
    Weakening(
        "half_a_checkpoint_is_returned",
        f"{_FOLDER}/_reads.py",
        "if (*place, found) in saved.checkpoints and None not in values.values():",
        "if True:",
        _SAVER,
    ),
    Weakening(
        "store_batch_without_wait",
        f"{_FOLDER}/_store.py",
        "            self._tables.sync()\n",
        "            pass\n",
        _STORE,
    ),
    Weakening(
        "store_shows_what_was_refused",
        f"{_FOLDER}/_store.py",
        "        if not put_ops:\n            return\n",
        "        super()._apply_put_ops(dict(put_ops))\n",
        _STORE,
    ),
    Weakening(
        "session_without_wait",
        f"{_SESSION_FOLDER}/_session.py",
        "            await self._tables.journal.durable(lsn)\n",
        "            pass\n",
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
)
