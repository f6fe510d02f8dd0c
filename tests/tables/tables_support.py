"""Support for tests of tables: tables on a simulated disk, and the files that they have open."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from journal import Table, Tables
from journal.testing import SimulatedDisk
from tests.support import PATH, TIMEOUT_S, options


def open_tables(disk: SimulatedDisk, **others: Any) -> Tables:
    """Open tables that commit and compact only when a test asks for it."""
    return Tables.open(PATH, options=options(segment_bytes=1 << 20), disk=disk, **others)


def in_thread(call: Callable[[], object]) -> None:
    """Make a call in a thread of its own."""
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(TIMEOUT_S)


def rows(table: Table) -> dict[Any, Any]:
    return dict(table.items())


def files_open_for_reading() -> int:
    """Count the files of this process that are open only for reading. Threads of a journal open
    directories, and files to write, at any time."""
    count = 0
    for fd in map(int, os.listdir("/dev/fd")):
        with suppress(OSError):  # the handle of the list itself
            is_file = stat.S_ISREG(os.fstat(fd).st_mode)
            count += is_file and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    return count
