"""Fixtures of the tests of tables."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from journal import Table, Tables
from journal.testing import SimulatedDisk
from tests.tables.tables_support import open_tables


@pytest.fixture
def app(disk: SimulatedDisk) -> Iterator[Tables]:
    """Yield empty tables on a simulated disk."""
    with open_tables(disk) as tables:
        yield tables


@pytest.fixture
def users(app: Tables) -> Table:
    """Return a table with two rows."""
    table = app.table("users")
    table[("de", 1)] = {"name": "Ada"}
    table[("fr", 2)] = {"name": "Blaise"}
    return table
