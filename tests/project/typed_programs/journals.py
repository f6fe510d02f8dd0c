"""Programs that use `journal`."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, assert_type

from journal import (
    JSON,
    AsyncHandle,
    AsyncOpening,
    BackupReport,
    Buffer,
    BufferFullError,
    Checkpoint,
    CheckpointItemError,
    ClosedError,
    CompactedError,
    Composite,
    ConflictError,
    CorruptionError,
    CowTable,
    CutError,
    CutReason,
    DamageReason,
    Directory,
    Disk,
    DurableDict,
    DurableState,
    Entry,
    FailedError,
    File,
    FileMode,
    Finding,
    FormatReason,
    FormatVersionError,
    FrameInfo,
    Freeze,
    HandlerSafeLock,
    Histogram,
    InterruptedCallError,
    Journal,
    JournalError,
    JournalFile,
    JournalReader,
    Key,
    LockedError,
    LockStats,
    NotAJournalError,
    Observer,
    Options,
    PackedRecord,
    Record,
    RecordError,
    RecoveryPreview,
    Refusal,
    RepairReport,
    SegmentInfo,
    Snapshot,
    StateMachine,
    Stats,
    StatsSource,
    StrPath,
    Table,
    TableChange,
    TableChanges,
    Tables,
    TablesView,
    TableView,
    TableWrite,
    Transaction,
    TransactionContext,
    TransactionTable,
    TransactionTooLargeError,
    UnsafePathError,
    backup,
    load_checkpoint,
    pack,
    preview_recovery,
    repair,
    row_as_json,
    tables_writes,
)
from journal.otel import JournalInstruments
from journal.prometheus import JournalCollector
from journal.testing import SimulatedDisk

# --- a state machine ---


class Jobs:
    """A state machine whose types a checker can infer."""

    application = "jobs/1"

    def __init__(self) -> None:
        self.table: CowTable[str, dict[str, str]] = CowTable()

    def load(self, item: dict[str, str]) -> None:
        self.table[item["id"]] = item

    def apply(self, lsn: int, record: list[str]) -> None:
        kind, job = record
        self.table[job] = {"id": job, "state": kind, "lsn": str(lsn)}

    def freeze(self) -> Snapshot[dict[str, str]]:
        return self.table.freeze()


class NoFreeze:
    application = "jobs/1"

    def load(self, item: Any) -> None: ...

    def apply(self, lsn: int, record: Any) -> None: ...


def queue(jobs: Jobs) -> Record | None:
    return None if "a" in jobs.table else ["queued", "a"]


async def use_state(path: StrPath, disk: Disk) -> None:
    machine: StateMachine = Jobs()
    assert isinstance(machine, StateMachine)
    with DurableState.open(path, Jobs(), options=Options(segment_bytes=1 << 20)) as state:
        assert_type(state, DurableState[Jobs])
        assert_type(state.machine, Jobs)
        assert_type(state.machine.table, CowTable[str, dict[str, str]])
        assert_type(state.update(queue), int | None)
        assert_type(state.update(lambda m: ["done", m.table["a"]["id"]]), int | None)
        assert_type(state.update_batch(lambda m: [["done", job] for job in m.table]), int | None)
        assert_type(state.read(lambda m: len(m.table)), int)
        assert_type(state.read(lambda m: m.table.get("a")), dict[str, str] | None)
        assert_type(state.lock_stats(), LockStats)
        assert_type(state.lock_stats().hold, Histogram)
        assert_type(state.compact(), Checkpoint)
        load_checkpoint(machine, state.compact())
        state.wait_durable(timeout_s=1.5)
        await state.durable(3)
        lsn, count = state.update_with_result(lambda m: (["queued", "b"], len(m.table)))
        assert_type(lsn, int | None)
        assert_type(count, int)
        print(state.machine.nope)  # type: ignore[attr-defined]
        state.update(lambda m: m.nope)  # type: ignore[attr-defined]
        state.wait_durable("3")  # type: ignore[arg-type]
        state.update()  # type: ignore[call-arg]
    DurableState.open(path, NoFreeze(), disk=disk)  # type: ignore[type-var]
    DurableState.open(path, Jobs)  # type: ignore[type-var]
    DurableState.open(path)  # type: ignore[call-arg]
    async with DurableState.aopen(path, Jobs(), lock_timeout_s=1.0) as opened:
        assert_type(opened, DurableState[Jobs])
        handle: AsyncHandle = opened
        await handle.aclose(timeout_s=1.5)
    tables: AsyncOpening[Tables] = Tables.aopen(path)
    assert_type(await tables, Tables)
    DurableState.aopen(path, NoFreeze())  # type: ignore[type-var]
    parts = Composite(jobs=Jobs(), more=Jobs())
    with DurableState.open(path, parts) as composite:
        assert_type(composite, DurableState[Composite])
        composite.update_batch(lambda c: [c.part("jobs", ["queued", "a"])])
    Composite(jobs=3)  # type: ignore[arg-type]


# --- a journal ---


class Watcher:
    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None: ...

    def stalled(self, error: OSError) -> None: ...

    def compacted(self, lsn: int, count: int, size_bytes: int, duration_ns: int) -> None: ...

    def compaction_failed(self, error: BaseException) -> None: ...

    def failed(self, error: BaseException) -> None: ...


async def use_journal(path: Path, disk: Disk) -> None:
    observer: Observer = Watcher()
    options = Options(durability="os", application="events/1")
    with Journal.open(path, options=options, disk=disk) as journal:
        freeze: Freeze = lambda: (journal.last_lsn, [{"id": b"\0"}])  # noqa: E731 - as users write it
        record: Record = {"paid": [42, 1.5, None, b"raw"]}
        packed: PackedRecord = pack(record)
        assert_type(journal.append(packed), int)
        assert_type(journal.append_batch([record, packed]), int)
        journal.observe(observer)
        await journal.durable()
        checkpoint = journal.compact(freeze)
        for item in checkpoint.items():
            taken: JSON = item
            print(taken)
        for entry in journal.replay(0):
            assert_type(entry, Entry)
            assert_type(entry.lsn, int)
        assert_type(journal.stats(), Stats)
        assert_type(journal.backup(path / "copy"), BackupReport)
        journal.append()  # type: ignore[call-arg]
        journal.append_batch("text")  # type: ignore[arg-type]
        journal.compact(lambda: 3)  # type: ignore[arg-type, return-value]
        journal.observe(object())  # type: ignore[arg-type]
    Journal.open(3)  # type: ignore[arg-type]
    Options(durability="disc")  # type: ignore[arg-type]


def use_readers(path: Path) -> Iterator[Any]:
    with JournalReader.open(path) as reader:
        segments: list[SegmentInfo] = reader.segments()
        frames: Iterator[FrameInfo] = reader.frames()
        findings: list[Finding] = list(reader.verify())
        files: list[JournalFile] = reader.files()
        base: Checkpoint | None = reader.base()
        preview: RecoveryPreview = reader.preview_recovery()
        refusal: Refusal | None = preview.refusal
        reason: DamageReason | None = findings[0].reason
        assert_type(preview_recovery(segments, reader.checkpoints()), RecoveryPreview)
        yield frames, files, base, refusal, reason
        reader.entries("1")  # type: ignore[arg-type]
    assert_type(backup(path, str(path)), BackupReport)
    assert_type(repair(path, cut_at=3), RepairReport)
    repair(path, True)  # type: ignore[call-arg]


def use_errors(error: JournalError) -> CutReason | FormatReason | DamageReason | None:
    if isinstance(error, CutError):
        return error.reason
    if isinstance(error, FormatVersionError):
        return error.reason
    if isinstance(error, CorruptionError):
        assert_type(error.lsn, int)
        print(error.lsm)  # type: ignore[attr-defined]
        return error.reason
    others: tuple[type[JournalError], ...] = (
        *(BufferFullError, CheckpointItemError, ClosedError, CompactedError, ConflictError),
        *(FailedError, InterruptedCallError, LockedError, NotAJournalError, RecordError),
        *(TransactionTooLargeError, UnsafePathError),
    )
    assert isinstance(error, others)
    return None


# --- tables ---


def use_tables(path: StrPath) -> None:
    with DurableDict.open(path) as settings:
        mapping: MutableMapping[Key, Any] = settings
        mapping["theme"] = "dark"
        settings.update({"a": 1})
        settings[1.5] = 2  # type: ignore[index]
    with Tables.open(path) as tables:
        users: Table = tables.table("users")
        users["de", 7] = {"name": "Ada"}
        key: Key = ("de", 7)
        print(users[key])
        context: TransactionContext = tables.transaction()
        with context as transaction:
            assert_type(transaction, Transaction)
            assert_type(transaction[users], TransactionTable)
        users.prefix(1.5)  # type: ignore[arg-type]
        tables.table(1)  # type: ignore[arg-type]
        changes: TableChanges = tables.changes(after=0)
        for change in changes:
            assert_type(change, TableChange)
            changes.close()
        tables.changes("first")  # type: ignore[arg-type]
    view: TablesView = Tables.read(path)
    rows: TableView = view.table("users")
    print(list(rows.items()))
    with JournalReader.open(path) as reader:
        for entry in reader.entries():
            writes: list[TableWrite] = list(tables_writes(entry.record) or ())
            print(writes, row_as_json)


# --- a disk of one's own, and exported figures ---


class OwnDisk:
    def __init__(self, inner: Disk) -> None:
        self._inner = inner
        self._lock = HandlerSafeLock()

    def open_directory(self, path: StrPath, *, write: bool) -> Directory:
        with self._lock:
            return self._inner.open_directory(path, write=write)

    def now_ns(self) -> int:
        return self._inner.now_ns()

    def new_id(self) -> bytes:
        return self._inner.new_id()


def use_disks(source: StatsSource, data: Buffer, mode: FileMode) -> None:
    disk: Disk = OwnDisk(SimulatedDisk())
    file: File = disk.open_directory("/d", write=True).open("f", mode)
    file.write(data, 0)
    file.write("text", 0)  # type: ignore[arg-type]
    JournalCollector().watch("jobs", source)
    JournalInstruments().watch("jobs", source)
    JournalCollector().watch("jobs", 3)  # type: ignore[arg-type]
