"""Weakenings of journals with a mirror: their opens, waits and closes."""

from __future__ import annotations

from proof.weakenings import Weakening

OPENING = ("tests/mirror/test_mirrored_opening.py", "tests/mirror/test_open_table.py")
REMOTE = ("tests/mirror/test_remote_ack.py",)
MIRRORED = ("tests/mirror/test_mirrored_journal.py",)
EXPLORED = ("tests/mirror/test_mirrored_explorer.py",)
SHIPPING = ("tests/mirror/test_shipping.py",)
TURN = ("tests/mirror/test_mirrored_turn.py",)
ALL_OF = (
    Weakening(
        "mirrored_commits_wait_a_quarter_for_any_waiters",
        "journal/_commit/mirrored_turn.py",
        "part = max(_GATHER, 1 - waiting / expected)",
        "part = _GATHER",
        TURN,
    ),
    Weakening(
        "mirror_is_compared_anew_after_each_failed_read",
        "journal/_mirror/attaching.py",
        "reads = cast(Store, PatientReads(store, until_s))",
        "reads = cast(Store, PatientReads(store, 0.0))",
        ("tests/mirror/test_attaching.py",),
    ),
    Weakening(
        "mirrored_journal_is_cut_by_a_repair",
        "journal/_offline/repair.py",
        "    if MIRROR in directory.names():",
        "    if False:",
        ("tests/mirror/test_mirrored_repair.py",),
    ),
    Weakening(
        "mirror_within_the_journals_directory",
        "journal/_engine/mirroring.py",
        "if is_within(mirror.url, directory.path):",
        "if False:",
        OPENING,
    ),
    Weakening(
        "mirror_is_compared_before_it_shows_the_claim",
        "journal/_mirror/attaching.py",
        "if comparison.known.place.number < appender.claimed.number:",
        "if False:",
        ("tests/mirror/test_attaching.py",),
    ),
    Weakening(
        "restart_needs_a_takeover",
        "journal/_mirror/claiming.py",
        "theirs is not None and theirs.writer not in self._own_writers",
        "theirs is not None",
        OPENING,
    ),
    Weakening(
        "claim_before_its_marker",
        "journal/_mirror/attaching.py",
        "            )\n        write_marker(self._directory, self._marker)\n",
        "            )\n",
        OPENING,
    ),
    Weakening(
        "emptied_mirror_begins_again",
        "journal/_mirror/attaching.py",
        "if claimed is None and self._marker.writer and not self._start_over:",
        "if False:",
        OPENING,
    ),
    Weakening(
        "first_contact_takes_over",
        "journal/_mirror/attaching.py",
        "if self._is_late and claimed is not None and not is_own:",
        "if False:",
        OPENING,
    ),
    Weakening(
        "first_contact_forgets_records",
        "journal/_mirror/attaching.py",
        'if comparison.verdict not in ("behind", "forked"):',
        "if True:",
        OPENING,
    ),
    Weakening(
        "other_directories_open_without_contact",
        "journal/_engine/mirroring.py",
        "if is_unreachable and is_local and self.attachment.is_of_last_writer:",
        "if is_unreachable and is_local:",
        OPENING,
    ),
    Weakening(
        "mirrored_directory_opens_without_its_mirror",
        "journal/_engine/mirroring.py",
        "if marker is not None and marker.restored_lsn is None and not is_allowed:",
        "if False:",
        OPENING,
    ),
    Weakening(
        "epoch_of_the_claim_is_ignored",
        "journal/_engine/opening.py",
        "epoch=max(recovered.epoch, self._link.epoch)",
        "epoch=recovered.epoch",
        OPENING,
    ),
    Weakening(
        "fenced_journal_closes_in_silence",
        "journal/_engine/core.py",
        "return min(synced_lsn, mirroring.mirrored_lsn)",
        "return synced_lsn",
        MIRRORED,
    ),
    Weakening(
        "mirror_of_an_unsynced_log",
        "journal/_engine/mirroring.py",
        "                self._committer.sync_log()\n",
        "                pass\n",
        MIRRORED,
    ),
    Weakening(
        "shipper_goes_on_after_a_close",
        "journal/_mirror/shipper.py",
        "        if time.monotonic() >= self._give_up_at:\n",
        "        if False:\n",
        MIRRORED,
    ),
    Weakening(
        "upkeep_at_an_exit_stops_the_journal",
        "journal/_mirror/upkeep.py",
        "        except RuntimeError:  # too many",
        "        except AssertionError:  # too many",
        SHIPPING,
    ),
    Weakening(
        "wake_up_in_an_outage_is_lost",
        "journal/_mirror/shipper.py",
        "                if delay_s > _RETRY_S_MIN:\n",
        "                if False:\n",
        SHIPPING,
    ),
    Weakening(
        "old_end_has_to_have_a_checkpoint",
        "journal/_mirror/shipper.py",
        "                if self._synced_end() == end:\n",
        "                if True:\n",
        ("tests/mirror/test_basing.py",),
    ),
    Weakening(
        "mark_is_shipped_before_it_is_synced",
        "journal/_mirror/unshipped.py",
        "                file.sync()\n",
        "                pass\n",
        EXPLORED,
    ),
    Weakening(
        "unsynced_bytes_are_shipped",
        "journal/_mirror/unshipped.py",
        "                stop = end[1]\n",
        "                stop = sealed_bytes(self._directory, name)\n",
        EXPLORED,
    ),
    Weakening(
        "marker_alone_is_no_journal",
        "journal/_names.py",
        " or file.name == MIRROR for",
        " for",
        OPENING,
    ),
    Weakening(
        "close_sleeps_for_an_interval",
        "journal/_mirror/shipper.py",
        "                if not self._is_stopping:  # the wake-up",
        "                if True:  # the wake-up",
        SHIPPING,
    ),
    Weakening(
        "disk_acknowledges_for_the_mirror",
        "journal/_commit/mirrored_turn.py",
        "lambda held: held.last_lsn <= lsn",
        "lambda held: True",
        REMOTE,
    ),
    Weakening(
        "recovered_records_count_as_mirrored",
        "journal/_commit/mirrored_turn.py",
        "min(mirrored_lsn, self._committed_lsn)",
        "self._committed_lsn",
        REMOTE,
    ),
    Weakening(
        "unmirrored_bytes_do_not_count",
        "journal/_commit/mirrored_turn.py",
        "self._backpressure.hold(self._bytes - self._released_bytes)",
        "self._backpressure.hold(0)",
        REMOTE,
    ),
    Weakening(
        "compactions_wait_for_the_mirror",
        "journal/_commit/mirrored_turn.py",
        "self._sync_gates.append((filling, gate))",
        "gate = self._gate_of(filling)",
        REMOTE,
    ),
    Weakening(
        "close_keeps_the_waiters_of_a_silent_mirror",
        "journal/_engine/mirroring.py",
        "                self._turn.give_up()\n",
        "",
        REMOTE,
    ),
    Weakening(
        "fenced_waiters_wait_on",
        "journal/_commit/mirrored_turn.py",
        "        if self._lifecycle.failure is not None:  # after a close",
        "        if False:  # after a close",
        REMOTE,
    ),
    Weakening(
        "watchers_are_ahead_of_the_mirror",
        "journal/_commit/committer.py",
        "        if self._wake_mirror is not None:\n            self._deferred",
        "        if False:\n            self._deferred",
        REMOTE,
    ),
)
