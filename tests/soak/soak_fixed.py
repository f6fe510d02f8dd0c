"""A soak of directories that share a mirror: they are damaged, killed, rolled back and forked.

    python -m tests.soak.soak_fixed --seeds 1000 --seed 7

Each seed runs some actions on two directories. After each open, every row that a reader found in
the directory before is in its state, or in a directory that was put aside. Every row that a restore
of the mirror has is in the state, and the mirror never loses one. An open may refuse, but then
the rows are still there.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import threading
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from random import Random

from journal import JournalError, Options, Tables, TablesView, follow, repair
from journal._disk.posix import PosixDisk
from journal._format.layout import SEGMENT_HEADER_BYTES
from journal._format.segment import FrameState, Segment, segment_names
from journal._mirror.memory_store import MemoryStore
from journal._mirror.mirror import Mirror
from journal._mirror.restoring import restore_into
from journal._mirror.store import AbsentError, Store, UnreachableError
from journal._recovery.walk import decode
from journal.errors import CorruptionError
from tests.mirror.stores import TIMEOUT_S, MirrorOf, SilentStore, name_of
from tests.support import until

DAMAGES = ("flip", "zero", "cut", "remove", "swap", "double", "other", "header")


class KilledError(Exception):
    """The process that made the request is dead."""


class Connection(SilentStore):
    """A process's connection to the store. Once `left` more entries are appended, it is dead."""

    def __init__(self, world: World) -> None:
        super().__init__()
        store = world.store
        self._lock, self._entries, self._blobs = store._lock, store._entries, store._blobs
        self.entry_bytes_max = world.entry_bytes_max
        self.left = sys.maxsize
        self._world = world

    def _request(self) -> None:
        if self.left < 0:
            raise KilledError
        if self._world.is_silent:
            raise UnreachableError("the store is silent")

    def append(self, number: int, data: bytes) -> None:
        self.left -= 1
        super().append(number, data)


class WorldsMirror(MirrorOf):
    """The mirror of the world that runs now."""

    __slots__ = ()
    world: World

    def _open_store(self, open_s: float = 10.0, *, is_reader: bool = False) -> Store:
        world = WorldsMirror.world
        world.connection = Connection(world)
        return world.connection


