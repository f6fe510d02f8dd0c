"""The small journal that the damage tests damage: two checkpoints, four segments and a torn
tail."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from functools import cache, lru_cache
from typing import NamedTuple

from proof.ledger import Ledger

from journal import CorruptionError, DurableState, FailedError, JournalReader
from journal._recovery.recovery import Recovery
from journal.testing import History, ManualOptions, Owner, SimulatedDisk
from journal.testing.history import state_of
from tests.crash.crash_support import (
    PATH,
    Durability,
    Record,
    files,
    image,
)
from tests.independent_reader import (
    SEGMENT_HEADER,
    FormatError,
    decode_checkpoint,
    decode_frame,
    decode_segment_header,
)

SEGMENTS = [
    "00000000000000000004-0000000002.seg",  # ends with a torn tail
    "00000000000000000007-0000000003.seg",
    "00000000000000000010-0000000003.seg",  # same epoch: the segment before it was full
    "00000000000000000012-0000000004.seg",
]
OLDER, NEWER = "checkpoint-00000000000000000004.json", "checkpoint-00000000000000000010.json"
NAMES = [*SEGMENTS, OLDER, NEWER]
Files = dict[str, bytes]


class Size(NamedTuple):
    """The sizes of the journal: bytes of a segment, and characters that fill a record."""

    segment_bytes: int
    filler: int
    rolls: int  # characters in the record that needs its own segment


SMALL = Size(220, 0, 20)  # small enough to flip every bit
LARGE = Size(8192, 900, 6000)  # large enough to contain sectors and pages


def record(lsn: int, size: Size = SMALL) -> Record:
    return ["abc"[lsn % 3], lsn, "rolls" * (size.rolls // 5) if lsn == 10 else "x" * size.filler]


def records(size: Size = SMALL) -> list[Record]:
    return [record(lsn, size) for lsn in range(1, 14)]


RECORDS = records()


@cache
def appended(size: Size = SMALL) -> History[Ledger]:
    """Return the oracle: the state after each prefix of the records."""
    history = History(Ledger)
    for each in records(size):
        history.add([each])
    return history


def options_of(durability: Durability = "disk", size: Size = SMALL) -> ManualOptions:
    return ManualOptions(durability=durability, segment_bytes=size.segment_bytes)


def open_small(disk: SimulatedDisk) -> DurableState[Ledger]:
    return DurableState.open(PATH, Ledger(), options=options_of(), disk=disk)


@cache
def history(
    *, closed: bool, journal_id: int = 1, durability: Durability = "disk", size: Size = SMALL
) -> tuple[Files, ...]:
    """Return the journal's files after each step. The result is cached.

    At the end it was `closed`, or killed right after the last commit.
    """
    disk, snapshots = SimulatedDisk(), [Files()]
    for _ in range(journal_id - 1):
        disk.new_id()
    owner = Owner(Ledger, options=options_of(durability, size), disk=disk, path=PATH)

    def append(*lsns: int) -> None:
        owner.append_batch([record(lsn, size) for lsn in lsns])

    def commit() -> None:
        owner.wait()
        snapshots.append(files(disk))

    def put(*lsns: int) -> None:
        append(*lsns)
        commit()

    def compact_and_put(*lsns: int) -> None:
        """Append the records during a compaction, which then appends no filler."""

        def append_before(operation: str, path: str) -> None:
            if operation == "rename":  # the checkpoint is written
                disk.before = None
                append(*lsns)

        disk.before = append_before
        owner.compact()
        commit()

    def close() -> None:
        owner.close()
        snapshots.append(files(disk))

    put(1)
    put(2, 3)
    close()
    owner.reopen()
    put(4)
    compact_and_put(5, 6)
    tear(owner, ["b", 0, "torn" + "x" * size.filler])
    snapshots.append(files(disk))
    owner.reopen()
    put(7)
    put(8, 9)
    put(10)  # in a segment of its own
    compact_and_put(11)
    close()
    owner.reopen()
    put(12)
    put(13)
    if closed:
        close()
    owner.end()
    return tuple(snapshots)


def journal(*, closed: bool, journal_id: int = 1) -> Files:
    """Return the journal's files after the last step."""
    return history(closed=closed, journal_id=journal_id)[-1]


def tear(owner: Owner[Ledger], torn: Record) -> None:
    """Cut the power when half of a commit is on the disk."""
    owner.append(torn)
    owner.disk.crash_after(1)
    with suppress(FailedError):
        owner.close()
    owner.power_cut(lambda change: half(change.data) if b"torn" in change.data else change.data)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


class Place(NamedTuple):
    """The place of a frame or a mark. A mark's `last_lsn` is below its `first_lsn`."""

    start: int
    end: int
    first_lsn: int
    last_lsn: int
    durable_lsn: int


def is_segment(name: str) -> bool:
    return name.endswith(".seg")


