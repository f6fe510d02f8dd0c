"""JetStream behind a network that loses a request or an answer, or falls silent without an end."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from journal._mirror.jetstream_connection import JetStreamConnection
from journal._mirror.store import Store, UnreachableError
from journal._mirror.urls import open_store
from tests.installed import import_package
from tests.mirror.servers import make_stream, nats_server
from tests.support import TIMEOUT_S, until

_ANSWER_S = 0.2
_LIMIT_S = 3.0  # of a request


class Network:
    """A proxy before a server, whose connections lose what they are told to lose."""

    def __init__(self, server: str) -> None:
        self._host, _, port = server.partition(":")
        self._port = int(port)
        self._listener = socket.socket()
        self._listener.bind((self._host, 0))
        self._listener.listen()
        self.address = f"{self._host}:{self._listener.getsockname()[1]}"
        self.loses = b""  # a part of the next request to lose
        self.wrong = b"", b""  # a part of an answer, and what takes the answer's place
        self.ends = True  # after the wrong answer
        self.requests = b""  # all that was sent
        self.connections = 0
        self.brings_answers = threading.Event()
        self.brings_answers.set()
        self._sockets: list[socket.socket] = []
        self._is_silent: set[socket.socket] = set()
        self._over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Take nothing more from the connections that there are, and bring nothing."""
        self._is_silent.update(self._sockets)

    def cut(self) -> None:
        """End the connections that there are. Their answers are lost."""
        self.silence()
        self.brings_answers.set()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._over.set()
        self.brings_answers.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                server = socket.create_connection((self._host, self._port))
                self._sockets += [client, server]
                for pump in (self._send, self._answer):
                    threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 12):
                self.requests += data
                if client in self._is_silent:
                    self._over.wait()
                if self.loses and self.loses in data:
                    self.loses = b""
                else:
                    server.sendall(data)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                self.brings_answers.wait()
                if client in self._is_silent:
                    self._over.wait()
                part, instead = self.wrong
                if part and part in data:
                    if not self.ends:
                        self._is_silent.add(client)
                    client.sendall(instead)
                    if self.ends:
                        client.shutdown(socket.SHUT_WR)
                else:
                    client.sendall(data)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    import_package("nats")
    for module in ("jetstream_client", "jetstream_store"):
        monkeypatch.setattr(f"journal._mirror.{module}._ANSWER_S", _ANSWER_S)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with nats_server(tmp_path) as address:
        make_stream(address, "APP")
        with closing(Network(address)) as network:
            yield network


@pytest.fixture
def store(network: Network) -> Iterator[Store]:
    """Yield a store with entries and a blob."""
    with closing(open_store(f"nats://{network.address}/APP", timeout_s=_LIMIT_S)) as store:
        for number in range(1, 6):
            store.append(number, b"x")
        store.put_blob("b", [b"blob"])
        yield store


@pytest.mark.parametrize(
    ("read", "request_", "answer"),
    [
        (lambda store: store.entry(1), b"API.STREAM.MSG.GET.APP", b"x"),
        (lambda store: store.last(0), b"API.STREAM.INFO.APP", 5),
        (lambda store: store.numbers(0), b"API.CONSUMER.CREATE.APP", [1, 2, 3, 4, 5]),
        (lambda store: store.blob_names(), b"API.STREAM.MSG.GET.OBJ_APP-blobs", ["b"]),
        (lambda store: store.blob_names(), b"API.CONSUMER.CREATE.OBJ_APP-blobs", ["b"]),
        (lambda store: store.blob_names(), b"API.CONSUMER.DELETE.OBJ_APP-blobs", ["b"]),
    ],
)
def test_a_lost_request_is_made_again(
    read: Callable[[Store], object], request_: bytes, answer: object, store: Store, network: Network
) -> None:
    """A read succeeds although one of its requests was lost, as with the leader of a stream."""
    network.loses = request_
    assert read(store) == answer
    assert not network.loses


def test_a_list_of_a_replica_that_lags_behind_is_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that lacks a blob that the leader has is an error: it could pass for a lost blob."""

    async def nothing(*_: object, **__: object) -> list[object]:
        return []

    monkeypatch.setattr(store, "_list", nothing)
    with pytest.raises(UnreachableError, match="lags behind"):
        store.blob_names()


def test_a_strange_note_of_a_blob_is_an_error_of_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message beside the notes of blobs, which another program has written there, raises what a
    caller of the store expects."""
    place = SimpleNamespace(sequence=SimpleNamespace(stream=10**6))

    async def strange(*_: object, **__: object) -> list[object]:
        return [SimpleNamespace(data=b"{}", metadata=place)]

    monkeypatch.setattr(store, "_list", strange)
    with pytest.raises(UnreachableError, match="list blobs"):
        store.blob_names()


