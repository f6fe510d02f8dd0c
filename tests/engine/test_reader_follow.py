"""JournalReader: following a live writer across new segments, restarts and compactions."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from journal import (
    CompactedError,
    CorruptionError,
    Entry,
    Journal,
    JournalReader,
)
from journal.testing import SimulatedDisk
from tests.independent_reader import decode_segment
from tests.support import (
    PATH,
    TIMEOUT_S,
    child,
    frozen,
    line_of,
    names,
    open_on,
    put,
    put_lines,
    read_all,
    until,
    write_at,
)


class Follower:
    """A thread that collects what `entries(follow=True)` yields."""

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

    def wait_until(self, lsn: int) -> None:
        until(
            lambda: self.error or (self.entries and self.entries[-1].lsn >= lsn),
            f"the follower reaches LSN {lsn}",
        )
        assert self.error is None

    def end(self) -> None:
        """Stop the thread at the next record. Call it before that record is written."""
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


def test_following_across_segments_restarts_and_compactions(tmp_path: Path) -> None:
    """P1: A follower gets each record once and in order, across new segments, clean closes, deaths,
    torn tails and compactions."""
    path = tmp_path / "j"
    Journal.open(path).close()
    follower = Follower(JournalReader.open(path))
    for ending in ("close", "die", "close", "die"):
        with child(LIFE, path, ending) as writer:
            follower.wait_until(int(line_of(writer)) - 1)
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
            last_lsn = int(line_of(writer))
            writer.wait(TIMEOUT_S)
        if ending == "die":
            last = max(path.glob("*.seg"))
            end = len(last.read_bytes()) - len(decode_segment(last.read_bytes()).rest)
            with last.open("r+b") as file:
                file.seek(end)
                file.write(b"torn")
        follower.wait_until(last_lsn)
    follower.end()
    with Journal.open(path) as journal:
        put(journal, [journal.last_lsn + 1, ""])
    entries = follower.join()
    assert [entry.lsn for entry in entries] == [*range(1, 4 * 16 + 2)]
    assert [entry.record[0] for entry in entries] == [entry.lsn for entry in entries]
    assert [entry.epoch for entry in entries] == sorted(entry.epoch for entry in entries)
    assert {entry.epoch for entry in entries} == {1, 2, 3, 4, 5}


def test_following_from_a_future_lsn(disk: SimulatedDisk) -> None:
    """P1: If `after` is the last LSN or a later one, the follower waits for the record after it."""
    with open_on(disk) as journal:
        put_lines(journal, 2)
        follower = Follower(JournalReader.open(PATH, disk=disk), after=4)
        put_lines(journal, 4)
        follower.wait_until(6)
        follower.end()
        put_lines(journal, 1)
        assert [entry.lsn for entry in follower.join()] == [5, 6, 7]


def test_following_a_journal_from_its_beginning(disk: SimulatedDisk) -> None:
    """A follower of an empty journal gets its first record."""
    journal = open_on(disk)
    follower = Follower(JournalReader.open(PATH, disk=disk))
    follower.end()
    put(journal, "first")
    assert [entry.record for entry in follower.join()] == ["first"]
    journal.close()


def test_a_follower_that_falls_behind_gets_an_error(disk: SimulatedDisk) -> None:
    """P1: If compaction removed records that a follower has not read, it raises CompactedError with
    the first LSN that is kept. No record is skipped silently."""
    with open_on(disk) as journal:
        put_lines(journal, 12, size=700)
        with JournalReader.open(PATH, disk=disk) as reader:
            entries = reader.entries(follow=True)
            lsns_read = [next(entries).lsn for _ in range(2)]
            for _ in range(2):
                put_lines(journal, 12, size=700)
                journal.compact(frozen(journal))
            with pytest.raises(CompactedError, match="no longer kept") as caught:
                lsns_read += [entry.lsn for entry in entries]
            assert lsns_read == [*range(1, len(lsns_read) + 1)]
            assert caught.value.first_lsn > len(lsns_read) + 1
            kept_lsns = [entry.lsn for entry in reader.entries(caught.value.first_lsn - 1)]
            assert kept_lsns[0] == caught.value.first_lsn
            with pytest.raises(CompactedError):
                list(reader.entries(0))


def test_following_reports_damage(disk: SimulatedDisk) -> None:
    """P4: Damage to durable records ends the following with CorruptionError, after the good
    records."""
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
            assert (info.state, info.last_lsn) == ("damaged", 3)
            assert info.unreadable == ((2, 2),)
