"""Weakenings of opens: the checks of a fleet's items together, and the pause of collections."""

from __future__ import annotations

from proof.weakenings import Weakening

TOGETHER = ("tests/manager/test_fleet_load_items.py",)
DECODED = ("tests/manager/test_manager_tables_load.py",)
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
        "    return not numbers >> 64\n",
        "    return True\n",
        TOGETHER,
    ),
    Weakening(
        "items_together_are_there_twice",
        "manager/replay.py",
        "if len({*ids}) < len(ids) or self._awaited or any(map(self._rows.__contains__, ids)):",
        "if self._awaited:",
        TOGETHER,
    ),
    Weakening(
        "items_together_have_any_parents",
        "manager/replay.py",
        "if columns[field.PARENT_ID].count(None) < len(ids) or any(columns[field.SPAWN_DEPTH]):",
        "if False:",
        TOGETHER,
    ),
    Weakening(
        "live_items_together_have_any_names",
        "manager/replay.py",
        "if columns[field.NAME] != ids and not _ENDED.issuperset(columns[field.STATUS]):",
        "if False:",
        TOGETHER,
    ),
    Weakening(
        "items_together_have_any_extras",
        "manager/bulk_checks.py",
        "if not _COMMON_EXTRAS.issuperset(map(id, columns[EXTRAS])):",
        "if False:",
        TOGETHER,
    ),
    Weakening(
        "ended_items_together_are_not_counted",
        "manager/fleet.py",
        "                self.counts[status] += 1\n        else:",
        "                pass\n        else:",
        TOGETHER,
    ),
    Weakening(
        "live_items_together_count_as_ended",
        "manager/typed_items.py",
        "return are_unnamed and _ENDED.issuperset(self.columns[STATUS])",
        "return are_unnamed",
        TOGETHER,
    ),
    Weakening(
        "named_items_together_count_as_unnamed",
        "manager/typed_items.py",
        "return are_unnamed and _ENDED",
        "return _ENDED",
        TOGETHER,
    ),
    Weakening(
        "typed_items_take_a_field_for_the_extras",
        "manager/typed_items.py",
        "or columns[EXTRAS].count(STARTED_ONCE) < len(items)",
        "or False",
        TOGETHER,
    ),
    Weakening(
        "typed_items_have_always_started",
        "manager/typed_items.py",
        "None in columns[STARTED_AT_MS]\n",
        "False\n",
        TOGETHER,
    ),
    Weakening(
        "typed_items_lose_their_extras",
        "manager/typed_items.py",
        "or any(column.count(UNSET) < len(items) for column in extras)",
        "or False",
        TOGETHER,
    ),
    Weakening(
        "typed_items_may_be_more_than_lines",
        "manager/typed_items.py",
        "if agents is None or len(agents.rows) != count:",
        "if agents is None:",
        TOGETHER,
    ),
    Weakening(
        "typed_items_are_not_checked",
        "manager/typed_items.py",
        "are_valid(agents.rows, agents.columns, have_valid_types=True)",
        "True",
        TOGETHER,
    ),
    Weakening(
        "lines_with_bytes_are_plain_text",
        "journal/_format/items.py",
        "if decoder(version, lines, is_large=True) is not _fast_decoder():",
        "if False:",
        DECODED,
    ),
    Weakening(
        "a_small_checkpoint_imports_msgspec",
        "journal/_format/checkpoint.py",
        "if lines and is_large else None",
        "if lines else None",
        DECODED,
    ),
    Weakening(
        "session_is_never_guessed",
        "manager/fleet.py",
        "self.states_session = are_prior[-1] is not None",
        "self.states_session = True",
        DECODED,
    ),
    Weakening(
        "reader_of_agents_loads_tables",
        "manager/fleet.py",
        "        if self._with_tables:\n            tables: Any",
        "        if True:\n            tables: Any",
        DECODED,
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
    Weakening(
        "child_of_billiard_loses_its_end",
        "journal/_disk/process.py",
        'in ("multiprocessing", "billiard"):',
        'in ("multiprocessing",):',
        ("tests/kernel/test_exit.py",),
    ),
)
