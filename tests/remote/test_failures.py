"""The table of failures on the reliability page: each row has tests, and those that no other module
has are here."""

from __future__ import annotations

import asyncio
import errno
import re
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from journal import DurableDict, Options
from journal._mirror.memory_store import MemoryStore
from journal.testing import SimulatedDisk
from manager import Agent, WorkContext
from manager._remote.courier import Courier
from manager._remote.spool import Spool
from tests.mirror.stores import crash, mirror_of
from tests.remote.fleets import LEASE_S, World, echo, forever, queue, run

ROOT = Path(__file__).resolve().parents[2]
HOUR_MS = 3_600_000
# The tests of each row, as MODULE.FUNCTION.
TESTS = {
    "a worker is killed": (
        "test_network.test_a_killed_worker_s_agents_go_on_elsewhere",
        "test_real_server.test_a_silent_process_loses_its_agents",
    ),
    "a worker is killed before a result of a command was recorded": (
        "test_commands.test_a_result_outlives_its_worker",
    ),
    "a worker is stopped and woken, or cut off and connected again": (
        "test_network.test_a_worker_that_was_cut_off_is_told_that_its_lease_is_over",
        "test_real_server.test_a_silent_process_loses_its_agents",
    ),
    "a worker gets no answer": ("test_network.test_an_orphan_stops_its_agents",),
    "the disk of a worker is full": (
        "test_failures.test_results_are_recorded_while_the_worker_s_disk_is_full",
        "test_real_cluster.test_commands_run_while_the_worker_s_disk_is_full",
    ),
    "an agent kills its worker each time": (
        "test_network.test_an_agent_that_kills_its_workers_fails",
        "test_desk.test_a_start_that_was_never_confirmed_is_no_loss",
    ),
    "a manager is killed, closed or upgraded": (
        "test_network.test_agents_run_on_without_their_manager",
        "test_commands.test_a_signal_ends_the_run_and_not_its_commands",
    ),
    "the machine of a manager is lost, and another one opens the mirror": (
        "test_failures.test_leases_survive_the_loss_of_the_manager_s_machine",
    ),
    "a manager is stopped and woken, or can't reach the servers": (
        "test_desk.test_a_manager_that_heard_nobody_ends_no_lease",
    ),
    "a journal is gone, and the fleet begins with another one": (
        "test_failures.test_a_result_waits_for_its_journal_while_the_worker_goes_on",
        "test_failures.test_a_kept_result_is_reported_only_to_its_journal",
        "test_failures.test_an_orphan_works_for_another_journal",
        "test_failures.test_another_journal_gives_no_agents_to_a_worker_that_does_not_obey_it",
    ),
    "a manager is stale: another one has opened the same journal since": (
        "test_desk.test_a_stale_manager_is_fenced_on_both_sides",
        "test_desk.test_a_worker_obeys_no_lower_epoch",
    ),
    "managers of two journals open a Dispatcher for one fleet": (
        "test_rivals.test_a_second_manager_is_refused",
        "test_rivals.test_of_two_that_serve_the_younger_one_ends",
        "test_rivals.test_a_manager_that_was_cut_off_yields",
    ),
    "a server, or all of them, are killed": (
        "test_real_server.test_a_restarted_server_and_manager_lose_nothing",
        "test_real_cluster.test_killed_servers_lose_nothing",
    ),
    "a message is lost, doubled, late or out of order": (
        "test_network.test_each_result_is_in_the_state_once",
        "test_desk.test_a_lost_answer_is_given_again",
    ),
    "a message is malformed or hostile": (
        "test_desk.test_a_hostile_request_changes_nothing",
        "test_desk.test_a_report_of_another_worker_s_lease_is_over",
        "test_bad_messages.test_a_malformed_answer_ends_no_worker",
        "test_permissions.test_a_user_can_neither_act_as_another_nor_listen",
    ),
    "a worker is gone, or can't be reached, when its output is wanted": (
        "test_outputs.test_output_is_read_from_the_worker_that_has_it",
        "test_requests.test_a_worker_that_has_gone_is_named",
    ),
    "a worker can't be reached when an agent is removed": (
        "test_outputs.test_removed_agents_leave_no_output",
    ),
    "two clocks differ": ("test_failures.test_times_of_day_decide_nothing",),
    "an agent, a checkpoint or a result is too large for a message": (
        "test_bad_messages.test_a_spawn_that_no_message_can_carry_is_refused",
        "test_bad_messages.test_a_grant_that_no_message_can_carry_fails",
        "test_bad_messages.test_a_report_that_no_message_can_carry_is_refused",
        "test_bad_messages.test_what_a_runner_does_wrong_makes_its_agent_fail",
    ),
}