class World:
    """Two directories, their mirror, and what they have to keep."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.random = random = Random(seed)
        self.store = MemoryStore()
        self.is_silent = False
        self.entry_bytes_max = random.choice((1400, 16 << 20))  # an upload may be several entries
        self.connection = Connection(self)
        self.actions: list[str] = []
        self._choices = {
            "keep_s": random.choice((0, 86_400)),
            "lag_bytes_max": random.choice((4096, 1 << 30)),
            "ack": random.choice(("local", "local", "remote")),
        }
        is_os = self._choices["ack"] == "local" and random.random() < 0.3
        self._options = Options(segment_bytes=4096, durability="os" if is_os else "disk")
        self._mirrored: set[str] = set()
        self._rows = 0
        WorldsMirror.world = self

    def run(self, actions: int) -> None:
        kinds = (self._open, self._open_alone, self._snapshot, self._repair, self._follow)
        for _ in range(actions):
            path = self.root / self.random.choice("aab")
            (kind,) = self.random.choices((*kinds, self._damage), (12, 2, 4, 1, 1, 8))
            self.actions.append(f"{kind.__name__} {path.name}")
            kind(path)
        self._open(self.root / "a")
        self._mirrors()

    # --- actions ---

    def _open(self, path: Path) -> None:
        before, mirrored = self._found(path), self._mirrors()
        self.is_silent = (path / "MIRROR").exists() and self.random.random() < 0.2
        was_silent, image = self.is_silent, self.root / "image"
        tables = self._opened(path)
        if tables is None:
            self._check(path, before, self._found(path))
            return
        try:
            if not was_silent:
                rows = _rows(tables)
                self._check(path, before, rows)
                missing = mirrored - rows
                assert not missing, f"{path.name} lacks {sorted(missing)} of its mirror"
            self._write(tables)
            self.is_silent = was_silent and self.random.random() < 0.3
            if not self.is_silent and self.random.random() < 0.7:
                tables.wait_mirrored(timeout_s=TIMEOUT_S)
            end = self.random.choice(("close", "kill", "kill amid an upload"))
            if end == "kill amid an upload":
                self.connection.left = self.random.randrange(3)
                self._write(tables)
            if end != "close":
                self._copy(path, image)
                if self.random.random() < 0.8:  # or what follows the copy is lost on this disk
                    self.connection.left = -1
        except JournalError:
            pass  # another writer had taken over, or the directory had diverged
        finally:
            if self.is_silent:
                self.connection.left = -1
            with suppress(JournalError, TimeoutError):
                tables.close(timeout_s=TIMEOUT_S)
            self._until_shipped()
            self.is_silent = False
        if image.exists():
            shutil.rmtree(path)
            image.rename(path)

    def _open_alone(self, path: Path) -> None:
        self._mirrors()
        with (
            suppress(JournalError, OSError),
            Tables.open(path, options=self._options, mirror=False) as tables,
        ):
            self._write(tables)

    def _snapshot(self, path: Path) -> None:
        """Make a snapshot, or take a directory back to one."""
        snapshot = self.root / "snapshot"
        if path.exists() and self.random.random() < 0.5:
            shutil.rmtree(snapshot, ignore_errors=True)
            shutil.copytree(path, snapshot)
        elif snapshot.exists():
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(snapshot, path)

    def _repair(self, path: Path) -> None:
        with suppress(JournalError, OSError):
            repair(path, apply=True, salvage=self.random.random() < 0.5)

    def _follow(self, path: Path) -> None:
        before = self._found(path)
        of_a_kill = set(path.glob("*.tmp"))
        try:
            follower = follow(self._mirror(), path, put_aside=self.random.random() < 0.5)
        except (JournalError, OSError):
            assert set(path.glob("*.tmp")) <= of_a_kill
            self._check(path, before, self._found(path))
            return
        if self.random.random() < 0.5:
            follower.close()
            self._check(path, before, self._found(path))
            return
        with suppress(JournalError), follower.promote(Tables.open, options=self._options) as tables:
            self._check(path, before, _rows(tables))
            self._write(tables)

    def _damage(self, path: Path) -> None:
        segments = sorted(path.glob("*.seg"))
        if not segments:
            return
        random = self.random
        segment, kind = random.choice([*segments, segments[-1]]), random.choice(DAMAGES)
        if kind == "remove":
            if len(segments) > 1:
                segment.unlink()
            return
        data = bytearray(segment.read_bytes())
        last = max(len(data.rstrip(b"\0")), SEGMENT_HEADER_BYTES + 1)
        at, size = random.randrange(SEGMENT_HEADER_BYTES, last), random.choice((1, 44, 300, 2000))
        if kind == "flip":
            data[at : at + size] = bytes(byte ^ 255 for byte in data[at : at + size])
        elif kind == "zero":
            data[at : at + size] = bytes(len(data[at : at + size]))
        elif kind == "cut":
            del data[at:]
        elif kind == "other":
            data[at : at + size] = random.choice(segments).read_bytes()[:size]
        elif kind == "header":
            data[random.randrange(SEGMENT_HEADER_BYTES)] ^= 255
        else:
            _move(data, path, segment.name, random, is_swap=kind == "swap")
        segment.write_bytes(data)
        self.actions.append(f"    {segment.name}: {kind} at {at}, {size} bytes")

    # --- helpers ---

    def _mirror(self) -> Mirror:
        url = name_of(self.store)
        return WorldsMirror(url, open_timeout_s=0.05, interval_s=0.005, **self._choices)  # type: ignore[arg-type]

    def _opened(self, path: Path) -> Tables | None:
        """Open a directory with its mirror. Return None if that is refused."""
        try:
            return Tables.open(path, options=self._options, mirror=self._mirror(), takeover=True)
        except (JournalError, OSError):
            return None
        finally:
            self.is_silent = self.is_silent and (path / "MIRROR").exists()

    def _write(self, tables: Tables) -> None:
        for _ in range(self.random.randrange(5)):
            for _ in range(self.random.choice((1, 1, 3))):
                self._rows += 1
                tables.table("t")[str(self._rows)] = "x" * self.random.choice((1, 100, 400, 1500))
            tables.sync(timeout_s=TIMEOUT_S)
        if self.random.random() < 0.2:
            tables.compact()

    def _copy(self, path: Path, image: Path) -> None:
        """Copy the files as a kill leaves them. A compaction may remove some meanwhile."""
        while True:
            try:
                shutil.copytree(path, image)
                return
            except shutil.Error:
                shutil.rmtree(image)

    def _until_shipped(self) -> None:
        def has_ended() -> bool:
            return not any(t.name.startswith("journal-mirror") for t in threading.enumerate())

        until(has_ended, "the end of the shipper", TIMEOUT_S)

    def _mirrors(self) -> set[str]:
        """Return the rows that a restore has. Check that none is lost."""
        restored = self.root / "restored"
        shutil.rmtree(restored, ignore_errors=True)
        try:
            restore_into(self.store, restored)
        except (JournalError, FileNotFoundError, AbsentError):
            return set()  # it is empty, or has the beginning of an upload only
        rows = _state(restored)
        lost = self._mirrored - rows
        assert not lost, f"the mirror has lost {sorted(lost)}"
        self._mirrored |= rows
        return rows

    def _found(self, path: Path) -> set[str]:
        """Return the rows that a reader finds, or all that are whole if it refuses."""
        if not path.exists():
            return set()
        try:
            return _rows(Tables.read(path))
        except (JournalError, OSError):
            return _whole_rows(path)

    def _check(self, path: Path, before: set[str], now: set[str]) -> None:
        aside = [_state(each) | _whole_rows(each) for each in self.root.glob(f"{path.name}.aside*")]
        lost = before.difference(now, *aside)
        assert not lost, f"{path.name} has lost {sorted(lost)}"


def _rows(tables: Tables | TablesView) -> set[str]:
    return set(map(str, tables.table("t")))


def _state(path: Path) -> set[str]:
    """Return the rows that a reader finds, none if it refuses the directory."""
    try:
        return _rows(Tables.read(path))
    except (JournalError, OSError):
        return set()


def _whole_rows(path: Path) -> set[str]:
    """Return the rows of all whole frames that are not cut off."""
    rows: set[str] = set()
    directory = PosixDisk().open_directory(path, write=False)
    names = segment_names(directory.names())
    for name, after in zip_longest(names, names[1:]):
        with suppress(CorruptionError), Segment(directory, name) as segment:
            for scanned in segment.scan():
                is_cut = after is not None and scanned.header.first_lsn >= after.first_lsn
                if scanned.state is FrameState.RECORDS and not is_cut:
                    for record in filter(None, decode(scanned, segment).records):
                        rows |= {key[1:].decode() for _, key, _ in record[1:]}
    directory.close(unlock=False)
    return rows


def _move(data: bytearray, path: Path, name: str, random: Random, *, is_swap: bool) -> None:
    """Swap two frames of a segment, or write one over the other, as a disk does that errs about the
    place."""
    directory = PosixDisk().open_directory(path, write=False)
    with suppress(CorruptionError), Segment(directory, segment_names([name])[0]) as segment:
        frames = [each for each in segment.scan() if each.state is FrameState.RECORDS]
        if len(frames) >= 2:
            one, two = sorted(random.sample(frames, 2))
            if is_swap:
                between = bytes(data[one.end : two.offset])
                data[one.offset : two.end] = two.data + between + one.data
            else:
                data[two.offset : two.offset + len(one.data)] = one.data
    directory.close(unlock=False)


def soak(seed: int, *, actions: int = 14) -> None:
    """Run one seed. Raises AssertionError, with the actions."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), seed)
        try:
            world.run(actions)
        except Exception as error:
            raise AssertionError("\n".join((f"seed {seed}: {error!r}", *world.actions))) from error


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    arguments = parser.parse_args()
    logging.getLogger("journal").addHandler(logging.NullHandler())
    faults = 0
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        try:
            soak(seed)
        except AssertionError as error:
            faults += 1
            print(error, flush=True)
    print(f"{arguments.seeds} seeds, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
