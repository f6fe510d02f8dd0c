"""Weakenings of order: the evidence rule, what comes before what, the gate, the locks."""

from __future__ import annotations

from bench.weakenings import CUTS, DAMAGE, FAILS, FILES, RULE, Weakening

KILLS = ("tests/test_journal.py", "tests/test_waiting.py", "tests/test_close.py", *CUTS)
LOCKS = ("tests/test_lock.py", "tests/test_posix_lock.py", "tests/test_manager_races.py")

EVIDENCE = (
    Weakening(
        "no_evidence_rule",
        "journal/walk.py",
        "if self.evidence >= self.next_lsn:",
        "if False:",
        DAMAGE,
    ),
    Weakening(
        "no_evidence_after_damage",
        "journal/walk.py",
        "if header:  # a valid one testifies, before the damage and after it",
        "if header and not self.damage:",
        DAMAGE,
    ),
    Weakening(
        "refuse_every_bad_frame",
        "journal/walk.py",
        "if self.evidence >= self.next_lsn:",
        "if self.damage or self.evidence >= self.next_lsn:",
        CUTS,
    ),
    Weakening(
        "checkpoint_names_do_not_testify",
        "journal/recovery.py",
        "Checkpoints([], [], max(lsns, default=0))",
        "Checkpoints([], [], 0)",
        DAMAGE,
    ),
    Weakening(
        "no_marks",
        "journal/writer.py",
        "if segment is None or segment.said_lsn == self._synced_lsn:",
        "if True:",
        ("tests/test_promises.py", *RULE),
    ),
    Weakening(
        "backup_without_mark",
        "journal/copies.py",
        "            if last is not None:",
        "            if False:",
        ("tests/test_backup.py",),
    ),
    Weakening(
        "mark_unsynced_in_front",
        "journal/open_segment.py",
        "        self._is_marked = True\n",
        "        self._is_marked = True\n        self.offset += len(mark)\n",
        RULE,
    ),
    Weakening(
        "frames_say_nothing_durable",
        "journal/writer.py",
        "            durable_lsn=self._synced_lsn,\n",
        "            durable_lsn=0,\n",
        DAMAGE,
    ),
    Weakening(
        "frames_say_too_much",
        "journal/writer.py",
        "            durable_lsn=self._synced_lsn,\n",
        "            durable_lsn=self._written_lsn,\n",
        RULE,
    ),
    Weakening(
        "behind_a_mark_is_no_damage",
        "journal/walk.py",
        "        if self.marked:\n",
        "        if False:\n",
        FILES,
    ),
    Weakening(
        "torn_tail_cut_off",
        "journal/recovery.py",
        "if walk.end and not walk.damage:",
        "if walk.end:",
        CUTS,
    ),
    Weakening(
        "epoch_used_again",
        "journal/recovery.py",
        "epoch=epoch + 1,",
        "epoch=max(1, epoch),",
        CUTS,
    ),
)

ORDER = (
    Weakening(
        "drop_before_publish",
        "journal/compactor.py",
        "            self._write(lsn, items, since_bytes)\n",
        "            kept = self._options.checkpoints_kept\n"
        "            drop_covered(self._directory, [*self._verified_lsns, lsn], kept)\n"
        "            self._write(lsn, items, since_bytes)\n",
        RULE,
    ),
    Weakening(
        "one_checkpoint_counts_as_two",
        "journal/recovery.py",
        "    if len(verified_lsns) < kept:\n        return []\n",
        "    if not verified_lsns:\n        return []\n    kept = min(kept, len(verified_lsns))\n",
        RULE,
    ),
    Weakening(
        "leftover_strictly_below",
        "journal/segment.py",
        "after.first_lsn - 1 > lsn]",
        "after.first_lsn > lsn]",
        RULE,
    ),
    Weakening(
        "dense_from_second_newest",
        "journal/recovery.py",
        "walk = Walk(directory, checkpoints.base_lsn, checkpoints.evidence)",
        "walk = Walk(directory, min([c.lsn for c in checkpoints.good], default=0),"
        " checkpoints.evidence)",
        RULE,
    ),
    Weakening(
        "stray_name_drops_segments",
        "journal/recovery.py",
        "        with Segment(directory, kept_segments[0]):\n            pass\n",
        "        pass\n",
        ("tests/test_compaction.py", *DAMAGE),
    ),
    Weakening(
        "checkpointed_records_applied_again",
        "journal/walk.py",
        "skip = max(0, lsn + 1 - self.first_lsn)",
        "skip = 0",
        ("tests/test_state.py", *RULE),
    ),
    Weakening(
        "number_before_pack",
        "journal/buffer.py",
        "PackedRecord else self._pack(record)\n",
        "PackedRecord else (\n"
        '                    self.filling.records.append(b"\\xc0"), self._pack(record)\n'
        "                )[1]\n"
        "                self.filling.records.pop()\n",
        ("tests/test_options_and_records.py", "tests/test_interrupt.py"),
    ),
    Weakening(
        "split_batch",
        "journal/frame.py",
        "inside = {i for begin, end in groups for i in range(begin + 1, end)}",
        "inside: set[int] = set()",
        RULE,
    ),
    Weakening(
        "room_before_the_covered_is_removed",
        "journal/compactor.py",
        "        drop_covered(self._directory",
        "        self._hold()\n        drop_covered(self._directory",
        ("tests/test_compaction_behind.py",),
    ),
)

