"""JournalReader: what is seen from outside, of a living journal and of a dead one."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journal import (
    CompactedError,
    CorruptionError,
    Entry,
    Finding,
    Journal,
    JournalError,
    JournalReader,
    SegmentInfo,
    UnsafePathError,
)
from journal.frame import checksum
from journal.testing import SimulatedDisk, lose
from journal.testing.disk import Look
from tests.independent_reader import decode_segment
from tests.support import (
    PATH,
    TIMEOUT_S,
    Held,
    Watched,
    child,
    crash,
    end_of,
    frozen,
    line_of,
    names,
    open_on,
    put,
    put_lines,
    read_all,
    reopened,
    until,
    write_at,
)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


@pytest.fixture
def reader(disk: SimulatedDisk) -> Iterator[JournalReader]:
    open_on(disk).close()
    with JournalReader.open(PATH, disk=disk) as reader:
        yield reader


def records(reader: JournalReader, after: int | None = None) -> list[Any]:
    return [entry.record for entry in reader.entries(after)]


def findings(disk: SimulatedDisk) -> list[Finding]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return list(reader.verify())


def infos(disk: SimulatedDisk) -> list[SegmentInfo]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return reader.segments()


def copy_to(disk: SimulatedDisk, old: str, new: str) -> None:
    data = disk.contents(PATH)[old]
    disk.open_directory(PATH, write=True).open(new, "create").write(data, 0)


# --- opening ---


def test_what_is_no_journal_is_refused(tmp_path: Path) -> None:
    """Missing: FileNotFoundError; another directory: JournalError that says what is missing; a
    symlink: UnsafePathError. Nothing is made or changed."""
    with pytest.raises(FileNotFoundError):
        JournalReader.open(tmp_path / "missing")
    (tmp_path / "other").mkdir()
    with pytest.raises(JournalError, match="not a journal: no segment, checkpoint or LOCK in it"):
        JournalReader.open(tmp_path / "other")
    with Journal.open(tmp_path / "j") as journal:
        put(journal, 1)
    (tmp_path / "link").symlink_to(tmp_path / "j")
    with pytest.raises(UnsafePathError, match="symlink"):
        JournalReader.open(tmp_path / "link")
    assert sorted(os.listdir(tmp_path)) == ["j", "link", "other"]
    assert os.listdir(tmp_path / "other") == []


@pytest.mark.parametrize("live", [True, False])
def test_a_reader_only_looks(disk: SimulatedDisk, live: bool) -> None:
    """It takes no lock and changes nothing, whatever it is asked."""
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
    assert {operation for operation, _ in watched.calls} <= {*get_args(Look)} - {"lock"}
    assert (disk.contents(PATH), disk.operations) == (before, done)
    journal.close()


def test_an_empty_journal_reads_as_empty(disk: SimulatedDisk, reader: JournalReader) -> None:
    """A journal that nobody has written to is one all the same."""
    assert (records(reader), reader.checkpoints(), reader.segments()) == ([], [], [])
    assert (list(reader.verify()), reader.live) == ([], False)
    assert (reader.journal_id, reader.last_lsn, reader.first_lsns) == (None, 0, [])


def test_an_entry_has_its_place_in_the_files(disk: SimulatedDisk) -> None:
    """A reader's entries name the file, and the offset of the frame that the record is in."""
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