def test_each_failure_on_the_page_has_tests() -> None:
    """The rows of the page's table are those of `TESTS`, and their tests exist."""
    page = (ROOT / "journal" / "docs" / "RELIABILITY.md").read_text()
    section = page.partition("## Workers on other machines\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| .+ \|$", section, re.MULTILINE)
    assert rows == ["what fails", *TESTS]
    for tests in TESTS.values():
        for test in tests:
            module, _, function = test.partition(".")
            text = Path(__file__).with_name(f"{module}.py").read_text()
            assert f"\ndef {function}(" in text, test


async def running(world: World, name: str) -> Agent:
    while (agent := world.manager.get(name)).status != "running":
        await asyncio.sleep(0.1)
    return agent


@pytest.mark.parametrize("buffer_bytes", [1 << 16, 1 << 26])
def test_results_are_recorded_while_the_worker_s_disk_is_full(buffer_bytes: int) -> None:
    """A worker whose disk is full reports each result, takes further agents, and ends when it is
    told to, whether or not its buffer has room for the results."""
    disk = SimulatedDisk()
    kept = DurableDict.open("/s", options=Options(buffer_bytes=buffer_bytes), disk=disk)
    kept.sync()
    disk.fail("write", errno.ENOSPC, times=None)

    async def work(context: WorkContext) -> str:
        return context.agent.name * 20_000

    async def body(world: World) -> None:
        worker = world.work({"t": work}, spool=Spool(kept), slots=2)
        names = [f"a{number}" for number in range(10)]
        for name in names:
            queue(world, name)
        for name in names:
            assert (await world.ended(name, LEASE_S)).result == name * 20_000
        await asyncio.sleep(1)
        assert not world._workers[worker][2]._runs
        await world.drain(worker)

    run(body)
    assert len(kept) <= 1  # a buffer without room keeps the one that it took
    disk.before = None
    kept.close()


