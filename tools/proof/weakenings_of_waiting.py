"""Weakenings of waits and ends: wake-ups, backpressure, closing, and what is cleaned up."""

from __future__ import annotations

from proof.weakenings import Weakening

HAND_OVER = ("tests/engine/test_commit_turn.py", "tests/engine/test_hand_over.py")
LEFTOVERS = ("tests/engine/test_leftovers.py",)
COMPACTION = ("tests/engine/test_compaction_failures.py",)

WAKE_UPS = (
    Weakening(
        "full_disk_stops_a_lone_waiter",
        "journal/_commit/committer.py",
        'if getattr(error, "errno", None) not in NO_SPACE:\n',
        "if True:\n",
        HAND_OVER,
    ),
    Weakening(
        "time_limits_stop_with_the_clock_of_a_program",
        "journal/_time.py",
        "monotonic = partial(time.monotonic)",
        "monotonic = time.monotonic",
        ("tests/engine/test_clock.py",),
    ),
    Weakening(
        "full_disk_retry_delay_is_unbounded",
        "journal/_commit/committer.py",
        "min(max(delay_s * 2, _RETRY_S_MIN), _RETRY_S_MAX)",
        "max(delay_s * 2, _RETRY_S_MIN)",
        ("tests/engine/test_disk_full.py",),
    ),
    Weakening(
        "leaving_the_turn_wakes_nobody",
        "journal/_commit/commit_turn.py",
        "if not is_done or self._buffer.filling.has_work or self._lifecycle.closing:",
        "if not is_done or self._lifecycle.closing:",
        HAND_OVER,
    ),
    Weakening(
        "leaving_the_turn_forgets_a_close",
        "journal/_commit/commit_turn.py",
        "if not is_done or self._buffer.filling.has_work or self._lifecycle.closing:",
        "if not is_done or self._buffer.filling.has_work:",
        HAND_OVER,
    ),
    Weakening(
        "leaving_an_unfinished_commit_wakes_nobody",
        "journal/_commit/commit_turn.py",
        "if not is_done or self._buffer.filling.has_work or self._lifecycle.closing:",
        "if is_done and (self._buffer.filling.has_work or self._lifecycle.closing):",
        HAND_OVER,
    ),
    Weakening(
        "wait_leaves_the_flusher_asleep_beside_a_lone_waiter",
        "journal/_commit/commit_turn.py",
        "        self.refuse_within_commit()\n        self._alarm.wake()\n",
        "        self.refuse_within_commit()\n",
        HAND_OVER,
    ),
    Weakening(
        "batch_not_taken_before_an_interrupt_is_committed",
        "journal/_commit/commit_turn.py",
        "if self._committing is not None and self._committing is not self._buffer.filling:",
        "if self._committing is not None:",
        HAND_OVER,
    ),
    Weakening(
        "flusher_sleeps_through_an_unawaited_record",
        "journal/_commit/commit_turn.py",
        "self._buffer.wake_at_first_record(not filling.has_work and oversleeps)",
        "self._buffer.wake_at_first_record(False)",
        HAND_OVER,
    ),
    Weakening(
        "idle_flusher_polls",
        "journal/_commit/commit_turn.py",
        "                        timeout_s = -1\n",
        "                        pass\n",
        HAND_OVER,
    ),
    Weakening(
        "sync_of_the_log_wakes_nobody",
        "journal/_commit/commit_turn.py",
        "            filling.require_sync()\n            self._alarm.wake()\n",
        "            filling.require_sync()\n",
        HAND_OVER,
    ),
    Weakening(
        "last_expected_waiter_wakes_nobody",
        "journal/_commit/commit_turn.py",
        "self._wakes_at = 1 if is_first_enough else self.wake_policy.enough_waiters",
        "self._wakes_at = 1",
        HAND_OVER,
    ),
    Weakening(
        "unawaited_records_are_not_gathered",
        "journal/_commit/buffer.py",
        "            filling.since = time.monotonic()\n",
        "",
        HAND_OVER,
    ),
    Weakening(
        "opened_backpressure_gate_is_reused",
        "journal/_commit/backpressure.py",
        "if self._gate is None or self._gate.opened:",
        "if self._gate is None:",
        HAND_OVER,
    ),
    Weakening(
        "backpressure_timeout_restarts",
        "journal/_engine/journal.py",
        "if not gate.wait(remaining_s) or",
        "if not gate.wait(timeout_s) or",
        HAND_OVER,
    ),
)

