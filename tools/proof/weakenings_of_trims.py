"""Weakenings of trims, of retention, and of the fillers of an idle state."""

from __future__ import annotations

from proof.weakenings import Weakening

FILLERS = ("tests/engine/test_fillers.py",)
TRIMS = ("tests/engine/test_trim.py", "tests/crash/test_trim_crash.py")
RETENTION = ("tests/engine/test_retention.py",)

ALL_OF = (
    Weakening(
        "filler_looks_like_a_record",
        "journal/_commit/writer.py",
        "durable_lsn=0 if has_filler and not index else self._synced_lsn,",
        "durable_lsn=self._synced_lsn,",
        FILLERS,
    ),
    Weakening(
        "every_first_nil_is_a_filler",
        "journal/_format/frame.py",
        "is_lone = first_lsn > 1 and (durable_lsn, size, count) == (0, len(FILLER), 1)",
        "is_lone = first_lsn > 1 and (size, count) == (len(FILLER), 1)",
        FILLERS,
    ),
    Weakening(
        "first_nil_of_a_journal_is_a_filler",
        "journal/_format/frame.py",
        "is_lone = first_lsn > 1 and ",
        "is_lone = ",
        FILLERS,
    ),
    Weakening(
        "filler_in_the_middle_of_a_segment",
        "journal/_commit/writer.py",
        "if is_full or has_filler or segment is self._ended:",
        "if is_full or segment is self._ended:",
        FILLERS,
    ),
    Weakening(
        "filler_shares_a_frame",
        "journal/_commit/writer.py",
        "if has_filler or batch.bytes > self._options.frame_bytes_max:",
        "if batch.bytes > self._options.frame_bytes_max:",
        FILLERS,
    ),
    Weakening(
        "filler_is_applied",
        "journal/_state/replay.py",
        "        if lsn == filler_lsn:\n            continue\n",
        "",
        FILLERS,
    ),
    Weakening(
        "filler_is_a_change",
        "journal/_recovery/walk.py",
        "            if lsn != filler_lsn:\n                yield lsn, record\n",
        "            yield lsn, record\n",
        FILLERS,
    ),
    Weakening(
        "filler_needs_a_log_that_is_due",
        "journal/_engine/checkpoint_store.py",
        "- segment_bytes >= _WORTHWHILE * segment_bytes",
        "- segment_bytes >= self._options.checkpoint_min_bytes",
        FILLERS,
    ),
    Weakening(
        "filler_after_later_records",
        "journal/_commit/buffer.py",
        "if filling.records or filling.last_lsn != after_lsn:",
        "if filling.records:",
        FILLERS,
    ),
    Weakening(
        "filler_beside_buffered_records",
        "journal/_commit/buffer.py",
        "if filling.records or filling.last_lsn != after_lsn:",
        "if filling.last_lsn != after_lsn:",
        FILLERS,
    ),
    Weakening(
        "filler_at_each_compaction",
        "journal/_engine/compactor.py",
        "if fill is None or not self._checkpoints.needs_filler(first):",
        "if fill is None:",
        FILLERS,
    ),
    Weakening(
        "filler_is_salvaged",
        "journal/_offline/salvaging.py",
        "if not batch.filler_lsn:",
        "if True:",
        FILLERS,
    ),
    Weakening(
        "trim_past_its_lsn",
        "journal/_engine/trimming.py",
        "newest_lsn = _frame_start(directory, segments, before_lsn) - 1",
        "newest_lsn = _frame_start(directory, segments, before_lsn)",
        TRIMS,
    ),
    Weakening(
        "trim_within_a_batch",
        "journal/_engine/trimming.py",
        "newest_lsn = _frame_start(directory, segments, before_lsn) - 1",
        "newest_lsn = before_lsn - 1",
        TRIMS,
    ),
    Weakening(
        "trim_without_sync",
        "journal/_engine/compactor.py",
        "            self._committer.sync_log()  # a checkpoint states",
        "            pass  # a checkpoint states",
        TRIMS,
    ),
    Weakening(
        "trim_forgets_a_state",
        "journal/_engine/checkpoint_store.py",
        "    if items:\n",
        "    if False:\n",
        TRIMS,
    ),
    Weakening(
        "trim_never_ends_a_segment",
        "journal/_engine/compactor.py",
        "if self._checkpoints.last_segment_lsn < before_lsn:",
        "if False:",
        TRIMS,
    ),
    Weakening(
        "trim_leaves_what_a_failed_one_left",
        "journal/_engine/compactor.py",
        "        self._checkpoints.drop_covered()  # even without",
        "        published and self._checkpoints.drop_covered()  # even without",
        TRIMS,
    ),
    Weakening(
        "retention_trusts_a_clock_that_was_set_back",
        "journal/_engine/trimming.py",
        "accumulate((time if time <= now_ns else 0 for time in times_ns), max)",
        "accumulate((time if time <= now_ns else 0 for time in times_ns), lambda _, time: time)",
        RETENTION,
    ),
    Weakening(
        "retention_waits_for_times_in_the_future",
        "journal/_engine/trimming.py",
        "accumulate((time if time <= now_ns else 0 for time in times_ns), max)",
        "accumulate(times_ns, max)",
        RETENTION,
    ),
    Weakening(
        "retention_never_ends_a_segment",
        "journal/_engine/trimming.py",
        "            self._committer.end_segment()\n",
        "            pass\n",
        RETENTION,
    ),
    Weakening(
        "retention_of_a_state",
        "journal/_engine/opening.py",
        "if self._options.has_retention and (newest := recovery.checkpoint):",
        "if False and (newest := recovery.checkpoint):",
        RETENTION,
    ),
)
