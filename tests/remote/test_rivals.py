"""Several managers at the address of one fleet: one of them serves, and the others say why not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from journal.testing import SimulatedDisk
from manager import Dispatcher, DispatchError, SubAgentManager
from manager._remote import messages
from manager._remote.rivals import Rivals
from tests.remote.fleets import World, echo, queue, run
from tests.support import until


def beside(world: World, disk: SimulatedDisk | None = None) -> World:
    """Return another manager on the same network, of the journal on `disk` or of a new one."""
    other = World()
    other.network = world.network
    if disk is None:
        other.disk.new_id()  # the first id is that of the other journal
    else:
        other.disk = disk
    return other


async def alone(rivals: Rivals) -> None:
    """Hear of no other manager."""


async def begin_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open a manager that has asked for others before they began."""
    with monkeypatch.context() as patch:
        patch.setattr(Rivals, "check", alone)
        await world.open()


async def error_of(world: World) -> str:
    """Return the error with which a manager soon ceases to serve, and close it."""
    with pytest.raises(DispatchError) as caught:
        async with asyncio.timeout(20):
            await world._serving
    await world.link.close()
    world.manager.close()
    return str(caught.value)


async def cut_off(world: World, seconds: float) -> None:
    """Cut a manager off the network for some time."""
    world.link.is_connected = False
    await asyncio.sleep(seconds)
    world.link.is_connected = True


async def ended(world: World, name: str) -> None:
    """Wait until an agent has run, once and soon."""
    queue(world, name)
    agent = await world.ended(name, 10)
    assert (agent.status, agent.starts) == ("completed", 1)


@pytest.mark.parametrize("kind", ["a copy of this journal", "another journal"])
def test_a_second_manager_is_refused(kind: str) -> None:
    """While a manager serves a fleet, one of another journal, or of a copy of its journal, is
    refused. The first one goes on, and another one may begin once it has ended."""

    async def body(world: World) -> None:
        await world.kill_manager()
        copy = SimulatedDisk(world.disk.snapshot()) if kind.startswith("a copy") else None
        await world.open()
        second = beside(world, copy)
        with pytest.raises(DispatchError, match=f"{kind} already serves the fleet 'f', on machine"):
            await second.open()
        second.manager.close()
        world.work({"t": echo})
        await ended(world, "a")
        await world.kill_manager()
        await second.open()
        await ended(second, "b")
        await second.kill_manager()
        await world.open()

    run(body)


def test_of_two_that_serve_the_younger_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """If two managers have begun without hearing of each other, the one that has served for less
    time ends, whichever asks first. The agents of the other one run."""

    async def body(world: World) -> None:
        for delay_s in (2, 4, 6):
            await asyncio.sleep(delay_s)
            younger = beside(world)
            await begin_at_once(younger, monkeypatch)
            assert "another journal already serves the fleet" in await error_of(younger)
        world.work({"t": echo})
        await ended(world, "a")

    run(body)


def test_of_two_whose_claims_cross_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two managers that have begun at once ask at once, too, and each is older when it hears of the
    other than the other was when it asked. One of them goes on all the same."""

    async def body(world: World) -> None:
        world.network.claim_s = 0.01
        other = beside(world)
        await begin_at_once(other, monkeypatch)
        worlds = [world, other]
        await asyncio.wait([each._serving for each in worlds], return_when="FIRST_COMPLETED")
        await asyncio.sleep(20)
        (goes_on,) = [each for each in worlds if not each._serving.done()]
        (ends,) = [each for each in worlds if each is not goes_on]
        assert "another journal already serves the fleet" in await error_of(ends)
        goes_on.work({"t": echo})
        await ended(goes_on, "a")
        if goes_on is other:
            await other.kill_manager()
            await world.open()

    run(body)


def test_a_manager_that_was_cut_off_yields() -> None:
    """A manager that had no connection ends once it hears of another one that has served since."""

    async def body(world: World) -> None:
        await asyncio.sleep(100)
        cut = asyncio.create_task(cut_off(world, 20))
        await asyncio.sleep(10)
        second = beside(world)
        await second.open()
        await cut
        assert "another journal already serves the fleet" in await error_of(world)
        second.work({"t": echo})
        await ended(second, "a")
        await second.kill_manager()
        await world.open()

    run(body)


def test_a_newer_manager_of_the_journal_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A manager that hears of one with a newer epoch of its journal ends, however long it has
    served."""

    async def body(world: World) -> None:
        await asyncio.sleep(100)
        newer = beside(world, SimulatedDisk(world.disk.snapshot()))
        newer.disk.kill()
        await newer.open()
        assert "a newer manager of this journal has taken over" in await error_of(world)
        newer.work({"t": echo})
        await ended(newer, "a")
        await newer.kill_manager()
        await world.open()

    run(body)


def test_a_malformed_claim_changes_nothing() -> None:
    """A claim with a missing or false field gets no answer, and ends no manager."""

    async def body(world: World) -> None:
        claim = {"manager": "zz", "machine": "m", "served_s": 1e9, "journal": "x", "epoch": 1}
        for name in claim:
            for value in ("\0" if name == "epoch" else 7, None, float("nan"), -1):
                data = messages.pack({**claim, name: value})
                if name != "served_s" or value not in (7, None):
                    assert world.network.listeners[0][1](data) is None
        assert world.network.listeners[0][1](b"\xc1") is None
        await asyncio.sleep(10)
        world.work({"t": echo})
        await ended(world, "a")

    run(body)


def test_a_second_dispatcher_is_refused_by_a_real_server(tmp_path: Path, fleet_url: str) -> None:
    """`Dispatcher.open` raises while another journal's dispatcher is open, and not afterwards."""
    with (
        SubAgentManager.open(tmp_path, state_dir="a") as first,
        SubAgentManager.open(tmp_path, state_dir="b") as second,
    ):
        with Dispatcher.open(fleet_url, first):
            with pytest.raises(DispatchError, match="another journal already serves the fleet"):
                Dispatcher.open(fleet_url, second)
            Dispatcher.open(f"{fleet_url}-b", second).close()
        Dispatcher.open(fleet_url, second).close()


def test_of_two_dispatchers_on_a_real_server_one_ends(
    tmp_path: Path, fleet_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dispatcher that has begun beside another one ends, and `error` says why."""
    monkeypatch.setattr("manager._remote.rivals._CLAIM_S", 0.1)
    monkeypatch.setattr("manager._remote.rivals._EQUAL_S", 0.0)
    with (
        SubAgentManager.open(tmp_path, state_dir="a") as first,
        SubAgentManager.open(tmp_path, state_dir="b") as second,
        Dispatcher.open(fleet_url, first) as older,
    ):
        ask = Rivals.check
        monkeypatch.setattr(Rivals, "check", alone)
        with Dispatcher.open(fleet_url, second) as younger:
            monkeypatch.setattr(Rivals, "check", ask)
            until(lambda: younger.closed, "the younger dispatcher has ended")
            assert "another journal already serves the fleet" in str(younger.error)
            assert not older.closed
