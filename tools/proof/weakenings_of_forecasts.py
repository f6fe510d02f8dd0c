"""Weakenings of what `verify`, `info` and `repair` say about the next open."""

from __future__ import annotations

from proof.weakenings import Weakening

PLACES = ("tests/inspect/test_inspect_places.py",)
MARKERS = ("tests/inspect/test_inspect_markers.py",)

ALL_OF = (
    Weakening(
        "repair_of_an_unsafe_place",
        "journal/_offline/repair.py",
        "        check_place(directory)\n",
        "",
        PLACES,
    ),
    Weakening(
        "preview_of_an_unsafe_place",
        "journal/_offline/reader.py",
        "        check_place(self._directory)\n",
        "",
        PLACES,
    ),
    Weakening(
        "verify_of_an_unsafe_place",
        "journal/_offline/verify.py",
        "    check_place(directory)\n",
        "",
        PLACES,
    ),
    Weakening(
        "unsafe_lock_is_not_seen",
        "journal/_offline/place_check.py",
        "{LOCK, MIRROR}.intersection",
        "{MIRROR}.intersection",
        PLACES,
    ),
    Weakening(
        "shared_directory_is_not_seen",
        "journal/_offline/place_check.py",
        "    directory.check_unshared()\n",
        "",
        PLACES,
    ),
    Weakening(
        "special_file_hides_damage",
        "journal/_offline/verify.py",
        "with open_segment(directory, name) as segment:",
        "with Segment(directory, name) as segment:",
        PLACES,
    ),
    Weakening(
        "special_file_hides_frames",
        "journal/_offline/verify.py",
        "except (CorruptionError, UnsafePathError):",
        "except CorruptionError:",
        PLACES,
    ),
    Weakening(
        "special_file_hides_fixes",
        "journal/_offline/fixes.py",
        "with suppress(JournalError):  # a newer version",
        "with suppress(CorruptionError):  # a newer version",
        PLACES,
    ),
    Weakening(
        "special_file_stops_a_repair",
        "journal/_offline/salvaging.py",
        "suppress(CorruptionError, UnsafePathError)",
        "suppress(CorruptionError)",
        PLACES,
    ),
    Weakening(
        "size_of_a_special_file",
        "journal/_disk/disk.py",
        "    except UnsafePathError:\n        return 0\n",
        "",
        PLACES,
    ),
    Weakening(
        "repair_forgets_the_marker",
        "tools/journal_inspect/commands/repair.py",
        "    if apply and report.problem:  #",
        "    if False:  #",
        MARKERS,
    ),
)
