"""An embedded, append-only journal: it keeps state in memory that a crash can't lose.

    with Journal.open("events.d") as journal:
        lsn = journal.append(["paid", 42])  # memory only
        journal.wait_durable(lsn)  # now on stable storage

`Journal` stores records, `DurableState` stores the changes of a state machine, and `JournalReader`
reads a journal without taking its lock. journal/docs/FORMAT.md describes the bytes and the recovery
rule, journal/docs/RELIABILITY.md the promises.
"""

from __future__ import annotations

import importlib

# Not public names: `typing.get_type_hints` looks up the types of public fields here.
from collections.abc import Sequence as Sequence
from typing import TYPE_CHECKING
from typing import Any as Any
from typing import ClassVar as ClassVar
from typing import Literal as Literal

from journal._disk.disk import Buffer, Directory, Disk, File, FileMode, StrPath
from journal._format.checkpoint import Checkpoint
from journal._format.items import JSON
from journal._format.record import Entry, PackedRecord, Record, pack
from journal._mutex import HandlerSafeLock
from journal._names import JournalFile
from journal._offline.reader import JournalReader
from journal.errors import (
    BufferFullError,
    CheckpointItemError,
    ClosedError,
    CompactedError,
    ConflictError,
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
    Refusal,
    SavePlaceError,
    TransactionTooLargeError,
    UnsafePathError,
)

if TYPE_CHECKING:
    from journal._engine.async_handle import AsyncHandle, AsyncOpening
    from journal._engine.compactor import Freeze
    from journal._engine.follower import Follower, follow
    from journal._engine.journal import Journal
    from journal._engine.reappending import ReappendReport, reappend
    from journal._format.packed_records import LargeRecord
    from journal._format.restored import is_restored_mark
    from journal._format.segment_info import SegmentInfo
    from journal._mirror.errors import FencedError, MirrorError, MirrorReason
    from journal._mirror.mirror import Mirror
    from journal._mirror.mirror_info import MirrorCheckpoint, MirrorInfo, mirror_info
    from journal._mirror.restore import restore
    from journal._mirror.restoring import RestoreReport
    from journal._mirror.verifying import MirrorFinding, verify_mirror
    from journal._offline.backup import BackupReport, backup
    from journal._offline.findings import Finding, FrameInfo
    from journal._offline.recovery_preview import RecoveryPreview, preview_recovery
    from journal._offline.repair import RepairReport, repair
    from journal._offline.salvaged import SalvagedRecord, read_salvaged
    from journal._state.composite import Composite
    from journal._state.cow_table import CowTable, Snapshot
    from journal._state.durable_state import DurableState
    from journal._state.loading import load_checkpoint
    from journal._state.putting_back import PutBackReport, put_back
    from journal._state.state_machine import StateMachine
    from journal._tables.durable_dict import DurableDict
    from journal._tables.keys import Key
    from journal._tables.table_changes import TableChange, TableChanges
    from journal._tables.table_view import TableView
    from journal._tables.table_writes import (
        TABLES_APPLICATION_PREFIX,
        TableWrite,
        row_as_json,
        tables_writes,
    )
    from journal._tables.tables import Table, Tables
    from journal._tables.tables_view import TablesView
    from journal._tables.transaction import Transaction, TransactionTable
    from journal._tables.transaction_context import TransactionContext
    from journal.metrics import (
        Histogram,
        LockStats,
        MirrorObserver,
        Observer,
        Stats,
        StatsSource,
    )
    from journal.options import Options

__version__ = "0.1.0"

