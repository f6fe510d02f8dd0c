"""Helpers that the engine's tests share: simulated and slow disks, damage, child processes."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal, NoReturn

import msgpack

from journal import CowTable, FailedError, Finding, Journal, JournalReader, Options, SegmentInfo
from journal._disk.disk import Directory
from journal.testing import Outcome, SimulatedDisk, SimulatedFile, drawn
from journal.testing.disk import Operation
from tests.independent_reader import Segment, decode_files, decode_segment

PATH = "/journal"
FIRST = "00000000000000000001-0000000001.seg"  # a new journal's segment
TIMEOUT_S = 30.0  # bounds waits for events that come at once unless something is broken
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
    """Return options with small segments and without commits or compactions of their own accord."""
    return Options(
        durability=durability,
        flush_interval_s=flush_interval_s,
        flush_bytes=flush_bytes,
        segment_bytes=segment_bytes,
        checkpoint_min_bytes=checkpoint_min_bytes,
        **others,
    )


class IdleObserver:
    """An observer that ignores each event."""

    def committed(self, records: int, size_bytes: int, sync_ns: int) -> None: ...
    def stalled(self, error: OSError) -> None: ...
    def compacted(self, lsn: int, count: int, size_bytes: int, duration_ns: int) -> None: ...
    def compaction_failed(self, error: BaseException) -> None: ...
    def failed(self, error: BaseException) -> None: ...


def open_on(disk: SimulatedDisk, **others: Any) -> Journal:
    return Journal.open(PATH, options=options(**others), disk=disk)


def put(journal: Journal, *records: Any) -> int:
    """Append each record in a commit of its own. Return the last LSN."""
    for record in records:
        journal.wait_durable(journal.append(record), timeout_s=TIMEOUT_S)
    return journal.last_lsn


def sized(size: int) -> bytes:
    """Return a record that packs to `size` bytes."""
    record = b"x" * (size - 2 if size < 258 else size - 3)
    assert len(msgpack.packb(record)) == size
    return record


def put_lines(journal: Journal, count: int, *, size: int = 10) -> None:
    """Append `count` records, `[lsn, "xxx…"]` each, in a commit of its own."""
    for _ in range(count):
        put(journal, [journal.last_lsn + 1, "x" * size])


def logged(journal: Journal, after: int | None = 0) -> list[Any]:
    """Return the replayed records. Their LSNs must be dense."""
    entries = list(journal.replay(after))
    if entries:
        first_lsn = entries[0].lsn
        assert [e.lsn for e in entries] == [*range(first_lsn, first_lsn + len(entries))]
    return [entry.record for entry in entries]


def reopened(disk: SimulatedDisk, **others: Any) -> list[Any]:
    """Open the journal again, and return the records that it recovers."""
    with open_on(disk, **others) as journal:
        return logged(journal)


def on_disk(disk: SimulatedDisk) -> list[Any]:
    """Return the records, as a reader that knows only the format page sees them."""
    return [record.record for record in decode_files(disk.contents(PATH))[1]]


def read_all(disk: SimulatedDisk) -> list[Any]:
    with JournalReader.open(PATH, disk=disk) as reader:
        return [entry.record for entry in reader.entries()]


def crash(journal: Journal, disk: SimulatedDisk) -> None:
    """Kill the process that owns the journal, and clean up its remains in this process."""
    disk.kill()
    disk.before = None
    with suppress(FailedError):
        journal.close(timeout_s=TIMEOUT_S)


def frozen(journal: Journal, *items: Any) -> Callable[[], tuple[int, list[Any]]]:
    """Return a freeze for `Journal.compact`: `items`, as of the last LSN at the call."""
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
    """Return the offset where the last frame or mark of a segment ends."""
    data = disk.contents(PATH)[name]
    return len(data) - len(decode_segment(data).rest)


def write_at(disk: SimulatedDisk, name: str, offset: int, data: bytes) -> None:
    """Write into a file of the journal without the journal's knowledge."""
    disk.open_directory(PATH, write=True).open(name, "update").write(data, offset)


def put_file(directory: Directory, name: str, data: bytes, *, synced: bool = True) -> SimulatedFile:
    """Create a file. Make it and its name durable, unless `synced` is False."""
    file = directory.open(name, "create")
    assert isinstance(file, SimulatedFile)
    file.write(data, 0)
    if synced:
        file.sync()
        directory.sync()
    return file


def until(condition: Callable[[], object], event: str, timeout_s: float = TIMEOUT_S) -> None:
    """Poll until `condition` holds. Fail after `timeout_s`, and name the `event`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {event}"
        time.sleep(0.001)


def foreign_loop() -> NoReturn:
    """Fail. This replaces `asyncio.new_event_loop`, whose loops may be of any kind: a program may
    have set a policy, as for a GUI."""
    raise AssertionError("made an event loop by the program's policy")


class Held:
    """A slow disk: each `operation` on a path that contains `path` waits until it is released.

        with Held(disk, "sync") as held:
            ...
            held.wait_reached()  # now one operation waits
            held.release_one()

    All operations are released at the end of the `with`.
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
        self.release_all()

    def _before(self, operation: Operation, path: str) -> None:
        if operation == self._operation and self._path in path and not self._is_over:
            self._reached.release()
            assert self._may_go.acquire(timeout=TIMEOUT_S), "the test never released it"

    def wait_reached(self) -> None:
        assert self._reached.acquire(timeout=TIMEOUT_S), f"no {self._operation} was called"

    def release_one(self) -> None:
        self._may_go.release()

    def release_all(self) -> None:
        self._is_over = True
        self._may_go.release(1000)


class Watched:
    """A recorder of the calls that a simulated disk receives, and of their threads."""

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
    """Return an outcome that follows the given draws. Each must be within the bound that is asked
    for."""
    values = iter(draws)

    def draw(most: int) -> int:
        value = next(values)
        assert 0 <= value <= most
        return value

    return drawn(draw, damage=damage)


class Table:
    """A state machine of `[key, value]` records. A value of None removes the key."""

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


class Interrupted(Exception):  # noqa: N818 stands for KeyboardInterrupt
    pass


@contextmanager
def interrupt_after(seconds: float) -> Iterator[None]:
    """Raise Interrupted once, after `seconds`, in this thread, which must be the main one.

    CPython runs no handler of a signal that comes just before a blocking call begins, until the
    next signal. So the timer repeats.
    """
    has_struck = False

    def strike(*_: object) -> None:
        nonlocal has_struck
        if not has_struck:
            has_struck = True
            raise Interrupted

    before = signal.signal(signal.SIGALRM, strike)
    gc.disable()  # an exception that is raised inside a finalizer reaches nobody
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        gc.enable()
        signal.signal(signal.SIGALRM, before)


@contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run `script` in a process of its own. Kill it at the end of the `with` if it still runs."""
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
    """Run `script` in a Python process of its own, until it ends."""
    return subprocess.run(
        [sys.executable, "-P", "-u", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S * 2,
    )


@contextmanager
def bounded(child: subprocess.Popen[Any]) -> Iterator[None]:
    """Kill a child that still runs after `TIMEOUT_S` or at the end, so that no test hangs on it."""
    watchdog = threading.Timer(TIMEOUT_S, child.kill)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.cancel()
        child.kill()
