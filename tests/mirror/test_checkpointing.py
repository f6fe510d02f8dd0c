"""Checkpoints in a mirror: what they cover goes, and each moment that is kept can be restored."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import pytest

from journal import CompactedError, Journal, JournalReader
from journal._disk.posix import PosixDisk
from journal._mirror.blobs import checkpoint_names, roll_up_names
from journal._mirror.entry import CHECKPOINT, CLAIM, MirrorDamageError
from journal._mirror.holding import Holding
from journal._mirror.memory_store import MemoryStore
from journal._mirror.reading import BEGINNING, read_entry, read_log
from journal._mirror.restoring import Target, restore_into
from journal._mirror.unshipped import Unshipped
from journal._mirror.upkeep import Upkeep
from journal.errors import utc_text
from tests.mirror.shipping_support import SMALL, TIMEOUT_S, Mirrored, needed_roll_ups, segments_in
from tests.mirror.test_claiming import claimer
from tests.mirror.world import STATEMENT


class Counter:
    """A mirrored journal whose state is the number of its records. A few of them fill a segment."""

    def __init__(self, mirrored: Mirrored) -> None:
        self.mirrored = mirrored
        self.journal = mirrored.journal

    def add(self, count: int = 1) -> int:
        """Commit records, two at a time, and return the LSN of the last one."""
        for _ in range(count):
            lsn = self.journal.append(b"x" * 400)
            if lsn % 2 == 0:
                self.journal.wait_durable(lsn)
        self.journal.wait_durable(lsn)
        return lsn

    def compact(self) -> int:
        """Compact the journal, and return the LSN of its checkpoint."""
        lsn = self.journal.last_lsn
        compactor = self.journal._core.compactor
        compactor.compact(lambda: (lsn, iter([{"count": lsn}]))).close()
        return lsn

    def ship(self) -> None:
        assert self.mirrored.shipper.wait(self.journal.last_lsn, TIMEOUT_S)

    def rounds(self, count: int) -> list[int]:
        """Add records and compact, again and again. Return the LSNs of the checkpoints."""
        lsns = []
        for _ in range(count):
            for count in (2, 12):  # so that entries come before the last one, and are trimmed
                self.add(count)
                self.ship()
            lsns.append(self.compact())
            self.mirrored.settle()
        return lsns

    def close(self) -> None:
        self.mirrored.close()
        assert self.mirrored.failures == []


def counter_at(path: Path, store: MemoryStore, **options: Any) -> Counter:
    return Counter(Mirrored(path, store, SMALL, **options))


def count_in(path: Path) -> tuple[int, int]:
    """Return the LSN and the state of a journal, as an open finds it."""
    with Journal.open(path, options=SMALL) as journal:
        checkpoint = journal.checkpoint
        items: Any = list(checkpoint.items()) if checkpoint else []
        base = items[0]["count"] if items else 0
        return journal.last_lsn, base + sum(1 for _ in journal.replay())


def test_a_restore_begins_at_a_checkpoint(tmp_path: Path) -> None:
    """A mirror of a journal that compacts is restored from its two newest checkpoints and the log
    after the older one. The journal itself has the same files, but perhaps the first."""
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store)
    lsns = counter.rounds(5)
    counter.add(7)
    counter.ship()
    counter.close()
    assert [name.lsn for name in checkpoint_names(store.blob_names())][-2:] == lsns[-2:]
    report = restore_into(store, tmp_path / "b")
    assert (report.lsn, report.mirrored_lsn, report.checkpoints) == (77, 77, 2)
    own, restored = segments_in(tmp_path / "a"), segments_in(tmp_path / "b")
    assert own == {name: restored[name] for name in own}
    assert len(restored) <= len(own) + 1
    assert count_in(tmp_path / "b") == (77, 77)


def test_what_two_checkpoints_cover_is_removed(tmp_path: Path) -> None:
    """With `keep_s=0`, a mirror has two checkpoints and the log after the older one, however long
    the journal lives. Claims stay, and the mirror is restored as ever."""
    store = MemoryStore()
    sizes = []
    for number in range(3):
        counter = counter_at(tmp_path / "a", store, keep_s=0)
        counter.rounds(6)
        counter.close()
        checkpoints = checkpoint_names(store.blob_names())
        sizes.append(len(store.blob_names()) + len(store.numbers(0)) - 2 * number)
        kinds = {n: read_entry(store, n).kind for n in store.numbers(0)}
        below = {kind for n, kind in kinds.items() if n <= checkpoints[0].number}
        assert (len(checkpoints), below) == (2, {CLAIM})
        assert sum(kind == CLAIM for kind in kinds.values()) == number + 1
        assert all(name.last > checkpoints[0].number for name in roll_up_names(store.blob_names()))
        restore_into(store, tmp_path / f"b{number}")
        assert count_in(tmp_path / f"b{number}") == (84 * (number + 1),) * 2
    assert max(sizes) < 30


def test_removals_read_no_entries_of_their_own_writer(tmp_path: Path) -> None:
    """A writer knows which of its entries may go. It reads only those of earlier writers, once, to
    find the claims among them. What the newest checkpoints do not cover stays."""
    store = MemoryStore()
    before = counter_at(tmp_path / "a", store, keep_s=0)
    before.rounds(1)
    before.close()
    asked, entry, listed, numbers = list[int](), store.entry, list[int](), store.numbers
    reader = MemoryStore()
    reader._entries, reader._blobs = store._entries, store._blobs
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    claim = counter.mirrored.shipper._linked.appender.claimed.number
    store.entry = lambda number: asked.append(number) or entry(number)  # type: ignore[func-returns-value,method-assign]
    store.numbers = lambda after: listed.append(after) or numbers(after)  # type: ignore[func-returns-value,method-assign]
    counter.rounds(4)
    for _ in range(3):  # in one segment, whose entries are not rolled up yet
        counter.add(2)
        counter.ship()
        counter.compact()
        counter.mirrored.settle()
        restore_into(reader, tmp_path / f"b{counter.journal.last_lsn}")
    counter.close()
    others = [number for number in asked if number != claim]  # a blob goes up only if that is there
    assert (listed, len(others)) == ([0], len(set(others)))
    assert max(asked) == claim


def test_each_lsn_that_is_kept_can_be_restored(tmp_path: Path) -> None:
    """A restore to an LSN ends with the commit that holds it, and has the state as of that LSN. It
    calls `mark` if the mirror has later records."""
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store)
    counter.rounds(5)
    counter.add(3)
    counter.ship()
    counter.close()
    end, marks = counter.journal.last_lsn, list[int]()
    for lsn in [1, 2, 5, 13, 14, 15, 28, 29, 56, 57, 70, end - 1, end]:
        path = tmp_path / f"b{lsn}"
        marks.clear()
        report = restore_into(store, path, Target(lsn=lsn), mark=lambda _, at: marks.append(at))
        expected = min(lsn + lsn % 2, end)
        assert (report.lsn, report.mirrored_lsn) == (expected, end)
        assert marks == ([expected] if expected < end else [])
        with JournalReader.open(path) as reader:
            assert reader.last_lsn == expected  # a mark states that it is durable
        assert count_in(path) == (expected, expected)
    with pytest.raises(CompactedError, match=f"LSN {end + 1} is not in the mirror; it ends at "):
        restore_into(store, tmp_path / "c", Target(lsn=end + 1))


def test_each_time_that_is_kept_can_be_restored(tmp_path: Path) -> None:
    """A restore to a time has the records that were written at that time or before."""
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store)
    counter.add(20)
    with JournalReader.open(tmp_path / "a") as reader:
        entries = list(reader.entries())
    counter.compact()
    counter.rounds(2)
    counter.close()
    for number, entry in enumerate(entries[::3]):
        path = tmp_path / f"b{number}"
        lsn = max(e.lsn for e in entries if e.written_at_ns <= entry.written_at_ns)
        assert restore_into(store, path, Target(unix_ns=entry.written_at_ns)).lsn == lsn
        assert count_in(path) == (lsn, lsn)
    assert restore_into(store, tmp_path / "c", Target(unix_ns=time.time_ns())).lsn == 48
    first = utc_text(entries[0].written_at_ns / 1e9)
    later = (
        f"1970-01-01 00:00:01 UTC can't be restored: the first record was written later, at {first}"
    )
    with pytest.raises(CompactedError, match=later):
        restore_into(store, tmp_path / "d", Target(unix_ns=10**9))
    assert list((tmp_path / "d").iterdir()) == []


def test_the_time_of_the_first_record_is_known_if_it_was_shipped_late(tmp_path: Path) -> None:
    """A refused time is named with that of the first record, also if the mirror's first entry has
    no record. A mirror without a record says so."""
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store)
    counter.ship()
    with pytest.raises(CompactedError, match="UTC can't be restored: the mirror has no record"):
        restore_into(store, tmp_path / "b", Target(unix_ns=10**9))
    counter.add(1)
    counter.ship()
    counter.close()
    with pytest.raises(CompactedError, match="the first record was written later, at 2"):
        restore_into(store, tmp_path / "b", Target(unix_ns=10**9))


def test_what_is_no_longer_kept_is_refused(tmp_path: Path) -> None:
    """A restore to an LSN before the oldest checkpoint that is kept is refused, and names the
    first one that can be restored."""
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    lsns = counter.rounds(6)
    counter.close()
    with pytest.raises(CompactedError, match=f"LSN 5 .*first LSN that is kept is {lsns[-2]}$"):
        restore_into(store, tmp_path / "b", Target(lsn=5))
    made_ms = next(c.made_ms for c in checkpoint_names(store.blob_names()) if c.lsn == lsns[-2])
    kept = f"first LSN that is kept is {lsns[-2]}, from {utc_text(made_ms / 1000)}$"
    with pytest.raises(
        CompactedError, match=f"1970-01-01 00:00:01 UTC can't be restored: the {kept}"
    ):
        restore_into(store, tmp_path / "b", Target(unix_ns=10**9))
    assert restore_into(store, tmp_path / "b", Target(lsn=lsns[-2])).lsn == lsns[-2]
    assert count_in(tmp_path / "b") == (lsns[-2], lsns[-2])


def test_a_mirror_follows_a_trim(tmp_path: Path) -> None:
    """What a plain journal trims goes from its mirror, too, once it is older than `keep_s`."""
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    for _ in range(4):
        lsn = counter.add(40)
        counter.ship()
        first_lsn = counter.journal.trim(lsn - 9)
    counter.add(20)
    counter.ship()
    counter.close()
    restore_into(store, tmp_path / "b")
    with JournalReader.open(tmp_path / "b") as reader:
        kept = [entry.lsn for entry in reader.entries()]
        # The journal may keep a segment longer, because it was not shipped when it was trimmed.
        assert first_lsn <= kept[0] <= lsn - 9
        assert kept == list(range(kept[0], 181))
    with pytest.raises(CompactedError):
        restore_into(store, tmp_path / "c", Target(lsn=100))


def test_a_damaged_blob_is_refused_by_name(tmp_path: Path) -> None:
    """A restore from a mirror with a missing, damaged, foreign or misnamed blob is refused with the
    blob's name, the number of its entry and the first LSN that is lost, and leaves nothing. Earlier
    moments can still be restored."""
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store)
    counter.rounds(4)
    counter.add(20)
    counter.ship()
    counter.close()
    checkpoints = checkpoint_names(store.blob_names())
    older, last = checkpoints[-2], needed_roll_ups(store)[-1]
    whole = dict(store._blobs)
    other = whole[str(checkpoints[-1])]
    for name, number in ((str(last), last.last), (str(older), older.number)):
        data = whole[name]
        for damaged in (None, data[:-1], data[:-1] + b"~", b"hello", other, data + data):
            if damaged is None:
                store.delete_blobs([name])
            else:
                store.put_blob(name, [damaged])
            if damaged is None and name == str(older):
                continue  # then an older checkpoint leads to the same state
            with pytest.raises(MirrorDamageError) as raised:
                restore_into(store, tmp_path / "b")
            assert list((tmp_path / "b").iterdir()) == []
            what = f"entry {number}" if damaged is None and name == str(last) else f"blob {name}"
            assert what.split()[0] in str(raised.value)
            if name == str(last):
                assert raised.value.lsn > older.lsn
                assert f"what follows LSN {raised.value.lsn - 1} can't be read" in str(raised.value)
        path = tmp_path / f"c{number}"
        restore_into(store, path, Target(lsn=20))
        assert count_in(path) == (20, 20)
        store.put_blob(name, [data])


def test_a_reader_that_falls_behind_starts_again(tmp_path: Path) -> None:
    """A reader whose next entry was trimmed and whose roll-up is gone goes on from the newest
    checkpoints."""
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store, keep_s=0)
    counter.rounds(1)
    place = BEGINNING
    for entry in read_log(store):
        place = place.after(entry)
    counter.rounds(5)
    counter.close()
    read = list(read_log(store, place))
    assert read[0].kind == CHECKPOINT
    assert max(entry.last_lsn for entry in read) == 84
    assert place.after(read[-1]).number == max(store.numbers(0))


def test_a_checkpoint_waits_for_its_records(tmp_path: Path) -> None:
    """A checkpoint does not go up before the mirror has every record up to its LSN: if the writer
    were overtaken first, it would state what never came to be."""
    store = MemoryStore()
    with Journal.open(tmp_path / "a", options=SMALL) as journal:
        directory = PosixDisk().open_directory(tmp_path / "a", write=False)
        appender = claimer(store, STATEMENT._replace(journal_id=journal.journal_id)).claim()
        unshipped = Unshipped(directory, journal.epoch)
        upkeep = Upkeep(
            store, appender, directory, unshipped, Holding(0), keep_s=0, now_ms=lambda: 0
        )
        for lsns in ([14], [14, 28]):
            for _ in range(14):
                lsn = journal.append(b"x" * 400)
            journal.wait_durable(lsn)
            pieces, _ = unshipped.read(journal._core.committer.synced_end, 1 << 20)
            appender.append(pieces, lsn)
            unshipped.advance(pieces)
            upkeep.add(appender.last)
            if lsn == 14:
                journal.compact(lambda: (14, iter([{"count": 14}]))).close()
                upkeep.run(13, wait_s=TIMEOUT_S)
                assert checkpoint_names(store.blob_names()) == []
            else:
                journal.compact(lambda: (28, iter([{"count": 28}]))).close()
            upkeep.run(lsn, wait_s=TIMEOUT_S)
            assert [name.lsn for name in checkpoint_names(store.blob_names())] == lsns
        directory.close(unlock=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_moments_can_be_restored(seed: int, tmp_path: Path) -> None:
    """At 50 random LSNs and times, the restored state is the one of that moment."""
    draw = random.Random(seed)
    store = MemoryStore()
    counter = counter_at(tmp_path / "a", store)
    times = list[int]()
    for _ in range(12):
        for _ in range(draw.randint(1, 20)):
            counter.journal.wait_durable(counter.journal.append(b"x" * draw.randint(1, 900)))
            times.append(time.time_ns())
        counter.ship()
        if draw.random() < 0.7:
            counter.compact()
    counter.close()
    for number in range(50):
        lsn = draw.randint(1, len(times))
        target = Target(lsn=lsn) if number % 2 else Target(unix_ns=times[lsn - 1])
        path = tmp_path / f"b{number}"
        assert restore_into(store, path, target).lsn == lsn
        assert count_in(path) == (lsn, lsn)