def test_entries_after_an_lsn(disk: SimulatedDisk) -> None:
    """None: all that are kept; otherwise those after that LSN, none past the end."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
    with open_on(disk) as journal:
        put_lines(journal, 3, size=700)
    with JournalReader.open(PATH, disk=disk) as reader:
        for after in range(20):
            assert [entry.lsn for entry in reader.entries(after)] == [*range(after + 1, 16)]
        assert [entry.epoch for entry in reader.entries()] == [1] * 12 + [2] * 3
        with pytest.raises(ValueError, match="after must be an LSN, or 0, not -1"):
            list(reader.entries(-1))


# --- of the living ---


def test_of_a_live_journal_what_has_a_witness_is_shown(disk: SimulatedDisk) -> None:
    """P2: records that a durable LSN in the log covers: it may trail by a commit, which the idle
    mark makes good; what is not durable is never shown."""
    with open_on(disk) as journal:
        put(journal, 1, 2)
        assert read_all(disk)[:1] == [1]
        until(lambda: read_all(disk) == [1, 2], "the idle mark")
        with Held(disk, "sync", ".seg") as held, ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(put, journal, 3)
            held.wait_reached()
            assert read_all(disk) == [1, 2]
            assert findings(disk) == []
            held.let_all()
            waiter.result(TIMEOUT_S)
        until(lambda: read_all(disk) == [1, 2, 3], "the idle mark")


def test_of_a_live_journal_in_os_mode_every_whole_frame_is_shown(disk: SimulatedDisk) -> None:
    """With durability "os" a written frame has survived the process: it is shown at once."""
    with open_on(disk, durability="os") as journal:
        for n in range(1, 8):
            put(journal, n)
            assert read_all(disk) == [*range(1, n + 1)]
            assert findings(disk) == []


def test_of_a_dead_journal_what_recovery_would_keep_is_shown(disk: SimulatedDisk) -> None:
    """P1: also frames that nobody was told are durable; and recovery keeps just these."""
    journal = open_on(disk)
    put(journal, 1)
    with Held(disk, "sync", ".seg") as held, ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(put, journal, 2)
        held.wait_reached()
        disk.kill()
        held.let_all()
        assert waiter.exception(TIMEOUT_S) is not None
    crash(journal, disk)
    assert read_all(disk) == [1, 2] == reopened(disk)


def test_the_space_ahead_of_a_live_log_is_no_torn_tail(disk: SimulatedDisk) -> None:
    """Zeros, a half-written frame and a half-written mark are the writer's business, while it
    lives; afterwards they are a torn tail."""
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


def test_a_live_journal_is_never_called_damaged(disk: SimulatedDisk) -> None:
    """P4: verify, entries and segments, again and again beside a writer that appends, rolls and
    compacts: no finding, no gap, nothing that was not appended."""
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
                    shown = list(reader.entries())
                except CompactedError:  # while it read
                    continue
                assert [e.lsn for e in shown] == [e.record[0] + 1 for e in shown]
                assert {info.state for info in reader.segments()} <= {"active", "sealed"}
        stop.set()
        writing.result(TIMEOUT_S)
    assert findings(disk) == []


def test_a_writer_of_another_process_is_seen(tmp_path: Path) -> None:
    """`live` is told from the system's locks, with the pid, and never by taking the lock."""
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


# --- following ---


class Follower:
    """Collects what `entries(follow=True)` yields, in a thread of its own."""

    def __init__(self, reader: JournalReader, after: int | None = None) -> None:
        self.entries: list[Entry] = []
        self.error: Exception | None = None
        self._reader = reader
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(after,))
        self._thread.start()

    def _run(self, after: int | None) -> None:
        try:
            for entry in self._reader.entries(after, follow=True):
                self.entries.append(entry)
                if self._stop.is_set():
                    return
        except Exception as error:
            self.error = error

    def reaches(self, lsn: int) -> None:
        until(
            lambda: self.error or (self.entries and self.entries[-1].lsn >= lsn),
            f"the follower's reaching LSN {lsn}",
        )
        assert self.error is None

    def end(self) -> None:
        """With the next record; to be called before that is written."""
        self._stop.set()

    def join(self) -> list[Entry]:
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        self._reader.close()
        return self.entries


LIFE = """
import os, sys
from journal import Journal, Options
options = Options(flush_interval_s=3600, segment_bytes=4096, checkpoint_min_bytes=1 << 30)
journal = Journal.open(sys.argv[1], options=options)
for n in range(14):
    lsn = journal.append([journal.last_lsn + 1, "x" * 700])
    journal.wait_durable(lsn)
print(lsn, flush=True)
sys.stdin.readline()
journal.compact(lambda: (lsn, []))
for n in range(2):
    lsn = journal.append([journal.last_lsn + 1, "x" * 700])
    journal.wait_durable(lsn)
if sys.argv[2] == "close":
    journal.close()
print(lsn, flush=True)
os._exit(0)
"""


