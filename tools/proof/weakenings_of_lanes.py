"""Weakenings of syncs side by side: what is acknowledged when, and what waits for them."""

from __future__ import annotations

from proof.weakenings import Weakening

CRASH = ("tests/crash/test_side_by_side.py",)
LANES = ("tests/engine/test_sync_lanes.py",)
RESOURCES = ("tests/engine/test_lane_resources.py",)
POLICY = ("tests/engine/test_lane_policy.py",)

ALL_OF = (
    Weakening(
        "acknowledged_before_an_earlier_sync_ends",
        "journal/_commit/sync_lanes.py",
        "            while self._pending and self._pending[0].has_ended:\n"
        "                self._settle(self._pending[0])\n"
        "                self._pending.popleft()\n",
        "            self._settle(pending)\n            self._pending.remove(pending)\n",
        CRASH,
    ),
    Weakening(
        "acknowledged_after_an_earlier_sync_failed",
        "journal/_commit/sync_lanes.py",
        "        if self._has_failed:\n            return\n",
        "",
        LANES,
    ),
    Weakening(
        "acknowledged_after_a_later_sync_failed",
        "journal/_commit/sync_lanes.py",
        "            if pending.error is not None:  # nothing more",
        "            if False:  # nothing more",
        LANES,
    ),
    Weakening(
        "lanes_share_a_handle",
        "journal/_commit/open_segment.py",
        "self._handles.append(reopen())",
        "self._handles.append(self.file)",
        RESOURCES,
    ),
    Weakening(
        "lane_syncs_whatever_has_the_name",
        "journal/_disk/posix_file.py",
        'os.open(f"/proc/self/fd/{self._fd}"',
        "os.open(self.path",
        RESOURCES,
    ),
    Weakening(
        "commit_does_not_wait_for_the_lanes",
        "journal/_commit/committer.py",
        "                self._lanes.drain()\n                if",
        "                if",
        LANES,
    ),
    Weakening(
        "close_does_not_wait_for_the_lanes",
        "journal/_commit/committer.py",
        "            self._lanes.drain()\n            if self._lifecycle.failure is None:\n",
        "            if self._lifecycle.failure is None:\n",
        LANES,
    ),
    Weakening(
        "log_is_idle_during_a_sync",
        "journal/_commit/commit_turn.py",
        "self._committing is not None or self._syncing or filling",
        "self._committing is not None or filling",
        LANES,
    ),
    Weakening(
        "lone_waiter_commits_beside_the_lanes",
        "journal/_commit/commit_turn.py",
        "self._committing is None and not self._syncing\n",
        "self._committing is None\n",
        LANES,
    ),
    Weakening(
        "more_syncs_than_lanes",
        "journal/_commit/commit_turn.py",
        "if len(self._syncing) >= self.lanes:",
        "if len(self._syncing) > self.lanes:",
        LANES,
    ),
    Weakening(
        "waiter_waits_for_the_wrong_sync",
        "journal/_commit/commit_turn.py",
        "(each for each in self._syncing if lsn <= each.last_lsn)",
        "iter(self._syncing)",
        LANES,
    ),
    Weakening(
        "failure_forgets_the_waiters_of_the_lanes",
        "journal/_commit/commit_turn.py",
        "batches = *self._syncing, self._committing,",
        "batches = self._committing,",
        LANES,
    ),
    Weakening(
        "bytes_in_the_lanes_are_not_counted",
        "journal/_commit/commit_turn.py",
        "self._backpressure.hold(sum(each.bytes for each in self._syncing))",
        "self._backpressure.hold(0)",
        LANES,
    ),
    Weakening(
        "interrupted_commit_is_written_again_elsewhere",
        "journal/_commit/committer.py",
        "self._turn.lanes == 1 or batch.commit is not None or not",
        "self._turn.lanes == 1 or not",
        LANES,
    ),
    Weakening(
        "lanes_take_their_own_threads_for_callers",
        "journal/_commit/sync_lanes.py",
        "        self._own_ids.add(get_ident())\n",
        "",
        RESOURCES,
    ),
    Weakening(
        "lanes_outlive_the_journal",
        "journal/_commit/committer.py",
        "        self._lanes.stop()\n",
        "",
        RESOURCES,
    ),
    Weakening(
        "child_keeps_the_handles_of_the_lanes",
        "journal/_commit/open_segment.py",
        "for file in reversed(self._handles):",
        "for file in self._handles[:1]:",
        RESOURCES,
    ),
    Weakening(
        "lanes_for_commits_that_sync_nothing",
        "journal/_commit/committer.py",
        "LanePolicy(turn.lanes_max if self._sync_each else 1)",
        "LanePolicy(turn.lanes_max)",
        RESOURCES,
    ),
    Weakening(
        "slow_syncs_stay_side_by_side",
        "journal/_commit/lane_policy.py",
        "beside_ns > _median(self._alone_ns) + _median(self._return_ns) // 2:",
        "not beside_ns:",
        POLICY,
    ),
    Weakening(
        "failed_tries_are_repeated_at_once",
        "journal/_commit/lane_policy.py",
        "        if self._pause:\n            self._pause -= 1\n        elif len",
        "        if len",
        POLICY,
    ),
    Weakening(
        "crowds_that_come_back_at_once_get_lanes",
        "journal/_commit/lane_policy.py",
        "if not alone_ns / _RETURN_PART <= return_ns <= alone_ns * _RETURN_PART:",
        "if return_ns > alone_ns * _RETURN_PART:",
        POLICY,
    ),
    Weakening(
        "crowds_that_come_back_late_get_lanes",
        "journal/_commit/lane_policy.py",
        "if not alone_ns / _RETURN_PART <= return_ns <= alone_ns * _RETURN_PART:",
        "if return_ns < alone_ns / _RETURN_PART:",
        POLICY,
    ),
    Weakening(
        "lanes_stay_without_a_crowd",
        "journal/_commit/lane_policy.py",
        "            self.lanes = 1  # a lane",
        "            pass  # a lane",
        POLICY,
    ),
    Weakening(
        "lane_waits_for_the_whole_crowd",
        "journal/_commit/wake_policy.py",
        "            expected = int(expected / lanes * _LANE_PART)\n",
        "            pass\n",
        ("tests/engine/test_wake_policy.py",),
    ),
    Weakening(
        "lanes_forget_the_waiters_on_their_way",
        "journal/_commit/wake_policy.py",
        "            expected = max(expected, self.expected_waiters * 7 // 8)\n",
        "            pass\n",
        ("tests/engine/test_wake_policy.py",),
    ),
    Weakening(
        "events_of_commits_change_places",
        "journal/_commit/committer.py",
        "            self._observers.queued += ((event, self._observers.all),)\n",
        "            self._observers.queued.appendleft((event, self._observers.all))\n",
        LANES,
    ),
    Weakening(
        "simulated_sync_covers_what_comes_during_it",
        "journal/testing/disk.py",
        "self._inode.sync(until)",
        "self._inode.sync()",
        ("tests/crash/test_simulated_disk.py",),
    ),
    Weakening(
        "simulated_error_is_reported_to_one_handle",
        "journal/testing/disk.py",
        "if seen != self._inode.errors:",
        "if False:",
        ("tests/crash/test_simulated_disk.py",),
    ),
)
