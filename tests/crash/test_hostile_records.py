"""Forged records: which are refused, what reading them costs, and which are accepted (P9)."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from itertools import product
from struct import pack
from typing import Any

import msgpack
import pytest

from journal import CorruptionError, DurableState, Journal, JournalReader
from journal.testing import SimulatedDisk
from tests.crash.crash_support import image
from tests.crash.hostile_forge import frame
from tests.crash.hostile_sources import Files
from tests.crash.hostile_support import Anything, dry_run, read_entries, refusal, verify, watchdog
from tests.independent_reader import SegmentHeader
from tests.support import PATH, options, run
from tests.tiers import slow_but_every, slow_unless

MIB = 1 << 20
OBJECTS = MIB // 32
HEADER = SegmentHeader(bytes(16), 1, 1, 0)


def holding(payload: bytes, count: int = 1) -> Files:
    """Return a journal with one frame of this payload and correct CRCs."""
    return {HEADER.name: HEADER.encode() + frame(HEADER.seed, payload, count=count)}


def open_state(disk: SimulatedDisk) -> Anything:
    machine = Anything()
    DurableState.open(PATH, machine, options=options(), disk=disk).close()
    return machine


class Forgetful(Anything):
    """A state machine that keeps no record."""

    def apply(self, lsn: int, record: Any) -> None: ...


def open_forgetful(disk: SimulatedDisk) -> None:
    DurableState.open(PATH, Forgetful(), options=options(), disk=disk).close()


def pass_over_entries(disk: SimulatedDisk) -> None:
    with JournalReader.open(PATH, disk=disk) as reader:
        for _ in reader.entries():
            pass


def open_journal(disk: SimulatedDisk) -> None:
    with Journal.open(PATH, options=options(), disk=disk) as journal:
        for _ in journal.replay():
            pass


OPENERS: list[Callable[[SimulatedDisk], object]] = [
    open_journal,
    open_state,
    read_entries,
    verify,
    dry_run,
]


def peak_of(opener: Callable[[SimulatedDisk], object], files: Files) -> int:
    """Return the most bytes that an opener had allocated at once, whether it refused or not."""
    disk = image(files)
    tracemalloc.start()
    try:
        with watchdog():
            refusal(lambda: opener(disk))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# --- refused ---

REFUSED = {
    "a byte that msgpack never uses": b"\xc1",
    "a string cut short": b"\xa5ab",
    "invalid UTF-8": b"\xa2\xff\xfe",
    "half a surrogate pair": b"\xa3\xed\xa0\x80",
    "overlong UTF-8": b"\xa2\xc0\x80",
    "a list as a key": b"\x81\x90\xc0",
    "a map as a key": b"\x81\x80\xc0",
    "a timestamp of one byte": b"\xd4\xff\0",
    "a timestamp of no bytes": b"\xc7\0\xff",
    "a timestamp of too many nanoseconds": b"\xd7\xff" + b"\xff" * 8,
    "a timestamp of 96 bits with too many nanoseconds": b"\xc7\x0c\xff" + b"\xff" * 12,
    "a timestamp as a key, cut short": b"\x81\xd7\xff" + b"\0" * 7,
    "an extension with a number reserved for msgpack": b"\xd4\x80x",
    "an extension cut short": b"\xc8\xff\xff\x05x",
}


@pytest.mark.parametrize("payload", REFUSED.values(), ids=REFUSED.keys())
def test_a_payload_that_does_not_unpack_is_corruption(payload: bytes) -> None:
    """P4, P9: A payload with a correct CRC that does not unpack is reported as corruption.

    The writer must have written it like that. Every opener reports it and changes nothing.
    """
    files = holding(payload)
    for opener in (open_journal, open_state, read_entries):
        disk = image(files)
        error = refusal(lambda opener=opener, disk=disk: opener(disk))  # type: ignore[misc]
        assert isinstance(error, CorruptionError)
        assert (error.offset, error.lsn) == (64, 1)
        assert disk.contents(PATH) == files
    assert verify(image(files)) == {"corruption"}
    assert "does not unpack" in str(dry_run(image(files))) or "0 of 1" in str(dry_run(image(files)))


def test_error_messages_stay_short() -> None:
    """P9: An error message about an unreadable record is short, however long the record is."""
    for payload in (b"\xdb\0\1\0\0" + b"\xff" * 65536, b"\x81\xa1x\xdb\0\1\0\0" + b"\xff" * 65536):
        for opener in OPENERS:
            disk = image(holding(payload))
            refusal(lambda opener=opener, disk=disk: opener(disk))  # type: ignore[misc]


# --- accepted ---

ACCEPTED: dict[str, tuple[bytes, str]] = {
    "NaN": (b"\xcb\x7f\xf8\0\0\0\0\0\0", "nan"),
    "infinity in 32 bits": (b"\xca\x7f\x80\0\0", "inf"),
    "a duplicate key, of which the last counts": (b"\x82\x01\x02\x01\x03", "{1: 3}"),
    "keys that are equal: 1, 1.0, true": (
        b"\x83\x01\xa1a\xcb\x3f\xf0\0\0\0\0\0\0\xa1b\xc3\xa1c",
        "{1: 'c'}",
    ),
    "a NUL in a string": (b"\xa3a\0b", "'a\\x00b'"),
    "an empty extension": (b"\xc7\0\x05", "ExtType(code=5, data=b'')"),
    "a timestamp long ago": (
        b"\xc7\x0c\xff\0\0\0\0" + pack(">q", -(2**63)),
        f"Timestamp(seconds={-(2**63)}, nanoseconds=0)",
    ),
    "an overlong integer": (b"\xcf\0\0\0\0\0\0\0\1", "1"),
    "2^64 - 1": (b"\xcf" + b"\xff" * 8, str(2**64 - 1)),
}


@pytest.mark.parametrize(("payload", "expected"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_unusual_msgpack_encodings_are_read(payload: bytes, expected: str) -> None:
    """P9: An encoding that this engine would not write is read as msgpack reads it.

    Every opener agrees on the value.
    """
    files = holding(payload)
    assert [repr(each) for each in open_state(image(files)).records] == [expected]
    assert [entry[2] for entry in read_entries(image(files))] == [expected]
    assert verify(image(files)) <= {"torn_tail"}
    assert dry_run(image(files)) is None


def test_records_are_never_run_as_code() -> None:
    """P9: Extension types, timestamps, and strings that other formats would run are data."""
    pickled = b"cos\nsystem\n(S'true'\ntR."
    payload = b"".join(
        (
            b"\xc7" + bytes([len(pickled)]) + b"\x05" + pickled,
            msgpack.packb(pickled),
            msgpack.packb({"__reduce__": ["os.system", "true"], "py/object": "os.system"}),
        )
    )
    machine = open_state(image(holding(payload, 3)))
    assert machine.records == [
        msgpack.ExtType(5, pickled),
        pickled,
        {"__reduce__": ["os.system", "true"], "py/object": "os.system"},
    ]


# --- cost ---

CLAIMS = {
    **{
        f"{kind} of 4 GiB": head + b"\xff\xff\xff\xff" + b"x" * 100
        for kind, head in {
            "a string": b"\xdb",
            "bytes": b"\xc6",
            "an extension": b"\xc9",
            "a list": b"\xdd",
            "a map": b"\xdf",
        }.items()
    },
    "a list as long as its payload": b"\xdd" + pack(">I", 65536) + b"\xc0" * 65000,
    "a million nested lists": b"\x91" * MIB,
    "a million nested maps": b"\x81\xc0" * MIB,
    "a million maps, each a key of another": b"\x81" * MIB,
    "a million records": b"\xc0" * MIB,
}


@pytest.mark.parametrize("payload", slow_but_every(3, CLAIMS.values()), ids=CLAIMS.keys())
def test_a_claimed_length_takes_no_memory(payload: bytes) -> None:
    """P9: A claimed length or depth is not believed before the bytes are there.

    No opener takes more memory than a few times the payload.
    """
    for opener in OPENERS:
        for count in (1, 2**32 - 1):
            assert peak_of(opener, holding(payload, count)) < 4 * MIB + 20 * len(payload)


*SMALL_CLAIMS, LARGE_CLAIMS = [
    (b"\xdd" + pack(">I", size)) * min(1000, size // 5) + b"\xc0" * max(0, size - 5000)
    for size in (4096, 65536, 4 * MIB)
]


@pytest.mark.parametrize("payload", slow_but_every(3, [*SMALL_CLAIMS, LARGE_CLAIMS]), ids=len)
def test_many_lists_that_each_claim_the_whole_payload_take_bounded_memory(payload: bytes) -> None:
    """P9: A thousand lists that each claim to be as long as the payload take bounded memory.

    Each claim alone may be true. Together, they would take 8,000 times the payload's size.
    """
    for opener in OPENERS:
        assert peak_of(opener, holding(payload)) < 100 * MIB + 20 * len(payload)


@pytest.mark.parametrize(
    ("opener", "code"),
    slow_unless(
        lambda opener, code: opener in (open_forgetful, verify) and code == 0x90,
        product([open_journal, open_forgetful, pass_over_entries, verify], [0x80, 0x90, 0xC0]),
    ),
)
def test_the_smallest_objects_take_bounded_memory(
    opener: Callable[[SimulatedDisk], object], code: int
) -> None:
    """P9: A byte of a frame costs at most one empty object, and one frame is unpacked at a time."""
    payload = bytes([code]) * OBJECTS
    frames = [
        frame(HEADER.seed, payload, lsn=1 + n * OBJECTS, durable_lsn=n * OBJECTS, count=OBJECTS)
        for n in range(3)
    ]
    files = {HEADER.name: HEADER.encode() + b"".join(frames)}
    assert peak_of(opener, files) < 100 * len(payload)
    with Journal.open(PATH, options=options(), disk=image(files)) as journal:
        assert journal.last_lsn == 3 * OBJECTS


OPEN_WITHIN = """
import crc32c, resource, sys
from journal import Journal, JournalError, JournalReader
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + int(sys.argv[2]),) * 2)
try:
    with JournalReader.open(sys.argv[1]) as reader:
        print(sum(1 for _ in reader.entries()))