def test_following_over_rolls_restarts_and_compaction(tmp_path: Path) -> None:
    """P1: each record once, in order, whatever becomes of the files behind the reader and of the
    writer: rolls, clean closes, deaths, torn tails, compactions."""
    path = tmp_path / "j"
    Journal.open(path).close()
    follower = Follower(JournalReader.open(path))
    for how in ("close", "die", "close", "die"):
        with child(LIFE, path, how) as writer:
            follower.reaches(int(line_of(writer)) - 1)
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
            last_lsn = int(line_of(writer))
            writer.wait(TIMEOUT_S)
        if how == "die":
            last = max(path.glob("*.seg"))
            end = len(last.read_bytes()) - len(decode_segment(last.read_bytes()).rest)
            with last.open("r+b") as file:
                file.seek(end)
                file.write(b"torn")
        follower.reaches(last_lsn)
    follower.end()
    with Journal.open(path) as journal:
        put(journal, [journal.last_lsn + 1, ""])
    entries = follower.join()
    assert [entry.lsn for entry in entries] == [*range(1, 4 * 16 + 2)]
    assert [entry.record[0] for entry in entries] == [entry.lsn for entry in entries]
    assert [entry.epoch for entry in entries] == sorted(entry.epoch for entry in entries)
    assert {entry.epoch for entry in entries} == {1, 2, 3, 4, 5}


def test_following_from_an_lsn_that_is_still_to_come(disk: SimulatedDisk) -> None:
    """`after` may be the last LSN, or lie ahead; the follower waits for what comes after it."""
    with open_on(disk) as journal:
        put_lines(journal, 2)
        follower = Follower(JournalReader.open(PATH, disk=disk), after=4)
        put_lines(journal, 4)
        follower.reaches(6)
        follower.end()
        put_lines(journal, 1)
        assert [entry.lsn for entry in follower.join()] == [5, 6, 7]


def test_following_a_journal_from_its_beginning(disk: SimulatedDisk) -> None:
    """An empty journal can be followed: the first record is the first to come."""
    journal = open_on(disk)
    follower = Follower(JournalReader.open(PATH, disk=disk))
    follower.end()
    put(journal, "first")
    assert [entry.record for entry in follower.join()] == ["first"]
    journal.close()


