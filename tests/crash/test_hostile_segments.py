"""Forged segments: the claims of headers, the cost of reading, and absurd names (P9)."""

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
from tests.crash.hostile_forge import frame, seal
from tests.crash.hostile_sources import Files
from tests.crash.hostile_support import (
    READERS,
    default_disk,
    dry_run,
    read_entries,
    refusal,
    unsigned,
    verify,
    watchdog,
)
from tests.independent_reader import MAGIC, MARK, Checkpoint, SegmentHeader, encode_checkpoint
from tests.support import PATH, options, read_all, reopened
from tests.tiers import sample, slow_but_every

MIB = 1 << 20
HEADER = SegmentHeader(bytes(16), 1, 1, 0)
SEED = HEADER.seed


def holding(data: bytes) -> Files:
    return {HEADER.name: HEADER.encode() + data}


def open_journal(disk: SimulatedDisk) -> None:
    Journal.open(PATH, options=options(), disk=disk).close()


Opener = Callable[[SimulatedDisk], object]
OPENERS: tuple[Opener, ...] = (*READERS, dry_run, open_journal)


class Work:
    """A count of the bytes read from the disk, and of each other operation."""

    def __init__(self) -> None:
        self.bytes = 0
        self.calls: Counter[str] = Counter()


@contextmanager
def counted(disk: SimulatedDisk) -> Iterator[Work]:
    work, read = Work(), SimulatedFile.read

    def reading(self: SimulatedFile, size: int, offset: int) -> bytes:
        work.bytes += len(data := read(self, size, offset))
        return data

    disk.before = lambda operation, _: work.calls.update([operation])
    with patch.object(SimulatedFile, "read", reading):
        yield work
    disk.before = None


# --- frames ---

CLAIMS: dict[str, dict[str, Any]] = {
    "4 GiB": {"size": 2**32 - 1},
    "the largest payload": {"size": 2**26},
    "one byte more than the largest payload": {"size": 2**26 + 1},
    "4 billion records": {"count": 2**32 - 1},
    "no record": {"count": 0},
    "an LSN of 2^64 - 1": {"lsn": 2**64 - 1, "durable_lsn": 2**64 - 2},
    "durable up to 2^64 - 1": {"durable_lsn": 2**64 - 1},
    "a mark of 4 GiB": {"kind": MARK, "size": 2**32 - 1, "count": 0},
    "kind 255": {"kind": 255},
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS.keys())
@pytest.mark.parametrize("payload", [b"", b"\xc0", b"\xc0" * 5000])
def test_a_claim_in_a_frame_header_takes_no_memory_or_time(
    claim: dict[str, Any], payload: bytes
) -> None:
    """P9: A claim in a frame header is compared with the bytes that exist before it is used.

    Nothing is allocated or skipped for a claim that is too large, although the header's CRC is
    correct.
    """
    files = holding(frame(SEED, payload, **claim) + frame(SEED, b"\xc0"))
    for opener in OPENERS:
        disk = image(files)
        tracemalloc.start()
        with watchdog(), counted(disk) as work:
            refusal(lambda opener=opener, disk=disk: opener(disk))  # type: ignore[misc]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * MIB
        assert work.bytes < 40 * sum(map(len, files.values()))


_BAD_MARK = frame(SEED, lsn=2**63, count=0, kind=MARK)
CRAFTED = {
    "the bytes that every header has": b"\1\0\0\0",
    "marks": frame(SEED, count=0, kind=MARK),
    "marks, each after a bad byte": b"\xff" + frame(SEED, count=0, kind=MARK),
    "marks far ahead, each after a bad byte": b"\xff" + _BAD_MARK,
    "headers of 64 MiB without payloads": frame(SEED, size=2**26),
    "headers of 200 KB with payloads": frame(SEED, size=200_000),
    "headers, each with the next one as its damaged payload": frame(SEED, size=44, lsn=5),
    "such headers, each after a bad byte": b"\xff" + frame(SEED, size=44, lsn=5),
    "long zeros, and a bad byte": bytes(1000) + b"\1",
    "long zeros, and a mark ahead": bytes(1000) + _BAD_MARK,
    "records of other frames": frame(SEED, frame(SEED, b"\xc0", lsn=2), payload_crc=0),
}


