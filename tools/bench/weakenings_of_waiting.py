"""Weakenings of waiting: who is woken, released or refused, and who gets room."""

from __future__ import annotations

from bench.weakenings import Weakening

HAND_OVER = ("tests/test_hand_over.py",)

WAKE_UPS = (
    Weakening(
        "full_disk_stops_a_lone_waiter",
        "journal/committer.py",
        "if isinstance(error, JournalError)"
        ' or getattr(error, "errno", None) not in NO_SPACE:\n                self._fail(error)\n',
        "if True:\n                self._fail(error)\n",
        HAND_OVER,
    ),
    Weakening(
        "leaving_the_logs_end_wakes_nobody",
        "journal/buffer.py",
        "if self._filling.has_work or self.closing:",
        "if self.closing:",
        HAND_OVER,
    ),
    Weakening(
        "leaving_the_logs_end_forgets_a_close",
        "journal/buffer.py",
        "if self._filling.has_work or self.closing:",
        "if self._filling.has_work:",
        HAND_OVER,
    ),
    Weakening(
        "flusher_sleeps_through_an_unawaited_record",
        "journal/buffer.py",
        "self._deep = not filling.has_work and (timeout_s < 0 or self._hasty)",
        "self._deep = False",
        HAND_OVER,
    ),
)

ENDS = (
    Weakening(
        "gates_stay_shut_after_the_flushers_end",
        "journal/buffer.py",
        "            self._ended = True\n        self._open_all()\n",
        "            self._ended = True\n",
        HAND_OVER,
    ),
    Weakening(
        "gates_are_given_out_after_the_flushers_end",
        "journal/buffer.py",
        "if self.failure or self._ended:",
        "if self.failure:",
        HAND_OVER,
    ),
    Weakening(
        "compactor_thread_that_ended_holds_updates",
        "journal/compactor.py",
        "        finally:\n            self._committer.hold_from(_NEVER)\n",
        "        finally:\n",
        ("tests/test_compaction_failures.py",),
    ),
)

ALL_OF = WAKE_UPS + ENDS
