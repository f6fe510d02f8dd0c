"""Weakenings of a mirror: its stores, its fence, and its reader."""

from __future__ import annotations

from proof.weakenings import Weakening

STORES = ("tests/mirror/test_stores.py", "tests/mirror/test_store_contract.py")
FENCE = ("tests/mirror/test_claiming.py", "tests/mirror/test_mirror_world.py")
ENTRIES = ("tests/mirror/test_entry.py",)
SHIPPING = ("tests/mirror/test_shipping.py", "tests/mirror/test_restoring.py")
REPAIR = ("tests/mirror/test_mirrored_repair.py",)
ATTACHING = ("tests/mirror/test_comparing.py", "tests/mirror/test_attaching.py")

OF_STORES = (
    Weakening(
        "query_of_an_address_is_dropped",
        "journal/_mirror/urls.py",
        'if parts.scheme in (*_OBJECTS, *_NATS, "file") and',
        'if parts.scheme == "file" and',
        STORES,
    ),
    Weakening(
        "mirror_entry_without_sync",
        "journal/_mirror/directory_store.py",
        "                    file.sync()\n",
        "                    pass\n",
        STORES,
    ),
    Weakening(
        "mirror_name_without_sync",
        "journal/_mirror/directory_store.py",
        "            raise\n        self._sync(what)\n",
        "            raise\n",
        STORES,
    ),
    Weakening(
        "mirror_forgets_a_failed_sync",
        "journal/_mirror/directory_store.py",
        "                    self._failure = error\n",
        "                    raise\n",
        STORES,
    ),
    Weakening(
        "mirror_on_nfs",
        "journal/_mirror/directory_store.py",
        "if file_system in NETWORK_FILE_SYSTEMS:",
        "if False:",
        STORES,
    ),
)
OF_THE_FENCE = (
    Weakening(
        "claim_without_second_list",
        "journal/_mirror/claiming.py",
        "followed = self._store.numbers(claimed.number)",
        "followed: list[int] = []",
        FENCE,
    ),
    Weakening(
        "claim_made_anew_after_a_lost_answer",
        "journal/_mirror/claiming.py",
        "claimed = self._pending or self._next_claim()",
        "claimed = self._next_claim()",
        FENCE,
    ),
    Weakening(
        "trim_takes_last_entry",
        "journal/_mirror/claiming.py",
        " and n != last])",
        "])",
        FENCE,
    ),
    Weakening(
        "trim_takes_what_is_not_rolled_up",
        "journal/_mirror/claiming.py",
        "if name.first <= n <= name.last and n != last",
        "if n != last",
        FENCE,
    ),
    Weakening(
        "conflict_is_own",
        "journal/_mirror/claiming.py",
        "if there.nonce != entry.nonce:",
        "if False:",
        FENCE,
    ),
    Weakening(
        "trimmed_number_is_an_outage",
        "journal/_mirror/claiming.py",
        "            if store.numbers(entry.number):\n",
        "            if False:\n",
        FENCE,
    ),
    Weakening(
        "foreign_entry_is_a_fence",
        "journal/_mirror/claiming.py",
        "if there is not None and there.kind != CLAIM:",
        "if False:",
        FENCE,
    ),
    Weakening(
        "claim_of_another_journal",
        "journal/_mirror/claiming.py",
        "if theirs.journal_id != statement.journal_id:",
        "if False:",
        FENCE,
    ),
    Weakening(
        "claim_held_by_another_writer",
        "journal/_mirror/claiming.py",
        "if tail.claimed and is_held and not tail.is_released and not self._takeover:",
        "if False:",
        FENCE,
    ),
)
OF_THE_READER = (
    Weakening(
        "reader_follows_a_stray",
        "journal/_mirror/reading.py",
        "if fetched.follows != self._place.nonce:",
        "if False:",
        FENCE,
    ),
    Weakening(
        "reader_rests_on_a_claim",
        "journal/_mirror/reading.py",
        "sure = self.sure if entry.kind == CLAIM else entry.number",
        "sure = entry.number",
        FENCE,
    ),
    Weakening(
        "reader_skips_a_missing_entry",
        "journal/_mirror/reading.py",
        "chain_now, newest)):\n                raise astray\n",
        "chain_now, newest)):\n                return\n",
        FENCE,
    ),
    Weakening(
        "entry_without_checksum",
        "journal/_mirror/entry.py",
        "if CRC.unpack_from(data, len(_MAGIC))[0] != checksum(body):",
        "if False:",
        ENTRIES,
    ),
    Weakening(
        "entry_names_any_file",
        "journal/_mirror/entry.py",
        "named = is_checkpoint or bool(SEGMENT_NAME.fullmatch(name))",
        "named = True",
        ENTRIES,
    ),
)
OF_SHIPPING = (
    Weakening(
        "emptied_mirror_goes_on",
        "journal/_mirror/claiming.py",
        "if read_entry(self._store, self.claimed.number).nonce == self.claimed.nonce:",
        "if True:",
        SHIPPING,
    ),
    Weakening(
        "mirror_ships_all_of_a_failed_log",
        "journal/_mirror/shipper.py",
        "is_closed=self._is_closed)",
        "is_closed=True)",
        SHIPPING,
    ),
    Weakening(
        "mirror_ships_what_is_not_synced",
        "journal/_mirror/unshipped.py",
        "                stop = end[1]\n",
        "                stop = file_size(self._directory, str(name))\n",
        SHIPPING,
    ),
    Weakening(
        "mirror_cuts_a_mark",
        "journal/_mirror/content.py",
        "        _, marked_end = ",
        "        marked_end, _ = ",
        SHIPPING,
    ),
    Weakening(
        "mirror_skips_a_removed_segment",
        "journal/_mirror/unshipped.py",
        "if at is not None and at not in names and not is_all:",
        "if False:",
        SHIPPING,
    ),
    Weakening(
        "late_contact_needs_its_place",
        "journal/_mirror/unshipped.py",
        "if at is not None and at not in names and not is_all:",
        "if at is not None and at not in names:",
        ("tests/mirror/test_basing.py",),
    ),
    Weakening(
        "mirror_reports_a_part",
        "journal/_mirror/shipper.py",
        "self._append(group, lsn if is_last else self.mirrored_lsn)",
        "self._append(group, lsn)",
        SHIPPING,
    ),
    Weakening(
        "restore_of_a_part",
        "journal/_mirror/restoring.py",
        "if lsn < promised:",
        "if False:",
        SHIPPING,
    ),
    Weakening(
        "restore_without_verification",
        "journal/_mirror/restoring.py",
        'if finding.kind in ("corruption", "bad_checkpoint"):',
        "if False:",
        SHIPPING,
    ),
    Weakening(
        "restore_over_a_gap",
        "journal/_mirror/copying.py",
        "if piece.offset > self._size:",
        "if False:",
        SHIPPING,
    ),
)
OF_ATTACHING = (
    Weakening(
        "fork_is_overwritten",
        "journal/_mirror/comparing.py",
        "    if (staging.lacking or local.has_missed(known.last_lsn)) and is_ahead:\n",
        "    if False:\n",
        ATTACHING,
    ),
    Weakening(
        "differing_bytes_are_overwritten",
        "journal/_mirror/comparing.py",
        "                return None\n",
        "                return begin, damaged\n",
        ATTACHING,
    ),
    Weakening(
        "covered_damage_is_fixed",
        "journal/_mirror/comparing.py",
        "        if local.is_covered(piece.name):\n            continue\n",
        "",
        REPAIR,
    ),
    Weakening(
        "differing_records_are_damage",
        "journal/_mirror/content.py",
        "if scanned.state in _REPLACEABLE",
        "if True",
        ATTACHING,
    ),
    Weakening(
        "needed_header_is_passed_over",
        "journal/_mirror/comparing.py",
        "                if not self._is_before_floor(segment):\n",
        "                if False:\n",
        REPAIR,
    ),
    Weakening(
        "needed_segment_is_not_shipped",
        "journal/_mirror/unshipped.py",
        "if name in segments_after(names, floor_lsn(checkpoint_lsns(files))):",
        "if False:",
        SHIPPING,
    ),
    Weakening(
        "mirror_is_not_fetched",
        "journal/_mirror/attaching.py",
        "        comparison.fetch()\n",
        "        pass\n",
        ATTACHING,
    ),
    Weakening(
        "foreign_directory_is_taken_for_a_copy",
        "journal/_mirror/aside.py",
        "if not names or is_incomplete_copy(names):",
        "if ASIDE not in names:",
        ("tests/mirror/test_aside.py",),
    ),
    Weakening(
        "refused_claim_is_kept",
        "journal/_mirror/attaching.py",
        "                    appender.release()\n",
        "                    pass\n",
        ("tests/mirror/test_mirrored_opening.py",),
    ),
    Weakening(
        "late_call_to_jetstream_is_no_error_of_the_store",
        "journal/_mirror/loop_calls.py",
        "        is_late = isinstance(error, TimeoutError)\n",
        "        is_late = False\n",
        ("tests/mirror/test_stores.py",),
    ),
)

ALL_OF = OF_STORES + OF_THE_FENCE + OF_THE_READER + OF_SHIPPING + OF_ATTACHING
