"""Weakenings of the runner of commands: its output files, its guard and its signals."""

from __future__ import annotations

from proof.weakenings import Weakening

OUTPUTS = ("tests/manager/test_outputs.py",)
OUTPUT = ("tests/manager/test_runner_output.py",)
JOBLOG = ("tests/manager/test_joblog.py",)
RUNNER = ("tests/manager/test_runner.py",)
ORDER = ("tests/manager/test_runner_order.py",)
GUARD = ("tests/manager/test_guard.py",)

ALL_OF = (
    Weakening(
        "outputs_removed_before_their_agents",
        "manager/outputs.py",
        "            if lsn <= durable_lsn:\n",
        "            if True:\n",
        OUTPUTS,
    ),
    Weakening(
        "outputs_swept_before_removals_are_durable",
        "manager/outputs.py",
        "            if orphans and wait_durable():\n",
        "            if orphans:\n",
        OUTPUTS,
    ),
    Weakening(
        "output_through_a_symlink",
        "manager/companion.py",
        "os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW",
        "os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC",
        OUTPUTS,
    ),
    Weakening(
        "output_named_by_any_id",
        "manager/outputs.py",
        "    if is_agent_id(agent_id):\n",
        "    if True:\n",
        OUTPUTS,
    ),
    Weakening(
        "output_over_a_full_disk_goes_on",
        "manager/_run/streams.py",
        "                self._has_failed = True\n",
        "",
        OUTPUTS,
    ),
    Weakening(
        "output_ends_before_its_pipe",
        "manager/_run/process.py",
        "await asyncio.wait(pipes, timeout=_DRAIN_TIMEOUT_S)",
        "pass",
        OUTPUT,
    ),
    Weakening(
        "known_files_are_parsed_at_each_open",
        "manager/outputs.py",
        'for name in _names(directory) if name.partition(".")[0] not in agent_ids)',
        "for name in _names(directory))",
        ("tests/manager/test_runner_scale.py",),
    ),
    Weakening(
        "printing_without_a_bound",
        "manager/_run/printer.py",
        "return self._put_bytes - self._written_bytes > _QUEUED_BYTES_MAX",
        "return False",
        OUTPUT,
    ),
    Weakening(
        "job_log_without_earlier_runs",
        "manager/_run/joblog.py",
        "sorted(agents(), key=lambda agent: agent.lsn)",
        "[]",
        JOBLOG,
    ),
    Weakening(
        "job_log_has_the_last_attempts_only",
        "manager/_run/joblog.py",
        "sorted(agents(), key=lambda agent: agent.lsn)",
        "report.agents.values()",
        JOBLOG,
    ),
    Weakening(
        "exit_of_an_earlier_start",
        "manager/_run/facts.py",
        "not is_task(agent) or agent.status not in ENDED or",
        "not is_task(agent) or",
        OUTPUT,
    ),
    Weakening(
        "tasks_do_not_wait",
        "manager/_run/schedule.py",
        '        unmet = {f"name:{name}" for name in entry.after} - self._completed\n',
        "        unmet = set[str]()\n",
        ORDER,
    ),
    Weakening(
        "blocked_tasks_are_planned",
        "manager/_run/admission.py",
        "for key, _, command in due if key in starting]",
        "for _, _, command in due]",
        ORDER,
    ),
    Weakening(
        "failed_tasks_count_as_completed",
        "manager/_run/run.py",
        '        if agent.status == "completed":\n            self._schedule',
        "        if True:\n            self._schedule",
        ORDER,
    ),
    Weakening(
        "retries_forgotten_by_a_kill",
        "manager/_run/run.py",
        "with self._manager.transaction() as transaction:\n"
        "                transaction.update_from_result(agent.agent_id, result)\n"
        "                next_id",
        "self._manager.update_from_result(agent.agent_id, result)\n"
        "            await self._manager.durable()\n"
        "            with self._manager.transaction() as transaction:\n"
        "                next_id",
        ORDER,
    ),
    Weakening(
        "newest_agent_by_the_clock",
        "manager/_run/admission.py",
        "sorted(agents, key=order_of)",
        "sorted(agents, key=lambda agent: agent.created_at_ms)",
        RUNNER,
    ),
    Weakening(
        "edited_lines_of_failed_tasks_ignored",
        "manager/_run/admission.py",
        'return agent.status != "completed" and is_edited',
        'return agent.status not in ("completed", "failed") and is_edited',
        RUNNER,
    ),
    Weakening(
        "ignored_hangup_stops_a_run",
        "manager/_run/signals.py",
        "signal.getsignal(number) == signal.SIG_IGN",
        "False",
        ("tests/manager/test_runner_killed.py",),
    ),
    Weakening(
        "exit_codes_lost_to_an_ignored_sigchld",
        "manager/_run/signals.py",
        "signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN",
        "False",
        RUNNER,
    ),
    Weakening(
        "foreign_state_runs_unasked",
        "manager/_cli/trust.py",
        "if mode & _OTHERS_ACCESS:",
        "if False:",
        ("tests/manager/test_subagents_run.py",),
    ),
    Weakening(
        "state_of_another_user_runs_unasked",
        "manager/_cli/trust.py",
        "        if _is_of_another(state):\n",
        "        if False:\n",
        ("tests/manager/test_subagents_run.py",),
    ),
    Weakening(
        "workspace_of_another_user_is_trusted",
        "manager/_cli/trust.py",
        "            if _is_of_another(above):\n",
        "            if False:\n",
        ("tests/manager/test_subagents_run.py",),
    ),
    Weakening(
        "results_of_any_size",
        "manager/_run/streams.py",
        "elif utf8_bytes(text) > self._tail_bytes_max:",
        "elif False:",
        OUTPUT,
    ),
    Weakening(
        "time_limits_of_any_type",
        "manager/_run/tasks.py",
        '            timeout_s = task_fields.seconds(metadata.get("timeout_s"))\n',
        '            timeout_s = metadata.get("timeout_s")\n',
        (*RUNNER, "tests/manager/test_tasks.py"),
    ),
    Weakening(
        "directories_above_a_state_are_not_looked_at",
        "manager/_cli/trust.py",
        "in _directories(workspace, path):",
        "in [workspace]:",
        ("tests/manager/test_subagents_run.py",),
    ),
    Weakening(
        "state_of_others_is_advised",
        "manager/_cli/progress.py",
        "        if doubt:\n",
        "        if False:\n",
        ("tests/manager/test_subagents_run.py",),
    ),
    Weakening(
        "group_killed_after_its_leader_was_reaped",
        "manager/_run/process.py",
        "        self.signal(signal.SIGKILL)\n        try:\n",
        "        if self.exited.done():\n            os.waitpid(self._process.pid, 0)\n"
        "        self.signal(signal.SIGKILL)\n        try:\n",
        GUARD,
    ),
    Weakening(
        "lost_exit_code_is_taken_for_0",
        "manager/_run/process.py",
        "self._returncode = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])",
        "self._returncode = self._process.wait()",
        GUARD,
    ),
    Weakening(
        "frozen_program_starts_itself",
        "manager/_run/process.py",
        'elif hasattr(sys, "frozen"):',
        "elif False:",
        GUARD,
    ),
    Weakening(
        "guard_kills_strangers",
        "manager/_run/guard.py",
        "for group, leader in leaders.items() if not is_reused(group, leader)",
        "for group in leaders",
        GUARD,
    ),
    Weakening(
        "survivors_of_a_command_are_not_named",
        "manager/_run/process.py",
        "self.left_running = _unkillable(pid)",
        "pass",
        GUARD,
    ),
    Weakening(
        "strangers_are_named_as_survivors",
        "manager/_run/process.py",
        "[] if group in pids else sorted",
        "sorted",
        GUARD,
    ),
    Weakening(
        "unkillable_commands_are_waited_for",
        "manager/_run/process.py",
        "await asyncio.wait((self.exited,), timeout=_KILL_TIMEOUT_S)",
        "await asyncio.wait((self.exited,))",
        GUARD,
    ),
    Weakening(
        "joblog_emptied_by_a_run_that_is_refused",
        "manager/_run/joblog.py",
        "_FLAGS = os.O_WRONLY | ",
        "_FLAGS = os.O_TRUNC | os.O_WRONLY | ",
        JOBLOG,
    ),
    Weakening(
        "exit_of_an_earlier_start_kept",
        "manager/_run/run.py",
        "manager.resume(ref, checkpoint={})",
        "manager.resume(ref)",
        JOBLOG,
    ),
    Weakening(
        "printer_gives_up_on_a_full_pipe",
        "manager/_run/printer.py",
        "                    select.select([], [fd], [])\n",
        "                    raise\n",
        OUTPUT,
    ),
    Weakening(
        "bulk_replay_of_agents_not_running",
        "manager/bulk_replay.py",
        "if row is not None and row[STATUS] in _STATUSES:",
        "if row is not None:",
        ("tests/manager/test_bulk_replay.py",),
    ),
    Weakening(
        "bulk_replay_of_items_unchecked",
        "manager/bulk_replay.py",
        "if row is None or not self._has_begun:",
        "if row is None:",
        ("tests/manager/test_bulk_replay.py",),
    ),
)
