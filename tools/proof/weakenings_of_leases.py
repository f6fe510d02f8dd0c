"""Weakenings of leases: the protocol between a manager and its workers in other processes."""

from __future__ import annotations

from proof.weakenings import Weakening

LEASES = ("tests/manager/test_leasing.py",)
DESK = ("tests/remote/test_desk.py",)
REQUESTS = ("tests/remote/test_requests.py",)
NETWORK = ("tests/remote/test_network.py", "tests/remote/test_bad_messages.py")
FAILURES = ("tests/remote/test_failures.py",)
STATION = ("tests/remote/test_station.py",)
SUPPLY = ("tests/remote/test_supply.py",)

ALL_OF = (
    Weakening(
        "lease_that_no_worker_takes_is_given",
        "manager/_remote/dispatcher.py",
        "low=0.1, high=messages.LEASE_S_MAX)",
        "low=0.1)",
        ("tests/remote/test_address.py",),
    ),
    Weakening(
        "report_of_any_token",
        "manager/leasing.py",
        "token_of(row) != token or not _is_of(lease, worker_name):",
        "not _is_of(lease, worker_name):",
        LEASES,
    ),
    Weakening(
        "report_of_any_worker",
        "manager/leasing.py",
        "token_of(row) != token or not _is_of(lease, worker_name):",
        "token_of(row) != token:",
        DESK,
    ),
    Weakening(
        "report_recorded_twice",
        "manager/leasing.py",
        '    if sequence <= lease["sequence"]:\n        return "recorded", False',
        '    if sequence < 0:\n        return "recorded", False',
        LEASES,
    ),
    Weakening(
        "report_judged_before_the_lock",
        "manager/leasing.py",
        "            if (row := fleet.rows.get(agent_id)) is not known:\n",
        "            if (row := fleet.rows.get(agent_id)) is None:\n",
        LEASES,
    ),
    Weakening(
        "report_after_the_end",
        "manager/leasing.py",
        '    is_due = get.status(row) == "running"\n',
        "    is_due = True\n",
        LEASES,
    ),
    Weakening(
        "beat_for_any_worker",
        "manager/leasing.py",
        "is_ours = lease is not None and _is_of(lease, worker_name)\n            goes_on",
        "is_ours = lease is not None\n            goes_on",
        DESK,
    ),
    Weakening(
        "open_interrupts_leased_agents",
        "manager/agent.py",
        'return get.status(row) == "running" and get.lease(row) is None',
        'return get.status(row) == "running"',
        LEASES,
    ),
    Weakening(
        "losses_are_forgotten",
        "manager/steps.py",
        'lost = 0 if before is None else before["lost"]',
        "lost = 0",
        LEASES,
    ),
    Weakening(
        "start_answered_before_it_is_durable",
        "manager/_remote/desk.py",
        "                await self.settle(max(get.lsn(row) for row in grants))",
        "                pass",
        DESK,
    ),
    Weakening(
        "report_answered_before_it_is_durable",
        "manager/_remote/desk.py",
        '        await self.settle(lsn)\n        return {"outcome": outcome}',
        '        return {"outcome": outcome}',
        DESK,
    ),
    Weakening(
        "stop_answered_before_it_is_durable",
        "manager/_remote/desk.py",
        "        if over:\n            await self.settle(lsn)\n",
        "",
        DESK,
    ),
    Weakening(
        "stale_manager_answers",
        "manager/_remote/desk.py",
        'messages.whole(body.get("epoch")) > self._leasing.epoch:',
        'messages.whole(body.get("epoch")) < 0:',
        DESK,
    ),
    Weakening(
        "id_does_not_fit_the_subject",
        "manager/_remote/desk.py",
        'if body.get("worker") != worker:',
        "if False:",
        DESK,
    ),
    Weakening(
        "lost_start_is_not_named_again",
        "manager/_remote/desk.py",
        "grants, room_bytes = self._reissued(sender.worker, known)",
        "grants, room_bytes = list[Row](), self._room_bytes",
        DESK,
    ),
    Weakening(
        "starts_named_again_exceed_a_message",
        "manager/_remote/desk.py",
        "if (size := size_of(row)) <= room_bytes:",
        "if (size := size_of(row)) > 0:",
        DESK,
    ),
    Weakening(
        "late_request_takes_agents",
        "manager/_remote/desk.py",
        "        if number <= sender.number:\n",
        "        if False:\n",
        DESK,
    ),
    Weakening(
        "lease_ends_before_it_is_answered",
        "manager/_remote/desk.py",
        "lease, sender.worker, math.inf, is_confirmed=False",
        "lease, sender.worker, self.clock_s() + self._lease_s, is_confirmed=False",
        DESK,
    ),
    Weakening(
        "unheard_start_counts_as_lost",
        "manager/_remote/desk.py",
        ", has_begun=held.is_confirmed)",
        ")",
        DESK,
    ),
    Weakening(
        "leases_end_after_a_stop_of_the_manager",
        "manager/_remote/desk.py",
        "            self.renew_all()\n        for held in",
        "            pass\n        for held in",
        DESK,
    ),
    Weakening(
        "leases_end_before_a_silent_server_is_noticed",
        "manager/_remote/dispatcher.py",
        "is_reached = await self._link.reaches_server()",
        "is_reached = self._link.is_connected",
        DESK,
    ),
    Weakening(
        "leases_end_while_the_manager_is_cut_off",
        "manager/_remote/dispatcher.py",
        "                self._desk.renew_all()\n",
        "                pass\n",
        DESK,
    ),
    Weakening(
        "worker_hears_of_a_shorter_lease_at_its_next_beat",
        "manager/_remote/dispatcher.py",
        "            for worker in self._desk.silent():",
        "            for worker in set[str]():",
        STATION,
    ),
    Weakening(
        "worker_of_another_journal_gets_agents",
        "manager/_remote/desk.py",
        'if messages.whole(body.get("running", 0)) and',
        "if False and",
        FAILURES,
    ),
    Weakening(
        "tasks_that_requests_ended_are_waited_for",
        "manager/_run/remote.py",
        "            if now.status in ENDED:  # a request has ended it before it could start\n",
        "            if False:\n",
        REQUESTS,
    ),
    Weakening(
        "machines_with_names_of_any_length",
        "manager/_remote/desk.py",
        '"machine")[:_MACHINE_CHARS_MAX]',
        '"machine")',
        DESK,
    ),
    Weakening(
        "spawns_that_no_message_carries",
        "manager/transaction.py",
        "            self._updates.check_spawn(record)\n",
        "            pass\n",
        NETWORK,
    ),
    Weakening(
        "large_agents_are_queued",
        "manager/manager.py",
        "            self._updates.check_spawn(record)\n",
        "            pass\n",
        NETWORK,
    ),
    Weakening(
        "long_queue_is_read_in_one_hold",
        "manager/_remote/supply.py",
        "            if not fresh:\n",
        "            if fresh or not fresh:\n",
        SUPPLY,
    ),
)
