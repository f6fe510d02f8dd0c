"""Servers and stores for the tests of the mirror."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from journal._mirror.directory_store import DirectoryStore
from journal._mirror.memory_store import MemoryStore
from journal._mirror.object_store import ObjectStore
from journal._mirror.store import Store
from journal._mirror.urls import open_store
from journal.testing import SimulatedDisk
from tests.installed import import_package
from tests.mirror.servers import BUCKET, make_stream, nats_server, s3_server
from tests.mirror.stores import SilentStore

_fresh = count(1)
KINDS = ("memory", "directory", "simulated", "obstore", "s3", "nats")
Open = Callable[[], Store]


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3")) as environment:
        yield environment


@pytest.fixture(scope="session")
def nats_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with nats_server(tmp_path_factory.mktemp("nats")) as address:
        yield address


@pytest.fixture
def fresh_name(tmp_path: Path) -> str:
    """Return a name that no other test of this run uses."""
    return f"T{next(_fresh)}"


@pytest.fixture
def store() -> Iterator[SilentStore]:
    """Yield a store that can fall silent, and that answers again at the end."""
    store = SilentStore()
    yield store
    store.answer()


@pytest.fixture(params=KINDS)
def open_one(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    fresh_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Open]:
    """Yield a function that opens one and the same store, which is empty at first."""
    opened: list[Store] = []
    make = _maker(request, tmp_path, fresh_name, monkeypatch)

    def open_again() -> Store:
        opened.append(make())
        return opened[-1]

    yield open_again
    for store in opened:
        store.close()


def _maker(
    request: pytest.FixtureRequest, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> Open:
    kind: str = request.param
    if kind == "memory":
        memory = MemoryStore()
        return lambda: memory
    if kind == "directory":
        return lambda: open_store(f"file://{tmp_path}/mirror")
    if kind == "simulated":
        disk = SimulatedDisk()
        return lambda: DirectoryStore("/mirror", disk)
    if kind == "nats":
        import_package("nats")
        address = request.getfixturevalue("nats_address")
        make_stream(address, name)
        return lambda: open_store(f"nats://{address}/{name}")
    obstore = import_package("obstore")
    if kind == "obstore":
        shared = obstore.store.MemoryStore()
        return lambda: ObjectStore("memory:", shared)
    for variable, value in request.getfixturevalue("s3").items():
        monkeypatch.setenv(variable, value)
    return lambda: open_store(f"s3://{BUCKET}/{name}")
