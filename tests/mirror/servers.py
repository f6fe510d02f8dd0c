"""Real servers for the tests of stores, which are skipped where a server is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proof import servers
from proof.servers import BUCKET, free_ports, make_stream

from tests.installed import find_command, import_package

__all__ = ["BUCKET", "free_ports", "make_stream", "nats_server", "s3_server"]


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
