"""Weakenings of the rows of large CowTables."""

from __future__ import annotations

from proof.weakenings import Weakening

TABLE, ROWS = "journal/_state/cow_table.py", "journal/_state/many_rows.py"
ON_TABLES = ("tests/tables/test_many_rows.py", "tests/tables/test_table.py")
ON_INTERRUPTS = ("tests/kernel/test_interrupt_cow_table.py",)
_END_REMOVAL = (
    "        if self._removal is not None:\n            self._end_removal(self._removal)\n"
)

ALL_OF = (
    Weakening(
        "update_passes_over_a_subclass",
        TABLE,
        "not (is_own and self._add_cells(pairs))",
        "not self._add_cells(pairs)",
        ON_TABLES,
    ),
    Weakening(
        "interrupted_update_leaves_cells",
        TABLE,
        "            del cells[len(self._by_key) :]\n        return True\n",
        "            pass\n        return True\n",
        ON_INTERRUPTS,
    ),
    Weakening(
        "failed_update_leaves_cells_that_no_search_finds",
        TABLE,
        "            del cells[len(self._by_key) :]\n        return True\n",
        "            if len(self._by_key) == place:\n                del cells[place:]\n"
        "        return True\n",
        ON_INTERRUPTS,
    ),
    Weakening(
        "keys_of_any_kind_get_cells_together",
        TABLE,
        "if not (is_room and are_plain) or any(",
        "if not is_room or any(",
        ON_INTERRUPTS,
    ),
    Weakening(
        "known_keys_get_cells_together",
        TABLE,
        " or any(map(self._by_key.get, pairs)):",
        ":",
        ON_TABLES,
    ),
    Weakening(
        "more_cells_than_there_is_room_for",
        TABLE,
        "is_room = self._many is None and place + len(pairs) <= self._cells_max",
        "is_room = self._many is None",
        ON_TABLES,
    ),
    Weakening(
        "row_of_another_key_returned",
        ROWS,
        "                if found is key or found == key:\n",
        "                if True:\n",
        ON_TABLES,
    ),
    Weakening(
        "place_not_read_again",
        ROWS,
        "            place, before = bucket.get(key), place\n",
        "            place = None\n",
        ON_TABLES,
    ),
    Weakening(
        "images_in_newer_snapshots_missed",
        TABLE,
        "is_unchanged = not images and self._newer is None\n",
        "is_unchanged = not images\n",
        ("tests/tables/test_table.py",),
    ),
    Weakening(
        "search_between_two_places_missed",
        TABLE,
        "many.find(key) or self._by_key.get(key)\n",
        "many.find(key)\n",
        ON_TABLES,
    ),
    Weakening(
        "keys_between_two_places_missed",
        TABLE,
        "        keys = self._many.keys() if self._many else []\n"
        "        keys[:0] = [cell[0] for cell in self._cells.copy()]\n",
        "        keys = [cell[0] for cell in self._cells.copy()]\n"
        "        keys += self._many.keys() if self._many else []\n",
        ON_TABLES,
    ),
    Weakening(
        "moved_key_iterated_twice",
        TABLE,
        "        if self._removal is None and finished == self._finished_removals:\n",
        "        if self._removal is None:\n",
        ON_TABLES,
    ),
    Weakening(
        "key_iterated_twice_during_its_move",
        TABLE,
        "        if self._removal is None and finished == self._finished_removals:\n",
        "        if finished == self._finished_removals:\n",
        ON_INTERRUPTS,
    ),
    Weakening(
        "interrupted_removal_not_finished",
        TABLE,
        "        if CowTable.__contains__(self, removal[0]):\n",
        "        if True:\n",
        ON_INTERRUPTS,
    ),
    Weakening(
        "removal_finished_that_had_not_begun",
        TABLE,
        "        if CowTable.__contains__(self, removal[0]):\n",
        "        if False:\n",
        ON_INTERRUPTS,
    ),
    Weakening(
        "key_iterated_whose_removal_was_interrupted",
        TABLE,
        "            unique.pop(unfinished[0], None)\n",
        "            pass\n",
        ON_INTERRUPTS,
    ),
    Weakening(
        "key_counted_whose_removal_was_interrupted",
        TABLE,
        "        if unfinished is not None:\n            return len(self._cells)",
        "        if False:\n            return len(self._cells)",
        ON_INTERRUPTS,
    ),
    *(
        Weakening(
            f"{name}_before_an_interrupted_removal_is_finished",
            TABLE,
            f"{_END_REMOVAL}{after}",
            after,
            ON_INTERRUPTS,
        )
        for name, after in (
            ("freeze", "        snapshot: "),
            (
                "set",
                "        cell = self._by_key.get(key)\n        if cell is None:\n            if ",
            ),
            ("removal", "        cell = self._by_key.get(key)\n        if self._many:\n"),
            ("popitem", "        if self._many:\n            key, value"),
        )
    ),
    Weakening(
        "replaced_row_not_saved",
        TABLE,
        "            self._save_row(row)\n        many.replace(",
        "            pass\n        many.replace(",
        ON_TABLES,
    ),
    Weakening(
        "moved_row_not_saved",
        TABLE,
        "        self._save_row(last)\n",
        "",
        ON_TABLES,
    ),
    Weakening(
        "full_chunk_stays_a_list",
        ROWS,
        "            if len(chunk) > _MASK:\n",
        "            if False:\n",
        ON_TABLES,
    ),
    Weakening(
        "row_of_an_interrupted_write_kept",
        ROWS,
        "            if len(chunk) != at:",
        "            if False:",
        ON_INTERRUPTS,
    ),
    Weakening(
        "key_listed_before_it_counts",
        ROWS,
        "        del keys[count:]",
        "        del keys[len(keys) :]",
        ON_INTERRUPTS,
    ),
    Weakening(
        "key_kept_whose_insertion_was_interrupted",
        TABLE,
        "                del self._cells[cell[2] :]\n",
        "",
        ON_INTERRUPTS,
    ),
    Weakening(
        "containers_in_chunks",
        TABLE,
        "if many is None and _is_flat(value):",
        "if many is None:",
        ON_TABLES,
    ),
    Weakening(
        "snapshot_without_later_cells",
        TABLE,
        "self._count if self._many is None else min(self._count, _CELLS)",
        "min(self._count, _CELLS)",
        ON_TABLES,
    ),
)
