"""The small journal that the damage tests damage: two checkpoints, four segments, a torn tail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from journal import Checkpoint, CorruptionError, DurableState, FailedError, JournalReader
from journal.recovery import Batch, recover
from journal.testing import SimulatedDisk
from tests.crash_support import (
    PATH,
    Ledger,
    Record,
    append,
    commit,
    files,
    image,
    manual_options,
    open_ledger,
    replayed,
)
from tests.independent_reader import (
    SEGMENT_HEADER,
    decode_frame,
    decode_segment_header,
)

SEGMENT_BYTES = 220
SEGMENTS = [
    "00000000000000000004-0000000002.seg",  # with a torn tail
    "00000000000000000007-0000000003.seg",
    "00000000000000000010-0000000003.seg",  # in the same epoch: a roll
    "00000000000000000012-0000000004.seg",
]
OLDER, NEWER = "checkpoint-00000000000000000004.json", "checkpoint-00000000000000000010.json"
NAMES = [*SEGMENTS, OLDER, NEWER]
Files = dict[str, bytes]


def record(lsn: int) -> Record:
    return ["abc"[lsn % 3], lsn, "rolls" * 4 if lsn == 10 else ""]


RECORDS = [record(lsn) for lsn in range(1, 14)]


def open_small(disk: SimulatedDisk) -> DurableState[Ledger]:
    return open_ledger(disk, manual_options(segment_bytes=SEGMENT_BYTES))


@cache
def journal(*, closed: bool, journal_id: int = 1) -> Files:
    """Its files. Made once; `closed` well, or killed right after the last commit."""
    disk = SimulatedDisk()
    for _ in range(journal_id - 1):
        disk.new_id()
    with open_small(disk) as state:
        commit(state, record(1))
        commit(state, record(2), record(3))
    state = open_small(disk)
    commit(state, record(4))
    state.compact().close()
    commit(state, record(5), record(6))
    tear(disk, state, ["b", 0, "torn"])
    with open_small(disk) as state:
        commit(state, record(7))
        commit(state, record(8), record(9))
        commit(state, record(10))  # in a segment of its own
        state.compact().close()
        commit(state, record(11))
    state = open_small(disk)
    commit(state, record(12))
    commit(state, record(13))
    if closed:
        state.close()
    found = files(disk)
    disk.kill()
    with suppress(FailedError):
        state.close()
    return found


def tear(disk: SimulatedDisk, state: DurableState[Ledger], torn: Record) -> None:
    """Half of a commit is on the disk when the power goes."""
    append(state, torn)
    disk.crash_after(1)
    with suppress(FailedError):
        state.close()
    disk.power_cut(lambda change: change.data[: len(change.data) // 2])


class Place(NamedTuple):
    """A frame or (with no record: `last_lsn` is below `first_lsn`) a mark."""

    start: int
    end: int
    first_lsn: int
    last_lsn: int
    durable_lsn: int


def is_segment(name: str) -> bool:
    return name.endswith(".seg")


def lsn_of(name: str) -> int:
    """First LSN of a segment, LSN of a checkpoint."""
    return int(name.removeprefix("checkpoint-")[:20])


@cache
def places(data: bytes) -> tuple[Place, ...]:
    seed, at = decode_segment_header(data).seed, SEGMENT_HEADER.size
    found = []
    while decoded := decode_frame(data, at, seed):
        frame, end = decoded
        last_lsn = frame.first_lsn + len(frame.records) - 1
        found.append(Place(at, end, frame.first_lsn, last_lsn, frame.durable_lsn))
        at = end
    return tuple(found)


def marks(data: bytes) -> list[Place]:
    return [place for place in places(data) if place.last_lsn < place.first_lsn]


# --- how it opens ---

Opened = tuple[tuple[str, int, int] | None, int]


def opened(contents: Files) -> Opened:
    """How it is refused, if it is; the last LSN. P1, P4, P6 on the way."""
    disk = image(contents)
    try:
        state = open_small(disk)
    except CorruptionError as error:
        assert disk.contents(PATH) == contents, "a refusal changes nothing"
        return (error.path, error.offset, error.lsn), 0
    assert state.machine.summary == replayed(RECORDS[: state.journal.last_lsn])
    state.close()
    keeps_what_it_read(contents, files(disk))
    return None, state.journal.last_lsn


def recovered(contents: Files) -> Opened:
    """`opened`, without the threads of an open journal, for there are ten thousand flips."""
    disk, machine = image(contents), Ledger()

    def begin(checkpoint: Checkpoint | None) -> None:
        for item in checkpoint.items() if checkpoint else ():
            machine.load(item)

    def receive(batch: Batch) -> None:
        for lsn, each in enumerate(batch.records, batch.first_lsn):
            machine.apply(lsn, each)

    directory = disk.open_directory(PATH, write=True)
    try:
        found = recover(directory, kept=2, begin=begin, receive=receive)
    except CorruptionError as error:
        assert disk.contents(PATH) == contents, "a refusal changes nothing"
        return (error.path, error.offset, error.lsn), 0
    assert machine.summary == replayed(RECORDS[: found.last_lsn])
    keeps_what_it_read(contents, files(disk))
    return None, found.last_lsn


def keeps_what_it_read(before: Files, after: Files) -> None:
    """Nothing is cut or rewritten, torn tails neither; only zeros are trimmed."""
    kept = {name: data.rstrip(b"\0") for name, data in before.items()}
    assert {name: data.rstrip(b"\0") for name, data in after.items()} == kept


def findings(contents: Files) -> set[tuple[str, tuple[str, int]]]:
    """File, kind and offset of all that `verify` finds."""
    with JournalReader.open(PATH, disk=image(contents)) as reader:
        return {(f.path.rpartition("/")[2], (f.kind, f.offset)) for f in reader.verify()}


def flip(contents: Files, name: str) -> Iterator[tuple[int, int, Files]]:
    """Each bit of a file: its byte, its place there, and all files with that bit flipped."""
    for offset in range(len(contents[name])):
        for bit in range(8):
            data = bytearray(contents[name])
            data[offset] ^= 1 << bit
            yield offset, bit, {**contents, name: bytes(data)}
