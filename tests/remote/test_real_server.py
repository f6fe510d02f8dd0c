"""Managers and workers on a real NATS server, which processes and signals end."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from proof.servers import nats_servers

from manager import Agent, Dispatcher, DispatchError, Limits, SubAgentManager, WorkContext, serve
from manager._remote.link import NatsLink
from tests.installed import import_package
from tests.remote.network import run
from tests.support import TIMEOUT_S, until

import_package("nats")
ROOT = Path(__file__).resolve().parents[2]
LEASE_S = 1.5


def queue(manager: SubAgentManager, name: str, agent_type: str = "quick") -> str:
    return manager.spawn("p", name=name, agent_type=agent_type, queued=True).agent_id


def child(url: str, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "tests.remote.child", url, name], cwd=ROOT)


def ended(manager: SubAgentManager, ref: str) -> Agent:
    return manager.wait_ended(ref, timeout_s=TIMEOUT_S)


async def echo(context: WorkContext) -> str:
    assert not hasattr(context, "manager")
    agent = await context.checkpoint({"n": 1})
    assert (agent.checkpoint, agent.steps_taken) == ({"n": 1}, 1)
    await context.progress("half", {"n": 2})
    return f"result of {agent.name}"


def test_coroutines_run_agents_through_a_server(tmp_path: Path, fleet_url: str) -> None:
    """`serve` runs the agents of a Dispatcher's manager, and the manager has their checkpoints,
    their progress and their results, durably."""

    async def body() -> None:
        async with (
            SubAgentManager.aopen(tmp_path) as manager,
            Dispatcher.aopen(fleet_url, manager) as dispatcher,
        ):
            serving = asyncio.create_task(serve(fleet_url, {"t": echo}, name="gpu1"))
            for name in ("a", "b"):
                queue(manager, name, "t")
                agent = await manager.ended(name)
                assert (agent.status, agent.result) == ("completed", f"result of {name}")
                assert agent.progress is not None
                assert (agent.checkpoint, agent.progress["text"]) == ({"n": 1}, "half")
                assert manager.stats().durable_lsn >= agent.lsn
            [worker] = dispatcher.workers()
            assert worker.worker.startswith("gpu1.")
            assert (worker.queues, worker.running) == (("default",), ())
            assert 0 <= worker.silent_s < TIMEOUT_S
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving
        assert dispatcher.closed
        assert dispatcher.error is None
        assert dispatcher.workers() == []
        dispatcher.close()

    run(body())


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGSTOP]
)
def test_a_silent_process_loses_its_agents(
    number: signal.Signals, tmp_path: Path, fleet_url: str
) -> None:
    """The agents of a worker that is killed or stopped go on elsewhere after the lease, and what a
    stopped one reports when it is woken changes nothing."""
    with (
        SubAgentManager.open(tmp_path) as manager,
        Dispatcher.open(fleet_url, manager, lease_s=LEASE_S),
    ):
        queue(manager, "a", "slow")
        first = child(fleet_url, "first")
        try:
            until(lambda: manager.get("a").checkpoint == "began", "a run")
            first.send_signal(number)
            silent_s = time.monotonic()
            until(lambda: manager.get("a").status == "interrupted", "the end of the lease")
            assert time.monotonic() - silent_s < LEASE_S + 10
            manager.cancel("a")
            first.send_signal(signal.SIGCONT)
            if number == signal.SIGSTOP:
                queue(manager, "b")
                assert str(ended(manager, "b").result).startswith("b by first.")
            assert manager.get("a").status == "cancelled"
        finally:
            first.kill()
            first.wait()


def test_a_restarted_server_and_manager_lose_nothing(tmp_path: Path) -> None:
    """Workers and managers connect again after a restart of the server, and agents that ran
    meanwhile are not run again."""
    began, go_on = asyncio.Event(), asyncio.Event()

    async def wait(context: WorkContext) -> str:
        began.set()
        await go_on.wait()
        return f"start {context.agent.starts}"

    async def body() -> None:
        folder = tmp_path / "nats"
        folder.mkdir()
        running = nats_servers(folder)
        [server], address = await asyncio.to_thread(running.__enter__)
        url = f"nats://{address}/f"
        serving = asyncio.create_task(serve(url, {"t": wait}))
        async with SubAgentManager.aopen(tmp_path) as manager:
            queue(manager, "a", "t")
            async with Dispatcher.aopen(url, manager, lease_s=LEASE_S):
                await began.wait()
                await asyncio.to_thread(server.close)
        go_on.set()
        server.start()
        try:
            async with (
                SubAgentManager.aopen(tmp_path) as manager,
                Dispatcher.aopen(url, manager, lease_s=LEASE_S),
            ):
                agent = await manager.ended("a")
                assert (agent.result, agent.starts) == ("start 1", 1)
                serving.cancel()
                with suppress(asyncio.CancelledError):
                    await serving
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)

    run(body())


def test_a_server_that_anybody_may_use_is_refused(
    fleet_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker refuses a server on another machine that asks for no login, unless it may be
    insecure. One on this machine is used."""
    monkeypatch.setattr("manager._remote.address._is_loopback", lambda server: False)
    with pytest.raises(DispatchError, match=r"asks for no login.*--insecure"):
        run(serve(fleet_url, {}))

    async def connect() -> None:
        serving = asyncio.create_task(serve(fleet_url, {}, insecure=True))
        assert not (await asyncio.wait((serving,), timeout=0.2))[0]
        serving.cancel()

    run(connect())


def test_a_server_that_can_t_be_reached_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that can't be reached is an error of the open, without the password in the URL."""
    monkeypatch.setattr("manager._remote.link._CONNECT_S", 0.2)
    with SubAgentManager.open(tmp_path, limits=Limits()) as manager:
        for url in ("nats://user:secret@127.0.0.1:1", "nats://127.0.0.1:1,127.0.0.1:2"):
            with pytest.raises(DispatchError, match=r"nats://127.0.0.1:1.*can't connect") as caught:
                Dispatcher.open(url, manager)
            assert "secret" not in str(caught.value)
        for url in ("http://host", "nats://", "nats://host/a.b", "host"):
            with pytest.raises(ValueError, match=r"address of a server|fleet's name"):
                Dispatcher.open(url, manager)


@pytest.mark.parametrize("who", ["manager", "worker"])
def test_a_server_that_is_lost_during_the_open_is_named(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that dies between the connection and the first subject is an error of the open."""
    monkeypatch.setattr("manager._remote.link._CONNECT_S", 1.0)
    to_serve = NatsLink.serve

    async def lost(link: NatsLink, *arguments: Any) -> None:
        server.kill()
        await to_serve(link, *arguments)

    monkeypatch.setattr(NatsLink, "serve", lost)
    with nats_servers(tmp_path) as ((server,), addresses):
        url = f"nats://{addresses}"
        with (
            SubAgentManager.open(tmp_path, limits=Limits()) as manager,
            pytest.raises(DispatchError, match=rf"{url}: can't serve within 1 s: no answer"),
        ):
            Dispatcher.open(url, manager) if who == "manager" else run(serve(url, {}))
