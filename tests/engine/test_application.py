"""The application's name, which a new journal states from the first opening on."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from journal import (
    Composite,
    DurableDict,
    DurableState,
    FailedError,
    FormatReason,
    FormatVersionError,
    JournalError,
    JournalReader,
    Tables,
    backup,
    repair,
)
from journal._format.checkpoint import checkpoint_name
from journal.testing import SimulatedDisk
from tests.crash.crash_support import every_choice, outcome_of
from tests.engine.compaction_support import checkpoint_lsns, compact
from tests.independent_reader import decode_checkpoint
from tests.support import FIRST, PATH, Table, findings, logged, names, open_on, options, put

STATED = checkpoint_name(0)


def refuses(disk: SimulatedDisk, application: str) -> bool:
    """Return whether the journal does not open for `application`. A refusal changes no file."""
    before = disk.contents(PATH)
    try:
        open_on(disk, application=application).close()
    except FormatVersionError as error:
        refusal = error
    else:
        return False
    assert refusal.reason is FormatReason.OTHER_APPLICATION
    assert disk.contents(PATH) == before
    return True


def test_the_first_opening_states_the_application(disk: SimulatedDisk) -> None:
    """P6: An opening with another application is refused before anything is written, even if the
    first one appended no record. A reader sees the name at once."""
    with open_on(disk, application="jobs/1") as journal:
        assert journal.checkpoint is None  # recovery did not start from it
        page = decode_checkpoint(disk.contents(PATH)[STATED])
        assert (page.application, page.lsn, page.items) == ("jobs/1", 0, ())
        assert page.journal_id.hex() == journal.journal_id
        with JournalReader.open(PATH, disk=disk) as reader:
            assert reader.application == "jobs/1"
    assert refuses(disk, "jobs/2")
    assert not refuses(disk, "jobs/1")
    with open_on(disk) as journal:  # an opening without an application accepts any
        assert journal.checkpoint is not None
        assert (journal.checkpoint.application, journal.checkpoint.lsn) == ("jobs/1", 0)
    assert refuses(disk, "jobs/2")
    with open_on(disk, application="jobs/1") as journal:
        put(journal, "a")
    with open_on(disk) as journal:
        assert logged(journal) == ["a"]
    assert findings(disk) == []


def test_an_opening_without_the_application_appends_nothing(disk: SimulatedDisk) -> None:
    """P5: A Journal that was opened without the application that the journal states appends
    nothing: the owner might refuse the record at each later open."""
    with DurableDict.open(PATH, options=options(), disk=disk) as settings:
        settings["a"] = 1

    async def appended_durably() -> None:
        await journal.append_durable("b")

    with open_on(disk) as journal:
        calls: list[Callable[[], object]] = [
            lambda: journal.append("b", urgent=True),
            lambda: journal.append_and_wait("b"),
            lambda: journal.append_batch(["b"]),
            lambda: asyncio.run(appended_durably()),
        ]
        for call in calls:
            with pytest.raises(JournalError, match=r"Options\(application='journal.tables/1'\)$"):
                call()
        assert (journal.last_lsn, journal.durable_lsn) == (1, 1)
        assert len(logged(journal)) == 1
    with DurableDict.open(PATH, options=options(), disk=disk) as settings:
        assert settings == {"a": 1}
    assert findings(disk) == []


def test_an_empty_application_is_not_stated(disk: SimulatedDisk) -> None:
    """Without an application, an opening writes no checkpoint. A later opening states its own, as
    long as the journal has no record."""
    open_on(disk).close()
    assert names(disk, ".json") == []
    open_on(disk, application="jobs/1").close()
    assert names(disk, ".json") == [STATED]


def test_a_journal_with_records_gets_its_name_at_a_compaction(disk: SimulatedDisk) -> None:
    """A journal that has records and no checkpoint does not say whose they are, so an opening with
    an application states nothing until it writes a checkpoint."""
    with open_on(disk) as journal:
        put(journal, "a")
    with open_on(disk, application="jobs/1") as journal:
        put(journal, "b")
        assert names(disk, ".json") == []
        compact(journal, "a", "b")
    assert refuses(disk, "jobs/2")


@pytest.mark.parametrize("application", ["", "jobs/1"])
def test_the_name_costs_one_file_and_one_sync(disk: SimulatedDisk, application: str) -> None:
    """P2, P6: The name is written, synced and renamed before the first segment, and needs no sync
    of the directory: the sync for the first segment's name comes before any record."""
    with open_on(disk, application=application) as journal:
        put(journal, "a")
        done = [
            (operation, path.rpartition("/")[2])
            for operation, path in disk.operations
            if not path.endswith("LOCK")
        ]
    tmp = f"{STATED}.tmp"
    stating = [("create", tmp), ("write", tmp), ("sync", tmp), ("rename", STATED)]
    first = [("create", f"{FIRST}.tmp"), ("allocate", f"{FIRST}.tmp"), ("write", f"{FIRST}.tmp")]
    named = [
        ("sync", f"{FIRST}.tmp"),
        ("rename", FIRST),
        ("sync_directory", "journal"),
    ]
    opening = [("make_directory", "journal"), ("sync_directory", "journal")]
    expected = [*opening, *(stating if application else ()), *first, *named]
    assert done[: len(expected)] == expected
    assert done[len(expected) :] == [("write", f"{FIRST}.tmp"), ("sync", f"{FIRST}.tmp")]


