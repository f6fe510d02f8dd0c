"""The example of an HTTP service: killed under load, stopped, and on a disk that fails."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from journal import DurableState, FailedError
from journal.testing import Owner, SimulatedDisk, explore
from tests.examples.examples_support import started
from tests.installed import import_package
from tests.support import TIMEOUT_S, line_of

import_package("aiohttp")

from aiohttp.test_utils import TestClient, TestServer  # noqa: E402

from journal.docs.examples.service import Payments, Service  # noqa: E402

CLIENTS = 8
PAYMENTS = 400


def call(port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Send a request. Return the status and the decoded reply."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def port_of(process: subprocess.Popen[str]) -> int:
    return int(line_of(process).removeprefix("ready at port "))


def pay_until_refused(port: int, numbers: list[int], enough: Callable[[int], None]) -> list[int]:
    """Make each payment, until the service is gone. Return those that got a reply."""
    made = []
    for number in numbers:
        try:
            status, _ = call(port, "PUT", f"/payments/{number}", {"account": "a", "cents": number})
        except OSError:
            break
        assert status == 200
        made.append(number)
        enough(number)
    return made


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_the_service_survives_sigkill(tmp_path: Path, kills: int) -> None:
    """P2: However often the process is killed, each payment that got a reply is there once."""
    left, made = {*range(1, PAYMENTS + 1)}, 0
    for kill in range(kills):
        with started("service.py", tmp_path, "payments.d", 0) as process:
            port, struck = port_of(process), Event()

            def strike(number: int, process: Any = process, struck: Event = struck) -> None:
                if number % 67 == 0 and not struck.is_set():
                    struck.set()
                    process.kill()

            numbers = sorted(left)
            with ThreadPoolExecutor(CLIENTS) as pool:
                done = pool.map(
                    lambda mine, port=port, strike=strike: pay_until_refused(port, mine, strike),
                    [numbers[client::CLIENTS] for client in range(CLIENTS)],
                )
                acknowledged = {number for numbers in done for number in numbers}
        left -= acknowledged
        made += sum(acknowledged)
        assert acknowledged or kill
    with started("service.py", tmp_path, "payments.d", 0) as process:
        port = port_of(process)
        _, reply = call(port, "GET", "/accounts/a")
        assert made <= reply["cents"] <= PAYMENTS * (PAYMENTS + 1) // 2
        for number in range(1, PAYMENTS + 1):
            body = {"account": "a", "cents": number}
            status, reply = call(port, "PUT", f"/payments/{number}", body)
            assert status == 200
            assert number in left or not reply["is_new"]
        assert call(port, "GET", "/accounts/a") == (200, {"cents": PAYMENTS * (PAYMENTS + 1) // 2})
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out, err) == (0, "", "")


def in_loop(test: Callable[[Service, TestClient[Any, Any]], Awaitable[None]]) -> None:
    """Run a test with a service that has no state yet."""

    async def run() -> None:
        service = Service()
        async with TestClient(TestServer(service.app())) as client:
            try:
                await asyncio.wait_for(test(service, client), TIMEOUT_S)
            finally:
                if service.state:
                    try:
                        await asyncio.to_thread(service.state.close)
                    except FailedError:
                        assert service.stopping.is_set()

    asyncio.run(run())


def opened(disk: SimulatedDisk) -> DurableState[Payments]:
    return DurableState.open("/payments", Payments(), disk=disk)


def test_the_service_is_ready_once_its_state_is_open() -> None:
    """Before the state is open, `/live` replies with 200, and everything else with 503."""
    disk = SimulatedDisk()

    async def run_requests(service: Service, client: TestClient[Any, Any]) -> None:
        assert (await client.get("/live")).status == 200
        assert (await client.get("/ready")).status == 503
        body = {"account": "a", "cents": 1}
        assert (await client.put("/payments/1", json=body)).status == 503
        service.state = await asyncio.to_thread(opened, disk)
        assert (await client.get("/ready")).status == 200

    in_loop(run_requests)


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[]",
        b"{}",
        b'{"account": "a"}',
        b'{"account": 1, "cents": 1}',
        b'{"account": "a", "cents": true}',
        b'{"account": "a", "cents": 1.5}',
        b'{"account": "a", "cents": 36893488147419103232}',
        b'{"account": "\\ud800", "cents": 1}',
    ],
)
def test_a_bad_payment_is_refused(body: bytes) -> None:
    """A payment that is malformed, or that no record can hold, gets 400 and changes nothing."""
    disk = SimulatedDisk()

    async def run_requests(service: Service, client: TestClient[Any, Any]) -> None:
        service.state = await asyncio.to_thread(opened, disk)
        assert (await client.put("/payments/1", data=body)).status == 400
        assert not service.state.machine.payments
        assert not service.stopping.is_set()
        assert (await client.get("/ready")).status == 200

    in_loop(run_requests)


def test_an_id_belongs_to_one_payment() -> None:
    """A repeated payment is not made again, and another one with its id is refused."""
    disk = SimulatedDisk()

    async def run_requests(service: Service, client: TestClient[Any, Any]) -> None:
        service.state = await asyncio.to_thread(opened, disk)
        for cents, status in ((1, 200), (1, 200), (2, 409)):
            body = {"account": "a", "cents": cents}
            assert (await client.put("/payments/1", json=body)).status == status
        assert service.state.machine.cents == {"a": 1}

    in_loop(run_requests)


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "application/json; charset=none"}, b"{}"),
        ({"Content-Encoding": "gzip"}, b"no gzip"),
        ({}, b"[" * 100_000),
    ],
)
def test_a_body_that_cannot_be_decoded_is_refused(headers: dict[str, str], body: bytes) -> None:
    """An unknown charset, a broken compression and a deep nesting are the client's fault."""
    disk = SimulatedDisk()

    async def run_requests(service: Service, client: TestClient[Any, Any]) -> None:
        service.state = await asyncio.to_thread(opened, disk)
        assert (await client.put("/payments/1", data=body, headers=headers)).status == 400

    in_loop(run_requests)


def test_the_service_stops_when_the_disk_fails() -> None:
    """After a failed sync, every request gets 503, and the service stops with the error."""
    disk = SimulatedDisk()

    async def run_requests(service: Service, client: TestClient[Any, Any]) -> None:
        service.state = await asyncio.to_thread(opened, disk)
        body = {"account": "a", "cents": 1}
        assert (await client.put("/payments/1", json=body)).status == 200
        disk.fail("sync", errno.EIO)
        assert (await client.put("/payments/2", json=body)).status == 503
        assert service.stopping.is_set()
        for path in ("/ready", "/accounts/a"):
            assert (await client.get(path)).status == 503

    in_loop(run_requests)
    with opened(SimulatedDisk.holding("/payments", disk.contents("/payments"))) as state:
        assert state.machine.cents["a"] >= 1


def test_no_crash_breaks_a_promise_of_the_payments() -> None:
    """P1 to P6: The machine keeps the six rules, in every crash of a workload."""

    def calls(owner: Owner[Payments]) -> None:
        owner.append({"id": "1", "account": "a", "cents": 5})
        owner.wait()
        owner.append({"id": "2", "account": "a", "cents": -3})
        owner.compact()
        owner.reopen()

    assert explore(Payments, calls).states > 500
