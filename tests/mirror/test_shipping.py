"""Shipping: a live journal's synced bytes reach its mirror, and are restored byte for byte."""

from __future__ import annotations

from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from journal import CorruptionError, Journal, JournalReader, Options
from journal._disk.posix import PosixDisk
from journal._format.checkpoint import checkpoint_name
from journal._mirror import rolling_up
from journal._mirror.claiming import OvertakenError
from journal._mirror.content import sealed_bytes
from journal._mirror.entry import Piece, segment_name
from journal._mirror.memory_store import MemoryStore
from journal._mirror.reading import read_log
from journal._mirror.restoring import restore_into
from journal._mirror.store import LostError, RefusedError, StoreError, UnreachableError
from journal._mirror.unshipped import Unshipped
from tests.mirror.conftest import Open
from tests.mirror.shipping_support import SMALL, TIMEOUT_S, Mirrored, Outages, segments_in
from tests.mirror.test_claiming import claimer
from tests.support import until


def lsns_in(folder: Path) -> list[int]:
    with JournalReader.open(folder) as reader:
        return [entry.lsn for entry in reader.entries()]


@pytest.mark.parametrize("options", [Options(), SMALL], ids=["one segment", "many segments"])
def test_a_closed_journal_is_mirrored_byte_for_byte(options: Options, tmp_path: Path) -> None:
    """After a close, a restored directory has the same segments with the same bytes, and the mirror
    is released."""
    store = MemoryStore()
    mirrored = Mirrored(tmp_path / "a", store, options)
    mirrored.commit(150)
    mirrored.close()
    restored = restore_into(store, tmp_path / "b")
    assert (restored.lsn, mirrored.shipper.mirrored_lsn, mirrored.failures) == (150, 150, [])
    assert segments_in(tmp_path / "a") == segments_in(tmp_path / "b")
    assert (restored.segments > 1) == (options is SMALL)
    claimer(store, mirrored.statement).claim()  # needs no takeover
    with Journal.open(tmp_path / "b", options=options) as journal:
        assert journal.last_lsn == 150


def test_each_store_mirrors_a_journal(open_one: Open, tmp_path: Path) -> None:
    """Every store takes a journal's entries and roll-ups, refuses an overtaken writer, and returns
    the same bytes."""
    mirrored = Mirrored(tmp_path / "a", open_one())
    for _ in range(60):
        assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    zombie = mirrored.shipper._linked.appender
    mirrored.close()
    store = open_one()
    assert restore_into(store, tmp_path / "b").lsn == 60
    assert segments_in(tmp_path / "a") == segments_in(tmp_path / "b")
    assert len(store.numbers(0)) + len(store.blob_names()) < 40
    second = Mirrored(tmp_path / "b", open_one())
    zombie._store = open_one()  # a thread that ends closes its own
    with pytest.raises(OvertakenError):
        zombie.append([Piece("0" * 19 + "1-0000000001.seg", 0, b"x")], 61)
    assert second.shipper.wait(second.commit(), TIMEOUT_S)
    second.close()
    assert restore_into(store, tmp_path / "c").lsn == 61


def test_a_waiter_makes_the_shipper_go_at_once(tmp_path: Path) -> None:
    """A wait for a record ends when the mirror has it, not at the end of the interval, and a mirror
    that is restored then has the record."""
    store = MemoryStore()
    mirrored = Mirrored(tmp_path / "a", store, interval_s=3600)
    for _ in range(3):
        lsn = mirrored.commit()
        assert mirrored.shipper.wait(lsn, TIMEOUT_S)
        assert restore_into(store, tmp_path / f"b{lsn}").lsn == lsn
    mirrored.close()


