"""Weakenings of the guards against the environment: exits, forks, file systems, the clock."""

from __future__ import annotations

from proof.weakenings import Weakening

EXIT = ("tests/kernel/test_exit.py",)
REPLACED = ("tests/engine/test_replaced_threads.py",)

PROCESS = (
    Weakening(
        "exit_stops_at_the_first_error",
        "journal/_disk/process.py",
        "            with suppress(BaseException):\n                path",
        "            raise\n            with suppress(BaseException):\n                path",
        EXIT,
    ),
    Weakening(
        "exit_of_a_child_finishes_nothing",
        "journal/_disk/process.py",
        "    _owned[id(owned)] = owned\n    _finish_with_child()\n",
        "    _owned[id(owned)] = owned\n",
        EXIT,
    ),
    Weakening(
        "exit_finishes_one_journal",
        "journal/_disk/process.py",
        "    for owned in _all_owned():\n        try:",
        "    for owned in _all_owned()[:1]:\n        try:",
        EXIT,
    ),
    Weakening(
        "exit_iterates_over_open_journals",
        "journal/_disk/process.py",
        "for reference in _owned.valuerefs() if (owned := reference()) is not None]",
        "for owned in _owned.values()]",
        EXIT,
    ),
    Weakening(
        "owned_before_its_thread_runs",
        "journal/_engine/core.py",
        "        self._use.enter(self.committer)\n",
        "        self._use.enter(self.committer)\n        process.own(self)\n",
        EXIT,
    ),
    Weakening(
        "exit_drops_posted_messages",
        "journal/_disk/process.py",
        "    settle(_SETTLE_S)\n",
        "",
        EXIT,
    ),
    Weakening(
        "late_free_needs_the_modules",
        "journal/_engine/journal.py",
        "        warn(message, ResourceWarning, stacklevel=2, source=self)\n",
        "        warnings.warn(message, ResourceWarning, stacklevel=2, source=self)\n",
        EXIT,
    ),
    Weakening(
        "child_of_a_change_appends",
        "journal/_commit/buffer.py",
        "        if self._lifecycle.abandoned:  # the process was forked inside `apply`\n",
        "        if False:\n",
        ("tests/kernel/test_fork_inside.py",),
    ),
    Weakening(
        "child_of_a_compaction_goes_on",
        "journal/_engine/core.py",
        "        self.compactor.stop()  # one that was forked inside `freeze` gives up\n",
        "",
        ("tests/kernel/test_fork_inside.py",),
    ),
    Weakening(
        "child_posts_to_a_dead_thread",
        "journal/_disk/process.py",
        "    forget_posted()\n",
        "",
        ("tests/kernel/test_fork.py",),
    ),
    Weakening(
        "checksums_are_loaded_at_the_first_commit",
        "journal/_commit/writer.py",
        "        crc32c()  # loads the library\n",
        "",
        ("tests/kernel/test_fork_inside.py",),
    ),
    Weakening(
        "greenlets_pass_as_threads",
        "journal/_disk/process.py",
        '    if (library := maker.partition(".")[0]) in _KEEPS_THREADS:\n',
        "    if (library := maker) in _KEEPS_THREADS:\n",
        REPLACED,
    ),
    Weakening(
        "locks_are_those_of_a_profiler",
        "journal/_mutex.py",
        "new_lock = allocate_lock\n",
        "new_lock = Lock\n",
        REPLACED,
    ),
)

OPEN = ("tests/engine/test_open_refused.py",)

FILE_SYSTEMS = (
    Weakening(
        "isolated_interpreter_opens",
        "journal/_disk/process.py",
        "    if not _may_start_threads():\n",
        "    if False:\n",
        OPEN,
    ),
    Weakening(
        "ignored_lock_accepted",
        "journal/_disk/posix.py",
        "        if self._is_lock_ignored():\n",
        "        if False:\n",
        OPEN,
    ),
    Weakening(
        "released_lock_counts_as_held",
        "journal/_disk/posix.py",
        "            if pid is not None or not self._has_locked():\n",
        "            if True:\n",
        ("tests/kernel/test_posix_lock.py",),
    ),
    Weakening(
        "taken_lock_counts_as_free",
        "journal/_disk/posix.py",
        "            if pid is not None or not self._has_locked():\n",
        "            if pid is not None:\n",
        ("tests/kernel/test_posix_lock.py",),
    ),
    Weakening(
        "forbidden_list_of_locks_is_an_error",
        "journal/_disk/posix.py",
        "        except (FileNotFoundError, PermissionError):  # macOS; a sandbox\n",
        "        except FileNotFoundError:\n",
        ("tests/kernel/test_posix_lock.py",),
    ),
    Weakening(
        "journal_passes_as_a_workspace",
        "manager/workspace.py",
        "        _refuse_journal(path)\n",
        "",
        ("tests/manager/test_manager_paths.py",),
    ),
    Weakening(
        "second_handle_left_open",
        "journal/_disk/posix.py",
        "        finally:\n            os.close(fd)\n        return True\n",
        "        finally:\n            pass\n        return True\n",
        OPEN,
    ),
    Weakening(
        "parent_sync_ignored",
        "journal/_disk/posix.py",
        '        raise FailedError(f"{path}: can\'t be synced: {error}") from error\n',
        "        pass\n",
        OPEN,
    ),
)