def test_a_follower_that_falls_behind_is_told(disk: SimulatedDisk) -> None:
    """P1: what compaction took from it is CompactedError, with the first LSN that is kept; no
    record is left out in silence."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        with JournalReader.open(PATH, disk=disk) as reader:
            entries = reader.entries(follow=True)
            seen = [next(entries).lsn for _ in range(2)]
            for _ in range(2):
                put_lines(journal, 12, size=700)
                journal.compact(frozen(journal))
            with pytest.raises(CompactedError, match="no longer kept") as caught:
                seen += [entry.lsn for entry in entries]
            assert seen == [*range(1, len(seen) + 1)]
            assert caught.value.first_lsn > len(seen) + 1
            shown = [entry.lsn for entry in reader.entries(caught.value.first_lsn - 1)]
            assert shown[0] == caught.value.first_lsn
            with pytest.raises(CompactedError):
                list(reader.entries(0))


def test_following_meets_damage(disk: SimulatedDisk) -> None:
    """P4: damage to what was durable ends the following with its place, after what is good."""
    with open_on(disk) as journal:
        put(journal, 1, 2, 3)
        until(lambda: read_all(disk) == [1, 2, 3], "the mark")
        with JournalReader.open(PATH, disk=disk) as reader:
            offset = [entry.offset for entry in reader.entries()][1]
            assert offset is not None
            write_at(disk, names(disk, ".seg")[0], offset + 44, b"\xff")
            entries = reader.entries(follow=True)
            assert next(entries).record == 1
            with pytest.raises(CorruptionError) as caught:
                next(entries)
            assert (caught.value.offset, caught.value.lsn) == (offset, 2)
            (finding,) = reader.verify()
            assert (finding.kind, finding.offset, finding.lsn) == ("corruption", offset, 2)
            (info,) = reader.segments()
            assert (info.state, info.last_lsn) == ("damaged", 1)


# --- what verify says ---


def test_a_sound_journal_has_no_findings(disk: SimulatedDisk) -> None:
    """P4: nothing is said of a journal with segments, epochs and checkpoints in good order."""
    for _ in range(4):
        with open_on(disk) as journal:
            put_lines(journal, 12, size=700)
            journal.compact(frozen(journal, 1, 2))
            put_lines(journal, 3)
    assert findings(disk) == []


def test_segments_tell_what_they_hold(disk: SimulatedDisk) -> None:
    """Epoch, LSNs, frames, sizes, durable LSN and state of each: sealed, torn, active."""
    with open_on(disk) as journal:
        put_lines(journal, 5, size=900)
    journal = open_on(disk)
    put(journal, "two")
    crash(journal, disk)
    write_at(disk, names(disk, ".seg")[-1], end_of(disk, names(disk, ".seg")[-1]), b"torn")
    with open_on(disk) as journal:
        journal.wait_durable(journal.append_batch(["three", "four"]))
        one, two, three, four = infos(disk)
        sizes = [len(disk.contents(PATH)[name]) for name in names(disk, ".seg")]
    assert [info.path for info in (one, two, three, four)] == [
        f"{PATH}/{name}" for name in names(disk, ".seg")
    ]
    assert [info.size_bytes for info in (one, two, three, four)] == sizes
    assert (one.epoch, one.first_lsn, one.last_lsn, one.frames, one.state) == (1, 1, 4, 4, "sealed")
    assert (two.first_lsn, two.last_lsn, two.frames, two.durable_lsn) == (5, 5, 1, 5)
    assert (three.epoch, three.first_lsn, three.last_lsn, three.state) == (2, 6, 6, "torn")
    assert (four.epoch, four.first_lsn, four.last_lsn, four.frames) == (3, 7, 8, 1)
    assert four.state == "active"
    assert infos(disk)[-1].state == "sealed"


def test_an_empty_segment_says_so(disk: SimulatedDisk) -> None:
    """`last_lsn` is 0 where a segment holds no record: its first commit was lost."""
    journal = open_on(disk)
    put(journal, 1)
    crash(journal, disk)
    (name,) = names(disk, ".seg")
    write_at(disk, name, 64, bytes(44))
    (info,) = infos(disk)
    assert (info.first_lsn, info.last_lsn, info.frames) == (1, 0, 0)


@pytest.mark.parametrize("marked", [True, False])
def test_a_torn_tail_is_found(disk: SimulatedDisk, marked: bool) -> None:
    """Its file, offset, the LSN at which the log goes on, and its size; also once the next epoch
    has gone on behind it."""
    journal = open_on(disk)
    put(journal, 1, 2)
    if marked:
        until(lambda: read_all(disk) == [1, 2], "the mark")
    crash(journal, disk)
    (name,) = names(disk, ".seg")
    end = end_of(disk, name)
    write_at(disk, name, end + 2, b"torn")
    torn = [Finding("torn_tail", f"{PATH}/{name}", end, 3, 6, findings(disk)[0].message)]
    assert findings(disk) == torn
    assert "the log goes on at LSN 3" in torn[0].message
    assert [info.state for info in infos(disk)] == ["torn"]
    with open_on(disk) as journal:
        put(journal, 3)
    assert findings(disk) == torn
    assert [info.state for info in infos(disk)] == ["torn", "sealed"]
    assert read_all(disk) == [1, 2, 3]


def test_a_dead_frame_behind_the_cut_is_a_torn_tail(disk: SimulatedDisk) -> None:
    """P1: a whole frame that the next epoch's segment cut off is no part of the log, and found."""
    journal = open_on(disk)
    put(journal, 1)
    until(lambda: read_all(disk) == [1], "the mark")
    copy = SimulatedDisk()
    directory = copy.open_directory(PATH, write=True)
    (name,) = names(disk, ".seg")
    directory.open(name, "create").write(disk.contents(PATH)[name].rstrip(b"\0"), 0)
    put(journal, "never acknowledged")
    crash(journal, disk)
    with open_on(copy) as journal:
        put(journal, 2)
    # What one disk made of the last frame, and the other of the opening after it.
    directory.open(name, "update").write(disk.contents(PATH)[name].rstrip(b"\0"), 0)
    assert read_all(copy) == [1, 2] == reopened(copy)
    (finding,) = findings(copy)
    assert (finding.kind, finding.lsn, finding.path) == ("torn_tail", 2, f"{PATH}/{name}")


def corruptions() -> Iterator[tuple[str, Any]]:
    yield "payload", lambda disk, segments: write_at(disk, segments[0], 64 + 44 + 5, b"\xff\xff")
    yield "header", lambda disk, segments: write_at(disk, segments[0], 64 + 10, b"\xff\xff")
    yield "segment header", lambda disk, segments: write_at(disk, segments[0], 20, b"\xff\xff")
    yield "magic", lambda disk, segments: write_at(disk, segments[1], 0, b"\0")
    yield "zeros", lambda disk, segments: write_at(disk, segments[0], 64, bytes(900))
    yield "missing", lambda disk, segments: remove(disk, segments[1])
    yield "misnamed", lambda disk, segments: copy_to(disk, segments[0], f"{3:020d}-{1:010d}.seg")
    yield "cut", lambda disk, segments: cut(disk, segments[0])
    yield "empty", lambda disk, segments: cut(disk, segments[1], 0)


