"""Weakenings of commands whose disk, or whose stream of messages, takes nothing."""

from __future__ import annotations

from proof.weakenings import Weakening

ALL_OF = (
    Weakening(
        "stopped_runs_wait_for_a_full_disk",
        "manager/_run/run.py",
        "            self._work.cancel()\n",
        "            pass\n",
        ("tests/manager/test_runner_killed.py",),
    ),
    Weakening(
        "closes_of_stopped_runs_wait_for_a_full_disk",
        "manager/_run/runner.py",
        "    if not signals.has_come:\n",
        "    if True:\n",
        ("tests/manager/test_runner_killed.py",),
    ),
    Weakening(
        "lost_messages_change_the_exit_code",
        "manager/__main__.py",
        "        release_stderr()\n",
        "",
        ("tests/manager/test_subagents_streams.py",),
    ),
    Weakening(
        "closes_after_giving_up_wait_as_long_as_for_a_mirror",
        "manager/_run/run.py",
        "signals.has_given_up = True",
        "pass",
        ("tests/manager/test_runner_killed.py",),
    ),
    Weakening(
        "exit_after_giving_up_waits_for_a_full_disk",
        "manager/_cli/run.py",
        "        skip_last_wait(report.exit_code)\n",
        "        pass\n",
        ("tests/manager/test_subagents_run.py",),
    ),
    Weakening(
        "interrupted_changes_wait_for_a_full_disk",
        "manager/_cli/giving_up.py",
        "        timeout_s = CLOSE_S\n",
        "",
        ("tests/manager/test_control_run.py",),
    ),
    Weakening(
        "exit_after_an_interrupted_change_waits_for_a_full_disk",
        "manager/_cli/giving_up.py",
        "            skip_last_wait(STOPPED_BY_SIGNAL + signal.SIGINT)\n",
        "",
        ("tests/manager/test_control_run.py",),
    ),
    Weakening(
        "interrupted_imports_wait_for_a_full_disk",
        "manager/_cli/cli.py",
        "with closing_in_time(manager, doubt):",
        "with manager:",
        ("tests/manager/test_control_run.py",),
    ),
)
