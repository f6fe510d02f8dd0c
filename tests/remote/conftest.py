"""A real NATS server for the tests of workers on other machines, and workers that run commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.installed import import_package
from tests.mirror.servers import nats_server

Start = Callable[..., subprocess.Popen[bytes]]
_fresh = count(1)


@pytest.fixture(scope="session")
def nats_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_server(tmp_path_factory.mktemp("nats")) as address:
        yield address


@pytest.fixture
def fleet_url(nats_address: str) -> str:
    """Return the URL of a fleet that no other test of this run uses."""
    import_package("nats")
    return f"nats://{nats_address}/T{next(_fresh)}"


@pytest.fixture
def start(fleet_url: str, tmp_path: Path) -> Iterator[Start]:
    """Yield a function that starts a worker in a folder of `tmp_path`."""
    children: list[subprocess.Popen[bytes]] = []

    def start_worker(folder: str, *options: str) -> subprocess.Popen[bytes]:
        (tmp_path / folder).mkdir(exist_ok=True)
        command = [sys.executable, "-P", "-m", "manager", "worker", fleet_url]
        command += ["--dir", folder, "--slots", "2", *options]
        children.append(subprocess.Popen(command, cwd=tmp_path))
        return children[-1]

    yield start_worker
    for child in children:
        child.kill()
        child.wait()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "manager"
    folder.mkdir()
    return folder