def test_each_crash_leaves_a_journal_that_opens(disk: SimulatedDisk) -> None:
    """P5, P6: After a power cut at any moment of the first opening and the first commit, the
    journal opens for its application. Once a record is acknowledged, it opens for no other."""
    operations = 0
    outcomes = {True: 0, False: 0}
    while True:
        for choose in every_choice():
            disk = SimulatedDisk()
            disk.crash_after(operations)
            acknowledged = False
            try:
                journal = open_on(disk, application="jobs/1")
                try:
                    put(journal, "a")
                    acknowledged = True
                finally:
                    journal.close()
            except (FailedError, OSError):
                assert disk.crashed
            is_over = not disk.crashed
            disk.power_cut(outcome_of(choose, whole=True))
            if acknowledged:
                assert refuses(disk, "jobs/2")
            with open_on(disk, application="jobs/1") as journal:
                assert logged(journal) in ([["a"]] if acknowledged else [[], ["a"]])
            assert refuses(disk, "jobs/2")
            outcomes[acknowledged] += 1
        if is_over:
            break
        operations += 1
    assert outcomes[True] >= 2
    assert outcomes[False] > 50


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
@pytest.mark.parametrize("operation", ["create", "write"])
def test_a_full_disk_prevents_no_open(
    disk: SimulatedDisk, operation: Any, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    """P5: If there is no space for the name, the journal opens without it, and a warning is logged.
    The next opening states it."""
    disk.fail(operation, code, path=STATED, times=None)
    open_on(disk, application="jobs/1").close()
    assert "no space for the checkpoint that states the application" in caplog.text
    assert [name for name in disk.contents(PATH) if name != "LOCK"] == []
    disk.before = None
    open_on(disk, application="jobs/1").close()
    assert refuses(disk, "jobs/2")


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename"])
def test_an_io_error_refuses_the_open(disk: SimulatedDisk, operation: Any) -> None:
    """An I/O error while the name is written raises FailedError, and leaves nothing behind."""
    disk.fail(operation, errno.EIO, path=STATED)
    with pytest.raises(FailedError, match="can't be recovered"):
        open_on(disk, application="jobs/1")
    assert disk.contents(PATH) == {}
    with open_on(disk, application="jobs/1") as journal:
        put(journal, "a")


def test_a_second_writer_is_not_replaced(disk: SimulatedDisk) -> None:
    """P10: If another process has stated an application meanwhile, although the lock is held, the
    open is refused, and that checkpoint stays."""
    other = SimulatedDisk()
    open_on(other, application="other/1").close()
    stated = other.contents(PATH)[STATED]

    def before(operation: str, path: str) -> None:
        if operation == "rename" and path.endswith(STATED):
            disk.before = None
            file = disk.open_directory(PATH, write=True).open(STATED, "create")
            file.write(stated, 0)

    disk.before = before
    with pytest.raises(FailedError):
        open_on(disk, application="jobs/1")
    assert disk.contents(PATH) == {STATED: stated}


def test_a_checkpoint_at_lsn_0_covers_nothing(disk: SimulatedDisk) -> None:
    """P6: The first compaction removes nothing, although two checkpoints exist then. The second one
    removes the checkpoint at LSN 0, and the segments that the first one covers."""
    open_on(disk, application="jobs/1").close()
    with open_on(disk, application="jobs/1") as journal:
        put(journal, *range(3))
        compact(journal, "three")
        assert (checkpoint_lsns(disk), names(disk, ".seg")) == ([0, 3], [names(disk, ".seg")[0]])
    with open_on(disk, application="jobs/1") as journal:
        put(journal, "more")
        assert len(names(disk, ".seg")) == 2
        compact(journal, "four")
        assert checkpoint_lsns(disk) == [3, 4]
        assert len(names(disk, ".seg")) == 1
    with JournalReader.open(PATH, disk=disk) as reader:
        base = reader.base()
        assert base is not None
        with closing(base):
            assert (base.lsn, list(base.items())) == (4, ["four"])


def test_damage_to_the_name_loses_no_record(disk: SimulatedDisk) -> None:
    """P4: If the checkpoint at LSN 0 does not verify, `verify` reports it, and the journal opens
    with every record, for any application."""
    with open_on(disk, application="jobs/1") as journal:
        put(journal, "a")
    disk.open_directory(PATH, write=True).open(STATED, "update").write(b"!", 0)
    assert [(finding.kind, finding.lsn) for finding in findings(disk)] == [("bad_checkpoint", 0)]
    with open_on(disk, application="jobs/2") as journal:
        assert logged(journal) == ["a"]


def test_readers_start_from_the_first_record(disk: SimulatedDisk) -> None:
    """A reader of a journal with nothing but its name finds an empty log, and a base without
    items."""
    open_on(disk, application="jobs/1").close()
    with JournalReader.open(PATH, disk=disk) as reader:
        base = reader.base()
        assert base is not None
        with closing(base):
            assert (base.lsn, base.count) == (0, 0)
        assert (reader.last_lsn, reader.first_state_lsn, list(reader.entries())) == (0, 1, [])
        preview = reader.preview_recovery()
        assert (preview.problem, preview.checkpoint_lsn, preview.last_lsn) == (None, 0, 0)
        assert list(reader.verify()) == []
    assert repair(PATH, apply=True, disk=disk).problem is None


def test_a_backup_has_the_name(disk: SimulatedDisk) -> None:
    """A backup of a journal with or without records is one of the same application."""
    open_on(disk, application="jobs/1").close()
    assert backup(PATH, "/copy-1", disk=disk).lsn == 0
    with open_on(disk, application="jobs/1") as journal:
        put(journal, "a")
        assert journal.backup("/copy-2").lsn == 1
    for path in "/copy-1", "/copy-2":
        with JournalReader.open(path, disk=disk) as reader:
            assert reader.application == "jobs/1"


def test_a_cut_at_lsn_0_keeps_the_name(disk: SimulatedDisk) -> None:
    """A repair that keeps no record keeps the application."""
    with open_on(disk, application="jobs/1") as journal:
        put(journal, "a")
    repair(PATH, apply=True, cut_at=0, disk=disk)
    assert refuses(disk, "jobs/2")
    with open_on(disk, application="jobs/1") as journal:
        assert logged(journal) == []
        put(journal, "b")


class Newer(Table):
    application = "table/2"
    accepts = ("table/1",)


class Stranger(Table):
    application = "other/1"


def test_an_older_application_can_be_accepted(disk: SimulatedDisk) -> None:
    """A machine that accepts the application that was stated opens the journal."""

    def open_with(machine: Table) -> None:
        DurableState.open(PATH, machine, options=options(), disk=disk).close()

    open_with(Table())
    open_with(Newer())
    with pytest.raises(FormatVersionError, match="'table/1', not for 'other/1'"):
        open_with(Stranger())


def test_parts_tables_and_dicts_state_theirs(disk: SimulatedDisk) -> None:
    """A Composite states its parts, to which a later opening may add one. Tables and a DurableDict
    state that they are tables."""

    def open_with(machine: Any) -> None:
        DurableState.open(PATH, machine, options=options(), disk=disk).close()

    open_with(Composite(jobs=Table()))
    open_with(Composite(jobs=Table(), more=Newer()))
    with pytest.raises(FormatVersionError, match="part 'jobs'"):
        open_with(Composite(jobs=Stranger()))
    with pytest.raises(FormatVersionError, match="not for 'table/2' or 'table/1'"):
        open_with(Newer())
    Tables.open("/tables", disk=disk).close()
    with pytest.raises(FormatVersionError):
        DurableState.open("/tables", Newer(), disk=disk)
    DurableDict.open("/dict", disk=disk).close()
    with JournalReader.open("/dict", disk=disk) as reader:
        assert reader.application == "journal.tables/1"
