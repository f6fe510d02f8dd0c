"""Measure the restore of a mirror whose store is far away, and the uploads of a busy writer.

The store is in memory, and each of its requests takes `--delay-ms` longer. One mirror has
`--mib` MiB of log in batches of 1,000 records. The other has `--commits` commits, each of which
was an entry of its own, as if they had been made at one a second. For the uploads, a journal
writes `--mib-per-s` MiB of log a second for `--seconds`, and compacts every 64 MiB.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bench.figures import Bar, at_most
from bench.machine import about
from bench.output import parsed, parser_of, show
from journal import Journal, Mirror, Options
from journal._disk.posix import PosixDisk
from journal._mirror.claiming import Claimer
from journal._mirror.entry import Claim
from journal._mirror.holding import Holding
from journal._mirror.memory_store import MemoryStore
from journal._mirror.restoring import restore_into
from journal._mirror.store import Store
from journal._mirror.unshipped import Unshipped
from journal._mirror.upkeep import Upkeep

MIB = 1 << 20
_RECORD = b"x" * 1000


class CountedStore(MemoryStore):
    """A store each of whose requests takes `delay_s` longer, and is counted by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.delay_s = 0.0
        self.requests = Counter[str]()

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name.startswith("_") or name == "last" or not callable(value):  # that calls numbers
            return value

        def request(*arguments: Any) -> Any:
            self.requests[name] += 1
            time.sleep(self.delay_s)
            return value(*arguments)

        return request


class MemoryMirror(Mirror):
    """A mirror in a store of this process."""

    __slots__ = ("store",)

    def _check(self, path: str) -> None:
        """Accept any address."""

    def _open_store(self, open_s: float = 10.0, *, is_reader: bool = False) -> Store:
        store: Store = self.store  # type: ignore[attr-defined]
        return store


@dataclass(frozen=True)
class Row:
    """The seconds and the CPU seconds of a restore, its size and the number of requests."""

    what: str
    seconds: float
    cpu_s: float
    size_bytes: int
    lsn: int
    requests: int


def mirror_in(store: Store, **choices: Any) -> Mirror:
    mirror = MemoryMirror("memory:", **choices)
    object.__setattr__(mirror, "store", store)
    return mirror