DELETED = (
    Weakening(
        "no_link_check_when_idle",
        "journal/_commit/writer.py",
        '        """\n        self._check_linked()\n',
        '        """\n',
        ("tests/kernel/test_deleted_underneath.py",),
    ),
    Weakening(
        "no_link_check_at_os_commits",
        "journal/_commit/writer.py",
        "        if is_os and abs(",
        "        if False and abs(",
        ("tests/kernel/test_deleted_underneath.py",),
    ),
    Weakening(
        "link_check_at_each_os_commit",
        "journal/_commit/writer.py",
        "_CHECK_NS = 10_000_000 ",
        "_CHECK_NS = 0 ",
        ("tests/kernel/test_deleted_underneath.py",),
    ),
)

CLOCK = (
    Weakening(
        "clock_before_1970_stops",
        "journal/_disk/disk.py",
        "min(max(clock.now_ns(), 0), _CLOCK_NS_MAX)",
        "min(clock.now_ns(), _CLOCK_NS_MAX)",
        ("tests/engine/test_clock.py",),
    ),
    Weakening(
        "clock_after_2554_stops",
        "journal/_disk/disk.py",
        "min(max(clock.now_ns(), 0), _CLOCK_NS_MAX)",
        "max(clock.now_ns(), 0)",
        ("tests/engine/test_clock.py",),
    ),
)

NAMES = ("tests/kernel/test_new_names.py",)

RENAMES = (
    Weakening(
        "new_segment_replaces",
        "journal/_commit/writer.py",
        "self._directory.rename_new(",
        "self._directory.rename(",
        NAMES,
    ),
    Weakening(
        "rename_that_replaces",
        "journal/_disk/syscalls.py",
        "_RENAME_NOREPLACE, _RENAME_EXCL = 1, 4",
        "_RENAME_NOREPLACE, _RENAME_EXCL = 0, 0",
        ("tests/crash/test_disk_contract.py",),
    ),
    Weakening(
        "no_link_instead_of_a_rename",
        "journal/_disk/syscalls.py",
        "        if code not in UNKNOWN:\n",
        "        if True:\n",
        NAMES,
    ),
)

LATER_WRITERS = (
    Weakening(
        "no_check_for_a_later_writer",
        "journal/_commit/writer.py",
        "if newest is not None and newest.epoch > self._epoch:",
        "if False:",
        NAMES,
    ),
)

ZEROS = ("tests/kernel/test_zeros_ahead.py",)

ZEROS_AHEAD = (
    Weakening(
        "zeros_past_the_allocated_end",
        "journal/_disk/zeros_ahead.py",
        "rest < bytes_ahead * 3 // 2:",
        "False:",
        ZEROS,
    ),
    Weakening(
        "zeros_on_the_frame",
        "journal/_disk/zeros_ahead.py",
        "[_PIECE] * pieces, end)",
        "[_PIECE] * pieces, end - 1)",
        ZEROS,
    ),
    Weakening(
        "zeros_without_a_sync",
        "journal/_disk/posix_file.py",
        "            if self._is_synced:  #",
        "            if True:  #",
        ZEROS,
    ),
    Weakening(
        "zeros_that_fail_a_commit",
        "journal/_disk/zeros_ahead.py",
        "        with suppress(OSError):\n",
        "        if True:\n",
        ZEROS,
    ),
    Weakening(
        "zeros_after_a_truncation",
        "journal/_disk/posix_file.py",
        "        self._zeroed_end = _NEVER\n        os.ftruncate",
        "        os.ftruncate",
        ZEROS,
    ),
    Weakening(
        "zeros_on_what_was_there",
        "journal/_disk/posix_file.py",
        "ZerosAhead(self._fd, size), content_end",
        "ZerosAhead(self._fd, size), 0",
        ZEROS,
    ),
    Weakening(
        "zeros_on_any_file_system",
        "journal/_disk/zeros_ahead.py",
        "return file_system_type(fd) in _IN_PLACE",
        "return True",
        ZEROS,
    ),
)

ALL_OF = PROCESS + FILE_SYSTEMS + RENAMES + DELETED + CLOCK + LATER_WRITERS + ZEROS_AHEAD