ENDS = (
    Weakening(
        "gates_stay_shut_after_the_flushers_end",
        "journal/_commit/commit_turn.py",
        "            self._lifecycle.end()\n            self._buffer.end_fast_path()\n"
        "        self._open_all()\n",
        "            self._lifecycle.end()\n            self._buffer.end_fast_path()\n",
        HAND_OVER,
    ),
    Weakening(
        "gates_are_returned_after_the_flushers_end",
        "journal/_commit/commit_turn.py",
        "if lifecycle.failure or lifecycle.ended:",
        "if lifecycle.failure:",
        HAND_OVER,
    ),
    Weakening(
        "hold_point_stays_below_a_later_due_point",
        "journal/_engine/compactor.py",
        "                if held_due_bytes != due_bytes:\n"
        "                    held_due_bytes = due_bytes\n",
        "                if held_due_bytes != schedule.snapshot_bytes:\n"
        "                    held_due_bytes = schedule.snapshot_bytes\n",
        ("tests/engine/test_compaction_behind.py",),
    ),
    Weakening(
        "compactor_thread_that_ended_holds_updates",
        "journal/_engine/compactor.py",
        "            try:\n                self._committer.hold_from(NEVER)\n",
        "            try:\n                pass\n",
        COMPACTION,
    ),
    Weakening(
        "compaction_ended_by_a_failure_says_closed",
        "journal/_engine/core.py",
        "            self.lifecycle.check()  # given up because the log had failed?\n",
        "",
        COMPACTION,
    ),
)

CLEAN_UP = (
    Weakening(
        "flusher_that_never_started_keeps_the_lock",
        "journal/_engine/core.py",
        "            self._use.leave(self.committer)\n        mirroring = ",
        "            pass\n        mirroring = ",
        LEFTOVERS,
    ),
    Weakening(
        "compactor_that_never_started_keeps_the_lock",
        "journal/_engine/core.py",
        "        except BaseException:\n            self._use.leave(thread)\n",
        "        except BaseException:\n",
        LEFTOVERS,
    ),
    Weakening(
        "child_finishes_the_parents_journals",
        "journal/_disk/process.py",
        "        owned.abandon()\n    _owned.clear()\n",
        "        owned.abandon()\n",
        ("tests/kernel/test_fork.py",),
    ),
    Weakening(
        "child_may_read_lock_stats",
        "journal/_state/durable_state.py",
        "        self._journal.check_process()\n        return self._lock.stats()",
        "        return self._lock.stats()",
        ("tests/kernel/test_fork.py",),
    ),
    Weakening(
        "failed_open_keeps_the_lock",
        "journal/_engine/opening.py",
        "                undo.callback(core.drop)\n",
        "                pass\n",
        LEFTOVERS,
    ),
    Weakening(
        "cut_off_join_ends_a_thread",
        "journal/_waits.py",
        "    while thread in threading.enumerate() and (",
        "    while thread.is_alive() and (",
        ("tests/engine/test_close.py", "tests/mirror/test_follower.py"),
    ),
    Weakening(
        "listed_thread_never_ends",
        "journal/_waits.py",
        "thread.ident is None or thread.ident in sys._current_frames()",
        "True",
        ("tests/engine/test_waits.py",),
    ),
    Weakening(
        "close_leaves_the_checkpoint_open",
        "journal/_engine/core.py",
        "        if self.checkpoint:\n            self.checkpoint.close()\n",
        "",
        LEFTOVERS,
    ),
    Weakening(
        "exit_waits_forever",
        "journal/_engine/core.py",
        "if not self.finish_close(_EXIT_TIMEOUT_S):",
        "if not self.finish_close(None):",
        LEFTOVERS,
    ),
    Weakening(
        "lock_left_to_a_dead_heir",
        "journal/_state/owner_lock.py",
        "self._holder = self._heir = 0  # two",
        "self._holder = 0  # two",
        LEFTOVERS,
    ),
    Weakening(
        "collections_inside_holds",
        "journal/_state/owner_lock.py",
        "            self._collection.check()\n",
        "",
        ("tests/engine/test_early_collection.py",),
    ),
    Weakening(
        "interrupted_append_counts_as_buffered",
        "journal/_commit/buffer.py",
        "return self.filling.bytes if self.filling.records else 0",
        "return self.filling.bytes",
        LEFTOVERS,
    ),
    Weakening(
        "gate_keeps_waits_that_timed_out",
        "journal/_commit/gate.py",
        "            self._wakers.remove(waker)",
        "            pass",
        LEFTOVERS,
    ),
    Weakening(
        "gate_keeps_waits_that_were_cancelled",
        "journal/_commit/gate.py",
        "            self.forget(future)\n            raise",
        "            raise",
        LEFTOVERS,
    ),
)

ALL_OF = WAKE_UPS + ENDS + CLEAN_UP
