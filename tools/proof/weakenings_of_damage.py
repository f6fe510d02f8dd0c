"""Weakenings of the rule for damage that a checkpoint covers."""

from __future__ import annotations

from proof.weakenings import Weakening

COVERED = ("tests/crash/test_covered_damage.py",)
RULE = "journal/_recovery/covered_damage.py"

FIXES = ("tests/crash/test_repair_fixes.py",)
FOREIGN = ("tests/inspect/test_inspect_foreign.py",)
PUT_BACK = ("tests/crash/test_putting_back.py",)

ALL_OF = (
    Weakening(
        "another_file_blamed_for_a_foreign_segment",
        "journal/_recovery/recovery.py",
        "raise blamed(directory, plan.segments, error) from error",
        "raise",
        FOREIGN,
    ),
    Weakening(
        "first_segment_decides_the_id",
        "journal/_recovery/stray_segments.py",
        "        if len(of_segments) == 1:\n            [self.journal_id] = of_segments\n",
        "        if of_segments:\n            self.journal_id = next(iter(of_segments))\n",
        FOREIGN,
    ),
    Weakening(
        "readers_take_the_id_of_their_first_segment",
        "journal/_offline/cursor.py",
        "            before = self._journal_id or None, self",
        "            before = None, self",
        ("tests/crash/test_damage_complete.py",),
    ),
    Weakening(
        "needed_frames_passed_over",
        RULE,
        "    return lsn < header.first_lsn <= covered_lsn + 1 and not",
        "    return lsn < header.first_lsn and not",
        COVERED,
    ),
    Weakening(
        "reading_resumes_at_a_header",
        RULE,
        "    if scanned.state not in (FrameState.RECORDS, FrameState.MARK):",
        "    if scanned.state is FrameState.GARBAGE:",
        COVERED,
    ),
    Weakening(
        "quoted_frames_read",
        RULE,
        "            if quotes.contain(scanned):",
        "            if False:",
        COVERED,
    ),
    Weakening(
        "frames_in_a_damaged_payload_read",
        RULE,
        " or scanned.offset < header_at:",
        ":",
        COVERED,
    ),
    Weakening(
        "frames_quoted_after_a_damaged_payload_read",
        RULE,
        "        if scanned.offset > header_at:",
        "        if scanned.offset > header_at == offset:",
        COVERED,
    ),
    Weakening(
        "all_records_taken_for_whole",
        RULE,
        "        return self._is_readable and self._run_end(scanned) <= self._record_end",
        "        return self._is_readable",
        COVERED,
    ),
    Weakening(
        "replay_passes_over_damage",
        "journal/_offline/reader.py",
        "walk = Walk.at(segment, limit_lsn, covered_lsn=next_lsn - 1)",
        "walk = Walk.at(segment, limit_lsn, covered_lsn=limit_lsn)",
        COVERED,
    ),
    Weakening(
        "no_compaction_at_once_after_damage",
        "journal/_engine/compactor.py",
        "        schedule.is_urgent = checkpoints.is_exposed",
        "        schedule.is_urgent = False",
        COVERED,
    ),
    Weakening(
        "one_checkpoint_after_damage_is_enough",
        "journal/_engine/checkpoint_store.py",
        "len(after) < self._options.checkpoints_kept",
        "not after",
        COVERED,
    ),
    Weakening(
        "header_rebuilt_without_a_whole_frame",
        "journal/_offline/header_fix.py",
        " or not _is_whole(file, first):",
        ":",
        FIXES,
    ),
    Weakening(
        "header_rebuilt_for_any_place",
        "journal/_offline/header_fix.py",
        "not first or first.broken_rule(name.first_lsn) or",
        "not first or",
        FIXES,
    ),
    Weakening(
        "computed_seed_not_confirmed",
        "journal/_offline/header_fix.py",
        "        if seed in stated or _is_confirmed(file, first, seed):",
        "        if first:",
        FIXES,
    ),
    Weakening(
        "interrupted_renames_forgotten",
        "journal/_offline/fixes.py",
        "    for name in filter(_ASIDE.search, names):",
        "    for name in ():",
        FIXES,
    ),
    Weakening(
        "large_records_made_to_be_checked",
        "journal/_format/record.py",
        "    if len(data) <= LARGE_BYTES:",
        "    if True:",
        ("tests/engine/test_large_records.py",),
    ),
    Weakening(
        "records_of_large_frames_made_at_once",
        "journal/_format/packed_records.py",
        "    if len(data) <= at_once_bytes or len(spans) > 1:",
        "    if True:",
        ("tests/engine/test_packed_records.py",),
    ),
    Weakening(
        "records_over_the_limit_made",
        "journal/_format/packed_records.py",
        "(memory_bytes := measure_large(packed)) > memory_max:",
        "(memory_bytes := measure_large(packed)) < 0:",
        ("tests/engine/test_packed_records.py",),
    ),
    Weakening(
        "large_frames_not_checked_first",
        "journal/_format/packed_records.py",
        "    check_spans(data, spans)\n",
        "",
        ("tests/engine/test_packed_records.py",),
    ),
    Weakening(
        "recovery_trusts_holes",
        "journal/_disk/posix.py",
        "has_holes=not self._write",
        "has_holes=True",
        ("tests/kernel/test_posix_holes.py",),
    ),
    Weakening(
        "strings_of_large_records_not_checked",
        "journal/_format/large_record.py",
        "    if is_checked:  #",
        "    if False:  #",
        ("tests/engine/test_large_records.py",),
    ),
    Weakening(
        "report_written_over_the_old_one",
        "tools/journal_inspect/rendering/output_file.py",
        '        problem = "is no regular file, so it is not replaced"',
        "        return",
        ("tests/inspect/test_inspect_output_files.py",),
    ),
    Weakening(
        "put_back_repeats",
        "journal/_state/putting_back.py",
        "                if (each.epoch, each.lsn) in present:",
        "                if False:",
        PUT_BACK,
    ),
    Weakening(
        "put_back_takes_what_the_state_refuses",
        "journal/_state/putting_back.py",
        "                    refused.append(each.lsn)\n                    continue",
        "                    refused.append(each.lsn)",
        PUT_BACK,
    ),
    Weakening(
        "put_back_rehearses_nothing",
        "journal/_state/putting_back.py",
        "        self._rehearse(batches)\n",
        "",
        PUT_BACK,
    ),
    Weakening(
        "put_back_after_marks_are_gone",
        "journal/_state/putting_back.py",
        "    elif journal.first_lsn > salvaged.appended_after + 1:",
        "    elif False:",
        PUT_BACK,
    ),
    Weakening(
        "put_back_ignores_what_damage_hides",
        "journal/_state/putting_back.py",
        "            if not after < last_lsn <= appended_after:",
        "            if not after < last_lsn:",
        PUT_BACK,
    ),
    Weakening(
        "put_back_into_any_journal",
        "journal/_state/putting_back.py",
        "    if salvaged.journal_id != journal.journal_id:",
        "    if False:",
        PUT_BACK,
    ),
    Weakening(
        "put_back_takes_torn_tails",
        "journal/_offline/salvaging.py",
        "is_lost = not is_dead or frame_lsn <= durable_lsn",
        "is_lost = True",
        PUT_BACK,
    ),
    Weakening(
        "relost_records_get_a_new_identity",
        "journal/_state/putting_back.py",
        "            yield _Numbered(mark.epoch, mark.first_lsn + at - begin, record)",
        "            yield _Numbered(frame.epoch, frame.first_lsn + at, record)",
        PUT_BACK,
    ),
    Weakening(
        "salvage_forgets_the_time",
        "journal/_offline/salvaging.py",
        "            clock.at_ns = batch.written_at_ns\n",
        "",
        ("tests/crash/test_salvage.py",),
    ),
)
