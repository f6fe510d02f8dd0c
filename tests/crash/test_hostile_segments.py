"""Segments that nobody wrote: what headers claim, how long a look takes, absurd names (P9)."""

from __future__ import annotations

import re
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any
from unittest.mock import patch

import pytest
from click.testing import CliRunner
from journal_inspect.commands.cli import cli

from journal import CorruptionError, Journal, JournalReader
from journal._format.layout import EPOCH_MAX
from journal.testing import SimulatedDisk, SimulatedFile
from tests.crash.crash_support import image
from tests.crash.hostile_forge import Files, frame, seal
from tests.crash.hostile_support import (
    READERS,
    dry_run,
    instead,
    read_entries,
    refusal,
    unsigned,
    verify,
    watchdog,
)
from tests.independent_reader import MAGIC, MARK, Checkpoint, SegmentHeader, encode_checkpoint
from tests.support import PATH, options, read_all, reopened

MIB = 1 << 20
HEADER = SegmentHeader(bytes(16), 1, 1, 0)
SEED = HEADER.seed


def holding(data: bytes) -> Files:
    return {HEADER.name: HEADER.encode() + data}


def open_journal(disk: SimulatedDisk) -> None:
    Journal.open(PATH, options=options(), disk=disk).close()


Door = Callable[[SimulatedDisk], object]
DOORS: tuple[Door, ...] = (*READERS, dry_run, open_journal)


class Work:
    """What was asked of the disk: how many bytes were read, and how often each other thing."""

    def __init__(self) -> None:
        self.bytes = 0
        self.calls: Counter[str] = Counter()


@contextmanager
def counted(disk: SimulatedDisk) -> Iterator[Work]:
    work, read = Work(), SimulatedFile.read

    def reading(self: SimulatedFile, size: int, offset: int) -> bytes:
        data = read(self, size, offset)
        work.bytes += len(data)
        return data

    def before(operation: str, _: str) -> None:
        work.calls[operation] += 1

    disk.before = before
    with patch.object(SimulatedFile, "read", reading):
        yield work
    disk.before = None


# --- frames ---

CLAIMS: dict[str, dict[str, Any]] = {
    "4 GiB": {"size": 2**32 - 1},
    "as much as a frame may hold": {"size": 2**26},
    "more than a frame may hold": {"size": 2**26 + 1},
    "4 billion records": {"count": 2**32 - 1},
    "no record": {"count": 0},
    "an LSN of 2^64 - 1": {"lsn": 2**64 - 1, "durable_lsn": 2**64 - 2},
    "durable up to 2^64 - 1": {"durable_lsn": 2**64 - 1},
    "a mark of 4 GiB": {"kind": MARK, "size": 2**32 - 1, "count": 0},
    "kind 255": {"kind": 255},
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS.keys())
@pytest.mark.parametrize("payload", [b"", b"\xc0", b"\xc0" * 5000])
def test_no_claim_of_a_header_takes_memory_or_time(claim: dict[str, Any], payload: bytes) -> None:
    """P9: a header whose CRC is right says what it likes: it is compared with what there is before
    anything is allocated or skipped for it."""
    files = holding(frame(SEED, payload, **claim) + frame(SEED, b"\xc0"))
    for door in DOORS:
        disk = image(files)
        tracemalloc.start()
        with watchdog(), counted(disk) as work:
            refusal(lambda door=door, disk=disk: door(disk))  # type: ignore[misc]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * MIB
        assert work.bytes < 40 * sum(map(len, files.values()))


_BAD_MARK = frame(SEED, lsn=2**63, count=0, kind=MARK)
CRAFTED = {
    "what every header has": b"\1\0\0\0",
    "marks": frame(SEED, count=0, kind=MARK),
    "marks, each behind a bad byte": b"\xff" + frame(SEED, count=0, kind=MARK),
    "marks far ahead, each behind a bad byte": b"\xff" + _BAD_MARK,
    "headers of 64 MiB that are not there": frame(SEED, size=2**26),
    "headers of 200 KB that are there": frame(SEED, size=200_000),
    "headers, each with the next for a damaged payload": frame(SEED, size=44, lsn=5),
    "the same, each behind a bad byte": b"\xff" + frame(SEED, size=44, lsn=5),
    "long zeros, and a bad byte": bytes(1000) + b"\1",
    "long zeros, and a mark ahead": bytes(1000) + _BAD_MARK,
    "records of other frames": frame(SEED, frame(SEED, b"\xc0", lsn=2), payload_crc=0),
}


