"""The configuration of a NATS server on the page: who may do what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from textwrap import dedent

import pytest

from manager import Dispatcher, DispatchError, SubAgentManager, WorkContext, serve
from manager._remote import messages
from manager._remote.address import Address
from manager._remote.link import NatsLink, UnansweredError
from manager._remote.serving import run_station
from manager._remote.shelf import VERBS, Shelf
from manager._remote.station import Station
from manager.outputs import OutputDirectory, Part
from tests.installed import import_package
from tests.mirror.servers import nats_server
from tests.remote.network import run
from tests.support import TIMEOUT_S

import_package("nats")
PAGE = Path(__file__).resolve().parents[2] / "manager" / "docs" / "WORKERS.md"


def configuration() -> str:
    """Return the configuration on the page, with passwords, and with a second worker."""
    lines = PAGE.read_text().partition("    authorization {\n")[2].split("\n\n")[0]
    text = "authorization {\n" + dedent(f"{lines}\n")
    for name in ("MANAGER", "GPU1", "VIEWER"):
        assert f"${name}_PASSWORD" in text
        text = text.replace(f"${name}_PASSWORD", f"secret-{name.lower()}")
    begin, end = text.index("    {\n      user: gpu1"), text.index("    {\n      user: viewer")
    return text[:end] + text[begin:end].replace("gpu1", "gpu2") + text[end:]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_server(tmp_path_factory.mktemp("nats"), more=configuration()) as address:
        yield address


def url(address: str, user: str) -> str:
    return f"nats://{user}:secret-{user}@{address}"


async def echo(context: WorkContext) -> str:
    await context.checkpoint(1)
    return "done"


def test_manager_and_worker_need_no_other_subjects(tmp_path: Path, address: str) -> None:
    """With the page's configuration, agents run, and a cancellation reaches the worker."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(context: WorkContext) -> str:
        await context.checkpoint(1)
        begun.set()
        await context.cancelled.wait()
        cancelled.set()
        return "late"

    async def body() -> None:
        async with (
            SubAgentManager.aopen(tmp_path) as manager,
            # A heartbeat, of which the answer would cancel it, too, comes after the test's limit.
            Dispatcher.aopen(url(address, "manager"), manager, lease_s=10 * TIMEOUT_S),
        ):
            workers = {"t": echo, "u": wait}
            serving = asyncio.create_task(serve(url(address, "gpu1"), workers, name="gpu1"))
            manager.spawn("p", name="a", agent_type="t", queued=True)
            assert (await manager.ended("a")).result == "done"
            manager.spawn("p", name="b", agent_type="u", queued=True)
            await begun.wait()
            manager.cancel("b")
            await cancelled.wait()
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving

    run(body())


def test_output_needs_no_other_subjects(tmp_path: Path, address: str) -> None:
    """The page's configuration lets the manager read and remove the output on a worker."""
    part = Part("agent_0123456789ab", 1, "out", 0)

    async def body() -> None:
        with closing(OutputDirectory.open(str(tmp_path), write=True)) as directory:
            Path(directory.path, part.name).write_bytes(b"printed")
            link = await NatsLink.connect(Address.of(url(address, "gpu1")), inbox="gpu1")
            station = Station({"t": echo}, ["default"], 1)
            shelf = Shelf(directory)
            working = asyncio.create_task(
                run_station(station, link, "subagents", "gpu1.a1", shelf=shelf)
            )
            async with (
                SubAgentManager.aopen(tmp_path) as manager,
                Dispatcher.aopen(url(address, "manager"), manager),
            ):
                manager.spawn("p", name="a", agent_type="t", queued=True)
                await manager.ended("a")
                workers = manager._workers
                assert workers is not None
                known = {"worker": "gpu1.a1", "agent_id": part.owner, "start": 1, "stream": "out"}
                reply = await workers.output(**known, position=2)  # type: ignore[arg-type]
                assert reply == {"at": "gpu1.a1", "position": 2, "data": "aW50ZWQ="}
                workers.forget({part.owner: "gpu1.a1"}, 0)
                while directory.names():
                    await asyncio.sleep(0.01)
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working
            await link.close()

    run(body())


@pytest.mark.parametrize("user", ["gpu2", "viewer"])
def test_a_user_can_neither_act_as_another_nor_listen(
    user: str, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither another worker nor a viewer can ask as a worker, order a worker, answer as the
    manager, or read the inbox of another user."""
    monkeypatch.setattr("manager._remote.link._CONNECT_S", 1.0)

    async def body() -> None:
        async with (
            SubAgentManager.aopen(tmp_path) as manager,
            Dispatcher.aopen(url(address, "manager"), manager),
        ):
            link = await NatsLink.connect(Address.of(url(address, user)), inbox=user)
            heard: list[object] = []

            async def hear(message: object) -> None:
                heard.append(message)

            for subject in ("subagents.>", "_INBOX.>", "_INBOX.gpu1.>", "_INBOX.manager.>"):
                await link._client.subscribe(subject, cb=hear)
            beat = {"worker": "gpu1.a1", "journal": "", "epoch": 0, "held": []}
            data = messages.pack({**messages.versions(), **beat})
            to_worker = (f"subagents.worker.gpu1.a1.{verb}" for verb in ("stop", *VERBS))
            for subject in ("subagents.manager.beat.gpu1.a1", *to_worker):
                with pytest.raises(UnansweredError):
                    await link.ask(subject, data, 0.2)
            mine = {**beat, "worker": f"{user}.a1"}
            own = messages.pack({**messages.versions(), **mine})
            subject = f"subagents.manager.beat.{user}.a1"
            if user == "gpu2":  # each worker may speak for itself
                assert messages.unpack(await link.ask(subject, own, 5))["stop"] == []
            assert [m for m in heard if not str(m).count(f"_INBOX.{user}")] == []
            await link.close()

    run(body())


def test_a_wrong_login_is_refused(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manager and a worker with a wrong login, or none, get an error that names the server."""
    monkeypatch.setattr("manager._remote.link._CONNECT_S", 0.5)
    with SubAgentManager.open(tmp_path) as manager:
        for login in ("", "manager:wrong@", "token@"):
            with pytest.raises(DispatchError, match=r"(?i)can't connect.*authorization"):
                Dispatcher.open(f"nats://{login}{address}", manager)
    with pytest.raises(DispatchError, match=r"(?i)can't connect.*authorization"):
        run(serve(f"nats://gpu1:wrong@{address}", {}))


def test_a_login_that_may_not_serve_is_refused(tmp_path: Path, address: str) -> None:
    """A manager with the login of a worker, and a worker with the name of another, get an error
    that names the subject, instead of waiting for messages that never come."""
    with SubAgentManager.open(tmp_path) as manager:
        refused = r"may not publish to subagents\.manager\.claim"
        with pytest.raises(DispatchError, match=refused):
            Dispatcher.open(url(address, "gpu1"), manager)
    with pytest.raises(DispatchError, match=r"may not subscribe to subagents\.worker\.Gpu2\."):
        run(serve(url(address, "gpu1"), {}, name="Gpu2"))


def test_a_manager_that_may_not_look_for_others_is_refused(tmp_path: Path) -> None:
    """A manager whose login may not ask for other managers of its fleet gets an error that names
    the subject."""
    text = configuration().replace(', "subagents.manager.claim"', "")
    with (
        nats_server(tmp_path, more=text) as address,
        SubAgentManager.open(tmp_path) as manager,
        pytest.raises(DispatchError, match=r"may not publish to subagents\.manager\.claim"),
    ):
        Dispatcher.open(url(address, "manager"), manager)
