"""What the tests of the engine share: journals on a simulated disk, slow disks, other processes."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

import msgpack

from journal import CowTable, FailedError, Finding, Journal, JournalReader, Options, SegmentInfo
from journal._disk.disk import Directory
from journal.testing import Outcome, SimulatedDisk, SimulatedFile, drawn
from journal.testing.disk import Operation
from tests.independent_reader import Segment, decode_files, decode_segment

PATH = "/journal"
FIRST = "00000000000000000001-0000000001.seg"  # a new journal's segment
TIMEOUT_S = 30.0  # of what happens at once, unless something is wrong
NEVER_S = 3600.0


def options(
    *,
    durability: Literal["disk", "os"] = "disk",
    flush_interval_s: float = NEVER_S,
    flush_bytes: int = 1 << 30,
    segment_bytes: int = 4096,
    checkpoint_min_bytes: int = 1 << 30,
    **others: Any,
) -> Options:
    """Small segments; nothing is committed or compacted but when a test asks for it."""
    return Options(
        durability=durability,
        flush_interval_s=flush_interval_s,
        flush_bytes=flush_bytes,
        segment_bytes=segment_bytes,
        checkpoint_min_bytes=checkpoint_min_bytes,
        **others,
    )


def open_on(disk: SimulatedDisk, **others: Any) -> Journal:
    return Journal.open(PATH, options=options(**others), disk=disk)


def put(journal: Journal, *records: Any) -> int:
    """Append each in a commit of its own; the last LSN."""
    for record in records:
        journal.wait_durable(journal.append(record), timeout_s=TIMEOUT_S)
    return journal.last_lsn


def sized(size: int) -> bytes:
    """A record that packs to `size` bytes."""
    record = b"x" * (size - 2 if size < 258 else size - 3)
    assert len(msgpack.packb(record)) == size
    return record


def put_lines(journal: Journal, count: int, *, size: int = 10) -> None:
    """`count` commits of one record each: `[lsn, "xxx…"]`."""
    for _ in range(count):
        put(journal, [journal.last_lsn + 1, "x" * size])


def logged(journal: Journal, after: int | None = 0) -> list[Any]:
    """The records that replay shows; their LSNs are checked to be dense."""
    entries = list(journal.replay(after))
    if entries:
        first_lsn = entries[0].lsn
        assert [e.lsn for e in entries] == [*range(first_lsn, first_lsn + len(entries))]
    return [entry.record for entry in entries]


def reopened(disk: SimulatedDisk, **others: Any) -> list[Any]:
    """What another opening recovers."""
    with open_on(disk, **others) as journal:
        return logged(journal)


def on_disk(disk: SimulatedDisk) -> list[Any]:
    """The records, as a reader that knows only the format page sees them."""
    return [record.record for record in decode_files(disk.contents(PATH))[1]]


def read_all(disk: SimulatedDisk, after: int | None = None) -> list[Any]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return [entry.record for entry in reader.entries(after)]


def crash(journal: Journal, disk: SimulatedDisk) -> None:
    """The process dies; what is left of it here is tidied away."""
    disk.kill()
    disk.before = None
    with suppress(FailedError):
        journal.close(timeout_s=TIMEOUT_S)


def frozen(journal: Journal, *items: Any) -> Callable[[], tuple[int, list[Any]]]:
    """A freeze for `Journal.compact`: these items as of all that was appended."""
    return lambda: (journal.last_lsn, list(items))


def segments(disk: SimulatedDisk) -> list[Segment]:
    return [decode_segment(disk.contents(PATH)[name]) for name in names(disk, ".seg")]


def findings(disk: SimulatedDisk) -> list[Finding]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return list(reader.verify())


def infos(disk: SimulatedDisk) -> list[SegmentInfo]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return reader.segments()


def names(disk: SimulatedDisk, end: str) -> list[str]:
    return [name for name in disk.contents(PATH) if name.endswith(end)]


def end_of(disk: SimulatedDisk, name: str) -> int:
    """Where the last frame or mark of a segment ends."""
    data = disk.contents(PATH)[name]
    return len(data) - len(decode_segment(data).rest)


def write_at(disk: SimulatedDisk, name: str, offset: int, data: bytes) -> None:
    """Change a file of the journal, behind its back."""
    disk.open_directory(PATH, write=True).open(name, "update").write(data, offset)


def put_file(directory: Directory, name: str, data: bytes, *, synced: bool = True) -> SimulatedFile:
    """Create a file, and unless `synced` is False make it and its name durable."""
    file = directory.open(name, "create")
    assert isinstance(file, SimulatedFile)
    file.write(data, 0)
    if synced:
        file.sync()
        directory.sync()
    return file


def until(condition: Callable[[], object], what: str, timeout_s: float = TIMEOUT_S) -> None:
    """Wait for what nothing tells of; fails where it never comes."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.001)


