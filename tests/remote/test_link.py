"""Connecting to the servers of a fleet."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from manager import DispatchError
from manager._remote import link
from manager._remote.address import Address
from tests.installed import import_package

import_package("nats")


def test_a_connection_that_loses_a_cancellation_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A timeout ends a client that goes on connecting after it was cancelled once."""
    import nats.aio.client

    async def connect(*_: object, **__: object) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        await asyncio.sleep(60)

    monkeypatch.setattr(nats.aio.client.Client, "connect", connect)
    monkeypatch.setattr(link, "_CONNECT_S", 0.05)
    connecting = link.NatsLink.connect(Address.of("nats://127.0.0.1:1"), inbox="worker")
    with pytest.raises(DispatchError, match="can't connect"):
        asyncio.run(asyncio.wait_for(connecting, 5))
