"""Weakenings of control: the socket, its clients, and what their requests do.

The tests of MCP need the dependency group `mcp`.
"""

from __future__ import annotations

from proof.weakenings import Weakening

CONTROL = ("tests/manager/test_control.py",)
RUN = ("tests/manager/test_control_run.py",)
PAUSE = ("tests/manager/test_control_pause.py",)
MESSAGES = ("tests/manager/test_subagents_messages.py",)
RUNNER = ("tests/manager/test_runner.py",)
WORKERS = ("tests/manager/test_control_workers.py",)

ALL_OF = (
    Weakening(
        "any_reply_is_of_a_manager",
        "manager/_control/client.py",
        "    except (ValueError, TypeError, LookupError) as error:\n",
        "    except ConnectionError as error:\n",
        ("tests/manager/test_control_client.py",),
    ),
    Weakening(
        "damaged_marker_is_taken_for_a_mirror",
        "manager/_cli/reach.py",
        "        if error.reason is not MirrorReason.NEEDED:\n",
        "        if False:\n",
        MESSAGES,
    ),
    Weakening(
        "python_words_of_a_damaged_marker",
        "manager/_cli/messages.py",
        "    if error.reason is MirrorReason.DAMAGED and os.path.basename(error.url) == _MARKER:\n",
        "    if False:\n",
        MESSAGES,
    ),
    Weakening(
        "control_served_to_any_user",
        "manager/_control/server.py",
        "is_own(connection) and self._has_place()",
        "self._has_place()",
        CONTROL,
    ),
    Weakening(
        "control_runs_a_loop_of_the_program",
        "manager/_control/server.py",
        "asyncio.SelectorEventLoop()",
        "asyncio.new_event_loop()",
        CONTROL,
    ),
    Weakening(
        "control_listens_after_its_thread",
        "manager/_control/server.py",
        "            self._listener.socket.close()  # so that clients don't wait for replies\n",
        "",
        ("tests/manager/test_control_unserved.py",),
    ),
    Weakening(
        "silent_clients_lock_others_out",
        "manager/_control/server.py",
        "            return task.cancel()\n",
        "            return False\n",
        CONTROL,
    ),
    Weakening(
        "requests_give_way_to_silent_clients",
        "manager/_control/server.py",
        "            self._silent.pop(task, None)\n            if isinstance",
        "            if isinstance",
        CONTROL,
    ),
    Weakening(
        "control_of_any_users_process",
        "manager/_control/place.py",
        "        if not is_own(connection):\n",
        "        if False:\n",
        CONTROL,
    ),
    Weakening(
        "control_of_any_uid",
        "manager/_control/place.py",
        "return bool(uid == os.geteuid())",
        "return True",
        CONTROL,
    ),
    Weakening(
        "stale_socket_stays",
        "manager/_control/place.py",
        "            _remove_stale(fd, path)\n",
        "",
        CONTROL,
    ),
    Weakening(
        "socket_with_the_umasks_mode",
        "manager/_control/place.py",
        "            os.chmod(SOCKET, 0o600, dir_fd=fd)\n",
        "",
        CONTROL,
    ),
    Weakening(
        "socket_left_at_the_close",
        "manager/_control/place.py",
        "            os.unlink(SOCKET, dir_fd=self._fd)\n",
        "            pass\n",
        CONTROL,
    ),
    Weakening(
        "socket_named_by_its_path_alone",
        "manager/_control/place.py",
        '    if os.path.exists(f"{_HANDLES}/{fd}"):\n',
        "    if False:\n",
        CONTROL,
    ),
    Weakening(
        "socket_kept_in_a_fork",
        "manager/_control/server.py",
        "        server.forget()\n",
        "        pass\n",
        CONTROL,
    ),
    Weakening(
        "waiters_that_die_keep_their_places",
        "manager/_control/server.py",
        "asyncio.wait((answering, leaving), return_when",
        "asyncio.wait((answering,), return_when",
        CONTROL,
    ),
    Weakening(
        "replies_before_changes_are_durable",
        "manager/_control/requests.py",
        "        await self._manager.durable(agent.lsn)\n",
        "",
        CONTROL,
    ),
    Weakening(
        "slow_clients_keep_their_places",
        "manager/_control/server.py",
        "            async with asyncio.timeout(_PATIENCE_S):\n                reply: Any",
        "            async with asyncio.timeout(None):\n                reply: Any",
        CONTROL,
    ),
    Weakening(
        "requests_of_any_length",
        "manager/_control/server.py",
        "        if len(line) > REQUEST_BYTES_MAX:\n",
        "        if False:\n",
        CONTROL,
    ),
    Weakening(
        "cancelled_commands_run_on",
        "manager/_run/run.py",
        '                stop.request("cancelled")\n',
        "                pass\n",
        RUN,
    ),
    Weakening(
        "cancelled_tasks_are_blocked",
        "manager/_run/run.py",
        "            self._report.put(self._current(agent))\n",
        "            pass\n",
        RUN,
    ),
    Weakening(
        "the_last_end_of_a_run_is_missed",
        "manager/_cli/reach.py",
        "        with suppress(NoReplyError):",
        "        with suppress():",
        RUN,
    ),
    Weakening(
        "paused_tasks_are_given_up",
        "manager/_run/run.py",
        "            self._paused.add(agent.agent_id)\n",
        "            pass\n",
        PAUSE,
    ),
    Weakening(
        "paused_runs_start_tasks",
        "manager/_run/run.py",
        "return has_place and not self._is_over and not self._runners.is_held",
        "return has_place and not self._is_over",
        PAUSE,
    ),
    Weakening(
        "retries_begin_beside_the_stopped_command",
        "manager/_run/run.py",
        "            while (stop := self._stops.get(agent_id)) is not None:\n",
        "            while (stop := None) is not None:\n",
        PAUSE,
    ),
    Weakening(
        "retried_tasks_count_twice",
        "manager/_run/run.py",
        "        if self.has(agent):  # no retry",
        "        if True:  # no retry",
        PAUSE,
    ),
    Weakening(
        "earlier_attempts_are_retried",
        "manager/again.py",
        "    if newest is not None and newest.agent_id != agent.agent_id:\n",
        "    if False:\n",
        (*PAUSE, *WORKERS),
    ),
    Weakening(
        "paused_loops_start_agents",
        "manager/worker.py",
        "        if self._runners.is_held:\n            return",
        "        if False:\n            return",
        WORKERS,
    ),
    Weakening(
        "spawned_without_a_worker",
        "manager/_control/requests.py",
        "self._present().check_type(agent_type)",
        "self._present()",
        WORKERS,
    ),
    Weakening(
        "requests_make_tasks",
        "manager/_control/requests.py",
        'if text("agent_type", agent_type) == TASK_TYPE:',
        'if text("agent_type", agent_type) is None:',
        WORKERS,
    ),
    Weakening(
        "tasks_by_their_metadata_alone",
        "manager/again.py",
        "return agent.agent_type == TASK_TYPE and isinstance",
        "return isinstance",
        (*WORKERS, *RUNNER),
    ),
    Weakening(
        "newer_attempts_by_their_metadata_alone",
        "manager/again.py",
        'if other.name == name or (is_task(other) and other.metadata["task"] == task)',
        'if other.name == name or (task is not None and other.metadata.get("task") == task)',
        WORKERS,
    ),
    Weakening(
        "imports_make_tasks",
        "manager/legacy.py",
        'agent_type="general" if agent_type == TASK_TYPE else agent_type',
        "agent_type=agent_type",
        ("tests/manager/test_legacy.py",),
    ),
    Weakening(
        "resume_forgotten_at_a_late_change",
        "manager/worker.py",
        "        elif self._waiting.get(agent.agent_id, 0) >= agent.lsn:\n            return",
        "        elif False:\n            return",
        WORKERS,
    ),
    Weakening(
        "mcp_ignores_an_interrupt",
        "manager/_cli/mcp_tools.py",
        "    signal.signal(signal.SIGINT, lambda number, _: ",
        "    (lambda number, _: ",
        ("tests/manager/test_mcp.py",),
    ),
    Weakening(
        "mcp_waits_longer_than_its_client",
        "manager/_cli/mcp_tools.py",
        'name="subagents-wait", daemon=True)',
        'name="subagents-wait", daemon=False)',
        ("tests/manager/test_mcp.py",),
    ),
    Weakening(
        "mcp_changes_although_it_is_to_read",
        "manager/_cli/mcp_tools.py",
        "    for change in () if read_only else changing:\n",
        "    for change in changing:\n",
        ("tests/manager/test_mcp.py",),
    ),
)
