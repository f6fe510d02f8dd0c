"""Weakenings of the changes of tables, and of a fleet's agents."""

from __future__ import annotations

from proof.weakenings import Weakening

CHANGES = "journal/_tables/table_changes.py"
PIECES = "journal/_tables/logged_pieces.py"
ON_CHANGES = ("tests/tables/test_table_changes.py",)
ON_LARGE = ("tests/tables/test_table_changes_large.py",)
ON_INTERRUPTS = ("tests/kernel/test_interrupt_table_changes.py",)

ALL_OF = (
    Weakening(
        "changes_delivered_before_they_are_durable",
        CHANGES,
        "while lsn > journal.durable_lsn:",
        "while False:",
        ("tests/crash/test_table_changes_crash.py",),
    ),
    Weakening(
        "changes_wait_for_the_log_to_go_idle",
        CHANGES,
        "LogCursor(directory, after, proven=False)",
        "LogCursor(directory, after)",
        ON_CHANGES,
    ),
    Weakening(
        "changes_end_before_the_last_commit",
        CHANGES,
        "        was_closed = journal.closed  # before",
        "        was_closed = True  # before",
        ON_CHANGES,
    ),
    Weakening(
        "changes_hide_a_failure",
        CHANGES,
        "    except ClosedError:",
        "    except Exception:",
        ON_CHANGES,
    ),
    Weakening(
        "changes_after_an_unknown_lsn",
        CHANGES,
        "not 0 <= after <= last_lsn",
        "after < 0",
        ON_CHANGES,
    ),
    Weakening(
        "changes_end_with_an_exception",
        CHANGES,
        "            if next(self._steps, _ENDED) is _ENDED and not place.is_over:\n",
        "            place.is_over |= next(self._steps, _ENDED) is _ENDED\n            if False:\n",
        ON_INTERRUPTS,
    ),
    Weakening(
        "changes_in_a_forked_child",
        CHANGES,
        "        whole_of(place.state).journal.check_process()\n",
        "",
        ("tests/kernel/test_fork.py",),
    ),
    Weakening(
        "delivered_changes_come_again",
        CHANGES,
        "uploads, place.count):",
        "uploads, 0):",
        ON_INTERRUPTS,
    ),
    Weakening(
        "values_delivered_without_their_first_pieces",
        PIECES,
        "            if len(pieces) == count:\n                return tuple(pieces)\n",
        "            if pieces:\n                return tuple(pieces)\n",
        ON_LARGE,
    ),
    Weakening(
        "pieces_in_checkpoints_unread",
        PIECES,
        "            if at >= lsn:\n",
        "            if True:\n",
        ON_LARGE,
    ),
    Weakening(
        "dropped_uploads_are_remembered",
        PIECES,
        "self._first_lsns.pop(upload_id, None)\n\n",
        "pass\n\n",
        ON_LARGE,
    ),
    Weakening(
        "child_waits_for_the_lock_of_the_watch",
        "manager/watch.py",
        " and not self._is_forked():",
        ":",
        ("tests/manager/test_manager_forked.py",),
    ),
    Weakening(
        "reader_after_a_shared_lsn_misses_an_agent",
        "manager/watch.py",
        " > after or get.tokens_used(row)]",
        " > after]",
        ("tests/manager/test_manager_changes_after.py",),
    ),
    Weakening(
        "flusher_waits_for_the_watch",
        "manager/watch.py",
        "self._lock.acquire(blocking=False):\n            try:\n                self._catch_up()",
        "self._lock.acquire():\n            try:\n                self._catch_up()",
        ("tests/manager/test_watch.py",),
    ),
)
