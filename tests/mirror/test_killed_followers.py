"""Killed followers: wherever one ends, and however much its mirror removes, it goes on."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pytest

from journal import JournalReader
from journal._engine.follower import _prepare
from journal._mirror import reading, settling
from journal._mirror.following import Following
from journal._mirror.memory_store import MemoryStore
from journal._mirror.place_note import remove_note
from journal._mirror.store import UnreachableError
from journal.testing import Change, SimulatedDisk
from tests.mirror.stores import SilentStore, mirror_of
from tests.mirror.test_catching_up import read_state
from tests.mirror.test_checkpointing import counter_at
from tests.mirror.test_following import Clock

PATH = "/follower"
MIRROR = mirror_of(MemoryStore())  # only its address is used
_Contents = tuple[dict[int, bytes], dict[str, bytes]]


class Recorded(MemoryStore):
    """A store that keeps what it held after each change."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[_Contents] = [({}, {})]

    def append(self, number: int, data: bytes) -> None:
        super().append(number, data)
        self._record()

    def trim(self, numbers: Iterable[int]) -> None:
        for number in [*numbers]:  # one by one, as some stores do it
            super().trim([number])
            self._record()

    def put_blob(self, name: str, pieces: Iterable[bytes]) -> None:
        super().put_blob(name, pieces)
        self._record()

    def delete_blobs(self, names: Iterable[str]) -> None:
        for name in [*names]:
            super().delete_blobs([name])
            self._record()

    def _record(self) -> None:
        with self._lock:
            self.states.append((dict(self._entries), dict(self._blobs)))


class Replayed(SilentStore):
    """A store that makes the recorded changes again: `pace` of them before each request. After
    `requests_max` requests, it is unreachable."""

    def __init__(self, states: list[_Contents], at: int) -> None:
        super().__init__()
        self._states = states
        self.at = at
        self.pace = 0
        self.requests = 0
        self.requests_max = 1 << 30
        self.pause_at = 0  # the request before which the writer makes many changes
        self.move(0)

    def move(self, changes: int) -> None:
        self.at = min(self.at + changes, len(self._states) - 1)
        self._entries, self._blobs = self._states[self.at]

    def _request(self) -> None:
        self.move(self.pace)
        self.requests += 1
        if self.requests == self.pause_at:
            self.move(40)
        if self.requests > self.requests_max:
            raise UnreachableError("the store is down")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[_Contents], int]:
    """Return what a mirror held after each change by three writers that keep nothing, and the LSN
    of the last record."""
    store, path = Recorded(), tmp_path_factory.mktemp("writers") / "a"
    for _ in range(3):
        counter = counter_at(path, store, keep_s=0)
        counter.rounds(2)
        counter.add(1)  # for a checkpoint in a segment that has one already
        counter.ship()
        counter.compact()
        counter.mirrored.settle()
        counter.add(2)
        counter.ship()
        counter.close()
    return store.states, counter.journal.last_lsn


def without_first_sector(change: Change) -> bytes:
    """Keep a change, as an Outcome, except the first sector of a longer write."""
    begin = change.sectors[0] if change.operation == "write" and change.sectors else 0
    return change.old[:begin] + change.data[begin:]


def live(disk: SimulatedDisk, store: Replayed, changes: Iterable[int] = ()) -> int:
    """Follow, and poll after each of these numbers of changes. Return the follower's LSN."""
    clock = Clock()
    directory = disk.open_directory(PATH, write=True)
    try:
        known = _prepare(store, None, directory, MIRROR)
        following = Following(store, directory, known, poll_s=1.0, clock_s=clock)
        try:
            for count in changes:
                store.move(count)
                clock.now_s += 61
                following.poll()
            return following.lsn
        finally:
            following._copy.close()
    finally:
        directory.close(unlock=True)


@pytest.fixture
def _one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make one request at a time, in the same order always."""
    defaults = reading.read_log.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "requests", 1)
    monkeypatch.setattr(settling, "REQUESTS", 1)


def kinds_on(disk: SimulatedDisk) -> set[str]:
    """Return the kinds of findings in the follower's directory."""
    with JournalReader.open(PATH, disk=disk) as reader:
        return {finding.kind for finding in reader.verify()}


@pytest.mark.usefixtures("_one_request")
@pytest.mark.parametrize("end", ["operation", "request", "power cut"])
def test_a_follower_goes_on_wherever_it_ended(
    end: str, recorded: tuple[list[_Contents], int]
) -> None:
    """A follower is killed after each operation of its disk, ends after each request, or loses its
    power and the first sector of each write, while it catches up with a mirror that removes its
    log. The mirror goes on before the next ones follow, and meanwhile. None is refused, and the
    last one has all records of the mirror."""
    states, lsn = recorded
    begin = len(states) // 6
    early = SimulatedDisk()
    live(early, Replayed(states, begin))
    medium = early.snapshot()
    for pace, later in ((0, 25), (1, 0), (3, 0)):
        for at in range(1000):
            disk, store = SimulatedDisk(medium), Replayed(states, begin)
            store.pace = pace
            if end == "request":
                store.requests_max = at
            else:
                disk.crash_after(at)
            with suppress(OSError, UnreachableError):
                live(disk, store, (2, 15, 2))
            has_ended = store.requests > store.requests_max or disk.crashed
            if end == "power cut":
                disk.power_cut(without_first_sector)
            else:
                disk.kill()
            store.requests_max = 1 << 30
            store.move(later)
            live(disk, store)
            store.pace = 0
            store.move(len(states))
            live(disk, store)
            assert live(disk, store) == lsn
            assert read_state(PATH, disk) == (lsn, lsn)
            # A power cut may damage a segment that the next follower no longer needs.
            assert end == "power cut" or kinds_on(disk) <= {"stray"}
            if not has_ended:
                break
        assert at > 20


@pytest.mark.usefixtures("_one_request")
def test_the_log_may_be_removed_while_it_is_compared(
    recorded: tuple[list[_Contents], int],
) -> None:
    """If a follower pauses between any two requests of its comparison, and the mirror removes
    meanwhile what the comparison began to read, it compares again. That is no damage."""
    states, lsn = recorded
    for begin in range(8, len(states) - 20, 8):
        early = SimulatedDisk()
        live(early, Replayed(states, begin))
        directory = early.open_directory(PATH, write=True)
        remove_note(directory)
        medium = early.snapshot()
        for pause_at in range(1, 1000):
            disk, store = SimulatedDisk(medium), Replayed(states, begin + 4)
            store.pause_at = pause_at
            live(disk, store)
            has_paused = store.requests >= pause_at
            store.move(len(states))
            assert live(disk, store) == lsn
            if not has_paused:
                break
        assert pause_at > 5
