"""Weakenings of LangGraph's adapters and of what all adapters share.

Their tests need the dependency group `adapters`.
"""

from __future__ import annotations

from proof.weakenings import Weakening

_SAVER = ("tests/adapters/test_langgraph_saver.py",)
_PARTS = ("tests/adapters/test_langgraph_parts.py",)
_THREADS = ("tests/adapters/test_langgraph_threads.py",)
_STORE = ("tests/adapters/test_langgraph_store.py",)
_FOLDER = "journal/adapters/langgraph"
_TURNS = ("tests/adapters/test_turns.py",)

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
        "self._saved.wait(self._threads.commit(write))",
        "self._threads.commit(write)",
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
        "used_values_are_removed",
        f"{_FOLDER}/_retention.py",
        "        unused.difference_update(row.refs.items())\n",
        "        pass\n",
        _SAVER,
    ),
    Weakening(
        "puts_into_doomed_threads_do_not_wait",
        f"{_FOLDER}/_put.py",
        "        if prefix in doomed:\n",
        "        if False:\n",
        _THREADS,
    ),
    *(
        Weakening(name, f"{_FOLDER}/_retention.py", old, new, _THREADS)
        for name, old, new in (
            ("removals_go_on_after_their_end", "prefix in t[saved.doomed] and", "True or"),
            ("late_removals_end_the_next_one", "t[saved.doomed].get(prefix) == mark", "True"),
            ("removals_stop_when_another_joins", "if prefix not in t[saved.doomed]:", "if True:"),
            ("threads_that_were_put_again_expire", "not has_expired(deadline, now):", "False:"),
        )
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
        "            if value(saved, self.place, channel, reference) == typed:\n",
        "            if True:\n",
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
        "parts_of_removed_values_stay",
        f"{_FOLDER}/_retention.py",
        "        delete_parts(t, saved, owner_of_value(place, channel, reference))\n",
        "",
        _PARTS,
    ),
    Weakening(
        "parts_of_replaced_writes_stay",
        f"{_FOLDER}/_parts.py",
        "    delete_parts(t, saved, owner)\n    starts",
        "    starts",
        _PARTS,
    ),
    Weakening(
        "copy_without_writes",
        f"{_FOLDER}/_threads.py",
        "        t[saved.writes][key] = [channel, kind, path, *parts]\n",
        "",
        _PARTS,
    ),
    Weakening(
        "removals_finish_in_the_event_loop",
        f"{_FOLDER}/_opening.py",
        "made = await asyncio.to_thread(self._make, tables)",
        "made = self._make(tables)",
        ("tests/adapters/test_langgraph_opening.py",),
    ),
    Weakening(
        "half_a_checkpoint_is_returned",
        f"{_FOLDER}/_reads.py",
        "if is_there and writes is not None and None not in values.values():",
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
    *(
        Weakening(name, f"{_FOLDER}/_store.py", old, new, _STORE)
        for name, old, new in (
            (
                "interrupted_put_is_not_in_memory",
                "            self._catch_up()\n            return super()",
                "            return super()",
            ),
            ("refused_value_is_in_memory", "elif typed is not None and", "elif True or"),
            ("removed_items_leave_a_namespace", "if not self[namespace]:", "if False:"),
            ("batch_has_no_order", "now + timedelta(microseconds=number)", "now"),
            ("one_item_closes_the_store", "except Exception as error:", "except OSError as error:"),
        )
    ),
    Weakening(
        "store_shows_what_was_refused",
        f"{_FOLDER}/_store.py",
        "        if not put_ops:\n            return\n",
        "        super()._apply_put_ops(dict(put_ops))\n",
        _STORE,
    ),
    Weakening(
        "waiters_continue_at_the_same_time",
        "journal/adapters/_commits.py",
        "    await turn()\n",
        "",
        _TURNS,
    ),
    Weakening(
        "path_is_taken_for_open_tables",
        "journal/adapters/_tables.py",
        'if not hasattr(tables, "table"):',
        "if False:",
        ("tests/adapters/test_tables_of_stores.py",),
    ),
    Weakening(
        "name_of_an_enum_is_taken_for_its_value",
        "journal/adapters/_strings.py",
        "return str.__str__(value)",
        "return str(value)",
        ("tests/adapters/test_strings.py",),
    ),
    *(
        Weakening(name, "journal/adapters/_turns.py", old, new, _TURNS)
        for name, old, new in (
            (
                "interrupt_ends_the_turns",
                "        if not self._has_run:\n            self._next()\n",
                "",
            ),
            ("paused_task_continues_at_once", "    await asyncio.sleep(0)\n", ""),
            (
                "paused_tasks_continue_at_the_same_time",
                "    await asyncio.sleep(0)\n    await turn()\n",
                "    await asyncio.sleep(0)\n",
            ),
            (
                "cancelled_waiter_keeps_its_turn",
                "            if not waiter.done():\n",
                "            if True:\n",
            ),
        )
    ),
    *(
        Weakening(
            name,
            f"{_FOLDER}/_saver.py",
            f"        await pause()\n        {after}",
            f"        {after}",
            _SAVER,
        )
        for name, after in (
            ("put_without_a_pause", "merged = "),
            ("put_writes_without_a_pause", "large = "),
            ("read_without_a_pause", "read = "),
            ("no_pause_after_a_read", "return found"),
        )
    ),
)
