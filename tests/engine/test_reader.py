"""JournalReader: opening, and the records that it shows of closed and of live journals."""

from __future__ import annotations

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest

from journal import (
    CompactedError,
    Entry,
    Journal,
    JournalError,
    JournalReader,
    UnsafePathError,
    backup,
)
from journal.testing import SimulatedDisk
from journal.testing.disk import Query
from tests.support import (
    PATH,
    TIMEOUT_S,
    Held,
    Watched,
    child,
    crash,
    end_of,
    findings,
    frozen,
    infos,
    line_of,
    names,
    open_on,
    options,
    put,
    put_lines,
    read_all,
    reopened,
    until,
    write_at,
)

# --- opening ---


def records(reader: JournalReader) -> list[Any]:
    return [entry.record for entry in reader.entries()]


def test_a_path_without_a_journal_is_refused(tmp_path: Path) -> None:
    """A missing path raises FileNotFoundError, a directory that is no journal raises JournalError,
    and a symlink raises UnsafePathError. Nothing is made or changed."""
    with pytest.raises(FileNotFoundError):
        JournalReader.open(tmp_path / "missing")
    (tmp_path / "other").mkdir()
    with pytest.raises(JournalError, match="contains no segment, checkpoint or LOCK"):
        JournalReader.open(tmp_path / "other")
    with Journal.open(tmp_path / "j") as journal:
        put(journal, 1)
    (tmp_path / "link").symlink_to(tmp_path / "j")
    with pytest.raises(UnsafePathError, match="symlink"):
        JournalReader.open(tmp_path / "link")
    assert sorted(os.listdir(tmp_path)) == ["j", "link", "other"]
    assert os.listdir(tmp_path / "other") == []


@pytest.mark.parametrize("live", [True, False])
def test_a_reader_takes_no_lock_and_changes_nothing(disk: SimulatedDisk, live: bool) -> None:
    """No call of a reader takes the lock or changes anything."""
    journal = open_on(disk)
    put_lines(journal, 12, size=700)
    journal.compact(frozen(journal, 1))
    if not live:
        journal.close()
    before, done = disk.contents(PATH), list(disk.operations)
    watched = Watched(disk)
    with JournalReader.open(PATH, disk=disk) as reader:
        assert reader.live == live
        assert reader.writer_pid == (disk.pid if live else None)
        assert len(records(reader)) >= 11
        for checkpoint in reader.checkpoints():
            assert list(checkpoint.items()) == [1]
            checkpoint.close()
        reader.segments()
        assert list(reader.verify()) == []
    assert {operation for operation, _ in watched.calls} <= {*get_args(Query)} - {"lock"}
    assert (disk.contents(PATH), disk.operations) == (before, done)
    journal.close()


def test_an_empty_journal_reads_as_empty(disk: SimulatedDisk, reader: JournalReader) -> None:
    """A journal without records can be read, and is empty."""
    assert (records(reader), reader.checkpoints(), reader.segments()) == ([], [], [])
    assert (list(reader.verify()), reader.live) == ([], False)
    assert (reader.journal_id, reader.last_lsn, reader.first_lsns) == (None, 0, [])


def test_a_reader_begins_after_the_second_newest_checkpoint(disk: SimulatedDisk) -> None:
    """P8: The number of checkpoints that a writer keeps is not on disk. So a reader begins after
    the older of the two newest, and a backup contains these two. Older records can be read by their
    LSN."""
    with open_on(disk, checkpoints_kept=5) as journal:
        for n in range(7):
            put_lines(journal, 12, size=700)
            journal.compact(frozen(journal, n))
    kept_lsns = [36, 48, 60, 72, 84]
    with JournalReader.open(PATH, disk=disk) as reader:
        lsns = [entry.lsn for entry in reader.entries()]
        assert lsns == [*range(reader.first_lsns[0], 85)]
        assert reader.first_lsns[0] <= 73 < reader.first_lsns[1]
        assert reader.first_state_lsn == 72
        assert [entry.lsn for entry in reader.entries(kept_lsns[0])] == [*range(37, 85)]
        assert [checkpoint.lsn for checkpoint in reader.checkpoints()] == kept_lsns[::-1]
        preview = reader.preview_recovery()
        assert (preview.refusal, preview.checkpoint_lsn, preview.last_lsn) == (None, 84, 84)
    assert findings(disk) == []
    report = backup(PATH, "/copy", disk=disk)
    assert (report.checkpoints, report.lsn) == (2, 84)
    with Journal.open("/copy", options=options(checkpoints_kept=5), disk=disk) as journal:
        assert journal.last_lsn == 84


