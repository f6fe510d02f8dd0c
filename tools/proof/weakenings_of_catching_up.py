"""Weakenings of what readers meet while a follower that was away catches up."""

from __future__ import annotations

from proof.weakenings import Weakening

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
        "second_look_is_damage",
        "journal/_mirror/reading.py",
        "if self._suspect == (suspect := (str(astray), chain_now, newest)):",
        "suspect = str(astray), chain_now, newest\n"
        '            if (self._suspect or [""])[0] == suspect[0]:',
        CATCHING_UP,
    ),
)
