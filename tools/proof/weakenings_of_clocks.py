"""Weakenings of what a fleet promises whatever time its machine's clock shows."""

from __future__ import annotations

from proof.weakenings import Weakening

ALL_OF = (
    Weakening(
        "an_agent_that_ends_in_the_future_outlives_a_prune",
        "manager/cleanup.py",
        "    return at_ms - age_s * 1000 if age_s else math.inf\n",
        "    return at_ms - age_s * 1000\n",
        ("tests/manager/test_manager_prune.py",),
    ),
    Weakening(
        "times_before_1970_are_recorded",
        "manager/clock.py",
        "    return max(time.time_ns() // 1_000_000, 0)\n",
        "    return time.time_ns() // 1_000_000\n",
        ("tests/manager/test_manager_clock.py",),
    ),
    Weakening(
        "agents_of_several_types_start_in_any_order",
        "manager/queue.py",
        "        ids.sort(key=self._all.__getitem__)\n",
        "        ids.sort()\n",
        ("tests/manager/test_manager_clock.py",),
    ),
)
