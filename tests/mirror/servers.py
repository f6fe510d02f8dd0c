"""Real servers for the tests of stores, which are skipped where a server is not installed."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from proof import servers
from proof.servers import BUCKET, free_ports, make_stream

from tests.installed import find_command, import_package

__all__ = [
    "BUCKET",
    "free_ports",
    "losing_a_cancellation",
    "make_certificate",
    "make_stream",
    "nats_server",
    "s3_server",
]


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run an S3 server with an empty bucket, and yield the environment that leads obstore to it."""
    find_command("weed")
    import_package("obstore")
    with servers.s3_server(folder) as (_, client):
        yield client


@contextmanager
def nats_server(folder: Path, *, more: str = "") -> Iterator[str]:
    """Run a NATS server with JetStream, and yield its address as HOST:PORT.

    `more` is appended to its configuration.
    """
    find_command("nats-server")
    import_package("nats")
    with servers.nats_servers(folder, more=more) as (_, addresses):
        yield addresses


def make_certificate(folder: Path) -> tuple[Path, str]:
    """Make a certificate of 127.0.0.1. Return its file, which is its own authority, too, and the
    configuration of a NATS server with it."""
    find_command("openssl")
    certificate, key = folder / "own.pem", folder / "key.pem"
    what = "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", *what]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *files], check=True, capture_output=True)
    return certificate, f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}\n'


@contextmanager
def losing_a_cancellation(
    monkeypatch: pytest.MonkeyPatch, *, is_mute: bool
) -> Iterator[tuple[str, list[str]]]:
    """Yield an address, and a list to which each attempt to connect there appends.

    An attempt ends as its task is cancelled, so that `asyncio.wait_for` loses the cancellation
    before Python 3.12. If `is_mute` is true, it ends with a connection to a server that accepts and
    never answers. Otherwise it is refused. The second attempt ends the task.
    """
    attempts: list[str] = []
    connect = asyncio.open_connection

    async def open_connection(*args: Any, **options: Any) -> Any:
        attempts.append("attempt")
        if len(attempts) > 1:
            raise asyncio.CancelledError
        connected = await connect(*args, **options)
        try:
            while not any(task.cancelling() for task in asyncio.all_tasks()):
                await asyncio.sleep(0)
            if not is_mute:
                raise ConnectionRefusedError
        except BaseException:
            connected[1].close()
            raise
        return connected

    monkeypatch.setattr(asyncio, "open_connection", open_connection)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}", attempts
