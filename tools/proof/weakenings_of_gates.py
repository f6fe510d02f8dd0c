"""Weakenings of gates and the owner's lock: whom a commit waits for, how its waiters pass, and who
has the lock next."""

from __future__ import annotations

from proof.weakenings import Weakening

GATE = ("tests/engine/test_waiting.py", "tests/engine/test_gate.py")
LOCK = ("tests/engine/test_lock.py",)
TURNSTILE = ("tests/engine/test_turnstile.py",)
POLICY = ("tests/engine/test_wake_policy.py",)

ALL_OF = (
    Weakening(
        "new_rows_pile_up",
        "journal/_state/early_collection.py",
        "            collect(0)  # a",
        "            # a",
        ("tests/engine/test_early_collection.py",),
    ),
    Weakening(
        "tuples_of_new_rows_pile_up",
        "journal/_state/early_collection.py",
        "            collect(1)\n",
        "",
        ("tests/engine/test_early_collection.py",),
    ),
    Weakening(
        "gate_drops_its_futures_under_the_pump",
        "journal/_commit/gate.py",
        "waiting.forgotten * 2 >= len(waiting) and not self.opened:",
        "waiting.forgotten * 2 >= len(waiting):",
        GATE,
    ),
    Weakening(
        "pump_loses_its_place",
        "journal/_commit/gate.py",
        "                    self._settled = 0  # first",
        "                    # first",
        GATE,
    ),
    Weakening(
        "turn_ends_between_a_future_and_its_lsn",
        "journal/_commit/gate.py",
        "        return len(self) // 2\n",
        "        return len(self)\n",
        ("tests/engine/test_append_and_wait.py", *GATE),
    ),
    Weakening(
        "futures_of_a_failed_commit_have_results",
        "journal/_commit/gate.py",
        "        have_failed = self._outcome(lsns[0]) is not None\n",
        "        have_failed = False\n",
        ("tests/engine/test_append_and_wait.py",),
    ),
    Weakening(
        "interrupted_waiter_keeps_the_turnstile",
        "journal/_commit/gate.py",
        "                with self._turnstile:\n                    return True\n",
        "                self._turnstile.acquire()\n"
        "                self._turnstile.release()\n"
        "                return True\n",
        TURNSTILE,
    ),
    Weakening(
        "commit_waits_for_late_waiters",
        "journal/_commit/wake_policy.py",
        "expected - self._late if self._late < expected else expected",
        "expected",
        POLICY,
    ),
    Weakening(
        "commit_waits_for_no_late_waiters_of_a_slow_disk",
        "journal/_commit/wake_policy.py",
        "expected - self._late if self._late < expected else expected",
        "expected - min(self._late, expected)",
        POLICY,
    ),
    Weakening(
        "commit_waits_on_for_nobody",
        "journal/_commit/wake_policy.py",
        "waiting <= self._came_back or",
        "",
        POLICY,
    ),
    Weakening(
        "commit_waits_on_forever",
        "journal/_commit/wake_policy.py",
        " or since_s > _GATHERS_MAX * self._gather_s:",
        ":",
        POLICY,
    ),
    Weakening(
        "gate_keeps_waiters_of_records_that_were_cancelled",
        "journal/_commit/gate.py",
        "        waiting.forgotten += 1\n",
        "",
        GATE,
    ),
    Weakening(
        "no_thread_becomes_the_heir",
        "journal/_state/owner_lock.py",
        "            self._heir = -first\n",
        "",
        LOCK,
    ),
    Weakening(
        "heirs_without_a_break",
        "journal/_state/owner_lock.py",
        "now_ns + break_ns",
        "now_ns",
        LOCK,
    ),
    Weakening(
        "long_break_after_a_crowd",
        "journal/_state/owner_lock.py",
        "min(len(waiting) ** 2 * _BETWEEN_HEIRS_NS, _BETWEEN_HEIRS_MAX_NS)",
        "len(waiting) ** 2 * _BETWEEN_HEIRS_NS",
        LOCK,
    ),
    Weakening(
        "heir_is_not_woken_first",
        "journal/_state/owner_lock.py",
        "                if thread_id == -self._heir:\n                    release(asleep)\n",
        "                pass\n",
        LOCK,
    ),
    Weakening(
        "heir_replaced_before_it_comes",
        "journal/_state/owner_lock.py",
        "        if self._heir and self._heir != -me:\n            return\n",
        "",
        LOCK,
    ),
    Weakening(
        "thread_that_has_had_the_lock_waits_on",
        "journal/_state/owner_lock.py",
        "                self._waiting.pop(me, None)\n",
        "                pass\n",
        LOCK,
    ),
    Weakening(
        "heir_that_is_gone_is_chosen_again",
        "journal/_state/owner_lock.py",
        "            self._waiting.pop(first, None)\n",
        "",
        LOCK,
    ),
)
