"""Weakenings of what guards against the world outside: the exit, file systems, the clock."""

from __future__ import annotations

from bench.weakenings import Weakening

EXIT = ("tests/test_exit.py",)

PROCESS = (
    Weakening(
        "exit_stops_at_the_first_error",
        "journal/process.py",
        "            with suppress(BaseException):\n                path",
        "            raise\n            with suppress(BaseException):\n                path",
        EXIT,
    ),
    Weakening(
        "exit_finishes_one_journal",
        "journal/process.py",
        "    for owned in list(_owned):\n        try:",
        "    for owned in list(_owned)[:1]:\n        try:",
        EXIT,
    ),
    Weakening(
        "owned_before_its_thread_runs",
        "journal/core.py",
        "        self._running.add(self.committer)\n",
        "        self._running.add(self.committer)\n        process.own(self)\n",
        EXIT,
    ),
    Weakening(
        "exit_reports_nothing_posted",
        "journal/process.py",
        "    settle(_SETTLE_S)\n",
        "",
        EXIT,
    ),
    Weakening(
        "child_posts_to_a_dead_thread",
        "journal/process.py",
        "    forget_posted()\n",
        "",
        ("tests/test_fork.py",),
    ),
)

OPEN = ("tests/test_open_refused.py",)

FILE_SYSTEMS = (
    Weakening(
        "ignored_lock_accepted",
        "journal/posix.py",
        "        if self._is_lock_ignored():\n",
        "        if False:\n",
        OPEN,
    ),
    Weakening(
        "second_handle_left_open",
        "journal/posix.py",
        "        finally:\n            os.close(fd)\n        return True\n",
        "        finally:\n            pass\n        return True\n",
        OPEN,
    ),
    Weakening(
        "parent_sync_ignored",
        "journal/posix.py",
        '        raise FailedError(f"{path}: can\'t be synced: {error}") from error\n',
        "        pass\n",
        OPEN,
    ),
)

ALL_OF = PROCESS + FILE_SYSTEMS