except JournalError as error:
    print(type(error).__name__)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
@pytest.mark.parametrize(
    "payload",
    slow_but_every(
        3,
        [
            b"\xc6\xff\xff\xff\xff" + b"x" * (16 * MIB),
            b"\xdd\x01\0\0\0" + b"\x91" * (16 * MIB),
            LARGE_CLAIMS + b"\xc0" * (12 * MIB),
        ],
    ),
    ids=["bytes", "depth", "claims"],
)
def test_a_large_forged_frame_is_refused_in_limited_address_space(
    tmp_path: Any, payload: bytes
) -> None:
    """P9: A forged frame of 16 MiB is refused with 512 MiB of address space beyond the start.

    The kernel counts all memory of the process, not only Python's.
    """
    tmp_path.chmod(0o700)
    for name, data in holding(payload).items():
        (tmp_path / name).write_bytes(data)
    answer = run(OPEN_WITHIN, tmp_path, 512 * MIB)
    assert (answer.stdout.strip(), answer.stderr) == ("CorruptionError", "")


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is Linux's")
def test_too_little_memory_is_not_reported_as_damage(tmp_path: Any) -> None:
    """P4: An intact journal that needs more memory than is available is not reported as corrupt.

    A repair would cut away good records.
    """
    tmp_path.chmod(0o700)
    for name, data in holding(b"\x90" * MIB, MIB).items():
        (tmp_path / name).write_bytes(data)
    assert run(OPEN_WITHIN, tmp_path, 2**40).stdout.strip() == str(MIB)
    assert "CorruptionError" not in run(OPEN_WITHIN, tmp_path, 32 * MIB).stdout