__all__ = [
    "JSON",
    "TABLES_APPLICATION_PREFIX",
    "AsyncHandle",
    "AsyncOpening",
    "BackupReport",
    "Buffer",
    "BufferFullError",
    "Checkpoint",
    "CheckpointItemError",
    "ClosedError",
    "CompactedError",
    "Composite",
    "ConflictError",
    "CorruptionError",
    "CowTable",
    "CutError",
    "CutReason",
    "DamageReason",
    "Directory",
    "Disk",
    "DurableDict",
    "DurableState",
    "Entry",
    "FailedError",
    "FencedError",
    "File",
    "FileMode",
    "Finding",
    "Follower",
    "FormatReason",
    "FormatVersionError",
    "FrameInfo",
    "Freeze",
    "HandlerSafeLock",
    "Histogram",
    "InterruptedCallError",
    "Journal",
    "JournalError",
    "JournalFile",
    "JournalReader",
    "Key",
    "LargeRecord",
    "LockStats",
    "LockedError",
    "Mirror",
    "MirrorCheckpoint",
    "MirrorError",
    "MirrorFinding",
    "MirrorInfo",
    "MirrorObserver",
    "MirrorReason",
    "NotAJournalError",
    "Observer",
    "Options",
    "PackedRecord",
    "PutBackReport",
    "ReappendReport",
    "Record",
    "RecordError",
    "RecoveryPreview",
    "Refusal",
    "RepairReport",
    "RestoreReport",
    "SalvagedRecord",
    "SavePlaceError",
    "SegmentInfo",
    "Snapshot",
    "StateMachine",
    "Stats",
    "StatsSource",
    "StrPath",
    "Table",
    "TableChange",
    "TableChanges",
    "TableView",
    "TableWrite",
    "Tables",
    "TablesView",
    "Transaction",
    "TransactionContext",
    "TransactionTable",
    "TransactionTooLargeError",
    "UnsafePathError",
    "backup",
    "follow",
    "is_restored_mark",
    "load_checkpoint",
    "mirror_info",
    "pack",
    "preview_recovery",
    "put_back",
    "read_salvaged",
    "reappend",
    "repair",
    "restore",
    "row_as_json",
    "tables_writes",
    "verify_mirror",
]

# Imported at first use. The modules that write take as long to import as all those that read, and
# the modules that examine every file take half as long. A program that only reads needs neither.
_MODULES = {
    **dict.fromkeys(("BackupReport", "backup"), "_offline.backup"),
    **dict.fromkeys(("RepairReport", "repair"), "_offline.repair"),
    **dict.fromkeys(("PutBackReport", "put_back"), "_state.putting_back"),
    "is_restored_mark": "_format.restored",
    **dict.fromkeys(("SalvagedRecord", "read_salvaged"), "_offline.salvaged"),
    "LargeRecord": "_format.packed_records",
    **dict.fromkeys(("Finding", "FrameInfo"), "_offline.findings"),
    "SegmentInfo": "_format.segment_info",
    "Options": "options",
    **dict.fromkeys(("RecoveryPreview", "preview_recovery"), "_offline.recovery_preview"),
    "Freeze": "_engine.compactor",
    **dict.fromkeys(("AsyncHandle", "AsyncOpening"), "_engine.async_handle"),
    "Journal": "_engine.journal",
    **dict.fromkeys(("Follower", "follow"), "_engine.follower"),
    **dict.fromkeys(("ReappendReport", "reappend"), "_engine.reappending"),
    "Mirror": "_mirror.mirror",
    **dict.fromkeys(("MirrorCheckpoint", "MirrorInfo", "mirror_info"), "_mirror.mirror_info"),
    "RestoreReport": "_mirror.restoring",
    "restore": "_mirror.restore",
    **dict.fromkeys(("MirrorFinding", "verify_mirror"), "_mirror.verifying"),
    **dict.fromkeys(("FencedError", "MirrorError", "MirrorReason"), "_mirror.errors"),
    **dict.fromkeys(
        ("Histogram", "LockStats", "MirrorObserver", "Observer", "Stats", "StatsSource"), "metrics"
    ),
    "DurableState": "_state.durable_state",
    "StateMachine": "_state.state_machine",
    "load_checkpoint": "_state.loading",
    "Composite": "_state.composite",
    **dict.fromkeys(("CowTable", "Snapshot"), "_state.cow_table"),
    "DurableDict": "_tables.durable_dict",
    "Key": "_tables.keys",
    **dict.fromkeys(("TableChange", "TableChanges"), "_tables.table_changes"),
    "TableView": "_tables.table_view",
    **dict.fromkeys(
        ("TABLES_APPLICATION_PREFIX", "TableWrite", "row_as_json", "tables_writes"),
        "_tables.table_writes",
    ),
    **dict.fromkeys(("Table", "Tables"), "_tables.tables"),
    "TablesView": "_tables.tables_view",
    **dict.fromkeys(("Transaction", "TransactionTable"), "_tables.transaction"),
    "TransactionContext": "_tables.transaction_context",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"journal.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
