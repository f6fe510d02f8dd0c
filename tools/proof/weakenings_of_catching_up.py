"""Weakenings of what readers meet while a follower that was away catches up."""

from __future__ import annotations

from proof.weakenings import Weakening

KILLED = ("tests/mirror/test_killed_followers.py",)
RETURNING = ("tests/mirror/test_returning.py",)
CATCHING_UP = ("tests/mirror/test_catching_up.py",)

ALL_OF = (
    Weakening(
        "checkpoint_is_shown_before_the_log_reaches_it",
        "journal/_mirror/live_copy.py",
        " and entry.last_lsn >= newest_lsn:",
        ":",
        CATCHING_UP,
    ),
    Weakening(
        "checkpoint_is_shown_without_the_log_after_it",
        "journal/_mirror/live_copy.py",
        "if self._whole and entry.kind != CHECKPOINT and",
        "if self._whole and",
        CATCHING_UP,
    ),
    Weakening(
        "checkpoint_is_taken_while_readers_see_an_older_log",
        "journal/_mirror/following.py",
        "        if self._copy.is_catching_up:\n            return\n",
        "",
        CATCHING_UP,
    ),
    Weakening(
        "names_are_synced_one_by_one_while_readers_look",
        "journal/_mirror/live_copy.py",
        "self._staging.put(at_once=True)",
        "self._staging.put()",
        CATCHING_UP,
    ),
    Weakening(
        "close_of_a_follower_raises_on_a_failing_disk",
        "journal/_mirror/live_copy.py",
        "            if not is_disk_error(error):\n                raise\n",
        "            raise\n",
        CATCHING_UP,
    ),
    Weakening(
        "part_of_a_checkpoint_is_named",
        "journal/_mirror/following.py",
        "            self._copy.forget_parts()\n",
        "",
        CATCHING_UP,
    ),
    Weakening(
        "follower_goes_on_from_one_checkpoint",
        "journal/_mirror/reading.py",
        "for name in reversed(start):",
        "for name in start:",
        CATCHING_UP,
    ),
    Weakening(
        "log_that_was_left_behind_is_damage",
        "journal/_offline/cursor.py",
        "                self._check_kept(name, after)\n",
        "",
        CATCHING_UP,
    ),
    Weakening(
        "mark_that_goes_is_damage",
        "journal/_offline/cursor.py",
        " and not self._walk.resumes_lsn",
        " and not self._walk.damage",
        CATCHING_UP,
    ),
    Weakening(
        "reader_goes_back_when_a_segment_comes",
        "journal/_offline/cursor.py",
        "self._segments[-1] > name",
        "False",
        CATCHING_UP,
    ),
    Weakening(
        "second_look_is_damage",
        "journal/_mirror/reading.py",
        "if self._suspect == (suspect := (str(astray), chain_now, newest)):",
        "suspect = str(astray), chain_now, newest\n"
        '            if (self._suspect or [""])[0] == suspect[0]:',
        CATCHING_UP,
    ),
    Weakening(
        "gap_in_the_log_settles_nothing",
        "journal/_mirror/reading.py",
        "            before = 0\n",
        "            pass\n",
        KILLED,
    ),
    Weakening(
        "note_hides_files_in_a_gap",
        "journal/_mirror/comparing.py",
        " and not local.has_gap(known)",
        "",
        KILLED,
    ),
    Weakening(
        "removed_start_is_damage",
        "journal/_mirror/comparing.py",
        "            if local.start(store, names) == before:\n                raise",
        "            raise",
        KILLED,
    ),
    Weakening(
        "claim_during_a_comparison_is_not_noted",
        "journal/_engine/follower.py",
        "max(epoch, comparison.epoch)",
        "epoch",
        KILLED,
    ),
    Weakening(
        "segment_before_a_gap_is_cut",
        "journal/_mirror/comparing.py",
        " if n.first_lsn >= shown_lsn",
        "",
        KILLED,
    ),
    Weakening(
        "empty_segment_is_ahead",
        "journal/_mirror/comparing.py",
        "return not is_had or self.has_records_past(name, size)",
        "return True",
        KILLED,
    ),
    Weakening(
        "old_mark_in_a_torn_write_is_a_fork",
        "journal/_mirror/content.py",
        "(FrameState.MARK, FrameState.DAMAGED_PAYLOAD, ",
        "(FrameState.DAMAGED_PAYLOAD, ",
        KILLED,
    ),
    Weakening(
        "former_writer_stays_the_last_one",
        "journal/_mirror/marker.py",
        'marker._replace(epoch=epoch, writer="")',
        "marker._replace(epoch=epoch)",
        RETURNING,
    ),
    Weakening(
        "emptied_mirror_begins_again_with_a_follower",
        "journal/_mirror/attaching.py",
        "claimed is None and self._marker.epoch and",
        "claimed is None and self._marker.writer and",
        RETURNING,
    ),
)
