"""Support for tests of large values: tables with small records, so that values become pieces."""

from __future__ import annotations

from typing import Any

from journal._tables.tables import Tables
from journal.testing import SimulatedDisk
from tests.support import PATH, TIMEOUT_S, logged, options

LIMIT_BYTES = 256
LARGE = "large " * 200
UPLOAD = b"u" * 16


def open_tables(disk: SimulatedDisk, *, limit_bytes: int = LIMIT_BYTES, **others: Any) -> Tables:
    """Open tables whose records are small."""
    chosen = options(segment_bytes=1 << 20, record_bytes_max=limit_bytes, **others)
    return Tables.open(PATH, options=chosen, disk=disk)


def kinds(app: Tables) -> list[str]:
    """Return the kind of each record in the journal."""
    app.sync(timeout_s=TIMEOUT_S)
    return [record[0] for record in logged(app.journal)]
