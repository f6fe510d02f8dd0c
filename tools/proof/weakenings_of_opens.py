"""Weakenings of opens: the checks of a fleet's items together."""

from __future__ import annotations

from proof.weakenings import Weakening

TOGETHER = ("tests/manager/test_fleet_load_items.py",)

ALL_OF = (
    Weakening(
        "items_together_have_any_types",
        "manager/bulk_checks.py",
        " and not _ALLOWED_SETS[at].issuperset(map(type, column)):",
        " and False:",
        TOGETHER,
    ),
    Weakening(
        "items_together_have_any_numbers",
        "manager/bulk_checks.py",
        "    if numbers >> 64 or 0 in",
        "    if 0 in",
        TOGETHER,
    ),
    Weakening(
        "items_together_are_there_twice",
        "manager/replay.py",
        "if len(ids) < len(rows) or self._awaited or any(map(self._rows.__contains__, ids)):",
        "if self._awaited:",
        TOGETHER,
    ),
    Weakening(
        "items_together_have_any_parents",
        "manager/replay.py",
        "            if get.parent_id(row) is not None or get.spawn_depth(row):\n"
        "                return False\n",
        "",
        TOGETHER,
    ),
)
