"""Connecting to the servers of a fleet."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from manager import DispatchError
from manager._remote import link
from manager._remote.address import Address
from tests.installed import import_package
from tests.mirror.servers import losing_a_cancellation

import_package("nats")


@pytest.mark.parametrize("is_mute", [False, True])
def test_a_connection_whose_cancellation_is_lost_is_given_up(
    is_mute: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout ends an attempt to connect at its next error, even if `asyncio.wait_for` loses the
    cancellation, as it may before Python 3.12."""
    monkeypatch.setattr(link, "_CONNECT_S", 0.5)
    with (
        losing_a_cancellation(monkeypatch, is_mute=is_mute) as (address, attempts),
        pytest.raises(DispatchError, match="can't connect"),
    ):
        asyncio.run(link.NatsLink.connect(Address.of(f"nats://{address}"), inbox="worker"))
    assert len(attempts) == 1


@pytest.mark.parametrize(
    ("missing", "run"),
    [("nats", "pip install 'journal-engine[nats]'"), ("nkeys", "pip install 'nats-py[nkeys]'")],
)
def test_a_missing_package_is_named(
    missing: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a package that the connection needs, the error says how to install it."""
    monkeypatch.setitem(sys.modules, missing, None)
    address = Address.of("nats://127.0.0.1:1")
    connecting = link.NatsLink.connect(address, inbox="worker", credentials="worker.creds")
    with pytest.raises(ImportError, match=re.escape(f"run: {run}")):
        asyncio.run(connecting)


def test_a_task_that_is_cancelled_as_it_has_connected_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancellation that is lost as the client connects ends the task, and closes the client."""
    import nats.aio.client

    closed = []

    async def connect(*_: object, **__: object) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async def close(client: Any) -> None:
        closed.append(client)

    async def main() -> None:
        connecting = link.NatsLink.connect(Address.of("nats://127.0.0.1:1"), inbox="worker")
        task = asyncio.create_task(connecting)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()

    monkeypatch.setattr(nats.aio.client.Client, "connect", connect)
    monkeypatch.setattr(nats.aio.client.Client, "close", close)
    asyncio.run(main())
    assert len(closed) == 1


def test_a_task_that_was_cancelled_before_may_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that went on after a cancellation gets the error of a connection that is refused."""
    monkeypatch.setattr(link, "_CONNECT_S", 0.1)

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        await link.NatsLink.connect(Address.of("nats://127.0.0.1:1"), inbox="worker")

    with pytest.raises(DispatchError, match="can't connect"):
        asyncio.run(main())


@pytest.mark.parametrize("is_answered", [False, True])
def test_a_task_that_is_cancelled_as_its_answer_comes_ends(is_answered: bool) -> None:
    """A cancellation that comes with the answer to a request, or with its refusal, is not lost, so
    a worker that is stopped does not go on."""

    async def main() -> None:
        async def request(*_: object, timeout: float) -> Any:
            loop, answered = asyncio.get_running_loop(), asyncio.Future[Any]()
            if is_answered:
                loop.call_soon(answered.set_result, SimpleNamespace(data=b""))
            else:
                loop.call_soon(answered.set_exception, OSError("no servers"))
            loop.call_soon(task.cancel)
            return await asyncio.wait_for(answered, timeout)

        asking = link.NatsLink(SimpleNamespace(request=request)).ask("subject", b"", 9)
        task = asyncio.create_task(asking)
        await asyncio.wait((task,))
        assert task.cancelled()

    asyncio.run(main())