def test_a_checkpoint_before_the_first_record_is_no_finding(disk: SimulatedDisk) -> None:
    """P4: A checkpoint before the first record does not prove that records are missing."""
    with open_on(disk) as journal:
        assert journal.compact(frozen(journal)).lsn == 0
    with JournalReader.open(PATH, disk=disk) as reader:
        assert (records(reader), list(reader.verify()), reader.last_lsn) == ([], [], 0)


def test_an_entry_names_its_file_and_offset(disk: SimulatedDisk) -> None:
    """An entry names the file, and the offset of the frame that contains the record."""
    with open_on(disk) as journal:
        put(journal, "a")
        journal.wait_durable(journal.append_batch(["b", "c"]))
        journal_id = journal.journal_id
    with JournalReader.open(PATH, disk=disk) as reader:
        one, two, three = reader.entries()
        assert reader.journal_id == journal_id
        assert (reader.last_lsn, reader.first_lsns, reader.format_version) == (3, [1], 1)
    assert isinstance(one, Entry)
    assert (one.lsn, one.epoch, one.record, one.offset) == (1, 1, "a", 64)
    assert (two.offset, three.offset) == (64 + 44 + 2, 64 + 44 + 2)
    assert one.path == f"{PATH}/{names(disk, '.seg')[0]}"


