"""The servers of tests and benchmarks."""

from __future__ import annotations

import socket

import pytest
from proof import servers


def test_no_port_is_given_twice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two calls of `free_ports` at once share no port, and nothing listens at any of them."""
    monkeypatch.setattr(servers, "_PORTS", range(20_000, 20_100))
    with servers.free_ports(30) as some, servers.free_ports(30) as others:
        assert len({*some, *others}) == 60
        for port in others:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 1)
