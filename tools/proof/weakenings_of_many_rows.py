"""Weakenings of the rows of large CowTables."""

from __future__ import annotations

from proof.weakenings import Weakening

TABLE, ROWS = "journal/_state/cow_table.py", "journal/_state/many_rows.py"
ON_TABLES = ("tests/tables/test_many_rows.py", "tests/tables/test_table.py")

ALL_OF = (
    Weakening(
        "row_of_another_key_returned",
        ROWS,
        "            if found is key or found == key:\n",
        "            if True:\n",
        ON_TABLES,
    ),
    Weakening(
        "place_not_read_again",
        ROWS,
        "its old place removed\n                continue\n",
        "its old place removed\n                return None\n",
        ON_TABLES,
    ),
    Weakening(
        "search_between_two_places_missed",
        TABLE,
        "            if row is not None or moves == self._moves:\n",
        "            if True:\n",
        ON_TABLES,
    ),
    Weakening(
        "keys_between_two_places_missed",
        TABLE,
        "            if moves == self._moves:  # no key",
        "            if True:  # no key",
        ON_TABLES,
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
        "        if len(chunk) > _MASK:\n",
        "        if False:\n",
        ON_TABLES,
    ),
)
