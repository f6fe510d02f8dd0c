"""Weakenings of a mirror: its stores, its fence, and its reader."""

from __future__ import annotations

from proof.weakenings import Weakening

STORES = ("tests/mirror/test_stores.py", "tests/mirror/test_store_contract.py")
FENCE = ("tests/mirror/test_claiming.py", "tests/mirror/test_mirror_world.py")
ENTRIES = ("tests/mirror/test_entry.py",)

OF_STORES = (
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
        "if tail.claimed and not tail.is_released and not self._takeover:",
        "if False:",
        FENCE,
    ),
)
OF_THE_READER = (
    Weakening(
        "reader_follows_a_stray",
        "journal/_mirror/reading.py",
        "elif fetched.follows != place.nonce:",
        "elif False:",
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
        "        if _next_roll_up(store, place) is None:\n            raise astray\n",
        "        if _next_roll_up(store, place) is None:\n            return\n",
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
        "isinstance(piece.name, str) and SEGMENT_NAME.fullmatch(piece.name)",
        "isinstance(piece.name, str)",
        ENTRIES,
    ),
)

ALL_OF = OF_STORES + OF_THE_FENCE + OF_THE_READER
