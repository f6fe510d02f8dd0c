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
        "        self._lease.add(self.committer)\n",
        "        self._lease.add(self.committer)\n        process.own(self)\n",
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
        "isolated_interpreter_opens",
        "journal/process.py",
        "    if not _may_start_threads():\n",
        "    if False:\n",
        OPEN,
    ),
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

DELETED = (
    Weakening(
        "no_look_when_idle",
        "journal/writer.py",
        '        """\n        self._check_linked()\n',
        '        """\n',
        ("tests/test_deleted_underneath.py",),
    ),
    Weakening(
        "no_look_at_os_commits",
        "journal/writer.py",
        "        if is_os and abs(",
        "        if False and abs(",
        ("tests/test_deleted_underneath.py",),
    ),
    Weakening(
        "a_look_at_each_os_commit",
        "journal/writer.py",
        "_CHECK_NS = 10_000_000 ",
        "_CHECK_NS = 0 ",
        ("tests/test_deleted_underneath.py",),
    ),
)

CLOCK = (
    Weakening(
        "clock_before_1970_stops",
        "journal/storage.py",
        "min(max(disk.now_ns(), 0), _CLOCK_NS_MAX)",
        "min(disk.now_ns(), _CLOCK_NS_MAX)",
        ("tests/test_clock.py",),
    ),
    Weakening(
        "clock_after_2554_stops",
        "journal/storage.py",
        "min(max(disk.now_ns(), 0), _CLOCK_NS_MAX)",
        "max(disk.now_ns(), 0)",
        ("tests/test_clock.py",),
    ),
)

NAMES = ("tests/test_new_names.py",)

RENAMES = (
    Weakening(
        "new_segment_replaces",
        "journal/writer.py",
        "self._directory.rename_new(",
        "self._directory.rename(",
        NAMES,
    ),
    Weakening(
        "rename_that_replaces",
        "journal/syscalls.py",
        "_RENAME_NOREPLACE, _RENAME_EXCL = 1, 4",
        "_RENAME_NOREPLACE, _RENAME_EXCL = 0, 0",
        ("tests/test_disk_contract.py",),
    ),
    Weakening(
        "no_link_instead_of_a_rename",
        "journal/syscalls.py",
        "        if code not in UNKNOWN:\n",
        "        if True:\n",
        NAMES,
    ),
)

OTHERS = (
    Weakening(
        "no_look_for_a_later_writer",
        "journal/writer.py",
        "if newest is not None and newest.epoch > self._epoch:",
        "if False:",
        NAMES,
    ),
)

ALL_OF = PROCESS + FILE_SYSTEMS + RENAMES + DELETED + CLOCK + OTHERS
