"""Weakenings of the evidence rule, the order of steps, the gates and the locks."""

from __future__ import annotations

from proof.weakenings import CUTS, DAMAGE, FAILS, FILES, RULE, Weakening

KILLS = (
    "tests/engine/test_journal.py",
    "tests/engine/test_waiting.py",
    "tests/engine/test_close.py",
    *CUTS,
)
LOCKS = (
    "tests/engine/test_lock.py",
    "tests/kernel/test_posix_lock.py",
    "tests/manager/test_manager_races.py",
)

EVIDENCE = (
    Weakening(
        "no_evidence_rule",
        "journal/_recovery/walk.py",
        "if self.evidence >= self.next_lsn:",
        "if False:",
        DAMAGE,
    ),
    Weakening(
        "no_evidence_after_damage",
        "journal/_recovery/walk.py",
        "            self.evidence = max(self.evidence, scanned.header.durable_lsn)\n",
        "            if not self.damage:\n"
        "                self.evidence = max(self.evidence, scanned.header.durable_lsn)\n",
        DAMAGE,
    ),
    Weakening(
        "refuse_every_bad_frame",
        "journal/_recovery/walk.py",
        "if self.evidence >= self.next_lsn:",
        "if self.damage or self.evidence >= self.next_lsn:",
        CUTS,
    ),
    Weakening(
        "checkpoint_names_are_no_evidence",
        "journal/_recovery/checkpoints.py",
        "{checkpoint_name(lsn): lsn for lsn in lsns}",
        "{checkpoint_name(lsn): 0 for lsn in lsns}",
        DAMAGE,
    ),
    Weakening(
        "no_marks",
        "journal/_commit/writer.py",
        "if segment is None or segment.recorded_lsn == self._synced_lsn:",
        "if True:",
        ("tests/crash/test_promises.py", *RULE),
    ),
    Weakening(
        "backup_without_mark",
        "journal/_offline/backup.py",
        "            if last is not None:",
        "            if False:",
        ("tests/crash/test_backup.py",),
    ),
    Weakening(
        "unsynced_mark_before_a_frame",
        "journal/_commit/open_segment.py",
        "        self._is_marked = True\n",
        "        self._is_marked = True\n        self.offset += len(mark)\n",
        RULE,
    ),
    Weakening(
        "frames_state_durable_lsn_0",
        "journal/_commit/writer.py",
        "            durable_lsn=self._synced_lsn,\n",
        "            durable_lsn=0,\n",
        DAMAGE,
    ),
    Weakening(
        "frames_state_unsynced_lsn",
        "journal/_commit/writer.py",
        "            durable_lsn=self._synced_lsn,\n",
        "            durable_lsn=self._written_lsn,\n",
        RULE,
    ),
    Weakening(
        "frame_after_a_mark_is_no_damage",
        "journal/_recovery/walk.py",
        "        if self.marked:\n",
        "        if False:\n",
        FILES,
    ),
    Weakening(
        "torn_tail_cut_off",
        "journal/_recovery/recovery.py",
        "if walk.end and not walk.damage:",
        "if walk.end:",
        ("tests/engine/test_verify.py",),
    ),
    Weakening(
        "epoch_used_again",
        "journal/_recovery/recovery.py",
        "epoch=epoch + 1,",
        "epoch=max(1, epoch),",
        CUTS,
    ),
)

ORDER = (
    Weakening(
        "drop_before_publish",
        "journal/_engine/compactor.py",
        "            self._checkpoints.write(lsn, items",
        "            self._checkpoints._verified_lsns.append(lsn)\n"
        "            self._checkpoints.drop_covered()\n"
        "            self._checkpoints.write(lsn, items",
        RULE,
    ),
    Weakening(
        "one_checkpoint_counts_as_two",
        "journal/_recovery/recovery.py",
        "    if len(verified_lsns) < keep:\n        return []\n",
        "    if not verified_lsns:\n        return []\n    keep = min(keep, len(verified_lsns))\n",
        RULE,
    ),
    Weakening(
        "leftover_strictly_below",
        "journal/_format/segment.py",
        "after.first_lsn - 1 > lsn]",
        "after.first_lsn > lsn]",
        RULE,
    ),
    Weakening(
        "dense_from_second_newest",
        "journal/_recovery/plan.py",
        "self.base_lsn = checkpoints[0].lsn if checkpoints else 0",
        "self.base_lsn = min([c.lsn for c in checkpoints], default=0)",
        RULE,
    ),
    Weakening(
        "unneeded_checkpoints_are_judged",
        "journal/_recovery/plan.py",
        "self._judged = checkpoints[:kept]",
        "self._judged = checkpoints",
        ("tests/inspect/test_plan.py",),
    ),
    Weakening(
        "stray_name_drops_segments",
        "journal/_recovery/recovery.py",
        "        with Segment(directory, kept_segments[0]):\n            pass\n",
        "        pass\n",
        ("tests/engine/test_compaction.py", *DAMAGE),
    ),
    Weakening(
        "checkpointed_records_applied_again",
        "journal/_recovery/walk.py",
        "skip = max(0, lsn + 1 - self.run.first_lsn)",
        "skip = 0",
        ("tests/engine/test_state.py", *RULE),
    ),
    Weakening(
        "lsn_assigned_before_packing",
        "journal/_commit/buffer.py",
        "PackedRecord else self._pack(record)\n",
        "PackedRecord else (\n"
        '                self.filling.records.append(b"\\xc0"), self._pack(record)\n'
        "            )[1]\n"
        "            self.filling.records.pop()\n",
        ("tests/engine/test_options_and_records.py", "tests/kernel/test_interrupt.py"),
    ),
    Weakening(
        "split_batch",
        "journal/_format/frame.py",
        "inside = {i for begin, end in groups for i in range(begin + 1, end)}",
        "inside: set[int] = set()",
        RULE,
    ),
    Weakening(
        "backpressure_ends_before_the_removal",
        "journal/_engine/compactor.py",
        "        self._checkpoints.drop_covered()\n",
        "        log_bytes = self._committer.log_bytes\n"
        "        self._committer.hold_from(self._schedule.hold_bytes(log_bytes))\n"
        "        self._checkpoints.drop_covered()\n",
        ("tests/engine/test_compaction_behind.py",),
    ),
)