def large(folder: Path, mib: int) -> CountedStore:
    store = CountedStore()
    with Journal.open(folder / "large", mirror=mirror_in(store, interval_s=0.2)) as journal:
        for _ in range(mib):
            for _ in range(MIB // len(_RECORD)):
                lsn = journal.append(_RECORD)
            journal.wait_durable(lsn)
    return store


def many(folder: Path, commits: int) -> CountedStore:
    """Make a mirror of commits with an entry each. The log is not synced, which takes longest."""
    store, nonces = CountedStore(), count(1)
    with Journal.open(folder / "many", options=Options(durability="os")) as journal:
        statement = Claim(journal.journal_id, "", 1, "bench", 1, 0)
        appender = Claimer(store, statement, lambda: next(nonces).to_bytes(8, "big")).claim()
        directory = PosixDisk().open_directory(folder / "many", write=False)
        unshipped = Unshipped(directory, journal.epoch)
        upkeep = Upkeep(
            store,
            appender,
            directory,
            unshipped,
            Holding(1 << 40),
            keep_s=86_400,
            now_ms=lambda: 0,
        )
        writer = journal._core.committer._writer
        for _ in range(commits):
            lsn = journal.append(_RECORD[:200])
            journal.wait_durable(lsn)
            segment = writer._segment
            assert segment is not None
            pieces, _ = unshipped.read(
                (segment.path, segment.offset, lsn, 0), store.entry_bytes_max
            )
            appender.append(pieces, lsn)
            unshipped.advance(pieces)
            upkeep.add(appender.last)
            upkeep.run(lsn, wait_s=60)
        directory.close(unlock=False)
    return store


def restored(what: str, store: CountedStore, path: Path, delay_s: float) -> Row:
    store.delay_s = delay_s
    store.requests.clear()
    began, cpu_s = time.perf_counter(), time.process_time()
    report = restore_into(store, path)
    took_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu_s
    total = sum(store.requests.values())
    return Row(what, took_s, cpu_s, report.size_bytes, report.lsn, total)


def uploads(folder: Path, mib_per_s: float, seconds: float) -> dict[str, float]:
    """Return the number of entries, roll-ups and checkpoints that were put a second."""
    store = CountedStore()
    size = round(mib_per_s * MIB / 100)
    items = [{"state": "x" * 1000}] * 1000
    with Journal.open(folder / "busy", mirror=mirror_in(store)) as journal:
        journal.wait_mirrored(journal.append("the claim is made"))
        store.requests.clear()
        began, written, compacted = time.monotonic(), 0, 0
        while (now_s := time.monotonic() - began) < seconds:
            if written > mib_per_s * MIB * now_s:
                time.sleep(0.002)
                continue
            lsn = journal.append(b"x" * size)
            journal.wait_durable(lsn)
            written += size
            if written - compacted > 64 * MIB:
                compacted = written
                journal.compact(lambda lsn=lsn: (lsn, iter(items))).close()  # type: ignore[misc]
        took_s, entries = time.monotonic() - began, store.requests["append"]
        blobs = store.requests["put_blob"]
        checkpoints = sum(name.endswith(".ckpt") for name in store.blob_names())
    return {
        "mib_per_s": written / MIB / took_s,
        "entries_per_s": entries / took_s,
        "roll_ups_per_s": (blobs - checkpoints) / took_s,
        "checkpoints_per_s": checkpoints / took_s,
    }


def lines(rows: list[Row], put: dict[str, float]) -> Iterator[str]:
    for row in rows:
        yield (
            f"{row.what:28}{row.seconds:7.2f} s {row.cpu_s:7.2f} s of CPU "
            f"{row.size_bytes / 1e6:7.1f} MB {row.lsn:9,} records {row.requests:6,} requests"
        )
    yield "uploads a second: " + ", ".join(f"{name} {value:.2f}" for name, value in put.items())


def bars(rows: list[Row], put: dict[str, float], delay_ms: float) -> Iterator[Bar]:
    for row in rows:
        yield at_most(f"restore of {row.what} at +{delay_ms:g} ms", row.seconds, 5, "s")
    name = f"entries put a second at {put['mib_per_s']:.1f} MiB/s of log"
    yield at_most(name, put["entries_per_s"], 1.1, "/s")


def main(arguments: list[str]) -> int:
    parser = parser_of("restore", __doc__)
    parser.add_argument("--mib", type=int, default=96, help="size of the log; default: 96")
    parser.add_argument("--commits", type=int, default=100_000, help="default: 100,000")
    parser.add_argument("--delay-ms", type=float, default=20, help="of each request; default: 20")
    parser.add_argument("--mib-per-s", type=float, default=7.5, help="default: 7.5")
    parser.add_argument("--seconds", type=float, default=20, help="of uploads; default: 20")
    options = parsed(parser, arguments)
    delay_s = options.delay_ms / 1e3
    with tempfile.TemporaryDirectory(dir=options.dir) as name:
        folder = Path(name)
        mirrors = {
            f"{options.mib} MiB": large(folder, options.mib),
            f"{options.commits:,} commits": many(folder, options.commits),
        }
        rows = [
            restored(what, store, folder / f"restored-{number}", delay_s)
            for number, (what, store) in enumerate(mirrors.items())
        ]
        put = uploads(folder, options.mib_per_s, options.seconds)
    return show(
        "restore",
        options,
        about(),
        {"rows": [asdict(row) for row in rows], "uploads": put},
        lines(rows, put),
        bars(rows, put, options.delay_ms),
    )
