"""Weakenings of a mirror's checkpoints, and of the removals and restores that depend on them."""

from __future__ import annotations

from proof.weakenings import Weakening

CHECKPOINTS = (
    "tests/mirror/test_checkpointing.py",
    "tests/mirror/test_basing.py",
    "tests/mirror/test_retention.py",
    "tests/mirror/test_blobs.py",
    "tests/mirror/test_restoring.py",
)

FETCHED = ("tests/mirror/test_mirrored_checkpoints.py",)

ALL_OF = (
    Weakening(
        "checkpoint_before_its_records",
        "journal/_mirror/checkpointing.py",
        "if lsn <= mirrored_lsn and self._put(lsn)]",
        "if self._put(lsn)]",
        CHECKPOINTS,
    ),
    Weakening(
        "one_checkpoint_covers",
        "journal/_mirror/retention.py",
        "ALWAYS_KEPT = 2",
        "ALWAYS_KEPT = 1",
        CHECKPOINTS,
    ),
    Weakening(
        "clock_removes_what_is_kept",
        "journal/_mirror/retention.py",
        "begin = min(past[-1], newest)",
        "begin = past[-1]",
        CHECKPOINTS,
    ),
    Weakening(
        "moments_before_a_checkpoint_go",
        "journal/_mirror/retention.py",
        "is_begun = bool(past) and len(kept) >= ALWAYS_KEPT",
        "is_begun = len(kept) >= ALWAYS_KEPT",
        CHECKPOINTS,
    ),
    Weakening(
        "base_is_thinned_out",
        "journal/_mirror/retention.py",
        "at >= newest or name.nonce or hour",
        "at >= newest or hour",
        CHECKPOINTS,
    ),
    Weakening(
        "removal_takes_what_is_not_covered",
        "journal/_mirror/claiming.py",
        "if n <= floor and n != last",
        "if n != last",
        CHECKPOINTS,
    ),
    Weakening(
        "removal_takes_claims",
        "journal/_mirror/removing.py",
        "if kind not in (CLAIM, BASE):",
        "if kind not in (BASE,):",
        CHECKPOINTS,
    ),
    Weakening(
        "base_is_believed_early",
        "journal/_mirror/reading.py",
        "if read_entry(store, name.number).nonce.hex() == name.nonce:",
        "if True:",
        CHECKPOINTS,
    ),
    Weakening(
        "gap_is_passed_over",
        "journal/_mirror/restoring.py",
        "if entry.kind == BASE and not is_start and not self._target.is_end:",
        "if False:",
        CHECKPOINTS,
    ),
    Weakening(
        "compaction_ignores_the_mirror",
        "journal/_mirror/holding.py",
        "return [name for name in covered if name not in needed]",
        "return covered",
        CHECKPOINTS,
    ),
    Weakening(
        "open_ignores_the_mirror",
        "journal/_engine/opening.py",
        "holding = self._link.holding if self._link else None",
        "holding = None",
        ("tests/mirror/test_mirrored_restoring.py",),
    ),
    Weakening(
        "restore_keeps_later_checkpoints",
        "journal/_mirror/copying.py",
        "            if each > last_lsn:\n",
        "            if False:\n",
        CHECKPOINTS,
    ),
    Weakening(
        "checkpoint_is_fetched_without_its_log",
        "journal/_mirror/comparing.py",
        "segments_after(mirrored, local.floor_lsn)",
        "segments_after(mirrored, local.checkpoint_lsn)",
        FETCHED,
    ),
    Weakening(
        "checkpoints_are_not_fetched",
        "journal/_mirror/comparing.py",
        "                staging.write(piece)\n            continue",
        "                pass\n            continue",
        FETCHED,
    ),
    Weakening(
        "blob_may_end_early",
        "journal/_mirror/blobs.py",
        "        if more:\n            raise",
        "        if False:\n            raise",
        CHECKPOINTS,
    ),
)
