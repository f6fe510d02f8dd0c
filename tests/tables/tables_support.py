"""Support for tests of tables: tables on a simulated disk."""

from __future__ import annotations

from typing import Any

from journal import Table, Tables
from journal.testing import SimulatedDisk
from tests.support import PATH, options


def open_tables(disk: SimulatedDisk, **others: Any) -> Tables:
    """Open tables that commit and compact only when a test asks for it."""
    return Tables.open(PATH, options=options(segment_bytes=1 << 20), disk=disk, **others)


def rows(table: Table) -> dict[Any, Any]:
    """Return all rows of a table."""
    return dict(table.items())
