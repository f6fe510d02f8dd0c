"""A world of writers and a follower that share a store over a network that fails.

Every request may be lost, answered into the void, or delivered long after its sender gave it up.
Before and after each request, other processes may act, so that a process may pause anywhere. A
function `choose(most)` makes every choice, so Hypothesis or a seed can drive it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import count
from typing import TypeVar

import msgpack

from journal._mirror.blobs import CheckpointName
from journal._mirror.claiming import Appender, Claimer, HeldError, OvertakenError
from journal._mirror.entry import BASE, BYTES, CHECKPOINT, Claim, MirrorEntry, Piece
from journal._mirror.memory_store import MemoryStore
from journal._mirror.reading import BEGINNING, read_log
from journal._mirror.removing import Removal
from journal._mirror.store import Store, StoreError, TakenError, UnreachableError

T = TypeVar("T")
Choose = Callable[[int], int]
SEGMENT = f"{1:020d}-{1:010d}.seg"
STATEMENT = Claim("ab" * 16, "app", 1, "host", 1, 0)
_PIECE_BYTES = 16
_HOUR_MS = 3_600_000
_DEPTH_MAX = 3


class SequenceStore(MemoryStore):
    """A store whose numbers are never free again, like a stream's."""

    def __init__(self) -> None:
        super().__init__()
        self._last = 0

    def append(self, number: int, data: bytes) -> None:
        if number <= self._last:
            raise TakenError(f"entry {number} exists or is trimmed")
        if number > self._last + 1:
            raise UnreachableError(
                f"entry {number} is not next"
            )  # a late one, in front of its time
        super().append(number, data)
        self._last = number


class FaultyStore:
    """A process's connection to a store, which fails as `world` chooses."""

    def __init__(self, world: World, store: Store) -> None:
        self._world = world
        self._store = store
        self.url = store.url
        self.entry_bytes_max = store.entry_bytes_max

    def append(self, number: int, data: bytes) -> None:
        self._request(lambda: self._store.append(number, data))

    def entry(self, number: int) -> bytes:
        return self._request(lambda: self._store.entry(number))

    def numbers(self, after: int) -> list[int]:
        return self._request(lambda: self._store.numbers(after))

    def last(self, after: int) -> int:
        return self._request(lambda: self._store.last(after))

    def trim(self, numbers: Iterable[int]) -> None:
        for number in list(numbers):  # one by one, as some stores do it
            self._request(lambda number=number: self._store.trim([number]))  # type: ignore[misc]

    def put_blob(self, name: str, pieces: Iterable[bytes]) -> None:
        data = list(pieces)
        self._request(lambda: self._store.put_blob(name, data))

    def blob(self, name: str) -> Iterator[bytes]:
        return iter(self._request(lambda: list(self._store.blob(name))))

    def blob_names(self) -> list[str]:
        return self._request(self._store.blob_names)

    def delete_blobs(self, names: Iterable[str]) -> None:
        self._request(lambda: self._store.delete_blobs(names))

    def close(self) -> None:
        pass

    def _request(self, act: Callable[[], T]) -> T:
        world = self._world
        world.interleave()
        fate = world.choose(11)
        if fate == 0:
            raise UnreachableError("the request is lost")
        if fate == 1:
            world.late.append(lambda: deliver(act))
            raise UnreachableError("the request is late")
        result = act()
        world.interleave()
        if fate == 2:
            raise UnreachableError("the answer is lost")
        return result


def deliver(act: Callable[[], object]) -> None:
    """Run a request whose sender no longer waits for it."""
    with suppress(StoreError):
        act()


