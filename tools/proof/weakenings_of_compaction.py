"""Weakenings of the code that makes a failed compaction visible and harmless, and a long one
unnoticed."""

from __future__ import annotations

from proof.weakenings import Weakening

VISIBLE = ("tests/engine/test_compaction_visible.py",)
BEHIND = ("tests/engine/test_compaction_behind.py",)
SURVIVES = ("tests/engine/test_compactor_survives.py",)
GIVING_WAY = ("tests/engine/test_giving_way.py",)
END_BACKPRESSURE = "        self._committer.hold_from(NEVER)\n"
COUNT_FAILURE = "        text = self.stats.failed(error, is_stopping=self._is_stopping)\n"

ALL_OF = (
    Weakening(
        "failed_compaction_uncounted",
        "journal/_engine/compaction_stats.py",
        "            self.failures += 1\n",
        "",
        VISIBLE,
    ),
    Weakening(
        "refused_compaction_counts",
        "journal/_engine/compactor.py",
        "        self._lock.checked()  # a call that is refused here is no failed compaction\n",
        "",
        VISIBLE,
    ),
    Weakening(
        "interrupted_compaction_never_ends",
        "journal/_engine/compactor.py",
        "            began_ns = time.perf_counter_ns()\n            self._is_compacting = True\n",
        "            self._is_compacting = True\n            began_ns = time.perf_counter_ns()\n",
        ("tests/kernel/test_processes_interrupts.py",),
    ),
    Weakening(
        "updates_wait_for_all_of_an_encoding",
        "journal/_engine/compactor.py",
        "        if room_bytes:\n",
        "        if False:\n",
        BEHIND,
    ),
    Weakening(
        "update_that_waited_for_room_starves",
        "journal/_engine/journal.py",
        " or self._turn.got_room():\n                return gate.opened\n",
        ":\n                return False\n",
        BEHIND,
    ),
    Weakening(
        "task_that_waited_for_room_starves",
        "journal/_engine/journal.py",
        "            if self._turn.got_room():\n                break\n",
        "",
        BEHIND,
    ),
    Weakening(
        "close_leaves_waiters_for_room_waiting",
        "journal/_commit/buffer.py",
        "        open_gates(self._backpressure.last_gate())\n",
        "",
        ("tests/engine/test_state_room.py",),
    ),
    Weakening(
        "failed_compaction_unlogged",
        "journal/_engine/compactor.py",
        "        post(\n            logging.WARNING,\n",
        "        (lambda *_, **__: None)(\n            logging.WARNING,\n",
        VISIBLE,
    ),
    Weakening(
        "failed_compaction_holds_updates",
        "journal/_engine/compactor.py",
        END_BACKPRESSURE + COUNT_FAILURE,
        COUNT_FAILURE,
        ("tests/engine/test_compaction_behind.py", *SURVIVES),
    ),
    Weakening(
        "foreign_code_before_the_end_of_backpressure",
        "journal/_engine/compactor.py",
        END_BACKPRESSURE + COUNT_FAILURE,
        COUNT_FAILURE + END_BACKPRESSURE,
        SURVIVES,
    ),
    Weakening(
        "owners_system_exit_ends_the_compactor",
        "journal/_engine/compactor.py",
        "                except BaseException as error:  # the owner's SystemExit",
        "                except Exception as error:  # the owner's SystemExit",
        SURVIVES,
    ),
    Weakening(
        "retry_holds_updates",
        "journal/_engine/compactor.py",
        "        if not (is_retry and self._is_due):\n",
        "        is_retry = False\n        if True:\n",
        SURVIVES,
    ),
    Weakening(
        "retry_waits_for_the_log_to_grow",
        "journal/_engine/compactor.py",
        "        if not (is_retry and self._is_due):\n",
        "        if True:\n",
        SURVIVES,
    ),
    Weakening(
        "files_are_read_without_giving_way",
        "journal/_disk/posix_file.py",
        "        give_way()\n",
        "",
        GIVING_WAY,
    ),
    Weakening(
        "lone_thread_pauses",
        "journal/_disk/giving_way.py",
        " and active_count() > 1:",
        ":",
        GIVING_WAY,
    ),
    Weakening(
        "forked_child_never_pauses",
        "journal/_disk/giving_way.py",
        "if abs(now_ns - _last_pause.at_ns) >=",
        "if now_ns - _last_pause.at_ns >=",
        GIVING_WAY,
    ),
    Weakening(
        "pause_begins_no_step",
        "journal/_disk/giving_way.py",
        "        _last_pause.at_ns = now_ns\n",
        "",
        GIVING_WAY,
    ),
)