def check_crafted(piece: bytes, size: int, doors: Iterable[Opener]) -> None:
    files = holding(piece * (size // len(piece)))
    for opener in doors:
        disk = image(files)
        with watchdog(), counted(disk) as work:
            refusal(lambda opener=opener, disk=disk: opener(disk))  # type: ignore[misc]
        assert work.bytes < 12 * size + 4 * MIB, "the same bytes are read again and again"


@pytest.mark.parametrize("piece", slow_but_every(3, CRAFTED.values()), ids=CRAFTED.keys())
def test_crafted_headers_are_read_a_few_times_each(piece: bytes) -> None:
    """P9: The search for evidence reads the file a fixed number of times, whatever it contains.

    No arrangement of headers makes the time grow with the square of the file's size.
    """
    check_crafted(piece, MIB // 2, OPENERS)


@pytest.mark.slow
@pytest.mark.parametrize("piece", sample(3, CRAFTED.values()), ids=sample(3, CRAFTED.keys()))
def test_a_segment_of_crafted_headers_is_read_a_few_times(piece: bytes) -> None:
    """P9: The same holds for a whole segment of the default size."""
    check_crafted(piece, 16 * MIB, [open_journal])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_size_of_a_segment() -> None:
    """P8, P9: Bytes that are no frame are searched in pieces, however many there are."""
    for piece in (b"\1\0\0\0", bytes(999) + b"\1", b"\xff" + _BAD_MARK):
        # No header begins with 0xff, so the other half takes no time.
        disk = image(holding((piece * (MIB // 2 // len(piece))).rjust(MIB, b"\xff")))
        for opener in OPENERS:
            tracemalloc.start()
            refusal(lambda opener=opener: opener(disk))  # type: ignore[misc]  # noqa: B023
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
    "a time past the last year": (6, 2**64 - 1, "NoneType"),
    "nonzero reserved bytes": (7, b"\1" * 12, "CorruptionError"),
}


@pytest.mark.parametrize(("at", "value", "answer"), HEADERS.values(), ids=HEADERS.keys())
def test_impossible_segment_headers_are_refused(at: int, value: Any, answer: str) -> None:
    """P4, P9: Open and readers refuse an impossible segment header with a correct CRC.

    The file's name does not matter.
    """
    fields = [*FIELDS[:at], value, *FIELDS[at + 1 :]]
    own_name = f"{fields[5]:020d}-{fields[3]:010d}.seg"
    for name in {HEADER.name, own_name}:
        files = {name: seal(fields) + b"\1"}
        for opener in (open_journal, read_entries):
            error = refusal(lambda opener=opener: opener(image(files)))  # type: ignore[misc]  # noqa: B023
            writes = opener is open_journal and fields[3] == EPOCH_MAX
            if name == HEADER.name or 0 in (fields[3], fields[5]) or writes:
                assert type(error).__name__ == answer
            else:
                assert error is None or re.search("begins here|nothing can follow", str(error))
        refusal(lambda files=files: verify(image(files)))  # type: ignore[misc]


# --- names ---


def arabic(name: str) -> str:
    """Return `name` with its digits in Arabic script, which Python also counts as digits."""
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
def test_a_name_that_only_resembles_a_segments_is_a_stray(name: str) -> None:
    """P9: A file whose name is not exactly one of a journal's names is never read or changed.

    `verify` reports it as stray.
    """
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
def test_a_name_with_digits_of_another_script_is_a_stray(name: str) -> None:
    """P5, P9: A name with other digits is a stray file, and stops neither open nor repair."""
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
    """P4, P9: A name with an absurd number is reported as damage of that file.

    No arithmetic on the number raises any other error.
    """
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


def test_a_journal_without_a_free_epoch_is_refused_at_open() -> None:
    """P5, P9: A journal that can't write another segment is refused at open, not at an append."""
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


# The number of records in the only frame after a checkpoint of LSN 2^64 - 4, and the reason for
# which the frame, or the log that ends with it, is refused.
LAST_LSNS: dict[str, tuple[int, str | None]] = {
    "2^64 - 3": (1, None),
    "2^64 - 2": (2, "nothing can follow it"),
    "2^64 - 1": (3, "past 18446744073709551614"),
    "2^64": (4, "past 18446744073709551614"),
    "2^64 + 2^32": (2**32 - 1, "past 18446744073709551614"),
}


def ending_late(count: int) -> Files:
    """Return a journal whose last frame claims `count` records and has at most five."""
    first_lsn = 2**64 - 3
    base = Checkpoint(bytes(16), 1, first_lsn - 1, "2026-01-01T00:00:00.000Z", "", ())
    header = SegmentHeader(bytes(16), 1, first_lsn, 0)
    payload = b"\xc0" * min(count, 5)
    late = frame(header.seed, payload, lsn=first_lsn, durable_lsn=first_lsn - 1, count=count)
    checkpoint = f"checkpoint-{base.lsn:020d}.json"
    return {header.name: header.encode() + late, checkpoint: encode_checkpoint(base)}


@pytest.mark.parametrize(("count", "reason"), LAST_LSNS.values(), ids=LAST_LSNS.keys())
def test_a_log_that_ends_at_the_last_lsn_is_corrupt(count: int, reason: str | None) -> None:
    """P4, P9: A log that ends at the last LSN that fits in 64 bits, or after it, is corrupt.

    Open, a reader, verify, info and a dry run of repair agree, and change nothing.
    """
    files = ending_late(count)
    disk = image(files)
    openers = open_journal, read_entries
    errors = [refusal(lambda opener=opener: opener(disk)) for opener in openers]  # type: ignore[misc]
    if reason is None:
        assert errors == [None, None]
        return
    for error in errors:
        assert isinstance(error, CorruptionError)
        assert reason in error.what
        assert error.lsn >= 2**64 - 3
    assert verify(disk) == {"corruption"}
    assert dry_run(disk) == str(errors[0])
    with default_disk(disk):
        info = CliRunner().invoke(cli, ["info", PATH])
    assert info.exit_code == 3
    assert unsigned(disk.contents(PATH)) == files


def test_a_segment_that_ends_before_lsn_1_is_ignored() -> None:
    """P4, P5: No record needs a segment that ends before LSN 1. `verify` reports it."""
    disk = SimulatedDisk()
    with Journal.open(PATH, options=options(), disk=disk) as journal:
        journal.wait_durable(journal.append(1))
    name = "00000000000000000000-0000000000.seg"
    disk.open_directory(PATH, write=True).open(name, "create").write(b"\xff", 0)
    assert verify(disk) == {"corruption"}
    assert reopened(disk) == [1]
    assert disk.contents(PATH)[name] == b"\xff"


# --- many segments ---


def many(count: int) -> Files:
    """Return a journal of `count` segments with one record each."""
    headers = [SegmentHeader(bytes(16), lsn, lsn, 0) for lsn in range(1, count + 1)]
    return {
        header.name: header.encode()
        + frame(header.seed, b"\xc0", lsn=header.first_lsn, durable_lsn=header.first_lsn - 1)
        for header in headers
    }


def test_open_and_verify_list_a_directory_a_few_times() -> None:
    """P8, P9: The time to open or verify grows with the number of files, not with its square."""
    disk = image(many(100))
    for opener in (open_journal, verify, dry_run):
        with counted(disk) as work:
            refusal(lambda opener=opener: opener(disk))  # type: ignore[misc]
        assert work.calls["names"] <= 8


@pytest.mark.parametrize("follow", [True, False])
def test_a_reader_lists_a_directory_a_few_times(follow: bool) -> None:
    """P8, P9: The same holds for entries, and for replay in a journal."""
    disk = image(many(100))
    with counted(disk) as work, JournalReader.open(PATH, disk=disk) as reader:
        entries = reader.entries(follow=follow)
        assert len(list(islice(entries, 100))) == 100
    assert work.calls["names"] <= 8
    with Journal.open(PATH, options=options(), disk=disk) as journal, counted(disk) as work:
        assert len(list(journal.replay())) == 100
    assert work.calls["names"] <= 8


def test_files_of_others_are_not_opened() -> None:
    """P9: A file that is not the journal's costs only the listing of its name. It is never
    opened."""
    disk = image(many(3) | {f"junk-{n:060d}": b"x" for n in range(3000)})
    for opener in (read_entries, open_journal, dry_run):
        tracemalloc.start()
        with watchdog(), counted(disk) as work:
            opener(disk)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert work.calls["open"] < 30
        assert peak < 3000 * 1000
    assert verify(disk) == {"stray"}