def test_entries_begin_after_the_given_lsn(disk: SimulatedDisk) -> None:
    """`entries(after)` yields the records after that LSN, and without it all records that are
    kept."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
    with open_on(disk) as journal:
        put_lines(journal, 3, size=700)
    with JournalReader.open(PATH, disk=disk) as reader:
        for after in range(20):
            assert [entry.lsn for entry in reader.entries(after)] == [*range(after + 1, 16)]
        assert [entry.epoch for entry in reader.entries()] == [1] * 12 + [2] * 3
        with pytest.raises(ValueError, match="after must be an LSN, at least 0, not -1"):
            list(reader.entries(-1))


# --- live journals ---


def log_bytes(disk: SimulatedDisk) -> bytes:
    return b"".join(disk.contents(PATH)[name] for name in names(disk, ".seg"))


def test_a_live_journal_shows_records_proved_durable(disk: SimulatedDisk) -> None:
    """P2: A reader shows the records that a durable LSN in the log covers. These may lag by one
    commit until the idle mark. A record that is not durable is never shown."""
    with open_on(disk) as journal:
        put(journal, 1, 2)
        assert read_all(disk)[:1] == [1]
        until(lambda: read_all(disk) == [1, 2], "the idle mark")
        with Held(disk, "sync", ".seg") as held, ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(put, journal, 3)
            held.wait_reached()
            assert read_all(disk) == [1, 2]
            assert findings(disk) == []
            held.release_all()
            waiter.result(TIMEOUT_S)
        until(lambda: read_all(disk) == [1, 2, 3], "the idle mark")


def test_a_live_journal_hides_its_first_record_until_it_is_durable(
    disk: SimulatedDisk,
) -> None:
    """P2: A whole frame is not shown before anything proves that it is durable."""
    with open_on(disk) as journal:
        with Held(disk, "sync", ".seg") as held, ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(put, journal, "first")
            while b"first" not in log_bytes(disk):
                held.wait_reached()
                held.release_one()
            assert read_all(disk) == []
            held.release_all()
            waiter.result(TIMEOUT_S)
        until(lambda: read_all(disk) == ["first"], "the idle mark")


def test_a_live_journal_in_os_mode_shows_every_whole_frame(disk: SimulatedDisk) -> None:
    """With durability `os`, a written frame survives the process, and is shown at once."""
    with open_on(disk, durability="os") as journal:
        for n in range(1, 8):
            put(journal, n)
            assert read_all(disk) == [*range(1, n + 1)]
            assert findings(disk) == []


def test_a_dead_journal_shows_what_recovery_keeps(disk: SimulatedDisk) -> None:
    """P1: A reader of a dead journal shows the same records as recovery keeps, including
    unacknowledged ones."""
    journal = open_on(disk)
    put(journal, 1)
    with Held(disk, "sync", ".seg") as held, ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(put, journal, 2)
        held.wait_reached()
        disk.kill()
        held.release_all()
        assert waiter.exception(TIMEOUT_S) is not None
    crash(journal, disk)
    assert read_all(disk) == [1, 2] == reopened(disk)


def test_the_end_of_a_live_log_is_no_torn_tail(disk: SimulatedDisk) -> None:
    """Zeros, a half-written frame or a half-written mark at the end of a live log are the writer's
    unfinished work. After its death they are a torn tail."""
    journal = open_on(disk)
    put(journal, 1)
    (name,) = names(disk, ".seg")
    end = end_of(disk, name)
    for torn in (b"", b"\1" * 20, b"\1" * 60):
        write_at(disk, name, end, torn)
        assert read_all(disk) in ([], [1])
        assert findings(disk) == []
        assert [info.state for info in infos(disk)] == ["active"]
    crash(journal, disk)
    assert read_all(disk) == [1]
    (finding,) = findings(disk)
    assert (finding.kind, finding.offset, finding.size_bytes) == ("torn_tail", end, 60)


def test_a_live_journal_is_never_reported_as_damaged(disk: SimulatedDisk) -> None:
    """P4: While a writer appends, rolls and compacts, a reader sees no damage, no gap, and no
    record that was not appended."""
    stop = threading.Event()

    def write(journal: Journal) -> None:
        for n in itertools.count():
            if stop.is_set():
                return
            journal.append([n, "x" * (n % 300)])
            if n % 3 == 0:
                journal.wait_durable(timeout_s=TIMEOUT_S)
            if n % 100 == 99:
                journal.compact(frozen(journal))

    pool = ThreadPoolExecutor(1)
    with open_on(disk, flush_interval_s=0.002, segment_bytes=8192) as journal, pool:
        writing = pool.submit(write, journal)
        until(lambda: journal.durable_lsn > 10, "the first records")
        with JournalReader.open(PATH, disk=disk) as reader:
            for _ in range(40):
                assert list(reader.verify()) == []
                try:
                    entries = list(reader.entries())
                except CompactedError:  # compacted while the reader read
                    continue
                assert [e.lsn for e in entries] == [e.record[0] + 1 for e in entries]
                assert {info.state for info in reader.segments()} <= {"active", "sealed"}
        stop.set()
        writing.result(TIMEOUT_S)
    assert findings(disk) == []


def test_a_reader_sees_the_writer_of_another_process(tmp_path: Path) -> None:
    """`live` and the writer's pid come from the system's locks, without taking the lock."""
    script = (
        "import sys\n"
        "from journal import Journal\n"
        "journal = Journal.open(sys.argv[1])\n"
        "journal.wait_durable(journal.append(1))\n"
        "print('open', flush=True)\n"
        "sys.stdin.readline()\n"
        "journal.close()\n"
        "print('closed', flush=True)\n"
        "sys.stdin.readline()\n"
    )
    with child(script, tmp_path / "j") as writer:
        assert line_of(writer) == "open"
        with JournalReader.open(tmp_path / "j") as reader:
            assert (reader.writer_pid, reader.live) == (writer.pid, True)
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
            assert line_of(writer) == "closed"
            assert (reader.writer_pid, reader.live) == (None, False)
            assert records(reader) == [1]
