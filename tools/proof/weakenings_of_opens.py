"""Weakenings of opens: the checks of a fleet's items together, and the pause of collections."""

from __future__ import annotations

from proof.weakenings import Weakening

TOGETHER = ("tests/manager/test_fleet_load_items.py",)
PAUSE = ("tests/engine/test_collection_pause.py",)

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
    Weakening(
        "an_open_leaves_its_thresholds",
        "journal/_state/collection_pause.py",
        "    finally:\n        gc.set_threshold(*thresholds)\n",
        "    finally:\n        pass\n",
        PAUSE,
    ),
    Weakening(
        "a_forked_child_keeps_a_pause",
        "journal/_state/collection_pause.py",
        "    if gc.get_threshold()[1] == _NEVER:\n",
        "    if False:\n",
        PAUSE,
    ),
    Weakening(
        "a_second_open_keeps_a_pause",
        "journal/_state/collection_pause.py",
        "is_paused = thresholds[1] == _NEVER",
        "is_paused = False",
        PAUSE,
    ),
    Weakening(
        "an_open_collects_for_a_disabled_collector",
        "journal/_state/collection_pause.py",
        " and gc.isenabled()):\n",
        "):\n",
        PAUSE,
    ),
    Weakening(
        "an_open_leaves_its_containers_to_a_collection",
        "journal/_state/collection_pause.py",
        "        gc.collect(1)\n",
        "        pass\n",
        PAUSE,
    ),
)
