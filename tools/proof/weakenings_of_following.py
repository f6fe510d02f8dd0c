"""Weakenings of what a directory knows of its mirror: the note of the last place, and losses."""

from __future__ import annotations

from proof.weakenings import Weakening

NOTES = ("tests/mirror/test_comparing.py", "tests/mirror/test_place_note.py")
LOST = ("tests/mirror/test_lost_entries.py",)
FOLLOWING = ("tests/mirror/test_following.py",)
ASIDE = ("tests/mirror/test_aside.py",)
RETURNING = ("tests/mirror/test_returning.py",)

OF_NOTES = (
    Weakening(
        "note_of_other_bytes_is_trusted",
        "journal/_mirror/place_note.py",
        "_crc_of(directory, name, extent.size) == extent.crc",
        "True",
        NOTES,
    ),
    Weakening(
        "note_of_lost_segments_is_trusted",
        "journal/_mirror/place_note.py",
        "            else is_covered(name)\n",
        "            else True\n",
        NOTES,
    ),
    Weakening(
        "note_of_another_mirror_is_trusted",
        "journal/_mirror/comparing.py",
        "return read_entry(store, place.number).nonce == place.nonce",
        "return bool(read_entry(store, place.number))",
        NOTES,
    ),
    Weakening(
        "note_hides_lost_entries",
        "journal/_mirror/comparing.py",
        "if not names.show(start[0].number + 1 if start else 1, place.number):",
        "if False:",
        LOST,
    ),
    Weakening(
        "note_is_useless_once_the_beginning_is_removed",
        "journal/_mirror/comparing.py",
        "if not names.show(start[0].number + 1 if start else 1, place.number):",
        "if not names.show(1, place.number):",
        LOST,
    ),
    Weakening(
        "lost_claim_is_no_damage",
        "journal/_mirror/claiming.py",
        "raise MirrorDamageError(last.claim_number, problem, lsn=lsn) from error",
        "raise",
        LOST,
    ),
    Weakening(
        "restore_needs_every_claim",
        "journal/_mirror/restoring.py",
        "last = last_entry(store)",
        "from journal._mirror.claiming import look\n\n    last = look(store).last",
        LOST,
    ),
    Weakening(
        "half_a_note_is_trusted",
        "journal/_mirror/place_note.py",
        "    if CRC.unpack_from(data, len(_MAGIC))[0] != checksum(body):\n        return None\n",
        "",
        NOTES,
    ),
    Weakening(
        "cut_of_a_repair_makes_no_fork",
        "journal/_mirror/comparing.py",
        "local.has_cut(mirrored, segment_names(list(staging.lacking))) or any(",
        "any(",
        ("tests/mirror/test_mirrored_repair.py",),
    ),
    Weakening(
        "torn_tail_makes_a_fork",
        "journal/_mirror/comparing.py",
        'return ("forked", 0) if is_forked else ("behind", fixed_lsn)',
        'return "forked", 0',
        NOTES,
    ),
)
OF_RETURNING = (
    Weakening(
        "follower_makes_its_mirror",
        "journal/_engine/follower.py",
        "partial(mirror._open_store, is_reader=True)",
        "mirror._open_store",
        ("tests/mirror/test_follower.py",),
    ),
    Weakening(
        "reader_of_a_stream_never_looks_for_its_bucket_again",
        "journal/_mirror/jetstream_store.py",
        "= self._opened_bucket()\n        if bucket is None:\n            raise AbsentError(",
        "= self._bucket\n        if bucket is None:\n            raise AbsentError(",
        ("tests/mirror/test_blobs.py",),
    ),
    Weakening(
        "checkpoint_covers_later_epochs",
        "journal/_mirror/comparing.py",
        "return self._is_before_floor(lacking) and not self._never_had(lacking)",
        "return self._is_before_floor(lacking)",
        RETURNING,
    ),
    Weakening(
        "records_after_a_copy_are_not_missed",
        "journal/_mirror/comparing.py",
        "return lsn is not None and lsn < mirrored_lsn",
        "return False",
        RETURNING,
    ),
    Weakening(
        "unreachable_mirror_is_not_noted",
        "journal/_mirror/attaching.py",
        "        self._marker = note_unclaimed(self._directory, self._marker, recovered_lsn)\n",
        "",
        RETURNING,
    ),
    Weakening(
        "open_without_the_mirror_is_not_noted",
        "journal/_engine/opening.py",
        "            note_unmirrored(directory, recovered.last_lsn)\n",
        "",
        RETURNING,
    ),
    Weakening(
        "own_later_claim_settles",
        "journal/_mirror/settling.py",
        "_lsn_after(store, marker.epoch,",
        "_lsn_after(store, names[0].epoch,",
        RETURNING,
    ),
    Weakening(
        "unclaimed_records_are_settled",
        "journal/_mirror/settling.py",
        "        lsn = min(lsn, marker.unclaimed_lsn)\n",
        "        pass\n",
        RETURNING,
    ),
    Weakening(
        "former_writer_follows_what_is_settled",
        "journal/_engine/follower.py",
        "if not marker.writer:  #",
        "if True:  #",
        RETURNING,
    ),
    Weakening(
        "followed_claim_is_not_noted",
        "journal/_mirror/following.py",
        "            note_followed(self._directory, entry.epoch)  #",
        "            pass  #",
        RETURNING,
    ),
)
OF_ASIDE = (
    Weakening(
        "unclaimed_epoch_is_settled",
        "journal/_mirror/settling.py",
        " and name.epoch <= marker.epoch",
        "",
        RETURNING,
    ),
    Weakening(
        "last_claim_settles",
        "journal/_mirror/settling.py",
        "first = min(",
        "first = max(",
        ("tests/mirror/test_settling.py",),
    ),
    Weakening(
        "aside_is_complete_before_its_files",
        "journal/_mirror/aside.py",
        "    names = directory.names()\n    for name in _files(names):\n        copy_file",
        "    names = directory.names()\n"
        "    write_aside(target, Aside(target.path, directory.path, common))\n"
        "    for name in _files(names):\n        copy_file",
        ASIDE,
    ),
    Weakening(
        "aside_keeps_an_interrupted_copy",
        "journal/_mirror/aside.py",
        "if not names or is_incomplete_copy(names):",
        "if not names:",
        ASIDE,
    ),
    Weakening(
        "aside_takes_any_complete_directory",
        "journal/_mirror/aside.py",
        "if ASIDE in target.names() and _holds(target, directory):\n",
        "if ASIDE in target.names():\n",
        ASIDE,
    ),
    Weakening(
        "aside_removes_newest_first",
        "journal/_mirror/aside.py",
        ", older, newest):\n",
        ", newest, older):\n",
        ASIDE,
    ),
    Weakening(
        "reappend_forgets_where_it_began",
        "journal/_engine/reappending.py",
        "    if statement.appended_after is None:\n",
        "    if True:\n",
        ASIDE,
    ),
    Weakening(
        "reappend_repeats",
        "journal/_engine/reappending.py",
        "        if not earlier:\n",
        "        if True:\n",
        ASIDE,
    ),
    Weakening(
        "reappend_takes_what_the_mirror_has",
        "journal/_mirror/aside.py",
        "end <= aside.common.get(name, 0)",
        "end <= 0",
        ASIDE,
    ),
)
OF_FOLLOWING = (
    Weakening(
        "emptied_mirror_is_followed",
        "journal/_mirror/reading.py",
        "        return not store.numbers(place.number)\n",
        "        return False\n",
        FOLLOWING,
    ),
    Weakening(
        "trimmed_entry_is_lost",
        "journal/_mirror/reading.py",
        "        return not store.numbers(place.number)\n",
        "        return True\n",
        FOLLOWING,
    ),
    Weakening(
        "follower_leaves_its_mark",
        "journal/_mirror/live_copy.py",
        "            self._file.truncate(self.known.size(str(self._name)))\n",
        "            pass\n",
        FOLLOWING,
    ),
    Weakening(
        "follower_writes_no_mark",
        "journal/_mirror/live_copy.py",
        "            if walk.end == size:",
        "            if False:",
        FOLLOWING,
    ),
    Weakening(
        "follower_marks_half_a_frame",
        "journal/_mirror/live_copy.py",
        "            if walk.end == size:",
        "            if True:",
        FOLLOWING,
    ),
    Weakening(
        "follower_takes_absent_for_new",
        "journal/_mirror/following.py",
        "if is_away or asked_s >= self._list_at_s:",
        "if False:",
        FOLLOWING,
    ),
    Weakening(
        "follower_waits_after_a_burst",
        "journal/_mirror/following.py",
        "has_ended = burst > 1 and not self._burst",
        "has_ended = False",
        FOLLOWING,
    ),
    Weakening(
        "follower_is_never_compacted",
        "journal/_mirror/following.py",
        "        if newer and newer[-1].lsn > own_lsn:\n",
        "        if False:\n",
        FOLLOWING,
    ),
    Weakening(
        "writer_leaves_no_note",
        "journal/_mirror/shipper.py",
        "                self._note_place(0.0)\n",
        "                pass\n",
        NOTES,
    ),
    Weakening(
        "header_in_part_replaces_the_mark",
        "journal/_mirror/live_copy.py",
        "        self._put(self._without_part_of_header(piece))\n",
        "        self._put(piece)\n",
        FOLLOWING,
    ),
    Weakening(
        "follower_lists_at_every_poll",
        "journal/_mirror/following.py",
        "if is_away or asked_s >= self._list_at_s:",
        "if True:",
        FOLLOWING,
    ),
)

ALL_OF = OF_NOTES + OF_RETURNING + OF_ASIDE + OF_FOLLOWING