@pytest.mark.parametrize(
    ("read", "request_", "answer"),
    [
        (lambda store: store.entry(1), b"API.STREAM.MSG.GET.APP", b"x"),
        (lambda store: store.numbers(0), b"API.CONSUMER.CREATE.APP", [1, 2, 3, 4, 5]),
    ],
)
def test_a_slow_answer_is_waited_for(
    read: Callable[[Store], object], request_: bytes, answer: object, store: Store, network: Network
) -> None:
    """A request whose answer is on its way is not made again: a slow network would bring both."""
    with ThreadPoolExecutor(1) as pool:
        network.requests = b""
        network.brings_answers.clear()
        found = pool.submit(read, store)
        until(lambda: b"PING" in network.requests, "the client asks whether the server answers")
        network.brings_answers.set()
        assert found.result(TIMEOUT_S) == answer
    assert network.requests.count(request_) == 1


def test_a_request_is_made_again_on_a_new_connection(store: Store, network: Network) -> None:
    """A connection that is lost while an answer may be on its way brings none, so the request is
    made again."""
    with ThreadPoolExecutor(1) as pool:
        network.requests = b""
        network.brings_answers.clear()
        entry = pool.submit(store.entry, 1)
        until(lambda: b"PING" in network.requests, "the client asks whether the server answers")
        network.cut()
        assert entry.result(TIMEOUT_S) == b"x"


@pytest.mark.parametrize(
    ("part", "instead"),
    [
        (b"INFO", b""),
        (b"INFO", b"INFO []\r\n"),
        (b"INFO", b'INFO {"tls_required": true}\r\n'),
        (b"PONG", b""),
    ],
)
def test_a_connection_that_is_lost_at_its_beginning_is_ended(
    part: bytes, instead: bytes, store: Store, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that fails during its greeting is closed before the next one is made. Python
    warns of one that was not."""
    network.wrong = part, instead
    before = network.connections
    network.cut()
    until(lambda: network.connections > before + 2, "the client has tried again")
    network.wrong = b"", b""
    assert store.entry(1) == b"x"
    gc.collect()
    assert not caplog.records


def test_a_request_outlasts_failed_connections(store: Store, network: Network) -> None:
    """A request that is made while no connection succeeds is answered by the next one that does."""
    network.wrong = b"INFO", b"INFO []\r\n"
    network.cut()
    with ThreadPoolExecutor(1) as pool:
        entry = pool.submit(store.entry, 1)
        before = network.connections
        until(lambda: network.connections > before + 3, "the client has tried for a while")
        network.wrong = b"", b""
        assert entry.result(TIMEOUT_S) == b"x"


def test_a_close_waits_for_no_handshake(network: Network) -> None:
    """A server that promises TLS and then says nothing holds up no close."""
    store = open_store(f"nats://{network.address}/APP", timeout_s=TIMEOUT_S * 2)
    network.wrong = b"INFO", b'INFO {"tls_required": true}\r\n'
    network.ends = False
    network.cut()
    until(lambda: b"\x16\x03" in network.requests, "the client has sent its hello of TLS")
    with ThreadPoolExecutor(1) as pool:
        pool.submit(store.close).result(TIMEOUT_S)


def test_a_close_waits_for_no_upload(network: Network) -> None:
    """A close sends nothing more to a server that has fallen silent, and leaves no thread and no
    event loop behind."""
    store = open_store(f"nats://{network.address}/APP", timeout_s=_LIMIT_S)
    assert isinstance(store, JetStreamConnection)
    client: Any = store._client
    network.silence()
    with ThreadPoolExecutor(12) as pool:
        for _ in range(12):  # more than the system takes
            pool.submit(store.append, 1, bytes(900_000))
        until(
            client._transport._io_writer.transport.get_write_buffer_size, "the system takes no more"
        )
        store.close()
    assert not store._thread.is_alive()
    assert store._loop.is_closed()
    assert not client._subs  # nats-py has come to the end of its close


def test_a_close_outlasts_a_cancel_that_is_lost(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that fails just as it is cancelled may lose the cancel in Python 3.11, and go on. A
    close cancels it again."""
    store = open_store(f"nats://{network.address}/APP", timeout_s=TIMEOUT_S * 2)
    tries = threading.Event()

    async def lose_one_cancel(_: object) -> None:
        is_first = not tries.is_set()
        tries.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if is_first:
                raise OSError from None
            raise

    monkeypatch.setattr("nats.aio.client.Client._select_next_server", lose_one_cancel)
    network.cut()
    assert tries.wait(TIMEOUT_S)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(store.close).result(TIMEOUT_S)


def test_late_answers_are_no_error(
    store: Store, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a server that was silent for a request's whole time answers again, the same connection
    is used on."""
    network.requests = b""
    network.brings_answers.clear()
    with pytest.raises(UnreachableError):
        store.entry(1)
    network.brings_answers.set()
    assert store.entry(1) == b"x"
    assert b"CONNECT" not in network.requests
    assert not caplog.records


def test_a_connection_that_falls_silent_is_replaced(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that is lost ends no connection. The client makes a new one, although the old one
    still has much to send."""
    monkeypatch.setattr("journal._mirror.jetstream_connection._PING_S", 0.2)
    data = bytes(900_000)
    with closing(open_store(f"nats://{network.address}/APP", timeout_s=_LIMIT_S)) as store:
        network.silence()
        with ThreadPoolExecutor(12) as pool:
            for _ in range(12):  # more than the system takes, whatever becomes of them
                pool.submit(store.append, 1, data)
        assert store.last(0) <= 1
