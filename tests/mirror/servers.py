"""Real servers for the tests of stores: SeaweedFS's S3, and NATS with JetStream.

Both come from PyPI (the dependency group `mirror`). By hand:

    weed mini -dir=DIRECTORY -bucket=journal
    nats-server --jetstream --store_dir DIRECTORY
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.installed import find_command, import_package

_START_S = 60.0
BUCKET = "journal"


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run an S3 server with an empty bucket, and yield the environment that leads obstore to it."""
    command, (port, *others) = find_command("weed"), free_ports(10)
    names = ("master", "volume", "filer", "admin")
    ports = [f"-{name}.port={other}" for name, other in zip(names, others, strict=False)]
    ports += [
        f"-{name}.port.grpc={other}"
        for name, other in zip((*names, "s3"), others[len(names) :], strict=True)
    ]
    quiet = ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    address = f"http://127.0.0.1:{port}"
    where = [f"-dir={folder}", f"-bucket={BUCKET}", "-ip=127.0.0.1", f"-s3.port={port}"]
    obstore = import_package("obstore")
    keys = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests-secret"}
    client = {**keys, "AWS_ENDPOINT": address, "AWS_REGION": "us-east-1"}
    with _process([command, "mini", *where, *ports, *quiet], folder, keys):

        def answers() -> bool:
            # It answers before it can store anything.
            options = {"allow_http": True, "timeout": "2s"}
            store = obstore.store.from_url(
                f"s3://{BUCKET}/probe", config=client, client_options=options
            )
            try:
                obstore.put(store, "probe", b"x")
            except obstore.exceptions.BaseError:
                return False
            return True

        _await(answers)
        yield client


@contextmanager
def nats_server(folder: Path) -> Iterator[str]:
    """Run a NATS server with JetStream, and yield its address as HOST:PORT."""
    command, (port,) = find_command("nats-server"), free_ports(1)
    config = folder / "nats.conf"
    config.write_text(
        f'listen: "127.0.0.1:{port}"\n'
        f'jetstream {{ store_dir: "{folder}/store", sync_interval: always }}\n'
    )
    with _process([command, "-c", str(config)], folder, {}):

        def answers() -> bool:
            with socket.create_connection(("127.0.0.1", port), 1) as connection:
                return connection.recv(4) == b"INFO"

        _await(answers)
        yield f"127.0.0.1:{port}"


def make_stream(address: str, name: str, **settings: Any) -> None:
    """Make a stream as a mirror needs it, but for `settings`."""
    nats = import_package("nats")
    api = nats.js.api
    needed = {
        "subjects": [f"{name}.log"],
        "storage": api.StorageType.FILE,
        "discard": api.DiscardPolicy.NEW,
    }

    async def make() -> None:
        client = await nats.connect(f"nats://{address}")
        await client.jetstream().add_stream(name=name, **{**needed, **settings})
        await client.close()

    asyncio.run(make())


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


@contextmanager
def _process(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={"HOME": str(folder), **environment}
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(answers: Callable[[], bool]) -> None:
    until_s = time.monotonic() + _START_S
    while time.monotonic() < until_s:
        with suppress(OSError):
            if answers():
                return
        time.sleep(0.05)
    raise TimeoutError("the server did not start")