def test_only_what_is_synced_is_shipped(tmp_path: Path) -> None:
    """Zeros ahead of the log, and bytes that are not synced, are not in the mirror. Each segment of
    the mirror is a prefix of the journal's own."""
    store = MemoryStore()
    mirrored = Mirrored(tmp_path / "a", store, Options(durability="os"))
    lsn = mirrored.journal.append("synced")
    mirrored.journal._core.committer.sync_log()
    assert mirrored.shipper.wait(lsn, TIMEOUT_S)
    mirrored.commit(50)  # with durability "os", nothing syncs these
    restore_into(store, tmp_path / "b")
    ((name, data),) = segments_in(tmp_path / "b").items()
    own = segments_in(tmp_path / "a")[name]
    assert own.startswith(data)
    assert 64 < len(data) < 200
    assert len(own) > 1 << 20
    mirrored.close()
    assert restore_into(store, tmp_path / "c").lsn == 51


def test_what_a_failed_log_has_not_synced_is_not_shipped(tmp_path: Path) -> None:
    """When the log has failed, the mirror gets what was synced, and not what was only written."""
    store = MemoryStore()
    mirrored = Mirrored(tmp_path / "a", store, Options(durability="os"), interval_s=3600)
    mirrored.commit(2)
    mirrored.journal._core.committer.sync_log()
    mirrored.commit(3)
    mirrored.shipper.stop(TIMEOUT_S, is_closed=False)
    assert mirrored.shipper.join(TIMEOUT_S)
    assert restore_into(store, tmp_path / "b").lsn == mirrored.shipper.mirrored_lsn == 2
    mirrored.journal.close()


@pytest.mark.parametrize("error", [UnreachableError, RefusedError])
def test_commits_go_on_while_the_store_is_silent(error: type[StoreError], tmp_path: Path) -> None:
    """During an outage, or while credentials are refused, commits are durable as ever, and waiters
    for the mirror time out. After it, the mirror catches up by itself."""
    store = Outages()
    store.error = error
    mirrored = Mirrored(tmp_path / "a", store)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    store.is_down = True
    lsn = mirrored.commit(100)
    assert store.refused.wait(TIMEOUT_S)
    assert not mirrored.shipper.wait(lsn, 0.05)
    assert mirrored.journal.durable_lsn == lsn
    store.is_down = False
    assert mirrored.shipper.wait(lsn, TIMEOUT_S)
    mirrored.close()
    assert (mirrored.shipper.stalls, mirrored.failures) == (1, [])
    assert restore_into(store, tmp_path / "b").lsn == lsn


