"""Following: a directory keeps up with a mirror while readers read it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from journal import Journal, JournalReader, LockedError, Options
from journal._disk.posix import PosixDisk
from journal._disk.process import write_pid_note
from journal._mirror.comparing import compare
from journal._mirror.entry import MirrorDamageError, Piece
from journal._mirror.following import Following
from journal._mirror.live_copy import LiveCopy
from journal._mirror.place_note import Known, read_note
from journal._mirror.reading import Place, has_lost
from journal._mirror.store import AbsentError, LostError, UnreachableError
from tests.mirror.conftest import Open
from tests.mirror.shipping_support import TIMEOUT_S, Mirrored, segments_in
from tests.mirror.test_checkpointing import count_in, counter_at
from tests.mirror.test_claiming import claimer
from tests.mirror.test_comparing import Counted
from tests.mirror.test_place_note import bytes_at
from tests.support import until


@contextmanager
def followed(
    store: Counted, path: Path, clock_s: Callable[[], float] | None = None
) -> Iterator[Following]:
    """Follow a store into a directory. The thread is not started."""
    directory = PosixDisk().open_directory(path, write=True)
    directory.lock()
    comparison = compare(store, directory)
    comparison.fetch()
    clock = {"clock_s": clock_s} if clock_s else {}
    following = Following(store, directory, comparison.known, poll_s=0.001, **clock)
    try:
        yield following
    finally:
        following.stop()
        assert following.join(TIMEOUT_S)
        following._copy.close()
        directory.close(unlock=True)


def records_in(path: Path) -> list[int]:
    with JournalReader.open(path) as reader:
        return [entry.lsn for entry in reader.entries()]


@pytest.mark.parametrize("options", [Options(), Options(segment_bytes=4096)], ids=["one", "many"])
def test_readers_see_what_is_followed(options: Options, tmp_path: Path) -> None:
    """After each poll, readers of the directory find every record that the mirror has, and no
    writer can open it."""
    store = Counted()
    mirrored = Mirrored(tmp_path / "a", store, options, interval_s=3600)
    with followed(store, tmp_path / "b") as following:
        for _ in range(60):
            lsn = mirrored.commit()
            assert mirrored.shipper.wait(lsn, TIMEOUT_S)
            following.poll()
            assert following.lsn == lsn
            assert following._copy.last_lsn == JournalReader.open(tmp_path / "b").last_lsn == lsn
        with pytest.raises(LockedError):
            Journal.open(tmp_path / "b")
        assert records_in(tmp_path / "b") == list(range(1, 61))
        mirrored.close()
        following.poll()
        assert segments_in(tmp_path / "b") == segments_in(tmp_path / "a")
    with Journal.open(tmp_path / "b") as journal:
        assert journal.last_lsn == 60


def test_a_thread_follows(tmp_path: Path) -> None:
    """A started follower gets what comes, wakes those who wait for it, and leaves a note of the
    last place."""
    store = Counted()
    mirrored = Mirrored(tmp_path / "a", store)
    with followed(store, tmp_path / "b") as following:
        following.start()
        for _ in range(30):
            lsn = mirrored.commit()
            while (gate := following.gate(lsn)) is not None:
                assert gate.wait(TIMEOUT_S)
            assert following.lsn >= lsn
            assert records_in(tmp_path / "b")[-1] >= lsn
    directory = PosixDisk().open_directory(tmp_path / "b", write=True)
    known = read_note(directory)
    assert known is not None
    assert known.last_lsn == 30
    assert following.gate(99) is None
    directory.close(unlock=False)
    mirrored.close()


def test_readers_meet_no_damage(tmp_path: Path) -> None:
    """A reader that reads while the directory grows sees the records in order, and never damage,
    though bytes arrive in pieces of any size. The last ones may be hidden for a moment, until what
    follows them has arrived."""
    store = Counted()
    mirrored = Mirrored(tmp_path / "a", store, Options(segment_bytes=4096))
    mirrored.commit(80)
    mirrored.close()
    ended = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        try:
            while not ended.is_set():
                found = records_in(tmp_path / "b")
                assert found == list(range(1, len(found) + 1))
        except BaseException as error:
            errors.append(error)

    directory = PosixDisk().open_directory(tmp_path / "b", write=True)
    directory.lock()
    write_pid_note(directory, 0)
    copy = LiveCopy(directory, Known())
    reader = threading.Thread(target=read)
    reader.start()
    number = 1
    for name, data in segments_in(tmp_path / "a").items():
        bounds = [0, 40, *range(77, len(data), 37), len(data)]
        for begin, end in pairwise(bounds):
            number += 1
            copy.apply(bytes_at(Piece(name, begin, data[begin:end]), number=number))
            with JournalReader.open(tmp_path / "b") as now:
                assert now.last_lsn == copy.last_lsn  # it never goes back
    ended.set()
    reader.join(TIMEOUT_S)
    assert errors == []
    assert copy.last_lsn == 80
    assert records_in(tmp_path / "b") == list(range(1, 81))
    assert segments_in(tmp_path / "b") == segments_in(tmp_path / "a")
    copy.close()
    directory.close(unlock=True)


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_what_was_trimmed_is_read_from_a_roll_up(tmp_path: Path) -> None:
    """A follower that was away while the next number was rolled up and trimmed lists, and goes on.
    Until then, its lag says that it was away."""
    store, clock = Counted(), Clock()
    mirrored = Mirrored(tmp_path / "a", store)
    with followed(store, tmp_path / "b", clock) as following:
        for _ in range(80):
            assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
        assert following._copy.known.place.number + 1 not in store.numbers(0)
        clock.now_s += 60
        assert following.lag_s == 60
        following.poll()
        assert (following.lsn, following.lag_s) == (80, 0)
    mirrored.close()


def test_a_burst_that_was_rolled_up_is_read_at_once(tmp_path: Path) -> None:
    """If entries come fast, an absent one may be rolled up already, so the follower lists at once,
    and not only after some seconds."""
    store, clock = Counted(), Clock()
    mirrored = Mirrored(tmp_path / "a", store)
    with followed(store, tmp_path / "b", clock) as following:
        for _ in range(5):
            assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
        following.poll()
        assert following.lsn == 5
        for _ in range(80):
            assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
        assert following._copy.known.place.number + 1 not in store.numbers(0)
        following.poll()
        assert following.lsn == 85
    mirrored.close()


def test_an_idle_follower_lists_seldom(tmp_path: Path) -> None:
    """While nothing comes, the follower asks for one absent number at a time, and lists less and
    less often, but at least once a minute."""
    store, clock, lists = Counted(), Clock(), list[float]()
    mirrored = Mirrored(tmp_path / "a", store)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    with followed(store, tmp_path / "b", clock) as following:
        following.poll()
        numbers = store.numbers
        store.numbers = lambda after: lists.append(clock.now_s) or numbers(after)  # type: ignore[func-returns-value,method-assign]
        for _ in range(1000):
            clock.now_s += 0.5
            following.poll()
        pauses = [round(b - a) for a, b in pairwise(lists)]
        assert max(pauses) == 60
        assert len(lists) < 20
    mirrored.close()


def test_rare_polls_cost_less_than_frequent_ones(tmp_path: Path) -> None:
    """While nothing comes, a follower with a longer `poll_s` costs less, or the same, at twelve
    requests for what is absent for the price of a list. It never pauses for longer than that."""
    store, clock, costs = Counted(), Clock(), list[int]()
    mirrored = Mirrored(tmp_path / "a", store)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    mirrored.close()
    directory = PosixDisk().open_directory(tmp_path / "b", write=True)
    comparison = compare(store, directory)
    comparison.fetch()
    entry, numbers, names = store.entry, store.numbers, store.blob_names
    store.entry = lambda number: costs.append(1) or entry(number)  # type: ignore[func-returns-value,method-assign]
    store.numbers = lambda after: costs.append(12) or numbers(after)  # type: ignore[func-returns-value,method-assign]
    store.blob_names = lambda: costs.append(12) or names()  # type: ignore[func-returns-value,method-assign]
    sums = []
    for poll_s in (0.3, 1.5, 1.9, 2.1, 5, 24, 26, 60):
        known = comparison.known
        following = Following(store, directory, known, poll_s=poll_s, clock_s=clock)
        assert following.pause_s <= poll_s
        costs.clear()
        until_s = clock.now_s + 3600
        while clock.now_s < until_s:
            clock.now_s += following.pause_s + 0.01
            following.poll()
        following._copy.close()
        sums.append(sum(costs))
    assert sums == sorted(sums, reverse=True)
    directory.close(unlock=False)


def test_an_outage_is_waited_out(tmp_path: Path) -> None:
    """While the mirror is unreachable, the follower keeps what it has, and its lag grows. After
    that it goes on."""
    store = Counted()
    mirrored = Mirrored(tmp_path / "a", store)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    asked = threading.Event()
    entry = store.entry

    def fail(number: int) -> bytes:
        asked.set()
        raise UnreachableError("the store is down")

    with followed(store, tmp_path / "b") as following:
        store.entry = fail  # type: ignore[method-assign]
        following.start()
        assert asked.wait(TIMEOUT_S)
        assert following.lsn == 1
        store.entry = entry  # type: ignore[method-assign]
        lsn = mirrored.commit()
        until(lambda: following.lsn == lsn, "the follower goes on", TIMEOUT_S)
        assert following.failure is None
    mirrored.close()


def test_damage_ends_the_follower(tmp_path: Path) -> None:
    """A foreign or a missing entry ends the follower, which says why. What it has stays."""
    store = Counted()
    mirrored = Mirrored(tmp_path / "a", store)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    with followed(store, tmp_path / "b") as following:
        following.start()
        store.append(max(store.numbers(0)) + 1, b"hello")
        assert following.join(TIMEOUT_S)
        assert isinstance(following.failure, MirrorDamageError)
        assert following.gate(99) is None
        assert records_in(tmp_path / "b") == [1]
    mirrored._writer.synced_end = None
    with pytest.raises(AbsentError):
        store.entry(99)
    mirrored.shipper.stop(TIMEOUT_S)
    mirrored.journal.close()


def empty(store: Counted) -> None:
    store._entries.clear()
    store._blobs.clear()


def start_over(store: Counted) -> None:
    empty(store)
    claimer(store).claim()


@pytest.mark.parametrize("lose", [empty, start_over])
def test_an_emptied_mirror_ends_the_follower(
    lose: Callable[[Counted], None], tmp_path: Path
) -> None:
    """A follower does not take a mirror that was emptied, or has begun anew, for one with nothing
    new: its lag would stay small. A mirror that was always empty is followed."""
    store, clock = Counted(), Clock()
    with followed(store, tmp_path / "b", clock) as following:
        clock.now_s += 61
        following.poll()
    mirrored = Mirrored(tmp_path / "a", store)
    assert mirrored.shipper.wait(mirrored.commit(), TIMEOUT_S)
    with followed(store, tmp_path / "b", clock) as following:
        mirrored.close()
        following.poll()
        lose(store)
        clock.now_s += 61
        with pytest.raises(LostError, match="emptied"):
            following.poll()
        assert records_in(tmp_path / "b") == [1]


def test_a_trimmed_entry_is_not_lost() -> None:
    """An entry that was trimmed between two requests has another one after it."""
    store = Counted()
    for number in (1, 2):
        store.append(number, b"")
    store.trim([1])
    assert not has_lost(store, Place(1))
    assert not has_lost(store, Place(2))
    assert has_lost(store, Place(3))
    assert not has_lost(store, Place())


def test_a_takeover_is_followed(open_one: Open, tmp_path: Path) -> None:
    """A follower of any store goes on through a takeover, and can take over itself: nothing that
    the mirror has is missing."""
    store = open_one()
    first = Mirrored(tmp_path / "a", store)
    with followed(store, tmp_path / "b") as following:  # type: ignore[arg-type]
        for _ in range(20):
            assert first.shipper.wait(first.commit(), TIMEOUT_S)
        following.poll()
        assert following.lsn == 20
        claimer(open_one(), first.statement, takeover=True).claim()
        following.poll()
    second = Mirrored(tmp_path / "b", open_one())
    assert second.shipper.wait(second.commit(), TIMEOUT_S)
    second.close()
    with followed(open_one(), tmp_path / "c") as following:  # type: ignore[arg-type]
        assert following.lsn == second.journal.last_lsn
    first.journal.close()
    first.shipper.stop(0)
    assert first.shipper.join(TIMEOUT_S)


def test_a_followed_directory_is_compacted(tmp_path: Path) -> None:
    """A follower gets the newest checkpoint once a minute, and removes what two of them cover. The
    directory stays small, can be read all the time, and opens with the same state."""
    store, clock = Counted(), Clock()
    counter = counter_at(tmp_path / "a", store)
    with followed(store, tmp_path / "b", clock) as following:
        sizes = []
        for _ in range(4):
            counter.rounds(2)
            counter.ship()
            clock.now_s += 61
            following.poll()
            sizes.append(len(segments_in(tmp_path / "b")))
            assert JournalReader.open(tmp_path / "b").last_lsn == following.lsn
            with JournalReader.open(tmp_path / "b") as reader:
                assert list(reader.verify()) == []
        assert sizes[-1] <= sizes[1]
        assert len(list((tmp_path / "b").glob("checkpoint-*.json"))) == 2
    counter.close()
    lsn = counter.journal.last_lsn
    with followed(store, tmp_path / "b") as again:
        assert again.lsn == lsn
    assert count_in(tmp_path / "b") == count_in(tmp_path / "a") == (lsn, lsn)