GATE = (
    Weakening(
        "acknowledged_before_written",
        "journal/committer.py",
        "self._writer.write(batch)\n",
        "self._turn.committed(batch, 0, 0)\n                self._writer.write(batch)\n",
        KILLS,
    ),
    Weakening(
        "gate_always_open",
        "journal/gate.py",
        "                with self._turnstile:\n                    return True\n",
        "                return True\n",
        KILLS,
    ),
    Weakening(
        "appended_is_durable",
        "journal/commit_turn.py",
        "if lsn <= self.durable_lsn:\n                return None\n            if",
        "if lsn <= filling.last_lsn:\n                return None\n            if",
        KILLS,
    ),
    Weakening(
        "failure_wakes_nobody",
        "journal/commit_turn.py",
        "            self._alarm.wake()\n        self._open_all()\n",
        "            self._alarm.wake()\n",
        ("tests/test_hand_over.py",),
    ),
    Weakening(
        "failure_is_forgotten",
        "journal/standing.py",
        "        self.failure = error\n        self.refusal = self.error\n",
        "        self.failure = error\n",
        FAILS,
    ),
    Weakening(
        "failure_is_told_to_the_first_record_only",
        "journal/commit_turn.py",
        "            self._standing.fail(error)\n            self._buffer.end_fast_path()\n",
        "            self._standing.fail(error)\n",
        ("tests/test_waiting_room.py",),
    ),
    Weakening(
        "closing_is_told_to_the_first_record_only",
        "journal/buffer.py",
        "        self._standing.close()\n        self.end_fast_path()\n",
        "        self._standing.close()\n",
        ("tests/test_waiting_room.py",),
    ),
    Weakening(
        "flusher_sleeps_through_a_new_batch",
        "journal/buffer.py",
        "        self._fast_path_limit_bytes = 0\n        self.filling = Batch(",
        "        self.filling = Batch(",
        ("tests/test_waiting_room.py",),
    ),
    Weakening(
        "second_batch_overtakes",
        "journal/commit_turn.py",
        "return alone and self._committing is None and",
        "return alone and",
        ("tests/test_waiting_room.py",),
    ),
    Weakening(
        "mark_is_cut_off_at_a_roll",
        "journal/open_segment.py",
        "        size = self.offset + frame.HEADER_BYTES * self._is_marked\n",
        "        size = self.offset\n",
        ("tests/test_reader_doubt.py",),
    ),
    Weakening(
        "holder_is_whom_the_note_names",
        "journal/posix.py",
        "            return holder.lock_holder(self._fd, likely_pid)\n",
        "            return likely_pid\n",
        ("tests/test_posix_lock.py",),
    ),
    Weakening(
        "no_directory_lock",
        "journal/posix.py",
        "            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        LOCKS,
    ),
    Weakening(
        "no_owners_lock",
        "journal/lock.py",
        "            with self._lock:\n",
        "            if True:\n",
        LOCKS,
    ),
    Weakening(
        "a_look_clears_a_holder",
        "journal/lock.py",
        " and self._holder == holder:",
        ":",
        LOCKS,
    ),
    Weakening(
        "child_keeps_the_journal",
        "journal/buffer.py",
        "        self._standing.abandon()\n",
        "",
        ("tests/test_fork.py",),
    ),
    Weakening(
        "nothing_committed_at_exit",
        "journal/core.py",
        "    def finish(self) -> None:\n        self.begin_close()\n",
        "    def finish(self) -> None:\n        return\n        self.begin_close()\n",
        ("tests/test_exit.py",),
    ),
)

ALL_OF = EVIDENCE + ORDER + GATE
