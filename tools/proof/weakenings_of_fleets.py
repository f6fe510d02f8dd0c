"""Weakenings of replay: the rules for the items and the records of a fleet."""

from __future__ import annotations

from proof.weakenings import Weakening

FLEETS = ("tests/crash/test_hostile_fleets.py",)

ALL_OF = (
    Weakening(
        "no_parent_check_of_items",
        "manager/replay.py",
        "for _, number in self._awaited.values():",
        "for _, number in ():",
        FLEETS,
    ),
    Weakening(
        "no_parent_check_before_records",
        "manager/replay.py",
        "            try:\n                self.check_loaded(lsn - 1)\n",
        "            try:\n                pass\n",
        FLEETS,
    ),
    Weakening(
        "no_parent_check_of_records",
        "manager/replay.py",
        "            if parent is None:\n                raise ValueError",
        "            if parent is None:\n                return\n                raise ValueError",
        FLEETS,
    ),
    Weakening(
        "no_depth_check",
        "manager/replay.py",
        "    if depth != due:\n",
        "    if False:\n",
        FLEETS,
    ),
    Weakening(
        "no_depth_check_of_awaited_parents",
        "manager/replay.py",
        '_check_depth(depth, due, "children")',
        "pass",
        FLEETS,
    ),
    Weakening(
        "no_status_check_in_replay",
        "manager/replay.py",
        '        if get.agent_id(old) not in self._presumed or "running" not in sources:',
        "        if False:",
        FLEETS,
    ),
    Weakening(
        "parents_removed_in_replay",
        "manager/replay.py",
        "if self._family.children(record[AGENT_ID]):",
        "if False:",
        FLEETS,
    ),
    Weakening(
        "no_range_check_of_items",
        "manager/checks.py",
        "if together >> 64 or budget is not None:",
        "if budget is not None:",
        FLEETS,
    ),
    Weakening(
        "application_of_a_fleet_unchecked",
        "manager/fleet_reader.py",
        "if checkpoint.application not in",
        "if False and checkpoint.application not in",
        ("tests/manager/test_view.py",),
    ),
    Weakening(
        "half_surrogate_pairs_taken",
        "manager/replay.py",
        "            check_texts(row)\n",
        "",
        FLEETS,
    ),
    Weakening(
        "attempt_not_counted",
        "manager/fleet.py",
        "attempt = get.attempt(row)",
        "attempt = 0",
        ("tests/manager/test_manager.py",),
    ),
    Weakening(
        "oldest_of_a_name_found",
        "manager/names.py",
        "newest is None or _age(row) >= _age(self._rows[newest])",
        "newest is None",
        ("tests/manager/test_manager.py",),
    ),
    Weakening(
        "steps_may_fall",
        "manager/updates.py",
        "if steps_at and record[steps_at] < row[STEPS_TAKEN]:",
        "if False:",
        ("tests/manager/test_manager_answers.py",),
    ),
    Weakening(
        "steps_may_fall_in_a_transaction",
        "manager/transaction.py",
        "record[steps_at] = max(record[steps_at], get.steps_taken(row))",
        "pass",
        ("tests/manager/test_manager_answers.py",),
    ),
    Weakening(
        "checkpoints_without_bound",
        "manager/updates.py",
        "if size > limits.checkpoint_bytes_max:",
        "if False:",
        ("tests/manager/test_manager_answers.py",),
    ),
    Weakening(
        "answer_lost_at_resumption",
        "manager/steps.py",
        "    new[STARTS] += 1\n",
        "    new[STARTS] += 1\n    new[ANSWER] = None\n",
        ("tests/manager/test_manager_answers.py",),
    ),
    Weakening(
        "interrupted_twice_in_replay",
        "manager/replay.py",
        "is_result and record[3:4] == [get.status(old)]",
        "False",
        FLEETS,
    ),
    Weakening(
        "result_taken_twice",
        "manager/fleet.py",
        "if taken_by is not None and at_ms is not None:",
        "if False:",
        ("tests/manager/test_manager_delivery.py",),
    ),
    Weakening(
        "take_and_checkpoint_apart",
        "manager/updates.py",
        "return [change for change in both if change is not None]",
        "return both[:1]",
        ("tests/manager/test_manager_delivery.py",),
    ),
    Weakening(
        "untaken_results_not_loaded",
        "manager/family.py",
        "if get.status(row) not in LIVE and get.taken_by(row) is None:",
        "if False:",
        ("tests/manager/test_manager_delivery.py",),
    ),
    Weakening(
        "results_before_they_are_durable",
        "manager/delivery.py",
        "await self._state.durable(_last_lsn(rows))",
        "pass",
        ("tests/manager/test_manager_delivery.py",),
    ),
    Weakening(
        "taken_twice_in_replay",
        "manager/replay.py",
        "if old is not None and get.taken_by(old) is not None:",
        "if False:",
        FLEETS,
    ),
)
