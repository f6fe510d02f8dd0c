"""Weakenings of how a mirror fixes a damaged directory, and of the forks that damage may hide."""

from __future__ import annotations

from proof.weakenings import Weakening

FIXED = ("tests/mirror/test_fixed_damage.py",)
RETURNING = ("tests/mirror/test_returning.py",)
ASIDE = ("tests/mirror/test_aside.py",)

ALL_OF = (
    Weakening(
        "damage_is_a_fork",
        "journal/_mirror/comparing.py",
        "            if end <= begin:\n",
        "            if True:\n",
        FIXED,
    ),
    Weakening(
        "only_the_first_damage_is_fixed",
        "journal/_mirror/comparing.py",
        "        while begin < len(own):\n",
        "        if begin < len(own):\n",
        FIXED,
    ),
    Weakening(
        "lost_end_of_a_segment_is_a_fork",
        "journal/_mirror/comparing.py",
        "return name in self.names[:-1]",
        "return False",
        FIXED,
    ),
    Weakening(
        "damage_is_fixed_below_other_records",
        "journal/_mirror/comparing.py",
        " or local.cuts_fixed(known, fixed)",
        "",
        FIXED,
    ),
    Weakening(
        "cut_is_compared_with_the_stated_lsn",
        "journal/_mirror/comparing.py",
        "name < each and each.first_lsn <= last_lsn and",
        "name < each and each.first_lsn <= known.last_lsn and",
        FIXED,
    ),
    Weakening(
        "end_of_a_damaged_segment_is_missing",
        "journal/_mirror/content.py",
        "max([content_end, *(scanned.end for scanned in segment.scan(end) if scanned.data)])",
        "content_end",
        FIXED,
    ),
    Weakening(
        "fixing_drops_what_follows",
        "journal/_mirror/staging.py",
        "copied_bytes=file_size(self.directory, piece.name)",
        "copied_bytes=piece.offset",
        FIXED,
    ),
    Weakening(
        "damage_is_fixed_silently",
        "journal/_mirror/comparing.py",
        "in sorted(fixed.items())",
        "in ()",
        FIXED,
    ),
    Weakening(
        "late_contact_fixes",
        "journal/_mirror/attaching.py",
        "        comparison.staging.drop()\n        has_lost",
        "        has_lost",
        FIXED,
    ),
    Weakening(
        "late_contact_takes_a_lost_record_for_a_torn_tail",
        "journal/_mirror/attaching.py",
        "comparison.fixed_lsn > self._recovered_lsn",
        "False",
        FIXED,
    ),
    Weakening(
        "refused_follower_leaves_unfinished_files",
        "journal/_engine/follower.py",
        "            comparison.staging.drop()\n            raise ForkedError(",
        "            raise ForkedError(",
        FIXED,
    ),
    Weakening(
        "follower_puts_damage_aside",
        "journal/_engine/follower.py",
        "        comparison.fetch()  # what is put aside needs no damaged bytes\n",
        "        comparison.staging.drop()\n",
        FIXED,
    ),
    Weakening(
        "cut_before_the_first_record_is_covered",
        "journal/_mirror/comparing.py",
        "local.cuts_covered(known, shown_lsn) or ",
        "",
        ("tests/mirror/test_mirrored_repair.py",),
    ),
    Weakening(
        "checkpoint_without_a_claim_hides_records",
        "journal/_mirror/comparing.py",
        "if self.has_missed(min(mirrored_lsn, self.checkpoint_lsn)):",
        "if False:",
        RETURNING,
    ),
    Weakening(
        "checkpoint_of_an_equal_epoch_hides_records",
        "journal/_mirror/comparing.py",
        "each.first_lsn <= unclaimed_lsn and self._never_had(each)",
        "False",
        RETURNING,
    ),
    Weakening(
        "checkpoint_of_an_earlier_epoch_hides_records",
        "journal/_mirror/comparing.py",
        "each.first_lsn <= taken.lsn and taken.epoch < each.epoch",
        "False",
        RETURNING,
    ),
    Weakening(
        "damage_to_mirrored_records_hides_a_fork",
        "journal/_mirror/aside.py",
        "readable(directory, _last_common_lsn(directory, aside))",
        "readable(directory, None)",
        ASIDE,
    ),
    Weakening(
        "damage_to_own_records_is_passed_over",
        "journal/_mirror/aside.py",
        "return first_lsn - 1 if is_whole else lsn",
        "if is_whole:\n                        return first_lsn - 1",
        ASIDE,
    ),
    Weakening(
        "checkpoint_forgets_a_segment_that_was_cut_off",
        "journal/_mirror/checkpointing.py",
        "for name in segments if name.first_lsn >= needed[0].first_lsn",
        "for name in needed",
        FIXED,
    ),
)
