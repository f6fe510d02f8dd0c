"""Weakenings of what a directory knows of its mirror: the note of the last place."""

from __future__ import annotations

from proof.weakenings import Weakening

NOTES = ("tests/mirror/test_comparing.py", "tests/mirror/test_place_note.py")

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
        "            if _continues(store, known):\n",
        "            if True:\n",
        NOTES,
    ),
    Weakening(
        "half_a_note_is_trusted",
        "journal/_mirror/place_note.py",
        "    if CRC.unpack_from(data, len(_MAGIC))[0] != checksum(body):\n        return None\n",
        "",
        NOTES,
    ),
    Weakening(
        "torn_tail_makes_a_fork",
        "journal/_mirror/comparing.py",
        'return "forked" if is_forked else "behind"',
        'return "forked"',
        NOTES,
    ),
)

ALL_OF = OF_NOTES
