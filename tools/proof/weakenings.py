"""Weakenings of syncs and checks. Each removes one thing that the engine's promises rest on.

A weakening replaces one piece of one file, in which the piece occurs exactly once. A test has to
fail under each.
"""

from __future__ import annotations

from typing import NamedTuple

RULE = ("tests/crash/test_rule_states.py",)
CUTS = ("tests/crash/test_power_cut.py", "tests/crash/test_promises.py", *RULE)
FILES = ("tests/crash/test_damaged_files.py",)
DAMAGE = ("tests/engine/test_verify.py", *FILES, "tests/crash/test_damage_complete.py")
BYTES = ("tests/engine/test_format.py", "tests/crash/test_golden.py", *DAMAGE)
FAILS = (
    "tests/engine/test_fail_stop.py",
    "tests/kernel/test_deleted_underneath.py",
    "tests/engine/test_waiting.py",
)
BLAME = ("tests/crash/test_blame.py",)
DISK = ("tests/kernel/test_posix.py", "tests/kernel/test_lazy_fs.py")


class Weakening(NamedTuple):
    """A change of one file that a test has to notice.

    `tests` are the files expected to notice it. If they pass, the whole suite runs.
    """

    name: str
    path: str
    old: str
    new: str
    tests: tuple[str, ...]


SYNCS = (
    Weakening(
        "commit_without_sync",
        "journal/_commit/committer.py",
        "if self._sync_each or batch.sync:",
        "if batch.sync:",
        CUTS,
    ),
    Weakening(
        "sync_that_does_nothing",
        "journal/_commit/writer.py",
        "                self._segment.file.sync()\n            except",
        "                pass\n            except",
        CUTS,
    ),
    Weakening(
        "segment_born_unsynced",
        "journal/_commit/writer.py",
        "            file.sync()\n            self._directory.rename",
        "            self._directory.rename",
        CUTS,
    ),
    Weakening(
        "segment_name_unsynced",
        "journal/_commit/writer.py",
        "        try:\n            self._directory.sync()\n",
        "        try:\n            pass\n",
        CUTS,
    ),
    Weakening(
        "roll_without_sync",
        "journal/_commit/writer.py",
        "        segment.trim()\n        self.sync()\n",
        "        segment.trim()\n",
        RULE,
    ),
    Weakening(
        "close_without_sync",
        "journal/_commit/writer.py",
        "        self.sync()\n        self.mark()\n",
        "        self.mark()\n",
        CUTS,
    ),
    Weakening(
        "checkpoint_unsynced",
        "journal/_format/checkpoint.py",
        "            file.sync()\n        finally",
        "            pass\n        finally",
        RULE,
    ),
    Weakening(
        "checkpoint_name_unsynced",
        "journal/_format/checkpoint.py",
        "directory.rename, pace)\n    directory.sync()\n",
        "directory.rename, pace)\n",
        RULE,
    ),
    Weakening(
        "os_checkpoint_without_log_sync",
        "journal/_engine/compactor.py",
        "            self._committer.sync_log()\n"
        "            end_lsn = self._committer.synced_lsn\n",
        "            end_lsn = lsn\n",
        RULE,
    ),
    Weakening(
        "no_sync_before_trust",
        "journal/_recovery/recovery.py",
        "            last.sync()\n",
        "            pass\n",
        RULE,
    ),
    Weakening(
        "no_names_sync_before_trust",
        "journal/_recovery/recovery.py",
        "    directory.sync()\n    if segments:",
        "    if segments:",
        RULE,
    ),
    Weakening(
        "no_page_drop",
        "journal/_recovery/recovery.py",
        "            last.drop_cache()\n",
        "",
        RULE,
    ),
    Weakening(
        "failed_sync_tried_again",
        "journal/_commit/writer.py",
        "                self._sync_error = error\n",
        "                raise FailedError(str(error)) from error\n",
        ("tests/kernel/test_interrupt.py",),
    ),
    Weakening(
        "deleted_segment_acknowledged",
        "journal/_commit/writer.py",
        " and not segment.file.is_linked():",
        " and False:",
        FAILS,
    ),
    Weakening(
        "os_promise_after_failed_sync",
        "journal/_engine/journal.py",
        "        if self.last_lsn > self._core.safe_lsn:\n",
        "        if False:\n",
        FAILS,
    ),
    Weakening(
        "no_fdatasync",
        "journal/_disk/posix_file.py",
        "            os.fdatasync(self._fd)",
        "            pass",
        DISK,
    ),
    Weakening(
        "no_directory_fsync", "journal/_disk/posix.py", "        os.fsync(fd)", "        pass", DISK
    ),
    Weakening(
        "no_cache_drop",
        "journal/_disk/posix_file.py",
        "os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)",
        "pass",
        DISK,
    ),
    Weakening(
        "no_state_dir_fsync",
        "manager/workspace.py",
        "    os.fsync(parent)\n",
        "",
        ("tests/manager/test_manager_paths.py",),
    ),
)