def remove(disk: SimulatedDisk, name: str) -> None:
    disk.open_directory(PATH, write=True).remove(name)


def cut(disk: SimulatedDisk, name: str, size: int = 1500) -> None:
    disk.open_directory(PATH, write=True).open(name, "update").truncate(size)


@pytest.mark.parametrize(("harm"), [harm for _, harm in corruptions()], ids=dict(corruptions()))
def test_corruption_is_found_where_open_finds_it(disk: SimulatedDisk, harm: Any) -> None:
    """P4: verify names the same place and LSN that open refuses with, and changes nothing; a reader
    yields what is good before it, then raises the same."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
    harm(disk, names(disk, ".seg"))
    before = disk.contents(PATH)
    with pytest.raises(CorruptionError) as refused:
        open_on(disk)
    assert disk.contents(PATH) == before
    found = [finding for finding in findings(disk) if finding.kind == "corruption"]
    places = [(finding.path, finding.offset, finding.lsn) for finding in found]
    assert (refused.value.path, refused.value.offset, refused.value.lsn) in places
    assert "damaged" in {info.state for info in infos(disk)}
    good: list[Any] = []
    with JournalReader.open(PATH, disk=disk) as reader, pytest.raises(CorruptionError) as seen:
        good += (entry.record[0] for entry in reader.entries(0))
    assert good == [*range(1, len(good) + 1)]
    assert (seen.value.path, seen.value.offset) == (refused.value.path, refused.value.offset)


def test_a_log_that_is_gone_is_found(disk: SimulatedDisk) -> None:
    """P4: a checkpoint proves that there was a log; without any segment it is missing."""
    with open_on(disk) as journal:
        put(journal, 1, 2)
        journal.compact(frozen(journal, 1))
    remove(disk, names(disk, ".seg")[0])
    with pytest.raises(CorruptionError) as refused:
        open_on(disk)
    (finding,) = findings(disk)
    assert (finding.kind, finding.message) == ("corruption", refused.value.what)
    assert (finding.path, finding.lsn) == (refused.value.path, refused.value.lsn) == (PATH, 1)


HARM = st.one_of(
    st.tuples(st.just("write"), st.floats(0, 1), st.binary(min_size=1, max_size=50)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.just(b"")),
    st.tuples(st.just("remove"), st.just(0.0), st.just(b"")),
)


@given(harms=st.lists(st.tuples(st.integers(0, 20), HARM), min_size=1, max_size=3))
def test_verify_finds_whatever_open_refuses(
    harms: list[tuple[int, tuple[str, float, bytes]]],
) -> None:
    """P4: if open refuses, verify names the same file, offset and LSN; if it does not, verify finds
    no corruption in what open needed; and nobody raises anything else."""
    disk = SimulatedDisk()
    for _ in range(2):
        with open_on(disk) as journal:
            put_lines(journal, 4, size=300)
            journal.compact(frozen(journal, 1, 2))
            put_lines(journal, 8, size=700)
    for number, (harm, where, data) in harms:
        files = [*names(disk, ".seg"), *names(disk, ".json")]
        name = files[number % len(files)]
        size = len(disk.contents(PATH)[name])
        if harm == "write" and size:
            write_at(disk, name, min(int(where * size), size - 1), data)
        elif harm == "cut":
            cut(disk, name, int(where * size))
        elif harm == "remove":
            remove(disk, name)
    found = {(f.path, f.offset, f.lsn) for f in findings(disk) if f.kind == "corruption"}
    try:
        with open_on(disk) as journal:
            base_lsn = journal.checkpoint.lsn if journal.checkpoint else 0
    except CorruptionError as error:
        refused = (error.path, error.offset, error.lsn)
        assert refused in found
    else:
        assert all(0 < lsn <= base_lsn for _, _, lsn in found)


def test_a_bad_checkpoint_is_found(disk: SimulatedDisk) -> None:
    """A checkpoint that does not verify is a finding of its own; the journal may be sound."""
    with open_on(disk) as journal:
        put(journal, 1)
        journal.compact(frozen(journal, {"id": 1}))
        put(journal, 2)
        journal.compact(frozen(journal, {"id": 2}))
    old, new = names(disk, ".json")
    write_at(disk, new, 10, b"?")
    (finding,) = findings(disk)
    assert (finding.kind, finding.path, finding.lsn) == ("bad_checkpoint", f"{PATH}/{new}", 2)
    data = disk.contents(PATH)[old].replace(b'{"id":1}', b'{"id":1!')
    body, _, _ = data.rpartition(b'"count"')
    data = body + b'"count":1,"crc32c":"%08x"}\n' % checksum(body)
    write_at(disk, old, 0, data)
    first, _ = findings(disk)
    assert (first.kind, first.path, first.offset) == (
        "bad_checkpoint", f"{PATH}/{old}", data.index(b'{"id":1!')
    )  # fmt: skip
    with JournalReader.open(PATH, disk=disk) as reader:
        (checkpoint,) = reader.checkpoints()
        assert checkpoint.lsn == 1
        checkpoint.close()


def test_strays_are_found(disk: SimulatedDisk) -> None:
    """Files that are not the journal's, and what a crash left half-made; of a live journal the
    half-made ones are the writer's."""
    with open_on(disk) as journal:
        put(journal, 1)
    directory = disk.open_directory(PATH, write=True)
    directory.open("notes.txt", "create")
    directory.open("checkpoint-1.json", "create")
    directory.open(f"{9:020d}-{9:010d}.seg.tmp", "create")
    found = findings(disk)
    assert {finding.kind for finding in found} == {"stray"}
    assert {finding.path.rpartition("/")[2]: finding.message for finding in found} == {
        "notes.txt": "not the journal's",
        "checkpoint-1.json": "not the journal's",
        f"{9:020d}-{9:010d}.seg.tmp": "left unfinished by a crash",
    }
    with open_on(disk):
        assert names(disk, ".tmp") == []  # cleared away
        directory.open("x.json.tmp", "create")
        assert len(findings(disk)) == 2