GATE = (
    Weakening(
        "acknowledged_before_written",
        "journal/_commit/committer.py",
        "                writer.write(batch)\n",
        "                self._turn.committed(batch, 0, 0)\n                writer.write(batch)\n",
        KILLS,
    ),
    Weakening(
        "gate_always_open",
        "journal/_commit/gate.py",
        "                with self._turnstile:\n                    return True\n",
        "                return True\n",
        KILLS,
    ),
    Weakening(
        "appended_is_durable",
        "journal/_commit/commit_turn.py",
        "if lsn <= self.durable_lsn:\n                return None\n            if",
        "if lsn <= filling.last_lsn:\n                return None\n            if",
        KILLS,
    ),
    Weakening(
        "failure_wakes_nobody",
        "journal/_commit/commit_turn.py",
        "            self._alarm.wake()\n        self._open_all()\n",
        "            self._alarm.wake()\n",
        ("tests/engine/test_hand_over.py",),
    ),
    Weakening(
        "failure_is_forgotten",
        "journal/_commit/lifecycle.py",
        "        self.failure = error\n        self.refusal = self.error\n",
        "        self.failure = error\n",
        FAILS,
    ),
    Weakening(
        "failure_refuses_only_the_first_record",
        "journal/_commit/commit_turn.py",
        "            self._lifecycle.fail(error)\n            self._buffer.end_fast_path()\n",
        "            self._lifecycle.fail(error)\n",
        ("tests/engine/test_backpressure.py",),
    ),
    Weakening(
        "closing_refuses_only_the_first_record",
        "journal/_commit/buffer.py",
        "        self._lifecycle.close()\n        self.end_fast_path()\n",
        "        self._lifecycle.close()\n",
        ("tests/engine/test_backpressure.py",),
    ),
    Weakening(
        "flusher_sleeps_through_a_new_batch",
        "journal/_commit/buffer.py",
        "        self._fast_path_limit_bytes = 0\n        self.filling = CommitBatch(",
        "        self.filling = CommitBatch(",
        ("tests/engine/test_backpressure.py",),
    ),
    Weakening(
        "second_commit_overtakes_the_first",
        "journal/_commit/commit_turn.py",
        "is_free = self._committing is None and",
        "is_free =",
        ("tests/engine/test_backpressure.py",),
    ),
    Weakening(
        "mark_cut_off_at_a_roll",
        "journal/_commit/open_segment.py",
        "        size = self.offset + FRAME_HEADER_BYTES * self._is_marked\n",
        "        size = self.offset\n",
        ("tests/engine/test_reader_doubt.py",),
    ),
    Weakening(
        "lock_holder_read_from_its_note",
        "journal/_disk/posix.py",
        "            return holder.lock_holder(self._fd, likely_pid)\n",
        "            return likely_pid\n",
        ("tests/kernel/test_posix_lock.py",),
    ),
    Weakening(
        "no_directory_lock",
        "journal/_disk/posix.py",
        "            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        LOCKS,
    ),
    Weakening(
        "no_owners_lock",
        "journal/_state/owner_lock.py",
        "            with self._section:\n",
        "            if True:\n",
        LOCKS,
    ),
    Weakening(
        "waiter_clears_a_new_holder",
        "journal/_state/owner_lock.py",
        " and self._holder == holder:",
        ":",
        LOCKS,
    ),
    Weakening(
        "child_keeps_the_journal",
        "journal/_commit/buffer.py",
        "        self._lifecycle.abandon()\n",
        "",
        ("tests/kernel/test_fork.py",),
    ),
    Weakening(
        "nothing_committed_at_exit",
        "journal/_engine/core.py",
        "    def finish(self) -> None:\n        self.begin_close()\n",
        "    def finish(self) -> None:\n        return\n        self.begin_close()\n",
        ("tests/kernel/test_exit.py",),
    ),
)

ALL_OF = EVIDENCE + ORDER + GATE