CHECKS = (
    Weakening(
        "no_frame_header_crc",
        "journal/_format/frame.py",
        " or CRC.unpack_from(data, at)[0] != checksum(data[at + 4 : end], seed):",
        ":",
        BYTES,
    ),
    Weakening(
        "frame_crc_without_seed",
        "journal/_format/frame.py",
        "CRC.pack(checksum(fields, seed))",
        "CRC.pack(checksum(fields))",
        BYTES,
    ),
    Weakening(
        "no_payload_crc",
        "journal/_format/segment.py",
        "if checksum(memoryview(data)[FRAME_HEADER_BYTES:]) == header.payload_crc:",
        "if True:",
        BYTES,
    ),
    Weakening(
        "no_segment_header_crc",
        "journal/_format/segment.py",
        "        or checksum(data[:-4]) != CRC.unpack_from(data, SEGMENT_CRC_OFFSET)[0]\n",
        "",
        BYTES,
    ),
    Weakening(
        "no_segment_name_check",
        "journal/_format/segment.py",
        "if header.name != self.name:",
        "if False:",
        BYTES,
    ),
    Weakening(
        "no_lsn_check",
        "journal/_format/frame.py",
        "if self.first_lsn != lsn:",
        "if False:",
        FILES,
    ),
    Weakening(
        "no_durable_lsn_check",
        "journal/_format/frame.py",
        "if self.durable_lsn >= lsn:",
        "if False:",
        FILES,
    ),
    Weakening(
        "no_last_lsn_check",
        "journal/_recovery/walk.py",
        "if self.next_lsn > LSN_MAX:",
        "if False:",
        ("tests/crash/test_hostile_segments.py",),
    ),
    Weakening(
        "frame_past_the_last_lsn",
        "journal/_format/frame.py",
        "if lsn + self.record_count - 1 > LSN_MAX:",
        "if False:",
        ("tests/crash/test_hostile_segments.py",),
    ),
    Weakening(
        "no_gap_check",
        "journal/_recovery/walk.py",
        "if self.next_lsn != after.first_lsn:",
        "if False:",
        DAMAGE,
    ),
    Weakening(
        "no_journal_id_check",
        "journal/_recovery/walk.py",
        "if self.journal_id not in (None, header.journal_id):",
        "if False:",
        DAMAGE,
    ),
    Weakening(
        "no_epoch_check",
        "journal/_recovery/walk.py",
        "if header.epoch < self.epoch:",
        "if False:",
        FILES,
    ),
    Weakening(
        "no_beginning_check",
        "journal/_recovery/plan.py",
        "if not needed or needed[0].first_lsn <= base_lsn + 1:",
        "if True:",
        DAMAGE,
    ),
    Weakening(
        "no_checkpoint_crc",
        "journal/_format/checkpoint.py",
        "or last_line != _last_line(count, crc):",
        "or False:",
        DAMAGE,
    ),
    Weakening(
        "no_checkpoint_lsn_check",
        "journal/_format/checkpoint.py",
        "if stated_lsn != lsn:",
        "if False:",
        ("tests/engine/test_checkpoints_held.py",),
    ),
    Weakening(
        "no_checkpoint_id_check",
        "journal/_recovery/plan.py",
        "if journal_id not in (None, checkpoint.journal_id):",
        "if False:",
        FILES,
    ),
    Weakening(
        "no_application_check",
        "journal/_recovery/recovery.py",
        "if taken and accepts and taken.application not in accepts:",
        "if False:",
        ("tests/engine/test_state.py",),
    ),
    Weakening(
        "search_follows_copies_of_earlier_frames",
        "journal/_format/segment.py",
        "if header and header.first_lsn >= lsn:",
        "if header:",
        BLAME,
    ),
    Weakening(
        "first_segment_decides_the_journal_id",
        "journal/_recovery/plan.py",
        "return ids.pop() if len(ids) == 1 < len(self._judged) else None",
        "return None",
        BLAME,
    ),
    Weakening(
        "any_mark_at_a_cut_belongs_to_the_segment",
        "journal/_recovery/walk.py",
        "return is_first and scanned.header.broken_rule(self.next_lsn) is None",
        "return is_first",
        BLAME,
    ),
)

ALL_OF = SYNCS + CHECKS
