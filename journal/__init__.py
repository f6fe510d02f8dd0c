"""An embedded, append-only journal: state kept in memory that a crash can't lose.

    with Journal.open("events.d") as journal:
        lsn = journal.append(["paid", 42])  # memory only
        journal.wait_durable(lsn)  # on stable storage

`Journal` keeps records, `DurableState` any state machine, `JournalReader` looks from outside.
The bytes and the recovery rule are in FORMAT.md beside this file, the promises in
RELIABILITY.md.
"""

from __future__ import annotations

import logging

from journal.checkpoint import Checkpoint
from journal.engine import Journal
from journal.errors import (
    BufferFullError,
    ClosedError,
    CompactedError,
    CorruptionError,
    FailedError,
    FormatVersionError,
    JournalError,
    LockedError,
    RecordError,
    UnsafePathError,
)
from journal.metrics import Histogram, LockStats, Observer, Stats
from journal.options import Options
from journal.reader import JournalReader
from journal.record import Entry
from journal.repair import BackupReport, RepairReport, backup, repair
from journal.segment import SegmentInfo
from journal.state import DurableState, StateMachine
from journal.storage import Disk
from journal.table import CowTable
from journal.verify import Finding, FrameInfo

__version__ = "0.1.0"

__all__ = [
    "BackupReport",
    "BufferFullError",
    "Checkpoint",
    "ClosedError",
    "CompactedError",
    "CorruptionError",
    "CowTable",
    "Disk",
    "DurableState",
    "Entry",
    "FailedError",
    "Finding",
    "FormatVersionError",
    "FrameInfo",
    "Histogram",
    "Journal",
    "JournalError",
    "JournalReader",
    "LockStats",
    "LockedError",
    "Observer",
    "Options",
    "RecordError",
    "RepairReport",
    "SegmentInfo",
    "StateMachine",
    "Stats",
    "UnsafePathError",
    "backup",
    "repair",
]

logging.getLogger("journal").addHandler(logging.NullHandler())