def check_crafted(piece: bytes, size: int, doors: Iterable[Door]) -> None:
    files = holding(piece * (size // len(piece)))
    for door in doors:
        disk = image(files)
        with watchdog(), counted(disk) as work:
            refusal(lambda door=door, disk=disk: door(disk))  # type: ignore[misc]
        assert work.bytes < 12 * size + 4 * MIB, "it reads the same bytes again and again"


@pytest.mark.parametrize("piece", CRAFTED.values(), ids=CRAFTED.keys())
def test_crafted_headers_are_looked_at_a_few_times_each(piece: bytes) -> None:
    """P9: the search behind damage reads the file a fixed number of times, whatever stands in it:
    no arrangement of headers makes the time grow with the square of it."""
    check_crafted(piece, MIB // 2, DOORS)


@pytest.mark.slow
@pytest.mark.parametrize("piece", CRAFTED.values(), ids=CRAFTED.keys())
def test_sixteen_mib_of_crafted_headers(piece: bytes) -> None:
    """P9: the same for a whole segment of the default size."""
    check_crafted(piece, 16 * MIB, [open_journal])


@pytest.mark.slow
def test_memory_does_not_grow_with_a_segment() -> None:
    """P8, P9: what is no frame is looked through in pieces, however much there is of it."""
    for piece in (b"\1\0\0\0", bytes(999) + b"\1", b"\xff" + _BAD_MARK):
        disk = image(holding(piece * (MIB // len(piece))))
        for door in DOORS:
            tracemalloc.start()
            refusal(lambda door=door: door(disk))  # type: ignore[misc]  # noqa: B023
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < MIB


# --- segment headers ---

FIELDS = [MAGIC, 1, 0, 1, bytes(16), 1, 0, bytes(12)]
HEADERS: dict[str, tuple[int, Any, str]] = {
    "another magic": (0, b"\x89PNG\r\n\x1a\n", "CorruptionError"),
    "version 0": (1, 0, "CorruptionError"),
    "version 2": (1, 2, "FormatVersionError"),
    "version 65535": (1, 65535, "FormatVersionError"),
    "an unknown flag": (2, 2, "CorruptionError"),
    "epoch 0": (3, 0, "CorruptionError"),
    "epoch 2^32 - 1": (3, 2**32 - 1, "CorruptionError"),
    "LSN 0": (5, 0, "CorruptionError"),
    "LSN 2^64 - 1": (5, 2**64 - 1, "CorruptionError"),
    "a year that none is": (6, 2**64 - 1, "NoneType"),
    "no zeros": (7, b"\1" * 12, "CorruptionError"),
}


@pytest.mark.parametrize(("at", "value", "answer"), HEADERS.values(), ids=HEADERS.keys())
def test_impossible_segment_headers_are_refused(at: int, value: Any, answer: str) -> None:
    """P4, P9: a header with the right CRC that says something impossible is refused as what it is,
    by open and by readers, whatever the file is called."""
    fields = [*FIELDS[:at], value, *FIELDS[at + 1 :]]
    own_name = f"{fields[5]:020d}-{fields[3]:010d}.seg"
    for name in {HEADER.name, own_name}:
        files = {name: seal(fields) + b"\1"}
        for door in (open_journal, read_entries):
            error = refusal(lambda door=door: door(image(files)))  # type: ignore[misc]  # noqa: B023
            writes = door is open_journal and fields[3] == EPOCH_MAX
            if name == HEADER.name or 0 in (fields[3], fields[5]) or writes:
                assert type(error).__name__ == answer
            else:
                assert error is None or re.search("begins here|nothing can follow", str(error))
        refusal(lambda files=files: verify(image(files)))  # type: ignore[misc]


# --- names ---


def arabic(name: str) -> str:
    """The same digits, as Python counts them too."""
    return "".join(chr(0x660 + int(c)) if c.isdigit() else c for c in name)


STRANGE = [
    "1-1.seg",
    "00000000000000000001-0000000001.seg.bak",
    " 00000000000000000001-0000000001.seg",
    "00000000000000000001-0000000001.SEG",
    "00000000000000000001-0000000001.seg\n",
    "-0000000000000000001-0000000001.seg",
    "+0000000000000000001-0000000001.seg",
    "0x000000000000000001-0000000001.seg",
    "checkpoint-1.json",
    "checkpoint-00000000000000000001.json\n",
    "\x1b[2J\x1b]0;owned\x07",
    "\udcff\udcfe.seg",
    "..seg",
    "\u202egs.1000000000-10000000000000000000",
]


@pytest.mark.parametrize("name", STRANGE, ids=ascii)
def test_a_name_that_only_looks_like_one_is_a_stray(name: str) -> None:
    """P9: a file whose name is not to the letter one of a journal's is left alone and read by
    nobody; `verify` tells of it."""
    disk = SimulatedDisk()
    with Journal.open(PATH, options=options(), disk=disk) as journal:
        journal.wait_durable(journal.append(1))
    disk.open_directory(PATH, write=True).open(name, "create").write(b"\xff" * 100, 0)
    assert verify(disk) == {"stray"}
    assert reopened(disk) == read_all(disk) == [1]
    assert disk.contents(PATH)[name] == b"\xff" * 100


@pytest.mark.parametrize(
    "name",
    [
        "00000000000000000002-0000000001.seg",
        "00000000000000000009-0000000001.seg",
        "checkpoint-00000000000000000001.json",
    ],
)
def test_digits_of_another_script_make_no_name(name: str) -> None:
    """P5, P9: what no journal writes is a stray, which keeps nobody from opening or repairing."""
    disk = SimulatedDisk()
    with Journal.open(PATH, options=options(), disk=disk) as journal:
        journal.append(1)
        journal.wait_durable(journal.append(2))
    disk.open_directory(PATH, write=True).open(arabic(name), "create")
    assert verify(disk) == {"stray"}
    assert dry_run(disk) is None
    assert reopened(disk) == read_all(disk) == [1, 2]


ABSURD = [
    "99999999999999999999-9999999999.seg",
    "18446744073709551615-4294967295.seg",
    "18446744073709551616-0000000001.seg",
    "00000000000000000003-9999999999.seg",
    "checkpoint-99999999999999999999.json",
    "checkpoint-18446744073709551615.json",
]


@pytest.mark.parametrize("name", ABSURD)
@pytest.mark.parametrize("data", [b"", b"\xff" * 100, HEADER.encode()], ids=["", "ff", "header"])
def test_absurd_numbers_in_a_name_are_refused(name: str, data: bytes) -> None:
    """P4, P9: a name whose number nothing bears out is damage, told with the file; no arithmetic
    on it ends in anything else."""
    disk = SimulatedDisk()
    with Journal.open(PATH, options=options(), disk=disk) as journal:
        journal.wait_durable(journal.append(1))
    disk.open_directory(PATH, write=True).open(name, "create").write(data, 0)
    before = disk.contents(PATH)
    assert isinstance(refusal(lambda: open_journal(disk)), CorruptionError)
    refusal(lambda: read_entries(disk))
    assert verify(disk) & {"corruption", "bad_checkpoint"}
    refusal(lambda: dry_run(disk))
    assert disk.contents(PATH) == before


def test_no_epoch_is_left() -> None:
    """P5, P9: a journal that could not write another segment is refused when it is opened, not
    when something is to be kept."""
    disk = SimulatedDisk()
    with Journal.open(PATH, options=options(), disk=disk) as journal:
        for _ in range(2):
            journal.wait_durable(journal.append(1))
            journal.compact(lambda: (journal.last_lsn, []))
        journal.wait_durable(journal.append(1))
    directory = disk.open_directory(PATH, write=True)
    for name in ("00000000000000000001-4294967295.seg", "00000000000000000001-9999999999.seg"):
        directory.open(name, "create")
        assert isinstance(refusal(lambda: open_journal(disk)), CorruptionError)
        directory.remove(name)


# Of the only frame after a checkpoint of LSN 2^64 - 4: how many records it has, and why it, or the
# log that ends with it, is refused.
LAST_LSNS: dict[str, tuple[int, str | None]] = {
    "2^64 - 3": (1, None),
    "2^64 - 2": (2, "nothing can follow it"),
    "2^64 - 1": (3, "past 18446744073709551614"),
    "2^64": (4, "past 18446744073709551614"),
    "2^64 + 2^32": (2**32 - 1, "past 18446744073709551614"),
}


def ending_late(count: int) -> Files:
    """A journal whose last frame says that it has so many records, and has no more than five."""
    first_lsn = 2**64 - 3
    base = Checkpoint(bytes(16), 1, first_lsn - 1, "2026-01-01T00:00:00.000Z", "", ())
    header = SegmentHeader(bytes(16), 1, first_lsn, 0)
    payload = b"\xc0" * min(count, 5)
    late = frame(header.seed, payload, lsn=first_lsn, durable_lsn=first_lsn - 1, count=count)
    checkpoint = f"checkpoint-{base.lsn:020d}.json"
    return {header.name: header.encode() + late, checkpoint: encode_checkpoint(base)}


@pytest.mark.parametrize(("count", "why"), LAST_LSNS.values(), ids=LAST_LSNS.keys())
def test_no_lsn_is_left(count: int, why: str | None) -> None:
    """P4, P9: a log that ends at the last LSN that 64 bits hold, or past it, is corruption: open,
    a reader, verify, info and a dry run of repair say so alike, and change nothing."""
    files = ending_late(count)
    disk = image(files)
    told = [refusal(lambda door=door: door(disk)) for door in (open_journal, read_entries)]  # type: ignore[misc]
    if why is None:
        assert told == [None, None]
        return
    for error in told:
        assert isinstance(error, CorruptionError)
        assert why in error.what
        assert error.lsn >= 2**64 - 3
    assert verify(disk) == {"corruption"}
    assert dry_run(disk) == str(told[0])
    with instead(disk):
        info = CliRunner().invoke(cli, ["info", PATH])
    assert info.exit_code == 3
    assert unsigned(disk.contents(PATH)) == files


def test_a_segment_in_front_of_all_is_done_without() -> None:
    """P4, P5: nobody needs what ends before LSN 1; `verify` tells of it."""
    disk = SimulatedDisk()
    with Journal.open(PATH, options=options(), disk=disk) as journal:
        journal.wait_durable(journal.append(1))
    name = "00000000000000000000-0000000000.seg"
    disk.open_directory(PATH, write=True).open(name, "create").write(b"\xff", 0)
    assert verify(disk) == {"corruption"}
    assert reopened(disk) == [1]
    assert disk.contents(PATH)[name] == b"\xff"


# --- many of them ---


def many(count: int) -> Files:
    """A journal of so many segments with one record each."""
    files = {}
    for lsn in range(1, count + 1):
        header = SegmentHeader(bytes(16), lsn, lsn, 0)
        payload = frame(header.seed, b"\xc0", lsn=lsn, durable_lsn=lsn - 1)
        files[header.name] = header.encode() + payload
    return files


def test_open_and_verify_list_a_directory_a_few_times() -> None:
    """P8, P9: so their time grows with the number of files, and not with its square."""
    disk = image(many(100))
    for door in (open_journal, verify, dry_run):
        with counted(disk) as work:
            refusal(lambda door=door: door(disk))  # type: ignore[misc]
        assert work.calls["names"] <= 8


@pytest.mark.parametrize("follow", [True, False])
def test_a_reader_lists_a_directory_a_few_times(follow: bool) -> None:
    """P8, P9: the same for entries, and for replay in a journal."""
    disk = image(many(100))
    with counted(disk) as work, JournalReader.open(PATH, disk=disk) as reader:
        entries = reader.entries(follow=follow)
        assert len(list(islice(entries, 100))) == 100
    assert work.calls["names"] <= 8
    with Journal.open(PATH, options=options(), disk=disk) as journal, counted(disk) as work:
        assert len(list(journal.replay())) == 100
    assert work.calls["names"] <= 8


def test_a_directory_full_of_other_files() -> None:
    """P9: what is not the journal's costs its name, and no look at it."""
    disk = image(many(3) | {f"junk-{n:060d}": b"x" for n in range(3000)})
    for door in (read_entries, open_journal, dry_run):
        tracemalloc.start()
        with watchdog(), counted(disk) as work:
            door(disk)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert work.calls["open"] < 30
        assert peak < 3000 * 1000
    assert verify(disk) == {"stray"}
