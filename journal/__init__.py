"""An embedded, append-only journal: state kept in memory that a crash can't lose.

    with Journal.open("events.d") as journal:
        lsn = journal.append(["paid", 42])  # memory only
        journal.wait_durable(lsn)  # on stable storage

`Journal` keeps records, `DurableState` any state machine, `JournalReader` looks from outside.
The bytes and the recovery rule are in FORMAT.md beside this file, the promises in
RELIABILITY.md.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from journal.checkpoint import Checkpoint
from journal.errors import (
    BufferFullError,
    CheckpointItemError,
    ClosedError,
    CompactedError,
    CorruptionError,
    CutError,
    CutReason,
    DamageReason,
    FailedError,
    FormatReason,
    FormatVersionError,
    InterruptedCallError,
    JournalError,
    LockedError,
    NotAJournalError,
    RecordError,
    UnsafePathError,
)
from journal.mutex import HandlerSafeLock
from journal.reader import JournalReader
from journal.record import Entry, PackedRecord, pack
from journal.segment import SegmentInfo
from journal.storage import Disk

if TYPE_CHECKING:
    from journal.copies import BackupReport, backup
    from journal.engine import Journal
    from journal.metrics import Histogram, LockStats, Observer, Stats
    from journal.options import Options
    from journal.outlook import Outlook, Refusal
    from journal.repairing import RepairReport, repair
    from journal.state import DurableState, StateMachine
    from journal.table import CowTable
    from journal.verify import Finding, FrameInfo

__version__ = "0.1.0"

__all__ = [
    "BackupReport",
    "BufferFullError",
    "Checkpoint",
    "CheckpointItemError",
    "ClosedError",
    "CompactedError",
    "CorruptionError",
    "CowTable",
    "CutError",
    "CutReason",
    "DamageReason",
    "Disk",
    "DurableState",
    "Entry",
    "FailedError",
    "Finding",
    "FormatReason",
    "FormatVersionError",
    "FrameInfo",
    "HandlerSafeLock",
    "Histogram",
    "InterruptedCallError",
    "Journal",
    "JournalError",
    "JournalReader",
    "LockStats",
    "LockedError",
    "NotAJournalError",
    "Observer",
    "Options",
    "Outlook",
    "PackedRecord",
    "RecordError",
    "Refusal",
    "RepairReport",
    "SegmentInfo",
    "StateMachine",
    "Stats",
    "UnsafePathError",
    "backup",
    "pack",
    "repair",
]

# What writes takes as long to import as all that reads, and what looks at every file half as long:
# who only reads need not wait for either. No module may have a name that is public here.
_PLACES = {
    **dict.fromkeys(("BackupReport", "backup"), "copies"),
    **dict.fromkeys(("RepairReport", "repair"), "repairing"),
    **dict.fromkeys(("Finding", "FrameInfo"), "verify"),
    "Options": "options",
    **dict.fromkeys(("Outlook", "Refusal"), "outlook"),
    "Journal": "engine",
    **dict.fromkeys(("Histogram", "LockStats", "Observer", "Stats"), "metrics"),
    **dict.fromkeys(("DurableState", "StateMachine"), "state"),
    "CowTable": "table",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"journal.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *_PLACES]
