"""A real NATS server for the tests of workers on other machines."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from tests.installed import import_package
from tests.mirror.servers import nats_server

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
