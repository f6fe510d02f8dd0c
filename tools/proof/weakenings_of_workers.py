"""Weakenings of the worker's side: the loops that run agents, here and in other processes."""

from __future__ import annotations

from proof.weakenings import Weakening

DESK = ("tests/remote/test_desk.py",)
REQUESTS = ("tests/remote/test_requests.py",)
NETWORK = ("tests/remote/test_network.py", "tests/remote/test_bad_messages.py")
FAILURES = ("tests/remote/test_failures.py",)
WORKER_FILES = ("tests/remote/test_worker_files.py",)
LOOPS = ("tests/remote/test_loops.py",)
STATION = ("tests/remote/test_station.py",)

ALL_OF = (
    Weakening(
        "worker_obeys_any_epoch",
        "manager/_remote/courier.py",
        "        if epoch < self._epochs.get(journal_id, 0):\n            return False\n",
        "",
        DESK,
    ),
    Weakening(
        "worker_obeys_another_journal",
        "manager/_remote/courier.py",
        "if self.journal_id and not self._is_free():",
        "if False:",
        DESK,
    ),
    Weakening(
        "worker_ignores_the_end_of_a_lease",
        "manager/_remote/station.py",
        "            self._runs[lease].outbox.end()\n",
        "            pass\n",
        NETWORK,
    ),
    Weakening(
        "orphan_runs_on",
        "manager/_remote/station.py",
        "                self._cancel_all()\n",
        "                pass\n",
        NETWORK,
    ),
    Weakening(
        "waiting_request_survives_the_worker",
        "manager/_remote/station.py",
        "                    await self._withdraw()",
        "                    pass",
        NETWORK,
    ),
    Weakening(
        "agents_begin_unconfirmed",
        "manager/_remote/station.py",
        "        if answer is None:\n            return False\n        try:\n",
        "        if answer is None:\n            answer = {'stop': []}\n        try:\n",
        NETWORK,
    ),
    Weakening(
        "agents_begin_with_the_confirmation_of_others",
        "manager/_remote/station.py",
        "        for run in come:\n            if not run.outbox.is_over and run.task is None:",
        "        for run in self._runs.values():\n            if run.task is None:",
        STATION,
    ),
    Weakening(
        "worker_beats_for_the_default_lease",
        "manager/_remote/courier.py",
        "            self.lease_changed.set()\n",
        "",
        STATION,
    ),
    Weakening(
        "report_waits_for_no_journal",
        "manager/_remote/courier.py",
        "if answer is not None and self.journal_id == journal_id:",
        "if answer is not None:",
        FAILURES,
    ),
    Weakening(
        "orphan_keeps_what_has_not_begun",
        "manager/_remote/station.py",
        "                run.task = asyncio.create_task(self._report(run, _HANDED_BACK))\n",
        "                pass\n",
        FAILURES,
    ),
    Weakening(
        "next_request_before_the_result",
        "manager/_remote/station.py",
        '        answered = run.outbox.post("result", body)\n        self._changed.set()',
        '        self._changed.set()\n        answered = run.outbox.post("result", body)',
        STATION,
    ),
    Weakening(
        "reports_wait_in_the_event_loop_of_their_caller",
        "manager/_remote/outbox.py",
        "        if loop is self._loop:\n",
        "        if loop:\n",
        LOOPS,
    ),
    Weakening(
        "thread_waits_for_a_worker_that_has_ended",
        "manager/_remote/outbox.py",
        "self._is_over or self._is_closed or self._loop.is_closed()",
        "self._is_over",
        LOOPS,
    ),
    Weakening(
        "thread_waits_for_an_agent_that_has_ended",
        "manager/_remote/station.py",
        "            run.outbox.end()  # what",
        "            pass  # what",
        LOOPS,
    ),
    Weakening(
        "agents_on_their_way_wait_for_the_end_of_their_leases",
        "manager/_remote/station.py",
        "if answer is not None and self._accept(answer, self._slots):",
        "if answer is None:",
        STATION,
    ),
    Weakening(
        "second_cancellation_leaves_reports",
        "manager/_remote/station.py",
        "        finally:  # also",
        "        except TimeoutError:\n            raise\n        else:  # also",
        STATION,
    ),
    Weakening(
        "server_lost_during_the_open_is_no_dispatch_error",
        "manager/_remote/link.py",
        "(_CONNECT_S):\n                await work",
        "(999):\n                await work",
        ("tests/remote/test_real_server.py",),
    ),
    Weakening(
        "panic_of_a_runner_keeps_its_slot",
        "manager/_remote/station.py",
        "        except BaseException as error:  # whatever else",
        "        except Exception as error:  # whatever else",
        NETWORK,
    ),
    Weakening(
        "connection_ignores_a_lost_cancellation",
        "manager/_remote/link.py",
        "            _end_if_cancelled(earlier)  # else the client would go on connecting\n",
        "",
        ("tests/remote/test_link.py",),
    ),
    Weakening(
        "request_of_a_worker_loses_a_cancellation",
        "manager/_remote/link.py",
        "await _ended(self._client.request(subject, data, timeout=timeout_s))",
        "await self._client.request(subject, data, timeout=timeout_s)",
        ("tests/remote/test_link.py",),
    ),
    Weakening(
        "facts_of_an_earlier_start_are_kept",
        "manager/_run/worker.py",
        "        if agent.checkpoint:\n",
        "        if False:\n",
        REQUESTS,
    ),
    Weakening(
        "result_waits_for_the_worker_s_disk",
        "manager/_remote/station.py",
        "            await answered\n",
        "            await answered\n"
        "            if self._spool is not None:\n"
        "                await self._spool._kept.durable()\n",
        FAILURES,
    ),
    Weakening(
        "worker_locks_any_kind_of_file",
        "manager/_run/worker.py",
        "    if not stat.S_ISREG(os.fstat(fd).st_mode):\n",
        "    if False:\n",
        WORKER_FILES,
    ),
    Weakening(
        "worker_reports_something_else",
        "manager/_remote/spool.py",
        "            if type(key) is not tuple or type(body) is not dict:\n",
        "            if False:\n",
        WORKER_FILES,
    ),
    Weakening(
        "close_waits_for_the_worker_s_disk",
        "manager/_remote/spool.py",
        "        except TimeoutError as error:\n",
        "        except ConnectionError as error:\n",
        FAILURES,
    ),
    Weakening(
        "late_result_of_a_worker",
        "manager/worker.py",
        'if (now.status, now.starts) != ("running", context.agent.starts):',
        "if False:",
        ("tests/manager/test_worker.py",),
    ),
    Weakening(
        "loop_loses_the_cause_of_its_end",
        "manager/worker.py",
        "            raise first from first.__cause__\n",
        "            raise first from None\n",
        ("tests/manager/test_worker.py",),
    ),
    Weakening(
        "worker_acts_before_its_checkpoint_is_durable",
        "manager/worker.py",
        "await self.manager.durable(self.agent.lsn)",
        "pass",
        ("tests/manager/test_worker.py",),
    ),
    Weakening(
        "directories_outside_of_a_worker",
        "manager/_run/worker.py",
        "        if os.path.isabs(cwd) or cwd.split(os.sep)[0] == os.pardir:\n",
        "        if False:\n",
        ("tests/remote/test_commands.py",),
    ),
    Weakening(
        "directories_above_a_symlink_of_a_worker",
        "manager/_run/worker.py",
        "cwd = os.path.normpath(directory)",
        "cwd = directory",
        ("tests/remote/test_commands.py",),
    ),
)