def lsn_of(name: str) -> int:
    """Return the first LSN of a segment or the LSN of a checkpoint."""
    return int(name.removeprefix("checkpoint-")[:20])


@cache
def places(data: bytes) -> tuple[Place, ...]:
    seed, at = decode_segment_header(data).seed, SEGMENT_HEADER.size
    frames_and_marks = []
    while decoded := decode_frame(data, at, seed):
        frame, end = decoded
        last_lsn = frame.first_lsn + len(frame.records) - 1
        frames_and_marks.append(Place(at, end, frame.first_lsn, last_lsn, frame.durable_lsn))
        at = end
    return tuple(frames_and_marks)


def marks(data: bytes) -> list[Place]:
    return [place for place in places(data) if place.last_lsn < place.first_lsn]


@lru_cache(4096)
def stated_lsn(name: str, data: bytes) -> int:
    """Return the LSN that a checkpoint states, or that of its name if it does not verify."""
    try:
        return decode_checkpoint(data).lsn
    except (FormatError, ValueError):
        return lsn_of(name)


def proven_by_checkpoints(contents: Files, journal_id: bytes) -> int:
    """Return the highest LSN that the checkpoints prove: that of its name, or, of one that is whole
    and has the name of another one, the LSN that it states. One like that proves nothing if it
    belongs to another journal."""
    names = [name for name in contents if name.startswith("checkpoint-")]
    return max((_proven_by(name, contents[name], journal_id) for name in names), default=0)


def _proven_by(name: str, data: bytes, journal_id: bytes) -> int:
    lsn = stated_lsn(name, data)
    is_misnamed = lsn != lsn_of(name)
    return 0 if is_misnamed and decode_checkpoint(data).journal_id != journal_id else lsn


def misnamed_past_end(contents: Files, next_lsn: int) -> str | None:
    """Return a whole checkpoint under a name that states an LSN from `next_lsn` on, where the log
    has ended."""
    names = sorted(name for name in contents if name.startswith("checkpoint-"))
    past = (n for n in names if lsn_of(n) >= next_lsn and stated_lsn(n, contents[n]) != lsn_of(n))
    return next(past, None)


# --- how it opens ---


Opened = tuple[tuple[str, int, int] | None, int]


def opened(contents: Files) -> Opened:
    """Return the refusal, if there is one, and the last LSN. Check P1, P4 and P6."""
    disk = image(contents)
    try:
        state = open_small(disk)
    except CorruptionError as error:
        assert disk.contents(PATH) == contents, "a refusal changes nothing"
        return (error.path, error.offset, error.lsn), 0
    assert state_of(state.machine) == appended().state(state.journal.last_lsn)
    state.close()
    check_rewrote_nothing(contents, files(disk))
    return None, state.journal.last_lsn


def recovered(contents: Files, *, size: Size = SMALL, leftovers: Collection[str] = ()) -> Opened:
    """Return the same as `opened`, without the threads of an open journal.

    It is fast enough for ten thousand flips. Recovery may remove the files in `leftovers`.
    """
    disk, machine = image(contents), Ledger()
    directory = disk.open_directory(PATH, write=True)
    try:
        with closing(Recovery(directory, keep=2)) as recovery:
            for item in recovery.checkpoint.items() if recovery.checkpoint else ():
                machine.load(item)
            for batch in recovery.batches():
                for lsn, each in enumerate(batch.records, batch.first_lsn):
                    machine.apply(lsn, each)
            recovered_log = recovery.finish()
    except CorruptionError as error:
        assert disk.contents(PATH) == contents, "a refusal changes nothing"
        return (error.path, error.offset, error.lsn), 0
    assert state_of(machine) == appended(size).state(recovered_log.last_lsn)
    check_rewrote_nothing(contents, {**contents, **files(disk)})
    assert not set(contents) - set(disk.contents(PATH)) - set(leftovers)
    return None, recovered_log.last_lsn


def check_rewrote_nothing(before: Files, after: Files) -> None:
    """Check that no file was cut or rewritten, not even a torn tail. Only zeros may be trimmed."""
    kept = {name: data.rstrip(b"\0") for name, data in before.items()}
    assert {name: data.rstrip(b"\0") for name, data in after.items()} == kept


def findings(contents: Files) -> set[tuple[str, tuple[str, int]]]:
    """Return the file, kind and offset of everything that `verify` reports."""
    with JournalReader.open(PATH, disk=image(contents)) as reader:
        return {(f.path.rpartition("/")[2], (f.kind, f.offset)) for f in reader.verify()}


def flip(contents: Files, name: str) -> Iterator[tuple[int, int, Files]]:
    """Yield each bit of a file: its byte, its place in the byte, and all files with it flipped."""
    for offset in range(len(contents[name])):
        for bit in range(8):
            data = bytearray(contents[name])
            data[offset] ^= 1 << bit
            yield offset, bit, {**contents, name: bytes(data)}