class Process:
    """A writer process. It dies when it is overtaken, or at any other moment."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = FaultyStore(world, world.store)
        self.claimer = Claimer(self.store, STATEMENT, world.nonce, takeover=world.choose(3) > 0)
        self.appender: Appender | None = None
        self.sent: bytes = b""
        # What it knows of the log: the entries after the last roll-up that it read or made.
        self.known: dict[int, MirrorEntry] = {}
        self.files: dict[int, bytes] = {}
        self.rolled_up = 0
        self.removal = Removal(self.store)
        self.base: MirrorEntry | None = None  # one whose blob is put
        self.is_dead = self.is_busy = False

    def act(self) -> None:
        """Do one thing. What fails is done again at a later time, or never."""
        self.is_busy = True
        try:
            self._act()
        except UnreachableError:
            self.is_dead = not self.world.choose(5)
        except (OvertakenError, HeldError):
            self.is_dead = True
        finally:
            self.is_busy = False

    def _act(self) -> None:
        appender = self.appender
        if appender is None:
            if self.world.standing and self.world.choose(3):
                return  # so that others get on
            claimed = self.claimer.claim()
            self.world.stands(claimed.claimed)
            self.appender = claimed
            return
        if not self.known:
            known = {}
            for entry in read_log(self.store, requests=1):
                apply(entry, self.files)
                known[entry.number] = entry
            self.known = known
            return
        if (repeated := appender.retry()) is not None:
            self._sent(repeated)
            return
        action = self.world.choose(7)
        if self.base is not None or action == 7:
            self._put_base(appender)
        elif action == 6:
            self._put_checkpoint(appender)
        elif action == 0:
            appender.release()
            self.is_dead = True
        elif action == 1:
            self._roll_up(appender)
        else:
            self.sent = b"%d" % next(self.world.ids)
            offset = (appender.last.number + 1) * _PIECE_BYTES
            self._sent(appender.append([Piece(SEGMENT, offset, self.sent)], 0))

    def _sent(self, entry: MirrorEntry) -> None:
        self.known[entry.number] = entry
        if entry.kind == BASE:
            self.base, self.rolled_up = None, entry.number
            return
        apply(entry, self.files)
        if entry.kind == BYTES:
            assert self.appender is not None
            self.world.acknowledge(entry, self.appender.claimed)
        else:
            self.is_dead = True

    def _roll_up(self, appender: Appender) -> None:
        # From its own last roll-up on, or else from its claim, or from the beginning.
        is_from_claim = not self.rolled_up and self.world.choose(1)
        begin = appender.claimed.number if is_from_claim else self.rolled_up + 1
        blobs = [number for number, each in self.known.items() if each.kind in (CHECKPOINT, BASE)]
        begin = max(begin, max(blobs, default=0) + 1)
        numbers = [number for number in sorted(self.known) if number >= begin]
        if not numbers:
            return
        first = self.known[numbers[0]]
        entries = [self.known[number] for number in numbers]
        pieces = [piece for entry in entries for piece in entry.pieces]
        name = appender.roll_up(first.first or first.number, first.follows, pieces)
        self.rolled_up = appender.last.number
        appender.trim(name, [entry.number for entry in entries if entry.kind == BYTES])

    def _put_checkpoint(self, appender: Appender) -> None:
        """Put a checkpoint of all that is acknowledged, and remove what that covers. Clocks go as
        they like."""
        last, choose = appender.last, self.world.choose
        name = CheckpointName(last.number, last.number, choose(5) * _HOUR_MS)
        appender.put_checkpoint(name, last.nonce, 0, [state(self.files)])
        self.removal.run(appender, choose(9) * _HOUR_MS, choose(3) * 3600)

    def _put_base(self, appender: Appender) -> None:
        """Put a base, or else the entry that makes it true."""
        if self.base is None:
            base = appender.next_base(appender.last.number, 0)
            appender.put_base(base, self.world.choose(5) * _HOUR_MS, [state(self.files)])
            self.base = base
            return
        self._sent(appender.send(self.base))


def state(files: dict[int, bytes]) -> Piece:
    """Return a checkpoint of the bytes at all offsets."""
    return Piece(f"checkpoint-{0:020d}.json", 0, msgpack.packb(files))


def apply(entry: MirrorEntry, files: dict[int, bytes]) -> None:
    """Add the bytes of an entry. Those that are there already are the same."""
    for piece in entry.pieces:
        found = {piece.offset: piece.data}
        if piece.is_checkpoint:
            found = msgpack.unpackb(piece.data, strict_map_key=False)
        for offset, data in found.items():
            assert files.setdefault(offset, data) == data


class World:
    """The store, its processes, and what they were told."""

    def __init__(self, choose: Choose, store: Store) -> None:
        self.choose = choose
        self.store = store
        self.ids = count(1)
        self._nonces = count(1)
        self._depth = 0
        self.late: list[Callable[[], object]] = []
        self.acknowledged: dict[int, bytes] = {}
        self._claims: dict[int, int] = {}  # of each acknowledged entry
        self.standing: list[MirrorEntry] = []
        self.processes = [Process(self) for _ in range(3)]
        self.follower = Follower(FaultyStore(self, store))

    def nonce(self) -> bytes:
        return next(self._nonces).to_bytes(8, "big")

    def step(self) -> None:
        """Let one process act that is not paused, or deliver a late request."""
        idle = [n for n, process in enumerate(self.processes) if not process.is_busy]
        chosen = self.choose(len(self.processes) + 1)
        if chosen == len(self.processes) + 1:
            if self.late:
                self.late.pop(self.choose(len(self.late) - 1))()
        elif chosen == len(self.processes):
            if not self.follower.is_busy:
                self.follower.act()
        elif chosen in idle:
            if self.processes[chosen].is_dead:
                self.processes[chosen] = Process(self)
            self.processes[chosen].act()

    def interleave(self) -> None:
        """Let others act while a process waits for its request, perhaps several of them."""
        if self._depth == _DEPTH_MAX:
            return
        self._depth += 1
        try:
            while self.choose(5) == 5:
                self.step()
        finally:
            self._depth -= 1

    def stands(self, claimed: MirrorEntry) -> None:
        """Note that a claim stands: it follows everything that was acknowledged, except to writers
        that claimed after it, while the answer to its list was on the way."""
        assert all(
            number < claimed.number or claim > claimed.number
            for number, claim in self._claims.items()
        )
        self.standing.append(claimed)

    def acknowledge(self, entry: MirrorEntry, claimed: MirrorEntry) -> None:
        """Note that a writer was told that its entry is in the log."""
        later = [each.number for each in self.standing if each.number > claimed.number]
        assert all(entry.number < number for number in later), "acknowledged after another claim"
        assert entry.number not in self.acknowledged
        self._claims[entry.number] = claimed.number
        self.acknowledged[entry.number] = entry.pieces[0].data

    def check(self) -> None:
        """Check that a new reader and the follower find all that was acknowledged."""
        while self.late:
            self.late.pop()()
        reader = Follower(self.store)
        reader.act()
        self.follower.store = self.store
        self.follower.act()
        for number, data in self.acknowledged.items():
            assert reader.files[number * _PIECE_BYTES] == data
        assert self.follower.files == reader.files


class Follower:
    """A reader that keeps up with the log. `files` are the bytes that it has, by offset."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.place = BEGINNING
        self.files: dict[int, bytes] = {}
        self.is_busy = False

    def act(self) -> None:
        self.is_busy = True
        try:
            for entry in read_log(self.store, self.place, requests=1):
                apply(entry, self.files)
                self.place = self.place.after(entry)
        except UnreachableError:
            pass  # it goes on later
        finally:
            self.is_busy = False


def run(choose: Choose, store: Store, steps: int) -> World:
    world = World(choose, store)
    for _ in range(steps):
        world.step()
    world.check()
    return world