def test_leftovers_of_a_removal_are_no_damage(disk: SimulatedDisk) -> None:
    """P4: segments that no checkpoint needs any more may have gaps between them: no finding, and
    open removes them."""
    with open_on(disk) as journal:
        for n in range(2):
            put_lines(journal, 20, size=700)
            if n == 0:
                kept = {name: disk.contents(PATH)[name] for name in names(disk, ".seg")}
            journal.compact(frozen(journal, 1))
            put_lines(journal, 1)
        gone = [name for name in kept if name not in names(disk, ".seg")]
        assert len(gone) >= 3
    directory = disk.open_directory(PATH, write=True)
    for name in gone[::2]:
        directory.open(name, "create").write(kept[name], 0)
    assert findings(disk) == []
    shown = [entry[0] for entry in read_all(disk)]
    assert shown == [*range(shown[0], 43)]
    open_on(disk).close()
    assert not {*gone} & {*names(disk, ".seg")}


def test_a_foreign_segment_is_found(disk: SimulatedDisk) -> None:
    """P1, P4: a segment of another journal is corruption, with both ids told apart."""
    other = SimulatedDisk()
    for each, ids in ((disk, 1), (other, 2)):
        for _ in range(ids):
            each.new_id()
        for _ in range(2):
            with open_on(each) as journal:
                put(journal, 1, 2)
    _, second = names(other, ".seg")
    write_at(disk, second, 0, other.contents(PATH)[second])
    with pytest.raises(CorruptionError, match="a segment of another journal"):
        open_on(disk)
    (finding,) = findings(disk)
    assert (finding.kind, finding.path) == ("corruption", f"{PATH}/{second}")


def test_findings_under_os_durability(disk: SimulatedDisk) -> None:
    """P2: after a power cut with durability "os" the lost end is a torn tail at most, and what was
    synced is there."""
    journal = open_on(disk, durability="os")
    put(journal, 1, 2)
    journal.compact(frozen(journal, "as of 2"))
    put(journal, 3, 4, 5)

    def outcome(change: Any) -> bytes | None:
        return None if b"\x04" in change.data else lose(change) or change.data

    disk.power_cut(outcome)
    crash(journal, disk)
    shown = read_all(disk)
    assert shown[:2] == [1, 2]
    assert {finding.kind for finding in findings(disk)} <= {"torn_tail"}
    assert reopened(disk) == shown