def test_a_close_gives_up_on_a_silent_store(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A close during an outage ends after its limit, and says up to which LSN the mirror reaches.
    The next opening ships the rest."""
    store = Outages()
    mirrored = Mirrored(tmp_path / "a", store)
    assert mirrored.shipper.wait(mirrored.commit(2), TIMEOUT_S)
    store.is_down = True
    mirrored.commit(3)
    mirrored.close(limit_s=0.1)
    assert (mirrored.shipper.mirrored_lsn, mirrored.failures) == (2, [])
    assert not mirrored.shipper.wait(5)
    store.is_down = False
    again = Mirrored(tmp_path / "a", store)
    assert again.shipper.wait(5, TIMEOUT_S)
    again.close()
    assert restore_into(store, tmp_path / "b").lsn == 5
    assert segments_in(tmp_path / "a") == segments_in(tmp_path / "b")


def test_the_next_opening_ships_what_a_crash_left(tmp_path: Path) -> None:
    """What was synced before a crash and not shipped is shipped by the next opening, up to a torn
    tail and its garbage, and without the zeros after that."""
    store = Outages()
    mirrored = Mirrored(tmp_path / "a", store, Options())
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    store.is_down = True
    mirrored.commit(5)
    assert store.refused.wait(TIMEOUT_S)
    store.is_down = False
    mirrored.crash()
    (name,) = segments_in(tmp_path / "a")
    with (tmp_path / "a" / name).open("r+b") as file:  # a frame that a power cut left unfinished
        data = file.read()
        end = len(data.rstrip(b"\0"))
        file.seek(end)
        file.write(b"\1" * 30)
    again = Mirrored(tmp_path / "a", store, Options())
    again.commit()
    again.close()
    restored = restore_into(store, tmp_path / "b")
    assert restored.lsn == again.journal.last_lsn
    files = segments_in(tmp_path / "b")
    assert len(files) == 2
    assert len(files[name]) == end + 30
    assert lsns_in(tmp_path / "b") == lsns_in(tmp_path / "a")


def test_an_upkeep_without_a_thread_is_put_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interpreter that is exiting may start no threads. Everything is shipped, and the mirror
    released, nevertheless. The next opening does what was put off."""

    def refuse(_: Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    store = MemoryStore()
    mirrored = Mirrored(tmp_path / "a", store)
    monkeypatch.setattr(Thread, "start", refuse)
    for _ in range(60):
        assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    mirrored.close()
    monkeypatch.undo()
    assert (mirrored.failures, store.blob_names()) == ([], [])
    claimer(store, mirrored.statement).claim()  # needs no takeover
    assert restore_into(store, tmp_path / "b").lsn == 60


def test_a_close_leaves_time_for_the_release(tmp_path: Path) -> None:
    """A close waits for roll-ups and checkpoints for half of its limit. The rest is for the release
    of the mirror, without which the next writer has to take over."""
    store, waits_s = MemoryStore(), list[float]()
    mirrored = Mirrored(tmp_path / "a", store)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    run: Any = lambda _, wait_s=0.0: waits_s.append(wait_s)  # noqa: E731
    mirrored.shipper._linked.upkeep.run = run  # type: ignore[method-assign]
    mirrored.close()
    assert 0 < waits_s[-1] <= TIMEOUT_S / 2


def test_a_wake_up_is_not_lost_in_a_wait(tmp_path: Path) -> None:
    """A wake-up that ends another wait of the shipper counts: neither a waiter during an outage,
    nor a close, waits for the next interval."""
    store = Outages()
    mirrored = Mirrored(tmp_path / "a", store, interval_s=3600)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    store.is_down = True
    assert mirrored.shipper.gate(mirrored.commit()) is not None
    assert store.refused.wait(TIMEOUT_S)
    lsn = mirrored.commit()
    assert mirrored.shipper.gate(lsn) is not None
    for _ in range(2):
        store.refused.clear()
        assert store.refused.wait(TIMEOUT_S)
    store.is_down = False
    until(lambda: mirrored.shipper.mirrored_lsn == lsn, "the record is shipped")
    due_s = iter([TIMEOUT_S, 0, 0])
    asked = Event()

    def wait_once() -> float:
        asked.set()
        return next(due_s)

    mirrored.due_s = wait_once  # type: ignore[method-assign]
    mirrored.shipper.wake()
    assert asked.wait(TIMEOUT_S)
    mirrored.close()


def test_an_overtaken_writer_ships_nothing_more(tmp_path: Path) -> None:
    """Once another writer has claimed the mirror, the shipper ends with that error, its waiters are
    released, and the records stay in the journal."""
    store = MemoryStore()
    mirrored = Mirrored(tmp_path / "a", store, interval_s=3600)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    claimer(store, mirrored.statement, takeover=True).claim()
    lsn = mirrored.commit()
    assert not mirrored.shipper.wait(lsn, TIMEOUT_S)
    assert mirrored.shipper.join(TIMEOUT_S)
    assert [type(error) for error in mirrored.failures] == [OvertakenError]
    assert mirrored.shipper.failure is mirrored.failures[0]
    mirrored.journal.close()
    assert restore_into(store, tmp_path / "b").lsn == 1


def test_sealed_segments_are_rolled_up(tmp_path: Path) -> None:
    """When a segment is sealed, its entries become one blob and are trimmed, so that a mirror has
    few objects. A restore finds the same bytes."""
    store = MemoryStore()
    mirrored = Mirrored(tmp_path / "a", store)
    for _ in range(15):
        for _ in range(10):
            assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
        mirrored.settle()
    mirrored.close()
    assert 3 < len(store.blob_names()) < 10
    assert len(store.numbers(0)) < 60
    assert restore_into(store, tmp_path / "b").lsn == 150
    assert segments_in(tmp_path / "a") == segments_in(tmp_path / "b")


def test_many_entries_are_rolled_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also within a segment, entries are rolled up once there are many."""
    monkeypatch.setattr(rolling_up, "ROLL_UP_ENTRIES", 10)
    store = MemoryStore()
    mirrored = Mirrored(tmp_path / "a", store, Options())
    for _ in range(45):
        assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
        mirrored.settle()
    mirrored.close()
    assert len(store.blob_names()) == 4
    assert len(store.numbers(0)) < 15
    assert restore_into(store, tmp_path / "b").lsn == 45


def test_an_emptied_mirror_is_noticed(tmp_path: Path) -> None:
    """If the store was emptied, the shipper notices at the next roll-up and stops, since what it
    appends continues nothing."""
    store = MemoryStore()
    mirrored = Mirrored(tmp_path / "a", store)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    store.trim(store.numbers(0))
    mirrored.commit(60)
    assert mirrored.shipper.join(TIMEOUT_S)
    assert [type(error) for error in mirrored.failures] == [LostError]
    mirrored.journal.close()


def test_a_large_commit_is_split(tmp_path: Path) -> None:
    """What does not fit into one entry becomes several, and the mirror reports the LSN only when it
    has all of them."""
    store = MemoryStore()
    store.entry_bytes_max = 5000
    mirrored = Mirrored(tmp_path / "a", store, Options(), interval_s=3600)
    lsn = mirrored.journal.append(b"x" * 30_000)
    mirrored.journal.wait_durable(lsn)
    assert mirrored.shipper.wait(lsn, TIMEOUT_S)
    mirrored.close()
    assert max(len(store.entry(number)) for number in store.numbers(0)) <= 5000
    promised = [entry.last_lsn for entry in read_log(store) if entry.pieces]
    assert promised[-2:] == [0, 1] or promised[-3:] == [0, 1, 1]
    assert restore_into(store, tmp_path / "b").lsn == 1


def test_a_segment_that_is_gone_stops_the_mirror(tmp_path: Path) -> None:
    """If a segment is removed before it is shipped, the mirror stops and says so. It never leaves
    the segment out."""
    store = MemoryStore()
    mirrored = Mirrored(tmp_path / "a", store, interval_s=3600)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    mirrored.commit(100)
    names = sorted(segments_in(tmp_path / "a"))
    (tmp_path / "a" / names[0]).unlink()
    assert not mirrored.shipper.wait(101, TIMEOUT_S)
    assert isinstance(mirrored.shipper.failure, OSError)
    mirrored.journal.close()


@pytest.mark.parametrize("covered", [0, 1, 2])
def test_a_damaged_segment_is_left_out_only_if_it_is_covered(covered: int, tmp_path: Path) -> None:
    """A segment of an earlier writer whose header is damaged counts as gone if two checkpoints
    cover it. Otherwise, shipping stops at it."""
    with Journal.open(tmp_path / "a", options=SMALL) as journal:
        for _ in range(40):
            journal.append_and_wait(b"x" * 400)
    first, second, *_ = names = sorted(segments_in(tmp_path / "a"))
    (tmp_path / "a" / first).write_bytes(bytes(64))
    floor_lsn = segment_name(second).first_lsn - 1
    for lsn in range(floor_lsn, floor_lsn + covered):
        (tmp_path / "a" / checkpoint_name(lsn)).touch()
    directory = PosixDisk().open_directory(tmp_path / "a", write=False)
    unshipped = Unshipped(directory, epoch=2)
    with pytest.raises(
        FileNotFoundError if covered == 2 else CorruptionError, match=f"{first}.*header is damaged"
    ):
        unshipped.read(None, 1 << 20)
    if covered == 2:
        assert unshipped.size() == sum(
            sealed_bytes(directory, segment_name(name)) for name in names[1:]
        )
    directory.close(unlock=False)