def test_a_full_disk_holds_up_no_end_of_a_worker(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close of the spool on a full disk ends after a moment, and reports what may be lost."""
    monkeypatch.setattr("manager._remote.spool._CLOSE_S", 0.05)
    disk = SimulatedDisk()
    kept = DurableDict.open("/s", disk=disk)
    kept.sync()
    disk.fail("write", errno.ENOSPC, times=None)
    kept["a"] = 1
    Spool(kept).close()
    assert "the last changes of results may be lost" in caplog.text
    disk.before = None
    kept.close()


def test_leases_survive_the_loss_of_the_manager_s_machine() -> None:
    """A manager that opens the mirror on another machine goes on with the leases, and gets the
    results of agents that ran meanwhile."""
    store = MemoryStore()

    async def slow(context: WorkContext) -> str:
        await context.checkpoint("begun")
        await asyncio.sleep(2 * LEASE_S)
        return "done"

    async def body(world: World) -> None:
        await world.kill_manager()
        await world.open(mirror=mirror_of(store))
        world.work({"t": slow})
        queue(world, "a")
        while world.manager.get("a").checkpoint != "begun":
            await asyncio.sleep(0.1)
        lease = world.manager.get("a").lease
        await world.link.close()
        crash(world.manager._state.journal)
        await world.kill_manager()
        await asyncio.sleep(LEASE_S)
        world.disk = SimulatedDisk()
        await world.open(mirror=mirror_of(store), takeover=True)
        assert world.manager.get("a").lease == lease
        agent = await world.ended("a")
        assert (agent.result, agent.starts, agent.checkpoint) == ("done", 1, "begun")

    run(body)


def test_times_of_day_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the clock jumps by an hour at each change, no lease ends early or late."""
    at_ms = cycle((1_700_000_000_000, 1_700_000_000_000 + HOUR_MS, 1_700_000_000_000 - HOUR_MS))
    monkeypatch.setattr("manager.clock.now_ms", lambda: next(at_ms))

    async def slow(context: WorkContext) -> str:
        await asyncio.sleep(3 * LEASE_S)
        return "done"

    async def body(world: World) -> None:
        first = world.work({"t": slow, "u": forever}, slots=2)
        queue(world, "a")
        assert (await world.ended("a")).starts == 1
        queue(world, "b", agent_type="u")
        await running(world, "b")
        await asyncio.sleep(LEASE_S)
        await world.kill_manager()
        await world.open()
        assert world.manager.get("b").status == "running"
        await world.kill(first)
        world.work({"u": echo})
        await asyncio.sleep(1.2 * LEASE_S + 2)
        agent = world.manager.get("b")
        assert (agent.status, agent.starts) == ("completed", 2)

    run(body)


async def begin_anew(world: World) -> SimulatedDisk:
    """Open a manager of another journal. Return the disk of the one before."""
    before, world.disk = world.disk, SimulatedDisk()
    world.disk.new_id()  # the first id is that of the journal before
    await world.open()
    return before


async def bring_back(world: World, disk: SimulatedDisk) -> None:
    """Open a manager of the journal on this disk in place of the one that runs."""
    await world.kill_manager()
    world.disk = disk
    await world.open()


def test_a_result_waits_for_its_journal_while_the_worker_goes_on() -> None:
    """A result whose manager is gone keeps its worker from nothing: the worker runs the agents of
    another journal at once. The result is recorded when its journal comes back."""

    async def body(world: World) -> None:
        worker = world.work({"t": echo}, slots=1)
        queue(world, "a")
        await running(world, "a")
        await world.kill_manager()
        await asyncio.sleep(10)
        first = await begin_anew(world)
        for name in "bc":
            queue(world, name)
            assert (await world.ended(name, LEASE_S)).starts == 1
        await bring_back(world, first)
        agent = await world.ended("a", LEASE_S)
        assert (agent.status, agent.starts) == ("completed", 1)
        assert not world._workers[worker][2]._runs

    run(body)


def test_a_kept_result_is_reported_only_to_its_journal() -> None:
    """A worker that is started again runs the agents of another journal, and keeps the result of
    the one before until the journal of that comes back."""
    kept = DurableDict.open("/s", disk=SimulatedDisk())

    async def body(world: World) -> None:
        worker = world.work({"t": echo}, name="w", spool=Spool(kept))
        queue(world, "a")
        await running(world, "a")
        await world.kill_manager()
        await asyncio.sleep(10)
        keys = [*kept]
        assert len(keys) == 1
        await world.kill(worker)
        first = await begin_anew(world)
        worker = world.work({"t": echo}, name="w", spool=Spool(kept))
        queue(world, "b")
        assert (await world.ended("b", LEASE_S)).starts == 1
        assert [*kept] == keys
        start_s = asyncio.get_running_loop().time()
        await world.drain(worker)  # no manager will answer for the result that waits
        assert asyncio.get_running_loop().time() - start_s < 2
        await bring_back(world, first)
        world.work({"t": echo}, name="w", spool=Spool(kept))
        agent = await world.ended("a", LEASE_S)
        assert (agent.status, agent.starts) == ("completed", 1)
        await asyncio.sleep(1)
        assert not kept

    run(body)
    kept.close()


@pytest.mark.parametrize("has_begun", [True, False])
def test_an_orphan_works_for_another_journal(
    has_begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker obeys no other journal while an agent runs. After `orphan_s` it does, also if the
    manager was gone before it had confirmed the agent."""
    ask = Courier.try_to_ask

    async def body(world: World) -> None:
        gone = asyncio.Event()

        async def unconfirmed(courier: Courier, verb: str, *rest: Any) -> Any:
            if verb == "beat" and not has_begun and not gone.is_set():
                gone.set()
                await world.kill_manager()
            return await ask(courier, verb, *rest)

        monkeypatch.setattr(Courier, "try_to_ask", unconfirmed)
        world.work({"t": forever, "u": echo}, orphan_s=100.0)
        queue(world, "a")
        await running(world, "a")
        if has_begun:
            while world.manager.get("a").checkpoint is None:
                await asyncio.sleep(0.1)
            await world.kill_manager()
        else:
            await gone.wait()
        await begin_anew(world)
        queue(world, "b", agent_type="u")
        await asyncio.sleep(80)
        assert world.manager.get("b").ended_at_ms is None
        assert (await world.ended("b", 2 * LEASE_S)).status == "completed"

    run(body)


def test_another_journal_gives_no_agents_to_a_worker_that_does_not_obey_it() -> None:
    """A manager of another journal leaves a worker alone while agents of the journal before run
    there: its own agents go to other workers at once. Afterwards, the worker gets some, too."""

    async def body(world: World) -> None:
        first = world.work({"t": forever, "u": echo}, slots=4, orphan_s=100.0)
        queue(world, "a")
        await running(world, "a")
        await world.kill_manager()
        await asyncio.sleep(10)
        await begin_anew(world)
        await asyncio.sleep(10)  # the worker has asked for agents
        [known] = world.desk.workers()
        assert (known[0].worker, known[0].slots) == (first, 0)
        for name in "bcd":
            queue(world, name, agent_type="u")
        await asyncio.sleep(2)
        assert all(world.manager.get(name).status == "queued" for name in "bcd")
        second = world.work({"u": echo}, slots=1)
        for name in "bcd":
            agent = await world.ended(name, 10)
            assert agent.lease is not None
            assert (agent.starts, agent.lease["worker"]) == (1, second)
        await world.drain(second)
        queue(world, "e", agent_type="u")
        agent = await world.ended("e", 100.0 + LEASE_S)
        assert (agent.status, agent.starts) == ("completed", 1)

    run(body)
