"""Servers that refuse, hang, answer nonsense or are lost, and credentials that are none."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from manager import DispatchError
from manager._remote import link
from manager._remote.address import Address
from manager._remote.link import NatsLink, UnansweredError
from tests.installed import import_package
from tests.mirror.servers import make_certificate, nats_server
from tests.remote.network import run
from tests.support import TIMEOUT_S

import_package("nats")

Talk = Callable[[socket.socket], None]
LIMIT_S = 6.0  # of each call that a server may hold up


def greeting(**fields: object) -> bytes:
    known = {"server_id": "x", "version": "2.12.0", "headers": True, "max_payload": 1 << 20}
    return b"INFO " + json.dumps(known | fields).encode() + b"\r\n"


def serve(connection: socket.socket, first: bytes = b"", **fields: object) -> None:
    """Answer a client as a server does that has nothing for it. After its login, send `first`."""
    connection.sendall(greeting(**fields))
    for line in connection.makefile("rb"):
        if line.startswith(b"PING"):
            connection.sendall(b"PONG\r\n" + first)
            first = b""


def hang(connection: socket.socket) -> None:
    """Send nothing, and take only what fits into the buffers of the system."""
    threading.Event().wait(TIMEOUT_S)


def end_after_login(connection: socket.socket) -> None:
    """Greet a client, and end the connection at its login."""
    connection.sendall(greeting())
    connection.recv(1 << 12)
    connection.shutdown(socket.SHUT_RDWR)


def hang_in_tls(connection: socket.socket) -> None:
    """Promise TLS, and say nothing more."""
    connection.sendall(greeting(tls_required=True))
    hang(connection)


def deafen(connection: socket.socket) -> None:
    """Greet a client, and take nothing more."""
    connection.sendall(greeting())
    connection.recv(1 << 12)
    connection.sendall(b"PONG\r\n")
    hang(connection)


@contextmanager
def server(*talks: Talk) -> Iterator[tuple[str, list[int]]]:
    """Run a server whose connections do what `talks` says, one each, and the last one from then on.
    Yield its address, and a list to which each connection appends."""
    connections: list[int] = []
    opened: list[socket.socket] = []

    def talk(connection: socket.socket, number: int) -> None:
        with suppress(OSError):
            talks[min(number, len(talks) - 1)](connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                opened.append(connection)
                number = len(connections)
                connections.append(number)
                threading.Thread(target=talk, args=(connection, number), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", connections
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in opened:
                connection.close()


async def connected(*addresses: str, **options: Any) -> NatsLink:
    return await NatsLink.connect(Address.of(f"nats://{','.join(addresses)}"), inbox="w", **options)


async def until_connected(made: NatsLink, connections: list[int], count: int) -> None:
    while not (made.is_connected and len(connections) >= count):
        await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def short_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_CLOSE_S", 0.5)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up soon on a server that does not answer while the client connects."""
    monkeypatch.setattr(link, "_CONNECT_S", 0.6)
    monkeypatch.setattr(link, "_SERVER_S", 0.3)


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize(
    ("talk", "text"),
    [
        pytest.param(lambda c: c.sendall(b"INFO []\r\n"), "attribute", id="a greeting of no kind"),
        pytest.param(lambda c: c.sendall(b"x" * 200_000), "exceed", id="an endless line"),
        pytest.param(lambda c: c.sendall(greeting(connect_urls=["[:"])), "URL", id="a bad URL"),
        pytest.param(end_after_login, "closed", id="an end after the login"),
        pytest.param(hang_in_tls, "no answer", id="no TLS"),
        pytest.param(hang, "no answer", id="nothing"),
    ],
)
def test_a_server_that_does_not_greet_is_an_error(talk: Talk, text: str) -> None:
    """Whatever a server says or leaves out, the connection fails with DispatchError in time."""

    async def body() -> None:
        async with asyncio.timeout(LIMIT_S):
            with pytest.raises(DispatchError, match=f"can't connect within 0.6 s: .*{text}"):
                await connected(address)

    with server(talk) as (address, _):
        run(body())


