"""Real servers of mirrors: SeaweedFS's S3, and NATS with JetStream, on one machine.

Both come from PyPI (the dependency group `mirror`). By hand:

    weed mini -dir=DIRECTORY -bucket=journal
    nats-server --jetstream --store_dir DIRECTORY
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

_START_S = 60.0
_PORTS = range(10_000, 32_768)
BUCKET = "journal"


class Server:
    """A process that can be stopped, killed and started again in the same folder."""

    def __init__(
        self, command: list[str], folder: Path, *, environment: dict[str, str] | None = None
    ) -> None:
        self.name = folder.name
        self._command = [_path_of(command[0]), *command[1:]]
        self._folder = folder
        self._environment = {"HOME": str(folder), **(environment or {})}
        self.start()

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._folder, env=self._environment
            )

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process."""
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def s3_server(folder: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """Run an S3 server with an empty bucket. Yield it, and the environment for obstore."""
    import obstore

    with free_ports(10) as (port, *others):
        names = ("master", "volume", "filer", "admin")
        ports = [f"-{name}.port={other}" for name, other in zip(names, others, strict=False)]
        ports += [
            f"-{name}.port.grpc={other}"
            for name, other in zip((*names, "s3"), others[len(names) :], strict=True)
        ]
        quiet = ["-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        where = [f"-dir={folder}", f"-bucket={BUCKET}", "-ip=127.0.0.1", f"-s3.port={port}"]
        keys = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests-secret"}
        client = {**keys, "AWS_ENDPOINT": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1"}
        server = Server(["weed", "mini", *where, *ports, *quiet], folder, environment=keys)

        def answers() -> bool:
            # It answers before it can store anything.
            options: Any = {"allow_http": True, "timeout": "2s"}
            config: Any = client
            store = obstore.store.from_url(
                f"s3://{BUCKET}/probe", config=config, client_options=options
            )
            try:
                obstore.put(store, "probe", b"x")
            except obstore.exceptions.BaseError:
                return False
            return True

        try:
            wait_until(answers, "the S3 server starts")
            yield server, client
        finally:
            server.close()


@contextmanager
def nats_servers(
    folder: Path, count: int = 1, *, more: str = ""
) -> Iterator[tuple[list[Server], str]]:
    """Run a cluster of NATS servers. Yield them, and their addresses as HOST:PORT,HOST:PORT.

    `more` is appended to the configuration of each.
    """
    with free_ports(2 * count) as ports:
        addresses = [f"127.0.0.1:{port}" for port in ports[:count]]
        routes = [f'"nats://127.0.0.1:{port}"' for port in ports[count:]]
        servers: list[Server] = []
        try:
            for number, (address, port) in enumerate(zip(addresses, ports[count:], strict=True)):
                home = folder / f"nats-{number}"
                home.mkdir()
                config = (
                    f'listen: "{address}"\nserver_name: "{home.name}"\n'
                    f'jetstream {{ store_dir: "{home}/store", sync_interval: always }}\n{more}'
                )
                if count > 1:
                    config += (
                        f'cluster {{ name: "proof", listen: "127.0.0.1:{port}", '
                        f"routes: [{', '.join(routes)}] }}\n"
                    )
                (home / "nats.conf").write_text(config)
                servers.append(Server(["nats-server", "-c", "nats.conf"], home))
            for address in addresses:
                wait_until(lambda address=address: _greets(address), "a NATS server starts")  # type: ignore[misc]
            yield servers, ",".join(addresses)
        finally:
            for server in servers:
                server.close()


def _greets(address: str) -> bool:
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), 1) as connection:
        return connection.recv(4) == b"INFO"


def make_stream(addresses: str, name: str, **settings: Any) -> None:
    """Make a stream as a mirror needs it, but for `settings`."""
    from nats.js import api

    needed = {
        "subjects": [f"{name}.log"],
        "storage": api.StorageType.FILE,
        "discard": api.DiscardPolicy.NEW,
    }
    settings = {**needed, **settings}
    with_jetstream(addresses, lambda stream: stream.add_stream(name=name, **settings))


def leader_of(addresses: str, name: str) -> str | None:
    """Return the name of the server that leads a stream. Return None while there is none, or while
    a replica lags behind."""
    cluster = with_jetstream(addresses, lambda stream: stream.stream_info(name)).cluster
    if cluster is None or not all(peer.current for peer in cluster.replicas or ()):
        return None
    leader: str | None = cluster.leader
    return leader


def with_jetstream(addresses: str, call: Callable[[Any], Any]) -> Any:
    """Return the result of a call of JetStream, through a connection of its own. Raises OSError
    while that fails."""
    import nats

    async def run() -> Any:
        client = await nats.connect(
            [f"nats://{each}" for each in addresses.split(",")],
            connect_timeout=2,
            max_reconnect_attempts=2,
            error_cb=_ignore,
        )
        try:
            return await call(client.jetstream())
        finally:
            await client.close()

    try:
        return asyncio.run(run())
    except (nats.errors.Error, TimeoutError) as error:
        raise OSError(str(error) or type(error).__name__) from error


async def _ignore(_: Exception) -> None:
    """Ignore an error of a connection: the request that it concerns reports it."""


@contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Yield ports at which nothing listens, and which no other call yields meanwhile, in any
    process. The kernel gives none of them to a socket that asks for any port."""
    choose = random.SystemRandom()
    ports: list[int] = []
    with ExitStack() as marks:
        while len(ports) < count:
            port = choose.choice(_PORTS)
            mark = marks.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            with suppress(OSError), socket.socket() as server:
                mark.bind(("127.0.0.1", port))
                server.bind(("127.0.0.1", port))
                ports.append(port)
        yield ports


def wait_until(holds: Callable[[], object], what: str, timeout_s: float = _START_S) -> None:
    """Wait until `holds` returns something true. An OSError counts as false. Raises
    TimeoutError."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        with suppress(OSError):
            if holds():
                return
        time.sleep(0.05)
    raise TimeoutError(f"not within {timeout_s:g} s: {what}")


def _path_of(command: str) -> str:
    """Return the path of a command, which a package may have put beside the interpreter."""
    folders = os.pathsep.join((os.environ.get("PATH", ""), os.path.dirname(sys.executable)))
    path = shutil.which(command, path=folders)
    if path is None:
        raise FileNotFoundError(f"{command} is not installed; install the group 'mirror'")
    return path
