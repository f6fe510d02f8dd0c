"""The address of a fleet's servers: its parts, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from journal.testing import SimulatedDisk
from manager import Dispatcher, SubAgentManager, serve
from manager._remote.address import Address


@pytest.mark.parametrize(
    ("url", "expected", "is_loopback"),
    [
        ("nats://localhost", (("nats://localhost",), "subagents", None, None), True),
        ("nats://[::1]:4222/blue", (("nats://[::1]:4222",), "blue", None, None), True),
        (
            "tls://a,127.0.0.1:1,",
            (("tls://a", "tls://127.0.0.1:1"), "subagents", None, None),
            False,
        ),
        ("nats://me:p%40s@h/B-1_x/", (("nats://h",), "B-1_x", "me", "p@s"), False),
        ("nats://token@h", (("nats://h",), "subagents", "token", None), False),
        ("nats://me:@h", (("nats://h",), "subagents", "me", ""), False),
    ],
)
def test_an_address_has_servers_a_fleet_and_a_login(
    url: str, expected: tuple[object, ...], is_loopback: bool
) -> None:
    """A URL names the servers, and perhaps a fleet, a user and a password."""
    address = Address.of(url)
    assert address == expected
    assert address.is_loopback is is_loopback


@pytest.mark.parametrize(
    "url",
    ["", "host", "http://host", "nats:///x", "nats://", "nats://me:secret@", "nats://me:secret@,"],
)
def test_an_address_without_servers_is_refused(url: str) -> None:
    """A URL that names no server is refused, and the message does not show the password."""
    with pytest.raises(ValueError, match="is not the address of a server") as refused:
        Address.of(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", [None, 5, b"nats://host", ["nats://host"]])
def test_a_url_is_a_string(url: Any) -> None:
    """Each call that takes the URL of a fleet refuses anything else, and names the argument."""
    rule = f"^url must be a string, not {type(url).__name__}$"
    with pytest.raises(TypeError, match=rule):
        asyncio.run(serve(url, {}))
    with (
        SubAgentManager.open("/", state_dir="s", disk=SimulatedDisk()) as manager,
        pytest.raises(TypeError, match=rule),
    ):
        Dispatcher.open(url, manager)


@pytest.mark.parametrize("lease_s", [0.09, 86_401, float("inf"), float("nan")])
def test_a_lease_that_no_worker_takes_is_refused(manager: SubAgentManager, lease_s: float) -> None:
    """A worker refuses answers with leases of more than a day, so a dispatcher does not begin to
    give such leases, whose agents nobody would run."""
    rule = f"lease_s must be a number of seconds, at least 0.1 and at most 86400, not {lease_s}"
    with pytest.raises(ValueError, match=rule):
        Dispatcher.open("nats://127.0.0.1:1", manager, lease_s=lease_s)


@pytest.mark.parametrize("manager", [None, "fleet", SubAgentManager])
def test_a_dispatcher_without_a_manager_is_refused(manager: Any) -> None:
    """`Dispatcher.open` refuses an object that is no manager, and names the argument."""
    with pytest.raises(TypeError, match=r"^manager must be a SubAgentManager, not "):
        Dispatcher.open("nats://127.0.0.1", manager)
