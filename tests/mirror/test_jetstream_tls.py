"""JetStream behind TLS with an authority of one's own."""

from __future__ import annotations

import gc
import logging
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from journal._mirror.jetstream_store import JetStreamStore
from journal._mirror.urls import open_store
from tests.mirror.servers import make_certificate, make_stream, nats_server
from tests.mirror.test_lost_answers import Network

_LIMIT_S = 10.0


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    """Yield a proxy before a server with TLS and a stream."""
    certificate, tls = make_certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    with nats_server(tmp_path, more=tls) as address:
        make_stream(address, "APP")
        with closing(Network(address)) as network:
            yield network


def test_a_close_waits_for_no_end_of_tls(network: Network) -> None:
    """A server whose machine is lost never confirms the end of TLS. A close waits for none, and
    leaves no thread and no event loop behind."""
    store = open_store(f"tls://{network.address}/APP", timeout_s=_LIMIT_S)
    assert isinstance(store, JetStreamStore)
    network.silence()
    store.close()
    assert not store._thread.is_alive()
    assert store._loop.is_closed()
    del store
    gc.collect()


def test_the_end_of_a_connection_is_not_logged(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio warns of a protocol that was not told of its TLS, at each end of a connection."""
    with closing(open_store(f"tls://{network.address}/APP", timeout_s=_LIMIT_S)) as store:
        caplog.clear()
        for each in network._sockets:
            each.shutdown(socket.SHUT_WR)
        assert store.last(0) == 0
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