@pytest.mark.usefixtures("short_waits")
@pytest.mark.parametrize("lost", [hang, hang_in_tls])
def test_another_server_is_used_in_time(lost: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never answers leaves time for the next one in the address."""
    monkeypatch.setattr(link, "_SERVER_S", 1.5)
    monkeypatch.setattr("nats.aio.client.shuffle", lambda pool: None)

    async def body() -> None:
        await (await connected(first, second)).close()

    with server(lost) as (first, _), server(serve) as (second, connections):
        run(body())
    assert len(connections) == 1


@pytest.mark.parametrize(
    "first", ["User Authentication Expired", "Authorization Violation", "Maximum Payload Violation"]
)
def test_a_connection_that_the_server_ends_is_made_again(first: str) -> None:
    """A client whose login expired, or whose server refuses a message, connects again."""

    async def body() -> None:
        made = await connected(address)
        await until_connected(made, connections, 2)
        await made.close()

    error = f"-ERR '{first}'\r\n".encode()
    with server(lambda c: serve(c, error), serve) as (address, connections):
        run(body())


def test_a_link_connects_again_after_nonsense() -> None:
    """A server that answers nonsense after a restart is tried again, until it greets."""

    async def body() -> None:
        made = await connected(address)
        await until_connected(made, connections, 3)
        await made.close()

    with server(
        lambda c: serve(c, b"-ERR 'Stale Connection'\r\n"),
        lambda c: c.sendall(b"INFO []\r\n"),
        serve,
    ) as (address, connections):
        run(body())


async def ask_in_vain(made: NatsLink, count: int) -> None:
    """Make requests that fill the buffers of the system. Each must end soon after its time."""

    async def ask() -> None:
        with pytest.raises(UnansweredError):
            await made.ask("f.manager.beat.w.1", b"x" * (1 << 20), 0.2)

    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*(ask() for _ in range(count)))


def test_a_server_that_takes_nothing_holds_up_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests to a server that hangs end in time, and so does the change to another server."""
    monkeypatch.setattr(link, "_FLUSH_S", 0.2)
    monkeypatch.setattr("nats.aio.client.shuffle", lambda pool: None)

    async def body() -> None:
        made = await connected(first, second)
        await ask_in_vain(made, 40)
        await made._client._process_op_err(ConnectionError())  # as after pings without an answer
        async with asyncio.timeout(LIMIT_S):
            await until_connected(made, connections, 1)
        await made.close()

    with server(deafen) as (first, _), server(serve) as (second, connections):
        run(body())


def test_a_server_that_takes_nothing_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the service and the close take a moment, even if a server hangs."""
    monkeypatch.setattr(link, "_FLUSH_S", 0.2)

    async def body() -> None:
        made = await connected(address)
        made._services += [SimpleNamespace(stop=made._client.flush)]
        await ask_in_vain(made, 20)
        async with asyncio.timeout(LIMIT_S):
            await made.stop_serving()
            await made.close()

    with server(deafen) as (address, _):
        run(body())


def test_a_server_that_hangs_for_a_while_is_not_reached(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that answers no ping is not reached, although its connection is open. When it goes
    on, it is reached again at once, and its late answers are no error."""
    monkeypatch.setattr(link, "_FLUSH_S", 0.2)
    go_on = threading.Event()

    def pause(connection: socket.socket) -> None:
        connection.sendall(greeting())
        lines = connection.makefile("rb")
        for number, _ in enumerate(line for line in lines if line.startswith(b"PING")):
            if number == 1:
                go_on.wait(TIMEOUT_S)
            connection.sendall(b"PONG\r\n")

    async def body() -> None:
        made = await connected(address)
        assert not await made.reaches_server()
        assert made.is_connected
        go_on.set()
        assert await made.reaches_server()
        assert not caplog.records
        await made.close()

    with server(pause) as (address, connections):
        run(body())
    assert len(connections) == 1


def test_no_login_is_sent_to_a_server_that_does_not_encrypt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Unless it may be insecure, a server on another machine that does not encrypt gets no
    password, neither at first nor after another one was lost."""
    monkeypatch.setattr("manager._remote.address._is_loopback", lambda server: False)
    said: list[bytes] = []

    def leave(connection: socket.socket) -> None:
        connection.sendall(greeting(auth_required=True))
        connection.recv(1 << 12)
        connection.sendall(b"PONG\r\n")
        ready.wait(TIMEOUT_S)
        connection.shutdown(socket.SHUT_RDWR)

    def listen(connection: socket.socket) -> None:
        connection.sendall(greeting(auth_required=True))
        said.append(connection.recv(1 << 12))

    async def first() -> None:
        with pytest.raises(DispatchError, match=r"does not encrypt.*--insecure"):
            await connected(address, insecure=False)

    async def later() -> None:
        made = await connected(address, insecure=True)  # instead of one that encrypts
        made._client.is_strict = True
        ready.set()
        while len(connections) < 3:  # the second attempt to connect again follows the first
            await asyncio.sleep(0.01)
        assert not made.is_connected
        await made.close()

    ready = threading.Event()
    with server(listen) as (address, _):
        run(first())
    with server(leave, listen) as (address, connections):
        run(later())
    assert not any(said)


def test_no_login_is_sent_unencrypted_to_a_tls_address() -> None:
    """A server that does not encrypt is refused if the URL asks for TLS, and gets no password."""
    said: list[bytes] = []

    def listen(connection: socket.socket) -> None:
        connection.sendall(greeting(auth_required=True))
        said.append(connection.recv(1 << 12))

    async def body() -> None:
        with pytest.raises(DispatchError, match="does not encrypt"):
            await NatsLink.connect(Address.of(f"tls://w:secret@{address}"), inbox="w")

    with server(listen) as (address, _):
        run(body())
    assert not any(said)


SEED = "-----BEGIN USER NKEY SEED-----\nSUAB\n------END USER NKEY SEED------\n"
JWT = "-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n"


@pytest.mark.parametrize("text", ["", "hello\n", SEED, JWT])
def test_a_file_without_credentials_is_an_error(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that lacks the token or the key of a user is named."""
    key = SimpleNamespace(sign=bytes, wipe=lambda: None)
    monkeypatch.setitem(sys.modules, "nkeys", SimpleNamespace(from_seed=lambda seed: key))
    path = tmp_path / "worker.creds"

    async def connect() -> NatsLink:
        return await connected(address, credentials=str(path))

    async def body() -> None:
        path.write_text(JWT + SEED)
        await (await connect()).close()
        path.write_text(text)
        with pytest.raises(DispatchError, match=r"worker.creds: .*credentials"):
            await connect()

    with server(lambda c: serve(c, nonce="n", auth_required=True)) as (address, _):
        run(body())


def test_the_end_of_an_encrypted_connection_is_not_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio warns of a protocol that was not told of its TLS, at each end of a connection."""
    certificate, tls = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def body() -> None:
        made = await NatsLink.connect(Address.of(f"tls://{address}"), inbox="w")
        stopping.close()
        while made.is_connected:
            await asyncio.sleep(0.01)
        await made.close()

    with ExitStack() as stopping:
        address = stopping.enter_context(nats_server(tmp_path, more=tls))
        run(body())
    assert not caplog.records