class Held:
    """A slow disk: each `operation` on paths that contain `path` waits until it is let go.

        with Held(disk, "sync") as held:
            ...
            held.wait_reached()  # one waits now
            held.let_one()

    All go on at the end of the `with`.
    """

    def __init__(self, disk: SimulatedDisk, operation: Operation, path: str = "") -> None:
        self._disk = disk
        self._operation = operation
        self._path = path
        self._reached = threading.Semaphore(0)
        self._may_go = threading.Semaphore(0)
        self._is_over = False

    def __enter__(self) -> Held:
        self._disk.before = self._before
        return self

    def __exit__(self, *_: object) -> None:
        self.let_all()

    def _before(self, operation: Operation, path: str) -> None:
        if operation == self._operation and self._path in path and not self._is_over:
            self._reached.release()
            assert self._may_go.acquire(timeout=TIMEOUT_S), "the test never let it go on"

    def wait_reached(self) -> None:
        assert self._reached.acquire(timeout=TIMEOUT_S), f"no {self._operation} was called"

    def let_one(self) -> None:
        self._may_go.release()

    def let_all(self) -> None:
        self._is_over = True
        self._may_go.release(1000)


class Watched:
    """Counts what a simulated disk is asked for, in which thread."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.calls: list[tuple[Operation, str]] = []
        self.threads: list[str] = []
        disk.before = self._before

    def _before(self, operation: Operation, path: str) -> None:
        self.calls.append((operation, path))
        self.threads.append(threading.current_thread().name)

    def of(self, operation: Operation) -> int:
        return sum(called == operation for called, _ in self.calls)


def scripted(draws: Iterable[int], *, damage: bool = False) -> Outcome:
    """`drawn`, with the draws given; each must be possible."""
    left = iter(draws)

    def draw(most: int) -> int:
        value = next(left)
        assert 0 <= value <= most
        return value

    return drawn(draw, damage=damage)


class Table:
    """A state machine of `[key, value]` records; None for a value removes the key."""

    application = "table/1"

    def __init__(self) -> None:
        self.rows: CowTable[str, Any] = CowTable()
        self.applied: list[int] = []

    def load(self, item: Any) -> None:
        self.rows[item[0]] = item

    def apply(self, lsn: int, record: Any) -> None:
        key, value = record
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = [key, value]
        self.applied.append(lsn)

    def freeze(self) -> Any:
        return self.rows.freeze()

    def content(self) -> dict[str, Any]:
        return {key: row[1] for key, row in self.rows.items()}


class Interrupted(Exception):  # noqa: N818 it stands for KeyboardInterrupt
    pass


@contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """Raises Interrupted in this thread, the main one, once."""

    def strike(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, strike)
    gc.disable()  # what strikes in a finalizer is not raised to anyone
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        signal.signal(signal.SIGALRM, before)


@contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `script`; it is killed at the end of the `with`, if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-u", "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `script` in a Python of its own, to its end."""
    return subprocess.run(
        [sys.executable, "-P", "-u", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S * 2,
    )
